"""Trained here, tested there: who may look at what, how another dataset is seen, and what its labels are."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from stlib import features, scales, transfer
from stlib.expression import log_proportion, panel_counts, thinned_log_proportion
from stlib.feed import Feed
from stlib.models import Config
from stlib.params import load_params, sized
from stlib.predictions import Predictions
from stlib.results import Run
from stlib.sections import Section, load_sections, whose
from stlib.splits import folds
from stlib.task import Task, panel_of
from stlib.train import train_fold
from stlib.transfer import transfer_folds, views


def section(size_um=100.0, pitch_um=200.0, shape="circle", um_per_px=2.0, genes=("a", "b")):
    """Two locations, at columns 0 and 3, and one count of each gene."""
    counts, array = sparse.csr_matrix(np.ones((2, len(genes)), np.int32)), np.array([[0.0, 0], [3, 0]])
    return Section(
        "S", "P", 1, np.array(["x", "y"]), np.array(genes), counts, array, array * 100, np.full(2, um_per_px),
        np.array([900, 900]), shape, size_um, pitch_um,
    )  # fmt: skip


# ---- folds -------------------------------------------------------------------------------------------------


def test_sizes_of_one_dataset_keep_its_folds_by_hand():
    trained = [load_params(name) for name in sized("toy_hd@8um+16um")]
    fold = transfer_folds(trained, load_params("toy_hd@55um"))[0]
    assert fold.train == ("P3", "P4", "P5", *(f"toy_hd@16um/{name}" for name in ("P3", "P4", "P5")))
    assert fold.validation == ("P6", "toy_hd@16um/P6")
    assert fold.test == ("toy_hd@55um/P1", "toy_hd@55um/P2")
    assert fold.panel == fold.counted == ("P3", "P4", "P5", "P6") and fold.known == ()


@pytest.mark.parametrize(
    ("train", "to"),
    [
        ("toy_hd@100um", "toy_hd@8um"),
        ("toy_hd@8um+16um", "toy_hd@16um"),
        ("breast_hd@2um+8um", "breast_hd@16um"),
        ("st_breast", "breast_hd@2um"),
        ("st_breast", "her2st"),
        ("toy", "toy_hd@16um"),
    ],
)
def test_no_slide_is_on_both_sides_at_any_size(train, to):
    home, tested = load_params(sized(train)[0]), load_params(to)

    def slides(names):
        return {(whose(home, name)[0].split("@")[0], whose(home, name)[1]) for name in names}

    every = set()
    for fold in transfer_folds([load_params(name) for name in sized(train)], tested):
        taught = slides([*fold.train, *fold.validation, *fold.panel, *fold.counted])
        assert taught and fold.test and not taught & slides(fold.test)
        every |= slides(fold.test)
    assert every == {(tested.base, name) for name in tested.with_slide}


def test_what_is_cut_from_the_tissue_of_a_tested_patient_is_not_trained_on():
    home, tested = load_params("st_breast"), load_params("her2st")
    (fold,) = transfer_folds([home], tested)
    trained = {home.patient_of[name] for name in (*fold.train, *fold.validation)}
    assert set(home.sections) - trained == {"BC23567", "BC23810", "BC23903", "BC24044"}
    assert len(fold.test) == len(tested.with_slide)


def test_there_is_one_setting_and_somebody_must_train():
    home = load_params("toy_hd@8um")
    with pytest.raises(ValueError, match="has the setting 'strict' alone, found 'published'"):
        transfer_folds([home], load_params("toy_hd@16um"), "published")
    with pytest.raises(ValueError, match="needs folds for hd or 2d, found .'3d'."):
        transfer.native(home.model_copy(update={"folds": {"3d": {}}}))
    same = dict.fromkeys(home.sections, "one")
    toy = load_params("toy").model_copy(update={"same_tissue_group": {"P1": "one"}})
    with pytest.raises(ValueError, match="from toy_hd@8um to toy needs patients whose tissue is not in both"):
        transfer_folds([home.model_copy(update={"same_tissue_group": same})], toy)


# ---- how a section is seen ---------------------------------------------------------------------------------


def test_a_section_of_another_dataset_is_seen_at_the_scale_of_the_home_by_hand():
    """Toy: patches of 64 px of 2 um; there pixels of 1 um, bins of 8 um, and 200 um between spots here."""
    home = load_params("toy")
    there = section(size_um=8, pitch_um=8, shape="square", um_per_px=1.0)
    found = views(home, {"P1-1": section(), "toy_hd@8um/P1": there}, ("toy_hd@8um/P1",))
    own, other = found.values()
    assert list(found) == ["P1-1", "toy_hd@8um/P1"]
    assert own.params is home and own.halved == 0 and own.section.array.tolist() == [[0, 0], [3, 0]]
    assert own.share == pytest.approx(64 / (np.pi * 50**2))
    assert other.share == 1 and other.halved == 1  # to pixels of 2 um
    assert other.params.name == "toy_hd@8um"
    assert other.section.array.ravel().tolist() == pytest.approx([0, 0, 3 * 8 / 200, 0])
    for level in ("spot", "region", "global"):
        here, far = home.levels[level], other.params.levels[level]
        assert (far.px, far.out_px) == (2 * here.px, here.out_px)


def test_a_slide_is_halved_to_the_nearest_scale():
    """1.3 um per px of 2: 0.62 halvings make 1, and patches are 64 * 2 / 1.3 px wide."""
    there = section(size_um=8, pitch_um=8, shape="square", um_per_px=1.3)
    found = views(load_params("toy"), {"P1-1": section(), "toy_hd@8um/P1": there}, ("toy_hd@8um/P1",))
    view = found["toy_hd@8um/P1"]
    assert view.halved == 1 and view.params.levels["spot"].px == 98


def test_patches_of_another_dataset_are_cut_from_its_slide_at_its_levels(monkeypatch):
    asked = []
    monkeypatch.setattr(
        features, "patches", lambda params, *_: asked.append(params) or np.zeros((2, 64, 64, 3), np.uint8)
    )
    there = section(size_um=8, pitch_um=8, shape="square", um_per_px=1.0)
    feed = Feed(
        load_params("toy"), {"P1-1": section(), "toy_hd@8um/P1": there}, ["a"], Config(batch_size=9),
        unit="spot", needs=frozenset({"patch"}), protocol="2d", hidden=("toy_hd@8um/P1",),
    )  # fmt: skip
    list(feed.whole(["P1-1", "toy_hd@8um/P1"]))
    assert [(params.name, params.levels["spot"].px) for params in asked] == [("toy", 64), ("toy_hd@8um", 128)]


def test_a_dataset_at_home_is_seen_as_it_is():
    sections = {"P1-1": section(), "P1-2": section(size_um=50)}
    found = views(load_params("toy"), sections, ("P1-2",))
    assert all(view.section is sections[name] and view.share == 1 for name, view in found.items())


def test_nothing_is_enlarged():
    coarse = {"P1-1": section(), "toy_hd@8um/P1": section(um_per_px=2.5)}
    message = "toy, levels.spot, on toy_hd@8um/P1: .*64 px at home need 64 px or more there; found 51"
    with pytest.raises(ValueError, match=message):
        views(load_params("toy"), coarse, ("toy_hd@8um/P1",))


def test_a_dense_network_cannot_see_more_than_the_slide_has():
    home = load_params("toy")
    levels = {
        level: home.levels[level].model_copy(update={"out_px": 16}) for level in ("spot", "region", "global")
    }
    home = home.model_copy(update={"levels": transfer.Levels(**levels)})
    sections = {"P1-1": section(), "toy_hd@8um/P1": section(um_per_px=4.0)}
    feed = Feed(
        home, sections, ["a"], Config(batch_size=1), unit="window", needs=frozenset({"window"}),
        protocol="2d", hidden=("toy_hd@8um/P1",),
    )  # fmt: skip
    with pytest.raises(ValueError, match="toy_hd@8um/P1: no image is enlarged.*found -1 times"):
        next(feed.whole(["toy_hd@8um/P1"]))


def test_the_panel_is_what_both_measure_by_id():
    home = load_params("toy").model_copy(
        update={"panel": load_params("toy").panel.model_copy(update={"size": 2})}
    )
    fold = replace(folds(home, "2d")[0], panel=("P2-1",))
    sections = {"P2-1": section(genes=("a", "b"))}
    assert panel_of(home, fold, sections) == ["a", "b"]
    assert panel_of(home, fold, sections | {"x/1": section(genes=("c", "b"))}) == ["b"]
    with pytest.raises(ValueError, match="needs genes of the panel, e.g. 'a', .* are called e.g. 'c'"):
        panel_of(home, fold, sections | {"x/1": section(genes=("c", "d"))})
    both = {"x/1": section(genes=("a", "b")), "x/2": section(genes=("b",))}
    assert panel_of(home, fold, sections | both) == ["b"]  # of each section


# ---- labels ------------------------------------------------------------------------------------------------


def test_labels_of_fewer_counts_are_those_to_be_expected():
    """Against counts that are drawn: a tenth of what was counted is left, 20,000 times."""
    counts = np.array([[0, 3, 40, 900]])
    left = np.random.default_rng(0).binomial(counts[0], 0.1, (20_000, 4))
    wanted = log_proportion(left).mean(0)
    np.testing.assert_allclose(thinned_log_proportion(counts, 0.1)[0], wanted, atol=0.03)
    assert np.abs(log_proportion(counts)[0] - wanted).max() > 0.7  # which are others than those of all
    np.testing.assert_array_equal(thinned_log_proportion(counts, 1), log_proportion(counts))
    more = thinned_log_proportion(counts, 4)[0]
    np.testing.assert_allclose(more, np.log((4 * counts[0] + 1) / (4 * counts.sum() + 4)), rtol=1e-6)


def test_a_feed_teaches_labels_of_the_tested_area_and_hides_those_of_the_tested_slide(toy_hd):
    home = load_params("toy_hd@16um")
    here, there = load_sections(home, ["P2"])["P2"], load_sections(home, ["toy_hd@16um/P1"])
    there = {name: replace(found, size_um=8.0) for name, found in there.items()}
    panel = list(here.genes[:5])
    feed = Feed(
        home, {"P2": here, **there}, panel, Config(batch_size=10_000), unit="spot", needs=frozenset(),
        protocol="hd", hidden=("toy_hd@16um/P1",),
    )  # fmt: skip
    (batch,) = feed.whole(["P2", "toy_hd@16um/P1"])
    taught = batch.section == 0
    wanted = thinned_log_proportion(panel_counts(here, panel), 0.25)
    np.testing.assert_array_equal(batch.expression[taught].numpy(), wanted)
    np.testing.assert_array_equal(feed.truth("P2"), wanted)
    assert batch.expression[~taught].isnan().all() and batch.depth[~taught].isnan().all()
    scored = log_proportion(panel_counts(there["toy_hd@16um/P1"], panel))
    np.testing.assert_array_equal(feed.truth("toy_hd@16um/P1"), scored)


# ---- runs --------------------------------------------------------------------------------------------------

SMALL = {
    "encoder": "test_resnet@untrained", "halvings": 2, "window_px": 320, "hidden": 4, "epochs": 1,
    "tile_px": 320,
}  # fmt: skip


@pytest.mark.parametrize("model", ["ridge", "pixnet"])
def test_to_its_own_size_it_is_the_protocol_hd(toy_hd, tmp_path, model):
    params = toy_hd.model_copy(update={"overrides": {"pixnet": SMALL}})
    plain, moved = folds(params, "hd")[0], transfer_folds([toy_hd], toy_hd)[0]
    parts = []
    for fold, folder in ((plain, "plain"), (moved, "moved")):
        torch.manual_seed(0)
        parts.append(train_fold(Task(params, fold, model, "hd", 0, tmp_path / folder, "recipe"))[0])
    one, two = parts
    np.testing.assert_array_equal(one.truth, two.truth)
    np.testing.assert_array_equal(one.prediction, two.prediction)
    assert one.obs.equals(two.obs)


def test_a_run_says_where_it_was_tested():
    run = Run("transfer", "toy_hd@8um+16um", "pixnet", "strict", 3, "toy_hd@16um")
    assert run.folder.parts[-4:] == ("toy_hd@8um+16um", "pixnet", "strict-s3", "to-toy_hd@16um")
    assert Run.at(run.folder) == run and run.protocol == "hd" and run.params.name == "toy_hd@8um"
    other = Run("transfer", "toy_hd@8um+16um", "pixnet", "strict", 3, "toy_hd@8um")
    assert other.recipe != run.recipe
    assert {member.to for member in Run("transfer", "toy", "controls", to="toy_hd@8um").members} == {
        "toy_hd@8um"
    }


def test_what_was_brought_to_one_scale_is_counted(toy_hd):
    """Three genes of fifty are measured in both; bins of 256 um^2."""
    obs = pd.DataFrame({"fold": ["P1"]})
    predictions = Predictions(np.ones((1, 3)), np.ones((1, 3)), np.array(["a", "b", "c"]), obs)
    facts = scales.brought(toy_hd, toy_hd, predictions)
    assert facts == {
        "genes": 50, "kept": [3, 3], "um_per_px": [1.02, 1.02], "patch_px": [32, 32], "halved": [0, 0],
        "area_um2": [256.0, 256.0],
    }  # fmt: skip
    assert "3 of 50 genes are measured in both" in scales.sentence("a", "b", facts)


def test_what_differs_is_counted_at_home_and_there(monkeypatch):
    """Slides of 2 um per px at home, of 1.0 and 0.5 there; one fold lacks a gene that the other measures."""
    home, tested = load_params("toy"), load_params("toy_hd@8um")
    bins = {name: section(8, 8, "square", um) for name, um in (("P1", 1.0), ("P2", 0.5))}
    monkeypatch.setattr(
        scales, "load_sections", lambda params, _: {"P1-1": section()} if params is home else bins
    )
    obs = pd.DataFrame({"fold": ["one", "two"]})
    truth = np.array([[1, 1, np.nan], [1, 1, 1]])
    facts = scales.brought(home, tested, Predictions(truth, truth, np.array(["a", "b", "c"]), obs))
    assert facts == {
        "genes": 50, "kept": [2, 3], "um_per_px": [2.0, 0.75], "patch_px": [64, 192], "halved": [1, 2],
        "area_um2": [7854.0, 64.0],
    }  # fmt: skip
    assert "2 to 3 of 50 genes" in scales.sentence("a", "b", facts)
