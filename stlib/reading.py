"""Read ahead: processes beside this one read what a GPU uses next.

A GPU uses patches and windows of slides faster than one process decodes them. Where the processor computes,
too, a reader takes from it what it gives: there one process reads and computes in turn.
"""

import builtins
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

AHEAD = 2  # items that each reader has ready at most
MOST = 8  # readers: each holds tiles of a slide, too

Read = Callable[[Sequence[Any]], Iterable[np.ndarray]]


def readers() -> int:
    """Return how many processes read beside one that has a GPU: one for each further core of its share.

    Make tells each of its jobs its share of the cores (``OMP_NUM_THREADS``), which the processes of one
    training on this machine divide.
    """
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    own = cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min(max(0, own - 1), MOST) if torch.cuda.is_available() else 0


def ahead(read: Read, items: Sequence[Any], beside: int | None = None) -> Iterator[np.ndarray]:
    """Yield what is read of each item, in their order, whoever reads.

    Parameters
    ----------
    read
        Yields what it reads of each of some items, as arrays: they go through a pipe, for the shared memory
        of a container may be smaller than a block of patches. A reader calls it once, with every n-th item.
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
    loader = DataLoader(
        _Shares(read, items),
        batch_size=None,
        num_workers=beside,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        generator=generator,
    )
    for error, dtype, shape, content in loader:
        if error:
            raise _raised(*error)
        yield np.frombuffer(bytearray(content), dtype).reshape(shape)


class _Shares(IterableDataset):
    """Every n-th item to each of n readers: words and bytes, for a queue drops without a word the rest."""

    def __init__(self, read: Read, items: Sequence[Any]) -> None:
        self.read, self.items = read, items

    def __iter__(self) -> Iterator[tuple[tuple[str, str] | None, str, tuple[int, ...], bytes]]:
        reader = get_worker_info()
        try:
            for found in self.read(self.items[reader.id :: reader.num_workers]):
                yield None, found.dtype.str, found.shape, found.tobytes()
        except Exception as error:
            yield (type(error).__name__, str(error)), "", (), b""


def _raised(name: str, message: str) -> Exception:
    """Return an error of Python's own by its name; of one that is made otherwise its words."""
    try:
        return getattr(builtins, name)(message)
    except (AttributeError, TypeError):
        return RuntimeError(f"{name}: {message}")


def _as_it_is(found: Any) -> Any:
    return found
