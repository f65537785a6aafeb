import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from stlib.batch import Batch, Shape
from stlib.losses import mse, mse_and_pearson, pearson_loss, pearson_loss_per_gene, zinb_nll
from stlib.models import build, configure


def waves(a, b, c):
    """Return sin(a i + b j (1 + 0.05 i) + c), 4 rows of 6."""
    i, j = torch.arange(4.0, dtype=torch.float64)[:, None], torch.arange(6.0, dtype=torch.float64)
    return torch.sin(a * i + b * j * (1 + 0.05 * i) + c).float()


X, Y = waves(0.37, 0.11, 0), waves(0.91, 0.23, 0.5)


def test_it_equals_the_released_code():
    assert pearson_loss(X, Y).item() == pytest.approx(1.464664, abs=2e-6)  # measured there, 6 digits


def test_by_hand():
    a = torch.tensor([[1.0, 2.0, 3.0]])
    assert pearson_loss(a, 5 * a + 1).item() == pytest.approx(0, abs=1e-6)
    assert pearson_loss(a, -a).item() == pytest.approx(2)
    assert pearson_loss(a, torch.tensor([[1.0, 0.0, 1.0]])).item() == pytest.approx(1)


def test_a_constant_row_counts_as_zero():
    flat = X.clone()
    flat[2] = 0.7
    assert pearson_loss(flat, Y).item() == pytest.approx(1.219048, abs=2e-6)  # measured there


def test_hidden_rows_are_left_out():
    hidden = Y.clone()
    hidden[1, 3] = torch.nan
    kept = [0, 2, 3]
    a = X.clone().requires_grad_()
    loss = pearson_loss(a, hidden)
    torch.testing.assert_close(loss, pearson_loss(X[kept], Y[kept]))
    loss.backward()
    assert a.grad.isfinite().all() and (a.grad[1] == 0).all() and a.grad[0].abs().sum() > 0


def test_without_any_row_it_is_zero_and_has_a_gradient():
    a = X.clone().requires_grad_()
    loss = pearson_loss(a, torch.full_like(Y, torch.nan))
    loss.backward()
    assert loss.item() == 0 and (a.grad == 0).all()


def test_across_locations_by_hand():
    label = torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]])
    same, opposite = 5 * label[:, :1] + 1, -label[:, :1]
    assert pearson_loss_per_gene(torch.cat([same, opposite], 1), label).item() == pytest.approx(1, abs=1e-6)
    assert pearson_loss_per_gene(torch.cat([same, label[:, 1:]], 1), label).item() == pytest.approx(
        0, abs=1e-6
    )
    found = pearson_loss_per_gene(torch.tensor([[1.0], [0.0], [2.0]]), label[:, :1])
    assert found.item() == pytest.approx(0.5)  # r = (-1 * 0 + 0 * -1 + 1 * 1) / sqrt(2 * 2)


def test_across_locations_is_not_across_genes():
    """Every location has the right profile up to a shift, every gene the wrong order of locations."""
    label = torch.tensor([[0.0, 10.0], [1.0, 11.0]])
    shifted = label - torch.tensor([[0.0], [3.0]])
    assert pearson_loss(shifted, label).item() == pytest.approx(0, abs=1e-6)
    assert pearson_loss_per_gene(shifted, label).item() == pytest.approx(2, abs=1e-6)


def test_genes_without_variance_and_hidden_rows_are_left_out():
    flat, hidden = Y.clone(), Y.clone()
    flat[:, 2] = 0.7
    hidden[1, 3] = torch.nan
    genes, rows = [0, 1, 3, 4, 5], [0, 2, 3]
    torch.testing.assert_close(
        pearson_loss_per_gene(X, flat), pearson_loss_per_gene(X[:, genes], Y[:, genes])
    )
    torch.testing.assert_close(pearson_loss_per_gene(X, hidden), pearson_loss_per_gene(X[rows], Y[rows]))


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 1)])
def test_without_a_gene_that_varies_it_is_zero_and_has_a_gradient(rows):
    a = X.clone().requires_grad_()
    loss = pearson_loss_per_gene(a[rows], Y[rows])
    loss.backward()
    assert loss.item() == 0 and (a.grad == 0).all()


def test_a_constant_prediction_has_a_finite_gradient():
    a = torch.full_like(Y, 0.3).requires_grad_()
    loss = pearson_loss_per_gene(a, Y)
    loss.backward()
    assert loss.item() == pytest.approx(1) and a.grad.isfinite().all()


# ---- squares -----------------------------------------------------------------------------------------------


