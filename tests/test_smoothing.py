import numpy as np

from stlib.smoothing import gaussian_average, low_rank


def test_labels_of_low_rank_are_kept_and_noise_is_not():
    rng = np.random.default_rng(0)
    depth = rng.uniform(100, 1000, 40)
    pure = 3 + rng.normal(size=(40, 2)) @ rng.normal(size=(2, 8))
    np.testing.assert_allclose(low_rank(pure, depth, 3), pure, atol=1e-9)  # 2, and one for the weighted mean
    noisy = pure + 0.1 * rng.normal(size=pure.shape)
    assert ((low_rank(noisy, depth, 3) - pure) ** 2).sum() < 0.7 * ((noisy - pure) ** 2).sum()


def test_rank_zero_is_the_weighted_mean():
    labels, depth = np.array([[1.0], [4.0]]), np.array([4.0, 16.0])  # weights 2 and 4
    np.testing.assert_allclose(low_rank(labels, depth, 0), [[3.0], [3.0]])


PLACES, LABELS = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 10.0], [4.0, 40.0]])


def test_average_of_two_spots_by_hand():
    found = gaussian_average(np.array([[1.0, 0.0]]), PLACES, LABELS, np.array([1.0, 4.0]), sigma=1.0)
    np.testing.assert_allclose(found, [[3.0, 30.0]])  # equally far: weights 1 and 2
    found = gaussian_average(PLACES[:1], PLACES, LABELS, np.ones(2), sigma=1.0)
    far = np.exp(-2.0)  # of d = 2 sigma
    np.testing.assert_allclose(found, [[(1 + 4 * far) / (1 + far), (10 + 40 * far) / (1 + far)]])


def test_far_from_all_the_nearest_decides():
    found = gaussian_average(
        np.array([[1e5, 0.0], [-1e5, 3.0]]), PLACES, LABELS, np.array([1e6, 1.0]), sigma=1.0
    )
    np.testing.assert_allclose(found, LABELS[::-1])


def test_places_that_are_not_registered_take_the_mean_by_depth():
    nan = np.full((1, 2), np.nan)
    found = gaussian_average(np.vstack([nan, PLACES[:1]]), PLACES, LABELS, np.array([1.0, 4.0]), sigma=0.01)
    np.testing.assert_allclose(found, [[3.0, 30.0], LABELS[0]])  # weights 1 and 2; the nearest
    lost = gaussian_average(PLACES, np.vstack([nan, nan]), LABELS, np.array([1.0, 4.0]), sigma=1.0)
    np.testing.assert_allclose(lost, [[3.0, 30.0]] * 2)
    some = gaussian_average(PLACES[:1], np.vstack([nan, PLACES[1:]]), LABELS, np.ones(2), sigma=1.0)
    np.testing.assert_allclose(some, LABELS[1:])  # the one whose place is known
