"""Patches and frozen features of the nodes of a level, in caches addressed by content.

`patches` and `features` return memory-mapped arrays. Each file is named by a hash of all that went into it
(slide, positions, sizes, encoder): what is found is what was asked for, and a second call computes nothing.
The nodes of the levels ``region`` and ``global`` are the grid cells that hold a spot.

torch, timm and OpenSlide are imported when they are first needed: reading a cache needs none of them.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from stlib import paths
from stlib.encoders import BATCH, Timm
from stlib.fingerprint import intact, seal, sealed, text_hash
from stlib.graph import grid_parents
from stlib.params import Level, Params
from stlib.sections import Section
from stlib.stain import Stain

Encoder = Stain | Timm
Rows = tuple[np.ndarray, np.ndarray]  # which nodes (n,), and their patches or features (n, ...)

AROUND = 5  # patches along each side of a spot's neighbourhood (TRIPLEX)


@lru_cache(maxsize=4)
def encoder(spec: str) -> Encoder:
    """Return the encoder that a word names; its weights are read when it first encodes.

    Parameters
    ----------
    spec
        ``stain`` (`stlib.stain`, no weights), or a model of timm and where its weights come from
        (`stlib.encoders`): ``<name>@untrained``, ``<name>@hub`` or ``<name>@file:<path>``.

    Raises
    ------
    ValueError
        If the word does not say where weights come from.

    Examples
    --------
    >>> encoder("stain").dim
    52
    """
    return Stain() if spec == "stain" else Timm(spec)


def patches(params: Params, section: Section, level: str, kept: bool = True) -> np.ndarray:
    """Return the patch of each node of a level, cut once.

    Parameters
    ----------
    params
        The dataset; `params.levels[level]` says how many level-0 px a patch covers and what it is reduced to.
    level
        ``spot``: one around each spot. ``region``, ``global``: one for each grid cell that holds a spot, in
        the order of `stlib.graph.grid_parents`.
    kept
        False: of a tile of a slide, which is seen once: in memory, and without a bar.

    Returns
    -------
    np.ndarray
        uint8 (nodes, P, P, 3), P = out_px; a read-only memory map.
    """
    recipe, centres = _recipe(params, section, level)
    blocks = _cut(params, section, level, centres, lambda block: block, kept)
    note = _note(params, section, level, centres)
    return _cached("patches", recipe, note, blocks) if kept else _joined(blocks, note["nodes"])


def features(
    params: Params, section: Section, level: str, by: Encoder | None = None, kept: bool = True
) -> np.ndarray:
    """Return the features of each node of a level, encoded once.

    `by` is the encoder, by default the one that `params.encoder` names; for the others see `patches`. The
    result is float32 (nodes, D), a read-only memory map.
    """
    by = encoder(params.encoder) if by is None else by
    recipe, centres = _recipe(params, section, level)
    recipe |= {"encoder": by.name, "version": by.version}
    blocks = _cut(params, section, level, centres, by.encode, kept)
    note = _note(params, section, level, centres)
    return _cached("features", recipe, note, blocks) if kept else _joined(blocks, note["nodes"])


def neighbours(params: Params, section: Section, by: Encoder | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of the 5 x 5 patches around each spot, side by side, encoded once.

    Parameters are as in `features`.

    Returns
    -------
    features : np.ndarray
        float32 (N, 25, D), row by row from the upper left; the 13th is the spot's own patch.
    inside : np.ndarray
        bool (N, 25): whether the centre of the patch lies on the slide. What lies beyond is white.
    """
    by = encoder(params.encoder) if by is None else by
    recipe, centres = _recipe(params, section, "spot")
    recipe |= {"encoder": by.name, "version": by.version, "around": AROUND}
    side = np.arange(AROUND) - AROUND // 2
    steps = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)  # (25, 2), x and y, in patches
    around = centres[:, None] + steps * params.levels["spot"].px  # (N, 25, 2)
    flat = around.reshape(-1, 2)
    blocks = _cut(params, section, "spot", flat, by.encode)
    found = _cached("features", recipe, _note(params, section, "neighbours", flat), blocks)
    inside = ((around >= 0) & (around <= section.size_px)).all(2)  # the spot itself always is
    return found.reshape(len(centres), AROUND**2, -1), inside


# -- caches --------------------------------------------------------------------------------------------------


