"""The encoder ``stain``: colour and texture of a patch in 52 named numbers, without weights.

Pixels are unmixed into haematoxylin, eosin and what is neither (Ruifrok & Johnston, Anal. Quant. Cytol.
Histol. 23, 291, 2001). Of each the distribution is summarised; of both stains how they change from place to
place, and of haematoxylin how many nuclei it shows. Last come the shares of local binary patterns (Ojala et
al., IEEE TPAMI 24, 971, 2002: 8 neighbours, uniform, rotation-invariant).
"""

import numpy as np
from scipy import ndimage

from stlib.encoders import require_patches

VERSION = "1"  # part of the cache's key: raise it with every change of what follows
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])  # optical density of H and of E
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of every fourth pixel
SCALES, LAGS = (1, 2, 4), (2, 4, 8, 16)  # px
NUCLEUS = 0.6  # haematoxylin above which a pixel counts as nucleus (outlines them on her2st)
RING = (
    (-1, -1),
    (-1, 0),
    (-1, 1),
    (0, 1),
    (1, 1),
    (1, 0),
    (1, -1),
    (0, -1),
)  # neighbours of a pixel, in order

PLANES = ("haematoxylin", "eosin", "residual", "saturation")
SUMMARY = ("mean", "sd", *(f"q{round(100 * q)}" for q in QUANTILES))
NAMES: tuple[str, ...] = (
    *(f"{plane}_{word}" for plane in PLANES for word in SUMMARY),
    "stain_covariance",  # of haematoxylin and eosin
    *(f"{plane}_gradient_{s}px" for s in SCALES for plane in PLANES[:2]),  # mean |change|, x + y
    *(f"haematoxylin_autocorrelation_{lag}px" for lag in LAGS),
    "nuclear_share",  # pixels above NUCLEUS
    "nuclear_density",  # peaks of smoothed haematoxylin above NUCLEUS, per 1,000 px
    "nuclear_contrast",  # mean haematoxylin above NUCLEUS minus below
    *(f"pattern_{n}" for n in range(9)),  # uniform local binary patterns with n bright neighbours, share
    "pattern_mixed",  # all others
)


class Stain:
    """Statistics of stain and texture, named in `NAMES`; lengths are in px of the patch."""

    name, version, dim = "stain", VERSION, len(NAMES)

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Return (N, 52) float32 of patches, uint8 (N, H, W, 3); an odd last row or column is left out."""
        require_patches(patches)
        blocks = [_statistics(patches[i : i + 8]) for i in range(0, len(patches), 8)]  # 8 stay in the cache
        return np.concatenate([np.zeros((0, self.dim), np.float32), *blocks])


def _unmixing() -> np.ndarray:
    """Return the matrix (3, 3) from optical density of red, green, blue to H, E and what is neither."""
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    rest = np.cross(*unit)
    return np.linalg.inv(np.array([*unit, rest / np.linalg.norm(rest)]).T).astype(np.float32)


def _patterns() -> np.ndarray:
    """Return the class 0 to 9 of each 8-bit local binary pattern (256,)."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1  # (256, 8)
    changes = (bits != np.roll(bits, 1, axis=1)).sum(1)
    return np.where(changes <= 2, bits.sum(1), 9).astype(np.uint8)


DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)  # optical density of a pixel value
UNMIXING, PATTERNS = _unmixing(), _patterns()


def _statistics(patches: np.ndarray) -> np.ndarray:
    """Return the numbers of `NAMES` (n, 52) for a few patches (n, H, W, 3)."""
    n, h, w = len(patches), *(side // 2 * 2 for side in patches.shape[1:3])
    rgb = np.ascontiguousarray(np.moveaxis(patches[:, :h, :w], 3, 1)).reshape(n, 3, h * w)
    density = DENSITY[rgb]
    top = rgb.max(1, keepdims=True)
    saturation = (top - rgb.min(1, keepdims=True)) / np.maximum(top, 1).astype(np.float32)
    planes = np.concatenate([UNMIXING @ density, saturation], 1)  # (n, 4, h w)
    mean = planes.mean(2)
    centred = planes - mean[..., None]
    sd = np.sqrt(np.einsum("ncp,ncp->nc", centred, centred) / (h * w))
    covariance = np.einsum("np,np->n", centred[:, 0], centred[:, 1]) / (h * w)
    planes = planes.reshape(n, 4, h, w)
    ordered = np.sort(planes[:, :, ::2, ::2].reshape(n, 4, -1), axis=2)
    quantiles = ordered[:, :, [int(q * (ordered.shape[2] - 1)) for q in QUANTILES]]
    summary = np.concatenate([mean[..., None], sd[..., None], quantiles], 2)  # (n, 4, 7)
    gradients = [_change(planes[:, :2], s) for s in SCALES]
    small = _halve(planes[:, 0])  # haematoxylin
    numbers = [
        summary.reshape(n, -1),
        covariance[:, None],
        *gradients,
        _autocorrelation(small),
        _nuclei(small),
    ]
    return np.concatenate([*numbers, _texture(_halve(density.sum(1).reshape(n, h, w)))], 1).astype(np.float32)


def _halve(plane: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels of (n, h, w)."""
    return (plane[:, ::2, ::2] + plane[:, 1::2, ::2] + plane[:, ::2, 1::2] + plane[:, 1::2, 1::2]) / 4


def _change(planes: np.ndarray, s: int) -> np.ndarray:
    """Return the mean absolute difference between pixels `s` apart, along y plus along x (n, c)."""
    down = np.abs(planes[:, :, s:] - planes[:, :, :-s]).mean((2, 3))
    return down + np.abs(planes[..., s:] - planes[..., :-s]).mean((2, 3))


def _autocorrelation(small: np.ndarray) -> np.ndarray:
    """Return the correlation of a half-size plane with itself, moved by each lag: mean of x and y (n, 4)."""
    centred = small - small.mean((1, 2), keepdims=True)
    variance = np.maximum((centred**2).mean((1, 2)), 1e-8)
    moved = [
        (centred[:, k:] * centred[:, :-k]).mean((1, 2)) + (centred[..., k:] * centred[..., :-k]).mean((1, 2))
        for k in (lag // 2 for lag in LAGS)
    ]
    return np.stack(moved, 1) / (2 * variance[:, None])


def _nuclei(small: np.ndarray) -> np.ndarray:
    """Return share, density and contrast of nuclei in half-size haematoxylin (n, 3)."""
    above = small > NUCLEUS
    share = above.mean((1, 2))
    inside = (small * above).mean((1, 2)) / np.maximum(share, 1e-6)
    outside = (small * ~above).mean((1, 2)) / np.maximum(1 - share, 1e-6)
    smooth = ndimage.gaussian_filter(small, (0, 1.5, 1.5))
    peaks = (ndimage.maximum_filter(smooth, (1, 5, 5)) == smooth) & (smooth > NUCLEUS)
    contrast = np.where((share > 0) & (share < 1), inside - outside, 0)
    return np.stack([share, 1000 * peaks.mean((1, 2)) / 4, contrast], 1)


def _texture(small: np.ndarray) -> np.ndarray:
    """Return the shares of the ten classes of local binary patterns in half-size density (n, 10)."""
    n, h, w = small.shape
    centre = small[:, 1:-1, 1:-1]
    code = np.zeros(centre.shape, np.uint8)
    for bit, (y, x) in enumerate(RING):
        code |= (small[:, 1 + y : h - 1 + y, 1 + x : w - 1 + x] >= centre).astype(np.uint8) << bit
    return np.stack([np.bincount(c.ravel(), minlength=10) for c in PATTERNS[code]]) / centre[0].size
