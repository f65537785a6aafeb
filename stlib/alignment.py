"""Where a slide lies on another: maps between them, and the file that keeps them.

Places are edge-based pixels (x right, y down). A matrix (2, 3) maps a place p to
matrix[:, :2] @ p + matrix[:, 2]. A map may end in a smooth `Field`, and go on through a neighbour.
How maps are found is the matter of `stlib.registration`; what only uses them needs no image library.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
from scipy import ndimage

from stlib import paths
from stlib.fingerprint import seal, sealed

INVERSE_UM = 1e-4  # where the way back stops
ROUND = 4  # decimals of a field's nodes, um: what is kept is what is used
LEAST_STRETCH = 1e-3  # singular values that agree to this part leave a circle a circle


@dataclass(frozen=True)
class Score:
    """How well two sections agree under a map."""

    overlap: float = 0.0  # IoU of the tissue masks, 0 to 1
    similarity: float = 0.0  # correlation of the smoothed stain densities in their intersection, -1 to 1
    detail: float = 0.0  # mean of such in small windows, -1 to 1: what outline and gradient cannot feign
    information: float = 0.0  # mutual information of the smoothed densities, nats

    @property
    def total(self) -> float:
        """What maps are compared by."""
        return self.overlap + self.similarity + self.detail


@dataclass(frozen=True)
class Stage:
    """What one step did: the score before it and of what it proposed, and whether that was taken over.

    `inliers` is the number of feature matches that agree. `note` says why a step had nothing to propose, or
    what is special about it.
    """

    name: str
    before: Score
    after: Score
    accepted: bool
    inliers: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Field:
    """A smooth displacement of places in um: cubic B-splines on a square grid, constant beyond its edge."""

    origin_um: np.ndarray  # place of the first node (2,)
    spacing_um: float  # between nodes
    nodes: np.ndarray  # coefficients (rows, columns, 2: x and y), um

    def forward(self, places: np.ndarray) -> np.ndarray:
        """Move places (..., 2), um."""
        index = ((places - self.origin_um) / self.spacing_um)[..., ::-1]
        index = np.moveaxis(index, -1, 0)  # (2: row and column, ...)
        moved = np.array(places, np.float64)
        for axis in (0, 1):
            moved[..., axis] += ndimage.map_coordinates(
                self.nodes[..., axis], index, order=3, mode="nearest", prefilter=False
            )
        return moved

    def backward(self, places: np.ndarray) -> np.ndarray:
        """Return the places (..., 2), um, that `forward` moves here.

        Fixed-point iteration; it contracts by `strain` in each step.

        Raises
        ------
        ValueError
            If the field folds, so that there is no way back.
        """
        places = np.asarray(places, np.float64)
        found = places.copy()
        for _ in range(100):
            error = places - self.forward(found)
            found += error
            if not error.size or np.abs(error).max() < INVERSE_UM:
                return found
        raise ValueError(f"a field has a way back where it strains by less than 1, found {self.strain:.2f}")

    def damped(self, share: float) -> "Field":
        """Return the field that moves each place by a share (0 to 1) of the way."""
        return replace(self, nodes=(share * self.nodes).round(ROUND))

    @cached_property
    def strain(self) -> float:
        """The largest change of displacement per distance (spectral norm); below 1 nothing folds."""
        rows, columns = (np.arange(-1, 4 * n) / 4 for n in self.nodes.shape[:2])
        at = self.origin_um + np.stack(np.meshgrid(columns, rows), -1) * self.spacing_um
        step = 0.01 * self.spacing_um
        slope = [(self.forward(at + e) - self.forward(at - e)) / (2 * step) for e in np.eye(2) * step]
        change = np.stack(slope, -1) - np.eye(2)  # (rows, columns, 2, 2)
        return float(np.linalg.norm(change, 2, axis=(-2, -1)).max())


@dataclass(frozen=True)
class Registration:
    """Where a slide lies in its stack: matrix, then field, then on through the neighbour it aligns to."""

    matrix: np.ndarray  # its px -> px of the neighbour (2, 3), level 0 where slides were given
    um_per_px: np.ndarray  # scale of the neighbour along x and y (2,)
    stages: tuple[Stage, ...] = ()  # what was tried, in order
    ok: bool = True  # whether the alignment is proven; if not, `message` says what is missing
    message: str = ""
    section: str = ""  # name of the slide, where sections were given
    field: Field | None = None  # what the matrix leaves, in um in the neighbour's frame
    onward: "Registration | None" = None  # the neighbour's own map; None where that is the middle section

    def to_um(self, position: np.ndarray) -> np.ndarray:
        """Return places (..., 2) of the slide, px, in um in the frame of the middle section."""
        places = apply(self.matrix, position) * self.um_per_px
        if self.field is not None:
            places = self.field.forward(places)
        return places if self.onward is None else self.onward.to_um(places / self.um_per_px)

    def from_um(self, places: np.ndarray) -> np.ndarray:
        """Return the way back: places (..., 2) in um in the middle section's frame as px of the slide."""
        places = np.asarray(places, np.float64)
        if self.onward is not None:
            places = self.onward.from_um(places) * self.um_per_px
        if self.field is not None:
            places = self.field.backward(places)
        return apply(invert(self.matrix), places / self.um_per_px)

    def warp(
        self,
        image: np.ndarray,
        scale: np.ndarray | float,
        shape: tuple[int, int],
        um_per_px: np.ndarray | float,
        fill: float = 255,
    ) -> np.ndarray:
        """Draw the slide in the middle section's frame, by linear interpolation.

        Parameters
        ----------
        image
            A thumbnail of it (h, w) or (h, w, C).
        scale
            Slide px per px of the thumbnail, along x and y (2,) or one for both.
        shape
            Of the canvas (H, W).
        um_per_px
            Of the canvas.
        fill
            Where the slide is not.
        """
        rows, columns = np.indices(shape)
        places = self.from_um((np.stack([columns, rows], -1) + 0.5) * um_per_px) / scale
        if image.ndim == 2:
            return sample(image, places, fill)
        return np.stack([sample(channel, places, fill) for channel in np.moveaxis(image, 2, 0)], 2)

    @property
    def linear(self) -> np.ndarray:
        """The whole way without its fields (2, 3): px -> um in the middle section's frame."""
        own = rescale(self.matrix, 1, self.um_per_px)
        return own if self.onward is None else compose(rescale(self.onward.linear, self.um_per_px, 1), own)

    @property
    def is_similarity(self) -> bool:
        """Whether a circle of px stays a circle in um: no field on the way, and no stretch."""
        high, low = np.linalg.svd(self.linear[:, :2], compute_uv=False)
        return not self.bends and bool(high - low <= LEAST_STRETCH * high)

    @property
    def bends(self) -> bool:
        """Whether there is a field anywhere on the way."""
        return self.field is not None or (self.onward is not None and self.onward.bends)


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., 2)."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the map back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack([back, -back @ matrix[:, 2]])


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the map that is `first`, then `second`."""
    return np.column_stack([second[:, :2] @ first[:, :2], apply(second, first[:, 2])])


def rescale(
    matrix: np.ndarray, moving_scale: np.ndarray | float, fixed_scale: np.ndarray | float
) -> np.ndarray:
    """Return the map in other pixels: old place = new place / scale, on either side (2,)."""
    fixed_scale = np.broadcast_to(np.asarray(fixed_scale, np.float64), 2)
    return np.column_stack([matrix[:, :2] * fixed_scale[:, None] / moving_scale, matrix[:, 2] * fixed_scale])


def sample(array: np.ndarray, places: np.ndarray, fill: float) -> np.ndarray:
    """Return what stands in an array (h, w) at places (..., 2), px, by linear interpolation."""
    index = np.moveaxis(places[..., ::-1], -1, 0) - 0.5  # from edge-based places to array indices
    return ndimage.map_coordinates(array, index, order=1, cval=fill)


def save_registration(dataset: str, registrations: Mapping[str, Registration]) -> None:
    """Write the map of each section beside the prepared data: its own step, and whom it goes on through."""
    content = {}
    for name, r in registrations.items():
        field = r.field and {
            "origin_um": r.field.origin_um.tolist(),
            "spacing_um": r.field.spacing_um,
            "nodes": r.field.nodes.tolist(),
        }
        content[name] = {
            "matrix": r.matrix.tolist(),
            "um_per_px": r.um_per_px.tolist(),
            "stages": [asdict(stage) for stage in r.stages],
            "ok": r.ok,
            "message": r.message,
            "field": field,
            "onward": r.onward and r.onward.section,
        }
    seal(paths.write_text(paths.processed(dataset) / "registration.json", json.dumps(content, indent=1)))


def load_registration(dataset: str) -> dict[str, Registration]:
    """Read what `save_registration` wrote: section -> map.

    Raises
    ------
    FileNotFoundError
        If the sections of this dataset were not aligned.
    ValueError
        If the file is damaged, or another version of this module wrote it.
    """
    path = paths.processed(dataset) / "registration.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{dataset}/{path.name} is not there; align the sections with notebooks/03_registration before "
            "you run a model that looks across them"
        )
    sealed(path, f"run `make prepare DATASET={dataset}` again")
    content, found = json.loads(path.read_text()), {}

    def build(name: str) -> Registration:
        if name not in found:
            r = content[name]
            field = r["field"]
            found[name] = Registration(
                matrix=np.array(r["matrix"]),
                um_per_px=np.array(r["um_per_px"]),
                stages=tuple(
                    Stage(**stage | {when: Score(**stage[when]) for when in ("before", "after")})
                    for stage in r["stages"]
                ),
                ok=r["ok"],
                message=r["message"],
                section=name,
                field=field
                and Field(np.array(field["origin_um"]), field["spacing_um"], np.array(field["nodes"])),
                onward=r["onward"] and build(r["onward"]),
            )
        return found[name]

    try:
        return {name: build(name) for name in content}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{dataset}/{path.name} was written by another version ({error!r}); align the sections "
            "anew with notebooks/03_registration"
        ) from error
