"""The places of a section's array, whether or not a sample of locations holds them."""

import numpy as np

from stlib.sections import Section


def lattice(section: Section, low_px: np.ndarray, high_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all places of a section's array in a rectangle of its slide, whether or not they were sampled.

    Parameters
    ----------
    section
        Its places and centres fix the affine map from the one to the other.
    low_px, high_px
        Corners of the rectangle (2,), level-0 px.

    Returns
    -------
    tuple
        Column and row (N, 2), and centre (N, 2), px; a place is in if its centre is.
    """
    affine = np.linalg.lstsq(np.c_[section.array, np.ones(len(section))], section.position)[0]  # (3, 2)
    corners = np.stack(np.meshgrid(*zip(low_px, high_px, strict=True)), -1).reshape(-1, 2)
    ends = (corners - affine[2]) @ np.linalg.inv(affine[:2])
    sides = [np.arange(*side) for side in zip(np.floor(ends.min(0)), np.ceil(ends.max(0)) + 1, strict=True)]
    array = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)
    position = array @ affine[:2] + affine[2]
    inside = ((position >= low_px) & (position < high_px)).all(1)
    return array[inside], position[inside]
