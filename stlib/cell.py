"""The parameters cell of a notebook: what it may hold, and that nothing else came in.

papermill writes the values it was told into a cell of their own, below that one. A name that the notebook
does not declare it only logs, and goes on with the defaults; here it ends the run.
"""

from typing import Any

from stlib import paths
from stlib.params import Setting
from stlib.records import Record, parse, require_known


class Parameters(Record):
    """What the parameters cell of a notebook may hold. A misspelt name is refused."""

    dataset: str
    model: str = ""
    setting: Setting = "strict"
    seed: int = 0
    to: str = ""
    data: str = ""
    table: str = ""
    missing: str = "refuse"
    slide: str = ""
    um_per_px: str = ""
    known: str = ""
    spots: str = ""


def parameters(cell: dict[str, Any], notebook: str) -> Parameters:
    """Read the parameters of a notebook from its names, and refuse what it does not declare.

    Parameters
    ----------
    cell
        ``globals()`` of the notebook, right after its parameters cell: every plain value is a parameter.
        Where they hold an answer of this function, the notebook runs again in the same kernel, as one does
        while browsing: then its other values are what later cells left behind, and are no parameters.
    notebook
        Its name, e.g. ``04_train_2d``.

    Raises
    ------
    ValueError
        If a parameter is not one of the notebook's own, or of another type.
    """
    hidden = {"In", "Out"}
    plain = {key: value for key, value in cell.items() if not key.startswith("_") and key not in hidden
             and (value is None or isinstance(value, str | int | float | bool | list | dict))}  # fmt: skip
    declared = _declared(notebook)
    again = any(isinstance(value, Parameters) for value in cell.values())
    for key in plain if not again else ():
        require_known(key, declared, f"notebooks/{notebook}: unknown parameter '{key}'")
    told = {key: value for key, value in plain.items() if key in declared}
    return parse(Parameters, told, f"notebooks/{notebook}, parameters")


def _declared(notebook: str) -> set[str]:
    """Return the names that the parameters cell of a notebook assigns."""
    cells = (paths.NOTEBOOKS / f"{notebook}.py").read_text().split("\n# %%")
    (cell,) = [cell for cell in cells if 'tags=["parameters"]' in cell.splitlines()[0]]
    return {line.split(":")[0].split("=")[0].strip() for line in cell.splitlines()[1:] if "=" in line}
