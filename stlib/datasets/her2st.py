"""HER2-positive breast tumours: 36 sections of 8 patients (Andersson et al., Nat. Commun. 12, 6012, 2021).

The files lie as on GitHub, with or without its `data/` level: ``ST-cnts/A1.tsv.gz`` (spots x gene symbols),
``ST-spotfiles/A1_selection.tsv`` (fitted places), ``ST-imgs/A/A1/*.jpg`` (one slide, cropped to the frame of
the array). A spot is called `XxY` after the columns x and y of the spot file, a section by the letter of its
patient and its place in the stack. One section of each patient has a pathologist's labels,
``ST-pat/lbl/A1_labeled_coordinates.tsv``; they are read where they lie, and nothing is trained on them.

Two routes lead to them: one commit on GitHub, whose blob ids stand in a manifest, or the record on Zenodo,
whose archives are encrypted with passwords that the authors publish.
"""

import csv
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

import numpy as np

from stlib import paths
from stlib.array import scale_of_slide, slope
from stlib.counts import read_counts
from stlib.datasets import ours, patient_of, present, section_of, slide_px
from stlib.download import download, download_unpublished
from stlib.encrypted import unpack
from stlib.manifest import File, read_manifest
from stlib.params import Params
from stlib.records import Record
from stlib.sections import Section

MANIFEST = "her2st.files.tsv"  # in params/, of the route github
ARCHIVES = "her2st.archives.tsv"  # of the route zenodo: which members go where, and the passwords
LABELLED = ["Row.names", "x", "y", "pixel_x", "pixel_y", "label"]
REGIONS = (
    *("invasive cancer", "cancer in situ", "connective tissue", "adipose tissue", "breast glands"),
    *("immune infiltrate", "undetermined"),
)
COLUMNS = ["x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"]


class Options(Record):
    """Which route is taken, and defects that the source is known to have."""

    route: Literal["github", "zenodo"] = "github"  # where `fetch` downloads from
    dead_positions: list[str] = []  # such as 17x14: a spot file may list them although they have no counts
    empty_spots: dict[str, list[str]] = {}  # section -> spots whose counts may all be zero


def fetch(params: Params, folder: Path) -> None:
    """Make every file that the dataset needs present in `folder`.

    The house's own folder, `paths.raw`, is filled by downloading. From GitHub each file in it is held against
    the manifest; Zenodo's archives are believed once, and kept below ``archives``. A folder of the user's is
    never written to, see `require`.
    """
    if ours(params, folder):
        if params.options(Options).route == "zenodo":
            _from_archives(params, Path(folder))
        else:
            download(_needed(params), params.source.url, Path(folder))
    require(params, folder)


def require(params: Params, folder: Path) -> None:
    """Check that `folder` has every file that the dataset needs.

    Raises
    ------
    FileNotFoundError
        If a count matrix, a spot file or a slide is missing.
    ValueError
        If a section has several slides.
    """
    for section in params.patient_of:
        _present(params, folder, f"ST-cnts/{section}.tsv.gz")
        _present(params, folder, f"ST-spotfiles/{section}_selection.tsv")
    for section in params.with_slide:
        image(params, folder, section)


def image(params: Params, folder: Path, section: str) -> Path:
    """Return the section's slide, the only JPEG of its folder."""
    pattern = f"ST-imgs/{_patient(params, section)}/{section}/*.jpg"
    found = sorted(_top(folder).glob(pattern))
    if len(found) > 1:
        raise ValueError(
            f"{_top(folder)}: a section has one slide, {pattern} finds {[path.name for path in found]}. "
            "Keep the published one"
        )
    return found[0] if found else _present(params, folder, pattern)


def read(params: Params, folder: Path, section: str, slide: bool = True) -> Section:
    """Read one section, see `stlib.datasets`; its name is such as A1.

    Without its slide the scale comes from the pixels of the spots.
    """
    patient = _patient(params, section)
    options = params.options(Options)
    barcodes, genes, counts = read_counts(_present(params, folder, f"ST-cnts/{section}.tsv.gz"))
    spots = _read_spots(_present(params, folder, f"ST-spotfiles/{section}_selection.tsv"))
    source = f"{_top(folder)}: {section}.tsv.gz and {section}_selection.tsv"
    array, position = _join(barcodes, spots, options.dead_positions, source)
    size_px, um_per_px = None, params.spot.pitch_um / slope(array, position)
    if slide and section in params.with_slide:
        size_px = slide_px(image(params, folder, section))
        um_per_px = scale_of_slide(um_per_px, size_px, params.spot.pitch_um, source)
    return section_of(
        params,
        section,
        int(section.removeprefix(patient)),
        source,
        options.empty_spots,
        barcodes=barcodes,
        genes=genes,
        counts=counts,
        array=array,
        position=position,
        um_per_px=um_per_px,
        size_px=size_px,
        region=_regions(_top(folder) / f"ST-pat/lbl/{section}_labeled_coordinates.tsv", array, spots),
    )


