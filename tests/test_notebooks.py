"""The shape of the notebooks, and that the rendered copies are runs of them."""

import ast
import json
import re

import anndata
import jupytext
import lab
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from bs4 import BeautifulSoup

from stlib import paths, report
from stlib.expression import log_proportion, panel_counts, top_mean_panel
from stlib.metrics import pcc_per_gene
from stlib.predictions import Predictions
from stlib.render import SETTINGS
from stlib.rendered import FOLDER
from stlib.results import Run
from stlib.steps import NOTEBOOK
from stlib.tables import load_table, runs_needed

SOURCES = sorted(paths.NOTEBOOKS.glob("[0-9]*.py"))
RENDERED = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


def cells(path):
    return jupytext.read(path).cells


def tagged(path):
    return [cell for cell in cells(path) if "parameters" in cell.metadata.get("tags", [])]


@each
def test_the_first_four_cells_are_the_same_everywhere(path):
    title, imports, parameter, load = cells(path)[:4]
    assert title.cell_type == "markdown" and title.source.startswith(f"# {path.stem[:2]} ")
    for word in ("**Question.**", "**In:**", "**Out:**", "**Time:**"):
        assert word in title.source
    assert "import" in imports.source and "parameters" in parameter.metadata["tags"]
    assert f'parameters(globals(), "{path.stem}")' in load.source
    assert re.search(r"^run = Run\(.+\)\.begin\(\)$", load.source, re.MULTILINE)


@each
def test_no_function_is_defined_and_imports_stand_at_the_top(path):
    for place, cell in enumerate(cells(path)):
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                assert not isinstance(node, ast.FunctionDef | ast.ClassDef), cell.source
                assert place == 1 or not isinstance(node, ast.Import | ast.ImportFrom), cell.source


@each
def test_every_parameter_is_a_literal_with_type_and_meaning_and_is_used(path):
    (cell,) = tagged(path)
    rest = "\n".join(other.source for other in cells(path) if other is not cell and other.cell_type == "code")
    for line in cell.source.splitlines():
        assert re.fullmatch(r"\w+: (str|int) = \S+ +# \S.*", line), line
        name = line.split(":")[0]
        assert f"p.{name}" in rest, f"parameter '{name}' is used nowhere"


@each
def test_it_ends_with_a_summary_and_one_cell_that_writes(path):
    *_, summary, last = cells(path)
    assert summary.source.startswith("## Summary")
    assert "finish" in last.source or "save" in last.source


@each
def test_it_round_trips_as_a_percent_script(path):
    assert (
        jupytext.writes(jupytext.reads(path.read_text(), "py:percent"), "py:percent").strip()
        == path.read_text().strip()
    )


def source_of(path):
    return paths.NOTEBOOKS / f"{path.stem.split('-')[0]}.py"


