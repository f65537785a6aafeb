"""The route of ASIGN's paper: XFeat matches give an affine start, ANTs refines it, and SyN bends the rest.

XFeat (Potje et al., CVPR 2024) is kornia's; its weights are named in the params file, with their SHA-256.
Without them, or with too few matches that agree, it declares failure and the search over rotations starts
instead. ANTs is antspyx's, with the settings of the script antsRegistrationSyN as far as antspyx has them:
its linear stages step by 0.25 and not by 0.1, SyN has four scales and not five, and nothing is winsorised.
The densities of `stlib.views` are compared, not grey values.

ANTs gives equal output for equal input only with one thread and a fixed seed, which it reads from the
environment when it is first imported; `_ants` sets both, unless the user has set them. Whoever imports ants
before has their own settings.
"""

import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from stlib import paths
from stlib.alignment import ROUND, Field, invert
from stlib.fingerprint import file_hash
from stlib.params import Matcher
from stlib.stages import Pair
from stlib.views import View
from stlib.weights import read_state

if TYPE_CHECKING:
    from ants import ANTsImage
    from torch import Tensor

ENVIRONMENT = {"ANTS_RANDOM_SEED": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
KEYPOINTS = 4096  # as in ASIGN's code
SIDE_PX = 1000  # of the images that are matched, longer side
INLIER_UM = 50  # sections are not the same tissue; ASIGN's 3.5 px are about 25 um
TRIALS = 2000
LINEAR_STEPS = (1000, 500, 250, 100)  # per level, coarse to fine; tuples, antspyx ignores lists
LINEAR_SHRINK = (12, 8, 4, 2)
LINEAR_BLUR = (4, 3, 2, 1)  # px, before shrinking
SYN_STEPS = (100, 70, 50, 20)  # per level, coarse to fine
CC_RADIUS = 4  # px, of SyN's local correlation
SYN_NODES_UM = 200  # between the nodes that keep SyN's field


def match(pair: Pair, weights: Matcher | None) -> None:
    """Propose the affine map on which most XFeat matches agree; say so where there is none.

    Raises
    ------
    ValueError
        If the weights are not those that the params file means, or no tensors.
    """
    if weights is None:
        return _without(pair, "no weights: registration.xfeat is not set in the params file")
    try:
        file = weights_file(weights)
    except OSError as error:
        return _without(pair, f"no weights: {error}")
    state = read_state(file, "registration.xfeat", str(file.with_suffix(".safetensors")))
    points = matches(pair.moving[2], pair.fixed[2], state)
    matrix, inliers = agree(*points)
    few = f"{len(points[0])} matches, of which {inliers} agree"
    pair.propose("xfeat", matrix, inliers=inliers, note=few)


def refine(pair: Pair) -> None:
    """Propose ANTs' rigid and affine maps, by mutual information."""
    moving, fixed = pair.moving[1], pair.fixed[1]
    for kind in ("Rigid", "Affine"):
        matrix, why = linear(kind, pair.matrix, moving, fixed)
        pair.propose(f"ants {kind.lower()}", matrix, note=why)


def bend(pair: Pair) -> None:
    """Propose SyN's displacement after the affine map, by local correlation."""
    field, why = syn(pair.matrix, pair.moving[1], pair.fixed[1])
    pair.propose("ants syn", None if field is None else pair.matrix, field, note=why)


def weights_file(weights: Matcher) -> Path:
    """Return the local file of the weights; an address is downloaded once, and checked.

    Raises
    ------
    FileNotFoundError
        If the file is not there, or cannot be had.
    ValueError
        If it is another file.
    """
    import pooch

    if not weights.source.startswith("https://"):
        file = paths.DATA / weights.source
        if not file.exists():
            raise FileNotFoundError(
                f"{file} is not there; put it there, or correct registration.xfeat.source"
            )
        if (found := file_hash(file)) != weights.sha256:
            raise ValueError(
                f"{file}: registration.xfeat.sha256 names {weights.sha256}, found {found}; "
                "correct one of them"
            )
        return file
    name = f"{weights.sha256[:12]}-{weights.source.rsplit('/', 1)[-1]}"
    return Path(pooch.retrieve(weights.source, f"sha256:{weights.sha256}", name, paths.cache("weights")))


def matches(moving: View, fixed: View, state: "dict[str, Tensor]") -> tuple[np.ndarray, np.ndarray]:
    """Return places of the two views (n, 2), um, whose XFeat descriptors are each other's nearest."""
    import torch
    from kornia.feature import XFeat

    network = XFeat(top_k=KEYPOINTS).eval()
    network.net.load_state_dict({key.removeprefix("net."): value for key, value in state.items()})
    images, scales = [], []
    for view in (moving, fixed):
        by = min(1.0, SIDE_PX / max(view.mask.shape))
        grey = ndimage.zoom(view.density, by, order=1) if by < 1 else view.density
        grey = grey / max(float(np.quantile(grey, 0.999)), 1e-6)
        images.append(torch.from_numpy(grey.clip(0, 1).astype(np.float32))[None, None])
        scales.append(view.um_per_px * view.mask.shape[::-1] / grey.shape[::-1])
    with torch.inference_mode():
        found = network.match_xfeat(*images)
    return tuple((np.asarray(px, np.float64) + 0.5) * um for px, um in zip(found[:2], scales, strict=True))


def agree(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray | None, int]:
    """Return the affine map (2, 3) on which most pairs of places (n, 2) agree, and how many do."""
    from skimage import measure, transform

    if len(source) < 4:
        return None, len(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no inliers found": that is what we want to know
        found, inlier = measure.ransac(
            (source, target), transform.AffineTransform, 3, INLIER_UM, max_trials=TRIALS, rng=0
        )
    return (None, 0) if inlier is None or not found else (found.params[:2], int(inlier.sum()))


def linear(kind: str, matrix: np.ndarray, moving: View, fixed: View) -> tuple[np.ndarray | None, str]:
    """Return ANTs' ``Rigid`` or ``Affine`` map in um, starting from `matrix`; or None, and why."""
    ants = _ants()
    with TemporaryDirectory() as folder:
        start = ants.create_ants_transform(
            transform_type="AffineTransform",
            dimension=2,
            matrix=invert(matrix)[:, :2],  # ITK's transforms map fixed -> moving
            translation=invert(matrix)[:, 2],
        )
        ants.write_transform(start, f"{folder}/start.mat")
        try:
            found = ants.registration(
                _image(fixed, fixed.density),
                _image(moving, moving.density),
                type_of_transform=kind,
                initial_transform=f"{folder}/start.mat",
                outprefix=f"{folder}/",
                aff_random_sampling_rate=0.25,
                aff_iterations=LINEAR_STEPS,
                aff_shrink_factors=LINEAR_SHRINK,
                aff_smoothing_sigmas=LINEAR_BLUR,
            )
            end = ants.read_transform(found["fwdtransforms"][0])
        except (RuntimeError, ValueError) as error:  # e.g. the images part
            return None, _first_line(error)
    turn, centre = end.parameters[:4].reshape(2, 2), end.fixed_parameters
    return invert(np.column_stack([turn, end.parameters[4:] + centre - turn @ centre])), ""


def syn(matrix: np.ndarray, moving: View, fixed: View) -> tuple[Field | None, str]:
    """Return SyN's displacement in the fixed frame, after `matrix`; or None, and why."""
    ants = _ants()
    moved = moving.onto(moving.density, matrix, fixed)
    with TemporaryDirectory() as folder:
        try:
            found = (
                ants.registration(  # ITK's fields map fixed -> moving; ours the other way, so roles change
                    _image(fixed, moved),
                    _image(fixed, fixed.density),
                    type_of_transform="SyNOnly",
                    initial_transform="Identity",
                    outprefix=f"{folder}/",
                    syn_metric="CC",
                    syn_sampling=CC_RADIUS,
                    reg_iterations=SYN_STEPS,
                    grad_step=0.1,
                )
            )
            shift = ants.image_read(found["fwdtransforms"][0]).numpy()  # (x, y, 2), um
        except (RuntimeError, ValueError) as error:
            return None, _first_line(error)
    every = np.maximum(np.rint(SYN_NODES_UM / fixed.um_per_px).astype(int), 1)
    return _field(shift.swapaxes(0, 1), fixed, every), ""


def _field(shift: np.ndarray, view: View, every: np.ndarray) -> Field:
    """Return the splines through every n-th displacement of a grid (h, w, 2), um, square in um."""
    spacing = float((every * view.um_per_px).mean())
    size = np.ceil(np.array(view.mask.shape)[::-1] * view.um_per_px / spacing).astype(int) + 1
    columns, rows = (np.arange(n) * spacing / um - 0.5 for n, um in zip(size, view.um_per_px, strict=True))
    at = np.meshgrid(rows, columns, indexing="ij")
    nodes = [
        ndimage.spline_filter(
            ndimage.map_coordinates(
                ndimage.gaussian_filter(part, every[::-1] / 2, mode="nearest"), at, order=1, mode="nearest"
            ),
            mode="nearest",
        )
        for part in np.moveaxis(shift.astype(np.float64), 2, 0)
    ]
    return Field(np.zeros(2), spacing, np.stack(nodes, -1).round(ROUND))


def _image(view: View, array: np.ndarray) -> "ANTsImage":
    """Return an array on the view's grid as ANTs' image, in um, x first."""
    origin, spacing = (view.um_per_px / 2).tolist(), view.um_per_px.tolist()
    return _ants().from_numpy(np.ascontiguousarray(array.T, np.float32), origin, spacing)


def _without(pair: Pair, why: str) -> None:
    pair.propose("xfeat", None, inliers=0, note=why)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _ants() -> ModuleType:
    """Import antspyx so that it repeats itself, unless the user has set the environment."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ants

    return ants
