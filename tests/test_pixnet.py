"""PixNet by hand: parameters, which map meets which, what an aggregate is, and what the loss looks at."""

import pytest
import torch
from torch import nn

from stlib.batch import Batch, Shape
from stlib.encoders import backbone
from stlib.losses import mse, pearson_loss_per_gene
from stlib.models import build, configure
from stlib.models.pixnet import Quarters, Stage, Stages

GENES = Shape(("A", "B", "C"))


def small(name="pixnet", **changes):
    torch.manual_seed(0)
    settings = {"encoder": "test_resnet@untrained", "hidden": 8} | changes
    return build(name, configure(name, "2d", **settings), GENES)


@pytest.mark.parametrize(
    ("name", "total", "decoder"), [("pixnet", 16_016_061, 4_823_299), ("pixnet@wide", 28_847_933, 17_543_171)]
)
def test_parameter_counts(name, total, decoder):
    """Specification, section 1.4: readings B and A at 250 genes; the encoder has 11,176,512."""
    with torch.device("meta"):
        config = configure(name, "2d", encoder="ciga_resnet18@untrained")
        model = build(name, config, Shape(tuple(map(str, range(250)))))

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert (count(model), count(model.dense.decoder)) == (total, decoder)
    assert count(model.dense.encoder) == 11_176_512


def test_a_stage_by_hand():
    stage = Stage(below=2, skip=1, width=1, hidden=1)
    assert stage.delta.item() == 1 and isinstance(stage.lateral, nn.Identity)
    stage.dffn = nn.Identity()
    stage.deconvolution.weight.data = torch.tensor([[[[1.0, 2], [3, 4]]], [[[10.0, 20], [30, 40]]]])
    stage.deconvolution.bias.data.zero_()
    stage.delta.data.fill_(0.5)
    below = torch.tensor([[[[1.0]], [[1.0]]]])
    out = stage(below, torch.full((1, 1, 2, 2), 100.0))
    assert out.ravel().tolist() == [61, 72, 83, 94]  # 11, 22, 33, 44 and half of 100


def test_the_map_has_a_cell_for_four_pixels():
    model = small().eval()
    window = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    cells = model.dense(window)
    assert cells.shape == (2, model.dense.width, 16, 24)
    wide = small("pixnet@wide").dense
    assert wide(window).shape == (2, 8, 16, 24)


def batch(n=6, windows=1, pixels=(4, 4, 2, 1, 9, 5)):
    torch.manual_seed(1)
    pool = torch.zeros(n, windows * 64)
    pool[torch.arange(n), torch.arange(n)] = torch.tensor(pixels, dtype=torch.float32)[:n]  # one cell each
    return Batch(
        num_nodes=n, row=torch.arange(n), pixels=torch.tensor(pixels)[:n], pool=pool.to_sparse(),
        size_um=torch.tensor([2.0, 2.0, 2.0, 8.0, 8.0, 8.0])[:n], expression=torch.randn(n, 3),
        window=torch.randint(0, 256, (windows, 3, 32, 32), dtype=torch.uint8),
    )  # fmt: skip


@pytest.mark.parametrize("aggregate", ["mean", "sum", "sum_scaled", "rate"])
def test_aggregates_by_hand(aggregate):
    """A location of one cell and a pixels: its expression, a times as much, a / A, or its log-softmax."""
    model, made = small(aggregate=aggregate).eval(), batch()
    model.prepare([made])
    assert model.area.item() == 4.0  # lower median of 1, 2, 4, 4, 5, 9
    cells = model.dense(made.window).flatten(2)[0].T[:6]  # (6, C)
    genes = nn.functional.linear(cells, model.head.weight, model.head.bias)
    a = made.pixels[:, None]
    wanted = {"mean": genes, "sum": a * genes, "sum_scaled": a / 4 * genes, "rate": genes.log_softmax(1)}
    torch.testing.assert_close(model(made)["expression"], wanted[aggregate])
    bias = made.expression.mean(0) / (4 if aggregate == "sum" else 1)
    torch.testing.assert_close(model.head.bias.data, bias)


