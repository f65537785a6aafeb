"""SGN by hand: its sizes, its edges, its texts, and what a step of training draws."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from stlib.batch import Batch, Shape
from stlib.models import build, configure
from stlib.models.sgn import GeneEncoder, ScaledBlock, SectionGraph
from stlib.retrieval import alike

WIDTH = 4096  # of the language model


def count(module):
    return sum(value.numel() for value in module.parameters())


def panel(genes):
    return tuple(f"GENE{index}" for index in range(genes))


def section(n=9, genes=6, features=5):
    draw = torch.Generator().manual_seed(0)
    here = torch.arange(n)
    return Batch(
        num_nodes=n, relative=torch.randn(n, features, generator=draw),
        edge_index=torch.stack([here, here.roll(1)]),
        expression=torch.randn(n, genes, generator=draw) - 6,
    )  # fmt: skip


@pytest.fixture
def text_file(tmp_path):
    """Return a file in the true format: 6 genes, 2 to 4 tokens of width 4096 each, one with segments."""
    draw = torch.Generator().manual_seed(1)
    entries = {
        gene: torch.randn(2 + index % 3, WIDTH, generator=draw).half() for index, gene in enumerate(panel(6))
    }
    entries["GENE1.segment"] = torch.tensor([0, 3, 4])
    file = tmp_path / "genes.safetensors"
    save_file(entries, file)
    return file


def make(text="table", **changes):
    torch.manual_seed(0)
    sizes = {"width": 8, "gene_width": 8, "layers": 2, **changes}
    model = build("sgn", configure("sgn", "2d", text=text, **sizes), Shape(panel(6), 5))
    model.prepare([section()])
    return model


def test_parameter_count(text_file):
    """Specification, section 7: 4.59 M + 2.70 M = 7.29 M; here queries, keys and values have no bias."""
    config = configure("sgn", "2d", text=f"file:{text_file}")
    model = build("sgn", config, Shape(panel(6), 512))
    graph = 512 * 512 + 8 * (2 * 512 * 512 + 512) + 512 * 256 + 256
    block = 2 * 512 + 4 * 256 * 256 + 256 + 2 * 256 * 1024 + 1024 + 256 + 512
    text = (4096 * 256 + 256) + 5 * 256 + 2 * 256 + 2 * block + 512 + (256 * 257 + 257)
    assert (count(model.graph), count(model.genes)) == (graph, text) == (4_591_872, 2_696_193)
    assert (round(graph / 1e6, 2), round(text / 1e6, 2)) == (4.59, 2.70)
    assert count(model) == 7_288_065
    table = build("sgn", configure("sgn", "2d", text="table"), Shape(panel(250), 512))
    assert count(table) == 4_591_872 + 250 * 257


def test_edges_between_similar_locations():
    """On a line at 0, 1, 3, 7: the nearest two of each, never itself; edges lead to the location."""
    edges = alike(torch.tensor([[0.0], [1.0], [3.0], [7.0]]), 2)
    assert {(int(a), int(b)) for a, b in edges.T} == {
        (1, 0), (2, 0), (0, 1), (2, 1), (1, 2), (0, 2), (2, 3), (1, 3),
    }  # fmt: skip


def test_equal_features_make_k_edges_none_to_itself():
    edges = alike(torch.zeros(8, 3), 2)
    assert edges.shape == (2, 16) and (edges[0] != edges[1]).all()
    assert edges[1].bincount().tolist() == [2] * 8


def test_few_locations_have_fewer_similar_ones():
    assert alike(torch.tensor([[0.0], [1.0]]), 5).tolist() == [[1, 0], [0, 1]]
    assert alike(torch.zeros(1, 2), 5).shape == (2, 0)


def test_a_layer_averages_both_kinds_of_edges():
    """Width 1, all weights 1: h = x + mean of neighbours for each kind, averaged, then LeakyReLU."""
    graph = SectionGraph(1, 1, 1, 1)
    with torch.no_grad():
        for key, value in graph.named_parameters():
            value.fill_(0.0 if key.endswith("bias") else 1.0)
    near = torch.tensor([[1, 2], [0, 0]])  # to 0 from 1 and 2
    similar = torch.tensor([[2, 0], [0, 2]])
    z = graph(torch.tensor([[1.0], [2.0], [-6.0]]), near, similar).ravel()
    # 0: ((1 + (2 - 6) / 2) + (1 - 6)) / 2 = -3, times 0.2; 1: 2; 2: (-6 + (-6 + 1)) / 2 = -5.5, times 0.2
    assert z.tolist() == pytest.approx([-0.6, 2.0, -1.1])


def test_the_prediction_reads_z_off_along_unit_weights():
    model = make().eval()
    batch = section()
    z = model.graph(batch.relative, batch.edge_index, alike(batch.relative, 5))
    by_hand = z @ normalize(model.table[:, :8]).T + model.table[:, 8] + batch.expression.mean(0)
    torch.testing.assert_close(model.predict(batch), by_hand)
    with torch.no_grad():
        model.table[:, :8] *= 3  # the length of the weights does not matter
    torch.testing.assert_close(model.predict(batch), by_hand)


def test_the_loss_compares_the_drawn_genes_with_their_own_labels():
    batch = section(n=3, genes=3)
    batch.expression = torch.tensor([[0.0, 5, 1], [1, 5, 2], [2, 8, 6]])
    out = {"expression": torch.tensor([[1.0, 2], [2, 1], [6, 0]]), "genes": torch.tensor([2, 0])}
    # gene 2 is predicted as it is (error 0, r = 1), gene 0 backwards (errors 2, 0, -2, r = -1)
    assert make().loss(batch, out).item() == pytest.approx(8 / 6 + 0.5 * 1, abs=1e-6)


def test_a_step_with_text_draws_genes_and_a_prediction_has_all(text_file):
    model = make(f"file:{text_file}", genes_per_step=4)
    batch = section()
    drawn = model(batch)
    assert drawn["expression"].shape == (9, 4)
    assert len(set(drawn["genes"].tolist())) == 4 and drawn["genes"].tolist() != [0, 1, 2, 3]
    everything = model.eval()(batch)
    assert everything["genes"].tolist() == list(range(6))
    torch.testing.assert_close(everything["expression"][:, drawn["genes"]], drawn["expression"])
    assert make()(batch)["expression"].shape == (9, 6)  # a table costs nothing


def test_with_text_a_gradient_reaches_every_parameter_and_texts_are_not_saved(text_file):
    model = make(f"file:{text_file}")
    model.loss(section(), model(section())).backward()
    assert {key for key, value in model.named_parameters() if not value.grad.abs().any()} == set()
    assert not [key for key in model.state_dict() if key.startswith("text_")]
    again = make(f"file:{text_file}")
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval().predict(section()), model.eval().predict(section()))


def test_a_gene_is_read_as_if_it_were_alone(text_file):
    """Padding is not attended to, and the tokens of a gene are found among those of all."""
    model = make(f"file:{text_file}").eval()
    together = model._readings(torch.tensor([2, 0, 1]))
    for row, gene in enumerate([2, 0, 1]):
        torch.testing.assert_close(together[row : row + 1], model._readings(torch.tensor([gene])))
    length, end = model.text_length[1], model.text_length[:2].sum()
    direct = model.genes(
        model.text_tokens[end - length : end], torch.tensor([0, 3, 4]), torch.tensor([length])
    )
    torch.testing.assert_close(together[2:], direct)


def test_segments_tell_tokens_apart():
    torch.manual_seed(0)
    encoder = GeneEncoder(4, 8, 1, 2)
    tokens = torch.randn(3, 4).half()
    read = [encoder(tokens, torch.tensor(segment), torch.tensor([3])) for segment in ([0, 0, 0], [0, 1, 1])]
    assert not torch.allclose(*read)


def test_text_can_be_learned_by_heart(text_file):
    model = make(f"file:{text_file}", width=64, gene_width=32, genes_per_step=6)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    batch = section()
    for _ in range(200):
        optimiser.zero_grad()
        model.loss(batch, model(batch)).backward()
        optimiser.step()
    error = ((model.eval().predict(batch) - batch.expression) ** 2).mean()
    assert error < 0.1 * batch.expression.var(0, unbiased=False).mean()


def test_a_block_starts_near_the_identity():
    torch.manual_seed(0)
    block, x = ScaledBlock(8, 2), torch.randn(1, 3, 8)
    with torch.no_grad():
        block.scale.zero_()
    assert torch.equal(block(x, torch.zeros(1, 1, 1, 3)), x)
    assert (ScaledBlock(8, 2).scale == 0.1).all()


def test_another_word_for_text_is_refused():
    for text in ("file", "file:", "gpt", "table:x"):
        with pytest.raises(ValueError, match=f"`text` must be 'table' or 'file:<path>', found '{text}'"):
            make(text)
