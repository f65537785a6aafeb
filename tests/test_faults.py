"""What may go wrong beside the data: full and read-only disks, killed processes, two at once, clocks, edits.

Whatever happens is told, leaves nothing half-written, and is repaired by the next run. Disks are real, small
ones; a killed process is killed. What breaks one format stands with its module, or in `test_fuzz`;
`results/faults.md` lists all.
"""

import ast
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import faults
import lab
import numpy as np
import pytest
import tifffile
import torch
from test_download import CONTENT, FILES, server  # noqa: F401 - a fixture
from test_results import HISTORY, edit, out, package, predictions, prepared  # noqa: F401 - fixtures

from stlib import download, features, fingerprint, paths
from stlib.checkpoint import load_checkpoint, save_checkpoint
from stlib.predictions import Predictions, load_predictions, save_predictions
from stlib.results import Run
from stlib.sections import read_section, write_section
from stlib.slide import Slide, write_pyramid
from stlib.tiles import kept

IMAGE = np.random.default_rng(0).integers(0, 256, (600, 400, 3), dtype=np.uint8)
ARRAY = np.random.default_rng(1).random((64, 1000)).astype(np.float32)  # 256 KB


def seen(folder):
    """Return the files below a folder, hidden ones included."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def process(function, *words):
    """Start a function in a process of its own, which ends without the interpreter's clearing up."""
    started = multiprocessing.get_context("fork").Process(target=function, args=words)
    started.start()
    return started


def exits(*started):
    """Wait for processes; return their exit codes."""
    for one in started:
        one.join(120)
    return [one.exitcode for one in started]


def killed(moment, function, *words, at=(os, "fsync")):
    """Run a function in a process that is killed at a call, counted from 1: before a file gets its name."""
    plain, left = getattr(*at), moment

    def dying(number):
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(number)

    def run():
        setattr(*at, dying)
        function(*words)

    assert exits(process(run)) == [-signal.SIGKILL]


def cached(folder, blocks):
    """Cache an array that comes in blocks, as patches and features are cached."""
    paths.DATA = folder  # a test that calls this has `data` put it back
    return features._cached("features", {"of": "a test"}, {"nodes": len(ARRAY)}, placed(blocks))


def placed(blocks):
    """Yield each block with the rows that it fills, one block after another."""
    start = 0
    for block in blocks:
        yield np.arange(start, start + len(block)), block
        start += len(block)


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    return tmp_path


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
def test_a_full_disk_while_a_file_comes(disk, server, monkeypatch):  # noqa: F811
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


# ---- a killed process --------------------------------------------------------------------------------------


@pytest.fixture
def run(out, monkeypatch):  # noqa: F811
    """A run whose code is not read again for each fingerprint."""
    monkeypatch.setattr(fingerprint, "code_hash", lambda roots: "code")
    monkeypatch.setattr(fingerprint, "modules", lambda roots: [])
    return Run("2d", "toy", "mean")


@pytest.mark.fault(
    "killed while a cache is written",
    "SIGKILL before the array, its seal and its note get their names",
    "the cache counts as absent; the next call makes it whole and removes what the dead process left",
)
@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_cache_whose_maker_was_killed_is_made_anew(data, moment):
    killed(moment, cached, data, [ARRAY])
    assert any("partial" in name for name in seen(data))
    asked = []

    def blocks():
        asked.append(1)
        yield ARRAY

    assert np.array_equal(cached(data, blocks()), ARRAY) and asked
    assert len(seen(data)) == 3 and not any("partial" in name for name in seen(data))


@pytest.mark.fault(
    "killed while a run is written",
    "SIGKILL before predictions, their seal, the history, run.d and run.json get their names",
    "the run counts as absent; the next one writes the same bytes as an undisturbed one, and nothing is left",
)
def test_a_run_whose_process_was_killed_is_made_anew(run, tmp_path):
    for moment in range(1, 6):
        killed(moment, run.save, predictions(), HISTORY)
        assert run.stamp == "absent"
    run.save(predictions(), HISTORY)
    names = ["history.csv", "predictions.h5ad", "predictions.h5ad.sha256", "run.d", "run.json"]
    assert run.complete() and seen(run.folder) == names
    about = {"protocol": run.step, "dataset": run.dataset, "model": run.model, "setting": run.setting}
    save_predictions(tmp_path / "b.h5ad", predictions(), about)
    assert (tmp_path / "b.h5ad").read_bytes() == run.predictions.read_bytes()


