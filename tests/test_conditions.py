"""Under which conditions the runs of a table were made."""

import json

import pytest

from stlib import conditions, paths
from stlib.models import method
from stlib.params import Training
from stlib.results import Run


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    return Run("3d", "toy", "asign")


def with_params(run, **changes):
    run.__dict__["params"] = run.params.model_copy(update=changes)
    return run


def test_a_setting_that_is_not_the_papers_is_listed_with_the_papers(run):
    sgn = with_params(Run("2d", "toy", "sgn"), overrides={"sgn": {"layers": 9}}, training=Training())
    (note,) = conditions.settings([sgn])
    paper = method("sgn").Config().layers
    assert note == f"sgn, 2d: the paper's in brackets: layers 9 ({paper})."


def test_what_a_default_adds_to_its_paper_is_listed(run):
    (note,) = conditions.settings([with_params(run, overrides={}, training=Training())])
    assert note.startswith("asign, 3d: the paper's in brackets: ")
    assert "known_train None (0.2)" in note and "kriging True (False)" in note and "epochs" not in note
    flat = with_params(Run("2d", "toy", "asign"), overrides={}, training=Training())
    assert conditions.settings([flat])[0].endswith("in brackets: depth True (False).")


def test_a_variant_says_what_it_changes_and_seeds_say_it_once(run):
    keys = [(name, seed) for name in ("asign", "asign@no_cli") for seed in (0, 1)]
    changed = {"overrides": {"asign": {"heads": 2}}, "training": Training()}
    runs = [with_params(Run("3d", "toy", name, seed=seed), **changed) for name, seed in keys]
    reduced, varied = conditions.settings(runs)
    assert reduced.startswith("asign, 3d: the paper's") and "heads 2" in reduced
    assert (
        varied
        == "asign@no_cli, 3d: as asign, whose settings stand in brackets, but cross_layer False (True)."
    )


def test_nothing_is_said_where_nothing_differs():
    plain = with_params(Run("2d", "toy", "sgn"), overrides={}, training=Training())
    assert conditions.reductions([plain]) == ["Frozen features: `stain` (weight-free)."]
    assert conditions.settings([plain]) == []


def test_the_encoder_says_whether_it_was_trained(run):
    notes = [
        conditions.reductions([with_params(run, encoder=name)])[0]
        for name in ("resnet50@untrained", "resnet50.tv_in1k@hub")
    ]
    assert notes == [
        "Frozen features: `resnet50@untrained` (untrained).",
        "Frozen features: `resnet50.tv_in1k@hub` (pretrained).",
    ]


def test_a_limit_on_training_is_said(run):
    notes = conditions.reductions([with_params(run, overrides={}, training=Training(patience=3))])
    assert notes[1] == "The choice of the epoch ends 3 epochs after the lowest validation error."


def test_genes_that_were_added_by_name_are_said(run):
    panel = run.params.panel.model_copy(update={"add": ["SGPP1", "DPEP1"]})
    notes = conditions.reductions([with_params(run, panel=panel)])
    assert "In the panel by name, whatever their counts: SGPP1, DPEP1." in notes


def test_a_panel_of_another_rule_is_said(run):
    assert not any(note.startswith("Panel") for note in conditions.reductions([run]))
    panel = run.params.panel.model_copy(update={"rule": "spatially_variable"})
    said = "Panel: the 50 genes that come first by Moran's I of their Pearson residuals (spatially variable)."
    assert said in conditions.reductions([with_params(run, panel=panel)])


def test_the_controls_are_asked_one_by_one():
    shared = with_params(Run("3d", "toy", "controls"), overrides={}, training=Training())
    assert conditions.settings([shared]) == []  # as they are meant to be


def test_the_report_has_a_line_per_run(run):
    record = {"device": "CPU, 2 cores", "train_seconds": 4.5, "seconds": 6.0, "peak_memory_mb": 900}
    record |= {"fingerprint": "ab"}
    run.folder.mkdir(parents=True)
    run.record.write_text(json.dumps(record))
    (line,) = conditions.report([run]).to_dict("records")
    about = {"protocol": "3d", "dataset": "toy", "model": "asign", "setting": "strict", "seed": 0, "to": ""}
    assert line == about | record


def test_controls_that_share_a_run_share_its_line(run, monkeypatch):
    record = {"device": "CPU, 2 cores", "seconds": 6.0, "peak_memory_mb": 900, "fingerprint": "ab"}
    shared = Run("3d", "toy", "controls")
    shared.folder.mkdir(parents=True)
    shared.record.write_text(json.dumps(record))
    (line,) = conditions.report([shared]).to_dict("records")
    assert line["model"] == "controls" and line["train_seconds"] == 0 and line["seconds"] == 6.0


def test_the_precision_is_said(run):
    notes = conditions.reductions([with_params(run, overrides={}, training=Training(precision="bf16-mixed"))])
    assert notes[1] == "Networks are trained and applied in bfloat16, their gene heads in float32."


def test_what_a_table_was_made_with_is_told_once(run):
    runs = [Run("3d", "toy", "asign", seed=seed) for seed in range(3)]
    for one, version in zip(runs, "121", strict=True):
        one.folder.mkdir(parents=True)
        one.record.write_text(json.dumps({"versions": {"torch": version}}))
    found = conditions.made(runs, ["toy", "nowhere"])
    assert found["versions"] == [{"torch": "1"}, {"torch": "2"}] and len(found["lock"]) == 64
    assert found["sections"]["nowhere"] == {}


def test_a_dataset_whose_counts_are_not_at_hand_is_named():
    assert conditions.unreachable({"a@8um": {}, "a@16um": {"S": "section"}}) == [
        "No share of what is reachable: the counts of a@8um are not prepared here."
    ]
    assert conditions.unreachable({"a": {"S": "section"}}) == []
