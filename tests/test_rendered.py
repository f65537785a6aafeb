"""The copies of executed notebooks that people browse."""

import base64
import inspect
import io

import nbformat
import numpy as np
import pytest
from nbformat import v4
from PIL import Image

from stlib import rendered
from stlib.models import method
from stlib.results import Run
from stlib.steps import NOTEBOOK


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PNG = png(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))


@pytest.fixture
def executed():
    figure = v4.new_output(
        "display_data",
        {"image/png": PNG, "text/plain": "<Figure at 0x7f>"},
        metadata={"needs_background": "light"},
    )
    outputs = [
        v4.new_output("stream", name="stderr", text="50%|#####"),
        v4.new_output("stream", name="stdout", text="12 spots\n"),
        figure,
    ]
    cell = v4.new_code_cell(
        "print(12)",
        outputs=outputs,
        execution_count=3,
        metadata={"tags": ["nbval-check-output"], "papermill": {"duration": 1.5}},
    )
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# 00", metadata={"papermill": {}}), cell])
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "x", "language": "python"},
        "language_info": {"name": "python", "version": "3.11.9"},
        "papermill": {"duration": 3},
    }
    return nbformat.from_dict(notebook)


def test_what_differs_from_machine_to_machine_goes(executed):
    text = nbformat.writes(rendered.slim(executed))
    for word in ("papermill", "3.11.9", "50%", "0x7f", "needs_background"):
        assert word not in text, word


def test_what_was_run_stays(executed):
    code = rendered.slim(executed).cells[1]
    assert (
        code.source == "print(12)"
        and code.execution_count == 3
        and code.metadata == {"tags": ["nbval-check-output"]}
    )
    assert [output.get("text") for output in code.outputs] == ["12 spots\n", None]
    image = Image.open(io.BytesIO(base64.b64decode(code.outputs[1].data["image/png"])))
    assert image.size == (40, 40) and len(code.outputs[1].data["image/png"]) < len(PNG)


def test_a_second_copy_is_byte_for_byte_the_first(executed):
    once = nbformat.writes(rendered.slim(executed))
    assert nbformat.writes(rendered.slim(nbformat.reads(once, as_version=4))) == once


def test_prose_is_that_of_the_source_and_code_that_of_the_run(executed):
    executed.cells.insert(1, v4.new_code_cell("x = 2", metadata={"tags": ["injected-parameters"]}))
    executed.cells.insert(1, v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}))
    parameters = v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]})
    script = v4.new_notebook(
        cells=[v4.new_markdown_cell("# 00 anew"), parameters, v4.new_code_cell("print(12)")]
    )
    found = rendered.retold(executed, script).cells
    assert [cell.source for cell in found] == ["# 00 anew", "x = 1", "x = 2", "print(12)"]
    assert found[-1].execution_count == 3


def test_every_notebook_and_every_model_of_table_1_has_a_copy():
    names = rendered.sources()
    assert {name.split("-")[0] for name in names} == set(NOTEBOOK.values())
    assert {"04_train_2d-controls", "04_train_2d-stnet", "05_train_3d-asign"} <= names.keys()


def test_pages_of_no_step_go_and_those_of_long_runs_stay(executed, monkeypatch, tmp_path):
    monkeypatch.setattr(rendered.paths, "RUNS", tmp_path)
    run = Run("tour", "toy")
    run.folder.mkdir(parents=True)
    nbformat.write(executed, run.folder / "notebook.ipynb")
    monkeypatch.setattr(rendered, "FOLDER", tmp_path / "rendered")
    monkeypatch.setattr(rendered.paths, "ROOT", tmp_path)
    long = Run("cost", "toy", "asign_tables1")  # not run here
    monkeypatch.setattr(rendered, "sources", lambda: {"00_tour": run, "12_cost": long})
    monkeypatch.setattr(rendered, "QUOTING", (tmp_path / "README.md",))
    (tmp_path / "README.md").write_text("no table here\n")
    (tmp_path / "rendered").mkdir()
    for name in ("06_old", "12_cost"):
        (tmp_path / "rendered" / f"{name}.ipynb").write_text("{}")
    rendered.main()
    found = {path.name: path.read_text() for path in (tmp_path / "rendered").iterdir()}
    assert found.keys() == {"00_tour.ipynb", "12_cost.ipynb"} and found["12_cost.ipynb"] == "{}"


def test_a_rendered_training_shows_the_docstring_of_its_model_as_it_is_now():
    pages = [path for path in sorted(rendered.FOLDER.glob("0[45]*.ipynb")) if "controls" not in path.stem]
    assert pages
    for path in pages:
        text = inspect.cleandoc(inspect.getmodule(method(path.stem.split("-")[1])).__doc__)
        cells = [cell for cell in nbformat.read(path, 4).cells if "show.idea(" in cell.source]
        shown = [output.data["text/markdown"] for cell in cells for output in cell.outputs]
        assert text in shown[0], f"{path.name}: run `make rendered`"


def test_ideas_are_renewed(executed):
    executed.cells[1].source = "display(show.idea(member.model, member.config))"
    executed.cells[1].outputs = [v4.new_output("display_data", {"text/markdown": "old"})]
    found = rendered.renew_ideas(nbformat.from_dict(executed), Run("2d", "toy", "sgn"))
    assert found.cells[1].outputs[0].data["text/markdown"].startswith("```text\nSGN: ")
