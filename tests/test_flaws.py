"""Each flaw does to a score what is said of it; each test fails where the flaw in it is repaired."""

from dataclasses import replace

import numpy as np
import pytest

from stlib import flaw_table, flaws


def score(cohort, predicted, name="pcc_per_gene"):
    return flaw_table.scores(cohort, predicted, (name,))[name]


def same(one, two):
    return all(np.array_equal(one[name], two[name]) for name in one)


def hidden(cohort):
    return [name for fold in cohort.folds for name in cohort.hidden(fold)]


def other(values, names, seed=0):
    """The same values, but for some sections, whose rows are exchanged among each other."""
    rng = np.random.default_rng(seed)
    return values | {name: rng.permutation(values[name]) for name in names}


def test_carried_weights_remember_patients_of_earlier_folds(cohort):
    with_it, without = flaws.carried_weights(cohort, True), flaws.carried_weights(cohort, False)
    first, *later = cohort.folds
    for name in cohort.hidden(first):
        np.testing.assert_array_equal(with_it[name], without[name])
    for fold in later:
        for name in cohort.hidden(fold):
            errors = [np.square(found[name] - cohort.labels[name]).mean() for found in (with_it, without)]
            assert errors[0] < 0.9 * errors[1], name
    mean = {
        name: np.tile(cohort.stack(cohort.labels, cohort.training(fold)).mean(0), (len(without[name]), 1))
        for fold in cohort.folds
        for name in cohort.hidden(fold)
    }
    assert score(cohort, without, "mse") > score(cohort, mean, "mse") > score(cohort, with_it, "mse")


def test_a_checkpoint_chosen_on_the_test_fold_looks_at_hidden_labels(cohort):
    with_it, without = flaws.chosen_checkpoint(cohort, True), flaws.chosen_checkpoint(cohort, False)
    assert score(cohort, with_it) > 0.02 + score(cohort, without)
    # each wave stands for a checkpoint: of 50, that of the highest mean correlation with the test sections
    fold = next(iter(cohort.folds))
    names = cohort.hidden(fold)
    changed = replace(cohort, labels=other(cohort.labels, names))
    swings = [flaws.chosen_checkpoint(one, True)[names[0]][:, 0] for one in (cohort, changed)]
    assert not np.array_equal(*swings)
    swings = [flaws.chosen_checkpoint(one, False)[names[0]][:, 0] for one in (cohort, changed)]
    np.testing.assert_array_equal(*swings)


def test_coarse_labels_hold_what_is_to_be_predicted(cohort):
    names = hidden(cohort)
    changed = replace(cohort, counts=other(cohort.counts, names), labels=other(cohort.labels, names))
    assert not same(flaws.coarse_labels(cohort, True), flaws.coarse_labels(changed, True))
    assert same(flaws.coarse_labels(cohort, False), flaws.coarse_labels(changed, False))
    with_it = flaw_table.scores(cohort, flaws.coarse_labels(cohort, True))
    ceiling = flaw_table.ceiling(cohort)
    assert with_it["pcc_per_gene"] > 0.95 * ceiling["pcc_per_gene"]  # about that of who knows the true rate
    assert 0.3 < score(cohort, flaws.coarse_labels(cohort, False)) < with_it["pcc_per_gene"] - 0.2
    # most of it is the spot itself: few spots make a region of the toy
    without_itself = flaws.regions(cohort, itself=False)
    assert score(cohort, without_itself) < with_it["pcc_per_gene"] - 0.2
    for name, found in without_itself.items():
        assert not np.array_equal(found, flaws.coarse_labels(cohort, True)[name])


def test_random_batches_and_edges_predict_another_way_each_time(cohort):
    one, two = (flaws.random_edges(cohort, True, draw) for draw in range(2))
    apart = [np.sqrt(np.square(one[name] - two[name]).mean()) for name in one]
    assert min(apart) > 0.1
    assert same(*(flaws.random_edges(cohort, False, draw) for draw in range(2)))
    assert score(cohort, flaws.random_edges(cohort, False)) > 0.1 + score(cohort, one)


@pytest.mark.parametrize(("batch", "strangers"), [(128, 0), (None, 10)])
def test_batches_alone_and_edges_alone_cost_as_well(cohort, batch, strangers):
    parts = [flaws.propagated(cohort, batch, strangers, draw) for draw in range(2)]
    assert not same(*parts)
    assert score(cohort, parts[0]) < score(cohort, flaws.random_edges(cohort, False)) - 0.01


def test_one_key_makes_the_query_do_nothing(cohort):
    changed = replace(cohort, looks=other(cohort.looks, hidden(cohort)))
    assert same(flaws.one_key(cohort, True), flaws.one_key(changed, True))
    assert not same(flaws.one_key(cohort, False), flaws.one_key(changed, False))
    place = flaws.nearest_mean(cohort)  # all that is left
    for name, found in flaws.one_key(cohort, True).items():
        np.testing.assert_allclose(found, place[name])
    name = hidden(cohort)[0]  # without the flaw the keys are the same 20: no label from beyond them
    known = cohort.known(name)
    around, _ = flaws.nearest(cohort.place[known], cohort.place[name], flaws.NEIGHBOURS)
    given, right = cohort.labels[known][around], flaws.one_key(cohort, False)[name]
    assert (given.min(1) - 1e-6 <= right).all() and (right <= given.max(1) + 1e-6).all()
    assert score(cohort, flaws.one_key(cohort, False)) > 0.1 + score(cohort, flaws.one_key(cohort, True))


def test_attention_by_pencil():
    query, keys = np.array([[2.0]]), np.array([[[np.log(3) / 2], [0.0]]])  # weights 3 : 1
    np.testing.assert_allclose(flaws.attend(query, keys, np.array([[[4.0], [8.0]]])), [[5.0]])


def test_a_reshape_gives_nodes_the_tokens_of_others(cohort):
    layers = np.tile(np.arange(4)[:, None], (2, 1, 1))  # the number of each node
    assert flaws.tokens(layers, True)[..., 0].tolist() == [[0, 1], [2, 3], [0, 1], [2, 3]]
    assert flaws.tokens(layers, False)[..., 0].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert score(cohort, flaws.mixed_nodes(cohort, False)) == pytest.approx(1)
    assert abs(score(cohort, flaws.mixed_nodes(cohort, True))) < 0.1


def test_projections_of_their_own_hide_which_sections_look_alike(cohort):
    with_it, without = (flaws.section_projections(cohort, flawed) for flawed in (True, False))
    assert abs(score(cohort, with_it)) < 0.1 and score(cohort, without) > 0.4
    raw = {name: cohort.labels[name] for name in hidden(cohort)}
    assert score(cohort, raw) == pytest.approx(1)  # the score itself is right


def test_cosines_by_pencil():
    found = flaws.cosines(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 2.0], [-6.0, -8.0]]))
    np.testing.assert_allclose(found, [[0.6, 0.8, -1.0]])
