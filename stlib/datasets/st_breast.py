"""ST-Data: breast tumours, 68 sections of 23 patients (He et al., Nat. Biomed. Eng. 4, 827, 2020).

The files lie flat as in the record's archive, with or without its folder: `metadata.csv`, and for each
section counts of all array places (``*_stdata.tsv.gz``), pixels of those under tissue (``spots_*.csv.gz``)
and a slide (``HE_*.jpg``). Tumour annotations are not fetched: no method of the papers uses them. File names
are taken from `metadata.csv`: their prefixes BT and BC follow no rule. A section is called
`<patient>_<replicate>`, a spot `XxY` after its array column and row. Genes are Ensembl ids, some of them
several joined by "+", kept so.

The record lies at Mendeley Data, which lists address, size and SHA-256 of each file. The host sometimes
answers an error as if all were well; then it is asked again.
"""

import csv
import gzip
import re
import warnings
import zlib
from pathlib import Path

import numpy as np
from requests import Response

from stlib.array import SHIFT_STEPS, check_orientation, scale_of_slide, shift, slope
from stlib.counts import read_counts
from stlib.datasets import layer, ours, present, section_of, slide_px
from stlib.download import KEPT, ask, download
from stlib.manifest import File, read_manifest, write_manifest
from stlib.params import Params
from stlib.records import Record, nearest
from stlib.sections import Section

METADATA = "metadata.csv"
FILES = ("count_matrix", "spot_coordinates", "histology_image")  # columns of METADATA
LEAST_COUNTED = 0.95  # of the spots under tissue have counts, or the two files are not of one section


class Options(Record):
    """ST-Data needs none; a key under `source.options` is a mistake."""


def fetch(params: Params, folder: Path) -> None:
    """Make every file that the dataset needs present in `folder`.

    The house's own folder, `paths.raw`, is filled from the record, whose listing has size and SHA-256 of each
    file. A folder of the user's is never written to, see `require`.
    """
    if ours(params, folder):
        files = {file.path: file for file in published(params.source.url, Path(folder) / KEPT)}
        _download(files, [METADATA], folder)
        _download(files, _needed(params, folder), folder)
    require(params, folder)


def require(params: Params, folder: Path) -> None:
    """Check that `folder` has every file that the dataset needs.

    Raises
    ------
    FileNotFoundError
        If `metadata.csv`, a count matrix, a spot file or a slide is missing.
    """
    for section in params.patient_of:
        _file(params, folder, section, "count_matrix")
        _file(params, folder, section, "spot_coordinates")
    for section in params.with_slide:
        image(params, folder, section)


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the section's slide."""
    return _file(params, folder, section, "histology_image")


def read(params: Params, folder: Path, section: str, slide: bool = True) -> Section:
    """Read one section, see `stlib.datasets`: the array places under tissue that have counts.

    Its name is such as BC23287_C1. Without its slide the scale comes from the pixels of the spots.
    """
    params.options(Options)
    place = layer(params, section)
    counted, spotted = (_file(params, folder, section, kind) for kind in ("count_matrix", "spot_coordinates"))
    source = f"{counted.parent}: {counted.name} and {spotted.name}"
    names, genes, counts = read_counts(counted)
    barcodes = np.array([_spot(name, counted) for name in names])
    pixels = _read_spots(spotted)
    under = np.array([barcode in pixels for barcode in barcodes], bool)  # of about 1,000 array places
    if under.sum() < LEAST_COUNTED * len(pixels):
        raise ValueError(
            f"{source}: spots under tissue have counts; found {under.sum()} of {len(pixels)}. Check that "
            "both files belong to one section"
        )
    kept = under & (np.asarray(counts.sum(1)).ravel() > 0)
    barcodes, counts = barcodes[kept], counts[kept]
    array = np.array([barcode.split("x") for barcode in barcodes], np.float64).reshape(-1, 2)
    position = np.array([pixels[barcode] for barcode in barcodes], np.float64).reshape(-1, 2)
    check_orientation(array, position, source)
    size_px, um_per_px = None, params.spot.pitch_um / slope(array, position)
    if slide and section in params.with_slide:
        size_px = slide_px(image(params, folder, section))
        um_per_px = scale_of_slide(um_per_px, size_px, params.spot.pitch_um, source)
        steps = shift(array, position, size_px)
        if (np.abs(steps) > SHIFT_STEPS).any():
            warnings.warn(
                f"{source}: spots lie {steps.round(2).tolist()} array steps from where the slide's frame "
                "puts them; patches may be shifted by as much. Look at the slide with its spots",
                stacklevel=2,
            )
    return section_of(
        params,
        section,
        place,
        source,
        {},
        barcodes=barcodes,
        genes=genes,
        counts=counts,
        array=array,
        position=position,
        um_per_px=um_per_px,
        size_px=size_px,
    )


