import subprocess
import sys

from stlib import fingerprint, paths
from stlib.params import load_params
from stlib.results import Run


def names(roots):
    return {path.stem for path in fingerprint.modules(roots)}


def test_a_training_rests_on_what_it_imports_and_on_nothing_else():
    found = names(["stlib.train", "stlib.models.asign"])
    assert {"train", "batch", "asign", "encoders", "graph", "features", "alignment", "expression"} <= found
    assert {"checkpoint", "losses"} <= found
    assert not found & {"metrics", "tables", "render", "plots", "figures", "results", "stnet", "show"}
    assert "registration" not in found


def test_another_model_is_another_recipe_and_its_settings_are_not_ours():
    params = load_params("toy")
    assert "stnet" not in fingerprint.resolved(params, ["asign"])["overrides"]
    assert fingerprint.resolved(params, ["asign@no_gat"])["overrides"].keys() == {"asign"}


def test_prose_may_change_freely(monkeypatch):
    base = fingerprint.resolved(load_params("toy"), [])
    toy = load_params("toy")
    cited = toy.source.model_copy(update={"citation": "anew"})
    changed = toy.model_copy(update={"title": "another", "notes": ["x"], "source": cited})
    assert fingerprint.resolved(changed, []) == base


def test_a_changed_line_changes_the_hash(tmp_path, monkeypatch):
    (tmp_path / "alone.py").write_text("x = 1\n")
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path)
    before = fingerprint.code_hash(["stlib.alone"])
    (tmp_path / "alone.py").write_text("x = 2\n")
    assert fingerprint.code_hash(["stlib.alone"]) != before


def test_comments_and_docstrings_may_change_freely(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path)
    (tmp_path / "alone.py").write_text('"""One."""\n\ndef f(x):\n    """Two."""\n    return x  # three\n')
    before = fingerprint.code_hash(["stlib.alone"])
    (tmp_path / "alone.py").write_text('"""Another."""\n\n\ndef f(x):\n    """Words."""\n\n    return x\n')
    assert fingerprint.code_hash(["stlib.alone"]) == before
    (tmp_path / "alone.py").write_text('def f(x):\n    return "a string that is returned"\n')
    assert fingerprint.code_hash(["stlib.alone"]) != before


def test_files_that_settings_name_are_found_in_overrides_and_in_defaults():
    own = {"encoder": "resnet18@file:data/my weights.bin", "lr": 0.1}
    content = {"encoder": "stain", "overrides": {"stnet": own}}
    assert fingerprint.named_files(content, []) == [paths.ROOT / "data/my weights.bin"]
    found = fingerprint.named_files({"encoder": "stain", "overrides": {}}, ["stlib.models.triplex"])
    assert {path.name for path in found} == {"tenpercent_resnet18.ckpt"}
    assert fingerprint.named_files({"encoder": "stain", "overrides": {}}, ["stlib.models.mean"]) == []


def test_other_weights_in_a_file_are_noticed_and_nothing_is_written_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    file = tmp_path / "weights.safetensors"
    assert fingerprint.weights_hash(file) == "absent"
    file.write_bytes(b"one")
    before = fingerprint.weights_hash(file)
    file.write_bytes(b"another")
    assert fingerprint.weights_hash(file) != before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["weights.safetensors"]


def test_a_listing_changes_with_its_files_and_not_with_hidden_ones(tmp_path):
    (tmp_path / "A.tsv").write_text("1")
    before = fingerprint.listing_hash(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_text("x")
    assert fingerprint.listing_hash(tmp_path) == before
    (tmp_path / "A.tsv").write_text("22")
    assert fingerprint.listing_hash(tmp_path) != before


def test_a_notebook_counts_by_its_code_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    (tmp_path / "n.py").write_text("# %% [markdown]\n# # a\n\n# %%\nx = 1\n")
    before = fingerprint.notebook_hash("n")
    (tmp_path / "n.py").write_text("# %% [markdown]\n# # b\n\n# %%\nx = 1\n")
    assert fingerprint.notebook_hash("n") == before
    (tmp_path / "n.py").write_text("# %% [markdown]\n# # b\n\n# %%\nx = 2\n")
    assert fingerprint.notebook_hash("n") != before


def test_a_run_knows_its_folder_and_back():
    run = Run("2d", "toy", "asign@no_gat", "published", 3)
    assert Run.at(run.folder) == run
    assert Run.at(Run("data", "toy").folder) == Run("data", "toy")


def test_seed_setting_and_model_make_different_runs():
    recipes = {
        Run("2d", "toy", model, setting, seed).recipe
        for model in ("mean", "ridge")
        for setting in ("strict", "published")
        for seed in (0, 1)
    }
    assert len(recipes) == 8


def imported(modules):
    code = f"import sys, {modules}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_training_imports_no_heavy_library():
    heavy = {
        "anndata",
        "scanpy",
        "openslide",
        "papermill",
        "SimpleITK",
        "sklearn",
        "scipy.stats",
        "statsmodels",
    }
    found = imported("stlib.train, stlib.models.asign, stlib.models.stnet, stlib.models.smooth_ridge")
    assert "torch" in found and not heavy & found


def test_what_asks_whether_a_run_stands_imports_no_numbers():
    assert not {"numpy", "pandas", "torch", "papermill"} & imported("stlib.results, stlib.execute")
