"""What may go wrong beside the data: killed processes, two at once, clocks and edits; nothing is unpickled.

Whatever happens is told, leaves nothing half-written, and is repaired by the next run. A killed process is
killed. `results/faults.md` lists all faults.
"""
# ruff: noqa: F401, F811 - fixtures of other files are imported, and named by tests

import ast
import json
import os
import re
import shutil
import subprocess
import time

import faults
import lab
import numpy as np
import pytest
from broken import ARRAY, IMAGE, cached, data, exits, killed, process, run, seen
from test_download import CONTENT, FILES, server
from test_results import HISTORY, edit, out, package, predictions

from stlib import download, fingerprint, paths
from stlib.predictions import load_predictions, save_predictions
from stlib.results import Run
from stlib.sections import read_section, write_section
from stlib.slide import write_pyramid

# ---- a killed process --------------------------------------------------------------------------------------


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
def test_a_killed_download_goes_on(server, tmp_path):
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
def test_a_clock_that_goes_backwards(package, monkeypatch):
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
            yamled = re.fullmatch(r"yaml\.((unsafe_|full_)?load|C?(Unsafe|Full)?Loader)", name)
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
                 "import joblib", "pd.read_pickle(f)", "yaml.load(f)", "yaml.CLoader(f)",
                 "yaml.UnsafeLoader(f)"):  # fmt: skip
        assert unsafe(ast.parse(code)), code


# ---- the list ----------------------------------------------------------------------------------------------


def test_the_list_is_that_of_the_marks():
    assert faults.TABLE.read_text() == faults.table(), "write it anew: python tests/faults.py"
    listed = faults.faults()
    assert len(listed) >= 40 and len({name for name, *_ in listed}) == len(listed)
    assert all(len(words) == 4 and all(words) and not any("|" in word for word in words) for words in listed)
