import pytest
import torch

from stlib.layers import Pixels, Standardise, cosine_decay, dihedral, in_chunks


def test_standardise_by_hand():
    layer = Standardise(2)
    layer.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))  # mean 2, deviation 1; a constant
    torch.testing.assert_close(layer(torch.tensor([[4.0, 6.0]])), torch.tensor([[2.0, 1.0]]))
    assert set(layer.state_dict()) == {"mean", "std"}  # kept with the model


def test_pixels_have_the_mean_and_deviation_of_imagenet():
    patch = torch.tensor([0, 255], dtype=torch.uint8).repeat(3).view(1, 3, 1, 2)
    found = Pixels()(patch)[0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([-0.485 / 0.229, (1 - 0.485) / 0.229]))


def test_chunks_equal_the_whole():
    sizes, patch = [], torch.arange(7.0)[:, None]

    def encode(part):
        sizes.append(len(part))
        return 2 * part

    torch.testing.assert_close(in_chunks(encode, patch, 3), 2 * patch)
    assert sizes == [3, 3, 1]


def test_there_are_eight_distinct_views():
    patch = torch.arange(12.0).view(1, 3, 2, 2)
    views = dihedral(patch)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    for view in views:  # pixels move, channels do not mix
        torch.testing.assert_close(view.flatten(2).sort(2).values, patch.flatten(2))
    torch.testing.assert_close(views[0], patch)


def test_cosine_decay_ends_at_its_floor():
    assert cosine_decay(0.0) == pytest.approx(1.0)
    assert cosine_decay(0.5) == pytest.approx(0.505)  # half way between 1 and 0.01
    assert cosine_decay(1.0) == pytest.approx(0.01)
    assert cosine_decay(1.0, floor=0.2) == pytest.approx(0.2)
