"""One training step, measured: floating-point operations, memory and seconds.

A method is built with the settings of its own paper, its image encoder with random weights (they cost the
same), and takes a few steps on locations of the dataset whose patches are noise of the wanted size. On a GPU
the batch is measured as it is. On a CPU three small batches are (`SMALL`), and where the batch takes more
than `MOST_GFLOP`, they stand for it, see `stlib.cost`. The shortest of several steps counts: other work
on the machine only makes a step longer.

Operations are those that PyTorch's counter knows: products of matrices, convolutions and attention, a
multiplication and an addition being two; of a sparse matrix those of its entries, not of its zeros. Memory on
a GPU is what its allocator held at most; on a CPU `Allocated` counts the same: tensors alive at once,
parameters and optimiser included.
"""

import time
import weakref
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from stlib.batch import Batch, subset
from stlib.feed import Feed
from stlib.models import Config, Method, build, configure, method
from stlib.params import Params
from stlib.sections import load_sections
from stlib.splits import folds
from stlib.tables import CostRow
from stlib.task import panel_of

SMALL = (2, 4, 8)  # locations in the steps that a CPU takes
MOST_GFLOP = 100.0  # of a step that a CPU takes as it is
LEAST, REPEATS, ENOUGH_S = 3, 5, 2.0  # steps whose shortest time counts, and the seconds that are enough


class Step(NamedTuple):
    """One training step of `batch` locations."""

    batch: int
    forward_gflop: float
    step_gflop: float  # forward and backward
    peak_gb: float  # in the forward and the backward part
    update_gb: float  # while the optimiser changes the parameters: does not grow with the batch
    step_s: float


class Allocated(TorchDispatchMode):
    """Count the bytes of the tensors that operations make, and the most there were at once.

    `held` are tensors that are there from the start.
    """

    def __init__(self, held: Iterable[Tensor] = ()):
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()
        for tensor in held:
            self._hold(tensor)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                for part in _parts(leaf):
                    self._hold(part)
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()  # views share it
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def most_since(self) -> int:
        """Return the most bytes since this was asked last."""
        most, self.most = self.most, self.now
        return most


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return the dense tensors that hold one: itself, or the indices and entries of a sparse one."""
    if tensor.layout in (torch.sparse_csr, torch.sparse_csc):
        by_row = tensor.layout == torch.sparse_csr
        first = tensor.crow_indices() if by_row else tensor.ccol_indices()
        return [first, tensor.col_indices() if by_row else tensor.row_indices(), tensor.values()]
    return [tensor._indices(), tensor._values()] if tensor.is_sparse else [tensor]


def _operations(a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """Return those of a product with b (., G): each entry of a takes G multiplications and additions."""
    return 2 * (a.numel() if a.layout == torch.strided else a._nnz()) * b.shape[1]


_operations._get_raw = True  # torch's counter gives it tensors, not shapes
COUNTED = dict.fromkeys((torch.ops.aten.mm, torch.ops.aten.sparse_sampled_addmm), _operations)


class OnGPU(nullcontext):
    """The same of a GPU's own allocator, which also counts what a kernel takes for its work."""

    def most_since(self) -> int:
        """Return the most bytes since this was asked last."""
        most = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return most


def papers_own(name: str, protocol: str) -> Config:
    """Return a method's own settings, its encoder with random weights; frozen features are the dataset's."""
    config = configure(name, protocol)
    changes = {"frozen": "dataset"}
    names = {field.name for field in fields(config)}
    if "encoder" in names and "@" in config.encoder:
        changes["encoder"] = f"{config.encoder.partition('@')[0]}@untrained"
    if "text" in names:
        changes["text"] = "table"  # no language model
    return replace(config, **changes)