def test_the_loss_correlates_locations_of_each_size_for_themselves():
    model, made = small(), batch()
    out = {"expression": torch.randn(6, 3)}
    terms = [
        pearson_loss_per_gene(out["expression"][rows], made.expression[rows])
        for rows in ([0, 1, 2], [3, 4, 5])
    ]
    wanted = mse(out["expression"], made.expression) + 0.5 * (terms[0] + terms[1]) / 2
    torch.testing.assert_close(model.loss(made, out), wanted)
    shifted = {"expression": out["expression"] + made.size_um[:, None]}
    less = mse(shifted["expression"], made.expression)
    torch.testing.assert_close(
        model.loss(made, shifted) - less, wanted - mse(out["expression"], made.expression)
    )


def test_training_is_that_of_the_paper():
    config = configure("pixnet", "2d")
    assert (config.epochs, config.pearson, config.hidden, config.aggregate) == (500, 0.5, 512, "mean")
    (group,) = small().optimiser().param_groups
    assert (group["lr"], group["weight_decay"]) == (5e-4, 1e-4)
    assert isinstance(small().optimiser(), torch.optim.Adam)


def test_statistics_of_the_encoder_stay_while_the_decoder_learns_its_own():
    model, made = small().train(), batch()
    before = {key: value.clone() for key, value in model.named_buffers() if "running" in key}
    model(made)
    moved = {
        key for key, value in model.named_buffers() if key in before and not torch.equal(value, before[key])
    }
    assert moved == {key for key in before if key.startswith("dense.decoder")}


def test_a_transformer_sees_blocks():
    """What a block holds changes its own cells alone, before the decoder; and maps have the four strides."""
    torch.manual_seed(0)
    encoder = Quarters(backbone("test_vit@untrained")).eval()
    assert encoder.step == 160 and encoder.indices == [0, 2, 3, 5]
    pixels = torch.randn(1, 3, 160, 320)
    maps = encoder(pixels)
    assert [tuple(found.shape) for found in maps] == [
        (1, width, 160 // stride, 320 // stride)
        for width, stride in zip(encoder.widths, (4, 8, 16, 32), strict=True)
    ]
    pixels[..., :160] += 1
    for before, after in zip(maps, encoder(pixels), strict=True):
        half = before.shape[3] // 2
        assert not torch.allclose(before[..., :half], after[..., :half])
        torch.testing.assert_close(before[..., half:], after[..., half:])
    alone = encoder(pixels[..., 160:])
    torch.testing.assert_close(alone[0], maps[0][..., 40:])


def test_every_weight_of_a_transformer_learns():
    model, made = small(encoder="test_vit@untrained").train(), batch(windows=1)
    made.window = torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8)
    made.pool = torch.rand(6, 1600).to_sparse()
    model.loss(made, model(made)).backward()
    assert [
        key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()
    ] == []


@pytest.mark.parametrize("encoder", ["vit_tiny_patch16_384", "lcnet_035", "convnext_atto"])
def test_encoders_with_a_pyramid(encoder):
    with torch.device("meta"):
        build("pixnet", configure("pixnet", "2d", encoder=f"{encoder}@untrained"), GENES)


def test_encoders_without_one_are_named():
    with torch.device("meta"), pytest.raises(ValueError, match="patches of 16 px .* found patches of 14 px"):
        config = configure("pixnet", "2d", encoder="vit_small_patch14_reg4_dinov2@untrained")
        build("pixnet", config, GENES)
    network = nn.Identity()
    network.feature_info = [{"num_chs": 8, "reduction": 2}, {"num_chs": 8, "reduction": 8}]
    with pytest.raises(ValueError, match=r"maps at strides \(4, 8, 16, 32\), found \[2, 8\]"):
        Stages(network)
