"""A table of costs: the steps of its rows, the line through small batches, and the numbers at its own batch.

Where a CPU measured small batches alone, a line a + b n gives the batch of the table: convolutions are linear
in n, and attention among n spots has a small share. What does not lie on a line, or falls with n, is not
drawn out: the machine had other work. `stlib.bench` measures.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from stlib.bench import Bench
from stlib.layout import Block, Cell, Layout, fixed, round_numbers, sources
from stlib.params import Params
from stlib.scores import published, reported
from stlib.tables import COSTS, Costs, costs_for

MOST_OFF = 0.2  # of a measured value, its distance from the line
ROUNDING = 1e-9  # of a value, by which the line of a constant may fall
LINED = ("forward_gflop", "step_gflop", "peak_gb", "update_gb", "step_s")


def measure(table: Costs, params: Params) -> pd.DataFrame:
    """Measure every row of a table.

    Return one line per row and measured batch: `row` (its place), the fields of `Step`, `parameters_m`, and
    `epoch_steps`, the steps of one epoch at the table's batch.
    """
    lines = []
    for place, row in enumerate(tqdm(costs_for(table, params), unit="row", desc=table.name)):
        bench = Bench(params, row, "cuda" if torch.cuda.is_available() else "cpu")
        about = {"row": place, "parameters_m": bench.parameters / 1e6}
        about["epoch_steps"] = -(-bench.train_spots // table.batch)
        lines += [about | step._asdict() for step in bench.steps(table.batch)]
    return pd.DataFrame(lines)


def fit(measured: pd.DataFrame) -> pd.DataFrame:
    """Fit a line through the small batches of each row that was measured at them.

    Return one line per row and quantity: `start` + `slope` n; `off`, the largest distance of a measured value
    from the line, as a share of the value; and whether it `holds` for other batches.
    """
    lines = []
    for place, group in measured.groupby("row", sort=False).filter(lambda rows: len(rows) > 1).groupby("row"):
        n = group["batch"].to_numpy(np.float64)
        for name in LINED:
            y = group[name].to_numpy(np.float64)
            slope, start = np.polyfit(n, y, 1)
            off = float(np.max(np.abs(start + slope * n - y) / y))
            line = {"row": place, "metric": name, "start": start, "slope": slope, "off": off}
            falls = slope * n.max() < -ROUNDING * y.mean()
            lines.append(line | {"holds": off <= MOST_OFF and not falls})
    return pd.DataFrame(lines, columns=["row", "metric", "start", "slope", "off", "holds"])


def at_batch(measured: pd.DataFrame, batch: int) -> pd.DataFrame:
    """Return one line per row at a batch: as measured, or on the line through the small ones.

    Index `row`; the columns `COSTS` and `extrapolated`. NaN where a line does not hold.
    """
    lined = fit(measured)
    lined = lined.assign(value=(lined["start"] + lined["slope"] * batch).where(lined["holds"]))
    lined = lined.pivot(index="row", columns="metric", values="value")
    first = measured.groupby("row").first()
    found = first.assign(extrapolated=first.index.isin(lined.index))
    found.loc[lined.index, lined.columns] = lined
    found["peak_gb"] = found[["peak_gb", "update_gb"]].max(axis=1, skipna=False)
    found["epoch_s"] = found["step_s"] * found["epoch_steps"]
    return found[[*COSTS, "extrapolated"]]


def frame(table: Costs, params: Params, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of a table of costs, at its own batch, from what was measured (`measure`).

    One line per row and metric: `label`, `model`, `protocol`, `patch_px`, `extrapolated`, `metric`, `value`,
    `reported`.
    """
    printed, lines = published(), []
    values = at_batch(measured, table.batch)
    for place, row in enumerate(costs_for(table, params)):
        about = {key: getattr(row, key) for key in ("label", "model", "protocol", "patch_px")}
        about["extrapolated"] = bool(values.loc[place, "extrapolated"])
        for column in table.metrics:
            said = reported(printed, table, row, column, params.name)["reported"]
            value = float(values.loc[place, column.metric])
            lines.append(about | {"metric": column.metric, "value": value, "reported": said})
    return pd.DataFrame(lines)


def layout(table: Costs, found: pd.DataFrame, notes: Sequence[str] = ()) -> Layout:
    """Lay out a table of costs; what was not measured at its batch is marked.

    Parameters
    ----------
    found
        Its numbers, from `frame`.
    notes
        What the reader must know besides, one sentence each.
    """
    shown = {
        column.metric: found.loc[found["metric"] == column.metric, "reported"].notna().any()
        for column in table.metrics
    }
    heads = [(COSTS[name], part) for name, said in shown.items() for part in ["ours", "reported"][: 1 + said]]
    lines = []
    for label, row in found.groupby("label", sort=False):
        line, cells = row.set_index("metric"), []
        for name, said in shown.items():
            value = line.loc[name, "value"]
            mark = "≈ " if line.loc[name, "extrapolated"] and name != "parameters_m" else ""
            cells.append(Cell("" if np.isnan(value) else mark + fixed(value, table.decimals)))
            if said:
                value = line.loc[name, "reported"]
                cells.append(Cell("" if np.isnan(value) else fixed(value, table.decimals)))
        lines.append((label, "method", cells))
    remarks = [*table.notes, *notes]
    if found["extrapolated"].any():
        remarks.append(f"≈: on a straight line through smaller batches, not measured at {table.batch} spots.")
    if found["value"].isna().any():
        remarks.append(
            f"Empty: measured steps lie more than {MOST_OFF:.0%} off a straight line, or fall with it, "
            "so that nothing follows for a larger one; the machine had other work. Measure again."
        )
    if found["reported"].notna().any():
        remarks.append(f"reported: {sources(table)}.")
    block = Block(f"a step of {table.batch} spots", lines)
    numbers = round_numbers(found, table.decimals)
    return Layout(table.name, table.caption, heads, [block], remarks, [*table.notes, *notes], numbers)


def lines(table: Costs, params: Params, measured: pd.DataFrame) -> list[str]:
    """Say which lines were drawn through small batches, and how far from them the measured values lie."""
    labels = [row.label for row in costs_for(table, params)]
    return [
        f"{labels[line.row]}: {line.metric} = {line.start:.3g} + {line.slope:.3g} n, "
        f"measured values within {line.off:.1%}"
        for line in fit(measured).itertuples()
    ]
