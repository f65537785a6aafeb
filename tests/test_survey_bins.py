"""A params file from a folder of Visium HD: sizes, scale, slides, and what is said of bad folders."""

import json
import shutil

import h5py
import lab
import pytest
import yaml
from test_visium_hd import GENES, UM_PER_PX, write

from stlib import datasets, paths, survey
from stlib.params import Spot, load_params, sizes_of
from stlib.survey_layout import BINNED, Found, layout_of

NAMES = ["S1", "S2", "S3"]
WEIGHTED = {"pixnet@resnet18", "pixnet@vit", "pixnet@uni", "magnet@uni"}  # small networks need no weights


@pytest.fixture(autouse=True)
def house(tmp_path, monkeypatch):
    """A folder for params files, with those that a new one is made after."""
    folder = tmp_path / "params"
    folder.mkdir()
    for name in (BINNED, survey.SMALL_BINS):
        (folder / f"{name}.yaml").write_bytes((paths.PARAMS / f"{name}.yaml").read_bytes())
    monkeypatch.setattr(paths, "PARAMS", folder)


@pytest.fixture
def slides(tmp_path):
    """Return a function that writes slides as Space Ranger does, and names their folder."""

    def made(sections=NAMES, **changes):
        for name in sections:
            write(tmp_path / "Slides HD", name, **changes)
        return tmp_path / "Slides HD"

    return made


def bins(folder, section, side):
    return folder / section / "binned_outputs" / f"square_{side:03d}um"


def rename_genes(folder, section, genes):
    """Give the genes of a section other ids, those of all its bins."""
    for path in (folder / section).rglob("*.h5"):
        with h5py.File(path, "r+") as file:
            ids = file["matrix/features/id"]
            ids[: len(genes)] = [gene.encode() for gene in genes]


def patches(um_per_px):
    """Return the px of the three levels that bins of 8 um get on a slide of a scale."""
    found = Found(
        "visium_hd", NAMES, {}, Spot(shape="square", size_um=8, pitch_um=8), um_per_px, "", ("8um",)
    )
    return [one["px"] for one in survey._bins(found)["sizes"]["8um"]["levels"].values()]


# -- what is written -----------------------------------------------------------------------------------------


def test_what_is_written_reads_the_folder_at_each_size(slides):
    folder = slides()
    text = survey.main(str(folder)).read_text()
    like = yaml.safe_load((paths.PARAMS / f"{BINNED}.yaml").read_text())["sizes"]
    assert sizes_of("slides_hd") == [*like] == ["8um", "16um", "55um"]
    for size, part in like.items():
        params = load_params(f"slides_hd@{size}")
        assert params.source.reader == "visium_hd" and datasets.raw_folder(params) == folder.resolve()
        assert params.spot.model_dump() == part["spot"] and params.known == {}
        assert params.sample.model_dump(exclude_defaults=True) == part["sample"]
        # as many um as those of vumc_hd at 0.25 um per px
        for level in ("spot", "region", "global"):
            px = params.levels[level].px
            assert px == params.levels[level].out_px == part["levels"][level]["px"] * 0.25 / UM_PER_PX
        assert params.folds == {"hd": {name: [name] for name in NAMES}} and set(params.absent) == WEIGHTED
        datasets.fetch(params, folder)
        read = {name: datasets.reader(params).read(params, folder, name) for name in NAMES}
        found = datasets.compare(datasets.totals(read), params.expect)
        assert found.count("as expected") == 5 and params.expect.spots > 0
    assert params.panel.size == 3 and "the 3 genes of highest mean count, human by their ids" in text
    assert "# Visium HD: 8um from bins of 8 um, 16um from bins of 16 um, 55um from bins of 2 um\n" in text
    assert "um per px: S1 0.5, S2 0.5, S3 0.5" in text and "CHECK: each counts as a patient" in text


def test_slides_may_lie_beside_outs_and_be_called_anything(slides):
    folder = slides()
    home = folder / "S2"
    (home / "outs").mkdir()
    (home / "binned_outputs").rename(home / "outs" / "binned_outputs")
    (home / "tissue_image.btf").rename(home / "scan.btf")
    survey.main(str(folder), "mine")
    params = load_params("mine@8um")
    assert params.source.options["slides"] == {
        "S1": "tissue_image.btf",
        "S2": "scan.btf",
        "S3": "tissue_image.btf",
    }
    datasets.fetch(params, folder)


def test_slides_of_one_patient_stand_as_listed(slides):
    folder = slides()
    (folder / "sections.csv").write_text("section,patient\nS3,A\nS1,A\nS2,B\n")
    text = survey.main(str(folder), "mine").read_text()
    params = load_params("mine@16um")
    assert params.sections == {"A": ["S3", "S1"], "B": ["S2"]} and params.known == {} and "3d:" not in text
    assert params.folds == {"hd": {"A": ["A"], "B": ["B"]}} and set(params.absent) == {
        "egn",
        "eggn",
        *WEIGHTED,
    }
    assert [datasets.reader(params).read(params, folder, name).layer for name in NAMES] == [2, 1, 1]


@pytest.mark.parametrize("um_per_px", [0.2738, 0.25])
def test_patches_have_the_px_of_the_paper_at_the_scale_of_a_scanner(um_per_px):
    assert patches(um_per_px) == [112, 224, 512]


