"""The one loop: a killed training ends as if nothing had happened; who chooses the epoch; what is refused."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric

from stlib import paths, train
from stlib.checkpoint import read_about
from stlib.expression import top_mean_panel
from stlib.feed import Feed
from stlib.layers import cosine_decay
from stlib.models import Config, build, configure
from stlib.splits import Fold
from stlib.task import Task
from stlib.train import train_fold

EPOCHS = 4
SMALL = {
    "encoder": "frozen", "width": 16, "heads": 2, "rounds": 1, "transformer_layers": 1, "batch_size": 64,
    "lr": 0.01, "epochs": EPOCHS,
}  # fmt: skip
FOLD = Fold(
    name="P1",
    train=("P2-1", "P2-2", "P1-1"),
    validation=("P4-1", "P4-2"),
    test=("P1-2",),
    known=("P1-1",),
    panel=("P2-1", "P2-2", "P4-1", "P4-2", "P1-1"),
    counted=("P2-1", "P2-2", "P4-1", "P4-2", "P1-1"),
)


def small(params, **training):
    """Return the toy with a tiny network; `training` changes the section of that name."""
    changed = params.training.model_copy(update=training)
    return params.model_copy(update={"overrides": {"asign": SMALL}, "training": changed})


def task(params, folder, fold=FOLD, protocol="3d", recipe="recipe"):
    return Task(params, fold, "asign", protocol, seed=0, folder=folder, recipe=recipe)


WITHOUT_VALIDATION = replace(FOLD, validation=(), known=())


# ---- killed and started again ------------------------------------------------------------------------------

# What the subprocess runs, always by the same command. `how` stands in a file: "" lets it run, "step 3" kills
# it in the third optimisation step, "write 2" in the middle of the second checkpoint that it writes.
SCRIPT = """
import os, signal, sys
from pathlib import Path

import numpy as np
import torch

torch.set_num_threads(1)
folder = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])

from stlib import checkpoint, train
from stlib.params import load_params
from test_train import small, task

what, _, count = (folder / "how").read_text().partition(" ")
left = {what: int(count or 0)}


def counted(kind):
    left[kind] = left.get(kind, 0) - 1
    return left[kind] == 0


def step(module, model, *rest, whole=train._epoch):
    with open(folder / "epochs", "a") as file:
        file.write("begun\\n")
    plain = type(model).loss

    def loss(self, batch, out):
        if counted("step"):
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, batch, out)

    model.loss = loss.__get__(model)
    return whole(module, model, *rest)


def write(tensors, path, metadata, whole=checkpoint.save_file):
    whole(tensors, path, metadata)
    if counted("write"):
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)


train._epoch, checkpoint.save_file = step, write
predictions, history, _ = train.train_fold(task(small(load_params("toy")), folder / "checkpoints"))
np.save(folder / "predictions.npy", predictions.prediction)
history.to_csv(folder / "history.csv", index=False)
"""


class Training:
    """A training in a process of its own, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "script.py").write_text(SCRIPT)

    def start(self, how=""):
        (self.folder / "how").write_text(how)
        (self.folder / "epochs").write_text("")
        here = os.path.dirname(__file__)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.ROOT)}
        command = [sys.executable, str(self.folder / "script.py"), str(self.folder), here]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def end(self, process):
        """Wait; return (exit code, epochs begun by this process)."""
        _, self.errors = process.communicate(timeout=120)
        return process.returncode, len((self.folder / "epochs").read_text().splitlines())

    @property
    def checkpoints(self):
        return sorted(
            path for path in (self.folder / "checkpoints").glob("*") if not path.name.startswith(".")
        )

    @property
    def finished(self):
        """Epochs whose end is on disk; every checkpoint must be readable."""
        return sum(len(read_about(path)["history"]) for path in self.checkpoints)


@pytest.mark.fault(
    "a training that is killed",
    "SIGKILL in an epoch, after an epoch, and in the middle of a write",
    "resumed at the last finished epoch; predictions and losses are those of an undisturbed one",
)
def test_a_training_killed_three_times_equals_an_undisturbed_one(toy, tmp_path):
    wanted, history, _ = train_fold(task(small(toy), tmp_path / "undisturbed"))
    total = len(history)
    assert total > EPOCHS  # both stages

    training = Training(tmp_path)
    steps = 5  # of an epoch at least: 3 sections of some 130 spots, 64 a batch
    how = f"step {random.randint(1, steps)}"
    assert training.end(training.start(how)) == (-signal.SIGKILL, 1), (how, training.errors)
    assert training.checkpoints == []

    process = training.start()
    while not training.checkpoints and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.1))
    process.kill()
    code, _ = training.end(process)
    assert code == -signal.SIGKILL, training.errors
    before = training.finished
    assert 1 <= before < total - 1

    assert training.end(training.start("write 2")) == (-signal.SIGKILL, 2), training.errors
    assert list((tmp_path / "checkpoints").glob(".*partial*"))  # it was killed inside the write
    assert training.finished == before + 1  # the target is the last whole state

    assert training.end(training.start()) == (0, total - before - 1), training.errors  # goes on, not anew
    found = np.load(tmp_path / "predictions.npy")
    assert found.tobytes() == wanted.prediction.tobytes()
    again = pd.read_csv(tmp_path / "history.csv", float_precision="round_trip")
    for column in ("stage", "epoch", "loss", "validation"):
        np.testing.assert_array_equal(again[column], history[column])


