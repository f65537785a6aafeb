"""Honest caches of patches and features."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from stlib import paths
from stlib.encoders import Timm
from stlib.features import encoder, features, neighbours, patches
from stlib.fingerprint import sealed
from stlib.slide import Slide, write_pyramid
from stlib.stain import NAMES, Stain


def test_a_word_names_an_encoder():
    assert isinstance(encoder("stain"), Stain)
    assert isinstance(encoder("test_resnet@untrained"), Timm)
    with pytest.raises(ValueError, match=r"weights come from.*'stain'"):
        encoder("resnet50")


def test_import_is_light():
    code = "import sys, stlib.features; print({'torch', 'timm', 'openslide', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.fixture
def data(monkeypatch, tmp_path):
    """One section with a slide of 400 x 300 px and five spots; two of them share a region."""
    monkeypatch.setattr(paths, "DATA", tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    path = paths.slide_file("made", "S1")
    path.parent.mkdir(parents=True)
    write_pyramid(image, path, 0.5)
    size = {
        "spot": SimpleNamespace(px=40, out_px=40),
        "region": SimpleNamespace(px=100, out_px=50),
        "global": SimpleNamespace(px=200, out_px=50),
    }
    position = np.array([[350.5, 50], [30, 40], [60, 80], [210, 250], [399, 299]])
    params = SimpleNamespace(name="made", encoder="stain", levels=size)
    return SimpleNamespace(
        params=params,
        section=SimpleNamespace(name="S1", position=position, size_px=np.array([400, 300])),
        path=path,
        image=image,
    )


def stored(kind: str) -> list:
    return sorted(paths.cache(kind).glob("*.npy"))


def test_patches_are_those_of_the_slide(data):
    found = patches(data.params, data.section, "spot")
    with Slide(data.path) as slide:
        assert np.array_equal(found, slide.patches(data.section.position, 40))
    assert isinstance(found, np.memmap) and not found.flags.writeable
    region = patches(data.params, data.section, "region")
    assert region.shape == (4, 50, 50, 3)  # cells (0, 0), (2, 2), (3, 0), (3, 2), in this order
    with Slide(data.path) as slide:
        assert np.array_equal(region, slide.patches([[50, 50], [250, 250], [350, 50], [350, 250]], 100, 50))
    block = data.image[:100, :100].reshape(50, 2, 50, 2, 3).mean((1, 3))
    assert np.abs(region[0] - block).max() <= 0.5


def test_features_are_those_of_the_patches(data):
    for level, nodes in (("spot", 5), ("region", 4), ("global", 3)):
        found = features(data.params, data.section, level)
        assert found.shape == (nodes, len(NAMES)) and found.dtype == np.float32
        assert np.array_equal(found, encoder("stain").encode(patches(data.params, data.section, level)))
    other = encoder("test_resnet@untrained")
    assert features(data.params, data.section, "spot", other).shape == (5, other.dim)


def test_neighbours_are_five_by_five_patches_side_by_side(data):
    found, inside = neighbours(data.params, data.section)
    assert found.shape == (5, 25, len(NAMES)) and inside.shape == (5, 25)
    assert np.array_equal(found[:, 12], features(data.params, data.section, "spot"))  # the spot's own
    x, y = data.section.position[3]  # (210, 250)
    with Slide(data.path) as slide:
        right = slide.patches([[x + 40, y]], 40)  # the 14th: one patch, 40 px, to the right
        above = slide.patches([[x - 80, y - 40]], 40)  # the 6th: one up, two to the left
    assert np.array_equal(found[3, [13, 5]], encoder("stain").encode(np.concatenate([right, above])))
    rows, columns = inside.reshape(5, 5, 5).any(2), inside.reshape(5, 5, 5).any(1)
    assert inside[3].reshape(5, 5)[3].all()  # y = 290
    assert not inside[3].reshape(5, 5)[4].any()  # y = 330, the slide ends at 300
    assert rows[1].tolist() == [False, True, True, True, True]  # (30, 40): y from -40, 0, ...
    assert columns[1].tolist() == [False, False, True, True, True]  # x from -50, -10, 30, ...
    white = encoder("stain").encode(np.full((1, 40, 40, 3), 255, np.uint8))
    assert np.array_equal(found[1, :1], white)
    assert inside[:, 12].all()
    assert len(stored("features")) == 2


def test_equal_patches_are_encoded_once_and_in_blocks(data, monkeypatch):
    monkeypatch.setattr("stlib.features.BATCH", 3)
    where = np.array([0, 3, 0, 1, 2, 4, 3, 0, 1])
    many = SimpleNamespace(name="S1", position=data.section.position[where], size_px=data.section.size_px)
    sizes, encode = [], Stain.encode
    monkeypatch.setattr(Stain, "encode", lambda by, block: sizes.append(len(block)) or encode(by, block))
    found = features(data.params, many, "spot", kept=False)
    assert sizes == [3, 2]
    assert np.array_equal(found, features(data.params, data.section, "spot")[where])


def test_readers_change_nothing(data, monkeypatch, tmp_path):
    monkeypatch.setattr("stlib.features.BATCH", 1)
    alone = np.array(features(data.params, data.section, "spot", kept=False))
    patches_of = Slide.patches
    monkeypatch.setattr(
        Slide, "patches", lambda *own: (tmp_path / str(os.getpid())).touch() or patches_of(*own)
    )
    monkeypatch.setattr("stlib.reading.readers", lambda: 2)
    assert np.array_equal(features(data.params, data.section, "spot"), alone)
    seen = {int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()}
    assert len(seen) == 2 and os.getpid() not in seen


def test_a_second_call_computes_nothing(data, monkeypatch):
    first = np.array(features(data.params, data.section, "region"))
    monkeypatch.setattr("stlib.slide.Slide", lambda path: pytest.fail("read again"))
    monkeypatch.setattr("stlib.fingerprint.file_hash", lambda path: pytest.fail("hashed again"))
    assert np.array_equal(features(data.params, data.section, "region"), first)
    data.path.unlink()  # caches were carried to another machine, the slide was not
    assert np.array_equal(features(data.params, data.section, "region"), first)


def test_whatever_changes_the_result_changes_the_name(data, monkeypatch):
    def count() -> int:
        features(data.params, data.section, "region")
        return len(stored("features"))

    assert count() == 1
    data.params.levels["region"].out_px = 100
    assert count() == 2
    data.params.levels["region"].px = 100 + 100
    assert count() == 3
    monkeypatch.setattr(Stain, "version", "other")
    assert count() == 4
    write_pyramid(255 - data.image, data.path, 0.5)
    assert count() == 5
    data.section.position = data.section.position[:3]  # other cells
    assert count() == 6
    data.section.name, old = "S2", data.path
    for ending in (".tif", ".tif.sha256"):  # a slide moves with its seal
        old.with_suffix(ending).rename(paths.slide_file("made", "S2").with_suffix(ending))
    assert count() == 6  # the same slide under another name is the same slide


def test_a_note_says_what_an_array_is(data):
    features(data.params, data.section, "region")
    (path,) = stored("features")
    note = json.loads(path.with_suffix(".json").read_text())
    assert (note["section"], note["level"], note["encoder"], note["shape"]) == (
        "S1",
        "region",
        "stain",
        [4, 52],
    )
    assert (note["px"], note["out_px"], note["slide"]) == (100, 50, sealed(data.path))


def test_damage_is_noticed_and_repaired(data):
    whole = np.array(patches(data.params, data.section, "spot"))
    (path,) = stored("patches")
    content = path.read_bytes()
    for broken in (content[:-100], content[:20], b"", content.replace(b"(5, 40", b"(4, 40")):
        path.write_bytes(broken)
        with pytest.warns(UserWarning, match=r"cache/patches/.* is damaged \(.*it is made anew"):
            again = patches(data.params, data.section, "spot")
        assert np.array_equal(again, whole)
    path.with_suffix(".json").unlink()  # interrupted between array and note: no damage
    with warnings.catch_warnings(action="error"):
        assert np.array_equal(patches(data.params, data.section, "spot"), whole)


@pytest.mark.fault("an encoder that is interrupted", "Ctrl-C in its first batch", "nothing is stored")
def test_an_interrupted_encoder_leaves_nothing(data):
    class Broken:
        name, version, dim = "broken", "1", 4

        def encode(self, batch):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features(data.params, data.section, "spot", Broken())
    assert not paths.cache("features").exists() or not list(paths.cache("features").iterdir())


@pytest.mark.fault(
    "a slide that was changed under its features",
    "one byte",
    "ValueError with the remedy, before anything is computed from it",
)
def test_a_slide_that_is_not_the_one_that_was_written_is_refused(data):
    whole = data.path.read_bytes()
    assert sealed(data.path) == hashlib.sha256(whole).hexdigest()
    data.path.write_bytes(whole[:-9] + b"?" + whole[-8:])
    with pytest.raises(ValueError, match="S1.tif is damaged: .*Delete it and run `make data` again"):
        patches(data.params, data.section, "spot")
    data.path.write_bytes(whole)  # at another time: read again, and found to be the same
    assert len(patches(data.params, data.section, "spot")) == 5
    with pytest.raises(FileNotFoundError, match="S9.tif is not there; prepare the dataset with `make data`"):
        sealed(paths.slide_file("made", "S9"))
