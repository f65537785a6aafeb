"""The first array of spatial transcriptomics: 33 x 35 places, 200 um apart, on slides cropped to its frame.

her2st (Andersson et al. 2021) and ST-Data (He et al. 2020) were measured on it. The array's first place lies
on the left upper corner of the slide, the last on the right lower one: a slide's size gives its scale.
"""

import numpy as np

FRAME = np.array([32, 34])  # array steps from the left to the right edge of a slide, and from top to bottom
SCALE_TOLERANCE = 0.02  # slide against spot file; her2st's A6, whose pixels do not follow the frame: 0.8 %
SCATTER_STEPS = 0.3  # rms of spots around the grid; her2st has up to 0.07, another grid several steps
SHIFT_STEPS = 0.5  # mean of spots against the frame; her2st has up to 0.11, its A6 one


def slope(array: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return px per array step along x and y (2,), by least squares; NaN for a single column or row.

    Parameters
    ----------
    array
        Column and row of each spot (N, 2).
    position
        Its centre, px (N, 2).
    """
    centred = array - array.mean(0)
    with np.errstate(invalid="ignore"):
        return (centred * position).sum(0) / (centred**2).sum(0)


def scale_of_slide(by_spots: np.ndarray, size_px: np.ndarray, pitch_um: float, source: str) -> np.ndarray:
    """Return um per px (2,) by the slide, which shows the array's frame: 6400 um x 6800 um.

    Parameters
    ----------
    by_spots
        The same by the spots' pixels (2,), to compare.
    size_px
        Width and height of the slide.
    source
        What the message calls the files.

    Raises
    ------
    ValueError
        If the two differ.
    """
    by_slide = pitch_um * FRAME / size_px
    if (np.abs(by_spots / by_slide - 1) > SCALE_TOLERANCE).any():
        raise ValueError(
            f"{source}: spots and slide have one scale; found {by_spots.round(4).tolist()} um per px by the "
            f"pixels of the spots, {by_slide.round(4).tolist()} by the slide of {size_px.tolist()} px. Take "
            "the slide in its published size"
        )
    return by_slide


def check_orientation(array: np.ndarray, position: np.ndarray, source: str) -> None:
    """Check that columns run to the right and rows down: spots scatter little around a grid of that kind.

    Raises
    ------
    ValueError
        If the pixels are mirrored, or x and y are exchanged.
    """
    step = slope(array, position)
    rest = position - position.mean(0) - (array - array.mean(0)) * step
    scatter = np.sqrt((rest**2).mean(0)) / np.abs(step)  # (2,), steps
    if (step < 0).any() or (scatter > SCATTER_STEPS).any():
        raise ValueError(
            f"{source}: array columns run to the right and rows down; found {step.round(1).tolist()} px per "
            f"step, and spots {scatter.round(2).tolist()} steps off that grid. Check that X is the pixel "
            "column and Y the row, and that both files name spots as column x row"
        )


def shift(array: np.ndarray, position: np.ndarray, size_px: np.ndarray) -> np.ndarray:
    """Return how far spots lie from where the frame puts them, mean, in array steps along x and y (2,)."""
    return (position / (size_px / FRAME) - (array - 1)).mean(0)