@pytest.fixture
def begun(monkeypatch):
    """Return a list that grows by one with every epoch: its learning rate."""
    rates, whole = [], train._epoch

    def epoch(module, model, batches, optimiser, fabric):
        rates.append(optimiser.param_groups[0]["lr"])
        return whole(module, model, batches, optimiser, fabric)

    monkeypatch.setattr(train, "_epoch", epoch)
    return rates


@pytest.mark.fault(
    "checkpoints of another recipe", "a changed fingerprint", "they are not resumed; the training starts anew"
)
def test_a_finished_training_is_read_and_one_of_another_recipe_starts_anew(toy, tmp_path, begun):
    first, history, _ = train_fold(task(small(toy), tmp_path, WITHOUT_VALIDATION, "2d"))
    assert len(begun) == EPOCHS
    again, read, _ = train_fold(task(small(toy), tmp_path, WITHOUT_VALIDATION, "2d"))
    assert len(begun) == EPOCHS and read.equals(history)
    assert again.prediction.tobytes() == first.prediction.tobytes()
    train_fold(task(small(toy), tmp_path, WITHOUT_VALIDATION, "2d", recipe="another"))
    assert len(begun) == 2 * EPOCHS


# ---- epochs and rates --------------------------------------------------------------------------------------


def test_without_a_validation_patient_all_epochs_are_run(toy, tmp_path):
    _, history, _ = train_fold(task(small(toy), tmp_path, WITHOUT_VALIDATION, "2d"))
    assert history["stage"].tolist() == ["final"] * EPOCHS and history["validation"].isna().all()


@pytest.fixture
def validation(monkeypatch):
    """Let the validation errors be those of a list."""
    errors = []
    monkeypatch.setattr(train, "validation_error", lambda *_: errors.pop(0))
    return errors


def test_the_final_training_stops_at_the_epoch_of_the_lowest_validation_error(
    toy, tmp_path, validation, monkeypatch
):
    seen, plain = [], Feed.training
    monkeypatch.setattr(
        Feed, "training", lambda self, names, *rest: seen.append(names) or plain(self, names, *rest)
    )
    validation += [3.0, 1.0, 2.0, 1.5]
    _, history, _ = train_fold(task(small(toy), tmp_path, replace(FOLD, known=()), "2d"))
    assert history["stage"].tolist() == ["choose"] * 4 + ["final"] * 2
    assert history["epoch"].tolist() == [0, 1, 2, 3, 0, 1]
    assert seen == [FOLD.train] * 4 + [FOLD.train + FOLD.validation] * 2


def test_patience_ends_the_choice_early(toy, tmp_path, validation):
    validation += [1.0, 2.0, 3.0, 0.0]  # the last is never asked for
    _, history, _ = train_fold(task(small(toy, patience=2), tmp_path, replace(FOLD, known=()), "2d"))
    assert history["stage"].tolist() == ["choose"] * 3 + ["final"]


def test_the_rate_follows_the_models_schedule(toy, tmp_path, begun):
    train_fold(task(small(toy), tmp_path, WITHOUT_VALIDATION, "2d"))
    factors = np.array(begun) / SMALL["lr"]
    assert factors[0] == pytest.approx(1)
    assert factors[-1] == pytest.approx(cosine_decay((EPOCHS - 1) / EPOCHS))
    assert factors[-1] == pytest.approx(
        0.01 + 0.99 * (1 - 2**-0.5) / 2
    )  # by hand: cos(3 pi / 4) = -1 / sqrt 2


# ---- predictions -------------------------------------------------------------------------------------------


@pytest.fixture
def mean(toy, toy_sections):
    """Return the model `mean` without its profile, and a feed of three sections."""
    sections = {name: toy_sections[name] for name in ("P4-1", "P4-2", "P4-3")}
    panel = top_mean_panel(sections.values(), 5)
    feed = Feed(toy, sections, panel, Config(batch_size=100), unit="spot", needs=frozenset(), protocol="2d")
    return build("mean", configure("mean", "2d"), feed.shape), feed


@pytest.mark.fault(
    "a training that diverged",
    "NaN in a weight",
    "ValueError that names section and number of spots; no table sees it",
)
def test_a_prediction_that_is_nan_is_refused(mean):
    model, feed = mean
    fabric = Fabric(accelerator="cpu", devices=1)
    assert train.predict(model, feed, ("P4-2",), (), fabric)["P4-2"].shape == (len(feed.sections["P4-2"]), 5)
    model.profile[2] = torch.nan
    with pytest.raises(ValueError, match=r"model predicted NaN for (\d+) of \1 spots of section 'P4-2'"):
        train.predict(model, feed, ("P4-2",), (), fabric)


def test_the_validation_error_leaves_out_the_known_section_in_3d(mean):
    model, feed = mean
    fabric, fold = Fabric(accelerator="cpu", devices=1), replace(FOLD, validation=("P4-1", "P4-2", "P4-3"))
    squares = {name: feed.truth(name).astype(float) ** 2 for name in fold.validation}  # `mean` says 0

    def wanted(*names):
        return pytest.approx(np.concatenate([squares[name] for name in names]).mean(), rel=1e-5)

    assert train.validation_error(model, feed, fold, fabric) == wanted("P4-1", "P4-2", "P4-3")
    feed.protocol = "3d"
    assert train.validation_error(model, feed, fold, fabric) == wanted("P4-2", "P4-3")
