"""A params file from a lab's folder: what is found in each layout, and what is said of folders that mix."""

from dataclasses import replace

import lab
import numpy as np
import pytest
import yaml

from stlib import datasets, paths, survey
from stlib.params import Spot, load_params
from stlib.survey_layout import Found, layout_of, spot_of

ONE, TWO = lab.section(), lab.section("S2", "B", seed=1)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder for params files, with the one whose overrides are taken."""
    house = tmp_path / "params"
    house.mkdir()
    for name in (survey.SMALL, "toy"):
        (house / f"{name}.yaml").write_bytes((paths.PARAMS / f"{name}.yaml").read_bytes())
    monkeypatch.setattr(paths, "PARAMS", house)
    return tmp_path / "My Lab"


def write(shape, folder, *sections):
    for one in sections:
        if shape is lab.hest and (folder / "st").exists():
            lab.hest(folder / "more", one)
            for part in ("st", "metadata", "wsis"):
                for path in (folder / "more" / part).iterdir():
                    path.rename(folder / part / path.name)
        else:
            shape(folder, one)
    return folder


@pytest.mark.parametrize(
    ("shape", "reader"),
    [(lab.space_ranger, "visium"), (lab.plain, "folder"), (lab.spatialdata, "folder"), (lab.hest, "hest")],
)
def test_what_is_written_reads_the_folder(own, shape, reader):
    path = survey.main(str(write(shape, own, ONE, TWO)))
    assert path.name == "my_lab.yaml"
    params = load_params("my_lab")
    assert params.source.reader == reader and params.spot.pitch_um == 100
    assert params.sections == {"S1": ["S1"], "S2": ["S2"]} and params.folds["2d"] == {
        "S1": ["S1"],
        "S2": ["S2"],
    }
    assert "CHECK: each counts as a patient" in path.read_text()
    folder = datasets.raw_folder(params)
    assert folder == own.resolve()
    read = {name: datasets.reader(params).read(params, folder, name) for name in params.patient_of}
    lab.same(read["S1"], replace(ONE, patient="S1"))
    assert "WARNING" not in datasets.compare(datasets.totals(read), params.expect)
    assert set(params.absent) == {"egn", "eggn"}  # two patients: no exemplars of a third
    assert params.expect.spots == 24 and params.panel.size == 3
    # 154 um at 5 um per px are 31 px: one step of 32
    assert params.levels.spot.px == 32 and params.levels.region.px == 64


def test_patients_come_from_the_list_in_cutting_order(own):
    three = lab.section("S3", "A", seed=2)
    write(lab.space_ranger, own, ONE, TWO, three)
    (own / "sections.csv").write_text("section, patient\nS3, A\nS1, A\nS2, B\n")
    text = survey.main(str(own), "mine").read_text()
    params = load_params("mine")
    assert params.sections == {"A": ["S3", "S1"], "B": ["S2"]} and params.known == {"A": "S3"}
    assert "#   3d: {A: [A]}" in text and "CHECK: each" not in text
    wanted = yaml.safe_load(text.replace("# CHECK: if", "#").replace("#   3d:", "  3d:"))
    assert wanted["folds"]["3d"] == {"A": ["A"]}  # the line fits where it says


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,patient\nS1,A", "has the columns section,patient; found"),
        ("section,patient\nS1,A\nS9,B", "'S9' is no section of the folder .nearest: 'S[12]'"),
        ("section,patient\nS1,A", r"lists each section of the folder once; found \['S2'\]"),
        ("section,patient\nS1,A\nS2,B\nS2,B", "found a section twice"),
        ("section,patient\nS1,A\nS2,A", r"two are needed; found \['A'\]. Add sections of another patient"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(own, table, message):
    write(lab.space_ranger, own, ONE, TWO)
    (own / "sections.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        survey.main(str(own))
    assert not (paths.PARAMS / "my_lab.yaml").exists()


def test_another_species_is_refused(own):
    mouse = replace(TWO, genes=np.array(["ENSMUSG00000064351", "ENSMUSG00000029580", "ENSMUSG00000001"]))
    with pytest.raises(
        ValueError, match="found none in common, e.g. .*ENSG.*ENSMUSG.*two species, do not mix"
    ):
        survey.main(str(write(lab.plain, own, ONE, mouse)))


def test_mixed_chemistries_are_reported(own):
    other = replace(TWO, genes=np.array([ONE.genes[0], "ENSG00000000001", "ENSG00000000002"]))
    with pytest.warns(
        UserWarning, match="1 genes are common to all sections, of 3 in the smallest.*chemistries"
    ):
        survey.main(str(write(lab.plain, own, ONE, other)))


def test_folders_of_no_layout_are_told_apart(own):
    own.mkdir()
    with pytest.raises(ValueError, match=r"HEST's st, wsis and metadata; found \[\]. Lay it out"):
        layout_of(own)


def test_one_section_is_not_a_folder_of_sections(own):
    lab.space_ranger(own, ONE)
    with pytest.raises(ValueError, match="is one section; name the folder above it"):
        layout_of(own / "S1")


def test_a_square_array_needs_a_scale_and_gets_its_pitch(own):
    square = np.stack(np.meshgrid(np.arange(4), np.arange(3)), -1).reshape(-1, 2)
    lab.space_ranger(own, ONE, slide=None)
    lab.write_slide(own / "S1" / "scan.png", tagged=False)
    path = own / "S1/outs/spatial/tissue_positions.csv"
    lines = [f"{b},1,{r},{c},{40 * r},{40 * c}" for b, (c, r) in zip(ONE.barcodes, square, strict=True)]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="must be known, and its file does not tell"):
        layout_of(own)
    found = layout_of(own, "5.0")
    assert found.options == {"lattice": "square"} and found.spot.size_um == 100 and found.spot.pitch_um == 200
    assert "ST" in found.remark


def test_unknown_spots_are_guessed_and_marked():
    spot, remark = spot_of(142.04, None, "S1")
    assert (spot.size_um, spot.pitch_um) == (142, 142) and remark.startswith(
        "CHECK: spots are 142.0 um apart in S1"
    )
    assert spot_of(142.04, 80.0, "S1")[0].size_um == 80
    assert spot_of(99, None, "S1")[0].size_um == 55


def test_a_params_file_is_never_replaced(own):
    write(lab.plain, own, ONE, TWO)
    with pytest.raises(
        FileExistsError, match="params/toy.yaml stands; delete it, or choose another name with NAME="
    ):
        survey.main(str(own), "toy")
    with pytest.raises(FileNotFoundError, match="FOLDER= is no folder"):
        survey.main("")


def test_many_patients_are_tested_in_five_groups():
    found = Found("visium", [], {}, Spot(shape="circle", size_um=55, pitch_um=100), 0.5, "")
    patients = {f"P{k}": [f"P{k}"] for k in range(12)}
    folds = survey._draft(found, "mine", paths.ROOT, patients)["folds"]["2d"]
    assert [len(group) for group in folds.values()] == [3, 3, 2, 2, 2]
