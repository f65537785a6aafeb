"""TRIPLEX by hand: how many parameters, which neighbours, whose tokens, and what the heads learn from."""

import pytest
import torch

from stlib.batch import Batch, Shape
from stlib.models import build, configure
from stlib.models.triplex import PEGH, Neighbourhood, Stack

SMALL = {
    "encoder": "test_resnet@untrained",
    "width": 16,
    "fusion": (2, 2, 1, 0.5),
    "context": (2, 2, 1, 0.5),
    "neighbourhood": (2, 4, 1, 0.5),
}


def small(n=6, **changes):
    """Make a model and a section of n spots: 3 genes, 5 frozen features, patches of 64 px."""
    torch.manual_seed(0)
    model = build("triplex", configure("triplex", "2d", **SMALL | changes), Shape(("A", "B", "C"), 5))
    batch = Batch(
        num_nodes=n,
        row=torch.arange(n),
        array=torch.stack([torch.arange(n) % 3, torch.arange(n) // 3], 1).double(),
        expression=torch.randn(n, 3),
        features=torch.randn(n, 5),
        neighbour_features=torch.randn(n, 25, 5),
        neighbour_inside=torch.ones(n, 25, dtype=torch.bool),
        patch=torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8),
    )
    return model, batch


@pytest.mark.parametrize(
    ("name", "count"),
    [("triplex@stnet", 40_058_184), ("triplex", 43_206_584), ("triplex@skin", 27_459_688)],
)
def test_parameter_counts_of_the_released_settings(name, count):
    """Specification, section 9: 40,058,184; 43.2 M; 27.5 M. Nothing is left out: every weight is used."""
    config = configure(name, "2d", encoder="ciga_resnet18@untrained")
    with torch.device("meta"):
        model = build(name, config, Shape(tuple(map(str, range(250))), 512))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_evaluation_is_deterministic_and_training_is_not():
    model, batch = small()
    assert torch.equal(model.eval().predict(batch), model.predict(batch))
    first, second = (model.train()(batch)["expression"] for _ in range(2))
    assert not torch.allclose(first, second)


def test_pegh_adds_a_three_by_three_convolution_over_the_array():
    pegh = PEGH(1)
    pegh.convolution.weight.data = torch.tensor([[[[0.0, 100, 0], [10, 1, 1000], [0, 10000, 0]]]])
    pegh.convolution.bias.data.fill_(0.5)
    array = torch.tensor([[7.0, 2], [8, 2], [7, 4], [7.2, 3]])  # column, row; the last cell is (7, 3)
    out = pegh(torch.tensor([[1.0], [2], [3], [5]]), array).ravel()
    # itself twice, left 10, above 100, right 1000, below 10000
    assert out.tolist() == [0.5 + 2 + 2000 + 50000, 0.5 + 4 + 10, 0.5 + 6 + 500, 0.5 + 10 + 100 + 30000]
    moved = pegh(torch.tensor([[1.0], [2], [3], [5]]), array - 50).ravel()  # another section, elsewhere
    assert moved.tolist() == out.tolist()


def test_spots_of_one_cell_share_what_is_around_them():
    pegh = PEGH(1)
    pegh.convolution.weight.data = torch.tensor([[[[0.0, 0, 0], [0, 1, 10], [0, 0, 0]]]])
    pegh.convolution.bias.data.zero_()
    out = pegh(torch.tensor([[2.0], [4], [5]]), torch.tensor([[0.0, 0], [0, 0], [1, 0]])).ravel()
    assert out.tolist() == [2.0 + 3 + 50, 4.0 + 3 + 50, 10.0]  # mean 3; the residual is each one's own
    assert pegh(torch.zeros(3, 1), torch.tensor([[0.0, 0], [0, 0], [1, 0]])).shape == (3, 1)  # sums of 0


def test_the_bias_follows_the_distance_between_two_patches():
    view = Neighbourhood(Stack(1, 1, 1, 0.0), 4)
    assert view.apart[0, 0] == 0 and view.apart[0, 24] == 24  # corner to corner: |dy| = |dx| = 4
    assert view.apart[12, 13] == view.apart[13, 12] == view.apart[2, 1] == 1  # |dx| = 1
    assert view.apart[12, 17] == view.apart[17, 12] == 5  # |dy| = 1
    assert view.apart[3, 14] == 11  # (0, 3) to (2, 4): 5 * 2 + 1
    torch.manual_seed(0)
    view.distance[0].data[:] = -torch.inf
    view.distance[0].data[1] = 0  # each sees its left and right neighbour alone
    x = torch.randn(1, 25, 4)
    other = x.clone()
    other[0, 10, 0] += 1
    changed = (view(x, torch.zeros(1, 1, 1, 25)) != view(other, torch.zeros(1, 1, 1, 25))).any(2)[0]
    assert changed.nonzero().ravel().tolist() == [10, 11]


def test_neighbours_off_the_slide_change_nothing():
    model, batch = small()
    model.eval()
    batch.neighbour_inside[2, :10] = False
    before = model.predict(batch)
    batch.neighbour_features[2, 3] += 5
    assert torch.equal(model.predict(batch), before)
    batch.neighbour_features[2, 12] += 5
    changed = (model.predict(batch) != before).any(1)
    assert changed.tolist() == [False, False, True, False, False, False]
    model.train()  # nor do they in the view of their own
    torch.manual_seed(1)
    first = model(batch)["neighbours"]
    batch.neighbour_features[2, 3] += 5
    torch.manual_seed(1)
    assert torch.equal(model(batch)["neighbours"], first)


def test_each_view_reaches_the_prediction():
    model, batch = small()
    model.eval()
    before = model.predict(batch)
    for key in ("patch", "features", "neighbour_features", "array"):
        other = batch.clone()
        other[key] = other[key].roll(1, 0)
        assert not torch.allclose(model.predict(other), before, atol=1e-5), key
    other = batch.clone()
    other.patch[0] = 255 - other.patch[0]  # a patch is seen by its own spot
    assert (model.predict(other) != before).any(1).tolist() == [True] + 5 * [False]
    other = batch.clone()
    other.features[0] += 1  # features are seen by the whole section
    assert (model.predict(other) != before).any(1).all()


def test_loss_by_hand():
    model, batch = small(2)
    batch.expression = torch.tensor([[0.0, 0, 0], [9, 9, 9]])
    # of the spot drawn: (2 - 0)^2 + 0.7 (1 + 9 + 0) + 0.3 (1 + 1 + 4) = 4 + 7 + 1.8
    out = {"rows": torch.tensor([0])} | {
        key: torch.full((1, 3), value)
        for key, value in {"expression": 2.0, "target": 1.0, "neighbours": 3.0, "context": 0.0}.items()
    }
    assert float(model.loss(batch, out)) == pytest.approx(12.8)
    for value in (out["expression"], out["target"]):
        value.requires_grad_()
    model.loss(batch, out).backward()  # d/d fused: 2 (2 + 0.3 (1 - 1 + 2)) / 3, d/d target: 2 (0.7 - 0.3) / 3
    assert out["expression"].grad.ravel()[0].item() == pytest.approx(2 * 2.6 / 3)
    assert out["target"].grad.ravel()[0].item() == pytest.approx(2 * 0.4 / 3)


def test_of_a_large_section_some_spots_are_drawn():
    model, batch = small(200, spots_per_step=10)
    out = model.train()(batch)
    assert out["expression"].shape == (10, 3) and len(out["rows"].unique()) == 10
    assert model.loss(batch, out).isfinite()
    assert model.eval()(batch)["expression"].shape == (200, 3)


def test_heads_start_at_the_mean_label():
    model, batch = small()
    model.prepare([batch])
    mean = batch.expression.mean(0)
    assert all(torch.allclose(head.bias, mean) for head in model.heads.values())


def test_the_scale_of_the_frozen_features_does_not_matter():
    model, batch = small()
    model.prepare([batch])
    before = model.eval().predict(batch)
    batch.features, batch.neighbour_features = 100 * batch.features - 7, 100 * batch.neighbour_features - 7
    assert not torch.allclose(model.predict(batch), before, atol=0.01)
    model.prepare([batch])
    torch.testing.assert_close(model.predict(batch), before, atol=1e-4, rtol=1e-4)


def test_the_rate_falls_by_a_tenth_every_quarter():
    model, _ = small()
    rates = [model.rate(epoch / 200) for epoch in (0, 49, 50, 100, 199)]
    assert rates == pytest.approx([1, 1, 0.9, 0.81, 0.729])
