"""What one section and one stack have: what may not be read is NaN, what is not registered stays alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from stlib import features, fields
from stlib.alignment import load_registration
from stlib.expression import log_proportion, panel_counts, top_mean_panel
from stlib.feed import Feed
from stlib.fields import section_fields, stack_fields, standardised
from stlib.models import Config
from stlib.sections import Cells, load_sections


@pytest.fixture(scope="module")
def section(toy_sections):
    return toy_sections["P1-1"]


@pytest.fixture(scope="module")
def panel(toy, section):
    return top_mean_panel([section], toy.panel.size)


def fields_of(toy, section, panel, seen, needs=("counts", "levels", "graph")):
    return section_fields(toy, section, panel, frozenset(needs), features.encoder(toy.encoder), seen, 8)


def test_hidden_counts_are_nan_and_a_share_is_measured(toy, section, panel):
    seen = np.arange(len(section)) % 3 == 0
    found = fields_of(toy, section, panel, seen)
    counts = panel_counts(section, panel)
    np.testing.assert_array_equal(found["counts"][seen], counts[seen])
    np.testing.assert_array_equal(found["expression"][seen], log_proportion(counts)[seen])
    np.testing.assert_array_equal(found["depth"][seen], np.asarray(section.counts.sum(1)).ravel()[seen])
    for name in ("counts", "expression", "depth"):
        assert found[name][~seen].isnan().all()


def test_hidden_counts_are_never_read(toy, section, panel, monkeypatch):
    """All of a section: not even touched. Some of its spots: other counts there change nothing."""
    broken = replace(section, counts=None)
    found = fields_of(toy, broken, panel, np.zeros(len(section), bool))
    for name in ("counts", "expression", "depth", "region_expression", "global_expression"):
        assert found[name].isnan().all()
    seen = np.arange(len(section)) < 40
    counts = section.counts.toarray()
    counts[~seen] = np.random.default_rng(0).poisson(50, counts[~seen].shape)
    before = fields_of(toy, section, panel, seen)
    after = fields_of(toy, replace(section, counts=sparse.csr_matrix(counts)), panel, seen)
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


def test_a_cell_is_labelled_by_its_measured_spots(toy, section, panel):
    seen = np.zeros(len(section), bool)
    found = fields_of(toy, section, panel, ~seen)
    cell = int(found["region_parent"].bincount().argmax())
    held = (found["region_parent"] == cell).nonzero().ravel()
    assert len(held) > 1
    seen[held[:1]] = True
    one = fields_of(toy, section, panel, seen)
    torch.testing.assert_close(one["region_expression"][cell], one["expression"][held[0]])
    others = torch.arange(len(one["region_expression"])) != cell
    assert one["region_expression"][others].isnan().all()
    assert not torch.equal(found["region_expression"][cell], one["region_expression"][cell])


def test_weights_within_a_section_are_inverse_distances_in_pitches(toy, section, panel):
    found = fields_of(toy, section, panel, np.ones(len(section), bool))
    place = torch.from_numpy(section.position * section.um_per_px) / section.pitch_um
    apart = place[found["edge_index"]].diff(dim=0)[0].norm(dim=1)
    torch.testing.assert_close(found["edge_weight"].double(), 1 / apart, rtol=1e-4, atol=0)


def test_standardised_by_hand():
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert standardised(x).tolist() == [[-1, 0], [1, 0]]
    assert standardised(torch.tensor([[4.0, 5.0]]), x).tolist() == [[2, 0]]


# ---- a stack -----------------------------------------------------------------------------------------------


@pytest.fixture
def stack(toy, toy_sections):
    """Return a function that makes the fields of P1's stack under other registrations."""
    sections = [toy_sections[name] for name in toy.sections["P1"]]
    aligned = load_registration("toy")
    n = sum(map(len, sections))
    looks = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))

    def make(**changed):
        return stack_fields(toy, sections, aligned | changed, looks, 8, 12)

    make.aligned = aligned
    make.section = np.repeat(np.arange(3), [len(section) for section in sections])
    return make


def test_a_section_that_is_not_registered_has_no_place_and_no_edge_across(stack):
    found = stack(**{"P1-2": replace(stack.aligned["P1-2"], ok=False)})
    lost = torch.from_numpy(stack.section == 1)
    assert found["registered"][lost].isnan().all() and found["registered"][~lost].isfinite().all()
    ends, across = lost[found["edge_index"]], found["across"]
    assert not ends[:, across].any()
    assert ends[:, ~across].any() and across.any()  # it keeps those within; the others keep theirs
    joined = found["edge_index"][:, across].unique()
    assert set(stack.section[joined]) == {0, 2}


def test_edges_across_are_told_apart(stack):
    found = stack()
    source, target = stack.section[found["edge_index"].numpy()]
    np.testing.assert_array_equal(found["across"], source != target)
    assert found["edge_weight"].dtype == torch.float32
    assert found["radius_um"] == 50 * 2.0 and found["pitch_um"] == 200


def stretched(registration):
    """Return a map that doubles x: circles become ellipses."""
    return replace(registration, matrix=registration.matrix * [[2.0], [1.0]], field=None, onward=None)


