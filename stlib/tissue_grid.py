"""Locations where nothing was measured: the array of a dataset, laid over the tissue of a slide."""

import numpy as np
from scipy import ndimage

from stlib.params import Spot
from stlib.slide import Slide, tissue_mask
from stlib.visium import ROW_STEP

MASK_UM = 8.0  # um per px of the tissue mask
LEAST_TISSUE = 0.5  # of the square around a location


def lay_grid(slide: Slide, spot: Spot, hexagonal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of an array that lie on tissue.

    Parameters
    ----------
    slide
        The slide.
    spot
        Size and pitch of the locations.
    hexagonal
        Whether every other row is shifted by half a pitch, as on Visium; else rows and columns are square.

    Returns
    -------
    array, position
        Column and row (N, 2), counted from the slide's upper left corner, row by row; and centre, px (N, 2).

    Raises
    ------
    ValueError
        If no place lies on tissue.
    """
    step_um = np.array([0.5, ROW_STEP] if hexagonal else [1, 1]) * spot.pitch_um
    columns, rows = (np.arange(int(n)) for n in slide.size_px * slide.um_per_px // step_um)
    array = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    array = array[array.sum(1) % 2 == 0] if hexagonal else array
    position = (array + 0.5) * step_um / slide.um_per_px
    share = tissue_share(slide, position, spot.size_um)
    if not (share >= LEAST_TISSUE).any():
        raise ValueError(
            f"{slide.path.name}: locations are laid over tissue, found {len(array)} places and none with "
            f"tissue on {LEAST_TISSUE:.0%} of its area. Check that the slide is stained with H&E, that it "
            "shows tissue, and its um per px"
        )
    return array[share >= LEAST_TISSUE].astype(float), position[share >= LEAST_TISSUE]


def tissue_share(slide: Slide, position: np.ndarray, size_um: float) -> np.ndarray:
    """Return how much of the square around each place (N, 2), level-0 px, is tissue (N,), 0 to 1."""
    image, scale = slide.thumbnail(MASK_UM)
    mask = tissue_mask(image).astype(np.float32)
    side = np.maximum(np.rint(size_um / (scale * slide.um_per_px)), 1).astype(int)
    mean = ndimage.uniform_filter(mask, (side[1], side[0]), mode="constant")
    column, row = np.minimum(position / scale, np.array(mask.shape[::-1]) - 1).astype(int).T
    return mean[row, column]
