"""Alignments of painted tissue whose true map is known; what cannot be known is declared."""

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from made import register

from stlib import params, paths, registration
from stlib.alignment import Field, Registration, Score, apply, compose, invert, load_registration
from stlib.datasets.toy import registration_error
from stlib.registration import register_stack
from stlib.slide import Slide, write_pyramid
from stlib.stages import Pair
from stlib.views import see

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


def glass(side: int = 200) -> np.ndarray:
    return np.full((side, side, 3), 240, np.uint8)


@pytest.mark.parametrize("degrees", [-9, 172])
def test_register_recovers_a_known_map(degrees):
    true = rigid(degrees, (90, -60))
    scale = (8.0, 8.4)  # pixels that are not square
    moving, fixed = paint(np.eye(2, 3), um_per_px=scale, noise=1), paint(true, um_per_px=UM, noise=2)
    found = register(moving, fixed, scale, UM)
    error = apply(found.linear, LANDMARKS / scale) - apply(true, LANDMARKS)
    assert np.linalg.norm(error, axis=1).max() < UM / 2
    assert found.ok and found.message == ""
    first = found.stages[0]
    assert first.name == "outline and density" and first.accepted
    assert first.after.overlap > first.before.overlap and first.after.information > first.before.information
    assert found.to_um(LANDMARKS / scale) == pytest.approx(apply(true, LANDMARKS), abs=UM / 2)


def test_a_mirrored_section_is_found_and_aligned():
    true = rigid(40, (30, -20))
    moving, fixed = paint(np.eye(2, 3), noise=1), paint(true, noise=2)
    found = register(moving[:, ::-1], fixed, UM, UM)
    assert found.ok and {stage.note for stage in found.stages if stage.accepted} == {"mirrored"}
    assert np.linalg.det(found.matrix[:, :2]) < 0
    mirrored = (LANDMARKS / UM) * [-1, 1] + [moving.shape[1], 0]
    assert found.to_um(mirrored) == pytest.approx(apply(true, LANDMARKS), abs=UM / 2)


def test_register_is_deterministic():
    images = paint(np.eye(2, 3)), paint(rigid(5, (30, 0)), noise=3)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    for threads in (1, 2):
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        found.append(register(*images, UM, UM))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert np.array_equal(found[0].to_um(LANDMARKS), found[1].to_um(LANDMARKS))
    assert found[0].stages == found[1].stages


def test_an_image_lies_on_itself():
    image = paint(np.eye(2, 3))
    found = register(image, image, UM, UM)
    assert found.ok
    assert found.to_um(LANDMARKS / UM) == pytest.approx(LANDMARKS, abs=0.5)
    assert not found.stages[0].accepted  # the search knows whole pixels only; nothing beats the truth


def test_another_block_and_an_even_disc_are_not_proven():
    fixed = paint(np.eye(2, 3))
    y, x = np.indices(fixed.shape[:2])
    disc = np.where(np.hypot(x - 100, y - 100)[..., None] < 60, [200, 120, 180], 240).astype(np.uint8)
    for moving, onto in ((paint(np.eye(2, 3), seed=5), fixed), (disc, disc)):
        found = register(moving, onto, UM, UM)
        assert not found.ok and not found.bends
        assert "must beat every other rotation, and every one of the mirror image, by 0.3" in found.message


def test_a_stage_that_makes_things_worse_is_refused(monkeypatch):
    images = paint(np.eye(2, 3)), paint(rigid(20, (50, 0)))
    away = lambda kind, matrix, *views: compose(rigid(0, (200, 0)), matrix)  # noqa: E731
    monkeypatch.setattr(registration, "refine", away)
    monkeypatch.setattr(registration, "smooth_field", lambda *views: None)
    found = register(*images, UM, UM)
    names = ["outline and density", "rigid", "similarity", "affine", "smooth"]
    assert [(s.name, s.accepted) for s in found.stages] == [(name, name == names[0]) for name in names]
    assert found.stages[1].after.overlap < found.stages[1].before.overlap
    assert found.stages[-1].note == "no field predicts held-out shifts better than none"
    error = found.to_um(LANDMARKS / UM) - apply(rigid(20, (50, 0)), LANDMARKS)
    assert np.linalg.norm(error, axis=1).max() < 40  # what the search alone found


