"""Who may make a run, and who waits; what the processes of a launcher are told."""

import fcntl
import os
import subprocess
import sys
import time

import nbformat
import pytest

from stlib import execute, paths
from stlib.execute import first_node, joined
from stlib.results import Run

SOURCE = """
import os, time
from pathlib import Path
from stlib import paths
from stlib.results import Run
run = Run("preprocessing", "toy").begin()
with open(paths.OUT / "story", "a") as story:
    story.write(f"{word}\\n")
while not (paths.OUT / "go").exists():
    time.sleep(0.05)
if (paths.OUT / "broken").exists():
    raise ValueError("it is broken")
with open(paths.OUT / "story", "a") as story:
    story.write("ended\\n")
run.finish()
"""


class Place:
    """A folder for runs, a notebook that waits for the file `go`, and processes that execute it."""

    def __init__(self, folder):
        self.folder, self.notebook = folder, folder / "waits.ipynb"
        given = nbformat.v4.new_code_cell('word = "nothing"', metadata={"tags": ["parameters"]})
        cells = [given, nbformat.v4.new_code_cell(SOURCE)]
        kernel = {"name": "python3", "language": "python", "display_name": "python3"}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), self.notebook)

    def start(self):
        record = self.folder / "runs" / "preprocessing" / "toy" / "run.json"
        return subprocess.Popen(
            [sys.executable, "-m", "stlib.execute", str(self.notebook), str(record), "-r", "word", "begun"],
            env=os.environ | {"STLIB_OUT": str(self.folder), "PYTHONPATH": str(paths.ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def story(self):
        path = self.folder / "story"
        return path.read_text().split() if path.exists() else []

    def until(self, happened, processes):
        last = time.monotonic() + 300  # rather than for ever
        while not happened():
            assert time.monotonic() < last, self.story
            assert all(process.poll() is None for process in processes), processes[0].communicate()
            time.sleep(0.05)


def test_the_second_waits_and_finds_the_run_done(tmp_path):
    place = Place(tmp_path)
    first = place.start()
    place.until(lambda: place.story == ["begun"], [first])
    second = place.start()
    assert second.stdout.readline() == "waiting: another make is at runs/preprocessing/toy\n"
    (tmp_path / "go").touch()
    assert [one.wait(timeout=300) for one in (first, second)] == [0, 0]
    assert place.story == ["begun", "ended"]
    assert (tmp_path / "runs/preprocessing/toy/notebook.ipynb").exists()


def test_after_one_that_was_killed_the_next_makes_the_run(tmp_path):
    place = Place(tmp_path)
    first = place.start()
    place.until(lambda: place.story == ["begun"], [first])
    first.kill()  # its kernel ends by itself, a second later
    second = place.start()
    place.until(lambda: place.story == ["begun", "begun"], [second])
    (tmp_path / "go").touch()
    assert second.wait(timeout=300) == 0
    assert place.story == ["begun", "begun", "ended"]


def test_a_failed_notebook_is_kept_under_another_name_with_what_to_do(tmp_path):
    place = Place(tmp_path)
    (tmp_path / "go").touch()
    (tmp_path / "broken").touch()
    one = place.start()
    said, _ = one.communicate(timeout=300)
    assert one.returncode == 1
    assert "ValueError: it is broken" in said
    assert place.story == ["begun"]  # what the notebook was told
    assert (
        "failed: see runs/preprocessing/toy/notebook.failed.ipynb; finished folds and epochs are kept" in said
    )
    here = {path.name for path in (tmp_path / "runs/preprocessing/toy").iterdir()}
    assert here == {"log.txt", "notebook.failed.ipynb"}


HOLDER = """
import subprocess, sys
from stlib.execute import held
from stlib.results import Run
with held(Run("preprocessing", "toy")):
    child = subprocess.Popen(["sleep", "600"])  # as a kernel, it inherits the log
    print(child.pid, flush=True)
    sys.stdin.read()
"""


def test_a_run_is_held_as_long_as_any_of_its_processes_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    environment = os.environ | {"STLIB_OUT": str(tmp_path), "PYTHONPATH": str(paths.ROOT)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child = int(holder.stdout.readline())
    log = tmp_path / "runs" / "preprocessing" / "toy" / "log.txt"

    def free():
        with open(log) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    assert not free()
    holder.kill()
    holder.wait()
    assert not free()
    os.kill(child, 9)
    patience = time.monotonic() + 20
    while not free():
        assert time.monotonic() < patience
        time.sleep(0.05)


SLURM = {
    "SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "gpu[07-08]",
}  # fmt: skip


@pytest.fixture
def alone(monkeypatch):
    for name in [
        name for name in os.environ if name.startswith(("SLURM", "MASTER", "RANK", "WORLD", "LOCAL"))
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))


def test_the_tasks_of_a_step_of_slurm_are_numbered_as_torchrun_does(alone):
    os.environ.update(SLURM)
    assert joined() == (6, 8)
    found = {
        name: os.environ[name] for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
    assert found == {
        "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "gpu07", "MASTER_PORT": "23405"
    }  # fmt: skip


def test_what_a_batch_script_or_a_step_of_one_task_starts_is_alone(alone):
    os.environ.update({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"})
    assert joined() == (0, 1)
    os.environ.update(SLURM | {"SLURM_STEP_NUM_TASKS": "1"})
    assert joined() == (0, 1)


def test_torchrun_inside_slurm_counts(alone):
    os.environ.update(SLURM | {"RANK": "1", "WORLD_SIZE": "2"})
    assert joined() == (1, 2)


def test_only_trainings_are_shared(alone, monkeypatch, tmp_path):
    """Of the processes of a preparation the first works; of a training the others do what rank 0 says."""
    os.environ.update({"RANK": "1", "WORLD_SIZE": "2"})
    helped, says = [], {"word": b"train"}
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    monkeypatch.setattr(Run, "assist", lambda run: helped.append(run.model))
    monkeypatch.setattr(
        execute, "meeting", lambda rank: type("Store", (), {"get": lambda *_: says["word"]})()
    )
    for step, word in (
        ("preprocessing/toy", b"train"),
        ("2d/toy/controls/strict-s0", b"train"),
        ("2d/toy/asign/strict-s0", b"train"),
        ("2d/toy/stnet/strict-s0", b"stands"),
    ):
        os.environ.update({"RANK": "1", "WORLD_SIZE": "2"})
        says["word"] = word
        monkeypatch.setattr(sys, "argv", ["execute", "notebook", str(tmp_path / step / "run.json")])
        assert execute.main() == 0
    assert helped == ["asign"]


def test_first_node_of_a_plain_list():
    assert first_node("one") == "one"
