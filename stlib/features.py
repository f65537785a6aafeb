"""Frozen features: one face for all encoders, and caches addressed by content.

`encoder` turns a word of the params file into something that encodes patches: ``stain`` needs no weights; a
timm model says where its weights come from (``@untrained``, ``@hub``, ``@file:<path>``), never silently from
nowhere. `patches` and `features` return memory-mapped arrays. Each file is named by a hash of all that went
into it (slide, positions, sizes, encoder): what is found is what was asked for, and a second call computes
nothing. The nodes of the levels ``region`` and ``global`` are the grid cells that hold a spot.

torch, timm and OpenSlide are imported when they are first needed: reading a cache needs none of them.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from stlib import paths
from stlib.fingerprint import file_hash, text_hash
from stlib.graph import grid_parents
from stlib.params import Params
from stlib.sections import Section

BATCH = 64  # patches that are read, and encoded, together
SEED = 0  # of untrained weights
SPEC = re.compile(r"(?P<name>.+?)@(?P<origin>untrained|hub|file:.+)")


class Encoder(Protocol):
    """What encodes patches.

    Attributes
    ----------
    name
        The word it was asked for by.
    version
        What tells two encoders of one name apart; part of the cache's key.
    """

    name: str
    version: str

    @property
    def dim(self) -> int:
        """Width D of the features."""

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Return the features (N, D) float32 of patches, uint8 (N, H, W, 3)."""


@lru_cache(maxsize=2)
def encoder(spec: str, device: str | None = None, bf16: bool = False) -> Encoder:
    """Return the encoder that a word names.

    Parameters
    ----------
    spec
        ``stain`` (no weights), or the name of a timm model and where its weights come from:
        ``<name>@untrained`` (random, from a fixed seed), ``<name>@hub`` (downloaded by timm) or
        ``<name>@file:<path>`` (a state dict as .safetensors or .pth; a relative path starts at the root of
        the checkout).
    device
        Of a timm model; default: the GPU if there is one.
    bf16
        Whether a timm model computes in bfloat16.

    Returns
    -------
    Encoder
        Its weights are read when it first encodes.

    Raises
    ------
    ValueError
        If the word does not say where weights come from.

    Examples
    --------
    >>> encoder("stain").dim
    52
    """
    if spec == "stain":
        return Stain()
    if SPEC.fullmatch(spec) is None:
        raise ValueError(
            f"an encoder says where its weights come from, found '{spec}'. Write '{spec}@untrained' (random, "
            f"fixed seed), '{spec}@hub' (downloaded) or '{spec}@file:<path>' (.safetensors or .pth); or "
            "'stain', which needs no weights"
        )
    return Timm(spec, device, bf16)


def patches(params: Params, section: Section, level: str) -> np.ndarray:
    """Return the patch of each node of a level, cut once.

    Parameters
    ----------
    params
        The dataset; `params.levels[level]` says how many level-0 px a patch covers and what it is reduced to.
    section
        Whose nodes.
    level
        ``spot``: one around each spot. ``region``, ``global``: one for each grid cell that holds a spot, in
        the order of `stlib.graph.grid_parents`.

    Returns
    -------
    np.ndarray
        uint8 (nodes, P, P, 3), P = out_px; a read-only memory map.
    """
    recipe, centres = _recipe(params, section, level)
    return _cached(
        "patches", recipe, _note(params, section, level, centres), _cut(params, section, level, centres)
    )


def features(params: Params, section: Section, level: str, encoder: Encoder | None = None) -> np.ndarray:
    """Return the features of each node of a level, encoded once.

    Parameters
    ----------
    params, section, level
        See `patches`.
    encoder
        Default: the one that `params.encoder` names.

    Returns
    -------
    np.ndarray
        float32 (nodes, D); a read-only memory map.
    """
    by = named(params.encoder) if encoder is None else encoder
    recipe, centres = _recipe(params, section, level)
    recipe |= {"encoder": by.name, "version": by.version}
    blocks = (by.encode(block) for block in _cut(params, section, level, centres))
    return _cached("features", recipe, _note(params, section, level, centres), blocks)


named = encoder  # `features` has a parameter of that name


