"""What a dense network is fed: windows that hold each location once, and slides in tiles."""

import pytest
import torch

from stlib import windows
from stlib.expression import top_mean_panel
from stlib.feed import Feed
from stlib.models import Config


@pytest.fixture(scope="module")
def feed(toy, toy_sections):
    """Make a feed of windows of 256 px, after the slides of P1 were halved twice."""
    sections = {name: toy_sections[name] for name in toy.sections["P1"]}
    panel = top_mean_panel(sections.values(), toy.panel.size)
    return lambda batch_size=50: Feed(
        toy, sections, panel, Config(batch_size=batch_size, window_px=256, halvings=2), unit="window",
        needs=frozenset({"window"}), protocol="2d",
    )  # fmt: skip


@pytest.fixture
def dense(feed):
    return feed()


def generator():
    return torch.Generator().manual_seed(0)


def test_windows_show_each_location_once_and_whole(dense, toy):
    names = toy.sections["P1"]
    batches = list(dense.training(names, generator()))
    seen = torch.cat([batch.section * 10_000 + batch.row for batch in batches])
    assert len(seen) == len(seen.unique()) == sum(len(dense.sections[name]) for name in names)
    for batch in batches:
        assert batch.window.dtype == torch.uint8 and batch.window.shape[1:] == (3, 256, 256)
        assert batch.pool.shape == (len(batch.row), len(batch.window) * 64 * 64)
        torch.testing.assert_close(batch.pool.sum(1).to_dense(), batch.pixels.float())
        assert not batch.known.any() and (batch.size_um == 100).all()


def test_a_location_sums_up_what_lies_under_it(dense, toy):
    """On a map of the window's own brightness, turned or not, it finds that of the slide around it."""
    (whole,) = dense.whole(("P1-1",))
    (tile,) = whole.tiles.cut(448, 0, 32)
    slide = next(whole.tiles.read([tile])).float().mean(1)
    wanted = whole.tiles.pool(tile, 32) @ torch.nn.functional.avg_pool2d(slide, 4).ravel()[:, None]
    for batch in dense.training(("P1-1",), generator()):
        cells = torch.nn.functional.avg_pool2d(batch.window.float().mean(1), 4).ravel()[:, None]
        torch.testing.assert_close(batch.pool @ cells, wanted[batch.row], rtol=1e-4, atol=1e-2)


def test_readers_change_no_window(dense, monkeypatch):
    def made():
        return [(batch.window, batch.row) for batch in dense.training(("P1-1", "P1-2"), generator())]

    alone = made()
    monkeypatch.setattr("stlib.reading.readers", lambda: 2)
    for found, wanted in zip(made(), alone, strict=True):
        assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])


def test_windows_are_drawn_anew_and_bounded(feed, dense, toy):
    def corners(seed):
        made = dense.training(toy.sections["P1"], torch.Generator().manual_seed(seed))
        return [batch.window.float().mean().item() for batch in made]

    assert corners(0) == corners(0) != corners(1)
    few = feed(batch_size=2)
    assert {len(batch.window) for batch in few.training(toy.sections["P1"], generator())} <= {1, 2}


def test_windows_are_turned_and_half_of_them_mirrored(dense, toy, monkeypatch):
    views, turned = set(), windows.turned
    monkeypatch.setattr(windows, "turned", lambda *part: views.add(part[2:]) or turned(*part))
    for seed in range(8):
        list(dense.training(toy.sections["P1"], torch.Generator().manual_seed(seed)))
    assert views == {(quarters, mirror) for quarters in range(4) for mirror in (False, True)}


def test_a_whole_section_is_a_slide_to_be_seen_in_tiles(dense, toy):
    batches = list(dense.whole(toy.sections["P1"]))
    assert [len(batch.row) for batch in batches] == [len(dense.sections[n]) for n in toy.sections["P1"]]
    assert all("window" not in batch and len(batch.tiles.prints) == len(batch.row) for batch in batches)
    assert batches[0].tiles.size_px == (420, 420)
