import copy

import pytest
import yaml

from stlib import paths
from stlib.params import Params, files_of, load_params, sized
from stlib.records import parse

TOY = yaml.safe_load((paths.PARAMS / "toy.yaml").read_text())
DATASETS = [name for path in sorted(paths.PARAMS.glob("*.yaml")) for name in sized(path.stem)]


def changed(**changes):
    return copy.deepcopy(TOY) | changes


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_params_file_is_strict_and_complete(dataset):
    params = load_params(dataset)
    assert params.with_slide
    for folds in params.folds.values():
        tested = [patient for patients in folds.values() for patient in patients]
        assert len(tested) == len(set(tested)), "a patient is tested once"


def test_unknown_dataset_names_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"params/toi.yaml does not exist.*nearest: 'toy'"):
        load_params("toi")


def test_unknown_key_names_the_nearest():
    with pytest.raises(ValueError, match=r"x.yaml: unknown key 'pannel' \(nearest: 'panel'\)"):
        parse(Params, changed(pannel={"size": 3}), "x.yaml")


def test_unknown_nested_key_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown key 'graph.radius' \(nearest: 'radius_px'\)"):
        parse(Params, changed(graph=TOY["graph"] | {"radius": 1}), "x.yaml")


def test_wrong_type_says_what_was_found():
    with pytest.raises(ValueError, match=r"panel.size: Input should be a valid integer, found '1e2'"):
        parse(Params, changed(panel={"size": "1e2"}), "x.yaml")


def test_missing_key():
    content = changed()
    del content["encoder"]
    with pytest.raises(ValueError, match="key 'encoder' is missing"):
        parse(Params, content, "x.yaml")


def test_fold_naming_a_patient_that_does_not_exist():
    with pytest.raises(
        ValueError, match=r"folds.2d.a names 'P9', which `sections` does not contain; nearest: 'P"
    ):
        parse(Params, changed(folds={"2d": {"a": ["P9"]}}), "x.yaml")


def test_fold_naming_a_section():
    with pytest.raises(ValueError, match=r"folds.2d.a names 'P1-2'.*it is a section of patient 'P1'"):
        parse(Params, changed(folds={"2d": {"a": ["P1-2"]}}), "x.yaml")


def test_patient_tested_twice():
    with pytest.raises(ValueError, match=r"folds.2d.b: patient 'P1' is already tested in fold 'a'"):
        parse(Params, changed(folds={"2d": {"a": ["P1"], "b": ["P1"]}}), "x.yaml")


def test_known_section_must_exist():
    with pytest.raises(ValueError, match=r"known.P1: 'P1-7' is no section of patient 'P1'"):
        parse(Params, changed(known=TOY["known"] | {"P1": "P1-7"}), "x.yaml")


def test_section_listed_twice():
    with pytest.raises(ValueError, match="'P1-1' is listed twice"):
        parse(Params, changed(counts_only={"P9": ["P1-1"]}), "x.yaml")


def test_same_tissue_group_names_patients():
    groups = parse(Params, changed(same_tissue_group={"P1": "block 7"}), "x.yaml").same_tissue_group
    assert groups == {"P1": "block 7"} and load_params("toy").same_tissue_group == {}
    with pytest.raises(ValueError, match="same_tissue_group names 'P11'; nearest: 'P1'"):
        parse(Params, changed(same_tissue_group={"P11": "block 7"}), "x.yaml")


def test_a_fold_that_separates_the_same_tissue_is_refused():
    same = {"P1": "block 7", "P3": "block 7"}
    with pytest.raises(
        ValueError, match="folds.2d.P1 tests 'P1' and trains on 'P3', which is the same tissue .*: 'block 7'"
    ):
        parse(Params, changed(same_tissue_group=same), "x.yaml")
    together = {"2d": {"a": ["P1", "P3"], "b": ["P2"], "c": ["P4"]}}
    params = parse(Params, changed(same_tissue_group=same, folds=together), "x.yaml")
    assert params.twins("P1") == ["P3"] and params.twins("P2") == []


def test_the_same_tissue_has_one_name_in_all_datasets():
    every = [load_params(dataset) for dataset in DATASETS]
    names = {params.name: set(params.same_tissue_group.values()) for params in every}
    assert names["her2st"] == names["her2st_small"] == names["st_breast"] != set()


