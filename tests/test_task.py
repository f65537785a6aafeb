"""What a fold for one model is: its settings, its genes, and who is hidden from it."""

import pytest

from stlib.splits import folds
from stlib.task import Task, config_of, feed_of, panel_of


def test_a_marker_is_added_to_the_panel_by_name(toy, toy_sections):
    fold = folds(toy, "2d")[0]
    plain = panel_of(toy, fold, toy_sections)
    rare = next(gene for gene in toy_sections["P1-1"].genes if gene not in plain)
    panel = toy.panel.model_copy(update={"add": [plain[3], str(rare)]})
    assert panel_of(toy.model_copy(update={"panel": panel}), fold, toy_sections) == [*plain, rare]


def test_the_limit_of_a_dataset_on_epochs_counts(toy):
    training = toy.training.model_copy(update={"max_epochs": 2})
    assert config_of(toy.model_copy(update={"training": training}), "asign", "2d").epochs == 2


@pytest.mark.parametrize(
    ("protocol", "hidden", "measured"),
    [("2d", {"P1-1", "P1-2", "P1-3"}, set()), ("3d", {"P1-2", "P1-3"}, {"P1-1"})],
)
def test_what_is_tested_is_hidden_from_the_feed(toy, tmp_path, protocol, hidden, measured):
    fold = folds(toy, protocol)[0]
    feed = feed_of(Task(toy, fold, "ridge", protocol, 0, tmp_path, "recipe"))
    assert (feed.hidden, feed.measured) == (hidden, measured)
    assert set(feed.sections) == {*fold.train, *fold.validation, *fold.test, *fold.known}
    assert {section.name for section in feed.counted} == set(fold.counted) and not hidden & set(fold.counted)
    assert not any(feed._seen(name).any() for name in hidden)
    assert all(feed._seen(name).all() for name in fold.train)


def test_a_new_section_is_hidden_too(toy, toy_sections, tmp_path):
    task = Task(toy, folds(toy, "2d")[1], "mean", "2d", 0, tmp_path, "recipe")
    feed = feed_of(task, (toy_sections["P1-1"],))
    assert "P1-1" in feed.hidden and "P1-1" in feed.sections and not feed._seen("P1-1").any()


def test_how_a_stack_with_a_new_section_is_aligned_reaches_the_feed(toy, toy_sections, tmp_path):
    task, aligned = Task(toy, folds(toy, "3d")[1], "mean", "3d", 0, tmp_path, "recipe"), {}
    assert feed_of(task, (toy_sections["P1-1"],), aligned).aligned is aligned