def test_a_field_is_believed_as_far_as_windows_agree_under_it(monkeypatch):
    """Windows that correlate by a half are moved half of the way that their shifts say."""
    said = Field(np.zeros(2), 300.0, np.tile([6.0, -9.0], (7, 7, 1)))
    monkeypatch.setattr(registration, "smooth_field", lambda *views: said)
    views = see(paint(np.eye(2, 3)), UM, (32, 16, UM))
    pair = Pair(views, views)
    monkeypatch.setattr(pair, "measure", lambda matrix, field=None: Score(1, 1, 0.5 + (field is not said)))
    registration._bend(pair)
    assert pair.field.nodes[0, 0].tolist() == [3.0, -4.5]


def test_stack_of_slides_in_level_0_pixels(tmp_path):
    true, scale = rigid(12, (60, 30)), np.array([4.0, 4.2])
    slides = write([true, np.eye(2, 3)], scale, tmp_path)
    first, middle = register_stack(slides)
    assert middle.matrix.tolist() == [[1, 0, 0], [0, 1, 0]] and middle.ok and first.ok
    assert first.to_um(apply(true, LANDMARKS) / scale) == pytest.approx(LANDMARKS, abs=4)


def test_a_blank_section_is_declared_and_its_neighbour_goes_round_it(tmp_path):
    true = [
        rigid(12, (60, 30)),
        None,
        rigid(-100, (0, 40)),
        np.eye(2, 3),
    ]  # section 2 is blank; 3 is the middle
    maps = register_stack(write(true, np.array([8.0, 8.0]), tmp_path), names=["a", "b", "c", "d"])
    assert [one.ok for one in maps] == [True, False, True, True]
    assert "section b lies as it was put on the slide: it shows no tissue" in maps[1].message
    for matrix, one in ((true[0], maps[0]), (true[3], maps[3])):
        expected = apply(true[2], LANDMARKS)
        assert one.to_um(apply(matrix, LANDMARKS) / 8) == pytest.approx(expected, abs=UM)
    blanks = register_stack(write([None, None], np.array([8.0, 8.0]), tmp_path))
    assert [one.ok for one in blanks] == [False, False]
    middle_blank = register_stack(write([true[0], None], np.array([8.0, 8.0]), tmp_path))
    assert [one.ok for one in middle_blank] == [True, False]


def write(matrices, scale, folder):
    slides = []
    for i, matrix in enumerate(matrices):
        image = glass() if matrix is None else paint(matrix, um_per_px=scale, noise=i)
        write_pyramid(image, folder / f"{i}.tif", scale)
        slides.append(Slide(folder / f"{i}.tif"))
    return slides


class Marked:
    """A slide whose only pixel says which it is."""

    um_per_px, size_px = np.ones(2), np.array([1, 1])

    def __init__(self, index: int) -> None:
        self.index = index

    def thumbnail(self, um_per_px):
        return np.full((1, 1, 3), self.index, np.uint8), np.ones(2)


def fake(monkeypatch, fails=(), far=()):
    """Each section lies 10 um further right; pairs in `fails` and sections in `far` are not proven."""
    order = []

    def align(moving, fixed, settings):
        order.append((moving[0].index, fixed[0].index))
        ok = order[-1] not in fails and not set(order[-1]) & set(far)
        matrix = np.array([[1.0, 0, 10 * (order[-1][1] - order[-1][0])], [0, 1, 0]])
        return Registration(matrix, np.ones(2), ok=ok, message="" if ok else "not proven")

    view = lambda image, um: [SimpleNamespace(index=int(image[0, 0, 0]), area=1.0)]  # noqa: E731
    monkeypatch.setattr(registration, "_views", view)
    monkeypatch.setattr(registration, "align", align)
    return order


