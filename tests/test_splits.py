import pytest
from test_params import DATASETS

from stlib.params import load_params
from stlib.splits import folds, whole

CASES = [
    (dataset, protocol, setting)
    for dataset in DATASETS
    for protocol in load_params(dataset).folds
    for setting in ("strict", "published")
]


@pytest.mark.parametrize(("dataset", "protocol", "setting"), CASES)
def test_nobody_is_on_both_sides(dataset, protocol, setting):
    params = load_params(dataset)
    for fold in folds(params, protocol, setting):
        tested = {params.patient_of[name] for name in fold.test}
        allowed = {params.known[patient] for patient in tested if patient in params.known}
        for name in (*fold.train, *fold.validation):
            assert params.patient_of[name] not in tested or name in allowed
        assert not set(fold.train) & set(fold.validation)
        assert not set(fold.test) & {*fold.train, *fold.validation, *fold.known}


@pytest.mark.parametrize(("dataset", "protocol"), sorted({case[:2] for case in CASES}))
def test_strict_never_chooses_on_hidden_counts(dataset, protocol):
    params = load_params(dataset)
    for fold in folds(params, protocol, "strict"):
        assert params.panel.choice == "published" or not set(fold.panel) & set(fold.test)
        assert not set(fold.train) & set(fold.test)


@pytest.mark.parametrize(("dataset", "protocol", "setting"), CASES)
def test_statistics_never_hold_a_hidden_section(dataset, protocol, setting):
    params = load_params(dataset)
    for fold in folds(params, protocol, setting):
        tested = {params.patient_of[name] for name in fold.test}
        measured = set(fold.counted) & {
            name for name in params.patient_of if params.patient_of[name] in tested
        }
        assert not set(fold.counted) & set(fold.test)
        assert measured <= {params.known[patient] for patient in tested if patient in params.known}
        assert {*fold.train, *fold.validation, *fold.known} <= set(fold.counted)


def test_a_published_panel_looks_at_all_sections_but_its_statistics_do_not():
    toy = load_params("toy")
    panel = toy.panel.model_copy(update={"choice": "published"})
    params = toy.model_copy(update={"panel": panel, "counts_only": {"P1": ["P1-9"], "P9": ["P9-1"]}})
    fold = folds(params, "3d", "strict")[0]
    assert fold.panel == tuple(params.patient_of) and len(fold.panel) == 14
    assert set(fold.counted) == set(params.patient_of) - {"P1-2", "P1-3", "P1-9"}
    plain = folds(toy, "3d", "strict")[0]
    assert (fold.train, fold.validation, fold.test) == (plain.train, plain.validation, plain.test)
    assert plain.panel == plain.counted
    everyone = folds(toy, "2d", "published")[0]
    assert "P1-2" in everyone.panel and "P1-2" not in everyone.counted and "P1-1" in everyone.counted
    assert not {"P1-1", "P1-2", "P1-3"} & set(folds(toy, "2d", "strict")[0].counted)


def test_toy_2d_by_hand():
    fold = folds(load_params("toy"), "2d")[0]
    assert fold.test == ("P1-1", "P1-2", "P1-3")
    assert fold.train == ("P2-1", "P2-2", "P2-3", "P3-1", "P3-2", "P3-3")
    assert fold.validation == ("P4-1", "P4-2", "P4-3")
    assert fold.known == ()


def test_toy_3d_by_hand():
    fold = folds(load_params("toy"), "3d")[0]
    assert fold.known == ("P1-1",)
    assert fold.test == ("P1-2", "P1-3")
    assert "P1-1" in fold.train and "P1-1" in fold.panel and "P1-2" not in fold.panel


def test_published_2d_trains_on_the_known_section_and_looks_at_all_counts():
    fold = folds(load_params("toy"), "2d", "published")[0]
    assert "P1-1" in fold.train and fold.validation == () and fold.known == ()
    assert set(fold.test) == {"P1-2", "P1-3"} and len(fold.panel) == 12


def test_counts_of_patients_without_slides_choose_the_panel_only():
    fold = next(fold for fold in folds(load_params("her2st_small"), "3d") if fold.name == "C")
    assert "A1" in fold.panel and "A1" not in fold.train
    assert fold.validation == ()  # fewer than three patients train: the number of epochs is fixed


def test_a_protocol_that_the_dataset_does_not_declare():
    params = load_params("toy").model_copy(update={"folds": {}})
    with pytest.raises(ValueError, match=r"params/toy_hd.yaml declares no folds for protocol '3d'"):
        folds(load_params("toy_hd@8um"), "3d")  # the file is that of all sizes
    with pytest.raises(ValueError, match=r"params/toy.yaml declares no folds for protocol '3d'"):
        folds(params, "3d")


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValueError, match="setting is strict or published, found 'stict'"):
        folds(load_params("toy"), "2d", "stict")


def test_validation_in_3d_needs_a_patient_with_a_section_to_impute():
    toy = load_params("toy")
    sections = toy.sections | {"P4": ["P4-1"], "P3": ["P3-1", "P3-2"]}
    params = toy.model_copy(update={"sections": sections})
    assert folds(params, "2d")[0].validation == ("P4-1",)
    assert folds(params, "3d")[0].validation == ("P3-1", "P3-2")


def test_toy_hd_by_hand():
    """Two slides are tested together, nothing is known of them; one of the four others picks the epoch."""
    params = load_params("toy_hd@16um")
    fold = folds(params, "hd")[0]
    assert (fold.test, fold.train, fold.known) == (("P1", "P2"), ("P3", "P4", "P5"), ())
    assert fold.validation == ("P6",) and set(fold.panel) == {"P3", "P4", "P5", "P6"}
    published = folds(params, "hd", "published")[0]
    assert (published.train, published.validation, published.known) == (("P3", "P4", "P5", "P6"), (), ())
    assert {"P1", "P2"} < set(published.panel)


def test_a_slide_of_the_dataset_trains_without_its_patient_and_its_twins():
    toy = load_params("toy")
    assert whole(toy, "2d").test == () and {*whole(toy, "2d").train, *whole(toy, "2d").validation} == {
        *toy.with_slide
    }
    folds_of = {"2d": {"a": ["P1", "P3"], "b": ["P2"], "c": ["P4"]}}
    twins = toy.model_copy(
        update={"same_tissue_group": {"P1": "block 7", "P3": "block 7"}, "folds": folds_of}
    )
    fold = whole(twins, "2d", without="P1")
    assert {name[:2] for name in (*fold.train, *fold.validation, *fold.counted, *fold.panel)} == {"P2", "P4"}