def test_polygons_are_measured_where_a_map_is_no_similarity(stack, monkeypatch):
    asked = []
    plain = fields.stack_graph
    monkeypatch.setattr(fields, "stack_graph", lambda *a, **k: asked.append(k["contour"]) or plain(*a, **k))
    identity = replace(stack.aligned["P1-2"], matrix=np.eye(2, 3), field=None, onward=None)
    alike = dict.fromkeys(stack.aligned, identity)
    assert identity.is_similarity and not stretched(identity).is_similarity
    stack(**alike)
    assert asked.pop() is None
    stack(**alike | {"P1-3": stretched(identity)})
    (outline,) = asked
    assert outline.shape == (len(stack.section), 99, 2)
    width, height = np.ptp(outline, axis=1).T  # um; circles of a radius of 100 um
    third = stack.section == 2
    np.testing.assert_allclose(height, 200, rtol=1e-3)
    np.testing.assert_allclose(width[~third], 200, rtol=1e-3)
    np.testing.assert_allclose(width[third], 400, rtol=1e-3)


def test_a_feed_takes_the_registration_as_it_is(toy, toy_sections, panel, monkeypatch):
    from stlib import feed as module

    sections = {name: toy_sections[name] for name in toy.sections["P1"]}
    aligned = load_registration("toy")
    aligned["P1-3"] = replace(aligned["P1-3"], ok=False)
    monkeypatch.setattr(module, "load_registration", lambda name: aligned)
    feed = Feed(
        toy, sections, panel, Config(batch_size=50), unit="stack", needs=frozenset({"graph", "cross"}),
        protocol="3d",
    )  # fmt: skip
    (batch,) = feed.whole(sections)
    assert batch.registered[batch.section == 2].isnan().all()
    parts = list(feed.training(sections, torch.Generator().manual_seed(0)))  # cut by place, NaN or not
    assert sum(len(part.row) for part in parts) == len(batch.row)


def test_permuted_images_are_those_of_other_nodes_of_the_section(toy, section, panel):
    seen, needs = np.ones(len(section), bool), frozenset({"features", "levels", "neighbours"})
    encoder = features.encoder(toy.encoder)
    own = section_fields(toy, section, panel, needs, encoder, seen, 8)
    mixed = section_fields(toy, section, panel, needs, encoder, seen, 8, permuted=True)
    for name, value in own.items():
        if name in ("features", "region_features", "global_features", "neighbour_features"):
            assert (value.flatten(1) != mixed[name].flatten(1)).any(1).double().mean() > 0.8
            torch.testing.assert_close(value.flatten(1).sort(0)[0], mixed[name].flatten(1).sort(0)[0])
        elif name != "neighbour_inside":
            torch.testing.assert_close(value, mixed[name], rtol=0, atol=0, equal_nan=True)
    order = fields.another(section, "spot", len(section))
    torch.testing.assert_close(mixed["features"], own["features"][order], rtol=0, atol=0)
    torch.testing.assert_close(mixed["neighbour_features"][:, 12], mixed["features"])
    assert sorted(order) == list(range(len(section)))


# ---- squares and samples -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bins(toy_hd):
    """Return the sampled bins of one slide, and a panel."""
    section = load_sections(toy_hd, ["P1"])["P1"]
    return section, top_mean_panel([section], toy_hd.panel.size)


def test_squares_are_joined_to_the_eight_that_they_touch(toy_hd, bins):
    section, panel = bins
    found = fields_of(toy_hd, section, panel, np.ones(len(section), bool))
    place = torch.from_numpy(section.array)
    steps = (place[found["edge_index"][0]] - place[found["edge_index"][1]]).abs()
    assert steps.amax(1).max() == 1 and not (steps == 0).all(1).any()
    number = found["edge_index"][1].bincount()
    assert number.max() == 8 and number.float().mean() > 5  # whole squares were sampled
    straight = steps.sum(1) == 1
    torch.testing.assert_close(
        found["edge_weight"], torch.where(straight, 1.0, 0.5**0.5).float(), rtol=0.02, atol=0
    )


def test_a_cell_of_a_sample_is_labelled_by_all_that_was_measured_in_it(toy_hd, bins):
    section, panel = bins
    seen = np.ones(len(section), bool)
    found = fields_of(toy_hd, section, panel, seen)
    index, counts = section.cells["global"]
    cell = found["global_cell"][3].tolist()
    row = index.tolist().index(cell)
    whole = counts[[row]][:, section.columns(panel)].toarray()
    np.testing.assert_allclose(found["global_expression"][3], log_proportion(whole)[0], rtol=1e-6)
    plain = fields_of(toy_hd, replace(section, cells={}), panel, seen)
    assert not torch.allclose(found["global_expression"], plain["global_expression"])
    listed = panel_counts(section, panel)[(found["global_parent"] == 3).numpy()].sum(0)
    np.testing.assert_allclose(plain["global_expression"][3], log_proportion(listed[None])[0], rtol=1e-6)


def test_hidden_bins_hide_what_was_measured_in_their_cells(toy_hd, bins):
    section, panel = bins
    nothing = replace(section, counts=None, cells={level: (None, None) for level in section.cells})
    found = fields_of(toy_hd, nothing, panel, np.zeros(len(section), bool))
    assert found["region_expression"].isnan().all() and found["global_expression"].isnan().all()


def test_a_cell_without_its_sum_is_refused(toy_hd, bins):
    section, panel = bins
    index, counts = section.cells["region"]
    cells = section.cells | {"region": Cells(index[1:], counts[1:])}
    with pytest.raises(ValueError, match="'P1': each region cell .* found none for 1, e.g. .*make data"):
        fields_of(toy_hd, replace(section, cells=cells), panel, np.ones(len(section), bool))