@pytest.mark.fault(
    "killed while a file comes",
    "SIGKILL after half of a download",
    "the file is absent; the next call goes on at the byte and verifies the whole",
)
def test_a_killed_download_goes_on(server, tmp_path):  # noqa: F811
    server.behave[FILES[0].path] = ["cut", "503"]
    killed(1, download.download, FILES[:1], server.url, tmp_path, at=(time, "sleep"))
    assert seen(tmp_path) == [".A1.tsv.gz.partial", ".lock"]
    server.behave.clear()
    download.download(FILES[:1], server.url, tmp_path)  # the lock went with its process
    assert server.asked[-1][1].startswith("bytes=")
    assert (tmp_path / FILES[0].path).read_bytes() == CONTENT[FILES[0].path]


@pytest.mark.fault(
    "killed between a section and its seal",
    "a section rewritten, the seal of the older one beside it",
    "ValueError that tells to delete it and `make data`; written again it is read",
)
def test_a_section_without_its_own_seal_is_not_read(tmp_path):
    path = tmp_path / "S1.h5ad"
    write_section(path, lab.section(seed=1))
    older = (tmp_path / "S1.h5ad.sha256").read_text()
    write_section(path, lab.section())
    (tmp_path / "S1.h5ad.sha256").write_text(older)
    with pytest.raises(ValueError, match="S1.h5ad is damaged.*Delete it and run `make data DATASET="):
        read_section(path)
    write_section(path, lab.section())
    lab.same(read_section(path), lab.section())


# ---- two at once -------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "two processes make one cache",
    "three started together",
    "each ends well, one whole array stands, nothing lies beside it",
)
def test_two_processes_make_one_cache(data):
    assert exits(*(process(cached, data, [ARRAY[:20], ARRAY[20:]]) for _ in range(3))) == [0, 0, 0]
    assert np.array_equal(cached(data, []), ARRAY) and len(seen(data)) == 3


@pytest.mark.fault(
    "two processes write one run",
    "two started together",
    "each ends well; the run is complete, its predictions are whole",
)
def test_two_processes_write_one_run(run):
    assert exits(*(process(run.save, predictions(), HISTORY) for _ in range(2))) == [0, 0]
    assert run.complete() and load_predictions(run.predictions).prediction.tolist() == [[1, 1]]


@pytest.mark.fault(
    "two writers of one file, one of them dead",
    "a file that a dead and one that a living process has begun",
    "the dead one's goes with the next write, the living one's stays",
)
def test_only_what_the_dead_began_is_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    node, parent = os.uname().nodename, os.getppid()
    for name in (
        f".a.{node}.{dead.pid}.partial.txt",
        f".a.{node}.{parent}.partial.txt",
        f".a.other.{dead.pid}.partial.txt",
    ):
        (tmp_path / name).write_text("half")
    paths.write_text(tmp_path / "a.txt", "whole")
    assert seen(tmp_path) == sorted(
        [f".a.{node}.{parent}.partial.txt", f".a.other.{dead.pid}.partial.txt", "a.txt"]
    )


# ---- clocks and edits --------------------------------------------------------------------------------------


@pytest.mark.fault(
    "the clock goes backwards while a run computes, and a module is edited",
    "the edited module has a time of 1970, the process a clock that runs backwards",
    "the run is incomplete and its record older than the edit, so that Make repeats it; its seconds hold",
)
def test_a_clock_that_goes_backwards(package, monkeypatch):  # noqa: F811
    run = Run("preprocessing", "toy").begin()
    edit(package / "expression.py")
    os.utime(package / "expression.py", (1000, 1000))
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    run.finish()
    assert run.record.stat().st_mtime < 1000 and not Run("preprocessing", "toy").complete()
    assert 0 <= json.loads(run.record.read_text())["seconds"] < 600
    make = f"{run.record}: {package / 'expression.py'}\n\t@echo again\n"
    (package / "Makefile").write_text(make)
    assert (
        subprocess.run(["make", "-f", package / "Makefile"], capture_output=True, text=True).stdout
        == "again\n"
    )


