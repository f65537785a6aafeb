"""What tests share: a quiet plotting backend, one thread, and the toy tissue as `make prepare` leaves it."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import made
import pytest

from stlib import paths, tables
from stlib.params import Params, load_params
from stlib.sections import Section, load_sections


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums differ between thread counts; tests compare."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy() -> Params:
    """The toy dataset, prepared."""
    params = load_params("toy")
    if not (paths.processed("toy") / "registration.json").exists():
        pytest.fail("the toy tissue is not prepared; run `make prepare` (or `make test`, which does)")
    return params


@pytest.fixture(scope="session")
def toy_sections(toy: Params) -> dict[str, Section]:
    """All prepared sections of the toy."""
    return load_sections(toy, toy.with_slide)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of tables that holds the small one of `made`."""
    (tmp_path / "small.yaml").write_text(made.YAML)
    (tmp_path / "reported.csv").write_bytes((paths.TABLES / "reported.csv").read_bytes())
    monkeypatch.setattr(paths, "TABLES", tmp_path)
    return tmp_path


@pytest.fixture
def table(folder):
    """The small table of `made`."""
    return tables.load_table("small")


@pytest.fixture
def found(table):
    """Its numbers."""
    return made.numbers(table)
