"""Read ahead: processes beside this one read what a GPU uses next.

A GPU uses patches and windows of slides faster than one process decodes them. Where the processor computes,
too, a reader takes from it what it gives: there one process reads and computes in turn.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

AHEAD = 2  # items that each reader has ready at most

Read = Callable[[Sequence[Any]], Iterable[Any]]


def readers() -> int:
    """Return how many processes read beside one that has a GPU: one for each further core of its share.

    Make tells each of its jobs its share of the cores (``OMP_NUM_THREADS``).
    """
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return cores - 1 if torch.cuda.is_available() else 0


def ahead(read: Read, items: Sequence[Any], beside: int | None = None) -> Iterator[Any]:
    """Yield what is read of each item, in their order, whoever reads.

    Parameters
    ----------
    read
        Yields what it reads of each of some items, as arrays: they go through a pipe, for the shared memory
        of a container may be smaller than a block of patches. A reader calls it once, with every n-th item,
        so that it opens a slide once.
    items
        What to read; neighbours on a slide together.
    beside
        Processes that read; 0: this one does. Default: `readers`, but two items each at least.

    Raises
    ------
    Exception
        What `read` raised, at its item.
    RuntimeError
        If a reader was killed.
    """
    beside = min(readers(), len(items) // 2) if beside is None else beside
    if not beside:
        yield from read(items)
        return
    generator = torch.Generator()  # the caller's random numbers stay what they are
    for found in DataLoader(
        _Shares(read, items),
        None,
        num_workers=beside,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        generator=generator,
    ):
        if isinstance(found, Exception):
            raise found
        yield found


class _Shares(IterableDataset):
    """Every n-th item to each of n readers."""

    def __init__(self, read: Read, items: Sequence[Any]) -> None:
        self.read, self.items = read, items

    def __iter__(self) -> Iterator[Any]:
        reader = get_worker_info()
        try:
            yield from self.read(self.items[reader.id :: reader.num_workers])
        except Exception as error:
            yield error


def _as_it_is(found: Any) -> Any:
    return found
