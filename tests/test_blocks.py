"""Pieces of tissue: every point once, bounded, compact, and the same from the same seed."""

import torch

from stlib.blocks import kd_blocks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_point_is_in_one_compact_block():
    position = torch.rand(1000, 2, generator=generator())
    blocks = kd_blocks(position, 64, generator())
    assert sorted(torch.cat(blocks).tolist()) == list(range(1000))
    assert max(map(len, blocks)) <= 64
    spread = torch.stack([position[block].var(0).sum() for block in blocks]).mean()
    assert spread < 0.3 * position.var(0).sum()


def test_few_points_are_one_block_and_none_are_an_empty_one():
    (block,) = kd_blocks(torch.rand(5, 2), 5, generator())
    assert block.tolist() == [0, 1, 2, 3, 4]
    (block,) = kd_blocks(torch.zeros(0, 2), 5, generator())
    assert len(block) == 0


def test_points_on_a_line_are_cut_into_runs():
    position = torch.stack([torch.arange(8.0), torch.zeros(8)], 1)
    found = sorted(sorted(block.tolist()) for block in kd_blocks(position, 3, generator()))
    assert found == [[0, 1], [2, 3], [4, 5], [6, 7]]  # halved twice, whatever the direction


def test_points_in_one_place_are_halved():
    blocks = kd_blocks(torch.zeros(9, 2), 2, generator())
    assert sorted(torch.cat(blocks).tolist()) == list(range(9)) and max(map(len, blocks)) <= 2


def test_the_seed_decides():
    position = torch.rand(100, 2, generator=generator())

    def blocks(seed):
        return [block.tolist() for block in kd_blocks(position, 20, generator(seed))]

    assert blocks(0) == blocks(0) != blocks(1)
