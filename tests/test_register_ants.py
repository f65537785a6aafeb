"""The paper's route, really run: XFeat with made weights, ANTs on small images."""

import hashlib
import sys

import numpy as np
import pytest
from made import register
from scipy import ndimage
from test_registration import LANDMARKS, paint, rigid

from stlib import params, paths, register_ants
from stlib.alignment import Field, apply
from stlib.fingerprint import file_hash
from stlib.params import Matcher
from stlib.stages import Pair
from stlib.views import View, see
from stlib.weights import read_state

UM = 16.0


def views(matrix: np.ndarray, noise: int = 0) -> list[View]:
    return see(paint(matrix, um_per_px=UM, noise=noise), UM, (32.0, 16.0, 16.0))


def error(matrix: np.ndarray, true: np.ndarray) -> float:
    return np.linalg.norm(apply(matrix, LANDMARKS) - apply(true, LANDMARKS), axis=1).max()


@pytest.fixture(scope="module")
def state():
    """Weights as a seed makes them, but sure of its keypoints: equal places look equal, and no more."""
    import torch
    from kornia.feature import XFeat

    torch.manual_seed(0)
    made = XFeat().net.state_dict()
    made["keypoint_head.3.weight"] *= 200
    return made


@pytest.fixture
def weights(state, tmp_path, monkeypatch) -> Matcher:
    from safetensors.torch import save_file

    monkeypatch.setattr(paths, "DATA", tmp_path)
    save_file({f"net.{key}": value.clone() for key, value in state.items()}, tmp_path / "xfeat.safetensors")
    digest = hashlib.sha256((tmp_path / "xfeat.safetensors").read_bytes()).hexdigest()
    return Matcher(source="xfeat.safetensors", sha256=digest)


def test_matches_that_agree_are_counted():
    rng, true = np.random.default_rng(0), rigid(30, (100, -50))
    source = rng.uniform(0, 1600, (60, 2))
    target = apply(true, source) + rng.normal(0, 5, (60, 2))
    target[:25] = rng.uniform(0, 1600, (25, 2))  # false ones
    matrix, inliers = register_ants.agree(source, target)
    assert 35 <= inliers <= 38 and error(matrix, true) < 15
    assert register_ants.agree(source[:3], target[:3]) == (None, 3)


def test_xfeat_finds_an_image_in_itself(weights):
    """Made weights know no tissue, but equal places look equal: matches are found, and lie where they are."""
    one = views(np.eye(2, 3))
    pair = Pair(one, one)
    register_ants.match(pair, weights)
    (stage,) = pair.stages
    assert stage.name == "xfeat" and stage.inliers >= 20 and "agree" in stage.note
    state = read_state(paths.DATA / weights.source, "", "")
    source, target = register_ants.matches(one[2], one[2], state)
    assert np.median(np.linalg.norm(source - target, axis=1)) == 0


def test_without_weights_the_search_starts_and_says_so(weights):
    pair = Pair(views(np.eye(2, 3)), views(rigid(5, (0, 0))))
    register_ants.match(pair, None)
    register_ants.match(pair, Matcher(source="absent.pt", sha256="0" * 64))
    assert not pair.aligned and "registration.xfeat is not set" in pair.stages[0].note
    assert "absent.pt is not there" in pair.stages[1].note
    with pytest.raises(ValueError, match="sha256 names 0000"):
        register_ants.match(pair, Matcher(source=weights.source, sha256="0" * 64))


@pytest.mark.fault(
    "weights of XFeat that hold a pickled object",
    "a .pt whose pickle would run code",
    "ValueError; nothing is run",
)
def test_pickled_objects_are_not_run(tmp_path):
    import torch

    file, pair = tmp_path / "xfeat.pt", Pair(views(np.eye(2, 3)), views(np.eye(2, 3)))
    torch.save({"a": object()}, file)
    with pytest.raises(ValueError, match="registration.xfeat: xfeat.pt holds more than tensors"):
        register_ants.match(pair, Matcher(source=str(file), sha256=file_hash(file)))


