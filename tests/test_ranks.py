"""Several processes compute what one does; the loss of one ends the training, and says whose it was."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_train import FOLD, WITHOUT_VALIDATION, small, task

from stlib import devices, paths, ranks
from stlib.train import train_fold

SCRIPT = """
import json, os, sys
from dataclasses import replace
from pathlib import Path

import torch

torch.set_num_threads(1)
folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
sys.path.insert(0, sys.argv[3])

from stlib.params import load_params
from stlib.task import feed_of
from stlib.train import learn, train_fold
from test_ranks import dealt
from test_train import FOLD, task

for model in ("asign", "stnet"):
    one = dealt(load_params("toy"), folder, model, epochs)
    if int(os.environ["RANK"]):
        learn(one, feed_of(one))
    else:
        predictions, history, _ = train_fold(one)
        losses = history[["loss", "validation"]].to_numpy().tolist()
        (folder / f"{model}.json").write_text(json.dumps([losses, predictions.prediction.tolist()]))
"""


def dealt(params, folder, model, epochs):
    """Two epochs of a model whose steps are of two batches each, the last one of an odd number."""
    own = small(params).overrides | {"stnet": params.overrides["stnet"]}
    own[model] = own[model] | {"epochs": epochs, "batches_per_step": 2, "batch_size": 50}
    changed = params.model_copy(update={"overrides": own})
    if model == "asign":
        return task(changed, folder / "kept")
    fold = replace(FOLD, train=("P2-1", "P2-2"), validation=("P4-1",), known=())
    return replace(task(changed, folder / "kept", fold, "2d"), model=model)


def start(folder, rank, epochs, port):
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.ROOT), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, str(folder), str(epochs), os.path.dirname(__file__)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_two_processes_learn_what_one_does_and_rank_0_alone_writes(toy, tmp_path, port):
    (tmp_path / "two").mkdir()
    both = [start(tmp_path / "two", rank, 2, port) for rank in (0, 1)]
    errors = [process.communicate(timeout=500)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    for model in ("asign", "stnet"):
        one, history, _ = train_fold(dealt(toy, tmp_path / "one", model, 2))
        losses, predicted = json.loads((tmp_path / "two" / f"{model}.json").read_text())
        wanted = history[["loss", "validation"]].to_numpy()
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)
        np.testing.assert_allclose(predicted, one.prediction, atol=1e-4)
    assert sorted(path.name for path in (tmp_path / "two" / "kept").iterdir()) == sorted(
        path.name for path in (tmp_path / "one" / "kept").iterdir()
    )


def test_a_killed_process_ends_the_training_with_its_rank_and_what_to_do(toy, tmp_path, port):
    survivor, victim = (start(tmp_path, rank, 1000, port) for rank in (0, 1))
    while not list(tmp_path.glob("kept/*.safetensors")) and survivor.poll() is victim.poll() is None:
        time.sleep(0.1)
    victim.send_signal(signal.SIGKILL)
    _, said = survivor.communicate(timeout=120)
    assert survivor.returncode == 1
    assert "a training in 2 processes needs all of them; no answer from rank 1." in said
    assert "the same command goes on there" in said


def test_more_processes_than_batches_of_a_step_are_refused(toy, tmp_path, monkeypatch):
    crowd = SimpleNamespace(world_size=3)
    monkeypatch.setattr(devices, "fabric", lambda *_: crowd)
    with pytest.raises(
        ValueError, match=r"'asign' in 3 processes .* found batches_per_step 1\. .* params/toy"
    ):
        train_fold(task(small(toy), tmp_path, WITHOUT_VALIDATION, "2d"))


def shares(batches, per_step, size):
    """Return, of each of `size` processes, (batch, weight, last) as dealt to it."""
    return [
        list(ranks.deal(batches, per_step, 0, SimpleNamespace(global_rank=rank, world_size=size)))
        for rank in range(size)
    ]


def test_one_process_with_one_batch_a_step_takes_each_as_it_is():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert shares("abc", 1, 1) == [[("a", 1.0, True), ("b", 1.0, True), ("c", 1.0, True)]]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_batches_of_a_step_are_dealt_so_that_the_mean_over_processes_is_that_over_batches():
    one, two = shares("abcde", 3, 2)
    assert one == [("a", 2 / 3, True), ("d", 1.0, True)]
    assert two == [("b", 2 / 3, False), ("c", 2 / 3, True), ("e", 1.0, True)]


def test_a_process_without_a_batch_takes_part_with_weight_0():
    one, two = shares("abc", 2, 2)
    assert one[-1] == ("c", 0.0, True) and two[-1] == ("c", 2.0, True)


def test_dropout_of_a_batch_is_the_same_wherever_it_is_computed():
    def draws(rank, size):
        dealt = ranks.deal("abcd", 4, 7, SimpleNamespace(global_rank=rank, world_size=size))
        return {batch: float(torch.rand(())) for batch, _, _ in dealt}

    assert draws(0, 2) | draws(1, 2) == draws(0, 1)
    assert len(set(draws(0, 1).values())) == 4


@pytest.mark.parametrize("first", [0, 2, 3])  # of the three batches of a step
def test_running_statistics_are_those_of_one_process_that_saw_all_batches(first):
    batches = list(torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(0)))
    whole, said = torch.nn.BatchNorm1d(2), []
    for batch in batches:
        whole(batch)

    def process(mine, all_gather):
        own = torch.nn.BatchNorm1d(2)
        statistics = ranks.Statistics(own, SimpleNamespace(world_size=2, all_gather=all_gather))
        for batch in mine or batches[:1]:
            own(batch)
        statistics.merge(counts=bool(mine))
        return own

    for mine in (batches[:first], batches[first:]):
        process(mine, lambda share: said.append(share) or share[None])
    own = process(batches[:first], lambda share: torch.stack(said))
    torch.testing.assert_close(own.running_mean, whole.running_mean)
    torch.testing.assert_close(own.running_var, whole.running_var)


def test_the_mean_loss_leaves_out_what_has_no_weight():
    alone = devices.fabric(False, "32-true")
    losses = [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(9.0)]
    assert ranks.mean(losses, [1.0, 2.0, 0.0], alone) == 1.5


def test_processes_that_see_other_checkpoints_are_refused(tmp_path):
    apart = SimpleNamespace(device="cpu", all_gather=lambda mine: torch.stack([mine, mine - 3]))
    with pytest.raises(ValueError, match=r"they read \[5, 2\] epochs.*a file system that all machines share"):
        ranks.check_agreed(5, tmp_path, apart)
