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
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from stlib import datasets, paths
from stlib.expression import common_genes, top_mean_panel
from stlib.params import Params, content_of, read_params, sizes_of
from stlib.records import nearest, parse
from stlib.sections import Section
from stlib.survey_layout import BINNED, Found, layout_of

LIST = "sections.csv"
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
LOCATED = ("spot", "sample", "levels")  # each size has its own
DRAWN = "# sample: how many of a slide are kept, in squares of neighbours; fewer train faster"
KEPT = "of each slide a sample is kept, drawn in squares of neighbours"
FEW_COMMON = 0.6  # of the genes of the smallest section
WHOLE_LISTS = ("visium", "visium_hd")  # Space Ranger lists every gene that was asked for, counted or not
ENSEMBL = re.compile(r"ENS([A-Z]*)G\d+")  # a gene's id, and of which species
SPECIES = {"": "human", "MUS": "mouse", "RNO": "rat"}


def survey(folder: Path, name: str, um_per_px: str = "") -> str:
    """Return the text of a params file for a folder.

    Parameters
    ----------
    folder
        In one of the layouts of `layout_of`.
    name
        Of the dataset.
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
    return _text(drafts, found, read, known=(folder / LIST).is_file())


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
        if section not in sections:
            raise ValueError(
                f"{path}: '{section}' is no section of the folder (nearest: {nearest(section, sections)})"
            )
    if sorted(listed) != sorted(sections):
        missing = sorted(set(sections) - set(listed)) or "a section twice"
        raise ValueError(f"{path}: lists each section of the folder once; found {missing}. Correct it")
    return patients


def species_of(genes: np.ndarray) -> str:
    """Return whose genes they are by their Ensembl ids; empty where these do not tell.

    Examples
    --------
    >>> species_of(np.array(["ENSMUSG00000029580"])), species_of(np.array(["Actb"]))
    ('mouse', '')
    """
    found = {SPECIES.get(match[1], match[1]) for gene in genes if (match := ENSEMBL.match(gene))}
    return " and ".join(sorted(found))


def check_genes(folder: Path, sections: dict[str, Section], whole: bool = False) -> None:
    """Refuse sections without a gene in common; warn if they share few.

    Parameters
    ----------
    folder
        Theirs.
    sections
        By name.
    whole
        Whether each lists all genes that were asked for: then those of one chemistry share all.

    Raises
    ------
    ValueError
        If no gene is measured in all.
    """
    examples = {
        name: f"{species_of(section.genes)} {section.genes[0]}".strip() for name, section in sections.items()
    }
    shared, number = len(common_genes(sections.values())), [len(s.genes) for s in sections.values()]
    if not shared:
        raise ValueError(
            f"{folder}: sections of one dataset measure the same genes, found none in common, e.g. "
            f"{examples}. Symbols and Ensembl ids, or two species, do not mix; make a folder for each"
        )
    if shared < FEW_COMMON * min(number) or (whole and shared < max(number)):
        warnings.warn(
            f"{folder}: {shared} genes are common to all sections, of {min(number)} in the smallest and "
            f"{max(number)} in the largest, e.g. {examples}; probe-based and poly-A chemistries, and "
            "versions of a probe set, do not mix well. Only common genes are predicted",
            stacklevel=2,
        )


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


def _text(drafts: dict[str, Params], found: Found, read: dict[str, dict[str, Section]], known: bool) -> str:
    """Return the file: the draft at each size, what reading the sections told, and what to check."""
    draft, sections = next(iter(drafts.values())), next(iter(read.values()))
    content = _plain(draft)
    size = min(PANEL, datasets.totals(sections)["genes_common"])
    genes = [str(gene) for gene in top_mean_panel(sections.values(), min(2, size))]
    scale = [f"{name} {section.um_per_px.mean():.4g}" for name, section in sections.items()]
    serial = {p: [p] for p in draft.known}
    told = species_of(next(iter(sections.values())).genes)
    species = f"{told} by their ids" if told else "of a species that names do not tell"
    whose = (
        f"by {LIST}, in cutting order" if known else
        f"CHECK: each counts as a patient; if two are of one, say so in {LIST}: else results are too good"
    )  # fmt: skip
    blocks = [
        f"# {len(sections)} sections of {len(draft.sections)} patients, written by `make params`. What says "
        "CHECK, the files could not tell.",
        _yaml(name=draft.name, title=draft.title),
        _yaml(source=content["source"]),
        f"\n# {whose}",
        _yaml(sections=content["sections"]),
        "# the section of a patient that is measured in the protocol 3d",
        _yaml(known=content.get("known", {})),
        "# patient -> a name that other datasets give to the same tissue: never on both sides of a split",
        _yaml(same_tissue_group={}),
        f"\n# {found.remark}",
        *([DRAWN] if found.sizes else []),
        f"# levels: px at level 0; um per px: {', '.join(scale)}",
        "# expect: what was read when this was written; another total is reported by `make data`",
        _located(drafts, read),
        f"\n# the {size} genes of highest mean count, {species}; `add: [...]` names markers besides",
        _yaml(panel={"size": size}, graph=content["graph"]),
        "# stain needs no weights; with weights at hand e.g. resnet50.tv_in1k@hub or uni@hub",
        _yaml(encoder="stain", registration=content["registration"]),
        "\n# patients that are tested together, by a model that never saw them",
        _yaml(folds=content["folds"]),
        *(["# CHECK: if a patient's sections are serial cuts of one block, take this line into `folds`:",
           f"#   3d: {_flow(serial)}"] if serial else []),
        "\n# small networks that two CPU cores train; without `overrides` each method has its paper's size",
        _yaml(training=content["training"], overrides=content["overrides"]),
        "# method -> why it cannot run on this data, or here; said under tables",
        _yaml(absent=content.get("absent", {})),
        "# genes that figures map: CHECK, these two are only the highest",
        _yaml(showcase=genes),
        _yaml(notes=content["notes"]),
    ]  # fmt: skip
    return "\n".join(blocks) + "\n"


def _located(drafts: dict[str, Params], read: dict[str, dict[str, Section]]) -> str:
    """Return what belongs to a size of locations, under its name where there are sizes."""
    parts = {}
    for size, draft in drafts.items():
        content = {key: value for key, value in _plain(draft).items() if key in LOCATED}
        parts[size] = _yaml(**content, expect=datasets.totals(read[size]))
    if "" in parts:
        return parts[""]
    return "\n".join(
        ["sizes:", *(f"  {size}:\n{textwrap.indent(part, '    ')}" for size, part in parts.items())]
    )


def _plain(draft: Params) -> dict[str, Any]:
    return draft.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _yaml(**content: Any) -> str:
    """Return keys in block style, what is below the second level in one line."""
    lines = []
    for key, value in content.items():
        if isinstance(value, dict) and any(isinstance(inner, dict | list) for inner in value.values()):
            lines += [f"{key}:", *(f"  {name}: {_flow(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines)


def _flow(value: Any) -> str:
    """Return a value in one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=10_000, sort_keys=False).strip()[1:-1]


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
