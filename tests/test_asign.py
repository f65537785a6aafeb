"""ASIGN's imputation, its loss and its optimiser, by hand."""

import warnings

import numpy as np
import pytest
import torch

from stlib.batch import Batch, Shape
from stlib.models import build, configure


def tiny_asign(name, genes=1, **settings):
    config = configure(name, "3d", encoder="frozen", width=8, heads=2, **settings)
    return build(name, config, Shape(tuple(f"GENE{index}" for index in range(genes)), 2))


def test_imputation_of_the_paper_by_hand():
    model = tiny_asign("asign@paper", iterations=1)
    model.factor.data = torch.tensor([0.5, 1.0]).log()  # alpha within, across
    batch = Batch(
        num_nodes=4, known=torch.tensor([True, True, False, False]),
        expression=torch.tensor([[1.0], [5.0], [np.nan], [np.nan]]),
        edge_index=torch.tensor([[0, 1], [2, 2]]), edge_weight=torch.tensor([3.0, 2.0]),
        across=torch.tensor([True, False]),
    )  # fmt: skip
    out = model._mixed(batch, torch.tensor([[0.0], [0.0], [4.0], [7.0]])).ravel()
    assert out[2].item() == pytest.approx((4 + 2) / 2)  # (3 * 1 + 2 / 2 * 5) / 4 = 2, mixed half and half
    assert out[3].item() == pytest.approx((7 + 3) / 2)  # no neighbour: the known mean


@pytest.fixture
def imputed():
    """Two known spots, one that both reach, and one beside it that is not registered."""
    third = (2 * np.log(3)) ** 0.5  # pitches: exp(-d^2 / 2) = 1 / 3
    return Batch(
        num_nodes=4, known=torch.tensor([True, True, False, False]), pitch_um=200.0,
        expression=torch.tensor([[1.0], [5.0], [np.nan], [np.nan]]),
        denoised=torch.tensor([[2.0], [6.0], [np.nan], [np.nan]]),
        imputed=torch.tensor([[0.0], [0.0], [8.0], [1.0]]),
        readout=torch.tensor([[0.0], [0.0], [12.0], [2.0]]),
        registered=torch.tensor([[200 * third, 0], [0, 0], [0, 0], [np.nan, np.nan]], dtype=torch.float64),
        edge_index=torch.tensor([[0, 1, 2], [2, 2, 3]]), edge_weight=torch.tensor([3.0, 1.0, 1.0]),
        across=torch.tensor([True, True, False]),
    )  # fmt: skip


NETWORK = torch.tensor([[0.0], [0.0], [4.0], [9.0]])


def test_imputation_of_the_default_by_hand(imputed):
    model = tiny_asign("asign", iterations=1)
    model.length.data.zero_()  # one pitch
    out = model._mixed(imputed, NETWORK).ravel()
    spread = (3 / 3 * 2 + 1 * 6) / 2  # of labels with less noise: 4
    assert out[2].item() == pytest.approx((1 * 4 + 2 * spread + 3 * 8 + 2 * 12) / 8)
    assert out[3].item() == pytest.approx((1 * 9 + 2 * 4 + 3 * 1 + 2 * 2) / 8)  # 4: where its neighbour began


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("no_distance", (4 + 2 * (3 * 2 + 6) / 4 + 3 * 8 + 2 * 12) / 8),
        ("no_denoise", (4 + 2 * (1 + 5) / 2 + 3 * 8 + 2 * 12) / 8),
        ("no_kriging", (4 + 2 * 4 + 2 * 12) / 5),
        ("no_readout", (4 + 2 * 4 + 3 * 8) / 6),
    ],
)
def test_what_a_variant_leaves_out_by_hand(imputed, variant, expected):
    model = tiny_asign(f"asign@{variant}", iterations=1)
    if model.length is not None:
        model.length.data.zero_()
    missing = {"no_denoise": "denoised", "no_kriging": "imputed", "no_readout": "readout"}.get(variant)
    if missing:
        del imputed[missing]  # the feed does not make it
        assert missing not in model.needs(model.config)
    assert model._mixed(imputed, NETWORK)[2].item() == pytest.approx(expected)


