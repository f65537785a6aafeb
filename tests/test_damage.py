"""Damage to what stands: it is noticed, never read, and made anew or refused with its remedy.

What breaks one format of a source stands with its module, or in `test_fuzz`; `results/faults.md` lists all.
"""
# ruff: noqa: F401, F811 - fixtures of other files are imported, and named by tests

import os
from types import SimpleNamespace

import lab
import numpy as np
import pytest
import torch
from broken import ARRAY, IMAGE, cached, data, run
from test_results import HISTORY, out, predictions, prepared

from stlib import fingerprint, paths
from stlib.checkpoint import load_checkpoint, save_checkpoint
from stlib.predictions import load_predictions
from stlib.sections import read_section, write_section
from stlib.slide import write_pyramid
from stlib.tiles import Tile, kept


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


DAMAGE = {"cut off": lambda content: content[: len(content) // 2], "garbage": lambda content: b"?" * 100,
          "empty": lambda content: b"", "one bit": flipped}  # fmt: skip


@pytest.fixture(params=DAMAGE)
def damage(request):
    """Return a function that damages a file."""
    return lambda path: path.write_bytes(DAMAGE[request.param](path.read_bytes()))


@pytest.mark.fault(
    "damaged predictions",
    "cut off, garbage, empty, one bit",
    "ValueError with the remedy; the run is incomplete, the next one writes the same predictions",
)
def test_damaged_predictions_are_never_read(run, damage):
    run.save(predictions(), HISTORY)
    whole = run.predictions.read_bytes()
    damage(run.predictions)
    with pytest.raises(
        ValueError, match="predictions.h5ad is damaged.*make its run again .`make runs/2d/toy"
    ):
        load_predictions(run.predictions)
    assert not run.complete()
    assert f"{os.path.relpath(run.predictions, paths.ROOT)}:" in (run.folder / "run.d").read_text()
    run.save(predictions(), HISTORY)
    assert run.complete() and run.predictions.read_bytes() == whole


@pytest.mark.fault(
    "a damaged history of a training",
    "cut off, garbage, empty, one bit",
    "the run is incomplete and made anew",
)
def test_a_damaged_history_makes_a_run_incomplete(run, damage):
    run.save(predictions(), HISTORY)
    damage(run.history)
    assert not run.complete()
    run.save(predictions(), HISTORY)
    assert run.complete() and run.train()[1]["loss"].tolist() == [1.0]


@pytest.mark.fault(
    "a damaged run.json",
    "cut off, garbage, empty",
    "it counts as absent, without a traceback; the run is made anew",
)
@pytest.mark.parametrize("how", ["cut off", "garbage", "empty"])
def test_a_damaged_record_is_none(run, how):
    run.save(predictions(), HISTORY)
    run.record.write_bytes(DAMAGE[how](run.record.read_bytes()))
    assert run.stamp == "absent" and not run.complete()
    run.save(predictions(), HISTORY)
    assert run.complete()


@pytest.mark.fault(
    "a damaged section, slide or manifest",
    "cut off, garbage, empty, one bit in what `make data` wrote",
    "the step `data` is incomplete and Make is told to look: it is prepared anew",
)
def test_damaged_data_are_prepared_anew(prepared, damage):
    for product in (prepared.products[0], prepared.products[1], prepared.products[-1]):
        assert prepared.complete()
        whole = product.read_bytes()
        damage(product)
        assert not prepared.complete()
        product.write_bytes(whole)


@pytest.mark.fault(
    "a damaged section is read",
    "cut off, garbage, empty, one bit",
    "ValueError that tells to delete it and `make data`, before HDF5, which hangs on some damage, sees it",
)
def test_a_damaged_section_is_never_read(tmp_path, damage):
    write_section(tmp_path / "S1.h5ad", lab.section())
    damage(tmp_path / "S1.h5ad")
    with pytest.raises(ValueError, match="S1.h5ad is damaged.*Delete it and run `make data DATASET="):
        read_section(tmp_path / "S1.h5ad")


@pytest.mark.fault(
    "a damaged cache of features",
    "cut off, garbage, empty, one bit",
    "a warning that names it; it is made anew, whole",
)
def test_a_damaged_cache_is_made_anew(data, damage):
    cached(data, [ARRAY])
    (path,) = (data / "cache/features").glob("*.npy")
    damage(path)
    with pytest.warns(
        UserWarning, match="is damaged .its bytes are not those that were written.; it is made anew"
    ):
        assert np.array_equal(cached(data, [ARRAY]), ARRAY)


@pytest.mark.fault(
    "a damaged seal",
    "cut off, garbage, empty, one bit in the hash that is kept beside a slide",
    "the slide is not trusted: ValueError with the remedy; never a traceback of JSON",
)
def test_a_damaged_seal_is_no_seal(tmp_path, damage):
    write_pyramid(IMAGE[:50, :50], tmp_path / "a.tif", 0.5)
    seal = tmp_path / "a.tif.sha256"
    damage(seal)
    with pytest.raises(ValueError, match="a.tif is damaged.*whose SHA-256 is unknown. Delete it"):
        fingerprint.sealed(tmp_path / "a.tif")


@pytest.mark.fault(
    "a damaged checkpoint",
    "cut off, garbage, empty, one bit of a weight",
    "ValueError that tells to delete it; what it holds is made anew",
)
def test_a_damaged_checkpoint_is_never_resumed(tmp_path, damage):
    path, model = tmp_path / "a.safetensors", torch.nn.Linear(30, 30)
    save_checkpoint(path, model, None, {"model": "m"})
    damage(path)
    with pytest.raises(ValueError, match="not a readable checkpoint.*Delete it; what it holds is made anew"):
        load_checkpoint(path, model, None, "m")


@pytest.mark.fault(
    "a damaged part of a whole slide's prediction",
    "cut off, garbage, empty, one bit in what a tile left",
    "a warning that names it; the tile is computed anew",
)
def test_a_damaged_part_is_made_anew(tmp_path, damage):
    path, seen = tmp_path / "0-0.safetensors", torch.zeros(1, 3, 8, 8)
    tiles = SimpleNamespace(path=path, read=lambda parts: iter([seen] * len(parts)))
    tile = Tile((0, 0, 8, 8), (0, 0, 8, 8), np.arange(1))

    def made(values):
        (found,) = kept(tiles, [tile], lambda *_: torch.arange(values), tmp_path)
        return found.tolist()

    assert made(40) == list(range(40))
    damage(path)
    with pytest.warns(UserWarning, match="0-0.safetensors: not a readable checkpoint"):
        assert made(40) == list(range(40))
    assert made(0) == list(range(40))  # it stands, and is not made again
