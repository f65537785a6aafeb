"""Alignments of painted tissue whose true map is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from stlib import paths, registration
from stlib.alignment import Registration, apply, compose, invert, load_registration
from stlib.registration import register, register_stack, warp
from stlib.slide import Slide, write_pyramid

UM = 8.0  # per px of the painted images
LANDMARKS = np.array([[500.0, 500], [1100, 600], [700, 1000]])  # um, on the tissue


def rigid(degrees: float, shift: tuple[float, float]) -> np.ndarray:
    """Return the map in um that turns about (800, 800) um and then shifts."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, -s], [s, c]])
    return np.column_stack([turn, [800, 800] - turn @ [800, 800] + shift])


def paint(
    matrix: np.ndarray, seed: int = 0, um_per_px: float | tuple[float, float] = UM, noise: int = 0
) -> np.ndarray:
    """Paint a piece of tissue as a slide on which place p (um) lies at `matrix` p; nothing is resampled.

    A lopsided outline with round spots of denser stain; what is painted is a formula of the place.
    """
    rng = np.random.default_rng(seed)
    um_per_px = np.broadcast_to(um_per_px, 2)
    w, h = (1600 / um_per_px).astype(int)
    x, y = np.meshgrid((np.arange(w) + 0.5) * um_per_px[0], (np.arange(h) + 0.5) * um_per_px[1])
    place = apply(invert(matrix), np.stack([x.ravel(), y.ravel()], 1))
    angle = np.arctan2(place[:, 1] - 800, place[:, 0] - 800)
    waves = sum(rng.uniform(0, 70) * np.cos(n * angle + rng.uniform(0, 6)) for n in (1, 2, 3))
    tissue = np.hypot(*(place - 800).T) < 480 + waves
    centres = rng.uniform(300, 1300, (60, 2))
    blobs = sum(np.exp(-((place - c) ** 2).sum(1) / (2 * 50**2)) for c in centres)
    stain = tissue * (0.25 + 0.5 * np.minimum(blobs, 1.2))
    rgb = 240 * 10 ** (-stain[:, None] * [0.6, 1.0, 0.35]) + np.random.default_rng(noise).normal(
        0, 4, (len(stain), 3)
    )
    return rgb.clip(0, 255).astype(np.uint8).reshape(h, w, 3)


def test_warp_puts_a_pixel_where_the_map_says():
    image = np.zeros((4, 6))
    image[1, 2] = 1  # centre at (2.5, 1.5)
    moved = warp(image, np.array([[1.0, 0, 3], [0, 1, 1]]), (5, 8), fill=0)
    assert np.argwhere(moved == 1).tolist() == [[2, 5]]
    turned = warp(image, np.array([[0.0, -1, 4], [1, 0, 0]]), (6, 4), fill=0)  # (2.5, 1.5) -> (2.5, 2.5)
    assert np.argwhere(turned > 0.99).tolist() == [[2, 2]]
    assert (warp(np.zeros((2, 2, 3)), np.array([[1.0, 0, 9], [0, 1, 0]]), (2, 2)) == 255).all()


@pytest.mark.parametrize("degrees", [-9, 172])
def test_register_recovers_a_known_map(degrees):
    true = rigid(degrees, (90, -60))
    scale = (8.0, 8.4)  # pixels that are not square
    moving, fixed = paint(np.eye(2, 3), um_per_px=scale, noise=1), paint(true, noise=2)
    found = register(moving, fixed, scale, UM)
    error = apply(found.matrix, LANDMARKS / scale) * UM - apply(true, LANDMARKS)
    assert np.linalg.norm(error, axis=1).max() < UM / 2
    assert found.ok and found.message == ""
    first = found.stages[0]
    assert (
        first.name == "outline and density" and first.accepted and first.overlap_after > first.overlap_before
    )
    assert found.to_um(LANDMARKS / scale) == pytest.approx(apply(true, LANDMARKS), abs=UM / 2)


def test_register_is_deterministic():
    images = paint(np.eye(2, 3)), paint(rigid(5, (30, 0)), noise=3)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    for threads in (1, 2):
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        found.append(register(*images, UM, UM).matrix)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert np.array_equal(*found)


def test_an_image_lies_on_itself():
    image = paint(np.eye(2, 3))
    found = register(image, image, UM, UM)
    assert found.ok
    assert apply(found.matrix, LANDMARKS / UM) == pytest.approx(LANDMARKS / UM, abs=0.05)
    assert not found.stages[0].accepted  # the search knows whole pixels only; nothing beats the truth


def test_another_block_and_a_mirrored_section_are_not_proven():
    fixed = paint(np.eye(2, 3))
    for moving in (paint(np.eye(2, 3), seed=5), fixed[:, ::-1]):
        found = register(moving, fixed, UM, UM)
        assert not found.ok
        assert "must beat every other rotation by 0.3, found" in found.message


def test_glass_is_refused():
    glass = np.full((200, 200, 3), 240, np.uint8)
    with pytest.raises(ValueError, match="shows tissue, found none in the moving one"):
        register(glass, paint(np.eye(2, 3)), UM, UM)


