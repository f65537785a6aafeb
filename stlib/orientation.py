"""Does a slide lie as its spots say? Then more of them lie on tissue than if it were mirrored or transposed.

Pixels of spots fit every slide of the right size; only the tissue tells whether axes were exchanged.
"""

import warnings

import numpy as np

from stlib.slide import Slide, tissue_mask

UM_PER_PX = 16.0
LEAD = 0.05  # of another orientation, in share of spots on tissue, before it is reported


def on_tissue(slide: Slide, position: np.ndarray) -> dict[str, float]:
    """Return the share of spots on tissue for each way in which a slide can lie.

    `position` holds centres of spots, level-0 px (N, 2). ``as it lies`` comes first; ``transposed`` exchanges
    x and y, before anything is mirrored.
    """
    image, scale = slide.thumbnail(UM_PER_PX)
    mask = tissue_mask(image)
    height, width = mask.shape
    place = position / (scale * (width, height))  # 0 to 1
    shares = {}
    for exchanged in (False, True):
        for mirrored in ("", "x", "y", "xy"):
            turned = np.array([axis in mirrored for axis in "xy"])
            there = place[:, ::-1] if exchanged else place
            there = np.where(turned, 1 - there, there)
            column, row = np.minimum(there * (width, height), (width - 1, height - 1)).astype(int).T
            words = ["transposed"] * exchanged + [f"mirrored in {axis}" for axis in mirrored]
            shares[" and ".join(words) or "as it lies"] = float(mask[row, column].mean())
    return shares


def warn_if_turned(slide: Slide, position: np.ndarray) -> None:
    """Warn if clearly more spots would lie on tissue in another orientation of the slide."""
    shares = on_tissue(slide, position)
    best = max(shares, key=shares.get)
    if shares[best] > shares["as it lies"] + LEAD:
        warnings.warn(
            f"{slide.path.name}: {shares['as it lies']:.0%} of its spots lie on tissue, {shares[best]:.0%} "
            f"if the slide were {best}. Look at the slide with its spots before you trust any number",
            stacklevel=2,
        )
