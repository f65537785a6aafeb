"""HER2-positive breast tumours: 36 sections of 8 patients (Andersson et al., Nature Communications 12, 6012, 2021).

Files as on GitHub, with or without a `data/` level above: ``ST-cnts/A1.tsv.gz`` (spots x gene symbols),
``ST-spotfiles/A1_selection.tsv`` (fitted places), ``ST-imgs/A/A1/*.jpg`` (one slide, cropped to the frame of the array).
A spot is called `XxY` after the integer columns x and y of the spot file. The letter is the patient, the number the
place in the stack.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
from scipy import sparse

from stlib import paths
from stlib.download import File, download, read_manifest
from stlib.params import Params, Record, nearest, parse
from stlib.sections import Section, check_section

MANIFEST = "her2st.files.tsv"  # in params/
COLUMNS = ["x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"]
FRAME = np.array([32, 34])  # pitches between the first and the last column and row of the array
SCALE_TOLERANCE = 0.02  # slide against spot file; section A6, whose pixels do not follow the frame, is 0.8 % off
TAB, NEWLINE, ZERO = b"\t\n0"
MAX_DIGITS = 9  # fits int32


class Options(Record):
    """What is known about the source's defects.

    Attributes
    ----------
    dead_positions
        Array positions such as 17x14 that a spot file may list although they have no counts.
    empty_spots
        Section -> spots that may have a count of zero in all genes.
    """

    dead_positions: list[str] = []
    empty_spots: dict[str, list[str]] = {}


def fetch(params: Params, folder: Path) -> None:
    """Make all files that the dataset needs present in `folder`.

    The house's own folder is filled by downloading, and each file in it is held against the manifest. A folder of the
    user's is only looked at, see `require`.
    """
    if Path(folder).resolve() != paths.raw(params.source.reader).resolve():
        return require(params, folder)
    listed = read_manifest(paths.PARAMS / MANIFEST)
    download(_needed(params, listed), params.source.url, Path(folder))


def require(params: Params, folder: Path) -> None:
    """Check that `folder` has a file for all that the dataset needs.

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
    """Return the section's slide, the only JPEG in its folder."""
    pattern = f"ST-imgs/{params.patient_of[section]}/{section}/*.jpg"
    found = sorted(_top(folder).glob(pattern))
    if len(found) > 1:
        raise ValueError(
            f"{_top(folder)}: a section has one slide; {pattern} finds {[path.name for path in found]}. Keep the original"
        )
    return found[0] if found else _present(params, folder, pattern)


def read(params: Params, folder: Path, section: str, slide: bool = True) -> Section:
    """Read one section.

    Parameters
    ----------
    params
        The dataset.
    folder
        The source's files.
    section
        A name such as A1, of `sections` or of `counts_only`.
    slide
        False: leave the slide aside, as for the sections of `counts_only`. Then `size_px` is None, and the scale comes
        from the pitch of the spots' pixels.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the files are damaged, contradict each other, or hold what no section can hold.
    """
    if section not in params.patient_of:
        raise ValueError(
            f"params/{params.name}.yaml has no section '{section}' (nearest: {nearest(section, params.patient_of)})"
        )
    patient = params.patient_of[section]
    if section[:1] != patient or not section[1:].isdigit():
        raise ValueError(f"params/{params.name}.yaml: section '{section}' of patient '{patient}' should be '{patient}' and its number")
    options = parse(Options, params.source.options, f"params/{params.name}.yaml, source.options")
    counts_file = _present(params, folder, f"ST-cnts/{section}.tsv.gz")
    spot_file = _present(params, folder, f"ST-spotfiles/{section}_selection.tsv")

    barcodes, genes, counts = read_counts(counts_file)
    spots = _read_spots(spot_file)
    rows = _join(barcodes, list(spots), options.dead_positions, counts_file, spot_file)
    place = np.array(list(spots.values()))[rows]  # (N, 4)
    array, position = place[:, :2], place[:, 2:]
    size_px = None
    if slide and section in params.with_slide:
        from stlib.slide import image_size  # images are opened there only

        size_px = np.array(image_size(image(params, folder, section)))
    made = Section(
        name=section,
        patient=patient,
        layer=int(section[1:]),
        barcodes=barcodes,
        genes=genes,
        counts=counts,
        array=array,
        position=position,
        um_per_px=np.full(2, np.nan),
        size_px=size_px,
        shape=params.spot.shape,
        size_um=params.spot.size_um,
        pitch_um=params.spot.pitch_um,
    )
    return made