def _read_spots(path: Path) -> dict[str, np.ndarray]:
    """Return barcode -> (new_x, new_y, pixel_x, pixel_y) of a spot file."""

    def refuse(requirement: str, found: object) -> ValueError:
        return ValueError(f"{path}: {requirement}; found {found}. Correct the file, or fetch it again")

    head, *lines = path.read_text().splitlines() or [""]
    if head.split("\t") != COLUMNS:
        raise refuse(f"the columns are {' '.join(COLUMNS)}, tab-separated", repr(head))
    try:
        table = np.array([line.split("\t") for line in lines], np.float64).reshape(-1, len(COLUMNS))
    except ValueError as error:
        raise refuse(f"each row has {len(COLUMNS)} numbers", error) from error
    x, y, selected = table[:, 0], table[:, 1], table[:, 6]
    if ((x % 1 != 0) | (y % 1 != 0)).any() or (selected != 1).any():
        raise refuse("x and y are whole numbers, and each spot is selected (1)", "other values")
    names = [f"{i:.0f}x{j:.0f}" for i, j in zip(x, y, strict=True)]
    if len(set(names)) < len(names):
        raise refuse("a spot has one row", f"{sorted({n for n in names if names.count(n) > 1})} repeated")
    return dict(zip(names, table[:, 2:6], strict=True))


def _regions(path: Path, array: np.ndarray, listed: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return the pathologist's label of each spot (N,); None for a section without labels.

    Labels are joined on the fitted place in the array, to three decimals; the pixels of their file belong to
    another image. Rows without a place are dropped; a spot has one label, or none.
    """
    if not path.is_file():
        return None

    def refuse(requirement: str, found: object) -> ValueError:
        return ValueError(f"{path}: {requirement}; found {found}. Correct the file, or remove it")

    head, *lines = path.read_text().splitlines() or [""]
    if head.split("\t") != LABELLED:
        raise refuse(f"the columns are {' '.join(LABELLED)}, tab-separated", repr(head))
    labels: dict[tuple[float, float], str] = {}
    for line in lines:
        words = line.split("\t")
        if len(words) != len(LABELLED) or words[-1] not in REGIONS:
            raise refuse(
                f"each row has {len(LABELLED)} words, the last one of {', '.join(REGIONS)}", repr(line)
            )
        if words[1] in ("", "NA"):
            continue
        place = _fitted(float(words[1]), float(words[2]))
        if labels.setdefault(place, words[-1]) != words[-1]:
            raise refuse("a spot has one label", f"{labels[place]!r} and {words[-1]!r} at {place}")
    strange = sorted(set(labels) - {_fitted(*row[:2]) for row in listed.values()})
    if strange:
        raise refuse("labels lie on spots of the section", f"{len(strange)} that do not, e.g. {strange[:3]}")
    return np.array([labels.get(_fitted(*place), "") for place in array])


def _fitted(x: float, y: float) -> tuple[float, float]:
    """Return a fitted place as it is joined on."""
    return round(float(x), 3), round(float(y), 3)


def _join(
    barcodes: np.ndarray, spots: dict[str, np.ndarray], dead: list[str], source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return place in the array and in px of each barcode (N, 2); the files must name the same spots."""
    for problem, names, requirement in (
        ("counts without spot", set(barcodes) - set(spots), "All counts have a place"),
        ("spot without counts", set(spots) - set(barcodes) - set(dead), f"All spots but {dead} have counts"),
    ):
        if names:
            first = sorted(map(str, names))[:5]
            raise ValueError(
                f"{source}: {problem}: {first} ({len(names)} in all). {requirement}; check that both files "
                "belong to one section"
            )
    return tuple(np.hsplit(np.array([spots[barcode] for barcode in barcodes]), 2))


def _patient(params: Params, section: str) -> str:
    """Return the patient of a section, whose name begins with it."""
    patient = patient_of(params, section)
    if not section.removeprefix(patient).isdigit():
        raise ValueError(
            f"params/{params.base}.yaml: a section is called by its patient's letter and its number; correct "
            f"'{section}' of patient '{patient}'"
        )
    return patient


def _needed(params: Params) -> list[File]:
    """Return the files of the manifest that the dataset needs: slides only where they are used."""
    files = {}  # section -> {folder of the source: file}
    for file in read_manifest(paths.PARAMS / MANIFEST):
        kind, *_, name = Path(file.path).parts
        folder = Path(file.path).parts[-2]
        section = folder if kind == "ST-imgs" else name.split(".")[0].removesuffix("_selection")
        files.setdefault(section, {})[kind] = file
    unknown = [section for section in params.patient_of if section not in files]
    if unknown:
        raise ValueError(f"params/{MANIFEST} has no files of section(s) {unknown} (found {', '.join(files)})")
    kinds = [(section, kind) for section in params.patient_of for kind in ("ST-cnts", "ST-spotfiles")]
    return [files[section][kind] for section, kind in kinds + [(s, "ST-imgs") for s in params.with_slide]]


def _from_archives(params: Params, folder: Path) -> None:
    """Download the archives that hold a file which is not there, and unpack it."""
    with open(paths.PARAMS / ARCHIVES, newline="") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            slides = row["path"].startswith("ST-imgs")
            names = [
                {"section": section, "patient": _patient(params, section)}
                for section in (params.with_slide if slides else params.patient_of)
            ]
            wanted = {row["member"].format(**name): row["path"].format(**name) for name in names}
            if all((folder / path).exists() for path in wanted.values()):
                continue
            archive = PurePosixPath(urlsplit(row["url"]).path).name
            download_unpublished({archive: row["url"]}, folder / "archives")
            unpack(folder / "archives" / archive, row["password"], wanted, folder)


def _top(folder: Path) -> Path:
    """Return the level that holds ST-cnts: `folder`, or `data` below it in a clone of the repository."""
    clone = Path(folder) / "data"
    return clone if clone.is_dir() else Path(folder)


def _present(params: Params, folder: Path, name: str) -> Path:
    """Return the path of a file, or say how to get it."""
    return present(params, _top(folder) / name)
