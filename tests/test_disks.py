"""Full and read-only disks: what could not be written is told, and what stood there stands.

Disks are real, small ones; `results/faults.md` lists all faults.
"""
# ruff: noqa: F401, F811 - fixtures of other files are imported, and named by tests

import json
import os
import re
import resource
import signal
import subprocess
from types import SimpleNamespace

import lab
import numpy as np
import pytest
import tifffile
import torch
from broken import ARRAY, IMAGE, cached, data, exits, process, seen
from test_download import CONTENT, FILES, server
from test_results import predictions

from stlib import download, fingerprint, paths
from stlib.checkpoint import load_checkpoint, save_checkpoint
from stlib.predictions import Predictions, load_predictions, save_predictions
from stlib.sections import read_section, write_section
from stlib.slide import Slide, write_pyramid


@pytest.fixture
def disk(tmp_path):
    """A disk of 128 KB: a folder whose `mount` takes other options, e.g. ``size=64m`` or ``ro``."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)

    if mount("size=128k").returncode:
        pytest.skip("a small disk is mounted, which takes a superuser")
    yield SimpleNamespace(folder=folder, mount=lambda options: mount(f"remount,{options}").check_returncode())
    subprocess.run(["umount", "--lazy", folder], check=True)


# ---- a full disk -------------------------------------------------------------------------------------------

FULL = r"could not be written \(No space left on device\); what stood there before still stands. Make room"


def write_checkpoint(folder):
    save_checkpoint(folder / "a.safetensors", torch.nn.Linear(300, 300), None, {"model": "m"})
    load_checkpoint(folder / "a.safetensors", torch.nn.Linear(300, 300), None, "m")


def write_slide(folder):
    write_pyramid(IMAGE, folder / "a.tif", 0.5)
    with Slide(folder / "a.tif") as slide:
        assert np.array_equal(slide.read(0, 0, 400, 600), IMAGE)


def write_unpacked(folder):
    source = folder.parent / "source.tif"
    tifffile.imwrite(source, IMAGE, compression="zlib", photometric="rgb")
    write_pyramid(source, folder / "a.tif", 0.5)


def write_cache(folder):
    assert np.array_equal(cached(folder, [ARRAY[:20], ARRAY[20:]]), ARRAY)


def write_record(folder):
    paths.write_text(folder / "run.json", "x" * 300_000)


@pytest.mark.fault(
    "full disk: a checkpoint, a slide, an unpacked TIFF, a cache of features, a record",
    "tmpfs of 128 KB, an older file in place; then 64 MB",
    "OSError 28 that names the file and the remedy; the older file is as it was, nothing lies beside "
    "it; with room the same call writes the whole",
)
@pytest.mark.parametrize("write", [write_checkpoint, write_slide, write_unpacked, write_cache, write_record])
def test_a_full_disk_is_told_and_nothing_is_lost(disk, data, write):
    for name in ("a.safetensors", "a.tif", "run.json"):
        (disk.folder / name).write_text("older")
    before = seen(disk.folder)
    with pytest.raises(OSError, match=FULL) as error:
        write(disk.folder)
    assert error.value.errno == 28 and str(disk.folder) in str(error.value)
    assert seen(disk.folder) == before and (disk.folder / "a.tif").read_text() == "older"
    disk.mount("size=64m")
    write(disk.folder)


def save_large(folder):
    """Write predictions and a section of some 400 KB each; say in a file beside the disk what happened."""
    rng, n = np.random.default_rng(0), 90_000
    values = rng.random((1, n), np.float32)
    large = Predictions(values, values, np.arange(n).astype(str), predictions().obs)
    genes = np.array([f"g{i}" for i in range(700)])
    said = []
    for name, write in (
        ("predictions.h5ad", lambda path: save_predictions(path, large, {})),
        ("S1.h5ad", lambda path: write_section(path, lab.section(n=600, genes=genes))),
    ):
        try:
            write(folder / name)
        except OSError as error:
            said.append([error.errno, str(error), seen(folder)])
    folder.with_name("said.json").write_text(json.dumps(said))


@pytest.mark.fault(
    "full disk: predictions, a section",
    "tmpfs of 128 KB, an .h5ad of 400 KB, in a process of its own (HDF5 used to crash)",
    "OSError 28 that names the file and the remedy, nothing half-written; with room both are written",
)
def test_a_full_disk_while_hdf5_writes(disk):
    assert exits(process(save_large, disk.folder)) == [0]
    said = json.loads(disk.folder.with_name("said.json").read_text())
    assert [(number, left) for number, _, left in said] == [(28, []), (28, [])], said
    for (_, message, _), name in zip(said, ("predictions.h5ad", "S1.h5ad"), strict=True):
        assert re.search(f"{name} {FULL}", message), message
    disk.mount("size=64m")
    assert exits(process(save_large, disk.folder)) == [0]
    assert len(load_predictions(disk.folder / "predictions.h5ad").genes) == 90_000
    assert len(read_section(disk.folder / "S1.h5ad")) == 600


@pytest.mark.fault(
    "full disk: a download",
    "tmpfs of 128 KB that had room when it was asked, a file of 300 KB; then 64 MB",
    "OSError 28 that names the file; what came is kept under its other name and continued (HTTP Range)",
)
def test_a_full_disk_while_a_file_comes(disk, server, monkeypatch):
    monkeypatch.setattr(
        download.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9)
    )  # was there
    with pytest.raises(OSError, match=FULL):
        download.download(FILES, server.url, disk.folder)
    assert seen(disk.folder) == [".A1.tsv.gz.partial", ".lock"]
    disk.mount("size=64m")
    download.download(FILES, server.url, disk.folder)
    assert server.asked[1][1].startswith("bytes=")
    assert {path: (disk.folder / path).read_bytes() for path in CONTENT} == CONTENT


@pytest.mark.fault(
    "a file larger than the limit of the process",
    "RLIMIT_FSIZE of 64 KB while a cache is written",
    "OSError 27 that names the file and the remedy, nothing half-written",
)
def test_a_limit_on_the_size_of_files(tmp_path):
    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        with pytest.raises(OSError, match=r"a.npy could not be written \(File too large\)"):
            paths.write_text(tmp_path / "a.npy", "x" * 300_000)

    assert exits(process(write)) == [0] and seen(tmp_path) == []


# ---- a read-only folder ------------------------------------------------------------------------------------


@pytest.mark.fault(
    "read-only folder: a cache, a record, a lock",
    "a disk remounted read-only",
    "OSError 30 that names the file and the remedy; nothing is changed; once it may be written to, it is",
)
@pytest.mark.parametrize(
    "write", [write_cache, write_record, lambda folder: download.download([], "", folder / "raw")]
)
def test_a_read_only_folder_is_told(disk, data, write):
    disk.mount("size=64m")
    (disk.folder / "run.json").write_text("older")
    disk.mount("ro")
    with pytest.raises(
        OSError, match=r"could not be written \(Read-only file system\).*STLIB_DATA or STLIB_OUT"
    ):
        write(disk.folder)
    assert seen(disk.folder) == ["run.json"]
    disk.mount("rw")
    write(disk.folder)


@pytest.mark.fault(
    "read-only folder: prepared data and caches that stand",
    "a disk with a slide and a cache, remounted read-only, the slide copied (another time of change)",
    "both are read; nothing is computed, nothing need be written",
)
def test_what_stands_in_a_read_only_folder_is_read(disk, data):
    disk.mount("size=64m")
    write_pyramid(IMAGE, disk.folder / "a.tif", 0.5)
    cached(disk.folder, [ARRAY])
    os.utime(disk.folder / "a.tif")
    disk.mount("ro")
    assert len(fingerprint.sealed(disk.folder / "a.tif")) == 64
    assert np.array_equal(cached(disk.folder, []), ARRAY)
