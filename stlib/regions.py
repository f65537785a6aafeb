"""Scores by region of the tissue, where someone has labelled it: a pathologist, or the maker of made data.

A method may owe its score to the tissue that is easy. Each metric is computed among the locations of one
label: `pcc_per_gene` across those of a section, the others over those of a patient.
"""

import numpy as np
import pandas as pd

from stlib import metrics, statistics
from stlib.predictions import Predictions
from stlib.scores import KEYS, Load, predicted, read_run
from stlib.sections import Section
from stlib.tables import Table, rows_for

LEAST = 10  # locations of a label in a section; fewer tell nothing


def scores(
    table: Table, dataset: str, sections: dict[str, dict[str, Section]], load: Load = read_run
) -> pd.DataFrame:
    """Score every row of a table in every region.

    `sections` is dataset (each size is one) -> its sections by name; those without labels take no part.

    Returns
    -------
    pandas.DataFrame
        One line per row, region and metric: `spots` that were scored, and the `mean` over `n` patients with
        `sd` and 95 % interval `low`, `high`. Seeds are averaged within a patient. Empty: nothing is labelled.
    """
    rows, parts = rows_for(table, dataset), []
    for place, run, predictions in predicted(table, dataset, load):
        labels = labels_of(predictions, sections.get(run.to or run.dataset, {}))
        for region in dict.fromkeys(label for label in labels if label):
            own = _only(predictions, labels == region)
            for name in metrics.OVERVIEW:
                if len(own.obs):
                    values = metrics.score(own, name).rename_axis("unit").rename("value").reset_index()
                    about = {"row": place, "region": region, "metric": name, "spots": len(own.obs)}
                    parts.append(values.assign(**about))
    if not parts:
        return pd.DataFrame(columns=[*KEYS, "region", "metric", "spots", *statistics.Summary._fields])
    lines = []
    key = ["row", "region", "metric", "spots"]
    for (place, region, name, spots), group in pd.concat(parts).groupby(key, sort=False):
        line = {key: getattr(rows[place], key) for key in KEYS}
        line |= {"region": region, "metric": name, "spots": spots}
        lines.append(line | statistics.summary(group.groupby("unit")["value"].mean())._asdict())
    return pd.DataFrame(lines)


def labels_of(predictions: Predictions, sections: dict[str, Section]) -> np.ndarray:
    """Return the label of each predicted location (N,); empty where there is none."""
    labels = np.full(len(predictions.obs), "", dtype=object)
    for name, index in predictions.obs.groupby("section", sort=False).indices.items():
        section = sections.get(name)
        if section is not None and section.region is not None:
            known = dict(zip(section.barcodes, section.region, strict=True))
            labels[index] = [known[barcode] for barcode in predictions.obs["barcode"].iloc[index]]
    return labels


def _only(predictions: Predictions, rows: np.ndarray) -> Predictions:
    """Return the scored rows among some, of sections that have enough of them."""
    rows = rows & ~predictions.obs["known"].to_numpy(bool)
    number = pd.Series(rows).groupby([predictions.obs[name].to_numpy() for name in ("fold", "section")])
    rows = rows & (number.transform("sum") >= LEAST).to_numpy()
    return Predictions(
        predictions.prediction[rows], predictions.truth[rows], predictions.genes, predictions.obs[rows]
    )
