"""What lies in a lab's folder, and the params file that follows from it: ``make params FOLDER=...``.

Five layouts are told apart, see `layout_of`. Every section is read, at each of its sizes, so that what is
wrong with it is said here, and its totals stand in the file as what is expected. Files do not tell which
sections are of one patient: ``sections.csv`` in the folder does, with the columns ``section,patient``, in
cutting order. Without it each section counts as a patient of its own, and the file says that this must be
checked.
"""

import csv
import math
import re
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stlib import datasets, paths
from stlib.params import Params, content_of, read_params, sizes_of
from stlib.records import parse, require_known
from stlib.survey_layout import BINNED, LIST, Found, layout_of
from stlib.survey_text import check_genes, text_of

PATCH_UM = {"spot": 154, "region": 352, "global": 704}  # as 224, 512 and 1024 px of her2st
SEEN_PX = 224  # at most, after area averaging
STEP_PX = 32  # patches are multiples of it, as networks halve them
PANEL = 250
SMALL, SMALL_BINS = "her2st_small", "toy_hd"  # whose overrides two CPU cores train
BINNED_UM_PER_PX = 0.25  # to which the px of `BINNED` belong
CITING = ("egn", "eggn")
ALONE = "its exemplars come from other patients than the spot's, and each fold trains on one"
WEIGHTED = ("pixnet@resnet18", "pixnet@vit", "pixnet@uni", "magnet@uni")  # the encoder makes these variants
ON_HUB = "it needs weights from a hub"
STAND_IN = "frozen stain and texture statistics stand in for the papers' encoder"
KEPT = "of each slide a sample is kept, drawn in squares of neighbours"
WHOLE_LISTS = ("visium", "visium_hd")  # Space Ranger lists every gene that was asked for, counted or not


def survey(folder: Path, name: str, um_per_px: str = "") -> str:
    """Return the text of a params file for a folder.

    Parameters
    ----------
    folder
        In one of the layouts of `layout_of`.
    um_per_px
        Scale of the slides, where files do not tell it.

    Raises
    ------
    ValueError
        If the layout is none of them, a section is broken, or the sections do not belong together.
    """
    found = layout_of(folder, um_per_px)
    patients = patients_of(folder, found.sections)
    if len(patients) < 2:
        raise ValueError(
            f"{folder}: a model is tested on a patient that it was not trained on, so that two are needed; "
            f"found {[*patients]}. Add sections of another patient, or correct {LIST}"
        )
    content = _draft(found, name, folder, patients)
    sizes = content.pop("sizes", None) or {"": {}}
    drafts = {size: parse(Params, content | part, f"params/{name}.yaml") for size, part in sizes.items()}
    read = {}
    for size, draft in drafts.items():
        read[size] = {
            section: datasets.reader(draft).read(draft, folder, section)
            for section in tqdm(draft.patient_of, unit="section", desc=f"{name}{size and '@'}{size}")
        }
        if len(read) == 1:
            check_genes(folder, read[size], whole=found.reader in WHOLE_LISTS)
    return text_of(drafts, found, read, known=(folder / LIST).is_file())


def patients_of(folder: Path, sections: list[str]) -> dict[str, list[str]]:
    """Return patient -> sections, by the list in the folder, or each section its own.

    Raises
    ------
    ValueError
        If the list does not name each section once.
    """
    path = folder / LIST
    if not path.is_file():
        return {section: [section] for section in sections}
    rows = list(csv.DictReader(path.read_text().splitlines(), skipinitialspace=True))
    if not rows or not {"section", "patient"} <= set(rows[0]):
        raise ValueError(
            f"{path}: has the columns section,patient; found {list(rows[0]) if rows else 'nothing'}"
        )
    patients: dict[str, list[str]] = {}
    for row in rows:
        patients.setdefault(row["patient"].strip(), []).append(row["section"].strip())
    listed = [section for stack in patients.values() for section in stack]
    for section in listed:
        require_known(section, sections, f"{path}: '{section}' is no section of the folder")
    if sorted(listed) != sorted(sections):
        missing = sorted(set(sections) - set(listed)) or "a section twice"
        raise ValueError(f"{path}: lists each section of the folder once; found {missing}. Correct it")
    return patients


