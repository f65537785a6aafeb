"""A slide at another scale: what is trained at one um per px must see others at that scale, too.

Each pixel of the copy is the mean of the area that it covers of the original, for finer and coarser slides
alike: nothing is sharpened, and detail that a coarse scan lacks is not made up. The slide passes in bands, so
that one of any size takes little memory; the copy lies on the disk until its pyramid is written.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from stlib.images import bands, scratch
from stlib.slide import average, shares, write_pyramid

BAND = 64  # rows of the copy that are made at once


def copy_at_scale(
    image: Path, path: Path, um_per_px: np.ndarray | float, wanted: np.ndarray | float
) -> np.ndarray:
    """Write a slide as a pyramid of another scale.

    Parameters
    ----------
    image
        Any slide that `stlib.images` reads.
    path
        The .tif to write; appears when it is complete.
    um_per_px
        Scale of the slide, or along x and y (2,).
    wanted
        Um per px of the copy, or along x and y (2,); met up to the rounding of its size to whole pixels.

    Returns
    -------
    numpy.ndarray
        Px of the slide per px of the copy, along x and y (2,), exact: place on the copy times this is the
        place on the slide.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    um_per_px = np.broadcast_to(np.asarray(um_per_px, float), 2)
    with bands(image, path.parent) as (size_px, read):
        out = np.maximum(np.rint(size_px * um_per_px / wanted), 1).astype(int)
        columns, rows = (shares(*side) for side in zip(out, size_px, size_px, strict=True))
        pixels = scratch(path.parent, (out[1], out[0], 3))
        for top in tqdm(range(0, out[1], BAND), unit="band", desc=f"{image.name} copied"):
            band = rows[top : top + BAND]
            low, high = int(band.indices.min()), int(band.indices.max()) + 1
            pixels[top : top + BAND] = average(read(low, high), band[:, low:high], columns)
    factor = size_px / out
    write_pyramid(pixels, path, um_per_px * factor)
    return factor
