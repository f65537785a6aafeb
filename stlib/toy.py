"""The toy tissue: slides, counts and the truth behind them, as functions of a seed.

Each patient has a block: continuous fields of cell types in (x, y, z) um, from which every section is cut,
moved by a known transform, painted as H&E and measured. The log rate of gene g at spot s of patient p is

    log rate = base_g + visible_sg + hidden_sg + patient_pg

    visible   log of the mixture of cell-type profiles, weighed by the fractions under the spot; stroma has two
              profiles, for tumour near (within `CONTEXT_UM`) and far: the slide shows it, the region explains it
    hidden    gene loadings times smooth gradients of the block: only a neighbouring section shows them
    patient   one offset per patient and gene: only a known section of the patient shows it

The three are scaled over the whole dataset, so that their variances, averaged over genes, are
`share * sd ** 2`. Counts are negative binomial: mean depth_s * rate, variance mean + dispersion * mean ** 2.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from pydantic import Field, model_validator
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline
from scipy.spatial import cKDTree

from stlib.params import Patients, Record, Spot

TYPES = ("tumour", "stroma", "immune", "fat")
CONTEXT_UM = 400  # radius in which tumour counts as near
MARKERS = ("ERBB2", "MDK")  # high in tumour, as in breast cancer
FACTORS = 3  # hidden gradients per block
GOLDEN = np.pi * (3 - np.sqrt(5))  # angle between neighbours of a sunflower


class Options(Record):
    """All numbers of the tissue; lengths in um."""

    seed: int
    genes: int = Field(gt=len(MARKERS))
    um_per_px: float = Field(gt=0)
    size_px: int = Field(gt=0)  # side of the slide
    radius_um: float = Field(gt=0)  # of the tissue, before its outline is made irregular
    spacing_um: float = Field(gt=0)  # between serial sections
    rotation_deg: float = Field(ge=0)  # largest, to either side
    shift_um: float = Field(ge=0)  # largest
    warp_um: float = Field(ge=0)  # root mean square
    shares: dict[str, float]  # of the variance of the log rate: visible, hidden, patient
    sd: float = Field(ge=0)  # of the log rate over spots, averaged over genes
    base_sd: float = Field(ge=0)  # of the genes' base levels (natural log)
    depth: float = Field(gt=0)  # median counts of a spot
    depth_sd: float = Field(ge=0)  # of its natural log
    dispersion: float = Field(gt=0)

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        if set(self.shares) != {"visible", "hidden", "patient"} or not np.isclose(sum(self.shares.values()), 1):
            raise ValueError(f"shares: visible, hidden and patient must sum to 1, found {self.shares}")
        return self


# -- the block -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waves:
    """A smooth random function of places (..., D): mean 0, variance 1, a sum of K cosines."""

    vectors: np.ndarray  # (K, D), rad per um
    phases: np.ndarray  # (K,)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        angles = points @ self.vectors.T + self.phases  # (..., K)
        return np.cos(angles).sum(-1) * np.sqrt(2 / len(self.phases))


def draw_waves(rng: np.random.Generator, wavelength_um: float, *, stretch: float = 1, axes: int = 3) -> Waves:
    """Draw 24 waves around a wavelength, `stretch` times longer along z."""
    vectors = rng.normal(size=(24, axes))
    vectors *= 2 * np.pi / wavelength_um * rng.uniform(0.8, 1.25, (24, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:, 2:] /= stretch
    return Waves(vectors, rng.uniform(0, 2 * np.pi, 24))


class Block:
    """One patient's tissue: functions of places (..., 3) in um, the origin in its middle.

    Attributes
    ----------
    gland, fibre
        Waves that only the painter looks at: lumina, and the course of collagen.
    hidden
        The waves of the gradients no slide shows.
    stain
        Strength of haematoxylin and eosin.
    """

    def __init__(self, rng: np.random.Generator, radius_um: float) -> None:
        self.radius_um = radius_um
        self.outline = draw_waves(rng, 1500, stretch=3)
        self.tumour = draw_waves(rng, 1300, stretch=1.5)
        self.gland = draw_waves(rng, 200, stretch=2)
        self.immune = draw_waves(rng, 600, stretch=1.5)
        self.fat = draw_waves(rng, 1200, stretch=1.5)
        self.fibre = draw_waves(rng, 900, stretch=2)
        self.hidden = [draw_waves(rng, 1250, stretch=2) for _ in range(FACTORS)]
        self.stain = rng.uniform(0.8, 1.25, 2)

    def margin_um(self, points: np.ndarray) -> np.ndarray:
        """Return how far inside the tissue a place lies, about; negative outside."""
        radius = self.radius_um * (1 + 0.12 * np.tanh(self.outline(points)))
        return radius - np.linalg.norm(points[..., :2], axis=-1)

    def cell_types(self, points: np.ndarray) -> np.ndarray:
        """Return the fractions of `TYPES` at each place (..., 4)."""
        tumour, immune, fat = self.tumour(points), self.immune(points), self.fat(points)
        border = np.exp(-((tumour / 0.5) ** 2))  # lymphocytes gather where tumour meets stroma
        logits = [
            5 * (tumour + 0.5 * self.gland(points)),
            np.zeros_like(tumour),
            4 * (immune + border - 1.6),
            6 * (fat - 0.7 * tumour - 0.9),
        ]
        odds = np.exp(np.stack(logits, -1))
        return odds / odds.sum(-1, keepdims=True)

    def mixture(self, points: np.ndarray, radius_um: float) -> np.ndarray:
        """Return the fractions (N, 5) within discs around places (N, 3); the fifth is stroma near tumour."""
        types = self.cell_types(sunflower(points, radius_um, 24)).mean(1)  # (N, 4)
        around = sunflower(points, CONTEXT_UM, 60)
        tumour = (self.cell_types(around)[..., 0] * (self.margin_um(around) > 0)).mean(1)
        near = types[:, 1] * np.clip((tumour - 0.1) / 0.4, 0, 1)
        return np.column_stack([types[:, 0], types[:, 1] - near, types[:, 2:], near])

    def gradients(self, points: np.ndarray) -> np.ndarray:
        """Return the hidden factors at each place (..., FACTORS)."""
        return np.stack([factor(points) for factor in self.hidden], -1)


def sunflower(points: np.ndarray, radius_um: float, number: int) -> np.ndarray:
    """Return places that fill a horizontal disc around each point evenly (N, number, 3)."""
    n = np.arange(number) + 0.5
    r = radius_um * np.sqrt(n / number)
    disc = np.column_stack([r * np.cos(n * GOLDEN), r * np.sin(n * GOLDEN), 0 * n])
    return points[:, None] + disc


# -- the cut ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Where a section lies in its block: slide (px) -> rotate, shift, warp -> block (um), and back."""

    z_um: float
    um_per_px: float
    centre_px: float
    rotation: np.ndarray  # (2, 2)
    shift_um: np.ndarray  # (2,)
    warp_um: float
    waves: tuple[Waves, Waves]  # of the warp along x and y

    def to_block(self, px: np.ndarray) -> np.ndarray:
        """Map places on the slide (..., 2), level-0 px, to the block (..., 2), um."""
        rigid = (px - self.centre_px) * self.um_per_px @ self.rotation.T + self.shift_um
        return rigid + self._warp(rigid)

    def to_slide(self, um: np.ndarray) -> np.ndarray:
        """Map places in the block (..., 2), um, to the slide (..., 2), level-0 px."""
        rigid = um
        for _ in range(50):  # a contraction: the warp changes by far less than 1 um per um
            rigid = um - self._warp(rigid)
        return (rigid - self.shift_um) @ self.rotation / self.um_per_px + self.centre_px

    def places(self, px: np.ndarray) -> np.ndarray:
        """Return the places in the block (..., 3), um, z included."""
        um = self.to_block(px)
        return np.concatenate([um, np.full((*um.shape[:-1], 1), self.z_um)], -1)

    def _warp(self, um: np.ndarray) -> np.ndarray:
        return self.warp_um / np.sqrt(2) * np.stack([wave(um) for wave in self.waves], -1)


def draw_cut(rng: np.random.Generator, options: Options, layer: int) -> Cut:
    """Draw the transform of one section."""
    angle = np.deg2rad(rng.uniform(-1, 1) * options.rotation_deg)
    way = rng.uniform(0, 2 * np.pi)
    return Cut(
        z_um=layer * options.spacing_um,
        um_per_px=options.um_per_px,
        centre_px=options.size_px / 2,
        rotation=np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]),
        shift_um=rng.uniform(0, options.shift_um) * np.array([np.cos(way), np.sin(way)]),
        warp_um=options.warp_um,
        waves=(draw_waves(rng, 1400, axes=2), draw_waves(rng, 1400, axes=2)),
    )
