"""The distance of a slide to training patients, by pencil."""

import numpy as np

from stlib.likeness import distance, likeness


def two(low, high):
    """Two spots with one feature: mean and deviation follow."""
    return np.array([[low], [high]], float)


def test_distances_by_hand():
    assert distance(two(3, 5), [two(0, 2)]) == 3  # mean 4 against 1, deviation 1
    assert distance(two(0, 2), [two(0, 2), two(4, 6)]) == 2  # 1 against the mean of 1 and 5
    both = np.array([[0.0, 0], [2, 2]])
    assert distance(both + [3, 4], [both]) == np.sqrt((9 + 16) / 2)


def test_a_constant_feature_does_not_divide_by_zero():
    assert np.isfinite(distance(two(1, 1), [two(1, 1)]))


def test_a_slide_farther_than_every_patient_is_unlike():
    training = {"A1": two(0, 2), "A2": two(1, 3), "B1": two(2, 4)}
    patient_of = {"A1": "A", "A2": "A", "B1": "B"}
    near = likeness("stain", two(1, 3), training, patient_of)
    # A: the farther of its sections, 1 against 3; B: 3 against the mean of 1 and 2
    assert near.patients == {"A": 2, "B": 1.5} and near.slide == 0 and not near.unlike
    far = likeness("stain", two(5, 7), training, patient_of)
    assert far.slide == 4 and far.unlike
    assert (
        str(far)
        == "stain: distance 4.00, of training patients A 2.00, B 1.50: WARNING: unlike the training data"
    )


def test_one_patient_cannot_say_what_is_usual():
    alone = likeness("stain", two(9, 11), {"A1": two(0, 2), "A2": two(0, 2)}, {"A1": "A", "A2": "A"})
    assert not alone.unlike and alone.patients == {} and "one patient trained" in str(alone)
