"""Stain statistics where the stain is known, encoders that say where weights are from, honest caches."""

import hashlib
import json
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from stlib import features as module
from stlib import paths
from stlib.features import STAIN_NAMES, STAINS, encoder, features, patches, slide_hash
from stlib.slide import Slide, write_pyramid

PLACE = {name: i for i, name in enumerate(STAIN_NAMES)}


def stained(haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Return the image (H, W, 3) of two stains by the law of Beer and Lambert."""
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    density = haematoxylin[..., None] * unit[0] + eosin[..., None] * unit[1]
    return np.rint(256 * 10**-density - 1).clip(0, 255).astype(np.uint8)


def numbers(image: np.ndarray) -> dict[str, float]:
    return dict(zip(STAIN_NAMES, encoder("stain").encode(image[None])[0].tolist(), strict=True))


# -- stain ---------------------------------------------------------------------------------------------------


def test_stain_finds_the_amounts_that_were_put_on():
    flat = np.ones((64, 64))
    found = numbers(stained(0.5 * flat, 0.3 * flat))
    assert found["haematoxylin_mean"] == pytest.approx(0.5, abs=0.01)
    assert found["eosin_mean"] == pytest.approx(0.3, abs=0.01)
    assert found["residual_mean"] == pytest.approx(0, abs=0.01)
    assert found["haematoxylin_q50"] == pytest.approx(0.5, abs=0.01)
    assert found["haematoxylin_sd"] == pytest.approx(0, abs=1e-4)
    assert found["pattern_8"] == 1  # nothing is darker than its neighbour
    glass = numbers(np.full((64, 64, 3), 255, np.uint8))
    assert not any(value for name, value in glass.items() if name != "pattern_8")


def test_stain_counts_nuclei():
    y, x = np.mgrid[:96, :96]
    nucleus = np.minimum((y % 32 - 16) ** 2, 999) + (x % 32 - 16) ** 2 <= 36  # 9 discs of radius 6
    found = numbers(stained(0.1 + 0.9 * nucleus, 0.2 + 0.0 * nucleus))
    assert found["nuclear_density"] * 96**2 / 1000 == pytest.approx(9)
    assert found["nuclear_share"] == pytest.approx(9 * np.pi * 36 / 96**2, rel=0.1)
    assert found["nuclear_contrast"] == pytest.approx(0.9, abs=0.1)


def test_stain_texture_by_hand():
    stripes = np.broadcast_to(np.arange(64) // 8 % 2, (64, 64)).astype(float)  # 8 px wide, along y
    found = numbers(stained(stripes, 0 * stripes))
    assert (found["haematoxylin_mean"], found["haematoxylin_sd"]) == pytest.approx((0.5, 0.5), abs=0.01)
    assert found["haematoxylin_gradient_1px"] == pytest.approx(7 / 63, abs=0.01)  # 7 edges of height 1
    assert found["haematoxylin_gradient_4px"] == pytest.approx(28 / 60, abs=0.01)
    assert found["haematoxylin_autocorrelation_16px"] > 0.6  # one period; along y it is 1, with fewer rows
    assert found["haematoxylin_autocorrelation_8px"] < 0.1  # half a period along x, the same along y
    assert sum(found[f"pattern_{n}"] for n in range(9)) + found["pattern_mixed"] == pytest.approx(1)
    table = module.PATTERNS
    assert (table[0], table[255], table[0b00001111], table[0b11000001], table[0b00010010]) == (0, 8, 4, 3, 9)


def test_stain_does_not_see_batch_mates_nor_orientation():
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (11, 64, 64, 3), dtype=np.uint8)
    together = encoder("stain").encode(batch)
    assert together.shape == (11, len(STAIN_NAMES)) and together.dtype == np.float32
    assert np.array_equal(together[8], encoder("stain").encode(batch[8:9])[0])
    turned = encoder("stain").encode(np.rot90(batch, axes=(1, 2)))
    sampled = [i for name, i in PLACE.items() if "_q" in name]  # quantiles look at every fourth pixel
    assert np.delete(turned, sampled, 1) == pytest.approx(np.delete(together, sampled, 1), abs=2e-3)
    assert encoder("stain").encode(batch[:0]).shape == (0, 52)


# -- encoders ------------------------------------------------------------------------------------------------


def test_a_bare_name_is_refused_with_the_three_words():
    for spec in ("resnet50", "resnet50@", "resnet50@imagenet", "@hub"):
        with pytest.raises(ValueError, match=r"weights come from.*@untrained.*@hub.*@file:<path>.*'stain'"):
            encoder(spec)


def test_untrained_weights_are_always_the_same():
    batch = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    state = torch.random.get_rng_state()
    first = module.Timm("test_resnet@untrained", "cpu", False)
    found = first.encode(batch)
    assert found.shape == (3, first.dim) and found.dtype == np.float32
    assert torch.equal(state, torch.random.get_rng_state())  # and leave the caller's random numbers alone
    torch.manual_seed(99)
    assert np.array_equal(found, module.Timm("test_resnet@untrained", "cpu", False).encode(batch))
    model = first._model
    mean, std = (np.array(model.pretrained_cfg[key], np.float32) for key in ("mean", "std"))
    by_hand = torch.from_numpy((batch / 255 - mean) / std).permute(0, 3, 1, 2).float()
    assert found == pytest.approx(model(by_hand).numpy(), abs=1e-4)
    half = module.Timm("test_resnet@untrained", "cpu", True)
    assert half.version != first.version
    assert half.encode(batch) == pytest.approx(found, abs=0.1 * float(np.abs(found).max()))


def test_an_unknown_model_and_a_wrong_size_are_named():
    with pytest.raises(ValueError, match="timm has no such model"):
        encoder("resnet5000@untrained").encode(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="sees patches of 160 x 160 px only.*Set out_px"):
        encoder("test_vit@untrained").encode(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, 3\), at least 32 px wide, found float32"):
        encoder("stain").encode(np.zeros((1, 64, 64, 3), np.float32))


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(7)
    source = timm.create_model("test_resnet").eval()  # with its classifier, which is left out
    safetensors.torch.save_file(source.state_dict(), tmp_path / "a.safetensors")
    torch.save(source.state_dict(), tmp_path / "a.pth")
    batch = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found = [encoder(f"test_resnet@file:{tmp_path}/a.{kind}", "cpu") for kind in ("safetensors", "pth")]
    one, two = (e.encode(batch) for e in found)
    assert np.array_equal(one, two)
    assert not np.allclose(one, encoder("test_resnet@untrained", "cpu").encode(batch))
    assert found[0].version == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()

    part = {key: value for key, value in source.state_dict().items() if "layer4" not in key}
    safetensors.torch.save_file(part | {"odd": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"no state dict of test_resnet: \d+ entries are missing.*1 unknown"):
        encoder(f"test_resnet@file:{tmp_path}/b.safetensors").encode(batch)
    with pytest.raises(FileNotFoundError, match="there are no weights at .*c.pth"):
        _ = encoder(f"test_resnet@file:{tmp_path}/c.pth").version


def test_a_pickled_object_is_not_run(tmp_path):
    torch.save(timm.create_model("test_resnet"), tmp_path / "model.pth")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        encoder(f"test_resnet@file:{tmp_path}/model.pth").encode(np.zeros((1, 64, 64, 3), np.uint8))


def test_without_network_the_error_says_what_to_put_where(monkeypatch):
    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        FileNotFoundError, match="no route to host.*test_resnet.*'test_resnet@file:data/weights/"
    ):
        encoder("test_resnet@hub").encode(np.zeros((1, 64, 64, 3), np.uint8))


def test_import_is_light():
    code = "import sys, stlib.features; print({'torch', 'timm', 'openslide', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# -- caches --------------------------------------------------------------------------------------------------


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
        params=params, section=SimpleNamespace(name="S1", position=position), path=path, image=image
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
        assert found.shape == (nodes, len(STAIN_NAMES)) and found.dtype == np.float32
        assert np.array_equal(found, encoder("stain").encode(patches(data.params, data.section, level)))
    other = encoder("test_resnet@untrained", "cpu")
    assert features(data.params, data.section, "spot", other).shape == (5, other.dim)


def test_a_second_call_computes_nothing(data, monkeypatch):
    first = np.array(features(data.params, data.section, "region"))
    monkeypatch.setattr("stlib.slide.Slide", lambda path: pytest.fail("read again"))
    monkeypatch.setattr(module, "file_hash", lambda path: pytest.fail("hashed again"))
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
    monkeypatch.setattr(module.Stain, "version", "other")
    assert count() == 4
    write_pyramid(255 - data.image, data.path, 0.5)
    assert count() == 5
    data.section.position = data.section.position[:3]  # other cells
    assert count() == 6
    data.section.name, old = "S2", data.path
    old.rename(paths.slide_file("made", "S2"))
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
    assert (note["px"], note["out_px"], note["slide"]) == (100, 50, slide_hash(data.path))


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


def test_an_interrupted_encoder_leaves_nothing(data):
    class Broken:
        name, version, dim = "broken", "1", 4

        def encode(self, batch):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features(data.params, data.section, "spot", Broken())
    assert not paths.cache("features").exists() or not list(paths.cache("features").iterdir())


def test_slide_hash_follows_the_file(data, monkeypatch):
    found = slide_hash(data.path)
    assert found == hashlib.sha256(data.path.read_bytes()).hexdigest()
    data.path.write_bytes(b"another")
    assert slide_hash(data.path) == hashlib.sha256(b"another").hexdigest()
    with pytest.raises(FileNotFoundError, match="S9.tif is not there; prepare the dataset with `make data`"):
        slide_hash(paths.slide_file("made", "S9"))
