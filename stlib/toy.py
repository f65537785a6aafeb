"""The toy tissue: slides, counts and the truth behind them, as functions of a seed.

Each patient has a block: continuous fields of cell types in (x, y, z) um, from which every section is cut,
moved by a known transform, painted as H&E and measured. The log rate of gene g at spot s of patient p is

    log rate = base_g + visible_sg + hidden_sg + patient_pg

    visible   log of the mixture of cell-type profiles, weighed by the fractions under the spot; stroma has
              two profiles, for tumour near (within `CONTEXT_UM`) and far, which only the region tells
    hidden    gene loadings times smooth gradients of the block: only a neighbouring section shows them
    patient   one offset per patient and gene: only a known section of the patient shows it

The three are scaled over the whole dataset, so that their variances, averaged over genes, are
`share * sd ** 2`. Counts are negative binomial: mean depth_s * rate, variance mean + dispersion * mean ** 2.
"""

from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from stlib.params import Patients, Spot
from stlib.records import Record

TYPES = ("tumour", "stroma", "immune", "fat")
CONTEXT_UM = 400  # radius in which tumour counts as near
MARKERS = ("ERBB2", "MDK")  # high in tumour, as in breast cancer
FACTORS = 3  # hidden gradients per block
PARTS = ("visible", "hidden", "patient")
PURPOSES = ("genes", "block", "cut", "slide", "counts")  # each with its own random numbers
GOLDEN = np.pi * (3 - np.sqrt(5))  # angle between neighbours of a sunflower


class Options(Record):
    """All numbers of the tissue; lengths in um."""

    seed: int
    first: PositiveInt = 1  # patient's number: beyond another dataset's last, its genes are in other people
    genes: int = Field(gt=len(MARKERS))
    um_per_px: PositiveFloat
    size_px: PositiveInt  # side of the slide
    radius_um: PositiveFloat  # of the tissue, before its outline is made irregular
    spacing_um: PositiveFloat  # between serial sections
    rotation_deg: NonNegativeFloat  # largest, to either side
    shift_um: NonNegativeFloat  # largest
    warp_um: NonNegativeFloat  # root mean square
    shares: dict[str, float]  # of the variance of the log rate; keys as PARTS
    sd: NonNegativeFloat  # of the log rate over spots, averaged over genes
    base_sd: NonNegativeFloat  # of the genes' base levels (natural log)
    depth: PositiveFloat  # median counts of a spot
    depth_sd: NonNegativeFloat  # of its natural log
    dispersion: PositiveFloat

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        if set(self.shares) != set(PARTS) or not np.isclose(sum(self.shares.values()), 1):
            raise ValueError(f"shares: visible, hidden and patient must sum to 1, found {self.shares}")
        return self


# -- the block -----------------------------------------------------------------------------------------------


