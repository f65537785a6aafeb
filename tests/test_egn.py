from dataclasses import replace

import pytest
import torch

from stlib.batch import Batch, Shape
from stlib.expression import top_mean_panel
from stlib.feed import Feed
from stlib.models import build, configure
from stlib.models.egn import CSRA, Bridge
from stlib.task import config_of

SMALL = {"patch_px": 8, "token_px": 4, "width": 8, "depth": 4, "heads": 2, "head_width": 4, "hidden": 8,
         "k": 3, "bridge_heads": 2, "bridge_width": 2, "score_width": 4}  # fmt: skip


def spots(n=12, patients=3, seed=0):
    """Return spots with 5 features and 4 genes."""
    draw = torch.Generator().manual_seed(seed)
    return Batch(
        num_nodes=n, row=torch.arange(n), patient=torch.arange(n) % patients,
        patch=torch.randint(256, (n, 3, 8, 8), generator=draw, dtype=torch.uint8),
        features=torch.randn(n, 5, generator=draw), expression=torch.randn(n, 4, generator=draw),
    )  # fmt: skip


def small(batch, **changes):
    torch.manual_seed(0)
    model = build("egn", configure("egn", "2d", **SMALL | changes), Shape(tuple("abcd"), 5))
    model.prepare([batch])
    return model


def test_parameter_count_is_that_of_the_released_code_without_its_dead_weights():
    with torch.device("meta"):
        config = configure("egn", "2d")
        model = build("egn", config, Shape(tuple(map(str, range(250))), 2048))
    dead = {
        "to_out of 4 bridges, Linear(512, 1024)": 4 * (512 * 1024 + 1024),
        "norm of the exemplars in the last bridge": 2 * 1024,
        "their half of its score, Linear(256, 1024)": 256 * 1024 + 1024,
        "position of a 65th token": 1024,
    }
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 130_989_306
    assert count + sum(dead.values()) == 133_356_794  # specification, sections 5 and 12


def test_a_gradient_reaches_every_parameter_of_four_blocks():
    """The toy's two blocks have one bridge, the last; here one hands its exemplars on."""
    batch = spots()
    model = small(batch)
    model.loss(batch, model(batch)).backward()
    assert all(p.grad is not None and p.grad.abs().any() for p in model.parameters())
    assert [block.bridge is not None for block in model.blocks] == [False, True, False, True]


def test_bridge_by_hand():
    bridge = Bridge(width=2, tokens=2, heads=1, head_width=2, score=3, last=False)
    for parameter in bridge.parameters():
        torch.nn.init.zeros_(parameter)
    for norm in (bridge.norm, bridge.gate[0], bridge.token[0]):
        torch.nn.init.ones_(norm.weight)
    for layer in (bridge.value, bridge.token[1], bridge.to_token, bridge.to_spot):
        torch.nn.init.eye_(layer.weight)
    bridge.gate[1].bias.data = torch.tensor([-100.0, 100.0])  # the first token is shut
    x = torch.tensor([[[3.0, 1.0], [-1.0, 5.0]]])  # normalised: [1, -1] and [-1, 1]
    q, k, s = torch.tensor([[10.0, 20.0]]), torch.zeros(1, 1, 2), torch.tensor([[[2.0, -2.0]]])
    x, q, k = bridge(x, q, k, s)
    torch.testing.assert_close(x, torch.tensor([[[3.0, 1.0], [-2.0, 6.0]]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        q, torch.tensor([[9.5, 20.5]]), atol=1e-4, rtol=0
    )  # mean of [0, 0] and [-1, 1]
    torch.testing.assert_close(
        k, torch.tensor([[[1.0, -1.0]]]), atol=1e-4, rtol=0
    )  # LN([0, 0] + [2, -2] / 2)


def test_the_gate_listens_to_the_mean_of_the_exemplars():
    """g = q + mean_j s_j / 2; the gate is its first channel, normalised."""
    bridge = Bridge(width=2, tokens=1, heads=1, head_width=2, score=3, last=True)
    for parameter in bridge.parameters():
        torch.nn.init.zeros_(parameter)
    for norm in (bridge.gate[0], bridge.token[0]):
        torch.nn.init.ones_(norm.weight)
    for layer in (bridge.value, bridge.token[1], bridge.to_token):
        torch.nn.init.eye_(layer.weight)
    bridge.gate[1].weight.data = torch.tensor([[100.0, 0.0]])
    x, q, k = torch.tensor([[[3.0, 1.0]]]), torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2, 2)
    shut, _, _ = bridge(x, q, k, torch.tensor([[[4.0, 0.0], [-4.0, 0.0]]]))  # g = [0, 1]
    open_, _, _ = bridge(x, q, k, torch.tensor([[[4.0, 0.0], [4.0, 0.0]]]))  # g = [2, 1]
    torch.testing.assert_close(shut, x, atol=1e-4, rtol=0)
    torch.testing.assert_close(open_, torch.tensor([[[4.0, 0.0]]]), atol=1e-4, rtol=0)


def test_the_score_is_of_spot_less_exemplar_and_exemplar():
    """With sigmoid(SiLU(100 (q - k) - 100 k)): half where q = 2 k, all where q is larger."""
    bridge = Bridge(width=1, tokens=1, heads=1, head_width=1, score=1, last=True)
    for parameter in bridge.parameters():
        torch.nn.init.zeros_(parameter)
    bridge.score[0].weight.data = torch.tensor([[100.0, -100.0]])
    bridge.value.bias.data.fill_(1.0)
    torch.nn.init.ones_(bridge.score[2].weight)
    seen = []
    bridge.gate.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].item()))
    for q, k in ((4.0, 2.0), (4.0, 1.0), (5.0, 2.0)):
        bridge(torch.zeros(1, 1, 1), torch.tensor([[q]]), torch.tensor([[[k]]]), torch.zeros(1, 1, 1))
    assert seen == pytest.approx([4.5, 5.0, 6.0])