class Bench:
    """A model on a device, and locations to train it on: those of a fold's final training, fed as there.

    `train_spots` is the number of locations of one epoch, those of the validation patient among them.

    Parameters
    ----------
    params
        The dataset, prepared; its first fold is used.
    row
        Which method, and the side of a patch.
    """

    def __init__(self, params: Params, row: CostRow, device: str):
        kind, config = method(row.model), papers_own(row.model, row.protocol)
        fold = folds(params, row.protocol)[0]
        trained = fold.train + fold.validation  # as the final training of `stlib.train.train_fold`
        sections = load_sections(params, list(dict.fromkeys((*trained, *fold.panel))))
        self.train_spots = sum(len(sections[name]) for name in trained)
        feed = Feed(
            params,
            {name: sections[name] for name in trained},
            panel_of(params, fold, sections),
            replace(config, batch_size=self.train_spots),  # whole sections and stacks; `batch` takes a part
            unit=kind.UNIT,
            needs=kind.needs(config) - {"patch"},
            protocol=row.protocol,
            measured=fold.known,
        )
        torch.manual_seed(0)
        self.model: Method = build(row.model, config, feed.shape)
        self.model.prepare(feed.whole(trained))
        self.model.train().to(device, memory_format=torch.channels_last)
        self.optimiser = self.model.optimiser()
        batches = feed.training(trained, torch.Generator().manual_seed(0))
        self._largest = max(batches, key=lambda batch: len(batch.row))
        self._patch_px = row.patch_px if "patch" in kind.needs(config) else 0
        self._device = device

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def batch(self, n: int) -> Batch:
        """Return n neighbouring locations of the largest section or stack, with patches of noise."""
        whole = self._largest
        if len(whole.row) < n:
            raise ValueError(
                f"a step of {n} locations needs a section or stack with as many, found {len(whole.row)}; "
                "lower `batch` in the table"
            )
        place = (whole.registered if "registered" in whole else whole.position).double().nan_to_num()
        distance = (place - place.mean(0)).norm(dim=1)
        part = subset(whole, distance.argsort()[:n].sort().values)
        if self._patch_px:
            part.patch = torch.randint(256, (n, 3, self._patch_px, self._patch_px), dtype=torch.uint8)
        return part.to(self._device)

    def seconds(self, batch: Batch) -> float:
        """Take one step; return its time."""
        start = time.perf_counter()
        self.optimiser.zero_grad()
        self.model.loss(batch, self.model(batch)).backward()
        self.optimiser.step()
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def measure(self, n: int) -> Step:
        """Take steps of n locations and say what one costs."""
        batch, times = self.batch(n), []
        while len(times) < LEAST or (len(times) < REPEATS and sum(times) < ENOUGH_S):
            times.append(self.seconds(batch))
        self.optimiser.zero_grad()
        memory = Allocated(self._held(batch)) if self._device == "cpu" else OnGPU()
        memory.most_since()
        with memory, FlopCounterMode(display=False, custom_mapping=COUNTED) as flops:
            loss = self.model.loss(batch, self.model(batch))
            forward = flops.get_total_flops()
            loss.backward()
            del loss
            peak = memory.most_since()
            self.optimiser.step()
            update = memory.most_since()
        gflop = flops.get_total_flops() / 1e9
        return Step(n, forward / 1e9, gflop, peak / 1e9, update / 1e9, min(times))

    def steps(self, n: int) -> list[Step]:
        """Measure a batch of n, or, where a CPU would take too long for it, the small ones."""
        if self._device == "cuda":
            self.seconds(self.batch(n))  # the first step is slow
            return [self.measure(n)]
        self.seconds(self.batch(SMALL[0]))
        small = [self.measure(size) for size in SMALL]
        return [self.measure(n)] if small[-1].step_gflop / SMALL[-1] * n < MOST_GFLOP else small

    def _held(self, batch: Batch) -> list[Tensor]:
        """Return what is in memory before a step: parameters, buffers, the optimiser's state, the batch."""
        state = tree_leaves(self.optimiser.state_dict()["state"])
        given = [*state, *batch.to_dict().values(), *self.model.parameters(), *self.model.buffers()]
        return [value for value in given if isinstance(value, Tensor)]
