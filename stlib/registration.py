"""Align the serial sections of one block: an affine map from each slide to the middle one.

Sections tens of um apart share their outline and their architecture, not their cells, so feature matchers
find few true pairs. Here outline and stain density lead: a search over all rotations and shifts, then rigid,
similarity and affine refinement; feature matches are a candidate that must prove itself. Each stage is scored
before and after, and one that makes things worse is refused. An alignment that another rotation nearly equals
is not proven, and says so (``ok=False``).

ASIGN's paper aligns with XFeat and SyN; its released code uses the affine part alone (A2.3), as we do.

Maps are those of `stlib.alignment`, in px; inside, everything is in um, so pixels need not be square.
"""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from scipy import fft, ndimage
from tqdm import tqdm

from stlib import paths
from stlib.alignment import Registration, Stage, apply, compose, invert, rescale, save_registration
from stlib.params import Params
from stlib.slide import Slide, tissue_mask

SEARCH_UM, SCORE_UM = 32, 16  # um per px of the search over rotations, and of all scores
SMOOTH_UM = 40  # sd of the Gaussian under which density is compared: structure stays, nuclei go
MARGIN_UM = 300  # of glass around the tissue that the refinement looks at
ROTATIONS = np.arange(0, 360, 10)  # degrees
BEST = 3  # starts that are refined before one is chosen
STRETCH = 1.25  # a section is not stretched or shrunk more than this
INLIER_UM, LEAST_INLIERS = 80, 12  # matches agree within; fewer prove nothing (chance gives up to 5)
OTHER_ROTATION = 30  # degrees; from here on a rotation counts as another alignment
LEAST_LEAD = 0.3  # of a proven score over all those; patient C: 0.43 to 0.64, if mirrored: to 0.26


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


def register(
    moving: np.ndarray,
    fixed: np.ndarray,
    moving_um_per_px: np.ndarray | float,
    fixed_um_per_px: np.ndarray | float,
    features: bool = True,
) -> Registration:
    """Find the affine map from one image to another of the same block.

    Parameters
    ----------
    moving, fixed
        Thumbnails, uint8 (h, w, 3), at 4 to 16 um per px. The last refinement is done at their own scale.
    moving_um_per_px, fixed_um_per_px
        Their scales along x and y (2,), or one for both.
    features
        Whether SIFT matches may propose a start.

    Returns
    -------
    Registration
        In px of the two images. Equal input gives equal output, for any number of threads.

    Raises
    ------
    ValueError
        If an image shows no tissue.
    """
    views = [_views(moving, moving_um_per_px, "moving"), _views(fixed, fixed_um_per_px, "fixed")]
    coarse, medium, fine = zip(*views, strict=True)  # each (moving, fixed)
    track = _Track(*medium)
    starts = _search(*coarse)
    track.propose("outline and density", starts[0])
    refined = [m for m in (_refine("rigid", start, *coarse) for start in starts[:BEST]) if m is not None]
    track.propose("rigid", max(refined, key=lambda m: sum(_score(m, *medium)), default=None))
    if features:
        track.propose("features", *_matched(*medium))
    track.propose("similarity", _refine("similarity", track.matrix, *medium))
    track.propose("affine", _refine("affine", track.matrix, *fine))
    others = [sum(_score(s, *medium)) for s in starts if _turn(s, track.matrix) >= OTHER_ROTATION]
    lead = sum(track.score) - max(others)
    moving_um, fixed_um = (view.um_per_px for view in fine)
    return Registration(
        matrix=rescale(track.matrix, 1 / moving_um, 1 / fixed_um),
        um_per_px=fixed_um,
        stages=tuple(track.stages),
        ok=lead >= LEAST_LEAD,
        message="" if lead >= LEAST_LEAD else _doubt(track, lead),
    )