def test_the_position_is_added_again_before_attention():
    block = small(spots()).blocks[0]
    seen = []
    block.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x, position = torch.randn(2, 4, 8), torch.randn(4, 8)
    block(x, position, *torch.zeros(3, 1))
    assert seen[0].equal(x + position)


def test_pooling_by_hand():
    pool = CSRA(1)
    torch.nn.init.ones_(pool.score.weight)
    torch.nn.init.zeros_(pool.score.bias)
    found = pool(torch.tensor([[[0.0], [10.0]]]))
    assert found.item() == pytest.approx(5 + 0.5 * 7.310586)  # 10 sigmoid(0.1 * 10)


def test_exemplars_of_the_toy_are_of_other_patients(toy, toy_sections):
    names = [name for stack in toy.sections.values() for name in stack]
    panel = top_mean_panel(toy_sections.values(), toy.panel.size)
    config = config_of(toy, "egn", "2d")
    feed = Feed(
        toy, toy_sections, panel, replace(config, batch_size=4096), unit="spot",
        needs=frozenset({"features"}), protocol="2d",
    )  # fmt: skip
    model = build("egn", config, feed.shape)
    model.prepare(feed.whole(names))
    (batch,) = feed.whole(names)
    rows = model.bank.search(model.scale(batch.features), config.k, batch.patient)
    assert (model.bank.patient[rows] != batch.patient[:, None]).all()  # so never of the own section
    assert len(model.bank.patient) == len(batch.row)  # all could have been found


def test_labels_of_the_own_patient_cannot_matter_but_those_of_others_do():
    batch = spots()
    model = small(batch, k=5).eval()
    before = model.predict(batch)
    model.bank.expression[model.bank.patient == 0] += 5
    after = model.predict(batch)
    own = batch.patient == 0
    assert after[own].equal(before[own])
    assert (after[~own] != before[~own]).any(1).all()  # 5 of 4 + 4 others: one is of patient 0


def test_order_of_the_exemplars_does_not_matter():
    batch = spots()
    model = small(batch).eval()
    before = model.predict(batch)
    search = model.bank.search
    model.bank.search = lambda *args: search(*args).flip(1)
    torch.testing.assert_close(model.predict(batch), before)


def test_features_of_any_scale_count_alike():
    batch, scaled = spots(), spots()
    scaled.features = scaled.features * torch.tensor([1e3, 1.0, 1e-3, 1.0, 1.0]) + 7
    torch.testing.assert_close(small(scaled)(scaled), small(batch)(batch), atol=1e-3, rtol=1e-3)


def test_the_head_starts_at_the_mean_label():
    batch = spots()
    batch.expression = batch.expression - 6
    torch.testing.assert_close(small(batch).head.bias.data, batch.expression.mean(0))


def test_a_patch_is_whole_tokens():
    with pytest.raises(ValueError, match="patch_px 8 and token_px 3; make patch_px a multiple"):
        small(spots(), token_px=3)


def test_the_rate_falls_to_a_fifth():
    model = small(spots())
    assert model.rate(0) == pytest.approx(1) and model.rate(1) == pytest.approx(0.2)
