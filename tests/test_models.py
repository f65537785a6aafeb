"""The contract of design.md, over every file in stlib/models/ and its variants.

A new method is tested the moment it exists.
"""

from dataclasses import replace

import pytest
import torch

from stlib.batch import SPOT_FIELDS, Batch, Shape, hide, subset
from stlib.checkpoint import load_checkpoint, save_checkpoint
from stlib.expression import top_mean_panel
from stlib.feed import Feed
from stlib.losses import seen
from stlib.models import build, configure, method, names, trainable
from stlib.task import config_of

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
            toy, sections, panel, config, unit=kind.UNIT, needs=kind.needs(config), protocol=protocol,
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


TRAINED = [case for case in CASES if method(case[0]).Config().epochs]
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
