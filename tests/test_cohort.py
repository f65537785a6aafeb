"""What demonstrations are shown on: who is tested, who trains, and what stands in for a slide."""

import numpy as np
import pytest

from stlib.cohort import Cohort


def test_folds_hide_all_but_the_known_section(cohort):
    assert cohort.hidden("P2") == ["P2-2", "P2-3"]
    assert cohort.training("P2") == [f"P{p}-{n}" for p in (1, 3, 4) for n in (1, 2, 3)]
    assert cohort.known("P3-2") == "P3-1"


def test_looks_are_other_genes_in_units_of_the_known_section(cohort):
    known = cohort.looks["P1-1"]
    assert known.shape[1] == len(cohort.section["P1-1"].genes) - len(cohort.panel)
    np.testing.assert_allclose(known.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(known.std(0), 1, atol=1e-4)


def test_places_have_the_middle_of_the_section_at_zero(cohort):
    np.testing.assert_allclose(cohort.place["P1-2"].mean(0), 0, atol=1e-9)
    one = cohort.section["P1-2"].array
    np.testing.assert_allclose(np.ptp(cohort.place["P1-2"], axis=0), np.ptp(one, axis=0))


def test_predictions_stand_beside_the_labels_of_their_section(cohort):
    found = cohort.predictions({name: labels + 1 for name, labels in cohort.labels.items()})
    assert found.obs["section"].unique().tolist() == [f"P{p}-{n}" for p in (1, 2, 3, 4) for n in (2, 3)]
    np.testing.assert_allclose(found.prediction - found.truth, 1, atol=1e-5)
    assert (found.obs["fold"] == found.obs["patient"]).all() and not found.obs["known"].any()


def test_a_patient_without_known_section_takes_no_part(cohort):
    left = {name: one for name, one in cohort.section.items() if name != "P1-1"}
    few = Cohort.of(cohort.params, left, cohort.panel)
    assert list(few.sections) == list(few.folds) == ["P2", "P3", "P4"]
    two = {name: cohort.section[name] for name in ("P1-1", "P1-2", "P2-1")}
    with pytest.raises(ValueError, match=r"toy: .* need two folds .*, found 1 \(.*'P2-1'.*Add the missing"):
        Cohort.of(cohort.params, two, cohort.panel)
