"""Nobody leaks labels: under `strict`, what a test section measured cannot change what is predicted for it.

The counts of the hidden sections are replaced in the raw files, and the whole chain runs on both versions:
reading, preparing, registration, features, panel, training and its choice of the epoch, prediction.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stlib import datasets, paths, task
from stlib.models import method, names
from stlib.params import load_params
from stlib.registration import register_dataset
from stlib.sections import Cells, load_sections
from stlib.splits import folds
from stlib.task import Task
from stlib.train import train_fold

CASES = [
    (name, protocol)
    for name in names()
    for protocol in method(name).PROTOCOLS
    if name != "oracle" and protocol != "hd"  # its own test is below
]
SMALL = {
    "asign": {"encoder": "frozen", "width": 16, "heads": 2, "rounds": 1, "transformer_layers": 1, "lr": 0.02,
              "epochs": 2},
    "stnet": {"encoder": "test_resnet@untrained", "lr": 0.02, "epochs": 1, "patch_px": 16, "views": 1},
    "histogene": {"patch_px": 8, "width": 16, "depth": 1, "heads": 2, "head_width": 8, "hidden": 16,
                  "lr": 0.002, "epochs": 2},
    "hist2st": {"patch_px": 8, "kernel": 2, "channels": 8, "mixer_depth": 1, "depth": 1, "graph_depth": 2,
                "heads": 2, "head_width": 8, "views": 2, "lr": 0.002, "epochs": 2},
    "egn": {"frozen": "dataset", "patch_px": 16, "token_px": 8, "width": 16, "depth": 2, "heads": 2,
            "head_width": 8, "hidden": 16, "bridge_heads": 2, "bridge_width": 4, "score_width": 8,
            "lr": 0.002, "epochs": 1},
    "eggn": {"frozen": "dataset", "width": 16, "depth": 1, "gates": 4, "lr": 0.002, "epochs": 2},
    "bleep": {"encoder": "test_resnet@untrained", "patch_px": 16, "width": 32, "epochs": 1},
    "sgn": {"frozen": "dataset", "text": "table", "width": 16, "gene_width": 8, "layers": 1, "lr": 0.01,
            "epochs": 2},
    "triplex": {
        "frozen": "dataset", "encoder": "test_resnet@untrained", "patch_px": 16, "width": 16,
        "fusion": (1, 2, 1, 0.1), "context": (1, 2, 1, 0.1), "neighbourhood": (1, 2, 1, 0.1), "lr": 0.01,
        "epochs": 1,
    },
    "pixnet": {"encoder": "test_resnet@untrained", "halvings": 3, "window_px": 256, "batch_size": 2,
               "hidden": 8, "tile_px": 256, "lr": 0.002, "epochs": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def short(toy):
    """The toy with two sections a patient and a short training: of three patients one is held back."""
    sections = {patient: stack[:2] for patient, stack in toy.sections.items()}
    brief = {name: settings | {"epochs": 1} for name, settings in toy.overrides.items()}
    return load_params("toy").model_copy(update={"sections": sections, "overrides": brief | SMALL})


def other_counts(table, rng):
    """Return counts of the same shape from another law, with other totals."""
    return rng.negative_binomial(1, rng.uniform(0.001, 0.2, table.shape[1]), table.shape) + 1


@pytest.fixture(scope="module")
def prepared(short, tmp_path_factory):
    """Return a data folder, prepared from raw files of which the named sections have other counts.

    It is made once each. Slides and caches, which hold no counts, are those of the checkout.
    """
    made = {}

    def make(*corrupted) -> Path:
        if corrupted in made:
            return made[corrupted]
        data = tmp_path_factory.mktemp("data")
        raw, done = data / "raw/toy", data / "processed/toy"
        raw.mkdir(parents=True)
        done.mkdir(parents=True)
        (data / "cache").symlink_to(paths.DATA / "cache")
        for name in short.with_slide:
            for file in paths.raw("toy").glob(f"{name}.*"):
                (raw / file.name).symlink_to(file)
            for suffix in (".tif", ".json", ".tif.sha256", ".json.sha256"):
                (done / f"{name}{suffix}").symlink_to(paths.slide_file("toy", name).with_suffix(suffix))
        rng = np.random.default_rng(1)
        for name in corrupted:
            file = raw / f"{name}.counts.tsv"
            table = pd.read_csv(file, sep="\t", index_col=0)
            table[:] = other_counts(table, rng)
            file.unlink()
            table.to_csv(file, sep="\t")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "DATA", data)
            datasets.prepare(short, raw)
            register_dataset(short)
        made[corrupted] = data
        return data

    return make


@pytest.fixture
def run(short, prepared, monkeypatch, tmp_path):
    """Return a function that trains and predicts fold P1, with other counts in some raw files."""

    def train_on(model, protocol, corrupted, setting="strict"):
        fold = folds(short, protocol, setting)[0]
        data = prepared(*corrupted)
        with monkeypatch.context() as patch:
            patch.setattr(paths, "DATA", data)
            folder = tmp_path / "-".join(("run", *corrupted))
            return train_fold(Task(short, fold, model, protocol, 0, folder, "recipe"))[0]

    return train_on


def hidden(short, protocol):
    fold = folds(short, protocol)[0]
    assert fold.validation and not set(fold.test) & {*fold.train, *fold.known, *fold.panel}
    return fold.test


@pytest.mark.parametrize(("model", "protocol"), CASES, ids=lambda value: value)
def test_counts_of_hidden_sections_cannot_change_a_prediction(run, short, model, protocol):
    true = run(model, protocol, ())
    other = run(model, protocol, hidden(short, protocol))
    tested = ~true.obs["known"].to_numpy()
    assert (
        np.abs(true.truth[tested] - other.truth[tested]).mean() > 1
    )  # they were replaced, in all of the chain
    assert other.genes.tolist() == true.genes.tolist()
    assert other.prediction.tobytes() == true.prediction.tobytes()


@pytest.mark.parametrize("other_slide", ["P1", "P3"])  # hidden, and trained on: there it must change
def test_counts_of_a_hidden_slide_cannot_change_a_prediction(toy_hd, monkeypatch, tmp_path, other_slide):
    """In the protocol hd, those of the bins that are listed and those that cells sum."""
    small = {"magnet": {"encoder": "frozen", "width": 8, "heads": 2, "rounds": 1, "lr": 0.02, "epochs": 1}}
    params, fold = toy_hd.model_copy(update={"overrides": small}), folds(toy_hd, "hd")[0]
    assert "P1" in fold.test and "P3" in fold.train
    true = train_fold(Task(params, fold, "magnet", "hd", 0, tmp_path / "true", "recipe"))[0]

    def corrupted(params, wanted):
        found, rng = load_sections(params, wanted), np.random.default_rng(1)
        section = found[other_slide]
        cells = {
            level: Cells(index, sparse.csr_matrix(other_counts(counts, rng)))
            for level, (index, counts) in section.cells.items()
        }
        counts = sparse.csr_matrix(other_counts(section.counts, rng))
        return found | {other_slide: replace(section, counts=counts, cells=cells)}

    monkeypatch.setattr(task, "load_sections", corrupted)
    other = train_fold(Task(params, fold, "magnet", "hd", 0, tmp_path / "other", "recipe"))[0]
    same = other.genes.tolist() == true.genes.tolist()
    same = same and other.prediction.tobytes() == true.prediction.tobytes()
    assert same == (other_slide in fold.test)


# ---- the test above can fail -------------------------------------------------------------------------------


def test_counts_of_a_training_section_change_the_prediction(run):
    true, other = run("mean", "2d", ()), run("mean", "2d", ("P2-1",))
    assert other.prediction.tobytes() != true.prediction.tobytes()


def test_under_published_the_panel_looks_at_the_test_sections(run, short):
    true = run("mean", "2d", (), "published")
    other = run("mean", "2d", hidden(short, "2d"), "published")
    assert set(other.genes) != set(true.genes)
