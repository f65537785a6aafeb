"""Rigid to affine maps between two views: a search over all rotations and shifts, and its refinement.

Maps are in um, moving -> fixed. Equal input gives equal output, for any number of threads.
"""

import numpy as np
import SimpleITK as sitk
from scipy import fft, ndimage

from stlib.alignment import invert
from stlib.views import View, centred, score

MARGIN_UM = 300  # of glass around the tissue that the refinement looks at
ROTATIONS = np.arange(0, 360, 10)  # degrees


def search(moving: View, fixed: View) -> list[np.ndarray]:
    """Return for each rotation the map with the best shift of all, best first.

    The shift maximises cosine of the masks + cosine of the centred densities; both are correlations, so the
    Fourier transform gives them for all shifts at once. O(rotations * n log n).
    """
    side = int(np.hypot(*(moving.mask.shape * moving.um_per_px[::-1])) / fixed.um_per_px.min()) + 2
    canvas = View(fixed.um_per_px, np.zeros((side, side), bool), np.zeros((side, side), np.float32))
    middle = side / 2 * canvas.um_per_px
    size = np.array(fixed.mask.shape) + side
    size = [fft.next_fast_len(int(n), real=True) for n in size]

    def spectra(mask: np.ndarray, density: np.ndarray) -> list[np.ndarray]:
        texture = np.where(mask, density - density[mask].mean(), 0)
        return [
            fft.rfft2(c / max(np.linalg.norm(c), 1e-12), size) for c in (mask.astype(np.float32), texture)
        ]

    target = spectra(fixed.mask, fixed.smooth)
    maps = []
    for angle in np.deg2rad(ROTATIONS):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = np.column_stack([turn, middle - turn @ moving.centre])  # tissue in the middle of the canvas
        turned = moving.onto(moving.mask.astype(np.float32), matrix, canvas) > 0.5
        source = spectra(turned, moving.onto(moving.smooth, matrix, canvas))
        match = fft.irfft2(sum(f * m.conj() for f, m in zip(target, source, strict=True)), size)
        peak = np.array(np.unravel_index(match.argmax(), match.shape))
        shift = np.where(peak < fixed.mask.shape, peak, peak - size)[::-1]  # cyclic -> signed, x first
        maps.append(np.column_stack([turn, matrix[:, 2] + shift * fixed.um_per_px]))
    return sorted(maps, key=lambda m: -score(m, moving, fixed).total)


def refine(kind: str, matrix: np.ndarray, moving: View, fixed: View) -> np.ndarray | None:
    """Return the map that correlates the smoothed densities best, starting from `matrix`.

    Every pixel within `MARGIN_UM` of the fixed tissue is used, none is sampled. None if the images part.
    `kind` is ``rigid``, ``similarity`` or ``affine``; `matrix` does not mirror; the views are at the scale of
    the refinement.
    """
    centre = fixed.centre  # ITK's transforms map fixed -> moving, about a centre
    linear, shift = centred(invert(matrix), centre)
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


def turn(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between the rotations of two maps in um, degrees."""
    between = b[:, :2] @ np.linalg.inv(a[:, :2])
    return float(np.degrees(abs(np.arctan2(between[1, 0] - between[0, 1], between[0, 0] + between[1, 1]))))
