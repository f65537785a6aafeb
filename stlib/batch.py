"""What a model is fed: a small base, and the fields it asks for.

`Batch` documents every field with its shape; `stlib.feed` makes them. A hidden location has NaN for
expression: nothing that reads it can go unnoticed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

LEVELS = ("region", "global")
SPOT_FIELDS = tuple(
    "position registered array section patient layer row expression known depth counts features relative "
    "neighbour_features neighbour_inside rate region_parent global_parent start denoised imputed "
    "readout pixels size_um".split()
)


class Shape(NamedTuple):
    """What the data fixes about a model: `Feed` finds it, `build` takes it."""

    panel: tuple[str, ...]  # G genes, in order
    features: int = 0  # D, width of the frozen features
    positions: int = 0  # columns and rows of the array: each coordinate is below it

    @property
    def genes(self) -> int:
        """G."""
        return len(self.panel)


class Batch:
    """N locations with their measurements and context; G genes, D widths of frozen features.

    Fields are read and set by attribute or by name, as those of PyTorch Geometric's `Data`, whose layers take
    them; importing that costs more than most runs of a control.

    Attributes
    ----------
    position
        Centre in level-0 pixels (N, 2), x right, y down.
    array
        Column and row in the array (N, 2).
    section, patient
        Index of the section among those of the feed, and of its patient (N,).
    layer
        Place of the section in its stack (N,), 1 is the first cut.
    row
        Index of the location in its section (N,).
    expression
        Label on the log-proportion scale (N, G); NaN where it is hidden.
    known
        Whether the model may read `expression` of a location as an input (N,).
    depth
        Total raw counts over all genes (N,); NaN where hidden.

    patch
        NEEDS "patch": image around each location (N, 3, P, P), uint8.
    counts
        NEEDS "counts": raw counts of the panel (N, G); NaN where hidden.
    features
        NEEDS "features": frozen features of the spot level (N, D).
    relative
        NEEDS "relative": the same, standardised within each section (N, D), so that no slide's stain stands
        out.
    neighbour_features, neighbour_inside
        NEEDS "neighbours": frozen features of the 5 x 5 patches around each location, row by row, itself the
        13th (N, 25, D), and which of them lie on the slide (N, 25).
    region_features, region_parent, region_cell, region_expression, region_edges (and global_...)
        NEEDS "levels": features of the grid cells (R, D), standardised within each section, the cell of each
        location (N,), column and row of each cell (R, 2), its label (R, G), NaN where hidden, and which cells
        are near each other (2, E), see `stlib.graph.grid_graph`.
    edge_index, edge_weight, across
        NEEDS "graph": neighbours in the same section (2, E), of squares those that touch, weight 1 / distance
        in pitches (E,). With "cross" in 3d also those in other sections, weight overlap + cosine similarity;
        `across` (E,) tells them apart.
    registered
        NEEDS "cross": position in um in the frame of the stack's middle section (N, 2); NaN where a section
        is not proven to lie there.
    radius_um, pitch_um
        NEEDS "cross": radius of the circle whose overlap is measured, and distance of neighbouring spots.
    start
        NEEDS "start": mean label of the known spots of the stack (N, G); in training, where none is known,
        of all.
    denoised
        NEEDS "denoised": known labels with less noise, see `stlib.smoothing.low_rank` (N, G); NaN elsewhere.
    imputed
        NEEDS "imputed": labels that the known ones let expect, see `stlib.kriging` (N, G); of known spots
        theirs with less noise; NaN where none is known.
    readout
        NEEDS "readout": a ridge on `relative`, fitted to the known spots (N, G); NaN where none is known.
    window, pool
        UNIT "window", in training: windows of slides (B, 3, S, S), uint8, and how the locations sum up the
        cells of their maps, sparse (N, B S/4 S/4): window by window, row by row; see `stlib.pooling`.
    tiles
        UNIT "window", whole: the section's slide and what the locations cover of it, see `stlib.tiles.Tiles`.
    pixels, size_um
        NEEDS "window": pixels of each location on its slide (N,), and its diameter or side (N,).
    rate, dispersion
        NEEDS "rate": expected counts of the panel (N, G) and their dispersion; only made data has them.
    """

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    def __getitem__(self, name: str) -> Any:
        return vars(self)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        vars(self)[name] = value

    def __delitem__(self, name: str) -> None:
        del vars(self)[name]

    def __contains__(self, name: str) -> bool:
        return name in vars(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields by name."""
        return dict(vars(self))

    def clone(self) -> Self:
        """Return the same batch with tensors of its own."""
        return self._each(Tensor.clone)

    def to(self, device: torch.device | str) -> Self:
        """Return the batch with its tensors on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(
            **{
                name: change(value) if isinstance(value, Tensor) else value
                for name, value in vars(self).items()
            }
        )


def subset(batch: Batch, rows: Tensor) -> Batch:
    """Return some locations of a batch, the edges among them, and the cells they lie in."""
    n = len(batch.row)
    place = torch.full((n,), -1)
    place[rows] = torch.arange(len(rows))
    out = Batch(num_nodes=len(rows))
    for key in SPOT_FIELDS:
        if key in batch:
            out[key] = batch[key][rows]
    if "edge_index" in batch:
        out.edge_index, kept = _relabel(batch.edge_index, place)
        out.edge_weight, out.across = batch.edge_weight[kept], batch.across[kept]
    for level in LEVELS:
        if f"{level}_parent" in batch:
            cells, out[f"{level}_parent"] = out[f"{level}_parent"].unique(return_inverse=True)
            place = torch.full((len(batch[f"{level}_features"]),), -1)
            place[cells] = torch.arange(len(cells))
            for kind in ("features", "cell", "expression"):
                out[f"{level}_{kind}"] = batch[f"{level}_{kind}"][cells]
            out[f"{level}_edges"], _ = _relabel(batch[f"{level}_edges"], place)
    for key in ("radius_um", "pitch_um", "dispersion"):
        if key in batch:
            out[key] = batch[key]
    if "window" in batch:
        out.window, out.pool = batch.window, batch.pool.index_select(0, rows).coalesce()
    if "tiles" in batch:
        out.tiles = batch.tiles.take(rows)
    return out


def _relabel(edges: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Return the edges whose both ends have a place, in terms of it, and which they were."""
    kept = (place[edges] >= 0).all(0)
    return place[edges[:, kept]], kept


def hide(batch: Batch, hidden: Tensor) -> Batch:
    """Remove the labels of locations, and of the cells that hold any of them."""
    for key in ("expression", "depth", "counts"):
        if key in batch:
            batch[key] = batch[key].clone()
            batch[key][hidden] = torch.nan
    for level in LEVELS:
        if f"{level}_parent" in batch:
            label = batch[f"{level}_expression"].clone()
            label[batch[f"{level}_parent"][hidden]] = torch.nan
            batch[f"{level}_expression"] = label
    return batch
