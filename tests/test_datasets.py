import json
from dataclasses import replace

import numpy as np
import pytest

from stlib import datasets, paths
from stlib.params import Expect, load_params
from stlib.sections import read_section


def test_an_unknown_reader_is_refused_with_the_nearest(toy):
    wrong = toy.model_copy(update={"source": toy.source.model_copy(update={"reader": "her2"})})
    with pytest.raises(
        ValueError, match=r"params/toy.yaml: source.reader 'her2' is no file .*nearest: 'her2st'"
    ):
        datasets.reader(wrong)
    assert datasets.reader(toy).__name__ == "stlib.datasets.toy"


def test_a_folder_of_the_user_must_exist(toy, tmp_path):
    assert datasets.raw_folder(toy) == paths.raw("toy")
    assert datasets.raw_folder(toy, str(tmp_path)) == tmp_path.resolve()
    with pytest.raises(
        FileNotFoundError, match="DATA=.*nowhere is no folder; give the folder that holds the files of 'toy'"
    ):
        datasets.raw_folder(toy, str(tmp_path / "nowhere"))


def test_params_may_say_where_a_lab_keeps_its_files(toy, tmp_path):
    source = toy.source.model_copy(update={"folder": str(tmp_path)})
    own = toy.model_copy(update={"source": source})
    assert datasets.raw_folder(own) == tmp_path.resolve()
    (tmp_path / "other").mkdir()
    assert datasets.raw_folder(own, str(tmp_path / "other")) == (tmp_path / "other").resolve()
    gone = toy.model_copy(update={"source": source.model_copy(update={"folder": "nowhere"})})
    with pytest.raises(FileNotFoundError, match="params/toy.yaml: source.folder=nowhere is no folder"):
        datasets.raw_folder(gone)


def test_totals_by_hand(toy_sections):
    a, b = toy_sections["P1-1"], toy_sections["P1-2"]
    b = replace(b, genes=b.genes[2:], counts=b.counts[:, 2:])
    assert datasets.totals({"a": a, "b": b}) == {
        "sections": 2,
        "spots": len(a) + len(b),
        "umi": a.counts.sum() + b.counts.sum(),
        "genes_union": 120,
        "genes_common": 118,
    }


def test_what_was_found_is_compared_with_what_is_expected():
    found = {"sections": 36, "spots": 13620, "umi": 5}
    lines = datasets.compare(found, Expect(sections=36, spots=13594)).splitlines()
    assert lines[0].split(maxsplit=1) == ["sections", "36 as expected"]
    assert lines[1].split(maxsplit=1) == ["spots", "13620 WARNING: expected 13594"]
    assert lines[2].split(maxsplit=1) == ["umi", "5"]  # nothing is expected
    assert "WARNING" not in datasets.compare(found, None)


def test_a_total_may_have_a_range_and_stands_beside_what_a_paper_prints():
    expect = Expect(sections=36, spots=[30, 40], published={"spots": 44, "sections": 36})
    lines = datasets.compare({"sections": 36, "spots": 40}, expect).splitlines()
    assert lines[0].split(maxsplit=1)[1] == "36 as expected"
    assert lines[1].split(maxsplit=1)[1] == "40 as expected WARNING: the paper prints 44"
    assert "29 WARNING: expected 30 to 40" in datasets.compare({"spots": 29}, expect)


def test_an_orientation_that_leaves_spots_on_glass_is_reported(one, monkeypatch):
    params, raw = one
    read = datasets.reader(params).read

    def mirrored(*args, **options):
        section = read(*args, **options)
        away = section.size_px - section.position
        return replace(section, position=np.column_stack([away[:, 0] / 2, section.position[:, 1]]))

    monkeypatch.setattr(datasets.reader(params), "read", mirrored)
    with pytest.warns(UserWarning, match="P1-1.tif: .* of its spots lie on tissue"):
        datasets.prepare(params, raw)


@pytest.fixture
def one(toy, tmp_path, monkeypatch):
    """The toy with one section of two patients, their raw files in an empty house."""
    raw = tmp_path / "raw/toy"
    raw.mkdir(parents=True)
    for file in paths.raw("toy").glob("P[12]-1.*"):
        (raw / file.name).symlink_to(file)
    monkeypatch.setattr(paths, "DATA", tmp_path)
    # the shared record remembers its lists of sections, and a copy of it would, too
    fresh = load_params("toy")
    return fresh.model_copy(update={"sections": {"P1": ["P1-1"], "P2": ["P2-1"]}}), raw


def test_prepare_writes_sections_and_manifest_and_keeps_a_slide_of_the_same_origin(one, toy_sections):
    params, raw = one
    manifest = datasets.prepare(params, raw)
    assert json.loads((paths.processed("toy") / "manifest.json").read_text()) == manifest
    assert set(manifest["P1-1"]) == {"h5ad", "tif"}
    found = read_section(paths.section_file("toy", "P1-1"))
    assert (found.counts != toy_sections["P1-1"].counts).nnz == 0

    slide = paths.slide_file("toy", "P1-1")
    before = slide.stat().st_mtime_ns
    assert datasets.prepare(params, raw) == manifest
    assert slide.stat().st_mtime_ns == before

    image, other = raw / "P1-1.tif", slide.read_bytes()
    image.unlink()
    image.write_bytes(other + b"\0")  # the same picture in another file
    assert datasets.prepare(params, raw)["P1-1"]["tif"] != manifest["P1-1"]["tif"]
    assert slide.stat().st_mtime_ns != before


def test_made_datasets_have_raw_files_of_their_own_and_published_ones_share_theirs():
    folders = {
        name: datasets.raw_folder(load_params(name)).name
        for name in ("toy", "tiny", "toy_st", "toy_hd@8um", "tiny_hd@16um", "her2st", "her2st_small")
    }
    assert folders == {
        "toy": "toy", "tiny": "tiny", "toy_st": "toy_st", "toy_hd@8um": "toy_hd", "tiny_hd@16um": "tiny_hd",
        "her2st": "her2st", "her2st_small": "her2st",
    }  # fmt: skip
