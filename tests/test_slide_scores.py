"""Predictions of a new slide beside what was measured on it: one scale, the constants, the same scores."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stlib import metrics, slide_maps, slide_predictions, slide_scores
from stlib.expression import log_proportion, panel_counts
from stlib.new_slide import NewSlide
from stlib.splits import folds, whole
from stlib.task import Task, feed_of
from stlib.train import learn, predict, train_fold


@pytest.fixture(scope="module")
def small(toy_sections):
    """Two spots, of which three genes were measured."""
    counts = sparse.csr_matrix([[4, 0, 9], [1, 2, 0]])
    return replace(
        toy_sections["P1-1"],
        barcodes=np.array(["a", "b"]),
        genes=np.array(["A", "B", "X"]),
        counts=counts,
        position=np.array([[10.0, 20.0], [110.0, 20.0]]),
        array=np.array([[0.0, 0.0], [1.0, 0.0]]),
    )


def test_both_sides_are_proportions_within_the_measured_genes(small):
    """A and B of the panel (C, B, A): 4 + 1 and 0 + 1 of 6; predicted 0.2 and 0.2 of 0.4, of 1 in all."""
    values = np.log([[0.6, 0.2, 0.2], [0.1, 0.6, 0.3]])
    found = slide_scores.beside(small, ["C", "B", "A"], ["B", "A"], values)
    np.testing.assert_allclose(np.exp(found.truth), [[1 / 6, 5 / 6], [3 / 5, 2 / 5]], rtol=1e-5)
    np.testing.assert_allclose(np.exp(found.prediction), [[1 / 2, 1 / 2], [2 / 3, 1 / 3]], rtol=1e-5)
    assert found.genes.tolist() == ["B", "A"] and found.obs["barcode"].tolist() == ["a", "b"]
    assert found.obs[["x_px", "x_um"]].to_numpy().tolist() == [[10, 20], [110, 220]]


def test_nothing_changes_where_all_genes_were_measured():
    values = (
        np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    )  # proportions that add up to no 1
    np.testing.assert_array_equal(slide_scores.within(values, [0, 1, 2, 3]), values)


def test_a_measured_label_within_genes_is_that_of_their_counts():
    counts = np.random.default_rng(0).integers(0, 50, (6, 5))
    found = slide_scores.within(log_proportion(counts), [3, 1])
    np.testing.assert_allclose(found, log_proportion(counts[:, [3, 1]]), atol=1e-5)


def test_genes_of_another_name_are_refused(small):
    assert slide_scores.measured_genes(small, ["C", "B", "A"], Path("s.h5ad")) == ["B", "A"]
    message = (
        "s.h5ad: two genes of the panel or more were measured, .* e.g. 'C'; found 1, and names such as 'A'"
    )
    with pytest.raises(ValueError, match=message):
        slide_scores.measured_genes(small, ["C", "B"], Path("s.h5ad"))


def test_what_was_measured_goes_along_in_the_table(small, toy, tmp_path):
    new = NewSlide("mine", "P1-1", np.array([2.0, 2.0]), np.ones(2), "", "")
    values = np.log([[0.6, 0.2, 0.2], [0.1, 0.6, 0.3]])
    table = slide_predictions.as_table(toy, new, small, ["C", "B", "A"], values, {})
    slide_scores.write_beside(table, slide_scores.beside(small, ["C", "B", "A"], ["A", "B"], values))
    again = anndata.read_h5ad(slide_predictions.write_table(tmp_path / "mine.h5ad", table))
    assert again.var["measured"].tolist() == [False, True, True]
    nan = np.nan
    np.testing.assert_allclose(np.exp(again.layers["measured"]), [[nan, 1 / 6, 5 / 6], [nan, 0.6, 0.4]], 1e-5)
    np.testing.assert_allclose(
        np.exp(again.layers["predicted"]), [[nan, 0.5, 0.5], [nan, 2 / 3, 1 / 3]], rtol=1e-5
    )
    np.testing.assert_allclose(again.X, values, rtol=1e-6)


def test_measured_maps_have_the_colours_of_the_predicted_ones(small, toy):
    predicted, measured = (pd.DataFrame({"A": two}) for two in ([0.0, 1.0], [2.0, 5.0]))
    figure = slide_maps.over_slide(toy, small, predicted, measured)
    first, above, hidden, below = figure.axes[:4]
    assert first.get_title() == "2 measured spots" and not hidden.get_visible()
    assert (above.get_title(), below.get_title()) == ("A, predicted", "A, measured")
    np.testing.assert_array_equal(below.collections[0].get_array(), [2, 5])
    assert above.collections[0].get_clim() == below.collections[0].get_clim()


@pytest.fixture(scope="module")
def task(toy, tmp_path_factory):
    """Without P1, of whose sections the fold says nothing: that P1-1 is hidden, its being new must say."""
    fold = replace(whole(toy, "2d", without="P1"), test=())
    return Task(toy, fold, "ridge", "2d", 0, tmp_path_factory.mktemp("run"), "recipe")


def predicted(task, section):
    """What the chain of notebook 11 says of a section that is in no dataset."""
    feed = feed_of(task)
    model, _, fabric = learn(task, feed)
    feed = feed_of(task, (section,))
    return feed.panel, predict(model, feed, (section.name,), (), fabric)[section.name]


def test_the_scores_are_those_of_the_protocol(task, toy, toy_sections):
    """P1-1 as a new slide, measured: what the fold without P1 says of it, to the last digits."""
    (fold,) = (fold for fold in folds(toy, "2d") if fold.name == "P1")
    wanted, *_ = train_fold(replace(task, fold=replace(fold, test=("P1-1",))))
    section = toy_sections["P1-1"]
    panel, values = predicted(task, section)
    found = slide_scores.beside(section, panel, panel, values)
    np.testing.assert_array_equal(found.truth, wanted.truth)
    np.testing.assert_allclose(
        metrics.overview(found).to_numpy(), metrics.overview(wanted).to_numpy(), rtol=1e-5
    )


def test_no_model_sees_what_was_measured(task, toy_sections):
    """Where there are no counts to read, the same is predicted."""
    section = toy_sections["P1-1"]
    blind = replace(section, counts=None)
    np.testing.assert_array_equal(predicted(task, section)[1], predicted(task, blind)[1])


def test_the_constants_are_the_means_of_training_and_of_the_known_section(task, toy, toy_sections):
    section = toy_sections["P1-2"]
    panel = feed_of(task).panel
    labels = {name: log_proportion(panel_counts(one, panel)) for name, one in toy_sections.items()}
    found = slide_scores.constants(task, section, None, ())
    mean = np.concatenate([labels[name] for name in (*task.fold.train, *task.fold.validation)]).mean(0)
    np.testing.assert_allclose(found["mean"], np.broadcast_to(mean, (len(section), len(panel))), atol=1e-5)
    assert [*found] == ["mean"]
    stack = replace(task, fold=whole(toy, "3d", without="P1"), protocol="3d")
    panel = feed_of(stack).panel
    found = slide_scores.constants(stack, section, None, ("P1-1",))
    known = log_proportion(panel_counts(toy_sections["P1-1"], panel)).mean(0)
    assert [*found] == ["mean", "known_mean"]
    np.testing.assert_allclose(found["known_mean"][0], known, atol=1e-5)
