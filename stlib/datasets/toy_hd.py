"""Reader of the toy tissue as Visium HD: made here from the seed, once, then read as `visium_hd` reads.

Beside Space Ranger's folders each section has ``expected_counts.h5``: the expected counts of its bins of
8 um, from which those of any location follow.
"""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse
from tqdm import tqdm

from stlib.datasets import ours, visium_hd
from stlib.locations import locate, rows_of, tiles, within
from stlib.params import Params
from stlib.paths import alone, write_text
from stlib.sections import Section
from stlib.toy_bins import FINE_UM, TRUTH, Options, ToyBins, write_raw


def tissue(params: Params) -> ToyBins:
    """Return the tissue behind the dataset, the same for all sizes."""
    return ToyBins(params.options(Options), params.sections)


def fetch(params: Params, folder: Path) -> None:
    """Make every file of the dataset in `folder`, unless the same recipe made them before.

    Only the house's own folder, `paths.raw`, is written to, by one process at a time.
    """
    if ours(params, folder):
        with alone(folder):
            _make(params, folder)
    visium_hd.require(_plain(params), folder)


def _make(params: Params, folder: Path) -> None:
    stamp = folder / "recipe.json"
    if stamp.exists() and stamp.read_text() == _recipe(params) and _complete(params, folder):
        return
    stamp.unlink(missing_ok=True)
    made = tissue(params)
    for section in tqdm(params.with_slide, unit="section", desc="toy tissue in bins"):
        write_raw(folder / section, made, section)
    write_text(stamp, _recipe(params))


def _complete(params: Params, folder: Path) -> bool:
    try:
        visium_hd.require(_plain(params), folder)
    except FileNotFoundError:
        return False
    return all((folder / section / TRUTH).is_file() for section in params.with_slide)


def read(params: Params, folder: Path, section: str, slide: bool = True) -> Section:
    """Read one section, see `visium_hd.read`, and the expected counts of its locations.

    Raises
    ------
    ValueError
        If other options made the files.
    """
    stamp = folder / "recipe.json"
    if stamp.exists() and stamp.read_text() != _recipe(params):
        where = f"params/{params.base}.yaml"
        raise ValueError(f"{folder}: made from other options than {where}; run `make data` again")
    found = visium_hd.read(_plain(params), folder, section, slide)
    with h5py.File(folder / section / TRUTH) as file:
        place, rate = file["place"][:].astype(int), file["rate"][:].astype(np.float64)
    share = _shares(params, found, place)
    # a sum of negative binomials is about one more: its dispersion is theirs, by how few and unlike they are
    expected = share.multiply(rate.sum(1)).tocsr()
    alike = np.asarray(expected.power(2).sum(1)).ravel() / np.asarray(expected.sum(1)).ravel() ** 2
    dispersion = params.options(Options).dispersion * float(np.median(alike))
    return replace(found, rate=share @ rate, dispersion=dispersion)


def _shares(params: Params, section: Section, place: np.ndarray) -> sparse.csr_matrix:
    """Return which share of each bin of 8 um (P) lies in each location of a section: (N, P)."""
    toy = tissue(params)
    fine, parent = toy.children(place)
    location, inside = locate(fine, FINE_UM, params.spot)
    if not tiles(params.spot):  # their bins outside the slide are dropped
        inside &= within(toy.to_px(fine, FINE_UM), section.size_px)
    row = rows_of(location, section.array)
    inside &= row >= 0
    weight = 1 / np.bincount(parent)[parent]
    return sparse.csr_matrix(
        (weight[inside], (row[inside], parent[inside])), shape=(len(section), len(place))
    )


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the slide of a section."""
    return visium_hd.image(_plain(params), folder, section)


def under_tissue(params: Params, folder: Path, section: str) -> np.ndarray:
    """Return the centres of all bins under tissue, see `visium_hd.under_tissue`."""
    return visium_hd.under_tissue(_plain(params), folder, section)


def _plain(params: Params) -> Params:
    """Return the dataset as `visium_hd` knows it: its options are no numbers of a tissue."""
    return params.model_copy(update={"source": params.source.model_copy(update={"options": {}})})


def _recipe(params: Params) -> str:
    """Return all that the files depend on, as text; the size is none of it."""
    needed = {"source": {"options"}, "sections": True}
    return json.dumps(params.model_dump(mode="json", include=needed))
