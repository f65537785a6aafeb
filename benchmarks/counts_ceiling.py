"""Both ceilings of the counts beside what the oracle scores, where the true rate is known.

``python benchmarks/counts_ceiling.py`` reads the tables of made datasets in `results/`, and writes
`results/ceiling.md`.
"""

import pandas as pd

from stlib import metrics, paths
from stlib.report import numbers_of
from stlib.scores import CEILING, COUNTING
from stlib.tables import PLACE

TABLES = ("toy/table1", "toy_hd/magnet_table1")
NAMES = ("pcc_per_gene", "pcc_per_spot", "mse", "mae")
HEAD = """# The ceilings of the counts, where the truth is known

The oracle predicts the expected label given the true rate. The lower estimate takes for noise what no other
gene shares, the upper one (split counts) only what counting adds: made counts are overdispersed, so that the
truth lies between. A *share of the reachable* goes by the lower one. In brackets: how far an estimate is off.
Single genes: of how many the oracle's correlation is more than 5 % above the gene's own lower estimate, and
by how much at most. Written by `python benchmarks/counts_ceiling.py`.

| dataset | section | metric | oracle | lower estimate | upper estimate | single genes |
|---|---|---|---:|---:|---:|---|
"""


def lines(name: str) -> list[str]:
    """Return the lines of one table: each section of it, each metric."""
    stem = paths.RESULTS / name
    found = numbers_of(stem.with_suffix(".metrics.csv")).set_index(["model", "metric"])
    genes = numbers_of(stem.with_suffix(".genes.csv"))
    said = []
    for place, section in found.groupby(PLACE, sort=False):
        for metric in NAMES:
            oracle, below, above = (
                section.loc[(row, metric), "mean"] for row in ("oracle", CEILING, COUNTING)
            )
            own = genes[(genes[[*PLACE]] == place).all(axis=1) & (genes["model"] == "oracle")]
            cells = [name.partition("/")[0], ", ".join(filter(None, place)), metrics.find(metric).label]
            cells += [f"{oracle:.3f}", *(f"{one:.3f} ({one / oracle - 1:+.0%})" for one in (below, above))]
            cells.append(_single(own["share"]) if metric == "pcc_per_gene" else "")
            said.append(f"| {' | '.join(cells)} |\n")
    return said


def _single(share: pd.Series) -> str:
    return f"{(share > 1.05).sum()} of {len(share)}, {share.max() - 1:+.0%}"


if __name__ == "__main__":
    text = HEAD + "".join(line for name in TABLES for line in lines(name))
    print(paths.write_text(paths.RESULTS / "ceiling.md", text).relative_to(paths.OUT))
