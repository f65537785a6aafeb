"""What a dataset holds, patient by patient, and which genes it predicts: counted on prepared sections."""

from collections.abc import Mapping

import pandas as pd

from stlib.graph import grid_parents
from stlib.panels import choose
from stlib.params import Params
from stlib.sections import Section
from stlib.splits import folds


def profile(params: Params, sections: Mapping[str, Section]) -> pd.DataFrame:
    """Count sections, spots and patches: the numbers of ASIGN's figure 6.

    The sections are prepared, with a slide.

    Returns
    -------
    pandas.DataFrame
        Index patient; columns `sections`, `spots` (one patch each), `region patches`, `global patches`: the
        cells of each level's grid that hold a spot.
    """
    rows = {}
    for patient, names in params.sections.items():
        own = [sections[name] for name in names]
        rows[patient] = {"sections": len(own), "spots": sum(map(len, own))} | {
            f"{level} patches": sum(
                len(grid_parents(section.position, params.levels[level].px)[1]) for section in own
            )
            for level in ("region", "global")
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("patient")


def panels(params: Params, sections: Mapping[str, Section]) -> tuple[list[str], set[str]]:
    """Return the panel that all sections choose (``published``), and what is in every fold's own.

    `sections` are all whose counts may be read.
    """
    chosen = choose(params.panel, [sections[name] for name in params.patient_of])
    everywhere = set(chosen)
    for protocol in params.folds:
        for fold in folds(params, protocol):
            everywhere &= set(choose(params.panel, [sections[name] for name in fold.panel]))
    return chosen, everywhere
