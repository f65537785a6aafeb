import pytest
import torch

from stlib.losses import pearson_loss


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
