"""One training in several processes: which batches are whose, and what happens if a process is lost.

A launcher starts the processes and numbers them, see `stlib.execute`; rank 0 alone validates, predicts and
writes. A step of the optimiser is made of `batches_per_step` batches, see `stlib.models.Config`, and these
are dealt. So what is computed does not depend on the number of processes, but for the order in which
floating-point numbers are added.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stlib.batch import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ANSWER = timedelta(seconds=10)  # in which a process that is still there says so


class Alone(NamedTuple):
    """One process that trains nothing, in the place of Fabric, whose import takes seconds."""

    device: torch.device = torch.device("cpu")
    world_size: int = 1


def deal(
    batches: Iterable[Batch], per_step: int, seed: int, fabric: "Fabric"
) -> Iterator[tuple[Batch, float, bool]]:
    """Yield the batches that this process computes, with their weights, and whether a step ends with one.

    The gradient of a step is the mean over its batches. Processes average theirs, so that of m batches dealt
    to W processes each weighs W / m. Each process takes consecutive ones; the last step of an epoch may be of
    fewer than there are processes, and the idle ones compute its first with weight 0.

    Parameters
    ----------
    batches
        Those of an epoch, the same in every process.
    per_step
        Batches of a step. If there is more than one, each draws its dropout from a seed of its own.
    seed
        Of the epoch.
    """
    batches, rank, size = iter(batches), fabric.global_rank, fabric.world_size
    for first in count(0, per_step):
        step = list(enumerate(islice(batches, per_step), first))
        if not step:
            return
        start, stop = (k * len(step) // size for k in (rank, rank + 1))
        mine = [(index, batch, size / len(step)) for index, batch in step[start:stop]]
        mine = mine or [(*step[0], 0.0)]
        for index, batch, weight in mine:
            if per_step > 1:
                torch.manual_seed(seed + index)
            yield batch, weight, index == mine[-1][0]


class Statistics:
    """Running statistics of BatchNorm: those of one process that saw all batches of a step in their order.

    A batch with the statistics s moves them by r -> (1 - a) r + a s, so that the n batches of a process do
    r -> (1 - a)^n r + b. What each process adds to where all stood before the step is passed through the
    processes in their order. What the model keeps in evaluation does not move.
    """

    def __init__(self, model: nn.Module, fabric: "Fabric"):
        norms = [one for one in model.modules() if isinstance(one, _BatchNorm) and one.training]
        self.norms = norms if fabric.world_size > 1 else []
        self.fabric = fabric
        self._remember()

    def _remember(self) -> None:
        self.before = [(one.running_mean.clone(), one.running_var.clone()) for one in self.norms]
        self.batches = [int(one.num_batches_tracked) for one in self.norms]

    def merge(self, counts: bool) -> None:
        """Take all processes to the same statistics, after a step.

        `counts` says whether what this process computed was its own; if not it moves nothing.
        """
        if not self.norms:
            return
        kept, moved = [], []
        for one, before, batches in zip(self.norms, self.before, self.batches, strict=True):
            keep = (1 - one.momentum) ** (int(one.num_batches_tracked) - batches) if counts else 1.0
            for now, then in zip((one.running_mean, one.running_var), before, strict=True):
                kept.append(torch.full_like(now, keep))
                moved.append(now - keep * then if counts else torch.zeros_like(now))
        value = torch.cat([then for before in self.before for then in before])  # (S,)
        shares = self.fabric.all_gather(torch.stack([torch.cat(kept), torch.cat(moved)]))  # (W, 2, S)
        for keep, move in shares:
            value = keep * value + move
        sizes = [len(then) for before in self.before for then in before]
        targets = [now for one in self.norms for now in (one.running_mean, one.running_var)]
        for now, part in zip(targets, value.split(sizes), strict=True):
            now.copy_(part)
        self._remember()


def mean(losses: list[Tensor], weights: list[float], fabric: "Fabric") -> float:
    """Return the mean loss over the batches of all processes; those of weight 0 do not count."""
    counted = torch.tensor(weights, device=fabric.device) > 0
    total, number = (torch.stack(losses) * counted).sum(), counted.sum()
    return float(fabric.all_reduce(total, reduce_op="sum") / fabric.all_reduce(number, reduce_op="sum"))


def check_agreed(epochs: int, path: Path, fabric: "Fabric") -> None:
    """Check that every process resumes at the same epoch.

    Raises
    ------
    ValueError
        If one sees another checkpoint.
    """
    found = fabric.all_gather(torch.tensor(epochs, device=fabric.device)).ravel().tolist()
    if len(set(found)) > 1:
        raise ValueError(
            f"every process of a training needs the same checkpoint; of {path} they read {found} epochs. "
            "Keep the runs on a file system that all machines share"
        )


@contextmanager
def watched(fabric: "Fabric | Alone") -> Iterator[None]:
    """Turn what the libraries say when another process is gone into an error that names it.

    Raises
    ------
    RuntimeError
        If a process was lost.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not _of_others(error):
            raise
        size, lost = fabric.world_size, _lost(fabric.global_rank, fabric.world_size)
        raise RuntimeError(
            f"a training in {size} processes needs all of them; no answer from {lost}. It was killed, or "
            "stopped by an error of its own, told above. Finished epochs are kept: the same command goes on "
            "there"
        ) from error


def _of_others(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def _lost(rank: int, size: int) -> str:
    """Return who does not say, in the store where all have met, that it is still there."""
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = distributed.TCPStore(address, port, is_master=False, timeout=ANSWER)
        store.set(f"alive/{rank}", "")
        time.sleep(ANSWER.total_seconds())
        silent = [other for other in range(size) if not store.check([f"alive/{other}"])]
    except distributed.DistError:  # who keeps the store is gone
        silent = [0]
    return ", ".join(f"rank {other}" for other in silent)
