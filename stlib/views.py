"""A slide seen as tissue and stain density at one scale, and how well two of them agree.

Inside, everything is in um, so pixels need not be square; places are edge-based, as in `stlib.alignment`.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from stlib.alignment import Field, Score, apply, invert, rescale, sample
from stlib.slide import tissue_mask

if TYPE_CHECKING:
    import SimpleITK as sitk

SMOOTH_UM = 40  # sd of the Gaussian under which density is compared: structure stays, nuclei go
DETAIL_UM = 110  # sd of the windows of local correlations
FLAT = 1e-4  # of the largest local variance: what is flatter correlates with nothing
BINS = 24  # of the densities, for mutual information


def warp(image: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], fill: float = 255) -> np.ndarray:
    """Draw an image (h, w) or (h, w, C) on a canvas of `shape` (H, W), by linear interpolation.

    `matrix` maps px of the image to px of the canvas; what the image does not cover is `fill`.
    """
    back = invert(matrix)
    offset = back[:, :2] @ [0.5, 0.5] + back[:, 2] - 0.5  # from edge-based places to array indices
    linear = back[::-1, 1::-1]  # (row, column)

    def draw(channel: np.ndarray) -> np.ndarray:
        return ndimage.affine_transform(channel, linear, offset[::-1], tuple(shape), order=1, cval=fill)

    return draw(image) if image.ndim == 2 else np.stack([draw(c) for c in np.moveaxis(image, 2, 0)], 2)


@dataclass(frozen=True)
class View:
    """One image at one scale: where its tissue is, and how dense the stain."""

    um_per_px: np.ndarray  # (2,)
    mask: np.ndarray  # bool (h, w)
    density: np.ndarray  # float32 (h, w), mean optical density above the glass, 0 off the tissue

    @classmethod
    def of(cls, image: np.ndarray, um_per_px: np.ndarray) -> "View":
        """See an image, uint8 (h, w, 3)."""
        mask = tissue_mask(image)
        density = -np.log10((image.astype(np.float32) + 1) / 256).mean(2)
        glass = np.median(density[~mask]) if not mask.all() else 0
        return cls(um_per_px, mask, np.where(mask, np.maximum(density - glass, 0), 0).astype(np.float32))

    @cached_property
    def smooth(self) -> np.ndarray:
        """Density without nuclei (h, w)."""
        return self.blurred(SMOOTH_UM)

    def blurred(self, um: float) -> np.ndarray:
        """Return the density under a Gaussian of that sd (h, w)."""
        return ndimage.gaussian_filter(self.density, (um / self.um_per_px)[::-1])

    @cached_property
    def centre(self) -> np.ndarray:
        """Of the tissue (2,), um."""
        return (np.array(ndimage.center_of_mass(self.mask))[::-1] + 0.5) * self.um_per_px

    @cached_property
    def area(self) -> float:
        """Of the tissue, um2."""
        return float(self.mask.sum() * self.um_per_px.prod())

    @property
    def places(self) -> np.ndarray:
        """Centres of the pixels (h, w, 2), um."""
        rows, columns = np.indices(self.mask.shape)
        return (np.stack([columns, rows], -1) + 0.5) * self.um_per_px

    @property
    def flip(self) -> np.ndarray:
        """The map in um (2, 3) between the image and its mirror image."""
        return np.array([[-1.0, 0, self.mask.shape[1] * self.um_per_px[0]], [0, 1, 0]])

    def mirrored(self) -> "View":
        """Return what a slide laid face down shows."""
        return replace(self, mask=self.mask[:, ::-1], density=self.density[:, ::-1])

    def onto(self, array: np.ndarray, matrix: np.ndarray, other: "View") -> np.ndarray:
        """Return an array of this grid on the grid of another view; `matrix` is in um."""
        px = rescale(matrix, 1 / self.um_per_px, 1 / other.um_per_px)
        return warp(array, px, other.mask.shape, fill=0)

    def pulled(self, array: np.ndarray, field: Field) -> np.ndarray:
        """Return an array of this grid, read where the field brings each of its pixels."""
        return sample(array, field.forward(self.places) / self.um_per_px, fill=0)

    def pushed(self, array: np.ndarray, field: Field) -> np.ndarray:
        """Return an array of this grid, moved by the field."""
        return sample(array, field.backward(self.places) / self.um_per_px, fill=0)

    def itk(self, array: np.ndarray) -> "sitk.Image":
        """Return an array of this grid as ITK's image, in um."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.um_per_px.tolist())
        image.SetOrigin((self.um_per_px / 2).tolist())  # ITK names centres of pixels
        return image


def see(image: np.ndarray, um_per_px: np.ndarray | float, scales: tuple[float, ...]) -> list[View]:
    """Return a view for each scale (um per px), met up to whole numbers of pixels."""
    um_per_px = np.broadcast_to(np.asarray(um_per_px, np.float64), 2)
    views = []
    for um in scales:
        by = max(1, round(um / um_per_px.mean()))
        h, w = (side // by for side in image.shape[:2])
        small = image[: h * by, : w * by].reshape(h, by, w, by, 3).mean((1, 3)).round().astype(np.uint8)
        views.append(View.of(small, um_per_px * by))
    return views


def score(matrix: np.ndarray, moving: View, fixed: View, field: Field | None = None) -> Score:
    """Measure how well a map in um, and a field in the fixed frame after it, brings two views together."""
    mask = moving.onto(moving.mask.astype(np.float32), matrix, fixed)
    smooth = moving.onto(moving.smooth, matrix, fixed)
    if field is not None:
        mask, smooth = fixed.pushed(mask, field), fixed.pushed(smooth, field)
    mask = mask > 0.5
    both = mask & fixed.mask
    shared = both.sum() * fixed.um_per_px.prod()
    area = moving.area * abs(np.linalg.det(matrix[:, :2]))  # also what falls off the fixed image
    a, b = smooth[both], fixed.smooth[both]
    overlap = float(shared / (area + fixed.area - shared))
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return Score(overlap)
    local = correlations(smooth, fixed.smooth, DETAIL_UM / fixed.um_per_px)[mask | fixed.mask]
    return Score(overlap, float(np.corrcoef(a, b)[0, 1]), float(local.mean()), mutual_information(a, b))


def average(array: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Average an image under a Gaussian; `sd` along x and y (2,), px. Outside is 0."""
    return ndimage.gaussian_filter(array, sd[::-1], mode="constant", truncate=2.5)


def correlations(a: np.ndarray, b: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return the correlation of two images (h, w) around each pixel, under a Gaussian; see `average`."""
    mean_a, mean_b = average(a, sd), average(b, sd)
    var_a, var_b = average(a * a, sd) - mean_a**2, average(b * b, sd) - mean_b**2
    least = FLAT * max(var_a.max(), var_b.max(), 1e-12)
    covariance = average(a * b, sd) - mean_a * mean_b
    return covariance / np.sqrt(np.maximum(var_a, least) * np.maximum(var_b, least))


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mutual information of two samples (n,), nats, from a histogram of their ranges.

    Examples
    --------
    >>> round(mutual_information(np.tile([0.0, 1], 50), np.tile([0.0, 1], 50)), 3)  # ln 2
    0.693
    """
    joint = np.histogram2d(a, b, BINS)[0] / len(a)
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / apart[seen])).sum())


def centred(matrix: np.ndarray, about: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the linear part (2, 2) of a map and how it moves a place (2,), which is how ITK names it."""
    return matrix[:, :2], apply(matrix, about) - about
