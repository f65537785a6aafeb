"""A small version of the study that tells whether intervals over eight patients are honest."""

import importlib.util

import numpy as np
import pytest

from stlib import metrics, paths


@pytest.fixture(scope="module")
def coverage():
    spec = importlib.util.spec_from_file_location("coverage_study", paths.ROOT / "benchmarks/coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_students_interval_covers_and_the_percentile_bootstrap_is_narrower(coverage):
    found = coverage.study(16)
    assert len(found) == 10 and found["t"].sum() >= 0.87 * 10 * 16
    assert (found["percentile_width"] < 0.85 * found["t_width"]).all()
    assert found["percentile"].sum() < found["t"].sum()


def test_controls_predict_what_they_say(coverage):
    dataset = list(coverage.population(3))
    found = coverage.controls(dataset)
    assert set(found["mean"].obs["section"]) == {f"P{p}-{k}" for p in (1, 2, 3) for k in (1, 2)}
    assert set(found["known_mean"].obs["section"]) == {"P1-2", "P2-2", "P3-2"}
    assert [metrics.constant(found[name]) for name in ("mean", "known_mean", "nearest")] == [
        True,
        True,
        False,
    ]
    near = metrics.score(found["nearest"], "mse")
    assert (near < metrics.score(found["known_mean"], "mse")).all()
    fold = found["known_mean"].fold("P1")
    labels = coverage.log_proportion(coverage.panel_counts(dataset[0][0], fold.genes.tolist()))
    np.testing.assert_allclose(fold.prediction[0], labels.mean(0), rtol=1e-5)


def test_the_committed_study_holds(coverage):
    lines = (paths.ROOT / "results/coverage.md").read_text().splitlines()
    covered = [int(line.split("|")[4]) for line in lines if line.startswith("| `")]
    assert len(covered) == 10 and all(90 <= number <= 99 for number in covered)
