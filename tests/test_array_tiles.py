"""A slide in tiles: every location once, and no prediction depends on how it is cut."""

import numpy as np
import pytest
import torch

from stlib.array_tiles import TileFeed, Tiles
from stlib.expression import top_mean_panel
from stlib.feed import Feed
from stlib.models import Config, build, method
from stlib.overlays import lattice
from stlib.sections import load_sections
from stlib.task import config_of


@pytest.fixture(scope="module")
def slide(toy_hd):
    """Return the first slide, and all places in a piece of it of 19 x 19 bins."""
    sections = load_sections(toy_hd, ["P1", "P2"])
    middle = sections["P1"].size_px / 2
    return sections, *lattice(sections["P1"], middle - 150, middle + 150)


@pytest.fixture(scope="module")
def trained(toy_hd, slide):
    """Return a function that builds a model that predicts something else everywhere."""

    def make(name):
        torch.manual_seed(0)
        config, kind = config_of(toy_hd, name, "hd"), method(name)
        panel = top_mean_panel(slide[0].values(), toy_hd.panel.size)
        feed = Feed(
            toy_hd, slide[0], panel, config, unit=kind.UNIT, needs=kind.needs(config), protocol="hd",
        )  # fmt: skip
        model = build(name, config, feed.shape)
        model.prepare(feed.whole(["P2"]))
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)  # heads start at zero
        return model.eval()

    return make


@torch.no_grad()
def predicted(model, params, slide, side, order=None, reach=None):
    """Return the predictions of all places in the order of the slide (N, G)."""
    sections, array, position = slide
    order = np.arange(len(array)) if order is None else order
    tiles = Tiles(params, sections["P1"], array[order], position[order], side)
    feed = TileFeed(tiles, model, model.reach(model.config) if reach is None else reach)
    out = np.full((*tiles.shape, len(model.shape.panel)), np.nan, np.float32)
    for tile in tiles:
        rows = tiles.around(tile, 0)
        column, row = tiles.place[rows].T
        out[row, column] = model.predict(feed.batch(tile))[: len(rows)].numpy()
    column, row = (array.astype(int) - tiles.origin).T
    return out[row, column]


@pytest.mark.parametrize("name", ["magnet", "magnet@no_gat", "stnet"])
def test_a_prediction_depends_neither_on_tiles_nor_on_the_order_of_bins(trained, toy_hd, slide, name):
    model = trained(name)
    whole = predicted(model, toy_hd, slide, side=100)
    assert np.isfinite(whole).all() and whole.std(0).min() > 1e-3
    shuffled = np.random.default_rng(0).permutation(len(whole))
    np.testing.assert_allclose(predicted(model, toy_hd, slide, 7), whole, atol=1e-5)
    np.testing.assert_allclose(predicted(model, toy_hd, slide, 2, shuffled), whole, atol=1e-5)


def test_a_shorter_halo_would_be_seen(trained, toy_hd, slide):
    model = trained("magnet")
    reach = model.reach(model.config)
    whole = predicted(model, toy_hd, slide, side=100)
    for short in (reach._replace(locations=reach.locations - 1), reach._replace(cells=0)):
        assert np.abs(predicted(model, toy_hd, slide, 7, reach=short) - whole).max() > 1e-4


def test_what_lies_beyond_the_reach_changes_nothing(trained, toy_hd, slide):
    model, (sections, array, position) = trained("magnet@no_multires"), slide
    near = np.abs(array - np.median(array, axis=0)).max(1) <= model.reach(model.config).locations
    middle = np.flatnonzero((array == np.median(array, axis=0)).all(1))
    alone = predicted(model, toy_hd, (sections, array[near], position[near]), side=100)
    place = np.flatnonzero(near).tolist().index(middle[0])
    np.testing.assert_allclose(alone[place], predicted(model, toy_hd, slide, 100)[middle[0]], atol=1e-5)


def test_every_location_is_in_one_tile_and_its_surroundings_follow(toy_hd, slide):
    sections, array, position = slide
    tiles = Tiles(toy_hd, sections["P1"], array, position, side=5)
    rows = np.concatenate([tiles.around(tile, 0) for tile in tiles])
    assert sorted(rows) == list(range(len(array)))
    own, halo = tiles.around((1, 2), 0), tiles.around((1, 2), 7)
    assert len(own) == 25 and set(own) == set(halo[:25])
    column, row = tiles.place[halo].T
    assert (column.min(), column.max(), row.min(), row.max()) == (0, 16, 3, min(21, tiles.shape[0] - 1))
    assert len(halo) == len(np.unique(halo)) == 17 * (min(21, tiles.shape[0] - 1) - 2)


def test_a_tile_sees_no_counts(toy_hd, slide, trained):
    sections, array, position = slide
    tiles = Tiles(toy_hd, sections["P1"], array, position, side=8)
    model = trained("magnet")
    batch = TileFeed(tiles, model, model.reach(model.config)).batch((0, 0))
    for key in ("expression", "depth", "region_expression", "global_expression"):
        assert batch[key].isnan().all()
    assert not batch.known.any()


def test_features_are_standardised_as_in_the_prepared_section(toy_hd, slide, trained):
    """At a place that was sampled, the model is given what it was given there."""
    sections, *_ = slide
    section, model = sections["P1"], trained("magnet")
    tiles = Tiles(toy_hd, section, section.array, section.position, side=10_000)
    batch = TileFeed(tiles, model, model.reach(model.config)).batch((0, 0))
    kind = method("magnet")
    feed = Feed(
        toy_hd, {"P1": section}, list(model.shape.panel), Config(batch_size=10_000), unit=kind.UNIT,
        needs=kind.needs(model.config), protocol="hd",
    )  # fmt: skip
    (wanted,) = feed.whole(["P1"])
    order = np.lexsort(tiles.place.T), np.lexsort(wanted.array.numpy().T)
    torch.testing.assert_close(batch.relative[order[0]], wanted.relative[order[1]])
    torch.testing.assert_close(batch.region_features, wanted.region_features)
    with torch.no_grad():
        ours, theirs = model.predict(batch)[order[0]], model.predict(wanted)[order[1]]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