def test_every_notebook_has_a_rendered_copy():
    apart = {"07_ablations"}  # reads 39 trainings, which were not run since it changed
    assert {source_of(path) for path in RENDERED} == {path for path in SOURCES if path.stem not in apart}


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.stem)
def test_a_rendered_copy_holds_the_source_and_was_run(path):
    executed = [
        cell
        for cell in nbformat.read(path, as_version=4).cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    assert [cell.source for cell in executed] == [cell.source for cell in cells(source_of(path))]
    for cell in executed:
        if cell.cell_type == "code":
            assert cell.execution_count, "not executed"
            assert not [output for output in cell.outputs if output.output_type == "error"]
    assert path.stat().st_size < 1_500_000


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder for runs, results and figures, here and in notebooks."""
    for name in ("OUT", "RUNS", "RESULTS", "FIGURES"):
        monkeypatch.setattr(paths, name, tmp_path / ("" if name == "OUT" else name.lower()))
    monkeypatch.setenv("STLIB_OUT", str(tmp_path))
    return tmp_path


def execute(run, **parameters):
    """Execute the notebook of a run as it stands in notebooks/; return its cells."""
    notebook = jupytext.read(paths.NOTEBOOKS / f"{NOTEBOOK[run.step]}.py")
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "python3"}
    run.folder.mkdir(parents=True)
    nbformat.write(notebook, run.folder / "source.ipynb")
    done = papermill.execute_notebook(run.folder / "source.ipynb", None, parameters, progress_bar=False)
    assert run.complete()
    return done.cells


@pytest.fixture
def predicted(toy, toy_sections, out):
    """A folder with made predictions of every run of Table 1: the truth under noise."""
    panel, rng = top_mean_panel(toy_sections.values(), toy.panel.size), np.random.default_rng(0)
    truth = np.concatenate([log_proportion(panel_counts(one, panel)) for one in toy_sections.values()])
    rows = []
    for name, section in toy_sections.items():
        (x_px, y_px), (x_um, y_um) = section.position.T, (section.position * section.um_per_px).T
        about = {"barcode": section.barcodes, "section": name, "patient": section.patient}
        about |= {"fold": section.patient, "known": False}
        rows.append(pd.DataFrame(about | {"x_px": x_px, "y_px": y_px, "x_um": x_um, "y_um": y_um}))
    obs = pd.concat(rows, ignore_index=True)
    history = pd.DataFrame({"fold": ["P1"], "stage": "final", "epoch": 0, "loss": 1.0, "seconds": 1.0})
    for key in runs_needed(load_table("table1"), "toy"):
        for member in Run(*key).members:
            noise = rng.normal(0, 1, truth.shape).astype(np.float32)
            member.save(Predictions(truth + noise, truth, np.array(panel), obs), history)
        if Run(*key).shared:
            Run(*key).finish()
    return out


def test_tables_and_figures_need_nothing_but_predictions(predicted):
    """08 and 09 are not re-run from trainings, which take minutes: here they run on made predictions."""
    for step, model in (("tables", "table1"), ("figures", "")):
        execute(Run(step, "toy", model))
    for suffix in ("md", "csv", "tex", "html"):
        assert (predicted / "results" / "toy" / f"table1.{suffix}").stat().st_size > 1000
    assert {path.suffix for path in (predicted / "figures" / "toy").iterdir()} == {".png", ".csv"}
    page_of_the_report(predicted)


def test_a_slide_with_measured_spots_is_scored_beside_the_mean(toy, toy_sections, out):
    """11 is browsed without spots: here it has those of the toy's first section, of half its genes."""
    section, run = toy_sections["P1-1"], Run("slides", "toy", "ridge")
    table = lab.adata(section)[:, ::2]
    table.write_h5ad(out / "mine.h5ad")
    cells = execute(run, model="ridge", spots=str(out / "mine.h5ad"))
    (page,) = (text for text in map(printed, cells) if "genes were measured" in text)
    assert f"patient new {toy.with_slide[0]}" in page and re.search(r"^mean +undefined", page, re.MULTILINE)
    found = anndata.read_h5ad(run.folder / "P1-1-ridge-spots.h5ad")
    kept = [gene for gene in found.var_names if gene in set(table.var_names)]
    assert page.startswith(f"{len(kept)} of the panel's 50 genes") and 0 < len(kept) < 50
    np.testing.assert_allclose(
        found[:, kept].layers["measured"], log_proportion(panel_counts(section, kept)), atol=1e-5
    )
    scored = pcc_per_gene(found[:, kept].layers["predicted"], found[:, kept].layers["measured"]).mean()
    assert re.search(rf"^ridge +{scored:.2f} ", page, re.MULTILINE) and scored > 0.2
    assert (out / "figures" / "toy" / "slides" / "P1-1-ridge-spots.png").stat().st_size > 1000


def printed(cell):
    """Return what a cell printed."""
    return "".join(output.text for output in cell.get("outputs", []) if output.get("name") == "stdout")


def page_of_the_report(folder):
    """The report of these results: every number leads to its run, and nothing is asked of another file."""
    page = BeautifulSoup(report.write("toy", folder / "report").read_text(), "html.parser")
    places = {tag["id"] for tag in page.find_all(id=True)}
    links = [tag["href"] for tag in page.find_all("a")]
    assert {link.removeprefix("#") for link in links} <= places
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.find_all("img"))
    drawn = sorted((folder / "figures" / "toy").glob("*.png"))
    assert [image["alt"] for image in page.find_all("img")] == [path.stem for path in drawn]
    (row,) = [row for row in page.find_all("tr") if row.td and row.td.text.strip() == "ASIGN 3D (ours)"]
    assert {link["href"] for link in row.find_all("a")} == {"#runs-3d-toy-asign-strict-s0"}
    folded = page.find("summary", string=SETTINGS).parent
    assert "asign, 3d: " in folded.text and "asign, 3d: " not in page.find("ul", class_="remarks").text
    lists = page.find("summary", string="Paired tests, corrected for their number").parent
    beside = [link for link in lists.find_all("a") if link.text == "ASIGN 3D (ours)"]
    assert beside and {link["href"] for link in beside} == {"#runs-3d-toy-asign-strict-s0"}
    sections = json.loads((paths.processed("toy") / "manifest.json").read_text())
    assert sections["P1-1"]["h5ad"][:16] in page.find(id="data").find_next("table").text
    run = page.find(id="runs-3d-toy-asign-strict-s0")
    record = json.loads(Run("3d", "toy", "asign").record.read_text())
    assert record["fingerprint"][:12] in run.text and '"lr": 0.06' in run.pre.text
    assert (folder / "report" / "table1.csv").read_bytes() == (
        folder / "results" / "toy" / "table1.csv"
    ).read_bytes()
