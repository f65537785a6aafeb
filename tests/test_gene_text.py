"""The file of gene texts: what is read, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file

from stlib.gene_text import read_gene_text

ERBB2 = torch.tensor([[1, 2], [3, 4], [5, 6]]).half()
MDK = torch.tensor([[7, 8]]).half()


@pytest.fixture
def write(tmp_path):
    """Return a function that writes entries to a file."""

    def make(**entries):
        file = tmp_path / "genes.safetensors"
        save_file(entries, file)
        return file

    return make


def test_genes_are_read_in_the_order_of_the_panel(write):
    file = write(**{"ERBB2": ERBB2, "MDK": MDK, "ACTB": 2 * MDK, "ERBB2.segment": torch.tensor([0, 1, 4])})
    text = read_gene_text(file, ("MDK", "ERBB2"), 2, 512)
    assert text.tokens.tolist() == [[7, 8], [1, 2], [3, 4], [5, 6]] and text.tokens.dtype == torch.float16
    assert text.segment.tolist() == [0, 0, 1, 4]
    assert text.length.tolist() == [1, 3]


def test_long_texts_are_cut_at_their_end(write):
    file = write(**{"ERBB2": ERBB2, "ERBB2.segment": torch.tensor([0, 1, 4])})
    text = read_gene_text(file, ("ERBB2",), 2, 2)
    assert text.tokens.tolist() == [[1, 2], [3, 4]]
    assert text.segment.tolist() == [0, 1] and text.length.tolist() == [2]


def test_a_missing_file_is_asked_for(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no file .*none.safetensors. Put .*\(tokens, 4096\).*text: table"
    ):
        read_gene_text(tmp_path / "none.safetensors", ("MDK",), 4096, 512)


def test_missing_genes_are_named_with_their_nearest(write):
    file = write(ERBB2=ERBB2, MDK=MDK)
    with pytest.raises(
        ValueError, match=r"no text of 2 of the panel's 3 genes: 'ERBB3' .nearest: 'ERBB2'.; 'XIST'"
    ):
        read_gene_text(file, ("ERBB3", "MDK", "XIST"), 2, 512)
    with pytest.raises(ValueError, match="'XIST' .nearest: none"):
        read_gene_text(file, ("XIST",), 2, 512)


@pytest.mark.parametrize(
    "entry", [ERBB2.float(), ERBB2[:, :1].contiguous(), ERBB2[0].contiguous(), torch.zeros(0, 2).half()]
)
def test_entries_of_another_kind_are_refused(write, entry):
    with pytest.raises(
        ValueError, match=r"entry 'MDK' of genes.safetensors must be float16 \(tokens, 2\), found"
    ):
        read_gene_text(write(MDK=entry), ("MDK",), 2, 512)


def test_numbers_beyond_float16_are_refused(write):
    with pytest.raises(ValueError, match="entry 'MDK' of genes.safetensors must be finite"):
        read_gene_text(write(MDK=MDK / 0), ("MDK",), 2, 512)


@pytest.mark.parametrize("segment", [[0, 1], [0, 1, 5], [0, -1, 2], [0.0, 1.0, 2.0]])
def test_segments_of_another_kind_are_refused(write, segment):
    file = write(**{"ERBB2": ERBB2, "ERBB2.segment": torch.tensor(segment)})
    with pytest.raises(ValueError, match=r"entry 'ERBB2.segment' .* must be \(3,\) integers from 0 to 4"):
        read_gene_text(file, ("ERBB2",), 2, 512)
