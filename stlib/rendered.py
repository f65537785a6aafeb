"""What people browse: the executed toy notebooks, and the tables in the README.

``python -m stlib.rendered`` copies both from runs and results, so that nobody types a number. What differs
from machine to machine goes: times, progress bars, the log of papermill. Inputs and outputs stay as they were
run. Pages of `LONG` runs are renewed where such a run stands, and stay as they are where none does.
"""

import base64
import io
import re
from pathlib import Path

import jupytext
import nbformat
from PIL import Image

from stlib import paths, show
from stlib.results import Run
from stlib.steps import CONTROLS, NOTEBOOK
from stlib.tables import load_table, runs_needed

FOLDER = paths.NOTEBOOKS / "rendered"
QUOTING = (paths.ROOT / "README.md", paths.ROOT / "results/findings.md")  # pages that quote tables
SIZED = Run("hd", "toy_hd@16um", "magnet")  # the page of the protocol hd
MOVED = Run("transfer", "toy_hd@100um", "pixnet", to="toy_hd@16um")  # that of the protocol transfer
LONG = {"ablations": "", "cost": "asign_tables1"}  # reads 39 trainings; measures time -> model of the run


def sources() -> dict[str, Run]:
    """Return rendered name -> run: one per step; of the training notebooks one per model."""
    trained = [Run(*key) for key in runs_needed(load_table("table1"), "toy")]
    models = {"tables": "table1", "slides": "asign"} | LONG
    steps = [Run(step, "toy", models.get(step, "")) for step in NOTEBOOK if step not in CONTROLS]
    found = {NOTEBOOK[run.step]: run for run in steps}
    found |= {f"{NOTEBOOK[run.step]}-{run.model}": run for run in (*trained, SIZED, MOVED)}
    return dict(sorted(found.items()))


def retold(notebook: nbformat.NotebookNode, script: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Put the prose of the source beside the code that was run: prose may change without a new run."""
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = []
    for cell in script.cells:
        cells.append(ran.pop(0) if cell.cell_type == "code" and ran else cell)
        if ran and "injected-parameters" in ran[0].metadata.get("tags", []):
            cells.append(ran.pop(0))
    notebook.cells = cells
    return notebook


def renew_ideas(notebook: nbformat.NotebookNode, run: Run) -> nbformat.NotebookNode:
    """Put the models' docstrings as they are now where the run printed them: they are prose, too."""
    outputs = [
        o for cell in notebook.cells if "show.idea(" in cell.source for o in cell.outputs if "data" in o
    ]
    for output, member in zip(outputs, run.members if outputs else [], strict=True):
        output.data["text/markdown"] = show.idea(member.model, member.config).data
    return notebook


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
                    output.data["image/png"] = _small(output.data["image/png"])
    return notebook


def _small(png: str) -> str:
    """Return a base64 PNG with 256 colours, a third of the size; one that has them already is kept."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == "P":
        return png
    buffer = io.BytesIO()
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def quote(text: str, root: Path = paths.ROOT) -> str:
    """Return the text with each table between ``<!-- results/... -->`` and ``<!-- end -->`` renewed."""

    def table(match: re.Match) -> str:
        lines = (root / match[1]).read_text().splitlines()
        return f"<!-- {match[1]} -->\n" + "\n".join(_head_and_rows(lines)) + "\n<!-- end -->"

    return re.sub(r"<!-- (results/\S+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def _head_and_rows(lines: list[str]) -> list[str]:
    """Return the titles and rows of a rendered table, without its caption and notes."""
    first = next(place for place, line in enumerate(lines) if line.startswith("**"))
    last = max(place for place, line in enumerate(lines) if line.startswith("|"))
    return lines[first : last + 1]


def main() -> None:
    """Write `notebooks/rendered/` and the tables that pages quote; pages of no table or step are removed."""
    for page in QUOTING:
        paths.write_text(page, quote(page.read_text()))
    found = sources()
    for old in FOLDER.glob("*.ipynb"):
        if old.stem not in found:
            old.unlink()
    for name, run in found.items():
        if run.step in LONG and not run.record.exists():
            continue
        script = jupytext.read(paths.NOTEBOOKS / f"{name.split('-')[0]}.py")
        notebook = retold(nbformat.read(run.folder / "notebook.ipynb", as_version=4), script)
        text = nbformat.writes(slim(renew_ideas(notebook, run)))
        written = paths.write_text(FOLDER / f"{name}.ipynb", text + "\n")
        print(f"{written.relative_to(paths.ROOT)}  {len(text) // 1024} kB")


if __name__ == "__main__":
    main()
