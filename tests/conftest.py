"""What tests share: a quiet plotting backend, one thread, and the toy tissue as `make prepare` leaves it."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

from stlib import paths
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
