"""A run: when it is done, when it would be another, and what it is made of."""

import json
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from stlib import paths, results, steps
from stlib.models import method, names
from stlib.predictions import Predictions, load_predictions
from stlib.results import Run


@pytest.fixture(autouse=True)
def out(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "OUT", tmp_path)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    return tmp_path


def predictions():
    obs = pd.DataFrame({"barcode": ["a"], "section": "P1-1", "patient": "P1", "fold": "P1", "known": False,
                        "x_px": [1.0], "y_px": [1.0], "x_um": [2.0], "y_um": [2.0]})  # fmt: skip
    return Predictions(np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32), np.array(["g", "h"]), obs)


HISTORY = pd.DataFrame(
    {
        "stage": ["final"],
        "epoch": [0],
        "loss": [1.0],
        "validation": [float("nan")],
        "seconds": [1.5],
        "fold": ["P1"],
    }
)


def test_a_run_is_absent_until_its_record_stands_and_complete_from_then_on():
    run = Run("2d", "toy", "mean")
    assert run.stamp == "absent" and not run.complete()
    assert run.save(predictions(), HISTORY) == run.record
    assert run.complete() and run.stamp == run.fingerprint
    record = json.loads(run.record.read_text())
    assert (
        record["train_seconds"] == 1.5
        and record["parameters"]["name"] == "toy"
        and record["versions"]["numpy"] == np.__version__
    )
    found, history = run.train()  # read, not repeated
    assert found.obs["barcode"].tolist() == ["a"] and history["loss"].tolist() == [1.0]


