"""The contract of design.md, over every file in stlib/models/ and its variants.

A new method is tested the moment it exists.
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from stlib.batch import SPOT_FIELDS, Batch, Shape, hide, subset
from stlib.checkpoint import load_checkpoint, save_checkpoint
from stlib.expression import top_mean_panel
from stlib.feed import Feed
from stlib.losses import seen
from stlib.models import Method, build, configure, method, names, trainable
from stlib.task import FED, config_of

CASES = [
    (name + suffix, protocol)
    for name in names()
    for protocol in method(name).PROTOCOLS
    if protocol != "hd"  # its batches have the fields of 2d
    for suffix in ("", *(f"@{variant}" for variant in method(name).VARIANTS))
]
SMALL = {"encoder": "test_resnet@untrained"}
FETCHED = ("bleep@resnet50", "magnet@uni", "pixnet@resnet18", "pixnet@vit", "pixnet@uni")
VARIANT = dict.fromkeys(FETCHED, SMALL)  # their networks are not fetched for a test
BY_HEART = {  # the mean of more than one spot is not the spot; a whole slide at each step, so a coarse one
    "bleep": {"k": 1},
    "pixnet": {"halvings": 3},
}
OTHER = "P2-1"  # who retrieves, retrieves from another patient
every_model = pytest.mark.parametrize(("name", "protocol"), CASES, ids=lambda value: value)


@pytest.fixture(scope="module")
def feed_for(toy, toy_sections):
    """Make a feed of one stack, of which the first section is known, and of a section of another patient."""
    sections = {name: toy_sections[name] for name in (*toy.sections["P1"], OTHER)}
    panel = top_mean_panel(toy_sections.values(), toy.panel.size)

    def make(name, protocol, **changes):
        config = replace(config_of(toy, name, protocol), **VARIANT.get(name, {}), **changes)
        kind = method(name)
        return config, Feed(
            toy, sections, panel, unit=kind.UNIT, needs=kind.needs(config), protocol=protocol,
            **{name: getattr(config, name) for name in FED},
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def prepared(feed_for, toy):
    """Return (model, feed) prepared on the stack and the other section, made once per case."""
    made = {}

    def make(name, protocol):
        if (name, protocol) not in made:
            torch.manual_seed(0)
            config, feed = feed_for(name, protocol)
            model = build(name, config, feed.shape)
            model.prepare(feed.whole((*toy.sections["P1"], OTHER)))
            made[name, protocol] = model.eval(), feed
        return made[name, protocol]

    return make


def shape(genes, features=0, positions=64):
    return Shape(tuple(f"GENE{index}" for index in range(genes)), features, positions)


def one_batch(feed, toy, protocol) -> Batch:
    known = toy.sections["P1"][:1] if protocol == "3d" else ()
    return next(iter(feed.whole(toy.sections["P1"], known=known)))


def first_spots(feed, section) -> Batch:
    """Return 24 spots: few enough that features alone can tell them apart."""
    return part_of(next(iter(feed.whole([section]))), torch.arange(24))


def part_of(batch, rows) -> Batch:
    """Return some spots of a batch with their patches."""
    few = subset(batch, rows)
    if "patch" in batch:
        few.patch = batch.patch[rows]
    return few


@torch.no_grad()
def predicted(model, batch):
    return model.predict(batch.clone())


@every_model
def test_shapes_are_those_of_the_docstring(prepared, toy, name, protocol):
    model, feed = prepared(name, protocol)
    batch = one_batch(feed, toy, protocol)
    out = model(batch)
    assert out["expression"].shape == (len(batch.row), toy.panel.size)
    assert out["expression"].dtype == torch.float32 and out["expression"].isfinite().all()
    for level in out.keys() & {"region", "global"}:
        assert out[level].shape == batch[f"{level}_expression"].shape


@every_model
def test_order_of_locations_does_not_matter(prepared, toy, name, protocol):
    model, feed = prepared(name, protocol)
    if name == "oracle":
        pytest.skip("draws from one stream of numbers; it converges, it is not exact")
    batch = one_batch(feed, toy, protocol)
    order = torch.randperm(len(batch.row), generator=torch.Generator().manual_seed(1))
    mixed, place = batch.clone(), order.argsort()
    for key in (*SPOT_FIELDS, "patch"):
        if key in batch:
            mixed[key] = batch[key][order]
    if "edge_index" in batch:
        mixed.edge_index = place[batch.edge_index]
    if "tiles" in batch:
        mixed.tiles = batch.tiles.take(order)
    torch.testing.assert_close(predicted(model, mixed), predicted(model, batch)[order], atol=2e-4, rtol=1e-3)


@every_model
def test_hidden_labels_cannot_matter(prepared, toy, name, protocol):
    model, feed = prepared(name, protocol)
    batch = one_batch(feed, toy, protocol)
    hidden = batch.clone()
    for key in ("expression", "depth", "counts", "region_expression", "global_expression"):
        if key in batch:
            rows = ~batch.known if key in ("expression", "depth", "counts") else slice(None)
            hidden[key] = batch[key].clone()
            hidden[key][rows] = torch.nan
    torch.testing.assert_close(predicted(model, hidden), predicted(model, batch), atol=0, rtol=0)


@every_model
def test_saved_and_loaded_agree(prepared, toy, tmp_path, name, protocol):
    model, feed = prepared(name, protocol)
    save_checkpoint(tmp_path / "c.safetensors", model, None, {"model": name})
    torch.manual_seed(5)
    again = build(name, model.config, model.shape)  # not prepared, as when a training is resumed
    load_checkpoint(tmp_path / "c.safetensors", again, None, name)
    batch = one_batch(feed, toy, protocol)
    torch.testing.assert_close(predicted(again.eval(), batch), predicted(model, batch), atol=0, rtol=0)


TRAINED = [case for case in CASES if method(case[0]).loss is not Method.loss]
trained_model = pytest.mark.parametrize(("name", "protocol"), TRAINED, ids=lambda value: value)


@trained_model
def test_a_gradient_reaches_every_parameter(feed_for, toy, name, protocol):
    if name == "asign@no_network":
        pytest.skip("its network predicts spots only where no label is known")
    torch.manual_seed(0)
    config, feed = feed_for(name, protocol)
    model = build(name, config, feed.shape)
    assert trainable(model)
    model.prepare(feed.whole((*toy.sections["P1"], OTHER)))
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    reached = set()
    for batch in [*feed.training(toy.sections["P1"], generator)][:4]:  # heads may start at zero
        optimiser.zero_grad()
        loss = model.loss(batch, model(batch))
        assert loss.isfinite()
        loss.backward()
        reached |= {
            key
            for key, value in model.named_parameters()
            if value.grad is not None and value.grad.abs().any()
        }
        optimiser.step()
    assert {key for key, _ in model.named_parameters()} == reached


@trained_model
@pytest.mark.parametrize("share", ["half", "all"])
def test_locations_without_a_label_teach_nothing(feed_for, toy, name, protocol, share):
    """What `prepare` keeps is that of the others, and the loss and its gradients are finite."""
    torch.manual_seed(0)
    config, feed = feed_for(name, protocol)
    model = build(name, config, feed.shape)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.prepare(hide(batch, batch.row % 2 == 0) for batch in feed.whole((*toy.sections["P1"], OTHER)))
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert before.keys() == model.state_dict().keys()
    batch = next(feed.training(toy.sections["P1"], torch.Generator().manual_seed(0)))
    batch = hide(batch, batch.row % 2 == 0 if share == "half" else batch.row >= 0)
    batch.known &= seen(batch.expression)
    loss = model.train().loss(batch, model(batch))
    loss.backward()
    assert loss.isfinite()
    assert all(value.grad is None or value.grad.isfinite().all() for value in model.parameters())


@every_model
def test_what_is_prepared_comes_from_labelled_locations_alone(feed_for, toy, name, protocol):
    """A section whose every other spot is hidden prepares what a section of the labelled spots does."""
    config, feed = feed_for(name, protocol)
    prepared = []
    for cut in (
        lambda batch, rows: hide(batch, ~rows),
        lambda batch, rows: part_of(batch, rows.nonzero().ravel()),
    ):
        torch.manual_seed(0)
        model = build(name, config, feed.shape)
        model.prepare(cut(batch, batch.row % 2 == 0) for batch in feed.whole((*toy.sections["P1"], OTHER)))
        prepared.append(model.state_dict())
    for key, value in prepared[0].items():
        if not key.startswith(
            ("head.region", "head.global")
        ):  # cells that hold a hidden spot are hidden, too
            torch.testing.assert_close(value, prepared[1][key], msg=key)


@trained_model
def test_bfloat16_changes_a_prediction_by_its_rounding_alone(prepared, toy, name, protocol):
    """Under autocast, as the loop runs it: with heads in bfloat16, labels near -6 have steps of 0.03."""
    model, feed = prepared(name, protocol)
    batch = one_batch(feed, toy, protocol)
    with torch.autocast("cpu", torch.bfloat16):
        half = predicted(model, batch)
    assert half.dtype == torch.float32 and half.isfinite().all()
    on_a_grid = (half == half.bfloat16().float()).float().mean()
    assert on_a_grid < 0.2
    assert (half - predicted(model, batch)).abs().mean() < 0.1


@trained_model
def test_one_section_can_be_learned_by_heart(feed_for, toy, name, protocol):
    """Within 200 steps the training error falls below 10 % of the labels' variance around a gene's mean."""
    if "@" in name:
        pytest.skip("the variants share the method's layers")
    torch.manual_seed(0)
    changes = (
        {"dropout": 0.0}
        if "dropout" in {f.name for f in method(name).Config.__dataclass_fields__.values()}
        else {}
    )
    config, feed = feed_for(name, protocol, **changes, **BY_HEART.get(name, {}))
    model = build(name, config, feed.shape)
    small = first_spots(feed, toy.sections["P1"][0])
    model.prepare([small, first_spots(feed, OTHER)])
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(200):
        optimiser.zero_grad()
        model.loss(small, model(small)).backward()
        optimiser.step()
    error = float(((model(small)["expression"] - small.expression) ** 2).mean().detach())
    variance = float(small.expression.var(0, unbiased=False).mean())
    assert error < 0.1 * variance


def test_parameter_count_of_stnet():
    model = build("stnet", configure("stnet", "2d", encoder="densenet121@untrained"), shape(250))
    assert (
        sum(parameter.numel() for parameter in model.parameters()) == 7_210_106
    )  # specification, section 12


def test_every_method_has_the_variant_without_its_images():
    assert configure("stnet@permuted", "2d").permuted and not configure("stnet", "2d").permuted
    assert configure("mean@permuted", "3d", frozen="stain").frozen == "stain"


def test_names_are_checked():
    method("nearest")  # a module of that name, once imported, is an attribute of the package
    with pytest.raises(ValueError, match="model 'asing' is no file of stlib/models/ .nearest: 'asign'"):
        method("asing")
    with pytest.raises(ValueError, match="model 'asign' has no variant 'no_gatt' .nearest: 'no_gat'"):
        method("asign@no_gatt")
    with pytest.raises(ValueError, match="model 'smooth' fits protocol 3d, found '2d'"):
        configure("smooth", "2d")
    with pytest.raises(ValueError, match="model 'asign' has no setting 'widht' .nearest: 'width'"):
        configure("asign", "2d", widht=3)


# ---- truths of single methods, by hand ---------------------------------------------------------------------


def stack(known, place, labels, features=None):
    """Make the batch of a tiny stack: G = 1 gene, registered places on a line (um)."""
    n = len(place)
    return Batch(
        num_nodes=n, row=torch.arange(n), known=torch.tensor(known), expression=torch.tensor(labels)[:, None],
        registered=torch.tensor([[x, 0.0] for x in place], dtype=torch.float64), radius_um=50.0,
        depth=torch.ones(n),
        section=torch.tensor(known).logical_not().long(),
        features=torch.tensor(features if features else [[0.0, 1.0]] * n),
    )  # fmt: skip


def test_known_mean_by_hand():
    batch = stack([True, True, False], [0.0, 1.0, 2.0], [1.0, 3.0, np.nan])
    assert build("known_mean", configure("known_mean", "3d"), shape(1))(batch)["expression"][2].item() == 2.0


def test_overlap_by_hand():
    nan = float("nan")
    batch = stack([True, True, False, False], [0.0, 100.0, 50.0, 500.0], [1.0, 3.0, nan, nan])
    values = build("overlap", configure("overlap", "3d"), shape(1))(batch)["expression"].ravel()
    assert values[2].item() == pytest.approx(2.0)  # both known circles overlap it equally
    assert values[3].item() == 3.0  # none does: the nearest


def test_similarity_by_hand():
    nan = float("nan")
    batch = stack(
        [True, True, True, False],
        [0.0] * 4,
        [1.0, 2.0, 9.0, nan],
        [[1.0, 0.0], [0.9, 0.2], [-1.0, 0.1], [1.0, 0.1]],
    )
    config = configure("similarity", "3d", neighbours=2)
    assert build("similarity", config, shape(1, 2))(batch)["expression"][3].item() == 1.5


def tiny_asign(name, genes=1, **settings):
    return build(name, configure(name, "3d", encoder="frozen", width=8, heads=2, **settings), shape(genes, 2))


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


def test_overlap_where_a_section_is_not_registered():
    nan = float("nan")
    model = build("overlap", configure("overlap", "3d"), shape(1))
    batch = stack([True, True, False, False], [0.0, 100.0, nan, -10.0], [1.0, 3.0, nan, nan])
    assert model(batch)["expression"].ravel()[2:].tolist() == [2.0, 1.0]  # the known mean; its neighbour's
    lost = stack([True, True, False, False], [nan, nan, 0.0, nan], [1.0, 3.0, nan, nan])
    assert model(lost)["expression"].ravel().tolist() == [2.0] * 4


def test_overlap_with_a_single_known_spot():
    batch = stack([True, False], [0.0, 50.0], [3.0, np.nan])
    values = build("overlap", configure("overlap", "3d"), shape(1))(batch)["expression"].ravel()
    assert values.tolist() == [3.0, 3.0]


def test_a_batch_of_known_spots_alone_has_a_finite_loss():
    model = build("asign", configure("asign", "3d", encoder="frozen", width=8, heads=2), shape(3, 2))
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