def test_patches_are_never_too_small_for_an_encoder():
    assert patches(2.0) == [32, 32, 64]


# -- what a folder allows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sides", "sizes", "remark"),
    [
        ((2,), ["8um", "16um", "55um"], "8um from bins of 2 um, 16um from bins of 2 um, 55um from bins of 2"),
        ((8,), ["8um", "16um", "55um"], "16um from bins of 8 um, 55um from bins of 8 um"),
        ((16,), ["16um"], "16um from bins of 16 um, CHECK: no 8um and 55um, as a section has no bins that"),
    ],
)
def test_sizes_are_those_that_bins_can_be_summed_into(slides, sides, sizes, remark):
    text = survey.main(str(slides(sides=sides)), "mine").read_text()
    assert sizes_of("mine") == sizes and remark in text


def test_every_section_has_the_sizes(slides):
    folder = slides()
    for side in (2, 8):
        shutil.rmtree(bins(folder, "S2", side))
    assert layout_of(folder).sizes == ("16um",)


def test_sums_of_the_finest_bins_are_those_of_coarser_ones(slides):
    """What is expected does not depend on which bins Space Ranger's user kept, where these pave the area."""
    folder = slides()
    survey.main(str(folder), "all")
    for name in NAMES:
        for side in (8, 16):
            shutil.rmtree(bins(folder, name, side))
    survey.main(str(folder), "finest")
    for size in sizes_of("all"):
        assert load_params(f"all@{size}").expect == load_params(f"finest@{size}").expect


# -- what is said --------------------------------------------------------------------------------------------


def refused(folder, error, message, **told):
    with pytest.raises(error, match=message):
        survey.main(str(folder), "mine", **told)
    assert not (paths.PARAMS / "mine.yaml").exists()


def test_one_slide_cannot_be_tested(slides):
    folder = slides(["S1"])
    refused(folder, ValueError, r"that two are needed; found \['S1'\]. Add sections of another patient")
    refused(folder / "S1", ValueError, "is one section; name the folder above it")


def test_a_slide_that_is_missing_is_named(slides):
    folder = slides()
    (folder / "S2" / "tissue_image.btf").unlink()
    (folder / "S2" / "tissue_hires_image.png").touch()  # a preview is none
    refused(folder, FileNotFoundError, r"S2/\*: the full-resolution slide stands there.*found none. Copy")


def test_a_slide_that_was_not_measured_is_refused(slides):
    folder = slides()
    write(folder, "S3", image=(300, 310), factors={"tissue_hires_scalef": 6000 / 300})
    refused(folder, ValueError, r"the slide has 300 px along its longer side; found \[300, 310\]. Take the")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("spatial/scalefactors_json.json", "tells um per px, and of which image these are"),
        ("spatial/tissue_positions.parquet", "tells where bins lie on the slide"),
    ],
)
def test_files_that_place_bins_are_needed(slides, kind, message):
    folder = slides()
    (bins(folder, "S2", 16) / kind).unlink()
    refused(folder, FileNotFoundError, f"S2.*{kind}: {message}; found no such file. Copy square_016um whole")


def test_a_folder_of_bins_without_counts_is_named(slides):
    folder = slides()
    shutil.rmtree(folder / "S3" / "binned_outputs")
    (folder / "S3" / "binned_outputs").mkdir()
    refused(folder, ValueError, "S3: binned_outputs has filtered.*in square_002um.*found none. Copy it whole")


def test_a_scale_that_is_not_told_is_that_of_the_bins(slides):
    folder = slides(factors={"microns_per_pixel": None})
    with pytest.warns(UserWarning, match="no microns_per_pixel; 0.50000 um per px are taken from the pitch"):
        survey.main(str(folder), "mine")
    assert load_params("mine@8um").levels.spot.px == 56
    (paths.PARAMS / "mine.yaml").unlink()
    refused(
        folder, ValueError, "tell the um per px themselves; found UM_PER_PX=0.3. Leave it", um_per_px="0.3"
    )


def test_two_species_are_refused(slides):
    folder = slides()
    rename_genes(folder, "S2", [f"ENSMUSG0000006435{k}" for k in range(3)])
    refused(folder, ValueError, "none in common, e.g. .*'S1': 'human ENSG.*'S2': 'mouse ENSMUSG.*two species")


def test_another_list_of_genes_is_reported(slides):
    folder = slides()
    rename_genes(folder, "S2", [*GENES[:2], "ENSG00000000003"])
    with pytest.warns(
        UserWarning, match="2 genes are common.*of 3 in the smallest and 3 in.*probe set"
    ) as said:
        survey.main(str(folder), "mine")
    assert sum("common to all" in str(one.message) for one in said) == 1  # not once for each size
    assert load_params("mine@8um").panel.size == 2


def test_visium_does_not_stand_beside_visium_hd(slides):
    folder = slides()
    lab.space_ranger(folder, lab.section("V1"))
    refused(folder, ValueError, r"are Visium or Visium HD; found \['V1'\] and \['S1', 'S2', 'S3'\]. Make a")


def test_a_damaged_scale_is_refused(slides):
    folder = slides()
    path = bins(folder, "S1", 8) / "spatial/scalefactors_json.json"
    path.write_text(json.dumps({"bin_size_um": 8.0}))
    refused(folder, ValueError, "scalefactors_json.json: JSON with the numbers bin_size_um and spot_diameter")
