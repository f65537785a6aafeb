"""MagNet by hand: how many parameters, which cells are attended to, what a location sees, what is lost."""

import pytest
import torch

from stlib.batch import Batch, Shape, subset
from stlib.losses import mse, pearson_loss
from stlib.models import build, configure, magnet
from stlib.models.magnet import CrossAttention, around, touching

SMALL = {"encoder": "frozen", "width": 8, "heads": 2, "dropout": 0.0}


def line(n=12, per_cell=2):
    """Make a row of n bins, each joined to the next; two lie in a region cell, four in a global one."""
    torch.manual_seed(0)
    there = torch.arange(n - 1)
    batch = Batch(
        num_nodes=n, row=torch.arange(n), section=torch.zeros(n, dtype=torch.long),
        expression=torch.randn(n, 3), known=torch.zeros(n, dtype=torch.bool),
        relative=torch.randn(n, 5),
        edge_index=torch.cat([torch.stack([there, there + 1]), torch.stack([there + 1, there])], 1),
        edge_weight=torch.ones(2 * (n - 1)), across=torch.zeros(2 * (n - 1), dtype=torch.bool),
    )  # fmt: skip
    for level, size in (("region", per_cell), ("global", 2 * per_cell)):
        cells = n // size
        near = torch.tensor([(a, b) for a in range(cells) for b in range(cells) if 0 < abs(a - b) <= 2]).T
        batch[f"{level}_parent"] = torch.arange(n) // size
        batch[f"{level}_cell"] = torch.stack([torch.arange(cells), torch.zeros(cells, dtype=torch.long)], 1)
        batch[f"{level}_features"] = torch.randn(cells, 5)
        batch[f"{level}_expression"] = torch.randn(cells, 3)
        batch[f"{level}_edges"] = near  # as `grid_graph` gives them: also the next but one
    return batch


def small(name="magnet", **settings):
    """Make a model whose heads say something before they are trained."""
    torch.manual_seed(1)
    model = build(name, configure(name, "hd", **SMALL | settings), Shape(("A", "B", "C"), 5))
    for head in model.head.values():
        torch.nn.init.normal_(head.genes.weight)
    return model.eval()


# ---- size ----------------------------------------


def test_the_parameter_count_is_the_sum_of_the_docstring():
    """There is no honest reference: the released code counts 34 million parameters that have no effect."""
    d, features, rounds, layers, genes = 1024, 2048, 3, 1, 250
    config = configure("magnet", "hd", encoder="resnet50@untrained")
    assert (config.width, config.rounds, config.transformer_layers) == (d, rounds, layers)
    with torch.device("meta"):
        model = build("magnet", config, Shape(tuple(map(str, range(genes))), features))
    network = 23_508_032 + 2048 * d + d  # ResNet50 without its classifier
    cells = 2 * (features * d + d)
    attention, fusion = 2 * 3 * (d**2 + d), 3 * d**2 + d
    graphs = 3 * rounds * (2 * (d**2 + d) + 2 * d)
    tokens = 3 * rounds, rounds, rounds
    heads = sum(layers * (12 * d**2 + 13 * d) + t * d + t + 2 * d + d * genes + genes for t in tokens)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == network + cells + attention + fusion + graphs + heads
    assert f"{count:,}" in magnet.__doc__


@pytest.mark.parametrize(
    ("variant", "gone"),
    [
        ("no_gat", {"graph"}),
        ("no_multires", {"cell", "attend", "fuse"}),
        ("no_gat_multires", {"graph", "cell", "attend", "fuse"}),
        ("no_consistency", set()),
    ],
)
def test_a_variant_lacks_the_blocks_that_its_row_of_the_table_names(variant, gone):
    whole, part = (dict(small(name).named_children()) for name in ("magnet", f"magnet@{variant}"))
    assert whole.keys() - part.keys() == gone
    assert set(part["head"]) == ({"spot"} if "cell" in gone else {"spot", "region", "global"})


# ---- what is looked at ----------------------------------------


def test_cells_that_touch_share_a_side_or_a_corner():
    batch = Batch(
        region_cell=torch.tensor([[0, 0], [1, 1], [2, 0], [0, 2]]),
        region_edges=torch.tensor([[0, 0, 0, 1, 1], [1, 2, 3, 2, 3]]),
    )
    assert touching(batch, "region").tolist() == [[0, 1, 1], [1, 2, 3]]


