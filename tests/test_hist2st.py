from dataclasses import replace

import pytest
import torch

from stlib.batch import Batch, Shape
from stlib.losses import zinb_nll
from stlib.models import build, configure, hist2st, method
from stlib.models.hist2st import GraphMean, MixerBlock, altered, neighbours, size_factor

SMALL = {
    "patch_px": 8, "kernel": 2, "channels": 8, "mixer_depth": 1, "depth": 1, "graph_depth": 2, "heads": 2,
    "head_width": 4, "views": 2,
}  # fmt: skip


def shape(genes, positions=0):
    return Shape(tuple(f"GENE{index}" for index in range(genes)), 0, positions)


def model(**changes):
    torch.manual_seed(0)
    config = configure("hist2st", "2d", **{**SMALL, **changes})
    return build("hist2st", config, shape(3)).eval()


def section(array):
    n, generator = len(array), torch.Generator().manual_seed(1)
    return Batch(
        num_nodes=n, array=torch.tensor(array, dtype=torch.float64), row=torch.arange(n),
        patch=torch.randint(256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8),
        counts=torch.randint(9, (n, 3), generator=generator).float(),
        expression=torch.randn(n, 3, generator=generator),
    )  # fmt: skip


def test_parameter_count():
    def count(genes, **changes):
        with torch.device("meta"):
            net = build("hist2st", configure("hist2st", "2d", **changes), shape(genes, 64))
        return sum(parameter.numel() for parameter in net.parameters())

    before_batchnorm = 2 * 2 * 32  # biases of the depthwise convolutions: BatchNorm takes them out
    of_view = 1  # bias of a view's weight: the softmax takes it out
    assert count(785) == 75_789_833 - before_batchnorm - of_view  # specification, section 12
    assert round(count(250, patch_px=224, kernel=14) / 1e6, 2) == 73.61  # section 4
    assert configure("hist2st", "2d", patch_px=224).width == 4096


# ---- the graph ---------------------------------------------------------------------------------------------


def incoming(edges, node):
    return sorted(edges[0, edges[1] == node].tolist())


def test_neighbours_by_hand():
    #  0 1 2     a row of three, one below the middle, one above it, one 1.5 further right, one far away
    array = [[4, 4], [5, 4], [6, 4], [5, 5], [5, 3], [7.5, 4], [20, 4]]
    edges = neighbours(section(array), k=4, reach=2.0)
    assert incoming(edges, 1) == [0, 1, 2, 3, 4]
    assert incoming(edges, 0) == [0, 1, 2, 3, 4]  # 1, sqrt(2) twice and 2
    assert incoming(edges, 5) == [2, 5]  # 1 is 2.5 away
    assert incoming(edges, 6) == [6]
    assert incoming(neighbours(section(array), k=4, reach=3.0), 5) == [1, 2, 3, 4, 5]


def test_a_tie_does_not_depend_on_the_order_of_a_batch():
    batch = section([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    assert incoming(neighbours(batch, k=2, reach=2.0), 0) == [0, 1, 2]
    mixed = Batch(num_nodes=5, array=batch.array.flip(0), row=batch.row.flip(0))
    assert incoming(neighbours(mixed, k=2, reach=2.0), 4) == [2, 3, 4]  # the same three


def test_graph_mean_by_hand():
    layer = GraphMean(2)
    layer.linear.weight.data = torch.eye(2)
    h = torch.tensor([[6.0, 0.0], [0.0, 8.0], [-1.0, -2.0], [1.0, 1.0]])
    edges = torch.tensor([[0, 0, 1, 2, 3], [0, 1, 1, 2, 3]])  # 1 hears 0; each hears itself
    expected = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0], [0.5**0.5, 0.5**0.5]])  # (3, 4) / 5
    torch.testing.assert_close(layer(h, edges), expected)


def changed_by_the_first(net, batch):
    other = batch.clone()
    other.patch = batch.patch.clone()
    other.patch[0] = 255 - other.patch[0]
    with torch.no_grad():
        return ((net(other)["expression"] - net(batch)["expression"]).abs().amax(1) > 1e-7).tolist()


def test_isolated_nodes_are_finite_and_see_themselves_alone():
    """The LSTM runs over the rounds of the graph: along the spots, every later one would change."""
    net, batch = model(depth=0), section([[0, 0], [30, 0], [60, 0]])
    assert net(batch)["expression"].isfinite().all()
    assert changed_by_the_first(net, batch) == [True, False, False]
    net.train()
    loss = net.loss(batch, net(batch))
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_each_round_of_the_graph_reaches_one_step_further():
    batch = section([[1.5 * step, 0] for step in range(5)])
    assert changed_by_the_first(model(depth=0), batch) == [True, True, True, False, False]
    assert changed_by_the_first(model(depth=1), batch) == [True] * 5  # attention reaches all


# ---- the loss ----------------------------------------------------------------------------------------------


def test_size_factor_by_hand():
    counts = torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 12.0]])
    assert size_factor(counts).ravel().tolist() == [0.5, 1, 3]
    assert size_factor(torch.zeros(3, 2)).ravel().tolist() == [0, 0, 0]


