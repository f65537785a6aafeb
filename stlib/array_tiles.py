"""A slide cut into squares of its array, each with the surroundings that predictions in it depend on.

Patches and features of locations are made tile by tile and forgotten; those of the grid cells, which are few,
are kept as ever.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from stlib import features, graph
from stlib.batch import LEVELS, Batch
from stlib.fields import section_fields, standardised
from stlib.models import Method, Reach
from stlib.params import Params
from stlib.sections import Section

Tile = tuple[int, int]  # column and row among the tiles


class Tiles:
    """The locations of a slide by tile; N of them.

    Parameters
    ----------
    section
        The slide as it was prepared, with a sample of its locations: over these, features are standardised.
    array, position
        Column and row (N, 2) of all locations, and their centres (N, 2), level-0 px.
    side
        Columns and rows of a tile.

    Attributes
    ----------
    origin
        Column and row of the first place (2,).
    shape
        Rows and columns of the array.
    place, position
        Column and row from the origin (N, 2), and centre (N, 2), tile after tile.
    """

    def __init__(self, params: Params, section: Section, array: np.ndarray, position: np.ndarray, side: int):
        self.params, self.section, self.side = params, section, side
        self.origin = array.min(0).astype(np.int64)
        place = array.astype(np.int64) - self.origin
        self.shape = tuple(int(n) for n in place.max(0)[::-1] + 1)
        self._across = -(-self.shape[1] // side)  # tiles
        code = place // side @ [1, self._across]
        order = np.argsort(code, kind="stable")
        self.place, self.position = place[order], np.asarray(position, float)[order]
        self._code = code[order]

    def __iter__(self) -> Iterator[Tile]:
        """Yield each tile that holds a location."""
        for code in np.unique(self._code):
            yield int(code % self._across), int(code // self._across)

    def window(self, tile: Tile) -> tuple[slice, slice]:
        """Return the rows and columns of the array that a tile covers."""
        ends = zip(tile[::-1], self.shape, strict=True)
        return tuple(slice(n * self.side, min((n + 1) * self.side, size)) for n, size in ends)

    def around(self, tile: Tile, steps: int) -> np.ndarray:
        """Return which locations lie in a tile or at most `steps` beyond it, those in it first."""
        low, far = np.array(tile) * self.side, -(-steps // self.side)
        rows = np.arange(max(tile[1] - far, 0), tile[1] + far + 1) * self._across
        first = np.searchsorted(self._code, rows + max(tile[0] - far, 0))
        last = np.searchsorted(self._code, rows + min(tile[0] + far, self._across - 1), side="right")
        near = np.concatenate([np.arange(*ends) for ends in zip(first, last, strict=True)])
        beyond = np.maximum(low - self.place[near], self.place[near] - (low + self.side - 1)).max(1)
        return np.concatenate([near[beyond <= 0], near[(beyond > 0) & (beyond <= steps)]])

    def as_section(self, rows: np.ndarray | slice) -> Section:
        """Return some locations as a section without counts."""
        position, array = self.position[rows], (self.place[rows] + self.origin).astype(float)
        nameless = np.zeros(len(position), "U1")
        return replace(
            self.section, barcodes=nameless, array=array, position=position, counts=None, rate=None, cells={}
        )


class Cells:
    """The grid cells of one level of a whole slide, with their features."""

    def __init__(self, tiles: Tiles, level: str, encoder: features.Encoder):
        whole, self.level = tiles.as_section(slice(None)), level
        self.parent, self.index = graph.grid_parents(whole.position, tiles.params.levels[level].px)
        self.features = features.features(tiles.params, whole, level, encoder)  # a memory map (R, D)
        self.over = torch.from_numpy(np.array(features.features(tiles.params, tiles.section, level, encoder)))

    def fields(self, rows: np.ndarray, steps: int, genes: int) -> dict[str, Tensor]:
        """Return the fields of the cells that locations lie in, or at most `steps` from one of these."""
        own = np.unique(self.parent[rows])
        tree = cKDTree(self.index[own])
        distance, _ = tree.query(self.index, p=np.inf, distance_upper_bound=steps + 0.5)
        near = np.flatnonzero(np.isfinite(distance))
        found = torch.from_numpy(np.array(self.features[near]))
        return {
            f"{self.level}_parent": torch.from_numpy(np.searchsorted(near, self.parent[rows])),
            f"{self.level}_cell": torch.from_numpy(self.index[near]),
            f"{self.level}_features": standardised(found, self.over),
            f"{self.level}_expression": torch.full((len(near), genes), torch.nan),
            f"{self.level}_edges": torch.from_numpy(graph.grid_graph(self.index[near])),
        }


class TileFeed:
    """Make the batches of a model for the tiles of a slide."""

    def __init__(self, tiles: Tiles, model: Method, reach: Reach):
        params, config = tiles.params, model.config
        self.tiles, self.reach, self.intra = tiles, reach, config.intra
        self.panel, self.needs = list(model.shape.panel), model.needs(config)
        self.encoder = features.encoder(params.encoder if config.frozen == "dataset" else config.frozen)
        levels = LEVELS if "levels" in self.needs else ()
        self.cells = [Cells(tiles, level, self.encoder) for level in levels]

    def batch(self, tile: Tile) -> Batch:
        """Return the locations of a tile, then those around it, with the cells that they depend on."""
        rows = self.tiles.around(tile, self.reach.locations)
        part, n = self.tiles.as_section(rows), len(rows)
        needs, hidden = self.needs - {"levels"}, np.zeros(n, bool)
        fields = section_fields(
            self.tiles.params, part, self.panel, needs, self.encoder, hidden, self.intra, self.tiles.section
        )
        for level in self.cells:
            fields |= level.fields(rows, self.reach.cells, len(self.panel))
        if "graph" in needs:
            fields["across"] = torch.zeros(fields["edge_index"].shape[1], dtype=torch.bool)
        if "patch" in needs:
            patch = features.patches(self.tiles.params, part, "spot", kept=False)
            fields["patch"] = torch.from_numpy(patch).permute(0, 3, 1, 2)  # (n, 3, P, P)
        nothing = torch.zeros(n, dtype=torch.long)
        fields |= {"known": nothing.bool(), "section": nothing, "patient": nothing}
        return Batch(num_nodes=n, **fields)