def test_stack_composes_towards_the_middle(monkeypatch):
    order = fake(monkeypatch)
    maps = register_stack([Marked(i) for i in range(4)])  # the middle is index 2
    assert order == [(1, 2), (3, 2), (0, 1)]  # neighbours only
    assert [m.to_um(np.zeros((1, 2)))[0, 0] for m in maps] == [20, 10, 0, -10]
    assert [m.linear[0, 2] for m in maps] == [20, 10, 0, -10]
    (alone,) = register_stack([Marked(0)])
    assert alone.ok and alone.matrix.tolist() == [[1, 0, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="at least one slide"):
        register_stack([])


def test_an_unproven_section_is_no_bridge(monkeypatch):
    # five sections, the middle is index 2; index 1 fits none, so 0 goes on to 2 directly
    order = fake(monkeypatch, far=[1])
    maps = register_stack([Marked(i) for i in range(5)])
    assert [m.ok for m in maps] == [True, False, True, True, True]
    assert (0, 2) in order and (0, 1) not in order and maps[0].onward is None
    assert maps[1].message == "section 2 onto 3: not proven"
    # index 1 does not fit 2, but it fits 0, which is proven by then
    fake(monkeypatch, fails=[(1, 2), (1, 3)])
    maps = register_stack([Marked(i) for i in range(5)])
    assert all(m.ok for m in maps) and maps[1].onward is maps[0]
    assert [m.to_um(np.zeros((1, 2)))[0, 0] for m in maps] == [20, 10, 0, -10, -20]


def test_register_dataset_saves_every_stack(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    fake(monkeypatch, far=[0])
    names = iter(range(3))

    class Opened(Marked):
        def __init__(self, path):
            super().__init__(next(names))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(registration, "Slide", Opened)
    settings = params.Registration(um_per_px=1.0)
    made = SimpleNamespace(name="made", sections={"P1": ["a", "b"], "P2": ["c"]}, registration=settings)
    found = registration.register_dataset(made)
    assert list(found) == ["a", "b", "c"] and found["a"].section == "a"
    assert [one.matrix[0, 2] for one in load_registration("made").values()] == [10, 0, 0]
    assert "made, patient P1, section a: section a onto b: not proven" in capsys.readouterr().out


def test_toy_is_aligned_to_half_a_spot_radius_and_back(toy):
    """The saved maps of all sections, and one stack anew."""
    names = toy.sections["P4"]  # the hardest: a field of fat at its edge
    with (
        Slide(paths.slide_file("toy", names[1])) as middle,
        Slide(paths.slide_file("toy", names[2])) as third,
    ):
        anew = register_stack([middle, third], toy.registration, names[1:])  # the middle of two is the second
    saved = load_registration("toy")
    errors = registration_error(toy, saved)
    assert len(errors) == 12 and max(np.median(error) for error in errors.values()) < 25
    affine = registration_error(toy, {n: SimpleNamespace(to_um=straight(one)) for n, one in saved.items()})
    assert sum(map(np.median, errors.values())) < 0.7 * sum(map(np.median, affine.values()))
    assert anew[0].ok and anew[0].bends
    for one in (*saved.values(), *anew):
        px = np.random.default_rng(0).uniform(0, 1680, (200, 2))
        assert one.from_um(one.to_um(px)) == pytest.approx(px, abs=0.01)


def straight(one: Registration):
    return lambda px: apply(one.linear, px)


def test_random_stacks_are_right_or_declared():
    """Two small ones of benchmarks/registration_stacks.py: two sections, one mirrored; four sections."""
    spec = importlib.util.spec_from_file_location("stacks", paths.ROOT / "benchmarks/registration_stacks.py")
    stacks = importlib.util.module_from_spec(spec)
    sys.modules["stacks"] = stacks  # dataclasses look their module up
    spec.loader.exec_module(stacks)
    for number in (5, 6):
        found = stacks.outcome(number, 800.0)
        assert found.verdict == "right", found
        assert max(way for *_, way in found.sections) < 60