def test_loss_by_hand():
    net, batch = model(), section([[0, 0], [1, 0]])
    batch.expression, batch.counts = torch.zeros(2, 3), torch.tensor([[0.0, 1.0, 1.0], [0.0, 2.0, 4.0]])
    ones = torch.ones(2, 3)
    out = {
        "expression": 2 * ones,
        "distilled": 5 * ones,
        "mean": 3 * ones,
        "dispersion": ones,
        "dropout": 0.1 * ones,
    }
    scaled = torch.tensor([[3.0], [9.0]]) * ones  # depths 2 and 6; torch's median of two is the smaller
    nll = zinb_nll(batch.counts, scaled, ones, 0.1 * ones)
    torch.testing.assert_close(net.loss(batch, out), 4 + 0.25 * nll + 0.5 * 9)


def test_equal_views_distil_to_the_prediction(monkeypatch):
    """The weights of the views sum to one, and the views pass through the same network."""
    monkeypatch.setattr(hist2st, "altered", lambda patch: patch)
    net, batch = model(dropout=0.0).train(), section([[0, 0], [1, 0], [0, 1]])
    out = net(batch)
    torch.testing.assert_close(out["distilled"], out["expression"])
    net.zero_grad()
    ((out["distilled"] - 1) ** 2).mean().backward()
    assert net.expression[1].weight.grad.abs().sum() > 0  # no stop-gradient


def test_without_counts_or_views_there_are_no_weights_for_them():
    config = configure("hist2st", "2d", **SMALL)
    assert method("hist2st").needs(config) == {"patch", "counts"}
    assert method("hist2st").needs(replace(config, zinb=0.0)) == {"patch"}
    net, batch = model(zinb=0.0, views=0).train(), section([[0, 0], [1, 0]])
    del batch["counts"]
    net.prepare([batch])
    out = net(batch)
    assert set(out) == {"expression"} and not hasattr(net, "count") and not hasattr(net, "weigh")
    torch.testing.assert_close(net.loss(batch, out), ((out["expression"] - batch.expression) ** 2).mean())


def test_it_starts_at_the_mean_label_and_the_mean_count():
    net, batch = model(), section([[0, 0], [1, 0]])
    batch.expression = torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    batch.counts = torch.tensor([[0.0, 1.0, 1.0], [0.0, 2.0, 4.0]])  # size factors 1 and 3
    net.prepare([batch])
    assert net.expression[1].bias.tolist() == [2, 3, 4]
    expected = torch.tensor([1e-5, (1 + 2) / (1 + 3), (1 + 4) / (1 + 3)]).log()
    torch.testing.assert_close(net.count["mean"].bias, expected)


def test_learning_rate_falls_by_a_tenth_every_50_epochs():
    net = model()
    (group,) = net.optimiser().param_groups
    assert isinstance(net.optimiser(), torch.optim.Adam) and group["lr"] == 1e-5
    factors = [net.rate(epoch / 350) for epoch in range(350)]
    assert factors[:50] == [1.0] * 50 and factors[50:100] == [0.9] * 50
    assert factors[349] == pytest.approx(0.9**6)


# ---- patches -----------------------------------------------------------------------------------------------


def test_a_dead_mixer_block_hands_on_its_input():
    """GELU(0) = 0: what remains is channels(0 + x)."""
    block = MixerBlock(2, 3).eval()
    for layer in block.pixels:
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data.zero_()
    x = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(block(x), block.channels(x))


def test_views_are_turned_by_up_to_90_degrees_and_one_in_five_is_mirrored():
    """A dark dot right of the centre stays in the right half, unless its patch is mirrored."""
    torch.manual_seed(0)
    patch = torch.full((2000, 3, 16, 16), 255.0)
    patch[:, :, 7:9, 12:14] = 0  # 5 px right of the centre
    view = altered(patch)
    assert view.min() > -0.01 and view.max() < 255.01  # corners are white, not black
    dark, place = (255 - view).mean(1), torch.arange(16.0) - 7.5
    dark = dark / dark.sum((1, 2), keepdim=True)
    x, y = (dark.sum(1) * place).sum(1), (dark.sum(2) * place).sum(1)
    torch.testing.assert_close(x.hypot(y), torch.full_like(x, 5), atol=0.2, rtol=0)
    assert (x < 0).float().mean().item() == pytest.approx(0.2, abs=0.03)
    angle = torch.atan2(y, x.abs()) / (torch.pi / 2)  # uniform from -1 to 1
    assert angle.mean().item() == pytest.approx(0, abs=0.05)
    assert angle.var().item() == pytest.approx(1 / 3, abs=0.03)


def test_one_view_in_ten_has_no_colour():
    torch.manual_seed(0)
    patch = torch.tensor([200.0, 100.0, 50.0]).view(1, 3, 1, 1).expand(2000, 3, 9, 9)
    centre = altered(patch)[:, :, 4, 4]
    grey = (centre == centre[:, :1]).all(1)
    assert grey.float().mean().item() == pytest.approx(0.1, abs=0.02)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    torch.testing.assert_close(centre[grey], torch.full((int(grey.sum()), 3), luma))
    torch.testing.assert_close(centre[~grey], patch[~grey, :, 4, 4])


def test_a_location_without_counts_of_the_panel_leaves_all_finite():
    net, batch = model(), section([[0, 0], [1, 0], [2, 0]])
    batch.counts[0] = 0
    net.prepare([batch])
    assert net.count["mean"].bias.isfinite().all()
    net.train()
    assert net.loss(batch, net(batch)).isfinite()
