"""Reading ahead: the same items in the same order, whoever reads; errors and memory as with one process."""

import os
import signal
import time

import numpy as np
import pytest
import torch

from stlib.reading import AHEAD, ahead, readers


def squares(items):
    for item in items:
        yield np.array([item**2, os.getpid()])


@pytest.mark.parametrize("beside", [0, 1, 2])
def test_items_come_in_their_order_whoever_reads(beside):
    state = torch.get_rng_state()
    found = list(ahead(squares, range(11), beside))
    assert [values[0] for values in found] == [n**2 for n in range(11)]
    assert all(values.flags.writeable for values in found)
    processes = {int(process) for _, process in found}
    assert len(processes) == max(beside, 1) and (os.getpid() in processes) == (not beside)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("beside", [0, 2])
def test_an_error_comes_as_it_was_raised_at_its_item(beside):
    def failing(items):
        for item in items:
            if item == 4:
                raise ValueError("slide.tif: truncated at tile 4")
            yield np.array(item)

    found = ahead(failing, range(9), beside)
    assert [next(found) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="^slide.tif: truncated at tile 4$"):
        next(found)


class Awkward(Exception):
    """An error whose class wants two words, so that it cannot be unpickled."""

    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")


def test_an_error_that_no_pipe_takes_comes_in_words():
    def failing(items):
        for item in items:
            if item == 4:
                raise Awkward("truncated", "tile 4")
            yield np.array(item)

    found = ahead(failing, range(9), 2)
    assert [next(found) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="^Awkward: truncated at tile 4$"):
        next(found)


def test_what_is_no_array_is_said():
    def some(items):
        yield from map(np.array, items)
        yield "text"

    found = ahead(some, range(4), 2)
    assert [next(found) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(AttributeError, match="'str' object has no attribute 'dtype'"):
        next(found)


def test_a_killed_reader_ends_the_reading():
    def dying(items):
        for item in items:
            if item == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield np.array(item)

    with pytest.raises(
        RuntimeError, match="DataLoader worker .* is killed by signal: Killed|exited unexpectedly"
    ):
        list(ahead(dying, range(9), 2))


def test_readers_wait_when_they_are_two_items_ahead(tmp_path):
    def noting(items):
        for item in items:
            (tmp_path / str(item)).touch()
            yield np.array(item)

    found = ahead(noting, range(40), 2)
    assert next(found) == 0
    time.sleep(0.5)
    assert 1 < len(list(tmp_path.iterdir())) <= 1 + 2 * AHEAD


def test_readers_are_the_further_cores_of_a_job_with_a_gpu(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert readers() == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert readers() == 7
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert readers() == 1
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert readers() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert readers() == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert [os.getpid()] == [int(process) for _, process in ahead(squares, [1])]  # too few to share
