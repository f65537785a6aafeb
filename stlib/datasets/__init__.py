"""One reader per source, and the step that turns its files into sections.

A reader is a module of this folder. The params file names it; nothing else has to know it. It has

``Options``                         what stands under ``source.options`` of its params files, a Record
``fetch(params, folder)``           makes sure that every file is there, see `fetch`
``read(params, folder, section)``   returns a section, of `sections` or of `counts_only`; with ``slide=False``
                                    its slide is left aside, as for `counts_only`, and `size_px` is None
``image(params, folder, section)``  returns the path of its slide
``under_tissue(...)``               of the same, if it can draw a sample of locations: the places of all

A file that is missing is a FileNotFoundError; files that are damaged, contradict each other, or hold what no
section can hold, are a ValueError. What readers do alike stands here, from `ours` to `section_of`.
"""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from stlib import paths
from stlib.expression import common_genes
from stlib.fingerprint import file_hash, intact, seal
from stlib.params import Expect, Params
from stlib.records import require_known
from stlib.sections import Section, check_section, content_hash, write_section
from stlib.steps import MADE


def reader(params: Params) -> ModuleType:
    """Return the module that reads the files of this dataset.

    Raises
    ------
    ValueError
        If there is no reader of that name.
    """
    known = [p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__"]
    name = params.source.reader
    where = f"params/{params.base}.yaml: source.reader"
    require_known(name, known, f"{where} '{name}' is no file of stlib/datasets/")
    return importlib.import_module(f"stlib.datasets.{name}")


def raw_folder(params: Params, data: str = "") -> Path:
    """Return where the raw files lie: where the user says, by `data` or params, else in the house's own."""
    told = data or params.source.folder
    if told and not Path(told).is_dir():
        where = "DATA" if data else f"params/{params.base}.yaml: source.folder"
        raise FileNotFoundError(
            f"{where}={told} is no folder; give the folder that holds the files of '{params.source.reader}'"
        )
    return Path(told).resolve() if told else _own(params)


def _own(params: Params) -> Path:
    """Return the house's own folder: of the source, which datasets share, or of the dataset if it is made."""
    return paths.raw(params.base if params.source.reader in MADE else params.source.reader)


def prepare(params: Params, folder: Path) -> dict[str, dict[str, str]]:
    """Write every section of the dataset in the house's form: counts and positions, and a pyramidal slide.

    What is already there and made from the same files is kept. Last of all the manifest is written, the
    content hash of each file, on which every later fingerprint rests. `folder` holds the raw files, complete
    (see the reader's `fetch`). Return section -> {file suffix: sha256}.
    """
    from stlib.orientation import warn_if_turned
    from stlib.slide import Slide, write_pyramid  # images are opened there only

    source = reader(params)
    manifest = {}
    for name in tqdm(params.patient_of, unit="section", desc=params.name):
        section = source.read(params, folder, name)
        target = paths.section_file(params.name, name)
        write_section(target, section)
        manifest[name] = {"h5ad": content_hash(section)}
        if name in params.with_slide:
            slide = paths.slide_file(params.name, name)
            origin = file_hash(source.image(params, folder, name))
            stamp = slide.with_suffix(".json")
            with paths.alone(slide.parent):  # sizes of a dataset share their slides
                made = intact(slide) and intact(stamp)
                if not made or json.loads(stamp.read_text())["origin"] != origin:
                    write_pyramid(source.image(params, folder, name), slide, section.um_per_px)
                    places = section.position
                    if params.sample is not None:  # a few squares of tissue say little of how a slide lies
                        places = source.under_tissue(params, folder, name)
                    with Slide(slide) as opened:
                        warn_if_turned(opened, places)
                    seal(paths.write_text(stamp, json.dumps({"origin": origin})))
            manifest[name]["tif"] = origin
    seal(paths.write_text(paths.processed(params.name) / "manifest.json", json.dumps(manifest, indent=1)))
    return manifest


def fetch(params: Params, folder: Path) -> None:
    """Make sure that the raw files are in `folder`.

    Every reader's `fetch` fills the house's own folder, `paths.raw`, and never writes to another one: a
    folder of the user's is only read, and checked for what is missing.
    """
    reader(params).fetch(params, folder)


def ours(params: Params, folder: Path) -> bool:
    """Tell whether a folder is the house's own, the only one that a reader's `fetch` may fill."""
    return Path(folder).resolve() == _own(params).resolve()


def present(params: Params, path: Path) -> Path:
    """Return the path of a raw file, or say how to get it."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there. `make data DATASET={params.name}` downloads it; or name a folder that has "
            f"it, in the source's layout: `make data DATASET={params.name} DATA=folder`"
        )
    return path


def slide_px(path: Path) -> np.ndarray:
    """Return width and height of a slide (2,), px."""
    from stlib.images import image_size  # counts alone need no image library

    return np.array(image_size(path))


def patient_of(params: Params, section: str) -> str:
    """Return whose section it is.

    Raises
    ------
    ValueError
        If the params file has no such section.
    """
    message = f"params/{params.base}.yaml has no section '{section}'"
    require_known(section, params.patient_of, message)
    return params.patient_of[section]


def layer(params: Params, section: str) -> int:
    """Return a section's place in its stack, from 1, for sources whose names sort in cutting order.

    Raises
    ------
    ValueError
        If the params file has no such section, or lists the stack in another order: serial registration
        follows that list.
    """
    patient = patient_of(params, section)
    stack = params.sections.get(patient, [])
    if stack != sorted(stack):
        raise ValueError(
            f"params/{params.base}.yaml: sections.{patient} stands in cutting order, {sorted(stack)}; found "
            f"{stack}. Correct the order"
        )
    return sorted([*stack, *params.counts_only.get(patient, [])]).index(section) + 1


def listed(params: Params, section: str) -> int:
    """Return a section's place in its stack, from 1, for sources whose params file lists it in cutting order.

    Raises
    ------
    ValueError
        If the params file has no such section.
    """
    patient = patient_of(params, section)
    return [*params.sections.get(patient, []), *params.counts_only.get(patient, [])].index(section) + 1


def section_of(
    params: Params, name: str, place: int, source: str, allowed_empty: dict[str, list[str]], **content: Any
) -> Section:
    """Return what a reader found of a section, checked.

    Parameters
    ----------
    params
        The dataset, which says of whom the section is and what its locations are.
    place
        In its stack, from 1.
    source
        What a message calls its files.
    allowed_empty
        Section -> spots whose counts may all be zero.
    content
        The other fields of `Section`. Where `array` is None, columns and rows are the places in pitches.
    """
    if content["array"] is None:
        content["array"] = content["position"] * content["um_per_px"] / params.spot.pitch_um
    made = Section(
        name=name,
        patient=params.patient_of[name],
        layer=place,
        shape=params.spot.shape,
        size_um=params.spot.size_um,
        pitch_um=params.spot.pitch_um,
        **content,
    )
    return check_section(made, source, tuple(allowed_empty.get(name, ())))


def totals(sections: dict[str, Section]) -> dict[str, int]:
    """Count what was read, in the terms of `expect` in a params file."""
    every = list(sections.values())
    return {
        "sections": len(every),
        "spots": sum(len(section) for section in every),
        "umi": int(sum(int(section.counts.sum()) for section in every)),
        "genes_union": len(set().union(*(section.genes for section in every))),
        "genes_common": len(common_genes(every)),
    }


def compare(found: dict[str, int], expect: Expect | None) -> str:
    """Return a line per total: what was found, what the params file expects, and what the papers print."""
    wanted = {} if expect is None else expect.model_dump(exclude_none=True)
    lines = []
    for name, value in found.items():
        words = [f"{name:13s} {value}"]
        if name in wanted:
            least, most = wanted[name] if isinstance(wanted[name], list) else [wanted[name]] * 2
            text = f"{least}" if least == most else f"{least} to {most}"
            words.append("as expected" if least <= value <= most else f"WARNING: expected {text}")
        printed = wanted.get("published", {}).get(name, value)
        if printed != value:
            words.append(f"WARNING: the paper prints {printed}")
        lines.append(" ".join(words))
    return "\n".join(lines)
