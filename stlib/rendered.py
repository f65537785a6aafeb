"""The executed toy notebooks that people browse: ``python -m stlib.rendered`` copies them from the runs, made small.

What differs from machine to machine goes: times, progress bars, the log of papermill. Inputs and outputs stay as they were run.
"""

from pathlib import Path

import nbformat

from stlib import paths
from stlib.results import NOTEBOOK, Run
from stlib.tables import load_table, runs_needed

FOLDER = paths.NOTEBOOKS / "rendered"


def sources() -> dict[str, Path]:
    """Return rendered name -> executed notebook: one per step, and one per model for the training notebooks."""
    steps = [Run(step, "toy") for step in ("tour", "data", "preprocessing", "registration", "figures", "audit")]
    found = {NOTEBOOK[run.step]: run for run in (*steps, Run("tables", "toy", "table1"))}
    for key in runs_needed(load_table("table1"), "toy"):
        run = Run(*key)
        found[f"{NOTEBOOK[run.step]}-{run.model}"] = run
    return {name: run.folder / "notebook.ipynb" for name, run in sorted(found.items())}


def slim(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what no reader needs and no second run would repeat."""
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "data" in output and "image/png" in output.data:
                    output.data.pop("text/plain", None)  # the address of a figure in memory
                    output.metadata = {}
    return notebook


def main() -> None:
    """Write `notebooks/rendered/`; what no run stands behind any more is removed."""
    found = sources()
    for old in FOLDER.glob("*.ipynb"):
        if old.stem not in found:
            old.unlink()
    for name, path in found.items():
        text = nbformat.writes(slim(nbformat.read(path, as_version=4)))
        written = paths.write_text(FOLDER / f"{name}.ipynb", text + "\n")
        print(f"{written.relative_to(paths.ROOT)}  {len(text) // 1024} kB")


if __name__ == "__main__":
    main()
