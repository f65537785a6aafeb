import numpy as np
import pytest
import torch

from stlib.expression import top_mean_panel
from stlib.feed import Feed, augment, kd_blocks

EVERYTHING = frozenset({"patch", "features", "levels", "graph", "cross", "rate", "counts", "neighbours"})


@pytest.fixture(scope="module")
def feed(toy, toy_sections):
    """Make a feed of two patients, of whom P2 is tested with P2-1 known."""
    sections = {name: toy_sections[name] for name in (*toy.sections["P1"], *toy.sections["P2"])}
    panel = top_mean_panel(sections.values(), toy.panel.size)
    return lambda unit="stack", protocol="3d", needs=EVERYTHING: Feed(
        toy,
        sections,
        panel,
        unit=unit,
        needs=needs,
        protocol=protocol,
        batch_size=50,
        hidden=("P2-2", "P2-3"),
    )


def generator():
    return torch.Generator().manual_seed(0)


def test_fields_have_the_documented_shapes(feed, toy):
    (batch,) = feed().whole(toy.sections["P1"])
    n, g, px = len(batch.row), toy.panel.size, toy.levels["spot"].out_px
    assert batch.expression.shape == (n, g) and batch.position.shape == (n, 2)
    assert batch.patch.shape == (n, 3, px, px) and batch.patch.dtype == torch.uint8
    assert batch.features.shape[0] == n and batch.registered.shape == (n, 2)
    for level in ("region", "global"):
        cells = len(batch[f"{level}_features"])
        assert batch[f"{level}_parent"].max() == cells - 1
        assert batch[f"{level}_expression"].shape == (cells, g)
        assert batch[f"{level}_edges"].max() < cells


def test_edges_keep_to_their_kind(feed, toy):
    (batch,) = feed().whole(toy.sections["P1"])
    source, target = batch.section[batch.edge_index]
    assert (source == target).all()
    source, target = batch.section[batch.cross_index]
    assert (source != target).all()


def test_hidden_counts_are_absent_not_merely_ignored(feed, toy):
    (batch,) = feed().whole(toy.sections["P2"], known=("P2-1",), labelled=False)
    assert batch.known.any() and not batch.known.all()
    assert batch.expression[batch.known].isfinite().all()
    assert batch.expression[~batch.known].isnan().all()
    assert batch.depth[~batch.known].isnan().all()
    hidden_cells = batch.region_parent[~batch.known]
    assert batch.region_expression[hidden_cells].isnan().all()


def test_hidden_sections_stay_hidden_whatever_is_asked(feed, toy):
    (batch,) = feed().whole(toy.sections["P2"], labelled=True)
    assert batch.expression[batch.section == 4].isnan().all()  # P2-2


def test_training_shows_each_location_once(feed, toy):
    for unit in ("spot", "section", "stack"):
        seen = torch.cat(
            [
                batch.section * 10_000 + batch.row
                for batch in feed(unit).training(toy.sections["P1"], generator())
            ]
        )
        assert (
            len(seen) == len(seen.unique()) == sum(len(feed().sections[name]) for name in toy.sections["P1"])
        )


def test_training_batches_are_bounded_and_shuffled(feed, toy):
    first = [batch.row.tolist() for batch in feed("spot").training(toy.sections["P1"], generator())]
    again = [batch.row.tolist() for batch in feed("spot").training(toy.sections["P1"], generator())]
    other = [
        batch.row.tolist()
        for batch in feed("spot").training(toy.sections["P1"], torch.Generator().manual_seed(1))
    ]
    assert max(map(len, first)) <= 50
    assert first == again and first != other


def test_one_measured_section_plays_the_known_one_in_3d_only(feed, toy):
    batches = list(feed().training(toy.sections["P1"], generator()))
    known = torch.cat([batch.section[batch.known] for batch in batches])
    assert len(known.unique()) == 1
    assert not any(
        batch.known.any() for batch in feed(protocol="2d").training(toy.sections["P1"], generator())
    )


def test_half_of_a_single_section_plays_the_known_part(feed):
    known = torch.cat([batch.known for batch in feed().training(("P2-1",), generator())])
    assert 0.35 < known.float().mean() < 0.65


def test_no_edges_between_sections_in_2d(feed, toy):
    (batch,) = feed(protocol="2d").whole(toy.sections["P1"])
    assert "cross_index" not in batch


def test_joined_sections_keep_their_own_cells(feed, toy):
    (stack,) = feed().whole(toy.sections["P1"])
    (alone,) = feed("section").whole(toy.sections["P1"][1:2])
    here = stack.section == alone.section[0]
    torch.testing.assert_close(
        stack.region_features[stack.region_parent[here]], alone.region_features[alone.region_parent]
    )


def test_patches_belong_to_their_spots(feed, toy, toy_sections):
    from stlib.features import patches

    (batch,) = feed().whole(toy.sections["P1"])
    stored = patches(toy, toy_sections["P1-2"], "spot")
    row = (batch.section == 1).nonzero().ravel()[7]
    np.testing.assert_array_equal(batch.patch[row].permute(1, 2, 0).numpy(), stored[int(batch.row[row])])


def test_kd_blocks_hold_every_point_once_and_are_compact():
    position = torch.rand(1000, 2, generator=generator())
    blocks = kd_blocks(position, 64, generator())
    assert sorted(torch.cat(blocks).tolist()) == list(range(1000))
    assert max(map(len, blocks)) <= 64
    spread = torch.stack([position[block].var(0).sum() for block in blocks]).mean()
    assert spread < 0.3 * position.var(0).sum()


def test_augmentation_only_turns_and_mirrors():
    patch = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    out = augment(patch.expand(2, 3, 4, 4), generator())
    torch.testing.assert_close(out.flatten(2).sort(2).values, patch.flatten(2).sort(2).values)
    views = {
        tuple(augment(patch[:1], torch.Generator().manual_seed(s)).flatten().tolist()) for s in range(200)
    }
    assert len(views) == 8


def test_a_misspelt_need_or_unit_is_refused(feed):
    with pytest.raises(ValueError, match="NEEDS of a method: 'feature' is unknown .nearest: 'features'"):
        feed(needs=frozenset({"feature"}))
    with pytest.raises(ValueError, match="UNIT of a method: 'spots' is unknown .nearest: 'spot'"):
        feed("spots")