def _draft(found: Found, name: str, folder: Path, patients: dict[str, list[str]]) -> dict[str, Any]:
    """Return the content of the params file, as far as it is known before sections are read."""
    names = list(patients)
    groups = [[one] for one in names] if len(names) <= 8 else [names[k::5] for k in range(5)]
    small = content_of(paths.PARAMS / f"{SMALL_BINS if found.sizes else SMALL}.yaml")
    stacks = {} if found.sizes else {p: stack for p, stack in patients.items() if len(stack) > 1}
    return (_bins(found) if found.sizes else _spots(found)) | {
        "name": name,
        "title": name.replace("_", " "),
        "source": {
            "reader": found.reader, "folder": str(folder.resolve()), "licence": "own data, not published",
            "citation": "own data", "options": found.options,
        },
        "sections": patients,
        "known": {patient: stack[0] for patient, stack in stacks.items()},
        "panel": {"size": PANEL},
        "encoder": "stain",
        "registration": {"route": "robust", "um_per_px": 8},
        "folds": {"hd" if found.sizes else "2d": {"+".join(group): group for group in groups}},
        "training": small["training"],
        "overrides": small["overrides"],
        "absent": ({} if len(patients) > 2 else dict.fromkeys(CITING, ALONE))
        | (dict.fromkeys(WEIGHTED, ON_HUB) if found.sizes else {}),
        "notes": [STAND_IN, *([KEPT] if found.sizes else [])],
    }  # fmt: skip


def _spots(found: Found) -> dict[str, Any]:
    """Return the locations and their patches, for sections of one size of spots."""
    px = {
        level: max(STEP_PX, STEP_PX * round(um / found.um_per_px / STEP_PX)) for level, um in PATCH_UM.items()
    }
    return {
        "spot": found.spot.model_dump(),
        "levels": {level: {"px": size, "out_px": min(size, SEEN_PX)} for level, size in px.items()},
        "graph": {"radius_px": px["spot"] / 2},
    }


def _bins(found: Found) -> dict[str, Any]:
    """Return the sizes of `BINNED` that bins allow, patches halved or doubled to about as many um."""
    content = content_of(paths.PARAMS / f"{BINNED}.yaml")
    times = 2.0 ** round(math.log2(BINNED_UM_PER_PX / found.um_per_px))
    sizes = {}
    for size in found.sizes:
        part = content["sizes"][size]
        px = {level: max(STEP_PX, int(one["px"] * times)) for level, one in part["levels"].items()}
        levels = {level: {"px": side, "out_px": side} for level, side in px.items()}
        sizes[size] = {"spot": part["spot"], "sample": part["sample"], "levels": levels}
    return {"sizes": sizes, "graph": {"radius_px": content["graph"]["radius_px"] * times}}


def main(folder: str, name: str = "", um_per_px: str = "") -> Path:
    """Write ``params/<name>.yaml`` for a folder; what stands there is not replaced.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    FileExistsError
        If there is such a file.
    """
    home = Path(folder)
    if not folder or not home.is_dir():
        raise FileNotFoundError(f"FOLDER={folder} is no folder; name the one that holds your sections")
    name = name or re.sub(r"\W+", "_", home.resolve().name.lower()).strip("_")
    path = paths.PARAMS / f"{name}.yaml"
    if path.exists():
        raise FileExistsError(f"params/{path.name} stands; delete it, or choose another name with NAME=")
    with paths.replacing(path) as temporary:
        temporary.write_text(survey(home, name, um_per_px))
        for size in sizes_of(temporary.stem) or [""]:
            read_params(temporary, size)
    return path


if __name__ == "__main__":  # python -m stlib.survey <folder> <name> <um_per_px>
    try:
        print(f"written: {main(*sys.argv[1:]).relative_to(paths.ROOT)}; read what says CHECK in it")
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
