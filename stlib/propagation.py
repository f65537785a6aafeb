"""Label propagation: known labels spread over a weighted graph (ASIGN, eq. 5)."""

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
    (source, target), weight = edge_index[:, into], weight[into, None].to(labels.dtype)
    total = weight.new_zeros(len(labels), 1).index_add(0, target, weight)  # (N, 1)
    share = weight / total[target]
    start = torch.where(known[:, None], fixed, fixed[known].mean(0))
    alone = torch.where(total > 0, fixed, start)  # what no edge changes
    value = start
    for _ in range(iterations):
        value = alone.index_add(0, target, share * value[source])
    return value


def unreached(known: Tensor, edge_index: Tensor) -> int:
    """Return how many nodes no path joins to a known one."""
    n = len(known)
    source, target = edge_index.cpu().numpy()
    graph = csr_matrix((np.ones(len(source), bool), (source, target)), shape=(n, n))
    count, component = connected_components(graph, directed=False)
    reached = np.zeros(count, bool)
    reached[component[known.cpu().numpy()]] = True
    return int((~reached[component]).sum())
