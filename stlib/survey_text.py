"""What a survey says: the text of a params file, with what to check, and that genes do not fit together."""

import re
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stlib import datasets
from stlib.expression import common_genes, top_mean_panel
from stlib.params import Params
from stlib.sections import Section
from stlib.survey_layout import LIST, Found

LOCATED = ("spot", "sample", "levels")  # each size has its own
DRAWN = "# sample: how many of a slide are kept, in squares of neighbours; fewer train faster"
FEW_COMMON = 0.6  # of the genes of the smallest section
ENSEMBL = re.compile(r"ENS([A-Z]*)G\d+")  # a gene's id, and of which species
SPECIES = {"": "human", "MUS": "mouse", "RNO": "rat"}


def text_of(drafts: dict[str, Params], found: Found, read: dict[str, dict[str, Section]], known: bool) -> str:
    """Return the file.

    Parameters
    ----------
    drafts
        Size -> what follows from the folder; one without a name where there are no sizes.
    read
        Size -> its sections, by name.
    known
        Whether the folder's list says which sections are of one patient.
    """
    draft, sections = next(iter(drafts.values())), next(iter(read.values()))
    content = _plain(draft)
    size = min(draft.panel.size, datasets.totals(sections)["genes_common"])
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

    With `whole` each section lists all genes that were asked for: then those of one chemistry share all.

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