def test_a_stage_that_makes_things_worse_is_refused(monkeypatch):
    images = paint(np.eye(2, 3)), paint(rigid(20, (50, 0)))
    monkeypatch.setattr(
        registration, "_refine", lambda kind, matrix, *views: compose(rigid(0, (200, 0)), matrix)
    )
    found = register(*images, UM, UM, features=False)
    assert [stage.accepted for stage in found.stages] == [True, False, False, False]
    assert found.stages[1].overlap_after < found.stages[1].overlap_before
    coarse = np.linalg.norm(
        apply(found.matrix, LANDMARKS / UM) * UM - apply(rigid(20, (50, 0)), LANDMARKS), axis=1
    )
    assert coarse.max() < 40  # what the search alone found


@pytest.mark.parametrize(
    ("matches", "accepted"),
    [
        ((rigid(20, (50, 0)), 30), True),  # true and well supported
        ((rigid(20, (50, 0)), 4), False),  # true, but four matches prove nothing
        ((rigid(90, (0, 0)), 400), False),  # many agree on what looks worse
        ((None, 0), False),
    ],
)
def test_features_must_prove_themselves(monkeypatch, matches, accepted):
    monkeypatch.setattr(registration, "_matched", lambda *views: matches)
    monkeypatch.setattr(registration, "_refine", lambda *arguments: None)
    found = register(paint(np.eye(2, 3)), paint(rigid(20, (50, 0))), UM, UM)
    (stage,) = [s for s in found.stages if s.name == "features"]
    assert (stage.accepted, stage.inliers) == (accepted, matches[1])


def test_stack_composes_towards_the_middle(monkeypatch, tmp_path):
    # each section lies 10 um further right than the one before; 4 sections, so the middle is index 2
    def shifted(moving, fixed, *scales):
        order.append((int(moving[0, 0, 0]), int(fixed[0, 0, 0])))
        return Registration(np.array([[1.0, 0, 10 * np.diff(order[-1])[0]], [0, 1, 0]]), np.array([1.0, 1]))

    order, slides = [], []
    for i in range(4):
        write_pyramid(np.full((64, 64, 3), i, np.uint8), tmp_path / f"{i}.tif", (1.0, 1.0))
        slides.append(Slide(tmp_path / f"{i}.tif"))
    monkeypatch.setattr(registration, "register", shifted)
    maps = register_stack(slides, um_per_px=1)
    assert order == [(1, 2), (0, 1), (3, 2)]  # neighbours only
    assert [m.matrix[0, 2] for m in maps] == [20, 10, 0, -10]
    assert register_stack(slides[:1], um_per_px=1)[0].matrix.tolist() == [[1, 0, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="at least one slide"):
        register_stack([], um_per_px=1)


def test_stack_of_slides_in_level_0_pixels(tmp_path):
    true, scale = rigid(12, (60, 30)), np.array([4.0, 4.2])
    slides = []
    for i, matrix in enumerate([true, np.eye(2, 3)]):
        write_pyramid(paint(matrix, um_per_px=scale, noise=i), tmp_path / f"{i}.tif", scale)
        slides.append(Slide(tmp_path / f"{i}.tif"))
    first, middle = register_stack(slides, um_per_px=8, features=False)
    assert middle.matrix.tolist() == [[1, 0, 0], [0, 1, 0]] and middle.ok and first.ok
    assert first.to_um(apply(true, LANDMARKS) / scale) == pytest.approx(LANDMARKS, abs=4)


def test_doubt_travels_along_the_stack(monkeypatch, tmp_path):
    # five sections; the step from section 2 onto 3 is not proven, all others are
    def one_fails(moving, fixed, *scales):
        ok = (moving[0, 0, 0], fixed[0, 0, 0]) != (1, 2)
        return Registration(np.eye(2, 3), np.ones(2), ok=ok, message="" if ok else "not proven")

    slides = []
    for i in range(5):
        write_pyramid(np.full((64, 64, 3), i, np.uint8), tmp_path / f"{i}.tif", (1.0, 1.0))
        slides.append(Slide(tmp_path / f"{i}.tif"))
    monkeypatch.setattr(registration, "register", one_fails)
    maps = register_stack(slides, um_per_px=1)
    assert [m.ok for m in maps] == [False, False, True, True, True]
    assert maps[0].message == maps[1].message == "section 2 of 5 onto 3: not proven"


def test_itk_sees_pixels_where_they_are():
    view = registration._View(np.array([4.0, 8.0]), np.ones((3, 5), bool), np.zeros((3, 5), np.float32))
    assert view.itk(view.density).TransformIndexToPhysicalPoint((1, 2)) == (6, 20)  # centres, um, x first


def test_register_dataset_saves_every_stack(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    doubtful = Registration(np.array([[1.0, 0, 7], [0, 1, 0]]), np.ones(2), ok=False, message="not proven")
    monkeypatch.setattr(registration, "register", lambda *arguments: doubtful)
    params = SimpleNamespace(
        name="made", sections={"P1": ["a", "b"], "P2": ["c"]}, registration=SimpleNamespace(um_per_px=1.0)
    )
    for name in "abc":
        slide = paths.slide_file("made", name)
        slide.parent.mkdir(parents=True, exist_ok=True)
        write_pyramid(np.zeros((64, 64, 3), np.uint8), slide, (1.0, 1.0))
    found = registration.register_dataset(params)
    assert list(found) == ["a", "b", "c"] and found["a"].section == "a"
    assert [one.matrix[0, 2] for one in load_registration("made").values()] == [7, 0, 0]
    assert "made, patient P1, section a: section 1 of 2 onto 2: not proven" in capsys.readouterr().out
