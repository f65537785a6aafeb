import numpy as np
import pytest
import torch

from stlib import feed as module
from stlib.expression import top_mean_panel
from stlib.feed import Feed, augment
from stlib.fields import another
from stlib.models import Config

EVERYTHING = frozenset({"patch", "features", "levels", "graph", "cross", "rate", "counts", "neighbours"})


@pytest.fixture(scope="module")
def feed(toy, toy_sections):
    """Make a feed of two patients, of whom P2 is tested with P2-1 known."""
    sections = {name: toy_sections[name] for name in (*toy.sections["P1"], *toy.sections["P2"])}
    panel = top_mean_panel(sections.values(), toy.panel.size)
    return lambda unit="stack", protocol="3d", needs=EVERYTHING, measured=(), counted=(), **settings: Feed(
        toy,
        sections,
        panel,
        Config(batch_size=50, **settings),
        unit=unit,
        needs=needs,
        protocol=protocol,
        hidden=("P2-2", "P2-3"),
        measured=measured,
        counted=counted,
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
    torch.testing.assert_close(batch.across, source != target)
    assert batch.across.any() and not batch.across.all()
    assert len(batch.edge_weight) == len(batch.across)


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


def test_a_single_section_has_no_known_spot_in_training(feed):
    known = torch.cat([batch.known for batch in feed().training(("P2-1",), generator())])
    assert len(known) and not known.any()


def test_a_share_of_all_spots_can_be_known_in_training(feed, toy):
    made = feed(known_train=0.3)

    def known(seed):
        parts = list(made.training(toy.sections["P1"], torch.Generator().manual_seed(seed)))
        rows = torch.cat([torch.stack([part.section, part.row], 1)[part.known] for part in parts])
        return set(map(tuple, rows.tolist()))

    first = known(0)
    total = sum(len(made.sections[name]) for name in toy.sections["P1"])
    assert 0.22 < len(first) / total < 0.38 and {section for section, _ in first} == {0, 1, 2}
    assert first == known(0) != known(1)
    alone = torch.cat([part.known for part in made.training(("P2-1",), generator())])
    assert 0.15 < alone.float().mean() < 0.45  # of a single section, too
    hidden = torch.cat([part.section[part.known] for part in made.training(toy.sections["P2"], generator())])
    assert hidden.unique().tolist() == [3]  # P2-1: what is hidden is never known


def test_half_of_the_measured_section_is_hidden_everywhere_and_always_the_same(feed, toy):
    made = feed(known_test=0.5, measured=("P2-1",))
    n = len(made.sections["P2-1"])
    (told,) = made.whole(toy.sections["P2"], known=("P2-1",), labelled=False)
    (shown,) = made.whole(toy.sections["P2"], labelled=True)
    (again,) = feed(known_test=0.5, measured=("P2-1",)).whole(("P2-1",), known=("P2-1",))
    here = told.section == 3
    assert told.known.sum() == told.known[here].sum() == round(n / 2)
    for batch in (told, shown):
        for name in ("expression", "counts", "depth"):
            rows = batch[name].reshape(len(batch.row), -1).isfinite().all(1)
            torch.testing.assert_close(rows, told.known)
    torch.testing.assert_close(again.known, told.known[here])
    taught = list(made.training(("P2-1",), generator()))
    seen = torch.cat([part.row[part.expression.isfinite().all(1)] for part in taught]).sort().values
    torch.testing.assert_close(seen, told.row[told.known].sort().values)
    (other,) = made.whole(toy.sections["P1"], known=("P1-1",))
    assert other.expression.isfinite().all()  # of nobody else


def test_a_quarter_is_a_quarter_and_each_section_has_its_own(toy, toy_sections):
    one = toy_sections["P2-1"]
    made = Feed(
        toy, {"a": one, "b": one}, [str(one.genes[0])], Config(batch_size=50, known_test=0.25), unit="spot",
        needs=frozenset(), protocol="3d", measured=("a", "b"),
    )  # fmt: skip
    first, second = made._seen("a"), made._seen("b")
    assert first.sum() == second.sum() == round(len(one) / 4) and (first != second).any()


def test_how_genes_vary_in_other_patients_comes_from_the_counted_sections(
    feed, toy, toy_sections, monkeypatch
):
    given = []
    plain = module.known_fields
    monkeypatch.setattr(
        module, "known_fields", lambda *args: given.append(args[2]) or plain(args[0], args[1], None)
    )
    counted = [toy_sections["P1-1"], toy_sections["P2-1"]]
    made = feed(needs=frozenset({"graph", "cross", "start"}), counted=counted)
    list(made.whole(toy.sections["P1"]))
    torch.testing.assert_close(given[0], module.Covariances(counted[1:], made.panel).of_others("P1"))


def test_what_follows_from_the_known_labels_is_made_once_for_each_known_section(feed, toy, monkeypatch):
    asked = []
    plain = module.known_fields
    monkeypatch.setattr(
        module, "known_fields", lambda batch, *rest: asked.append(batch.known) or plain(batch, *rest)
    )
    needs = frozenset({"graph", "cross", "start"})
    made = feed(needs=needs)
    names = toy.sections["P1"]
    for seed in range(12):
        for part in made.training(names, torch.Generator().manual_seed(seed)):
            (whole,) = made.whole(names)
            known = part.section[part.known]
            if len(known):
                mean = whole.expression[whole.section == known[0]].mean(0)
                torch.testing.assert_close(part.start, mean.expand_as(part.start))
    assert len(asked) == 4  # three sections, and none
    asked.clear()
    drawn = feed(needs=needs, known_train=0.3)
    for _ in range(2):
        list(drawn.training(names, generator()))
    assert len(asked) == 2  # drawn anew, made anew


def test_no_edges_between_sections_in_2d(feed, toy):
    (batch,) = feed(protocol="2d").whole(toy.sections["P1"])
    source, target = batch.section[batch.edge_index]
    assert len(batch.across) == batch.edge_index.shape[1] > 0
    assert (source == target).all() and not batch.across.any()
    assert "registered" not in batch


def test_a_stack_stands_in_cutting_order_whatever_is_asked_for(feed, toy):
    first, second, third = toy.sections["P1"]
    (batch,) = feed().whole((third, first, second))
    assert batch.section.unique_consecutive().tolist() == [0, 1, 2]


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


def test_permuted_patches_and_features_move_together(feed, toy, toy_sections):
    (own,), (mixed,) = (feed(permuted=word).whole(["P1-2"]) for word in (False, True))
    order = another(toy_sections["P1-2"], "spot", len(own.row))
    torch.testing.assert_close(mixed.patch, own.patch[order])
    torch.testing.assert_close(mixed.features, own.features[order])
    torch.testing.assert_close(mixed.expression, own.expression)


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
