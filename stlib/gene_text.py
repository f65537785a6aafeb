"""Read what a language model says about genes: one vector per token of a text about each gene.

The language model is run once, elsewhere, and its output is a file. For each gene symbol of the panel:

1. Ask for a text about the gene. SGN asks Intel/neural-chat-7b-v3-1 and samples (temperature 0.7, top-k 50,
   top-p 0.95, at most 1000 tokens). A question in its spirit: "Describe the human gene ERBB2: its function,
   the cells that express it, and the diseases it is part of." A summary from a database may stand before it.
   Keep one answer.
2. Run the model over its answer and keep the hidden states of the last layer at the answer's tokens:
   (T, 4096) for a 7-billion-parameter model. With `transformers`:

       out = model(**tokens, output_hidden_states=True)
       states = out.hidden_states[-1][0, prompt_length:]      # (T, 4096)

3. Write all genes to one file, each under its symbol, as float16:

       safetensors.torch.save_file({"ERBB2": states.half().contiguous(), ...}, "data/text/genes.safetensors")

A symbol that stands for several genes has their texts one after the other, and a second entry,
``<symbol>.segment``, (T,) integers from 0 to 4, which of them each token is about.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from stlib import paths

SEGMENTS = 5  # genes that one symbol may stand for
SUFFIX = ".segment"


class GeneText(NamedTuple):
    """Tokens of G genes, one gene after the other; S in all."""

    tokens: Tensor  # (S, W) float16
    segment: Tensor  # (S,) int64
    length: Tensor  # (G,) int64, tokens of each gene


def read_gene_text(file: str | Path, genes: tuple[str, ...], width: int, most: int) -> GeneText:
    """Read the tokens of the named genes.

    Parameters
    ----------
    file
        A .safetensors file as the module describes it; a relative path starts at the root of the checkout.
    genes
        Symbols, in the order that is wanted.
    width
        W that the tokens must have.
    most
        Tokens that are kept of each gene, from the first.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a gene is missing, or an entry is not what it must be.
    """
    path = paths.ROOT / file  # an absolute path stays what it is
    if not path.is_file():
        raise FileNotFoundError(
            f"gene texts: there is no file {path}. Put a .safetensors there with an entry (tokens, {width}) "
            "for each gene of the panel (`stlib.gene_text` says how it is made), or choose `text: table`"
        )
    tokens, segments = [], []
    with safe_open(path, "pt") as entries:
        symbols = {key for key in entries.keys() if not key.endswith(SUFFIX)}
        missing = [gene for gene in genes if gene not in symbols]
        if missing:
            named = "; ".join(f"'{gene}' (nearest: {_closest(gene, symbols)})" for gene in missing[:3])
            raise ValueError(
                f"gene texts: {path.name} has no text of {len(missing)} of the panel's {len(genes)} genes: "
                f"{named}{'; ...' if len(missing) > 3 else ''}. Add an entry for each, or choose "
                "`text: table`"
            )
        marked = set(entries.keys()) - symbols
        for gene in genes:
            found = entries.get_tensor(gene)
            _require_tokens(found, gene, path, width)
            if gene + SUFFIX in marked:
                segment = entries.get_tensor(gene + SUFFIX)
                _require_segment(segment, gene, path, len(found))
            else:
                segment = torch.zeros(len(found))
            tokens.append(found[:most])
            segments.append(segment[:most].long())
    return GeneText(torch.cat(tokens), torch.cat(segments), torch.tensor([len(found) for found in tokens]))


def _closest(gene: str, symbols: set[str]) -> str:
    """Return the symbol most like a gene's, quoted; a file may hold 20,000, too many to list."""
    return next(iter(map(repr, get_close_matches(gene, symbols, n=1))), "none")


def _require_tokens(found: Tensor, gene: str, path: Path, width: int) -> None:
    shape = tuple(found.shape)
    if found.dtype != torch.float16 or len(shape) != 2 or shape[0] == 0 or shape[1] != width:
        raise ValueError(
            f"gene texts: entry '{gene}' of {path.name} must be float16 (tokens, {width}), found "
            f"{found.dtype} {shape}; write the last hidden states of the language model, or set `text_width`"
        )
    if not found.isfinite().all():
        raise ValueError(
            f"gene texts: entry '{gene}' of {path.name} must be finite, found NaN or infinity; float16 ends "
            "at 65504: scale the hidden states before they are written"
        )


def _require_segment(segment: Tensor, gene: str, path: Path, tokens: int) -> None:
    if (
        segment.shape != (tokens,)
        or segment.is_floating_point()
        or not 0 <= int(segment.min()) <= int(segment.max()) < SEGMENTS
    ):
        raise ValueError(
            f"gene texts: entry '{gene}{SUFFIX}' of {path.name} must be ({tokens},) integers from 0 to "
            f"{SEGMENTS - 1}, one per token, found {segment.dtype} {tuple(segment.shape)}; correct or drop it"
        )
