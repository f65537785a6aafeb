import pytest
import torch
from torch.nn.functional import avg_pool2d, layer_norm

from stlib.batch import Batch, Shape
from stlib.layers import Pixels
from stlib.models import build, configure

SMALL = {"patch_px": 8, "width": 16, "heads": 2, "head_width": 4, "hidden": 16}


def shape(genes, positions=0):
    return Shape(tuple(f"GENE{index}" for index in range(genes)), 0, positions)


def model(depth=1, positions=0, genes=3):
    torch.manual_seed(0)
    config = configure("histogene", "2d", **SMALL, depth=depth)
    return build("histogene", config, shape(genes, positions)).eval()


def section(array, px=8):
    generator = torch.Generator().manual_seed(1)
    patch = torch.randint(256, (len(array), 3, px, px), generator=generator, dtype=torch.uint8)
    return Batch(num_nodes=len(array), patch=patch, array=torch.tensor(array, dtype=torch.float64))


def test_parameter_count():
    with torch.device("meta"):
        full = build("histogene", configure("histogene", "2d"), shape(785, 64))
        half = build("histogene", configure("histogene", "2d", depth=4), shape(250, 64))
    assert sum(p.numel() for p in full.parameters()) == 106_648_337  # specification, section 12
    assert round(sum(p.numel() for p in half.parameters()) / 1e6, 1) == 72.5  # section 3


@torch.no_grad()
def test_without_blocks_the_equation_by_hand():
    net, batch = model(depth=0), section([[3, 5], [4.4, 1.6]], px=16)
    pixels = avg_pool2d(Pixels()(batch.patch), 2).flatten(1)  # 16 px averaged to 8
    z = pixels @ net.patch.weight.T + net.patch.bias
    z = z + net.position.column.weight[[3, 4]] + net.position.row.weight[[5, 2]]
    expected = layer_norm(z, (16,)) @ net.head.weight.T + net.head.bias
    torch.testing.assert_close(net(batch)["expression"], expected)


@torch.no_grad()
@pytest.mark.parametrize("depth", [0, 1])
def test_spots_see_each_other_through_the_blocks_alone(depth):
    net, batch = model(depth), section([[0, 0], [1, 0], [2, 0]])
    other = batch.clone()
    other.patch = batch.patch.clone()
    other.patch[0] = 255 - other.patch[0]
    changed = (net(other)["expression"] - net(batch)["expression"]).abs().amax(1) > 1e-6
    assert changed.tolist() == [True, depth > 0, depth > 0]


def test_the_array_may_be_larger_than_64():
    batch = section([[0, 0], [100, 70]])
    assert model(positions=101)(batch)["expression"].isfinite().all()
    with pytest.raises(ValueError, match="from 0 to 63, found 0 to 100"):
        model()(batch)


def test_it_starts_at_the_mean_label():
    net = model()
    net.prepare(
        Batch(num_nodes=len(labels), expression=torch.tensor(labels))
        for labels in ([[1.0, 2.0, 3.0]], [[2.0, 4.0, 6.0], [3.0, 6.0, 9.0]])
    )
    assert net.head.bias.tolist() == [2, 4, 6]


def test_optimiser_is_that_of_the_paper():
    net = model()
    (group,) = net.optimiser().param_groups
    assert isinstance(net.optimiser(), torch.optim.Adam) and group["lr"] == 1e-5
    assert group["weight_decay"] == 0 and {net.rate(p / 10) for p in range(11)} == {1.0}