def test_params_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load_params("toy").encoder = "other"


SIZED = {
    "sizes": {
        "8um": {"spot": {"shape": "square", "size_um": 8, "pitch_um": 8}},
        "55um": {"spot": {"shape": "circle", "size_um": 55, "pitch_um": 100}, "panel": {"size": 20}},
    }
}


def test_a_size_takes_the_place_of_what_the_file_says(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(changed(**SIZED)))
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(changed(name="plain")))
    assert sized("plain") == ["plain"] and sized("toy") == [
        "toy@55um",
        "toy@8um",
    ]  # safe_dump sorts the keys of a mapping
    small, large = load_params("toy@8um"), load_params("toy@55um")
    assert (small.name, small.base) == ("toy@8um", "toy")
    assert (small.spot.size_um, small.panel.size) == (8, TOY["panel"]["size"])
    assert (large.spot.shape, large.panel.size) == ("circle", 20)
    assert paths.slide_file("toy@8um", "P1-1") == paths.slide_file("toy@55um", "P1-1")
    assert paths.section_file("toy@8um", "P1-1") != paths.section_file("toy@55um", "P1-1")


def test_a_size_that_is_missing_or_unknown_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(changed(**SIZED)))
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(changed(name="plain")))
    with pytest.raises(ValueError, match="one of its sizes is named, .*; found 'toy'. Write toy@55um"):
        load_params("toy")
    with pytest.raises(ValueError, match="one of its sizes is named, .*; found 'toy@7um'"):
        load_params("toy@7um")
    with pytest.raises(ValueError, match="it declares no sizes; found 'plain@8um'. Write plain"):
        load_params("plain@8um")


@pytest.fixture
def alike(monkeypatch, tmp_path):
    """A folder of params files: the toy, and one that is like it but for its panel."""
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    (tmp_path / "small.yaml").write_text(
        yaml.safe_dump({"name": "small", "like": "toy", "panel": {"size": 9}})
    )
    return tmp_path


def test_a_dataset_like_another_says_only_what_differs(alike):
    small, toy = load_params("small"), load_params("toy")
    assert small.panel.size == 9 and small.kin == {"small", "toy"} and toy.kin == {"toy"}
    assert small == toy.model_copy(update={"name": "small", "like": "toy", "panel": small.panel})
    assert files_of("small") == [alike / "small.yaml", alike / "toy.yaml"]
    assert files_of("toy") == [alike / "toy.yaml"]


def test_settings_of_one_method_leave_those_of_others(alike):
    own = {"overrides": {"ridge": {"frozen": "stain"}}}
    (alike / "small.yaml").write_text(yaml.safe_dump({"name": "small", "like": "toy"} | own))
    assert load_params("small").overrides == load_params("toy").overrides | own["overrides"]


def test_a_size_keeps_the_settings_of_methods_that_it_does_not_name():
    bins, spots = (load_params(f"tiny_hd@{size}").overrides for size in ("8um", "100um"))
    assert bins["bleep"] != spots["bleep"] and bins | {"bleep": spots["bleep"]} == spots


def test_a_dataset_like_one_that_is_not_there_or_is_like_another_is_refused(alike):
    (alike / "far.yaml").write_text(yaml.safe_dump({"name": "far", "like": "smal"}))
    with pytest.raises(FileNotFoundError, match=r"far.yaml: like names 'smal'.*nearest: 'small'"):
        load_params("far")
    (alike / "far.yaml").write_text(yaml.safe_dump({"name": "far", "like": "small"}))
    with pytest.raises(ValueError, match="found 'small', which is like 'toy'. Name that one"):
        load_params("far")


def test_a_name_without_a_size_stands_for_each():
    assert sized("toy_hd") == ["toy_hd@8um", "toy_hd@16um", "toy_hd@55um", "toy_hd@100um"]
    assert sized("toy_hd@8um+16um") == ["toy_hd@8um", "toy_hd@16um"]
    assert sized("toy_hd@8um") == ["toy_hd@8um"] and sized("toy") == ["toy"]
    assert (load_params("toy_hd@8um").size, load_params("toy").size) == ("8um", "")
