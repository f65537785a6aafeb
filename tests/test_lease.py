"""A GPU is held by one command at a time, and is free when that has ended."""

import os
import subprocess
import sys

import pytest

from stlib import paths

TELL = 'import os, sys; print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True); sys.stdin.read()'


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "stlib.lease", "3,5", sys.executable, "-c", TELL],
        env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(paths.ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_each_command_sees_one_gpu_and_the_next_waits_until_one_is_free(tmp_path):
    first, second = start(tmp_path), start(tmp_path)
    shown = [first.stdout.readline(), second.stdout.readline()]
    assert sorted(shown) == ["3\n", "5\n"]
    third = start(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(timeout=3)
    second.kill()
    assert third.stdout.readline() == shown[1]
    for process in (first, third):
        process.communicate("", timeout=60)
        assert process.returncode == 0