def test_keys_are_the_own_cell_and_those_that_touch_it():
    edges = torch.tensor([[1, 0, 2, 1], [0, 1, 1, 2]])  # three cells in a row
    source, target = around(torch.tensor([1, 0, 1]), edges, 4)
    keys = {n: sorted(source[target == n].tolist()) for n in range(3)}
    assert keys == {0: [0, 1, 2], 1: [0, 1], 2: [0, 1, 2]}
    assert around(torch.tensor([3]), edges, 4).tolist() == [[3], [0]]  # a cell alone


def test_cross_attention_by_hand():
    attention = CrossAttention(2, 1, 0.0).eval()
    for layer in (attention.query, attention.key, attention.value):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x, cell = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    out = attention(x, cell, torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]]))
    share = torch.tensor([2 / 2**0.5, 0.0]).softmax(0)  # scores q . k / sqrt 2
    torch.testing.assert_close(out[0], share @ cell)
    torch.testing.assert_close(out[1], cell.mean(0))  # a query of zeros weighs all alike
    alone = attention(x, cell, torch.tensor([[1, 1], [0, 1]]))
    torch.testing.assert_close(alone, cell[[1, 1]])


@pytest.mark.parametrize(("name", "bins", "cells"), [("magnet", 3, 3), ("magnet@no_gat", 0, 1)])
@torch.no_grad()
def test_a_prediction_depends_on_what_lies_within_reach_alone(name, bins, cells):
    model, batch = small(name), line(24)
    assert model.reach(model.config) == (bins, cells)
    before = model.predict(batch)
    for place, changed in ((0, batch.relative), (0, batch.region_features)):
        changed = changed.clone()
        changed[place] += 1.0
        other = batch.clone()
        field = "relative" if len(changed) == 24 else "region_features"
        other[field] = changed
        moved = (model.predict(other) - before).abs().amax(1) > 1e-6
        # cells hold two bins: attention looks one cell far, from bins as far as graph attention looks
        furthest = bins if field == "relative" else max(2 * (1 + cells) - 1, 2 * (1 + 1) - 1 + bins)
        assert moved[: furthest + 1].all() and not moved[furthest + 1 :].any()


@torch.no_grad()
def test_every_level_and_the_neighbours_matter():
    model, batch = small(), line()
    before = model.predict(batch)
    for field in ("relative", "region_features", "global_features"):
        other = batch.clone()
        other[field] = batch[field].flip(0)
        assert (model.predict(other) - before).abs().max() > 1e-3
    lonely = batch.clone()
    lonely.edge_index = batch.edge_index[:, :0]
    assert (model.predict(lonely) - before).abs().max() > 1e-3
    without = small("magnet@no_multires").predict(batch)
    assert without.shape == before.shape


# ---- the loss ----------------------------------------


def test_the_loss_by_hand():
    model, batch = small(), line()
    out = {key: value.detach() for key, value in model(batch).items()}
    p, y = out["expression"], batch.expression
    expected = mse(p, y) + 0.8 * pearson_loss(p, y)
    for level in ("region", "global"):
        expected = expected + 0.25 * pearson_loss(out[level], batch[f"{level}_expression"])
        expected = expected + 0.25 * 0.1 * pearson_loss(p, out[level][batch[f"{level}_parent"]])
    torch.testing.assert_close(model.loss(batch, out), expected)
    other = small("magnet@no_consistency").loss(batch, out)
    levels = sum(pearson_loss(p, out[level][batch[f"{level}_parent"]]) for level in ("region", "global"))
    torch.testing.assert_close(other, expected - 0.025 * levels)
    alone = small("magnet@no_multires")
    torch.testing.assert_close(alone.loss(batch, {"expression": p}), mse(p, y) + 0.8 * pearson_loss(p, y))


def test_a_batch_of_a_part_of_the_slide_has_its_own_cells():
    part = subset(line(), torch.arange(4, 12))
    out = small()(part)
    assert out["expression"].shape == (8, 3) and len(out["region"]) == 4 and len(out["global"]) == 2


def test_the_learning_rate_falls_to_a_hundredth():
    model = small()
    assert model.rate(0.0) == 1.0 and model.rate(1.0) == pytest.approx(0.01)
    (group,) = model.optimiser().param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-4, 0.9, 1e-4)
