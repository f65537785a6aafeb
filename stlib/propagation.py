"""Label propagation: known labels spread over a weighted graph (ASIGN, eq. 5)."""

import warnings
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor


def propagate(labels: Tensor, known: Tensor, edge_index: Tensor, weight: Tensor, iterations: int) -> Tensor:
    """Return q (N, G) after `iterations` of q_i <- sum_j w_ij q_j / sum_j w_ij for unknown i.

    Known nodes keep their label. All others start at the mean known label; a node that no path joins to a
    known one keeps it.

    Parameters
    ----------
    labels
        (N, G); only known rows are read.
    known
        (N,), at least one is True.
    edge_index, weight
        Source j and target i (2, E), w_ij >= 0 (E,); gradients flow through the weights.
    iterations
        The paper: 10.
    """
    fixed = torch.where(known[:, None], labels, torch.zeros((), dtype=labels.dtype, device=labels.device))
    into = ~known[edge_index[1]] & (weight > 0)  # edges that change something
    (source, target), weight = edge_index[:, into], weight[into].to(labels.dtype)
    order = target.argsort(stable=True)
    source, target, weight = source[order], target[order], weight[order]
    total = weight.new_zeros(len(labels)).index_add(0, target, weight)  # (N,)
    share = weight / total[target]
    start = torch.where(known[:, None], fixed, fixed[known].mean(0))
    alone = torch.where(total[:, None] > 0, fixed, start)  # what no edge changes
    value = start
    for _ in range(iterations):
        value = alone + _Step.apply(share, value, source, target)
    return value


class _Step(torch.autograd.Function):
    """A q (N, G) of a sparse A (N, N), given by its entries in the order of rows; gradients reach both.

    Edge by edge it would take E x G numbers a step, and torch's own gradient of a sparse matrix N x N.
    """

    @staticmethod
    def forward(ctx: Any, share: Tensor, value: Tensor, source: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(share, value, source, target)
        with torch.autocast(value.device.type, enabled=False):  # sums, as exact as the labels
            return _matrix(share, source, target, len(value)) @ value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        share, value, source, target = ctx.saved_tensors
        matrix = _matrix(share, source, target, len(value))
        # of A_ij the product of row i of the gradient and row j of q, where A has an entry
        wanted = torch.sparse.sampled_addmm(matrix, grad, value.T, beta=0.0).values()
        return wanted, matrix.t() @ grad, None, None


def _matrix(share: Tensor, source: Tensor, target: Tensor, n: int) -> Tensor:
    """Return A (N, N), compressed by rows."""
    first = torch.searchsorted(target, torch.arange(n + 1, device=target.device))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says once that such tensors are new
        return torch.sparse_csr_tensor(first, source, share, (n, n), check_invariants=False)


def unreached(known: Tensor, edge_index: Tensor) -> int:
    """Return how many nodes no path joins to a known one."""
    n = len(known)
    source, target = edge_index.cpu().numpy()
    graph = csr_matrix((np.ones(len(source), bool), (source, target)), shape=(n, n))
    count, component = connected_components(graph, directed=False)
    reached = np.zeros(count, bool)
    reached[component[known.cpu().numpy()]] = True
    return int((~reached[component]).sum())