def register_stack(slides: Sequence[Slide], um_per_px: float, features: bool = True) -> list[Registration]:
    """Map each section of a block to the middle one, index L // 2, through its neighbours.

    Parameters
    ----------
    slides
        In cutting order; one is enough.
    um_per_px
        Of the finest stage.
    features
        As in `register`.

    Returns
    -------
    list of Registration
        In level-0 px. `stages` are those of the step to the neighbour towards the middle; `ok` and `message`
        speak for the whole way.

    Raises
    ------
    ValueError
        If there is no slide, or one shows no tissue.
    """
    if not slides:
        raise ValueError("a stack has at least one slide, found none")
    middle = len(slides) // 2
    thumbnails = [slide.thumbnail(um_per_px) for slide in slides]
    maps = {middle: Registration(np.eye(2, 3), np.asarray(slides[middle].um_per_px))}
    for i in [*range(middle - 1, -1, -1), *range(middle + 1, len(slides))]:
        j = i + 1 if i < middle else i - 1  # the neighbour towards the middle, already mapped
        (image, scale), (onto, onto_scale) = thumbnails[i], thumbnails[j]
        try:
            step = register(
                image, onto, scale * slides[i].um_per_px, onto_scale * slides[j].um_per_px, features
            )
        except ValueError as error:
            raise ValueError(f"{slides[i].path} onto {slides[j].path}: {error}") from error
        path = [f"section {i + 1} of {len(slides)} onto {j + 1}: {step.message}"] * (not step.ok)
        maps[i] = replace(
            maps[j],
            matrix=compose(maps[j].matrix, rescale(step.matrix, scale, onto_scale)),
            stages=step.stages,
            ok=step.ok and maps[j].ok,
            message="; ".join(path + [maps[j].message] * (not maps[j].ok)),
        )
    return [maps[i] for i in range(len(slides))]


def register_dataset(params: Params) -> dict[str, Registration]:
    """Align every stack of a dataset, save the maps beside the prepared data, and return them by section."""
    found = {}
    for patient, names in tqdm(params.sections.items(), unit="stack", desc=f"align {params.name}"):
        with ExitStack() as opened:
            slides = [opened.enter_context(Slide(paths.slide_file(params.name, name))) for name in names]
            maps = register_stack(slides, params.registration.um_per_px)
        for name, one in zip(names, maps, strict=True):
            found[name] = replace(one, section=name)
            if not one.ok:
                tqdm.write(f"{params.name}, patient {patient}, section {name}: {one.message}")
    save_registration(params.name, found)
    return found


@dataclass(frozen=True)
class _View:
    """One image at one scale: where its tissue is, and how dense the stain."""

    um_per_px: np.ndarray  # (2,)
    mask: np.ndarray  # bool (h, w)
    density: np.ndarray  # float32 (h, w), mean optical density above the glass, 0 off the tissue

    @classmethod
    def of(cls, image: np.ndarray, um_per_px: np.ndarray) -> "_View":
        mask = tissue_mask(image)
        density = -np.log10((image.astype(np.float32) + 1) / 256).mean(2)
        glass = np.median(density[~mask]) if not mask.all() else 0
        return cls(um_per_px, mask, np.where(mask, np.maximum(density - glass, 0), 0).astype(np.float32))

    @cached_property
    def smooth(self) -> np.ndarray:
        return ndimage.gaussian_filter(self.density, (SMOOTH_UM / self.um_per_px)[::-1])

    @cached_property
    def centre(self) -> np.ndarray:  # of the tissue (2,), um
        return (np.array(ndimage.center_of_mass(self.mask))[::-1] + 0.5) * self.um_per_px

    @cached_property
    def area(self) -> float:  # of the tissue, um2
        return float(self.mask.sum() * self.um_per_px.prod())

    def onto(self, array: np.ndarray, matrix: np.ndarray, other: "_View") -> np.ndarray:
        """Return an array of this grid on the grid of another view; `matrix` is in um."""
        px = rescale(matrix, 1 / self.um_per_px, 1 / other.um_per_px)
        return warp(array, px, other.mask.shape, fill=0)

    def itk(self, array: np.ndarray) -> sitk.Image:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.um_per_px.tolist())
        image.SetOrigin((self.um_per_px / 2).tolist())  # ITK names centres of pixels
        return image