def slide_hash(path: Path) -> str:
    """Return the SHA-256 of a slide, computed once.

    It is kept beside the slide together with size and time of change, and computed anew when these differ.
    Where the slide itself was left behind (a GPU machine to which only caches were carried), what is kept
    counts.

    Raises
    ------
    FileNotFoundError
        If there is neither the slide nor its hash.
    """
    stamp = path.with_name(f"{path.name}.sha256")
    kept = json.loads(stamp.read_text()) if stamp.exists() else {}
    if not path.exists():
        if kept:
            return kept["sha256"]
        raise FileNotFoundError(f"{path} is not there; prepare the dataset with `make data`")
    state = {"size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
    if {key: kept.get(key) for key in state} != state:
        kept = state | {"sha256": file_hash(path)}
        with paths.replacing(stamp) as temporary:
            temporary.write_text(json.dumps(kept))
    return kept["sha256"]


# -- caches --------------------------------------------------------------------------------------------------


def _recipe(params: Params, section: Section, level: str) -> tuple[dict[str, Any], np.ndarray]:
    """Return what determines the patches of a level, and their centres (nodes, 2), level-0 px."""
    size = params.levels[level]
    centres = np.asarray(section.position, np.float64)
    if level != "spot":
        centres = (grid_parents(centres, size.px)[1] + 0.5) * size.px
    recipe = {
        "slide": slide_hash(paths.slide_file(params.name, section.name)),
        "centres": hashlib.sha256(np.ascontiguousarray(centres).tobytes()).hexdigest(),
        "px": size.px,
        "out_px": size.out_px,
    }
    return recipe, centres


def _note(params: Params, section: Section, level: str, centres: np.ndarray) -> dict[str, Any]:
    """Return what a reader of the .json wants to know, and no hash depends on."""
    return {"dataset": params.name, "section": section.name, "level": level, "nodes": len(centres)}


def _cut(params: Params, section: Section, level: str, centres: np.ndarray) -> Iterator[np.ndarray]:
    """Read the patches block by block."""
    from stlib.slide import Slide

    size = params.levels[level]
    with (
        Slide(paths.slide_file(params.name, section.name)) as slide,
        tqdm(total=len(centres), unit="patch", desc=f"{section.name} {level}") as bar,
    ):
        for i in range(0, len(centres), BATCH):
            yield slide.patches(centres[i : i + BATCH], size.px, size.out_px)
            bar.update(len(centres[i : i + BATCH]))


def _cached(
    kind: str, recipe: dict[str, Any], note: dict[str, Any], blocks: Iterator[np.ndarray]
) -> np.ndarray:
    """Return the array that `recipe` determines; if it is absent or damaged, join it from blocks of rows.

    Beside the array stands a .json with recipe, note and shape, for people and as a check; written last.
    """
    path = paths.cache(kind) / f"{text_hash(recipe)[:32]}.npy"
    found = _open(path)
    if found is not None:
        return found
    with paths.replacing(path) as temporary:
        written, array = 0, None
        for block in blocks:
            if array is None:
                shape = (note["nodes"], *block.shape[1:])
                array = np.lib.format.open_memmap(temporary, "w+", block.dtype, shape)
            array[written : written + len(block)] = block
            written += len(block)
        array.flush()
    content = note | recipe | {"shape": array.shape, "dtype": str(array.dtype)}
    with paths.replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    return _open(path)


def _open(path: Path) -> np.ndarray | None:
    """Map an array that agrees with the .json beside it; None if there is none, or it is damaged."""
    about = path.with_suffix(".json")
    if not (path.exists() and about.exists()):
        return None
    try:
        array, wanted = np.load(path, mmap_mode="r"), json.loads(about.read_text())
        if [*array.shape] == wanted["shape"] and str(array.dtype) == wanted["dtype"]:
            return array
        reason = f"shape {array.shape} of {array.dtype}"
    except (OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error)
    warnings.warn(
        f"cache/{path.parent.name}/{path.name} is damaged ({reason}); it is made anew", stacklevel=4
    )
    return None


# -- encoders ------------------------------------------------------------------------------------------------


class Timm:
    """A model of timm without its classifier, frozen; normalised as timm's data config says."""

    def __init__(self, spec: str, device: str | None, bf16: bool):
        self.name, self.device, self.bf16 = spec, device, bf16
        match = SPEC.fullmatch(spec)
        self.model_name, self.origin = match["name"], match["origin"]

    @cached_property
    def version(self) -> str:
        """What the features depend on beside the spec: the content of a weights file, the precision."""
        weights = file_hash(self._file) if self.origin.startswith("file:") else f"seed {SEED}"
        return weights + " bf16" * self.bf16

    @property
    def dim(self) -> int:
        return int(getattr(self._model, "head_hidden_size", self._model.num_features))

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Return (N, D) float32 of patches, uint8 (N, H, W, 3)."""
        import torch
        from timm.data import resolve_model_data_config

        _require_patches(patches)
        config = resolve_model_data_config(self._model)
        seen, fixed = config["input_size"][1], self._model.pretrained_cfg.get("fixed_input_size", False)
        if fixed and patches.shape[1:3] != (seen, seen):
            raise ValueError(
                f"encoder '{self.name}' sees patches of {seen} x {seen} px only, found {patches.shape[1:3]}. "
                f"Set out_px of each level to {seen} in the params file, or choose another encoder"
            )
        device = next(self._model.parameters()).device
        mean, std = (255 * torch.tensor(config[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
        out = [np.zeros((0, self.dim), np.float32)]
        for i in range(0, len(patches), BATCH):
            block = torch.from_numpy(np.ascontiguousarray(patches[i : i + BATCH])).to(device)
            block = block.permute(0, 3, 1, 2)  # (B, 3, H, W), channels last in memory
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                out.append(self._model((block - mean) / std).float().cpu().numpy())
        return np.concatenate(out)

    @cached_property
    def _file(self) -> Path:
        path = paths.ROOT / self.origin.removeprefix("file:")  # an absolute path stays what it is
        if not path.exists():
            raise FileNotFoundError(
                f"encoder '{self.name}': there are no weights at {path}. Put the model's state dict there, "
                "as .safetensors or .pth"
            )
        return path

    @cached_property
    def _model(self) -> Any:
        import torch

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = {"untrained": self._untrained, "hub": self._from_hub}.get(self.origin, self._from_file)()
        return model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)

    def _untrained(self) -> Any:
        import timm
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            try:
                return timm.create_model(self.model_name, num_classes=0)
            except RuntimeError as error:
                raise ValueError(f"encoder '{self.name}': timm has no such model ({error})") from error

    def _from_hub(self) -> Any:
        import timm

        try:
            return timm.create_model(self.model_name, pretrained=True, num_classes=0)
        except Exception as error:  # each hub fails in its own way
            config = timm.get_pretrained_cfg(self.model_name) if timm.is_model(self.model_name) else None
            where = (config and (config.hf_hub_id or config.url)) or self.model_name
            raise FileNotFoundError(
                f"encoder '{self.name}': the weights could not be fetched ({error}). Where there is a "
                f"network, download model.safetensors of {where}, put it into data/weights/ and write "
                f"'{self.model_name}@file:data/weights/model.safetensors'"
            ) from error

    def _from_file(self) -> Any:
        import torch
        from safetensors.torch import load_file

        model = self._untrained()
        file = self._file
        state = (
            load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        )
        heads = model.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
        state = {key: value for key, value in state.items() if not key.startswith(heads or ("\0",))}
        missing, unexpected = model.load_state_dict(state, strict=False)
        if missing or unexpected:
            raise ValueError(
                f"encoder '{self.name}': {file.name} is no state dict of {self.model_name}: {len(missing)} "
                f"entries are missing, e.g. {missing[:2]}, {len(unexpected)} unknown, e.g. {unexpected[:2]}"
            )
        return model


def _require_patches(patches: np.ndarray) -> None:
    if (
        patches.ndim != 4
        or patches.shape[3] != 3
        or patches.dtype != np.uint8
        or min(patches.shape[1:3]) < 32
    ):
        raise ValueError(
            f"patches are uint8 (N, H, W, 3), at least 32 px wide, found {patches.dtype} {patches.shape}"
        )


# -- stain: colour and texture without weights ---------------------------------------------------------------

STAIN_VERSION = "1"  # part of the cache's key: raise it with every change of what follows
STAINS = np.array(
    [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]
)  # H and E as optical density (Ruifrok & Johnston 2001)
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

_SUMMARY = ("mean", "sd", *(f"q{round(100 * q)}" for q in QUANTILES))
STAIN_NAMES: tuple[str, ...] = (
    *(
        f"{plane}_{word}"
        for plane in ("haematoxylin", "eosin", "residual", "saturation")
        for word in _SUMMARY
    ),
    "stain_covariance",  # of haematoxylin and eosin
    *(
        f"{plane}_gradient_{s}px" for s in SCALES for plane in ("haematoxylin", "eosin")
    ),  # mean |change|, x + y
    *(f"haematoxylin_autocorrelation_{lag}px" for lag in LAGS),
    "nuclear_share",  # pixels above NUCLEUS
    "nuclear_density",  # peaks of smoothed haematoxylin above NUCLEUS, per 1,000 px
    "nuclear_contrast",  # mean haematoxylin above NUCLEUS minus below
    *(f"pattern_{n}" for n in range(9)),  # uniform local binary patterns with n bright neighbours, share
    "pattern_mixed",  # all others (Ojala et al. 2002: 8 neighbours, rotation-invariant)
)


class Stain:
    """Statistics of stain and texture, named in `STAIN_NAMES`; lengths are in px of the patch."""

    name, version, dim = "stain", STAIN_VERSION, len(STAIN_NAMES)

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Return (N, 52) float32 of patches, uint8 (N, H, W, 3); an odd last row or column is left out."""
        _require_patches(patches)
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
    """Return the numbers of `STAIN_NAMES` (n, 52) for a few patches."""
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