def _read_spots(path: Path) -> dict[str, tuple[float, float]]:
    """Return barcode -> pixel column and row of a spot file: the places under tissue."""
    found = {}
    for name, *pixel in _table(path):
        barcode = _spot(name, path)
        if barcode in found:
            raise ValueError(f"{path}: a spot has one row; found '{barcode}' repeated. Fetch the file again")
        try:
            found[barcode] = (float(pixel[0]), float(pixel[1]))
        except ValueError as error:
            raise ValueError(f"{path}: X and Y are numbers; found {pixel}. Fetch the file again") from error
    return found


def _table(path: Path) -> list[list[str]]:
    """Return the rows of a spot file: a key, X and Y.

    Lines end in CR, LF or both. The header may lack the cell above the keys, so that it is one field shorter.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        head, *rows = [row for row in csv.reader(lines) if row] or [[]]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); delete it, `make data` again") from error
    uneven = [row for row in rows if len(row) != 3]
    if head[-2:] != ["X", "Y"] or len(head) > 3 or uneven:
        raise ValueError(
            f"{path}: a row is a spot and X, Y; found the header {head} and "
            f"{len(uneven)} row(s) of another length. Fetch the file again"
        )
    return rows


def _spot(name: str, path: Path) -> str:
    """Return `XxY` in whole numbers."""
    numbers = re.fullmatch(r"(\d+\.?\d*)x(\d+\.?\d*)", name)
    if not numbers:
        raise ValueError(f"{path}: a spot is called column x row, e.g. 10x13; found '{name}'. Fetch it again")
    return "x".join(f"{round(float(number))}" for number in numbers.groups())


def _file(params: Params, folder: Path, section: str, kind: str) -> Path:
    """Return the path of a section's file, by the name in `metadata.csv`."""
    return present(params, _top(folder) / _row(params, folder, section)[kind])


def _row(params: Params, folder: Path, section: str) -> dict[str, str]:
    """Return what `metadata.csv` says of a section."""
    path = present(params, _top(folder) / METADATA)
    table = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
    columns = {"patient", "replicate", *FILES}
    rows = list(table)
    if not columns <= set(table.fieldnames or ()) or any(None in row.values() for row in rows):
        raise ValueError(
            f"{path}: the columns {sorted(columns)} are filled; found {table.fieldnames}. Fetch it again"
        )
    found = [row for row in rows if f"{row['patient']}_{row['replicate']}" == section]
    if len(found) != 1:
        named = [f"{row['patient']}_{row['replicate']}" for row in rows]
        raise ValueError(
            f"{path}: a section has one row; found {len(found)} of '{section}' (nearest: "
            f"{nearest(section, named)}). Correct the params file, or fetch {METADATA} again"
        )
    row = found[0]
    if outside := [row[kind] for kind in FILES if not re.fullmatch(r"\w[\w.+-]*", row[kind])]:
        raise ValueError(f"{path}: a file is named without a folder; found {outside}. Fetch the file again")
    return row


def _needed(params: Params, folder: Path) -> list[str]:
    """Return the names of the dataset's files, slides only where they are used."""
    names = []
    for section in params.patient_of:
        row = _row(params, folder, section)
        names += [row[kind] for kind in FILES if kind != "histology_image" or section in params.with_slide]
    return names


def _download(files: dict[str, File], names: list[str], folder: Path) -> None:
    """Bring files of the record into `folder`, by name."""
    if absent := [name for name in names if name not in files]:
        raise ValueError(
            f"{folder}: the record lists each file; found no {absent[:3]} ({len(absent)} in all). Delete "
            f"{METADATA} and {KEPT}, and run `make data` again"
        )
    download([files[name] for name in names], "", Path(folder))


def _top(folder: Path) -> Path:
    """Return the level that holds `metadata.csv`: `folder`, or the archive's only folder below it."""
    below = [path.parent for path in Path(folder).glob(f"*/{METADATA}")]
    return below[0] if len(below) == 1 and not (Path(folder) / METADATA).exists() else Path(folder)


def published(url: str, kept: Path) -> list[File]:
    """Return the files of a record; its listing is asked for once, and kept.

    Parameters
    ----------
    url
        ``https://data.mendeley.com/public-api/datasets/<record>/files?folder_id=root&version=<n>``.
    kept
        The manifest that is written, and read from then on.

    Raises
    ------
    FileNotFoundError
        If the listing cannot be had.
    ValueError
        If it is no listing, or names a file outside of the folder.
    """
    if not kept.exists():
        write_manifest(kept, ask(url, _listed))
    return read_manifest(kept)


def _listed(response: Response) -> list[File]:
    """Read a listing."""
    listing = response.json()
    try:
        return [
            File(
                item["filename"],
                item["content_details"]["size"],
                sha256=item["content_details"]["sha256_hash"],
                url=item["content_details"]["download_url"],
            )
            for item in listing
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{response.url}: a listing has filename, size, sha256_hash and download_url of each file; found "
            f"{str(listing)[:100]}. Run `make data` again later"
        ) from error