@pytest.mark.fault(
    "an error while a record is written", "an exception in JSON", "no record and nothing half-written"
)
def test_a_record_is_whole_or_absent(monkeypatch):
    run = Run("2d", "toy", "mean")
    monkeypatch.setattr(results.json, "dumps", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.finish()
    assert not run.record.exists() and not list(run.folder.glob(".*"))


@pytest.mark.fault(
    "an error while predictions are written", "an exception", "no record: the run counts as absent"
)
def test_the_record_comes_last(monkeypatch):
    run = Run("2d", "toy", "mean")
    monkeypatch.setattr("stlib.predictions.save_predictions", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.save(predictions(), HISTORY)
    assert not run.record.exists()


def test_a_run_that_stands_is_not_written_again():
    run = Run("2d", "toy", "mean")
    run.save(predictions(), HISTORY)
    before = run.record.stat().st_mtime_ns, run.predictions.stat().st_mtime_ns
    other = predictions()
    other.prediction[:] = 7
    run.save(other, HISTORY)
    assert (run.record.stat().st_mtime_ns, run.predictions.stat().st_mtime_ns) == before
    assert load_predictions(run.predictions).prediction.max() == 1


def test_another_recipe_makes_it_incomplete(monkeypatch):
    Run("2d", "toy", "mean").save(predictions(), HISTORY)
    assert Run("2d", "toy", "mean").complete()
    monkeypatch.setattr(results.fingerprint, "code_hash", lambda roots: "other code")
    assert not Run("2d", "toy", "mean").complete()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a copy of the package whose modules a test may edit; runs are stamped with it."""
    copy = shutil.copytree(
        paths.ROOT / "stlib", tmp_path / "stlib", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(results.fingerprint, "PACKAGE", copy)
    return copy


def edit(module):
    module.write_text(module.read_text() + "\nADDED = 1\n")


@pytest.mark.fault(
    "a module is edited while a run computes",
    "a line added between begin and finish",
    "incomplete and older than the edit; the next run is complete",
)
def test_what_is_edited_while_a_run_computes_is_not_what_it_computed_with(package):
    run = Run("preprocessing", "toy").begin()
    edit(package / "expression.py")
    run.finish()
    assert not Run("preprocessing", "toy").complete()
    assert run.record.stat().st_mtime < (package / "expression.py").stat().st_mtime  # Make compares these
    again = Run("preprocessing", "toy").begin()
    again.finish()
    assert Run("preprocessing", "toy").complete()
    assert again.record.stat().st_mtime > (package / "expression.py").stat().st_mtime


def test_without_an_edit_the_record_has_the_time_of_its_end(package):
    run = Run("preprocessing", "toy").begin()
    (package / "marker").touch()
    run.finish()
    assert run.record.stat().st_mtime >= (package / "marker").stat().st_mtime


@pytest.mark.parametrize("model", ["mean", "controls"])
def test_neither_is_it_for_what_was_trained(package, model):
    run = Run("2d", "toy", model).begin()
    edit(package / "models" / "ridge.py")  # which `mean` does not import
    for member in run.members:
        member.save(predictions(), HISTORY)
    run.finish()
    complete = {member.model for member in Run("2d", "toy", model).members if member.complete()}
    assert complete == ({"mean", "oracle"} if model == "controls" else {"mean"})
    assert Run("2d", "toy", model).complete() == (model == "mean")


@pytest.mark.fault(
    "data are prepared anew while a run computes",
    "another hash between begin and finish",
    "the run is incomplete",
)
def test_data_prepared_anew_while_a_run_computes_make_it_incomplete(monkeypatch):
    run = Run("preprocessing", "toy").begin()
    monkeypatch.setattr(results.fingerprint, "data_hash", lambda *_, **__: "other data")
    run.finish()
    assert not Run("preprocessing", "toy").complete()


@pytest.mark.fault(
    "raw files that change while they are read",
    "another size between begin and finish",
    "the step is incomplete",
)
def test_raw_files_that_change_while_they_are_read_make_the_data_incomplete(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "A.tsv").write_text("1")
    monkeypatch.setattr(Run, "products", [])
    run = Run("data", "toy", data=str(tmp_path / "raw")).begin()
    (tmp_path / "raw" / "A.tsv").write_text("22")
    run.finish()
    assert not Run("data", "toy", data=str(tmp_path / "raw")).complete()


def test_changed_code_of_the_notebook_makes_it_incomplete_but_resumes(monkeypatch):
    run = Run("2d", "toy", "mean")
    run.finish()
    recipe = run.recipe
    monkeypatch.setattr(results.fingerprint, "notebook_hash", lambda notebook: "other cells")
    again = Run("2d", "toy", "mean")
    assert not again.complete() and again.recipe == recipe  # its checkpoints still fit


def test_controls_are_those_of_the_protocol_and_only_the_toy_has_an_oracle():
    assert [run.model for run in Run("2d", "toy", "controls").members] == ["mean", "ridge", "oracle"]
    names = [run.model for run in Run("3d", "her2st_small", "controls", "published", 3).members]
    assert names[:4] == ["mean", "known_mean", "ridge", "nearest"]
    assert names[4:] == ["smooth", "smooth_ridge", "overlap", "similarity"]
    assert {(run.setting, run.seed) for run in Run("3d", "toy", "controls", "published", 3).members} == {
        ("published", 3)
    }
    assert [run.model for run in Run("3d", "toy", "asign").members] == ["asign"]


def test_a_member_has_a_folder_of_its_own():
    assert [run.folder.parent.name for run in Run("2d", "toy", "controls").members] == [
        "mean",
        "ridge",
        "oracle",
    ]


def test_a_table_is_another_once_a_run_behind_it_is():
    before = Run("tables", "toy", "table1").fingerprint
    assert Run("tables", "toy", "table1").fingerprint == before
    Run("2d", "toy", "stnet").finish()
    assert Run("tables", "toy", "table1").fingerprint != before


def test_make_is_told_what_a_run_was_made_of():
    run = Run("2d", "toy", "mean")
    run.finish()
    first, *rest = (run.folder / "run.d").read_text().splitlines()
    assert first.startswith("runs/2d/toy/mean/strict-s0/run.json: ")
    assert {"stlib/models/mean.py", "stlib/train.py", "params/toy.yaml", "requirements.lock"} <= set(
        first.split()
    )
    assert "stlib/metrics.py" not in first and "stlib/models/mean.py:" in rest


@pytest.mark.parametrize("step", ["2d", "3d"])
def test_the_command_says_by_its_exit_whether_a_run_stands(step, monkeypatch):
    run = Run(step, "toy", "mean")
    monkeypatch.setattr(sys, "argv", ["results", str(run.record)])
    assert results.main() == 1
    run.save(predictions(), HISTORY)
    assert results.main() == 0
    run.predictions.unlink()
    assert results.main() == 1


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """The run that prepared the toy, whose sections and slides hold two letters."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    run = Run("data", "toy")
    for product in run.products:
        results.fingerprint.seal(paths.write_text(product, "{}"))
    run.finish()
    return run


@pytest.mark.fault(
    "prepared data that vanished",
    "manifest, a section, a slide deleted",
    "the step is incomplete, Make is told to look, they are made again",
)
def test_data_that_vanished_is_made_again(prepared):
    manifest, section, *_, slide = prepared.products
    assert [path.name for path in (manifest, section, slide)] == ["manifest.json", "P1-1.h5ad", "P4-3.tif"]
    told = (prepared.folder / "run.d").read_text().splitlines()
    for product in (manifest, section, slide):
        assert prepared.complete() and f"{os.path.relpath(product, paths.ROOT)}:" in told
        product.unlink()
        assert not prepared.complete()
        product.write_text("{}")


def test_the_controls_are_all_models_without_training():
    for protocol, listed in steps.CONTROLS.items():
        own = "hd" if protocol == "transfer" else protocol  # whose settings a transfer takes
        fitting = [name for name in names() if own in method(name).PROTOCOLS]
        assert set(listed) == {name for name in fitting if not method(name).Config().epochs}


def test_another_folder_of_raw_files_makes_the_data_anew(out, tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "A.tsv").write_text("1")
    monkeypatch.setattr(Run, "products", [])
    Run("data", "toy", data=str(raw)).finish()
    assert Run("data", "toy", data=str(raw)).complete()
    assert Run("data", "toy").complete()  # without a folder, what was read stands
    (raw / "A.tsv").write_text("22")
    assert not Run("data", "toy", data=str(raw)).complete()


# ---- steps that read many runs, or a table of costs ----------------------------------------


def test_the_ablations_are_other_numbers_once_one_of_their_runs_is(monkeypatch):
    run = Run("ablations", "toy")
    before = run.inputs
    own = Run("3d", "toy", "asign", seed=2)
    own.record.parent.mkdir(parents=True)
    own.record.write_text(json.dumps({"fingerprint": "new"}))
    assert run.inputs != before


def test_costs_depend_on_the_methods_that_are_measured_and_are_kept_as_tables():
    run = Run("cost", "toy", "asign_tables1")
    assert {"stlib.cost", "stlib.models.asign", "stlib.models.triplex"} <= set(run.roots)
    assert "stlib.models.overlap" not in run.roots
    assert {path.name for path in run.kept} == {"asign_tables1.md", "asign_tables1.csv"}


def test_figures_read_prepared_sections_besides_the_runs_of_table_1(monkeypatch):
    before = Run("figures", "toy").inputs
    monkeypatch.setattr(results.fingerprint, "data_hash", lambda dataset, registered: "other sections")
    assert Run("figures", "toy").inputs != before


@pytest.mark.parametrize(
    ("step", "name", "registered"),
    [
        *(("2d", "mean", False), ("3d", "mean", True), ("hd", "mean", False), ("tour", "", True)),
        *(("figures", "", True), ("cost", "asign_tables1", True), ("preprocessing", "", False)),
    ],
)
def test_what_uses_the_alignment_is_another_once_that_is(monkeypatch, step, name, registered):
    asked = []
    monkeypatch.setattr(results.fingerprint, "data_hash", lambda _, registered: asked.append(registered))
    _ = Run(step, "toy", name).inputs
    assert asked == [registered]


def test_figures_and_costs_are_others_once_what_they_draw_or_declare_is(monkeypatch):
    for step, name, part in (("figures", "", "_behind_tables"), ("cost", "asign_tables1", None)):
        before = Run(step, "toy", name).inputs
        with monkeypatch.context() as changed:
            if part:
                changed.setattr(Run, part, lambda run: f"other runs behind {run._tables}")
            else:
                changed.setattr(results, "_declared_in", lambda table: [f"another {table}"])
            assert Run(step, "toy", name).inputs != before
        assert Run(step, "toy", name).inputs == before


def test_a_transfer_computes_with_the_parameters_of_the_tested_dataset_too():
    uses = Run("transfer", "toy", "mean", to="toy_hd@8um").uses
    assert (uses["name"], uses["to"]["name"], uses["to"]["spot"]["size_um"]) == ("toy", "toy_hd@8um", 8)


def test_a_run_of_one_size_is_kept_under_its_name_and_read_back(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    run = Run("hd", "toy_hd@16um", "magnet@no_gat", seed=2)
    assert run.folder == tmp_path / "hd/toy_hd@16um/magnet@no_gat/strict-s2"
    assert Run.at(run.folder) == run
    assert [member.model for member in Run("hd", "toy_hd@8um", "controls").members] == [
        *("mean", "ridge", "oracle")
    ]
    assert [member.model for member in Run("hd", "crc_hd@8um", "controls").members] == ["mean", "ridge"]


def test_a_step_of_all_sizes_reads_the_first_and_depends_on_each(monkeypatch):
    run = Run("figures", "toy_hd")
    assert run.params.name == "toy_hd@8um"
    asked = []
    monkeypatch.setattr(results.fingerprint, "data_hash", lambda names, registered: asked.append(names))
    _ = run.inputs
    assert asked == [["toy_hd@8um", "toy_hd@16um", "toy_hd@55um", "toy_hd@100um"]]


def test_a_table_depends_on_what_stands_under_it():
    """Why a method is absent, or a note: no run computes with it, and the caption says it."""
    run, told = Run("tables", "toy", "table1"), Run("tables", "toy", "table1")
    changed = run.params.model_copy(update={"absent": {"egn": "another reason"}})
    told.__dict__["params"] = changed
    assert told.inputs != run.inputs
