"""Where a slide lies on another: affine maps between their pixels, and the file that keeps them.

Places are edge-based pixels (x right, y down). A matrix (2, 3) maps a place p to
matrix[:, :2] @ p + matrix[:, 2]. How maps are found is the matter of `stlib.registration`; what only uses
them needs no image library.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stlib import paths


@dataclass(frozen=True)
class Stage:
    """What one step did: the map before it and the one it proposed, and whether that was taken over.

    `overlap` is the IoU of the tissue masks, `similarity` the correlation of the smoothed stain densities
    within their intersection, `inliers` the number of feature matches that agree.
    """

    name: str
    overlap_before: float
    overlap_after: float
    similarity_before: float
    similarity_after: float
    accepted: bool
    inliers: int | None = None


@dataclass(frozen=True)
class Registration:
    """Where a slide lies on another.

    Attributes
    ----------
    matrix
        Moving px -> fixed px (2, 3), level 0 where slides were given.
    um_per_px
        Scale of the fixed slide along x and y (2,).
    stages
        What was tried, in order.
    ok
        Whether the alignment is proven; if not, `message` says what is missing.
    section
        Name of the moving slide, where sections were given.
    """

    matrix: np.ndarray
    um_per_px: np.ndarray
    stages: tuple[Stage, ...] = ()
    ok: bool = True
    message: str = ""
    section: str = ""

    def to_um(self, position: np.ndarray) -> np.ndarray:
        """Return places (N, 2) of the moving slide in um in the frame of the fixed one."""
        return apply(self.matrix, position) * self.um_per_px

    def report(self) -> list[dict[str, Any]]:
        """Return one row per stage: what was tried, what it changed, and whether it was taken over."""
        return [{"section": self.section} | asdict(stage) | {"ok": self.ok} for stage in self.stages]


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (N, 2)."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the map back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack([back, -back @ matrix[:, 2]])


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the map that is `first`, then `second`."""
    return np.column_stack([second[:, :2] @ first[:, :2], apply(second, first[:, 2])])


def rescale(matrix: np.ndarray, moving_scale: np.ndarray, fixed_scale: np.ndarray) -> np.ndarray:
    """Return the map in other pixels: old place = new place / scale, on either side (2,)."""
    fixed_scale = np.broadcast_to(np.asarray(fixed_scale, np.float64), 2)
    return np.column_stack([matrix[:, :2] * fixed_scale[:, None] / moving_scale, matrix[:, 2] * fixed_scale])


def save_registration(dataset: str, registrations: dict[str, Registration]) -> None:
    """Write the map of each section to its stack's middle section beside the prepared data."""
    content = {
        name: asdict(r) | {"matrix": r.matrix.tolist(), "um_per_px": r.um_per_px.tolist(), "section": name}
        for name, r in registrations.items()
    }
    with paths.replacing(paths.processed(dataset) / "registration.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def load_registration(dataset: str) -> dict[str, Registration]:
    """Read what `save_registration` wrote: section -> map.

    Raises
    ------
    FileNotFoundError
        If the sections of this dataset were not aligned.
    """
    path = paths.processed(dataset) / "registration.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{dataset}/{path.name} is not there; align the sections with notebooks/03_registration before "
            "you run a model that looks across them"
        )
    return {
        name: Registration(
            matrix=np.array(r["matrix"]),
            um_per_px=np.array(r["um_per_px"]),
            stages=tuple(Stage(**stage) for stage in r["stages"]),
            ok=r["ok"],
            message=r["message"],
            section=name,
        )
        for name, r in json.loads(path.read_text()).items()
    }