def test_squares_by_hand_without_hidden_rows():
    a = torch.tensor([[1.0, 2.0], [5.0, 5.0], [0.0, 0.0]], requires_grad=True)
    b = torch.tensor([[0.0, 0.0], [torch.nan, 1.0], [3.0, 0.0]])
    loss = mse(a, b)
    loss.backward()
    assert loss.item() == (1 + 4 + 9 + 0) / 4
    assert a.grad.tolist() == [[0.5, 1.0], [0.0, 0.0], [-1.5, 0.0]]  # 2 (a - b) / 4
    assert mse(X, Y).equal(((X - Y) ** 2).mean())


def test_squares_without_any_row_are_zero_and_have_a_gradient():
    a = X.clone().requires_grad_()
    loss = mse(a, torch.full_like(Y, torch.nan))
    loss.backward()
    assert loss.item() == 0 and (a.grad == 0).all()


def test_squares_keep_what_diverged_in_sight():
    assert mse(torch.full_like(Y, torch.nan), Y).isnan()


def test_squares_and_correlation_by_hand():
    label = torch.tensor([[0.0] * 4, [1.0] * 4, [torch.nan] * 4])
    assert mse_and_pearson(label + 1, label, 0.5).item() == pytest.approx(1, abs=1e-4)  # r = 1
    assert mse_and_pearson(1 - label, label, 0.5).item() == pytest.approx(2, abs=1e-4)  # r = -1
    assert mse_and_pearson(1 - label, label, 0.25).item() == pytest.approx(1.5, abs=1e-4)


@pytest.mark.parametrize(("name", "own"), [("egn", {}), ("eggn", {}), ("sgn", {"text": "table"})])
def test_who_shares_it_and_its_optimiser(name, own):
    with torch.device("meta"):
        model = build(name, configure(name, "2d", **own), Shape(tuple("abcd"), 5))
    label = torch.tensor([[0.0] * 4, [1.0] * 4])
    out = {"expression": 1 - label, "genes": torch.arange(4)}
    assert model.loss(Batch(num_nodes=2, expression=label), out).item() == pytest.approx(2, abs=1e-4)
    (group,) = model.optimiser().param_groups
    assert (group["lr"], group["weight_decay"]) == (5e-4, 1e-4)


# ---- zero-inflated negative binomial -----------------------------------------------------------------------


def test_zinb_equals_scipy():
    """Over counts from 0 to 500, means from 0.01 to 300, dispersions from nearly Poisson to very broad."""
    grid = np.meshgrid([0, 1, 2, 17, 500], [0.01, 1, 40, 300], [0.05, 1, 30, 5000], [0.0, 0.2, 0.95])
    x, m, theta, pi = (values.ravel() for values in grid)
    law = nbinom(theta, theta / (theta + m))  # mean m, variance m + m^2 / theta
    np.testing.assert_allclose(law.mean(), m)
    np.testing.assert_allclose(law.var(), m + m**2 / theta)
    likely = np.log1p(-pi) + law.logpmf(x)
    expected = -np.where(x == 0, np.log(pi + (1 - pi) * law.pmf(0) + 1e-10), likely)  # the floor
    tensors = [torch.from_numpy(values).double()[:, None] for values in (x, m, theta, pi)]
    for row, value in enumerate(expected):
        found = zinb_nll(*(tensor[row] for tensor in tensors)).item()
        assert found == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert zinb_nll(*tensors).item() == pytest.approx(expected.mean(), rel=1e-6)
    single = zinb_nll(*(tensor.float() for tensor in tensors))  # float32 in, float64 within
    assert single.dtype == torch.float32 and single.item() == pytest.approx(expected.mean(), rel=1e-5)


def test_zinb_probabilities_sum_to_one():
    x = torch.arange(400.0)
    m, theta, pi = (torch.full_like(x, value) for value in (6.0, 2.0, 0.3))
    chances = [zinb_nll(x[i : i + 1], m[:1], theta[:1], pi[:1]).neg().exp().item() for i in range(400)]
    assert sum(chances) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("count", [0.0, 3.0])
@pytest.mark.parametrize("mean", [0.0, 1e-5, 1e6])
@pytest.mark.parametrize("theta", [1e-4, 1e4])
@pytest.mark.parametrize("pi", [0.0, 1.0])
def test_zinb_is_finite_at_its_limits(count, mean, theta, pi):
    leaves = [torch.tensor([value], requires_grad=True) for value in (mean, theta, pi)]
    loss = zinb_nll(torch.tensor([count]), *leaves)
    loss.backward()
    assert loss.isfinite() and all(leaf.grad.isfinite().all() for leaf in leaves)