def _recipe(params: Params, section: Section, level: str) -> tuple[dict[str, Any], np.ndarray]:
    """Return what determines the patches of a level, and their centres (nodes, 2), level-0 px."""
    size = params.levels[level]
    centres = np.asarray(section.position, np.float64)
    if level != "spot":
        centres = (grid_parents(centres, size.px)[1] + 0.5) * size.px
    recipe = {
        "slide": sealed(paths.slide_file(params.name, section.name), "run `make data` again"),
        "centres": hashlib.sha256(np.ascontiguousarray(centres).tobytes()).hexdigest(),
        "px": size.px,
        "out_px": size.out_px,
    }
    return recipe, centres


def _note(params: Params, section: Section, level: str, centres: np.ndarray) -> dict[str, Any]:
    """Return what a reader of the .json wants to know, and no hash depends on."""
    return {"dataset": params.name, "section": section.name, "level": level, "nodes": len(centres)}


def _cut(
    params: Params,
    section: Section,
    level: str,
    centres: np.ndarray,
    use: Callable[[np.ndarray], np.ndarray],
    kept: bool = True,
) -> Iterator[Rows]:
    """Cut each distinct patch once, in the order of the slide's tiles; yield what `use` makes of a block."""
    from stlib.reading import ahead
    from stlib.slide import Slide

    size = params.levels[level]
    first, again = Slide.distinct(centres, size.px)
    cuts = range(0, len(first), BATCH)
    by_patch = np.argsort(again, kind="stable")
    ends = np.searchsorted(again[by_patch], [*cuts, len(first)])
    read = partial(_read, paths.slide_file(params.name, section.name), size)
    beside = None if kept else 0  # a tile of a slide is not worth a process
    blocks = ahead(read, [centres[first[start : start + BATCH]] for start in cuts], beside)
    with tqdm(total=len(centres), unit="patch", desc=f"{section.name} {level}", disable=not kept) as shown:
        for start, (here, end), block in zip(cuts, pairwise(ends), blocks, strict=True):
            nodes = by_patch[here:end]
            yield nodes, use(block)[again[nodes] - start]
            shown.update(len(nodes))


def _read(path: Path, size: Level, blocks: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the patches around each block of places of a slide."""
    from stlib.slide import Slide

    with Slide(path) as slide:
        for centres in blocks:
            yield slide.patches(centres, size.px, size.out_px)


def _joined(blocks: Iterator[Rows], nodes: int, make: Callable[..., np.ndarray] = np.empty) -> np.ndarray:
    """Put blocks of rows where they belong, in an array made by `make` from shape and dtype."""
    array = None
    for rows, block in blocks:
        if array is None:
            array = make(shape=(nodes, *block.shape[1:]), dtype=block.dtype)
        array[rows] = block
    return array


def _cached(kind: str, recipe: dict[str, Any], note: dict[str, Any], blocks: Iterator[Rows]) -> np.ndarray:
    """Return the array that `recipe` determines; if it is absent or damaged, join it from blocks of rows.

    Beside the array stand its seal, and a .json with recipe, note and shape, for people; written last.
    """
    path = paths.cache(kind) / f"{text_hash(recipe)[:32]}.npy"
    found = _open(path)
    if found is not None:
        return found
    with paths.replacing(path) as temporary, open(temporary, "w+b") as out:
        array = _joined(blocks, note["nodes"], partial(_mapped, out))
        array.flush()
    seal(path)
    content = note | recipe | {"shape": array.shape, "dtype": str(array.dtype)}
    paths.write_text(path.with_suffix(".json"), json.dumps(content, indent=1))
    return np.load(path, mmap_mode="r")


def _mapped(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Map a new .npy file whose room is taken beforehand."""
    about = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    file.flush()
    paths.take_room(file, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.memmap(file, dtype, "r+", file.tell(), shape)


def _open(path: Path) -> np.ndarray | None:
    """Map an array that stands with all that belongs to it; None if there is none, or it is damaged."""
    if not (path.exists() and path.with_suffix(".json").exists()):
        return None
    if intact(path):
        return np.load(path, mmap_mode="r")
    warnings.warn(
        f"cache/{path.parent.name}/{path.name} is damaged (its bytes are not those that were written); it is "
        "made anew",
        stacklevel=4,
    )
    return None