class Waves:
    """A smooth random function of places (..., axes): mean 0, variance 1, the sum of 24 cosines.

    Wavelengths lie around `wavelength_um`, and along z they are `stretch` times longer.
    """

    def __init__(
        self, rng: np.random.Generator, wavelength_um: float, stretch: float = 1, axes: int = 3
    ) -> None:
        direction = rng.normal(size=(24, axes))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        direction[:, 2:] /= stretch
        self.vectors = 2 * np.pi / wavelength_um * rng.uniform(0.8, 1.25, (24, 1)) * direction  # rad per um
        self.phases = rng.uniform(0, 2 * np.pi, 24)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the values (...) at places (..., axes)."""
        return np.cos(points @ self.vectors.T + self.phases).sum(-1) * np.sqrt(2 / 24)


class Block:
    """One patient's tissue: functions of places (..., 3) in um, the origin in its middle.

    Attributes
    ----------
    outline, tumour, gland, immune, fat
        Waves that shape the tissue.
    fibre, stain
        Course of collagen, and strength of haematoxylin and eosin in R, G and B (2, 3); for the painter.
    hidden
        Waves of the gradients that no slide shows.
    """

    def __init__(self, rng: np.random.Generator, radius_um: float) -> None:
        self.radius_um = radius_um
        self.outline = Waves(rng, 1500, stretch=3)
        self.tumour = Waves(rng, 1300, stretch=1.5)
        self.gland = Waves(rng, 200, stretch=2)
        self.immune = Waves(rng, 600, stretch=1.5)
        self.fat = Waves(rng, 1200, stretch=1.5)
        self.fibre = Waves(rng, 600, stretch=2)
        self.hidden = [Waves(rng, 1250, stretch=2) for _ in range(FACTORS)]
        self.stain = rng.uniform(0.75, 1.3, (2, 1)) * rng.uniform(0.88, 1.12, (2, 3))

    def margin_um(self, points: np.ndarray) -> np.ndarray:
        """Return how far inside the tissue a place lies, about; negative outside."""
        radius = self.radius_um * (1 + 0.12 * np.tanh(self.outline(points)))
        return radius - np.linalg.norm(points[..., :2], axis=-1)

    def cell_types(self, points: np.ndarray) -> np.ndarray:
        """Return the fractions of `TYPES` at each place (..., 4)."""
        tumour, immune, fat = self.tumour(points), self.immune(points), self.fat(points)
        border = np.exp(-((tumour / 0.5) ** 2))  # lymphocytes gather where tumour meets stroma
        logits = [
            4 * (tumour + 0.8 * self.gland(points) - 0.3),
            np.zeros_like(tumour),
            4 * (immune + border - 1.6),
            6 * (fat - 0.7 * tumour - 0.9),
        ]
        odds = np.exp(np.stack(logits, -1))
        return odds / odds.sum(-1, keepdims=True)

    def mixture(self, points: np.ndarray, radius_um: float) -> np.ndarray:
        """Return the fractions (N, 5) within discs around places (N, 3); the fifth is stroma near tumour."""
        types = self.cell_types(sunflower(points, radius_um, 24)).mean(1)  # (N, 4)
        near = types[:, 1] * np.clip((self.tumour_around(points) - 0.1) / 0.4, 0, 1)
        return np.column_stack([types[:, 0], types[:, 1] - near, types[:, 2:], near])

    def tumour_around(self, points: np.ndarray) -> np.ndarray:
        """Return the share of tumour within `CONTEXT_UM` around places (N, 3)."""
        around = sunflower(points, CONTEXT_UM, 60)
        return (self.cell_types(around)[..., 0] * (self.margin_um(around) > 0)).mean(1)

    def gradients(self, points: np.ndarray) -> np.ndarray:
        """Return the hidden factors at each place (..., FACTORS)."""
        return np.stack([factor(points) for factor in self.hidden], -1)


def sunflower(points: np.ndarray, radius_um: float, number: int) -> np.ndarray:
    """Return places that fill a horizontal disc around each point evenly (N, number, 3)."""
    n = np.arange(number) + 0.5
    r = radius_um * np.sqrt(n / number)
    disc = np.column_stack([r * np.cos(n * GOLDEN), r * np.sin(n * GOLDEN), 0 * n])
    return points[:, None] + disc


# -- the cut -------------------------------------------------------------------------------------------------


class Cut:
    """Where a section lies in its block: slide (px) -> rotate, shift, warp -> block (um), and back."""

    def __init__(self, rng: np.random.Generator, options: Options, layer: int) -> None:
        self.z_um = layer * options.spacing_um
        self.um_per_px, self.centre_px = options.um_per_px, options.size_px / 2
        angle, way = np.deg2rad(rng.uniform(-1, 1) * options.rotation_deg), rng.uniform(0, 2 * np.pi)
        self.rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.shift_um = rng.uniform(0, options.shift_um) * np.array([np.cos(way), np.sin(way)])
        self.warp_um = options.warp_um
        self.waves = [Waves(rng, 1400, axes=2) for _ in "xy"]

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


# -- the measurement -----------------------------------------------------------------------------------------


class Toy:
    """The whole dataset: blocks, cuts, genes, and what is measured on them.

    Parameters
    ----------
    sections
        Patient -> its sections in cutting order.
    spot
        Size and pitch; the spots lie on a square array in the middle of each slide.

    Attributes
    ----------
    BLOCK
        What a patient's tissue is made of.
    blocks, cuts
        Patient -> its tissue; section -> where it lies in the tissue (the answer a registration seeks).
    patient_of
        Section -> patient.
    genes, base
        Names and base levels (natural log) of the genes (M,).
    """

    BLOCK: ClassVar[type[Block]] = Block

    def __init__(self, options: Options, sections: Patients, spot: Spot) -> None:
        if len(sections) < 2:
            raise ValueError(
                f"the toy tissue has a patient effect, so it needs two patients, found {list(sections)}"
            )
        self.options, self.spot = options, spot
        self.patient_of = {name: patient for patient, names in sections.items() for name in names}
        self._key = {}  # patient -> (number, 0), section -> (number of the patient, layer)
        for p, (patient, names) in enumerate(sections.items(), options.first):
            self._key |= {name: (p, layer) for layer, name in enumerate([patient, *names])}
        self.blocks = {name: self.BLOCK(self.random("block", name), options.radius_um) for name in sections}
        self.cuts = {
            name: Cut(self.random("cut", name), options, self._key[name][1]) for name in self.patient_of
        }
        number = options.genes - len(MARKERS)
        self.genes = np.array([*MARKERS, *(f"TG{n:03d}" for n in range(1, number + 1))])
        rng = self.random("genes")
        high = np.full(len(MARKERS), options.base_sd)
        self.base = np.concatenate([high, rng.normal(0, options.base_sd, number)])
        in_tumour = np.tile([[2.0], [-0.5], [-0.5], [-0.5], [-0.5]], len(MARKERS))
        self._profile = np.concatenate([in_tumour, rng.normal(size=(5, number))], 1)  # as Block.mixture
        self._loading = rng.normal(size=(FACTORS, options.genes))
        before = options.first - 1
        offsets = rng.normal(size=(before + len(sections), options.genes))[before:]
        self._offset = dict(zip(sections, offsets, strict=True))

    def random(self, purpose: str, name: str = "") -> np.random.Generator:
        """Return the stream of random numbers that belongs to a purpose, and to a patient or section."""
        key = self._key[name] if name else (0, 0)
        return np.random.default_rng([self.options.seed, PURPOSES.index(purpose), *key])

    def layout(self) -> tuple[np.ndarray, np.ndarray]:
        """Return array (P, 2: column, row) and position (P, 2: level-0 px) of all spots, tissue or not."""
        size, pitch = self.options.size_px, self.spot.pitch_um / self.options.um_per_px
        side = int(size // pitch)
        array = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
        return array, size / 2 + (array - (side - 1) / 2) * pitch

    def spots(self, section: str) -> tuple[np.ndarray, np.ndarray]:
        """Return array (N, 2) and position (N, 2) of the spots under tissue, see `layout`."""
        array, position = self.layout()
        disc = sunflower(self.cuts[section].places(position), self.spot.size_um / 2, 24)
        under = (self.blocks[self.patient_of[section]].margin_um(disc) > 0).mean(1) > 0.5
        return array[under], position[under]

    def places(self, section: str) -> np.ndarray:
        """Return where the spots lie in the block (N, 3), um."""
        return self.cuts[section].places(self.spots(section)[1])

    def regions(self, section: str) -> np.ndarray:
        """Return the cell type that is most frequent under each spot (N,)."""
        mixture = self.blocks[self.patient_of[section]].mixture(self.places(section), self.spot.size_um / 2)
        types = np.column_stack([mixture[:, 0], mixture[:, 1] + mixture[:, 4], mixture[:, 2:4]])
        return np.array(TYPES)[types.argmax(1)]

    def parts(self, patient: str, places: np.ndarray, radius_um: float) -> np.ndarray:
        """Return visible, hidden and patient part of the log rate (3, N, M), at the scale of the dataset.

        Parameters
        ----------
        places
            Centres in the block (N, 3), um.
        radius_um
            Of the disc over which cell types are averaged.
        """
        mean, scale = self._standard
        return (self._raw(patient, places, radius_um) - mean) * scale

    def _raw(self, patient: str, places: np.ndarray, radius_um: float) -> np.ndarray:
        block = self.blocks[patient]
        visible = np.log(block.mixture(places, radius_um) @ np.exp(self._profile))
        hidden = block.gradients(places) @ self._loading
        return np.stack([visible, hidden, np.broadcast_to(self._offset[patient], hidden.shape)])

    @cached_property
    def _at_spots(self) -> dict[str, np.ndarray]:
        """Section -> the three parts at its spots (3, N, M), before they are scaled."""
        radius = self.spot.size_um / 2
        return {name: self._raw(p, self.places(name), radius) for name, p in self.patient_of.items()}

    @cached_property
    def _standard(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean of each part and gene (3, 1, M) and scale of each part (3, 1, 1) over all spots."""
        raw = np.concatenate(list(self._at_spots.values()), 1)
        wanted = np.array([self.options.shares[part] for part in PARTS]) * self.options.sd**2
        found = raw.var(1).mean(1)  # (3,)
        return raw.mean(1, keepdims=True), np.sqrt(wanted / found)[:, None, None]

    def measure(self, section: str) -> tuple[np.ndarray, np.ndarray]:
        """Return counts (N, M) and the expected counts they were drawn from, depth included (N, M)."""
        mean, scale = self._standard
        parts = (self._at_spots[section] - mean) * scale
        rate = np.exp(self.base + parts.sum(0)) / np.exp(self.base + self.options.sd**2 / 2).sum()
        rng = self.random("counts", section)
        rate *= self.options.depth * np.exp(rng.normal(0, self.options.depth_sd, (len(rate), 1)))
        shape = 1 / self.options.dispersion
        return rng.negative_binomial(shape, shape / (shape + rate)), rate
