"""Tables: the declaration, the runs that follow from it, the numbers, and how they are rendered."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from stlib import metrics, paths, render, results, scores, tables
from stlib.predictions import Predictions

YAML = """
title: a table for tests
caption: H&E, 100 % made.
decimals: 3
seeds: [0]
metrics: [{metric: pcc_per_gene}, {metric: mse, reported: MSE}]
reported_dataset: {toy: HER2}
rows:
  - {label: Mean, model: mean, protocol: 2d, role: control}
  - {label: Ridge, model: ridge, protocol: 2d, role: control}
  - {label: Oracle, model: oracle, protocol: 2d, role: ceiling, datasets: [toy]}
  - {label: Good, model: stnet, protocol: 2d, reported: {paper: ASIGN, table: I, row: ASIGN 2D}}
  - {label: Bad, model: asign@no_graph, protocol: 2d}
  - {label: Overlap, model: overlap, protocol: 3d, run: controls}
"""
TRUTH = np.array([[0.0, 0], [1, 3], [2, 0]])  # per-gene correlations by pencil: 1, 0, ...
ERROR = {"mean": None, "ridge": 0.5, "oracle": 0.0, "stnet": 0.25, "asign@no_graph": 1.0, "overlap": 1.0}


def predict(run):
    """Two patients of one section; off by a checkerboard of `ERROR`, or constant."""
    error = ERROR[run.model]
    pattern = np.array([[1.0, -1], [-1, 1], [1, -1]])
    one = np.zeros((3, 2)) if error is None else TRUTH + error * pattern
    two = np.zeros((3, 2)) if error is None else TRUTH + 2 * error * pattern
    obs = pd.DataFrame(
        {
            "barcode": list("abcdef"),
            "section": ["A1"] * 3 + ["B1"] * 3,
            "patient": ["A"] * 3 + ["B"] * 3,
            "fold": "f",
            "known": False,
        }
    )
    return Predictions(np.vstack([one, two]), np.vstack([TRUTH, TRUTH]), np.array(["g", "h"]), obs)


def numbers(table, load):
    return scores.frame(table, "toy", scores.patient_scores(table, "toy", load))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "small.yaml").write_text(YAML)
    (tmp_path / "reported.csv").write_bytes((paths.TABLES / "reported.csv").read_bytes())
    monkeypatch.setattr(paths, "TABLES", tmp_path)
    return tmp_path


@pytest.fixture
def table(folder):
    return tables.load_table("small")


@pytest.fixture
def found(table):
    return numbers(table, predict)


# ---- what stands in tables/ ----------------------------------------


@pytest.mark.parametrize("name", tables.names())
def test_every_table_names_metrics_datasets_and_reported_rows_that_exist(name):
    table = tables.load_table(name)
    published = scores._published()
    for row in table.rows:
        for column in table.metrics:
            metrics.find(column.metric)
            for dataset in table.reported_dataset:
                reported = scores._reported(published, table, row, column, dataset)["reported"]
                assert np.isnan(reported) != bool(row.reported and column.reported)


@pytest.mark.parametrize("name", tables.names())
def test_every_shared_run_computes_the_models_that_a_table_expects_of_it(name):
    for row in tables.load_table(name).rows:
        shared = row.role != "method" or row.run == tables.SHARED
        assert shared == (row.model in results.CONTROLS[row.protocol]), row.label


def test_the_reported_numbers_are_all_there_once():
    published = pd.read_csv(paths.TABLES / "reported.csv", dtype=str)
    assert list(published) == ["paper", "table", "dataset", "resolution_um", "row", "metric", "mean", "std"]
    assert published["paper"].value_counts().to_dict() == {"ASIGN": 328, "MagNet": 217, "PixNet": 192}
    assert not published.duplicated(list(published)[:6]).any()


# ---- the declaration ----------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("caption:", "captoin:", r"tables/small.yaml: .*unknown key 'captoin' \(nearest: 'caption'\)"),
        ("role: control", "rolle: control", r"unknown key 'rows.0.rolle'"),
        ("decimals: 3", "decimals: three", r"decimals: .*found 'three'"),
        ("label: Ridge", "label: Mean", "different labels, found 'Mean' twice"),
        ("metric: mse", "metric: pcc_per_gene", "found 'pcc_per_gene' 2 times"),
        ("title: a table for tests\n", "", "key 'title' is missing"),
    ],
)
def test_a_wrong_declaration_is_refused(folder, old, new, message):
    (folder / "small.yaml").write_text(YAML.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        tables.load_table("small")


def test_a_missing_table_names_the_nearest(folder):
    with pytest.raises(FileNotFoundError, match="tables/smal.yaml does not exist.*nearest: 'small'"):
        tables.load_table("smal")


# ---- the runs ----------------------------------------


def test_controls_share_one_run_and_each_run_is_needed_once(table):
    needed = tables.runs_needed(table, "toy")
    assert [(run.protocol, run.model) for run in needed] == [
        ("2d", "controls"),
        ("2d", "stnet"),
        ("2d", "asign@no_graph"),
        ("3d", "controls"),
    ]
    assert set(needed) == {tables.Run(run.protocol, "toy", run.model, "strict", 0) for run in needed}


def test_rows_are_kept_to_the_datasets_and_protocols_they_exist_for(table, tmp_path, monkeypatch):
    text = (paths.PARAMS / "toy.yaml").read_text().replace("name: toy", "name: other")
    lines = [line for line in text.splitlines() if not line.startswith("  3d:")]
    (tmp_path / "other.yaml").write_text("\n".join(lines))
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    assert [row.label for row in tables.rows_for(table, "other")] == ["Mean", "Ridge", "Good", "Bad"]


def test_what_a_dataset_does_not_allow_is_said(table):
    row = table.rows[3].model_copy(update={"absent": {"toy": "it has no stars"}})
    assert tables.absences(table, "toy") == []
    changed = table.model_copy(update={"rows": [row, *table.rows[4:]]})
    assert tables.absences(changed, "toy") == ["Good, 2d, is not shown: it has no stars."]
    assert [one.label for one in tables.rows_for(changed, "toy")] == ["Bad", "Overlap"]


def test_a_row_of_an_unknown_dataset_is_refused(folder):
    (folder / "small.yaml").write_text(YAML.replace("datasets: [toy]", "datasets: [tow]"))
    with pytest.raises(ValueError, match="a row names dataset 'tow', .* .nearest: 'toy'"):
        tables.load_table("small")


def test_a_run_lies_where_results_keeps_it():
    run = tables.Run("3d", "toy", "asign@no_graph", "published", 2)
    kept = results.Run("3d", "toy", "asign@no_graph", "published", 2)
    assert run.folder / "predictions.h5ad" == kept.predictions


def test_the_fragment_has_a_target_with_help_and_the_runs_of_each_dataset(folder):
    lines = tables.fragment().splitlines()
    assert "TABLES := small" in lines
    assert "reproduce-small: runs/tables/$(DATASET)/small/strict-s0/run.json  ## a table for tests" in lines
    (runs,) = [line for line in lines if line.startswith("RUNS_small_toy := ")]
    assert runs.split()[2] == "runs/2d/toy/controls/strict-s0/run.json"
    assert "runs/2d/toy/asign@no_graph/strict-s0/run.json" in runs.split()


def test_the_fragment_is_printed_without_the_heavy_libraries():
    code = "import sys; from stlib import tables; print(tables.fragment())"
    code += "; assert not {'numpy', 'pandas', 'torch'} & set(sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT, check=True
    ).stdout
    assert ".PHONY: reproduce-table1" in out


# ---- the numbers ----------------------------------------


def test_numbers_by_pencil(found):
    row = found.set_index(["label", "metric"])
    good = row.loc[("Good", "mse")]  # patients: 0.25^2 and 0.5^2
    assert good["mean"] == pytest.approx((0.0625 + 0.25) / 2)
    assert good["sd"] == pytest.approx((0.25 - 0.0625) / 2**0.5)
    assert good["n"] == 2 and good["low"] < good["mean"] < good["high"]
    assert (good["reported"], good["difference"]) == (0.579, pytest.approx(0.15625 - 0.579))
    assert np.isnan(row.loc[("Bad", "mse"), "reported"])
    assert row.loc[("Oracle", "pcc_per_gene"), "mean"] == pytest.approx(1)


def test_each_patient_has_a_line(table):
    found = scores.by_patient(table, "toy", scores.patient_scores(table, "toy", predict))
    good = found[(found["label"] == "Good") & (found["metric"] == "mse")].set_index("unit")["value"]
    assert good.to_dict() == pytest.approx({"A": 0.0625, "B": 0.25})
    assert len(found) == 6 * 2 * 2  # rows, metrics, patients


def test_a_constant_row_is_undefined_and_known_as_constant(found):
    row = found.set_index(["label", "metric"]).loc[("Mean", "pcc_per_gene")]
    assert np.isnan(row["mean"]) and row["undefined"] == 1 and row["constant"] and row["n"] == 0
    assert not found[found["label"] != "Mean"]["constant"].any()


def test_the_best_is_a_method_and_who_loses_to_a_control_is_marked(found):
    mse = found[found["metric"] == "mse"].set_index("label")
    assert mse.index[mse["best"]].tolist() == [
        "Good",
        "Overlap",
    ]  # one per protocol; neither the oracle nor a control
    assert mse.index[mse["beaten"]].tolist() == ["Bad"]  # Overlap has no control beside it


def test_seeds_are_averaged_within_a_patient(table):
    two = table.model_copy(update={"seeds": [0, 1]})

    def load(run):
        right = predict(run)
        return right if run.seed == 0 else Predictions(right.truth, right.truth, right.genes, right.obs)

    row = numbers(two, load).set_index(["label", "metric"]).loc[("Good", "mse")]
    assert row["mean"] == pytest.approx(0.15625 / 2) and row["n"] == 2


def test_what_is_missing_is_named(table, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    with pytest.raises(FileNotFoundError, match="2d/toy/mean/strict-s0/predictions.h5ad is missing"):
        scores.patient_scores(table, "toy")
    wrong = table.model_copy(
        update={
            "rows": [
                table.rows[3].model_copy(
                    update={"reported": tables.Reported(paper="ASIGN", table="I", row="ASIGN")}
                )
            ]
        }
    )
    with pytest.raises(
        ValueError, match="row 'Good': one line of tables/reported.csv must match .* found 0 .*'ASIGN 2D'"
    ):
        numbers(wrong, predict)


# ---- how it looks ----------------------------------------


def test_markdown(table, found):
    text = render.markdown(table, found, ["the encoder is untrained"])
    assert "|  | PCC per gene ↑ | MSE ↓ | reported | difference |" in text
    assert "| *Mean (control)* | undefined |" in text
    assert "| Good | **0." in text and "| **0.156 ± 0.133** | 0.579 | -0.423 |" in text
    near = found.assign(difference=-0.0001)
    assert "+0.000" in render.markdown(table, near) and "-0.000" not in render.markdown(table, near)
    assert "1.000 ± 0.000" in text and "*Oracle (ceiling)*" in text and "2.500 ± 2.121 ‡" in text
    assert "- What a constant scores." in text and "Mean (2d): PCC per gene undefined; MSE 2.333." in text
    assert "- the encoder is untrained" in text and "over 2 patients" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {6, 4}  # four columns, and two where nothing is reported


def test_latex_is_escaped_and_regular(table, found):
    text = render.latex(table, found, ["100 % & more_or_less"])
    assert r"\caption{H\&E, 100 \% made.}" in text and r"100 \% \& more\_or\_less" in text
    assert r"\textbf{0.156 $\pm$ 0.133} & 0.579 & -0.423 \\" in text
    assert r"\textit{Mean (control)}" in text and r"2.500 $\pm$ 2.121 $\ddagger$" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in body} == {4}
    assert text.isascii()


def test_html_marks_controls_and_the_best(table, found):
    text = render.html(table, found, ["a < b"])
    assert 'class="data row0 col0 control" >undefined<' in text
    assert 'best" >0.156 ± 0.133<' in text
    assert "H&amp;E" in text and "<p>a &lt; b</p>" in text
    assert text == render.html(table, found, ["a < b"])


def test_csv_is_rounded_and_reads_back(table, found):
    text = render.csv(table, found, ["one note"])
    back = pd.read_csv(pd.io.common.StringIO(text), comment="#").set_index(["label", "metric"])
    assert text.startswith("# one note\n") and len(back) == len(found)
    assert back.loc[("Good", "mse"), "mean"] == 0.156 and "-0.0," not in text


def test_one_patient_has_no_spread_and_the_table_says_so(table):
    def load(run):
        both = predict(run)
        return Predictions(both.prediction[:3], both.truth[:3], both.genes, both.obs[:3])

    text = render.markdown(table, numbers(table, load))
    assert "over 1 patient; one has no spread" in text and "±" not in text


def test_partly_undefined_correlations_are_reported(table):
    def load(run):
        whole = predict(run)
        flat = whole.prediction.copy()
        flat[:3, 0] = 1
        return Predictions(flat, whole.truth, whole.genes, whole.obs)

    text = render.markdown(table, numbers(table, load))
    assert "Good: 25.0% (2d) of the correlations of PCC per gene are undefined" in text
