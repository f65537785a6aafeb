"""What the three papers print, how each piece is made here, and for which datasets it stands: a page.

`tables/published.csv` lists the pieces. A schematic is drawn by hand and has no target. What stands is read
from `results/` and `figures/`, so that the page cannot claim more than there is.

``python -m stlib.contents`` writes ``results/contents.md``; with names of datasets it prints instead what
Make has to make for them.
"""

import csv
import sys
from pathlib import Path
from typing import Literal

from stlib import paths
from stlib.params import load_params, sized
from stlib.records import Record, parse
from stlib.tables import ablations, costs_for, load_costs, load_table, rows_for, target

PASSING = ("tiny", "tiny_hd")  # datasets whose tables are made to see that they can be made, and are not kept
HEAD = """# Every table and figure of the three papers

`make reproduce` makes all of them on a corner of the toy tissue (`tiny`, `tiny_hd`), with one seed and two or
three epochs: that shows that each can be made, and says nothing of the methods. `make reproduce
DATASET=her2st` makes all that a dataset has. A single piece is made by its command, with `DATASET=`. What
stands is linked, of maps of several genes the first.

| paper | piece | what it shows | command | stands for | `make reproduce` |
|---|---|---|---|---|---|
"""


class Published(Record):
    """A table or a figure of a paper."""

    paper: str
    item: str  # in the paper's counting
    about: str
    kind: Literal["scores", "costs", "figure", "schematic"]
    name: str  # of the table, or what the files of the figure begin with; of a schematic none


def published() -> list[Published]:
    """Read `tables/published.csv`.

    Raises
    ------
    ValueError
        If a line has another kind of piece than there is, or is not whole.
    """
    with open(paths.TABLES / "published.csv", newline="") as file:
        return [parse(Published, line, "tables/published.csv") for line in csv.DictReader(file)]


def command(piece: Published) -> str:
    """Return what makes a piece; nothing for a schematic."""
    if piece.kind == "schematic":
        return ""
    return f"make {'figures' if piece.kind == 'figure' else target(piece.name)}"


def standing(piece: Published) -> dict[str, Path]:
    """Return where a piece stands: dataset -> file, of several maps the first."""
    folder, ending = (paths.FIGURES, "*.png") if piece.kind == "figure" else (paths.RESULTS, ".md")
    if piece.kind == "schematic":
        return {}
    found = sorted(folder.glob(f"*/{piece.name}{ending}"))
    return dict(sorted({path.parent.name: path for path in reversed(found)}.items()))


def records(dataset: str) -> list[str]:
    """Return what Make has to make for a dataset: the record of each table, of its figures, and ablations."""
    params = load_params(sized(dataset)[0])
    found = []
    for piece in published():
        if piece.kind == "scores" and rows_for(load_table(piece.name), dataset):
            found.append(f"runs/tables/{dataset}/{piece.name}/strict-s0/run.json")
        if piece.kind == "costs" and costs_for(load_costs(piece.name), params):
            found.append(f"runs/cost/{dataset}/{piece.name}/strict-s0/run.json")
    found += [f"runs/ablations/{dataset}/run.json"] if ablations(dataset) else []
    return [*found, f"runs/figures/{dataset}/run.json"]


def page() -> str:
    """Return the page as markdown; it lies in ``results/``."""
    return HEAD + "".join(_line(piece) for piece in published())


def _line(piece: Published) -> str:
    if piece.kind == "schematic":
        return f"| {piece.paper} | {piece.item} | {piece.about} | | a schematic: exempt | |\n"
    found = standing(piece)
    kept = [
        f"[{name}]({Path('..') / file.relative_to(paths.OUT)})"
        for name, file in found.items()
        if name not in PASSING
    ]
    passing = ", ".join(name for name in PASSING if name in found)
    cells = (
        piece.paper,
        piece.item,
        piece.about,
        f"`{command(piece)}`",
        ", ".join(kept) or "nothing yet",
        passing,
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        print(*(record for dataset in sys.argv[1:] for record in records(dataset)))
    else:
        print(paths.write_text(paths.RESULTS / "contents.md", page()).relative_to(paths.OUT))
