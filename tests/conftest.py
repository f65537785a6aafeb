"""What tests share: a quiet plotting backend, one thread, and the toy tissue as `make prepare` leaves it."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import made
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from stlib import paths, tables
from stlib.params import Params, load_params
from stlib.sections import Section, load_sections

# the same examples each time: a test that fails once fails again
settings.register_profile(
    "house", deadline=None, derandomize=True, database=None, max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("house")


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
def toy_hd() -> Params:
    """The toy dataset in bins of 16 um, prepared."""
    params = load_params("toy_hd@16um")
    if not (paths.processed(params.name) / "manifest.json").exists():
        pytest.fail("the toy tissue in bins is not prepared; run `make prepare DATASET=toy_hd@16um`")
    return params


@pytest.fixture(scope="session")
def toy_sections(toy: Params) -> dict[str, Section]:
    """All prepared sections of the toy."""
    return load_sections(toy, toy.with_slide)


@pytest.fixture(scope="session")
def cohort():
    """The toy's counts and the rates behind them, straight from the seed: nothing on disk is read."""
    from scipy import sparse

    from stlib.cohort import Cohort
    from stlib.datasets.toy import tissue
    from stlib.expression import top_mean_panel

    params, sections = load_params("toy"), {}
    made = tissue(params)
    for name, patient in params.patient_of.items():
        array, position = made.spots(name)
        counts, rate = made.measure(name)
        sections[name] = Section(
            name=name, patient=patient, layer=params.sections[patient].index(name) + 1,
            barcodes=np.array([f"{column}x{row}" for column, row in array]), genes=made.genes,
            counts=sparse.csr_matrix(counts), array=array.astype(float), position=position,
            um_per_px=np.full(2, made.options.um_per_px), size_px=None, shape=params.spot.shape,
            size_um=params.spot.size_um, pitch_um=params.spot.pitch_um, rate=rate,
            dispersion=made.options.dispersion,
        )  # fmt: skip
    return Cohort.of(params, sections, top_mean_panel(sections.values(), params.panel.size))


@pytest.fixture
def ax():
    """Axes of a figure that is closed afterwards."""
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


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


@pytest.fixture
def painted():
    """Return a function that paints one lopsided piece of tissue: uint8 (H, W, 3), moved by a shift in px."""
    from PIL import Image

    def paint(width: int, height: int, shift: tuple[float, float] = (0, 0)) -> np.ndarray:
        rng = np.random.default_rng(3)
        y, x = np.mgrid[: height // 8, : width // 8] * 8.0
        place = np.stack([(x - shift[0]) / width - 0.45, (y - shift[1]) / height - 0.45])
        angle = np.arctan2(place[1], place[0])
        outline = 0.27 + 0.07 * np.cos(angle - 1) + 0.05 * np.cos(2 * angle) + 0.04 * np.cos(3 * angle + 2)
        blobs = sum(np.exp(-((place.T - c) ** 2).sum(2).T * 800) for c in rng.uniform(-0.3, 0.3, (40, 2)))
        stain = (np.hypot(*place) < outline) * (0.25 + 0.5 * np.minimum(blobs, 1.2))
        image = (240 * 10 ** (-stain[..., None] * [0.6, 1.0, 0.35])).astype(np.uint8)
        return np.asarray(Image.fromarray(image).resize((width, height)))

    return paint


@pytest.fixture
def chain(monkeypatch, tmp_path):
    """Return a function that does what notebooks 01, 02, 03 and 05 do, with `smooth`, from raw files on."""

    def run(params: Params, raw) -> tuple:
        from stlib import datasets, graph, paths
        from stlib.expression import top_mean_panel
        from stlib.features import features, patches
        from stlib.registration import register_dataset
        from stlib.splits import folds
        from stlib.task import Task
        from stlib.train import train_fold

        monkeypatch.setattr(paths, "DATA", tmp_path / "house")
        folder = datasets.raw_folder(params, str(raw))
        datasets.fetch(params, folder)
        manifest = datasets.prepare(params, folder)
        assert {name: set(kinds) for name, kinds in manifest.items()} == dict.fromkeys(
            params.with_slide, {"h5ad", "tif"}
        )
        sections = load_sections(params, params.patient_of)
        assert len(top_mean_panel(sections.values(), params.panel.size)) == params.panel.size
        for section in sections.values():
            assert len(patches(params, section, "spot")) == len(section)
            assert [len(features(params, section, level)) > 0 for level in ("spot", "region", "global")]
            graph.knn_graph(section.position, 8)
        registered = register_dataset(params)
        fold = folds(params, "3d")[0]
        predictions, *_ = train_fold(Task(params, fold, "smooth", "3d", 0, tmp_path / "run", "recipe"))
        return sections, registered, predictions, datasets.totals(sections)

    return run
