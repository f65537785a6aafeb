"""Whether the sections of a lab's folder measure the same genes, and of which species."""

import re
import warnings
from pathlib import Path

import numpy as np

from stlib.expression import common_genes
from stlib.sections import Section

FEW_COMMON = 0.6  # of the genes of the smallest section
ENSEMBL = re.compile(r"ENS([A-Z]*)G\d+")  # a gene's id, and of which species
SPECIES = {"": "human", "MUS": "mouse", "RNO": "rat"}


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