@pytest.mark.fault(
    "the clock goes backwards between a file and its change",
    "a slide of the same size, changed, with an earlier time",
    "ValueError: damaged; hashes are kept with a time that must be equal, not later",
)
def test_a_change_with_an_earlier_time_is_seen(tmp_path):
    path = tmp_path / "a.tif"
    write_pyramid(IMAGE, path, 0.5)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, (1000, 1000))
    with pytest.raises(ValueError, match="a.tif is damaged: its bytes are not those that were written"):
        fingerprint.sealed(path)


@pytest.mark.fault(
    "a params file is edited while a run computes",
    "`epochs` of a model changed between begin and finish",
    "the record tells the parameters it computed with, is incomplete, and older than the edit; the next run "
    "takes the new ones",
)
def test_params_that_are_edited_in_mid_run(run, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PARAMS", shutil.copytree(paths.PARAMS, tmp_path / "params"))
    file = paths.PARAMS / "toy.yaml"
    run.begin()
    file.write_text(file.read_text().replace("um_per_px: ", "um_per_px: 1", 1))
    run.save(predictions(), HISTORY)
    assert not Run("2d", "toy", "mean").complete()
    assert run.record.stat().st_mtime < file.stat().st_mtime
    record = json.loads(run.record.read_text())
    assert record["parameters"] == run.uses != Run("2d", "toy", "mean").uses
    again = Run("2d", "toy", "mean")
    again.save(predictions(), HISTORY)
    assert Run("2d", "toy", "mean").complete()


# ---- damage to what stands ---------------------------------------------------------------------------------


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
def test_damaged_data_are_prepared_anew(prepared, damage):  # noqa: F811
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
    path = tmp_path / "0-0.safetensors"
    assert kept(path, lambda: torch.arange(40)).tolist() == list(range(40))
    damage(path)
    with pytest.warns(UserWarning, match="0-0.safetensors: not a readable checkpoint"):
        assert kept(path, lambda: torch.arange(40)).tolist() == list(range(40))
    assert kept(path, lambda: 1 / 0).tolist() == list(range(40))


# ---- pickle ------------------------------------------------------------------------------------------------


def unsafe(tree):
    """Return the calls that could run what a file holds."""
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = getattr(node, "module", "") if isinstance(node, ast.ImportFrom) else ""
        found += [
            name
            for name in [*names, module]
            if name in ("joblib", "dill", "cloudpickle", "shelve", "marshal")
        ]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            pickled = re.fullmatch(
                r"(pickle|_pickle|pd|pandas)\.(load|loads|Unpickler|read_pickle)|(eval|exec)", name
            )
            torched = name == "torch.load" and words.get("weights_only") != "True"
            arrays = words.get("allow_pickle", "False") != "False"
            yamled = name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load")
            found += [name] if pickled or torched or arrays or yamled else []
    return found


@pytest.mark.fault(
    "a pickle is read",
    "any call of pickle, joblib, torch.load without weights_only, allow_pickle, yaml.load in any source",
    "there is none in the package, the notebooks and the benchmarks",
)
def test_nothing_is_unpickled_anywhere():
    sources = [
        path
        for folder in ("stlib", "notebooks", "benchmarks")
        for path in (paths.ROOT / folder).rglob("*.py")
    ]
    assert len(sources) > 100
    assert {str(path): found for path in sources if (found := unsafe(ast.parse(path.read_text())))} == {}
    for code in ("import pickle\npickle.load(f)", "torch.load(f)", "np.load(f, allow_pickle=True)",
                 "import joblib", "pd.read_pickle(f)", "yaml.load(f)"):  # fmt: skip
        assert unsafe(ast.parse(code)), code


# ---- the list ----------------------------------------------------------------------------------------------


def test_the_list_is_that_of_the_marks():
    assert faults.TABLE.read_text() == faults.table(), "write it anew: python tests/faults.py"
    listed = faults.faults()
    assert len(listed) >= 40 and len({name for name, *_ in listed}) == len(listed)
    assert all(len(words) == 4 and all(words) and not any("|" in word for word in words) for words in listed)
