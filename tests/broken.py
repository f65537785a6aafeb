"""What tests of faults share: processes that are killed at a call, a cache and a run to break."""

import multiprocessing
import os
import signal

import numpy as np
import pytest

from stlib import features, fingerprint, paths
from stlib.results import Run

IMAGE = np.random.default_rng(0).integers(0, 256, (600, 400, 3), dtype=np.uint8)
ARRAY = np.random.default_rng(1).random((64, 1000)).astype(np.float32)  # 256 KB


def seen(folder):
    """Return the files below a folder, hidden ones included."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def process(function, *words):
    """Start a function in a process of its own, which ends without the interpreter's clearing up."""
    started = multiprocessing.get_context("fork").Process(target=function, args=words)
    started.start()
    return started


def exits(*started):
    """Wait for processes; return their exit codes."""
    for one in started:
        one.join(120)
    return [one.exitcode for one in started]


def killed(moment, function, *words, at=(os, "fsync")):
    """Run a function in a process that is killed at a call, counted from 1: before a file gets its name."""
    plain, left = getattr(*at), moment

    def dying(number):
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(number)

    def run():
        setattr(*at, dying)
        function(*words)

    assert exits(process(run)) == [-signal.SIGKILL]


def cached(folder, blocks):
    """Cache an array that comes in blocks, as patches and features are cached."""
    paths.DATA = folder  # a test that calls this has `data` put it back
    return features._cached("features", {"of": "a test"}, {"nodes": len(ARRAY)}, placed(blocks))


def placed(blocks):
    """Yield each block with the rows that it fills, one block after another."""
    start = 0
    for block in blocks:
        yield np.arange(start, start + len(block)), block
        start += len(block)


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    return tmp_path


@pytest.fixture
def run(out, monkeypatch):
    """A run whose code is not read again for each fingerprint."""
    monkeypatch.setattr(fingerprint, "code_hash", lambda roots: "code")
    monkeypatch.setattr(fingerprint, "modules", lambda roots: [])
    return Run("2d", "toy", "mean")
