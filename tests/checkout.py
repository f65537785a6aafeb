"""A copy of this checkout, with a tissue so small that a run is all start and no work: for tests of make."""

import os
import shutil
import subprocess
from pathlib import Path

import yaml

from stlib.paths import ROOT

MODEL = "magnet"  # trained; the rest of a grid are controls


class Checkout:
    """A folder in which `make` works, on data of its own."""

    def __init__(self, folder: Path, epochs: int):
        self.folder = folder
        for name in ("stlib", "notebooks", "params", "tables"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "rendered")
            )
        for name in ("Makefile", "pyproject.toml", "requirements.lock"):
            shutil.copy2(ROOT / name, folder)  # with its time, or make would build the environment
        (folder / ".venv").symlink_to(ROOT / ".venv")
        (folder / "params" / "tiny.yaml").write_text(yaml.safe_dump(tiny(epochs)))
        away = {"MAKEFLAGS", "MAKELEVEL", "STLIB_OUT"}
        own = {"OMP_NUM_THREADS": "1", "STLIB_DATA": str(folder / "data"), "PYTHONPATH": str(folder)}
        self.environment = {name: text for name, text in os.environ.items() if name not in away} | own

    def make(self, *words: str) -> subprocess.Popen:
        """Start make, two jobs at a time."""
        return subprocess.Popen(
            ["make", "-k", "JOBS=2", *words], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, model: str) -> Path:
        """Return the folder of a run of the protocol 2d."""
        return self.folder / "runs" / "2d" / "tiny" / model / "strict-s0"

    def target(self, model: str) -> str:
        """Return what make calls it."""
        return str((self.run(model) / "run.json").relative_to(self.folder))


def tiny(epochs: int) -> dict:
    """Return the toy with three patients of one small section, and a small network."""
    content = yaml.safe_load((ROOT / "params" / "toy.yaml").read_text())
    content["name"] = "tiny"
    content["source"]["options"] |= {"genes": 30, "size_px": 600, "radius_um": 400.0, "shift_um": 20.0}
    content["sections"] = {patient: [f"{patient}-1"] for patient in ("P1", "P2", "P3")}
    content["known"] = {patient: f"{patient}-1" for patient in content["sections"]}
    content["folds"] = {"2d": {"P1": ["P1"]}, "3d": {"P1": ["P1"]}}
    content["spot"] = {"shape": "circle", "size_um": 60, "pitch_um": 100}
    content["panel"] = {"size": 10}
    content["training"] = {}
    own = content["overrides"][MODEL] | {"width": 16, "heads": 2, "epochs": epochs, "batches_per_step": 2}
    content["overrides"] = {MODEL: own}
    return content
