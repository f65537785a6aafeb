"""Reader of the toy tissue: the raw files are made here from the seed, once, then read as any other source's.

For each section: the slide (pyramidal TIFF) and three tables (TSV, one row a spot): where spots lie, their
counts, and the expected counts they were drawn from. `recipe.json`, written last, says what made them.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from stlib.alignment import Registration
from stlib.datasets import ours, section_of
from stlib.params import Params
from stlib.paths import replacing
from stlib.sections import Section
from stlib.slide import write_pyramid
from stlib.toy import Options, Toy
from stlib.toy_paint import paint

TABLES = ("spots", "counts", "rate")
PLACE = ["array_col", "array_row", "x_px", "y_px"]


def tissue(params: Params) -> Toy:
    """Return the tissue behind the dataset: `tissue(params).cuts[section]` is the true transform."""
    return Toy(params.options(Options), params.sections, params.spot)


def registration_error(params: Params, maps: Mapping[str, Registration]) -> dict[str, np.ndarray]:
    """Return how far from the truth each spot is mapped: section -> (N,), um.

    `maps` is section -> map to the middle section of its stack.
    """
    toy, errors = tissue(params), {}
    for names in params.sections.values():
        middle = toy.cuts[names[len(names) // 2]]
        for name in names:
            position = toy.spots(name)[1]
            true = middle.to_slide(toy.cuts[name].to_block(position)) * toy.options.um_per_px
            errors[name] = np.linalg.norm(maps[name].to_um(position) - true, axis=1)
    return errors


def fetch(params: Params, folder: Path) -> None:
    """Make every file of the dataset in `folder`, unless the same recipe made them before.

    Only the house's own folder, `paths.raw`, is written to; in a folder of the user's, `read` says what is
    missing.
    """
    if not ours(params, folder):
        return
    stamp = folder / "recipe.json"
    files = [path for section in params.with_slide for path in _files(folder, section).values()]
    if stamp.exists() and stamp.read_text() == _recipe(params) and all(path.exists() for path in files):
        return
    stamp.unlink(missing_ok=True)
    toy = tissue(params)
    for section in tqdm(params.with_slide, unit="section", desc="toy tissue"):
        array, position = toy.spots(section)
        counts, rate = toy.measure(section)
        barcodes = [f"{column}x{row}" for column, row in array]
        tables = {
            "spots": pd.DataFrame(np.column_stack([array, position]), barcodes, PLACE),
            "counts": pd.DataFrame(counts, barcodes, toy.genes),
            "rate": pd.DataFrame(rate, barcodes, toy.genes),
        }
        for kind, table in tables.items():
            with replacing(_files(folder, section)[kind]) as temporary:
                table.to_csv(temporary, sep="\t", float_format="%.9g")
        write_pyramid(paint(toy, section), image(params, folder, section), toy.options.um_per_px)
    with replacing(stamp) as temporary:
        temporary.write_text(_recipe(params))


def read(params: Params, folder: Path, section: str, slide: bool = True) -> Section:
    """Read one section; without its slide, `size_px` is None.

    Raises
    ------
    FileNotFoundError
        If it was not made yet.
    ValueError
        If its files do not fit together, or other options made them.
    """
    stamp = folder / "recipe.json"
    if stamp.exists() and stamp.read_text() != _recipe(params):
        where = f"params/{params.base}.yaml"
        raise ValueError(f"{folder}: made from other options than {where}; run `make data` again")
    spots, counts, rate = (_table(_files(folder, section)[kind]) for kind in TABLES)
    same_spots = spots.index.equals(counts.index) and spots.index.equals(rate.index)
    if not (same_spots and counts.columns.equals(rate.columns)):
        requirement = f"the tables of {section} list the same spots and genes"
        raise ValueError(f"{folder}: {requirement}, found other ones. Delete them and run `make data` again")
    numbers, patient = params.options(Options), params.patient_of[section]
    made = section_of(
        params,
        section,
        params.sections[patient].index(section) + 1,
        f"{folder.name}/{section}.counts.tsv",
        {},
        barcodes=counts.index.to_numpy(str),
        genes=counts.columns.to_numpy(str),
        counts=sparse.csr_matrix(counts.to_numpy()),
        array=spots[PLACE[:2]].to_numpy(float),
        position=spots[PLACE[2:]].to_numpy(float),
        um_per_px=np.full(2, numbers.um_per_px),
        size_px=np.full(2, numbers.size_px) if slide else None,
        rate=rate.to_numpy(),
        dispersion=numbers.dispersion,
        region=tissue(params).regions(section),
    )
    return replace(made, counts=made.counts.astype(np.int32))


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the slide of a section."""
    return _files(folder, section)["slide"]


def _files(folder: Path, section: str) -> dict[str, Path]:
    tables = {kind: folder / f"{section}.{kind}.tsv" for kind in TABLES}
    return {**tables, "slide": folder / f"{section}.tif"}


def _recipe(params: Params) -> str:
    """Return all that the files depend on, as text."""
    needed = {"source": {"options"}, "sections": True, "spot": True}
    return json.dumps(params.model_dump(mode="json", include=needed))


def _table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise FileNotFoundError(f"{path}: not made yet; run `make data DATASET=toy`")
    try:
        return pd.read_csv(path, sep="\t", index_col=0)
    except ValueError as error:
        raise ValueError(
            f"{path}: damaged ({str(error).strip()}). Delete it and run `make data` again"
        ) from error