def test_gradients_of_the_imputation_stay_finite_where_a_section_is_not_registered(imputed):
    model = tiny_asign("asign", iterations=2)
    model._mixed(imputed, NETWORK)[~imputed.known].sum().backward()
    for parameter in (model.length, model.factor, model.mix, model.refine.weight):
        assert parameter.grad.isfinite().all()
    assert model.length.grad != 0 and model.mix.grad.any()


def test_spots_without_a_known_one_are_counted_aloud(imputed, monkeypatch):
    model = tiny_asign("asign")
    monkeypatch.setattr(model, "forward", lambda batch: {"expression": NETWORK})
    with warnings.catch_warnings(action="error"):
        assert model.predict(imputed) is NETWORK
    imputed.edge_index = imputed.edge_index[:, :2]
    with pytest.warns(UserWarning, match="1 of 4 spots are joined to no known one"):
        model.predict(imputed)


def test_mixing_and_weights_of_edges_learn_ten_times_faster():
    model = tiny_asign("asign", lr=0.5, weight_decay=0.1)
    slow, fast = model.optimiser().param_groups
    assert (slow["lr"], slow["weight_decay"], fast["lr"], fast["weight_decay"]) == (0.5, 0.1, 5.0, 0.0)
    assert {id(p) for p in fast["params"]} == {id(model.mix), id(model.factor), id(model.length)}
    assert len(slow["params"]) + 3 == len(list(model.parameters()))
    without = tiny_asign("asign@no_cli").optimiser().param_groups
    assert [len(group["params"]) > 0 for group in without] == [True, False]


@pytest.fixture
def scored():
    """Four spots of two regions, the first known, and what a network says of them."""
    torch.manual_seed(0)
    batch = Batch(
        num_nodes=4, known=torch.tensor([True, False, False, False]), expression=torch.randn(4, 3),
        depth=torch.tensor([9000.0, 100.0, 200.0, 300.0]),
        region_expression=torch.randn(2, 3), global_expression=torch.randn(1, 3),
        region_parent=torch.tensor([0, 0, 1, 1]), global_parent=torch.zeros(4, dtype=torch.long),
    )  # fmt: skip
    out = {"expression": torch.randn(4, 3), "region": torch.randn(2, 3), "global": torch.randn(1, 3)}
    return batch, out


def test_gamma_1_weighs_all_that_looks_at_labels(scored):
    batch, out = scored

    def loss(**settings):
        return tiny_asign("asign@no_depth", genes=3, consistency=0.0, **settings).loss(batch, out)

    torch.testing.assert_close(loss(prediction=0.25), loss() / 4)
    squares = ((out["expression"] - batch.expression)[1:] ** 2).mean()
    torch.testing.assert_close(loss(pearson=0.0, pearson_level=0.0), squares)


def test_without_imputation_the_papers_variant_trains_on_every_spot():
    for name in ("asign@paper_no_cli", "asign@paper_graph_2d"):
        config = configure(name, "3d")
        assert (config.cross_layer, config.residual, config.known_train) == (False, False, 0.0)


def test_a_batch_weighs_by_its_depth(scored):
    batch, out = scored
    model, plain = tiny_asign("asign", genes=3), tiny_asign("asign@no_depth", genes=3)
    model.depth.fill_(400.0)
    torch.testing.assert_close(model.loss(batch, out), plain.loss(batch, out) * 200 / 400)


def test_a_batch_of_known_spots_alone_has_a_finite_loss():
    model = tiny_asign("asign", genes=3)
    torch.manual_seed(0)
    batch = Batch(
        num_nodes=4,
        known=torch.ones(4, dtype=torch.bool),
        expression=torch.randn(4, 3),
        region_expression=torch.randn(2, 3),
        global_expression=torch.randn(1, 3),
        region_parent=torch.tensor([0, 0, 1, 1]),
        global_parent=torch.zeros(4, dtype=torch.long),
    )
    out = {"expression": torch.randn(4, 3), "region": torch.randn(2, 3), "global": torch.randn(1, 3)}
    assert model.loss(batch, out).isfinite()