def test_ants_refines_a_rigid_start_and_repeats_itself():
    true = rigid(12, (60, 30))
    moving, fixed = views(np.eye(2, 3), 1), views(true, 2)
    start = rigid(9, (90, 20))
    found = [register_ants.linear("Rigid", start, moving[2], fixed[2])[0] for _ in range(2)]
    assert error(start, true) > 35 and error(found[0], true) < 8
    assert np.array_equal(*found)
    stretched, _ = register_ants.linear("Affine", start @ np.diag([1.03, 0.98, 1]), moving[2], fixed[2])
    assert error(stretched, true) < 12


def test_the_linear_stages_run_with_the_settings_of_the_script(monkeypatch):
    import ants

    inner, given = sys.modules[ants.registration.__module__], []
    process = inner.process_arguments
    monkeypatch.setattr(inner, "process_arguments", lambda args: given.append(args) or process(args))
    one = views(np.eye(2, 3))
    register_ants.refine(Pair(one, one))
    for args, kind in zip(given, ("Rigid", "Affine"), strict=True):
        told = dict(zip(args, args[1:], strict=False))  # flag -> value
        assert told["--transform"].startswith(kind) and told["--metric"].startswith("mattes")
        assert told["--convergence"] == "1000x500x250x100"
        assert told["--shrink-factors"] == "12x8x4x2" and told["--smoothing-sigmas"] == "4x3x2x1"


def test_what_ants_says_when_it_gives_up_stands_in_the_note(monkeypatch):
    import ants

    def registration(*_, type_of_transform, **__):
        raise RuntimeError(f"{type_of_transform} failed with error code 1\nand a trace")

    monkeypatch.setattr(ants, "registration", registration)
    one = views(np.eye(2, 3))
    pair = Pair(one, one)
    register_ants.refine(pair)
    register_ants.bend(pair)
    said = [f"{kind} failed with error code 1" for kind in ("Rigid", "Affine", "SyNOnly")]
    assert [stage.note for stage in pair.stages] == said
    assert not pair.aligned and all(stage.after.total == 0 for stage in pair.stages)


def test_syn_bends_towards_the_truth_and_repeats_itself():
    rough = np.random.default_rng(0).normal(size=(100, 100))
    density = (10 * ndimage.gaussian_filter(rough, 3)).astype(np.float32)
    fixed = View(np.full(2, UM), np.ones((100, 100), bool), density - density.min())
    true = Field(np.full(2, -300.0), 600.0, np.random.default_rng(3).normal(0, 50, (6, 6, 2)))
    moved = fixed.pulled(fixed.density.astype(float), true)
    moving = View(fixed.um_per_px, fixed.mask, moved.astype(np.float32))
    one, two = (register_ants.syn(np.eye(2, 3), moving, fixed)[0] for _ in range(2))
    inner = fixed.places[20:-20, 20:-20]
    left = np.linalg.norm(one.forward(inner) - true.forward(inner), axis=-1)
    assert np.median(left) < 0.6 * np.median(np.linalg.norm(inner - true.forward(inner), axis=-1))
    assert np.array_equal(one.nodes, two.nodes)


def test_the_route_aligns_and_says_what_it_did():
    true = rigid(160, (40, -30))
    settings = params.Registration(route="ants", um_per_px=UM)
    images = paint(np.eye(2, 3), um_per_px=UM, noise=1), paint(true, um_per_px=UM, noise=2)
    found = register(*images, UM, UM, settings)
    names = ["xfeat", "outline and density", "rigid", "ants rigid", "ants affine", "ants syn"]
    assert found.ok and [stage.name for stage in found.stages] == names
    assert not found.stages[0].accepted and found.stages[1].accepted
    assert found.to_um(LANDMARKS / UM) == pytest.approx(apply(true, LANDMARKS), abs=UM)


def test_weights_without_the_route_are_refused():
    with pytest.raises(ValueError, match="xfeat is used by the route ants alone"):
        params.Registration(um_per_px=8.0, xfeat=Matcher(source="a", sha256="0" * 64))
