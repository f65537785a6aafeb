"""Propagation of known labels over graphs that are small enough for a pencil."""

import pytest
import torch

from stlib.propagation import propagate, unreached

NAN = float("nan")


def both_ways(*pairs):
    """Return edges (2, E) in both directions."""
    return torch.tensor([*pairs, *((j, i) for i, j in pairs)]).T


# known 0 (label 4) - 1 - 2 - known 3 (label 10); 4 alone
LABELS = torch.tensor([[4.0], [NAN], [NAN], [10.0], [NAN]])
KNOWN = torch.tensor([True, False, False, True, False])
CHAIN = both_ways((0, 1), (1, 2), (2, 3))
ONES = torch.ones(6)


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [(0, [4, 7, 7, 10, 7]), (1, [4, 5.5, 8.5, 10, 7]), (2, [4, 6.25, 7.75, 10, 7])],
)
def test_a_chain_by_hand(iterations, expected):
    found = propagate(LABELS, KNOWN, CHAIN, ONES, iterations)
    assert found.ravel().tolist() == expected


def test_it_settles_where_each_is_the_mean_of_its_neighbours():
    found = propagate(LABELS, KNOWN, CHAIN, ONES, 200).ravel()
    torch.testing.assert_close(found, torch.tensor([4.0, 6.0, 8.0, 10.0, 7.0]))


def test_weights_count():
    edges = torch.tensor([[0, 3], [1, 1]])
    found = propagate(LABELS, KNOWN, edges, torch.tensor([1.0, 3.0]), 1).ravel()
    assert found[1].item() == (4 + 3 * 10) / 4
    assert found[0].item() == 4 and found[3].item() == 10  # known ones stay


def test_an_edge_without_weight_is_none():
    edges = torch.tensor([[0, 3, 0], [1, 1, 2]])
    found = propagate(LABELS, KNOWN, edges, torch.tensor([0.0, 2.0, 0.0]), 3).ravel()
    assert found.tolist() == [4, 10, 7, 10, 7]  # 2 has none left, and keeps the mean


def test_ten_iterations_equal_the_plain_loop():
    generator = torch.Generator().manual_seed(0)
    n, edges = 12, torch.randint(12, (2, 60), generator=generator)
    weight, known = torch.rand(60, generator=generator), torch.arange(n) < 4
    labels = torch.randn(n, 3, generator=generator)
    value = torch.where(known[:, None], labels, labels[known].mean(0))
    for _ in range(10):
        new = value.clone()
        for i in range(n):
            into = (edges[1] == i).nonzero().ravel()
            if not known[i] and len(into):
                new[i] = sum(weight[e] * value[edges[0, e]] for e in into) / weight[into].sum()
        value = new
    hidden = torch.where(known[:, None], labels, NAN)
    torch.testing.assert_close(propagate(hidden, known, edges, weight, 10), value)


def test_gradients_reach_weights_and_stay_finite():
    weight = torch.tensor([1.0, 1.0, 0.0], requires_grad=True)
    edges = torch.tensor([[0, 3, 0], [1, 1, 2]])
    propagate(LABELS, KNOWN, edges, weight, 1)[1:3].sum().backward()
    # of (4 a + 10 b) / (a + b) at a = b = 1: (4 - 7) / 2, (10 - 7) / 2; a node without weight has none
    torch.testing.assert_close(weight.grad, torch.tensor([-1.5, 1.5, 0.0]))


def test_gradients_are_those_of_the_sums():
    generator = torch.Generator().manual_seed(0)
    edges, known = torch.randint(9, (2, 40), generator=generator), torch.arange(9) < 3
    weight = torch.rand(40, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randn(9, 4, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w, y: propagate(y, known, edges, w, 3), (weight, labels))


def test_under_autocast_sums_are_as_exact_as_labels():
    labels = torch.where(KNOWN[:, None], torch.tensor([[1.0001]]), NAN)
    with torch.autocast("cpu", torch.bfloat16):
        found = propagate(labels, KNOWN, CHAIN, ONES, 2)
    assert found.dtype == torch.float32 and found[1:3].ravel().tolist() == [labels[0].item()] * 2


def test_nodes_that_no_path_joins_are_counted():
    assert unreached(KNOWN, CHAIN) == 1
    assert unreached(KNOWN, CHAIN[:, :0]) == 3
    assert unreached(torch.tensor([True, False, False, False, False]), CHAIN) == 1
    assert unreached(torch.zeros(5, dtype=torch.bool), CHAIN) == 5
