import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from stlib.layers import (
    ArrayPosition,
    Attention,
    GeneHead,
    Pixels,
    Standardise,
    TransformerBlock,
    cosine_decay,
    dihedral,
    in_chunks,
)


def test_standardise_by_hand():
    layer = Standardise(2)
    layer.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))  # mean 2, deviation 1; a constant
    torch.testing.assert_close(layer(torch.tensor([[4.0, 6.0]])), torch.tensor([[2.0, 1.0]]))
    assert set(layer.state_dict()) == {"mean", "std"}  # kept with the model


def test_pixels_have_the_mean_and_deviation_of_imagenet():
    patch = torch.tensor([0, 255], dtype=torch.uint8).repeat(3).view(1, 3, 1, 2)
    found = Pixels()(patch)[0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([-0.485 / 0.229, (1 - 0.485) / 0.229]))


def test_pixels_are_averaged_to_a_side():
    patch = torch.tensor([[0, 2], [4, 6]], dtype=torch.uint8).expand(1, 3, 2, 2)
    assert Pixels((0, 0, 0), (1 / 255,) * 3, side=1)(patch).ravel().tolist() == pytest.approx([3] * 3)
    assert Pixels(side=2)(patch).equal(Pixels()(patch))


def test_a_head_starts_at_the_mean_label_of_labelled_rows():
    head = GeneHead(3, 2)
    weight = head.weight.clone()
    head.start(torch.tensor([[1.0, -6.0], [torch.nan, torch.nan], [2.0, -8.0]]))
    assert head.bias.tolist() == [1.5, -7.0] and head.weight.equal(weight)
    assert head.bias.requires_grad and head.bias.dtype == torch.float32
    with pytest.raises(ValueError, match="needs a training location with a label, found none"):
        head.start(torch.full((4, 2), torch.nan))


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


def by_softmax(layer, x, context, bias=0.0):
    """Attend head by head with the scores written out; no batch: x (N, d), context (M, d)."""
    q, (k, v) = layer.query(x), layer.key_value(context).chunk(2, -1)
    heads = []
    for head, (a, b, c) in enumerate(zip(*(t.chunk(layer.heads, -1) for t in (q, k, v)), strict=True)):
        scores = a @ b.T / b.shape[1] ** 0.5 + (bias[head] if torch.is_tensor(bias) else bias)
        heads.append(scores.softmax(-1) @ c)
    return layer.out(torch.cat(heads, -1))


def test_attention_is_a_softmax_over_the_scores():
    torch.manual_seed(0)
    layer, x, context = Attention(6, heads=2, head_width=4), torch.randn(5, 6), torch.randn(3, 6)
    torch.testing.assert_close(layer(x[None])[0], by_softmax(layer, x, x))
    torch.testing.assert_close(layer(x[None], context[None])[0], by_softmax(layer, x, context))
    bias = torch.randn(2, 5, 3)
    torch.testing.assert_close(
        layer(x[None], context[None], bias[None])[0], by_softmax(layer, x, context, bias)
    )


def test_transformer_block_adds_each_part_to_its_input():
    torch.manual_seed(0)
    block, x = TransformerBlock(6, heads=2, head_width=4, hidden=9), torch.randn(5, 6)
    normal = torch.nn.functional.layer_norm(x, (6,))
    y = x + by_softmax(block.attention, normal, normal)
    _, widen, _, _, narrow, _ = block.feed_forward
    expected = y + narrow(torch.nn.functional.gelu(widen(torch.nn.functional.layer_norm(y, (6,)))))
    torch.testing.assert_close(block(x[None])[0], expected)


class Largest(TorchDispatchMode):
    """Note the size of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if torch.is_tensor(value):
                self.elements = max(self.elements, value.numel())
        return out


def test_a_section_of_6000_spots_needs_no_table_of_all_pairs():
    block, x = TransformerBlock(8, heads=2, head_width=4, hidden=16), torch.randn(1, 6000, 8)
    with Largest() as seen:
        block(x).sum().backward()
    assert seen.elements <= 6000 * 16  # the widest layer
    with Largest() as seen, sdpa_kernel(SDPBackend.MATH):  # the scores written out: this test sees them
        block.eval()(x[:, :1000])
    assert seen.elements == 2 * 1000**2


def test_position_in_the_array_by_hand():
    layer = ArrayPosition(0, 2)
    assert layer.column.num_embeddings == layer.row.num_embeddings == 64  # as many as the papers have
    place = torch.tensor([[3.0, 5.0], [2.6, 5.4], [63.0, 0.0]], dtype=torch.float64)
    found = layer(place)
    torch.testing.assert_close(found[0], layer.column.weight[3] + layer.row.weight[5])
    torch.testing.assert_close(found[1], found[0])  # rounded
    torch.testing.assert_close(found[2], layer.column.weight[63] + layer.row.weight[0])


def test_positions_beyond_64_need_a_larger_array():
    far = torch.tensor([[127.0, 77.0]])
    assert ArrayPosition(128, 2)(far).shape == (1, 2)
    with pytest.raises(ValueError, match="64 positions a side needs .* from 0 to 63, found 77 to 127; count"):
        ArrayPosition(0, 2)(far)
    with pytest.raises(ValueError, match="found -1 to 4"):
        ArrayPosition(0, 2)(torch.tensor([[-1.0, 4.0]]))