def _views(image: np.ndarray, um_per_px: np.ndarray | float, name: str) -> list[_View]:
    """Return the view for the search, for the scores, and at the image's own scale."""
    um_per_px = np.broadcast_to(np.asarray(um_per_px, np.float64), 2)
    views = []
    for um in (SEARCH_UM, SCORE_UM, um_per_px.mean()):
        by = max(1, round(um / um_per_px.mean()))
        h, w = (side // by for side in image.shape[:2])
        small = image[: h * by, : w * by].reshape(h, by, w, by, 3).mean((1, 3)).round().astype(np.uint8)
        views.append(_View.of(small, um_per_px * by))
        if not views[-1].mask.any():
            raise ValueError(
                f"an image to align shows tissue, found none in the {name} one; look at the slide"
            )
    return views


def _score(matrix: np.ndarray, moving: _View, fixed: _View) -> tuple[float, float]:
    """Return IoU of the masks, and correlation of the smoothed densities in their intersection."""
    both = (moving.onto(moving.mask.astype(np.float32), matrix, fixed) > 0.5) & fixed.mask
    shared = both.sum() * fixed.um_per_px.prod()
    area = moving.area * abs(np.linalg.det(matrix[:, :2]))  # also what falls off the fixed image
    a, b = moving.onto(moving.smooth, matrix, fixed)[both], fixed.smooth[both]
    varied = len(a) > 1 and a.std() > 0 and b.std() > 0
    return float(shared / (area + fixed.area - shared)), float(np.corrcoef(a, b)[0, 1]) if varied else 0.0


class _Track:
    """The best map so far, in um, and how it came about."""

    def __init__(self, moving: _View, fixed: _View):
        self.views = moving, fixed
        self.matrix = np.eye(2, 3)  # the slides as they lie
        self.score = _score(self.matrix, moving, fixed)
        self.stages: list[Stage] = []

    def propose(self, name: str, matrix: np.ndarray | None, inliers: int | None = None) -> None:
        """Take the map over if it scores better, does not distort, and rests on inliers enough."""
        before, after = self.score, (0.0, 0.0) if matrix is None else _score(matrix, *self.views)
        accepted = matrix is not None and sum(after) > sum(before) and _plausible(matrix)
        accepted = accepted and (inliers is None or inliers >= LEAST_INLIERS)
        self.stages.append(Stage(name, before[0], after[0], before[1], after[1], accepted, inliers))
        if accepted:
            self.matrix, self.score = matrix, after


def _search(moving: _View, fixed: _View) -> list[np.ndarray]:
    """Return for each rotation the map with the best shift of all, best first.

    The shift maximises cosine of the masks + cosine of the centred densities; both are correlations, so the
    Fourier transform gives them for all shifts at once. O(rotations * n log n).
    """
    side = int(np.hypot(*(moving.mask.shape * moving.um_per_px[::-1])) / fixed.um_per_px.min()) + 2
    canvas = _View(fixed.um_per_px, np.zeros((side, side), bool), np.zeros((side, side), np.float32))
    middle = side / 2 * canvas.um_per_px
    size = np.array(fixed.mask.shape) + side
    size = [fft.next_fast_len(int(n), real=True) for n in size]

    def spectra(mask: np.ndarray, density: np.ndarray) -> list[np.ndarray]:
        texture = np.where(mask, density - density[mask].mean(), 0)
        return [
            fft.rfft2(c / max(np.linalg.norm(c), 1e-12), size) for c in (mask.astype(np.float64), texture)
        ]

    target = spectra(fixed.mask, fixed.smooth)
    maps = []
    for angle in np.deg2rad(ROTATIONS):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = np.column_stack([turn, middle - turn @ moving.centre])  # tissue in the middle of the canvas
        turned = moving.onto(moving.mask.astype(np.float32), matrix, canvas) > 0.5
        source = spectra(turned, moving.onto(moving.smooth, matrix, canvas))
        match = sum(fft.irfft2(f * m.conj(), size) for f, m in zip(target, source, strict=True))
        peak = np.array(np.unravel_index(match.argmax(), match.shape))
        shift = np.where(peak < fixed.mask.shape, peak, peak - size)[::-1]  # cyclic -> signed, x first
        maps.append(np.column_stack([turn, matrix[:, 2] + shift * fixed.um_per_px]))
    return sorted(maps, key=lambda m: -sum(_score(m, moving, fixed)))


def _matched(moving: _View, fixed: _View) -> tuple[np.ndarray | None, int]:
    """Return the rigid map on which most SIFT matches agree, and how many do."""
    from skimage import feature, measure, transform

    points, descriptors = [], []  # (n, 2) um; (n, 128)
    for view in (moving, fixed):
        sift = feature.SIFT(upsampling=1)
        try:
            sift.detect_and_extract(view.density / max(view.density.max(), 1e-6))
        except RuntimeError:  # no keypoint at all
            return None, 0
        points.append((sift.positions[:, ::-1] + 0.5) * view.um_per_px)
        descriptors.append(sift.descriptors)
    pairs = feature.match_descriptors(*descriptors, max_ratio=0.8, cross_check=True)
    if len(pairs) < 3:
        return None, len(pairs)
    source, target = points[0][pairs[:, 0]], points[1][pairs[:, 1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no inliers found": that is what we want to know
        found, inlier = measure.ransac(
            (source, target), transform.EuclideanTransform, 2, INLIER_UM, max_trials=2000, rng=0
        )
    return (None, 0) if inlier is None else (found.params[:2], int(inlier.sum()))


def _refine(kind: str, matrix: np.ndarray, moving: _View, fixed: _View) -> np.ndarray | None:
    """Return the map of that kind that correlates the smoothed densities best, starting from `matrix`.

    Every pixel within `MARGIN_UM` of the fixed tissue is used, none is sampled. None if the images part.
    """
    back, centre = invert(matrix), fixed.centre  # ITK's transforms map fixed -> moving, about a centre
    linear, shift = back[:, :2], apply(back, centre) - centre
    angle, size = float(np.arctan2(linear[1, 0], linear[0, 0])), float(np.sqrt(np.linalg.det(linear)))
    transform = {
        "rigid": lambda: sitk.Euler2DTransform(centre.tolist(), angle, shift.tolist()),
        "similarity": lambda: sitk.Similarity2DTransform(size, angle, shift.tolist(), centre.tolist()),
        "affine": lambda: sitk.AffineTransform(linear.ravel().tolist(), shift.tolist(), centre.tolist()),
    }[kind]()
    near = ndimage.distance_transform_edt(~fixed.mask, sampling=fixed.um_per_px[::-1]) < MARGIN_UM
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(fixed.itk(near.astype(np.uint8)))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, inPlace=True)
    step = float(fixed.um_per_px.mean())  # the first; um, as the scales are
    method.SetOptimizerAsRegularStepGradientDescent(step, 0.5, 200, 0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # their number would change the last digits
    try:
        method.Execute(fixed.itk(fixed.smooth), moving.itk(moving.smooth))
    except RuntimeError:  # "all samples map outside"
        return None
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    linear = np.array(transform.GetMatrix()).reshape(2, 2)
    return invert(np.column_stack([linear, np.array(transform.GetTranslation()) + centre - linear @ centre]))


def _plausible(matrix: np.ndarray) -> bool:
    """Return whether a map in um neither mirrors nor stretches more than a section can."""
    stretch = np.linalg.svd(matrix[:, :2], compute_uv=False)
    return bool(np.linalg.det(matrix[:, :2]) > 0 and stretch.max() < STRETCH and stretch.min() > 1 / STRETCH)


def _turn(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between the rotations of two maps in um, degrees."""
    between = b[:, :2] @ np.linalg.inv(a[:, :2])
    return float(np.degrees(abs(np.arctan2(between[1, 0] - between[0, 1], between[0, 0] + between[1, 1]))))


def _doubt(track: _Track, lead: float) -> str:
    """Say why an alignment is not proven."""
    taken = [stage.name for stage in track.stages if stage.accepted]
    return (
        f"alignment not proven: it must beat every other rotation by {LEAST_LEAD}, found {lead:.2f} "
        f"(overlap {track.score[0]:.2f}, similarity {track.score[1]:.2f}, accepted stages: "
        f"{', '.join(taken) or 'none'}). "
        "Look at the overlay, and check that the sections are of one block and none is mirrored"
    )
