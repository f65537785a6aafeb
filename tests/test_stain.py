"""Stain statistics where the stain is known."""

import numpy as np
import pytest

from stlib.stain import NAMES, PATTERNS, STAINS, Stain

PLACE = {name: i for i, name in enumerate(NAMES)}


def stained(haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Return the image (H, W, 3) of two stains by the law of Beer and Lambert."""
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    density = haematoxylin[..., None] * unit[0] + eosin[..., None] * unit[1]
    return np.rint(256 * 10**-density - 1).clip(0, 255).astype(np.uint8)


def numbers(image: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, Stain().encode(image[None])[0].tolist(), strict=True))


def test_stain_finds_the_amounts_that_were_put_on():
    flat = np.ones((64, 64))
    found = numbers(stained(0.5 * flat, 0.3 * flat))
    assert found["haematoxylin_mean"] == pytest.approx(0.5, abs=0.01)
    assert found["eosin_mean"] == pytest.approx(0.3, abs=0.01)
    assert found["residual_mean"] == pytest.approx(0, abs=0.01)
    assert found["haematoxylin_q50"] == pytest.approx(0.5, abs=0.01)
    assert found["haematoxylin_sd"] == pytest.approx(0, abs=1e-4)
    assert found["pattern_8"] == 1  # nothing is darker than its neighbour
    glass = numbers(np.full((64, 64, 3), 255, np.uint8))
    assert not any(value for name, value in glass.items() if name != "pattern_8")


def test_stain_counts_nuclei():
    y, x = np.mgrid[:96, :96]
    nucleus = np.minimum((y % 32 - 16) ** 2, 999) + (x % 32 - 16) ** 2 <= 36  # 9 discs of radius 6
    found = numbers(stained(0.1 + 0.9 * nucleus, 0.2 + 0.0 * nucleus))
    assert found["nuclear_density"] * 96**2 / 1000 == pytest.approx(9)
    assert found["nuclear_share"] == pytest.approx(9 * np.pi * 36 / 96**2, rel=0.1)
    assert found["nuclear_contrast"] == pytest.approx(0.9, abs=0.1)


def test_stain_texture_by_hand():
    stripes = np.broadcast_to(np.arange(64) // 8 % 2, (64, 64)).astype(float)  # 8 px wide, along y
    found = numbers(stained(stripes, 0 * stripes))
    assert (found["haematoxylin_mean"], found["haematoxylin_sd"]) == pytest.approx((0.5, 0.5), abs=0.01)
    assert found["haematoxylin_gradient_1px"] == pytest.approx(7 / 63, abs=0.01)  # 7 edges of height 1
    assert found["haematoxylin_gradient_4px"] == pytest.approx(28 / 60, abs=0.01)
    assert found["haematoxylin_autocorrelation_16px"] > 0.6  # one period; along y it is 1, with fewer rows
    assert found["haematoxylin_autocorrelation_8px"] < 0.1  # half a period along x, the same along y
    assert sum(found[f"pattern_{n}"] for n in range(9)) + found["pattern_mixed"] == pytest.approx(1)
    assert PATTERNS[[0, 255, 0b00001111, 0b11000001, 0b00010010]].tolist() == [0, 8, 4, 3, 9]


def test_stain_does_not_see_batch_mates_nor_orientation():
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (11, 64, 64, 3), dtype=np.uint8)
    together = Stain().encode(batch)
    assert together.shape == (11, len(NAMES)) and together.dtype == np.float32
    assert np.array_equal(together[8], Stain().encode(batch[8:9])[0])
    turned = Stain().encode(np.rot90(batch, axes=(1, 2)))
    sampled = [i for name, i in PLACE.items() if "_q" in name]  # quantiles look at every fourth pixel
    assert np.delete(turned, sampled, 1) == pytest.approx(np.delete(together, sampled, 1), abs=2e-3)
    assert Stain().encode(batch[:0]).shape == (0, 52)
