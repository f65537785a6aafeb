"""The fields of a batch: what one section has, and what a stack of sections has together.

`stlib.batch.Batch` documents each; `stlib.feed.Feed` joins, shuffles and cuts them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stlib import expression, features, graph
from stlib.alignment import Registration
from stlib.batch import LEVELS
from stlib.fingerprint import text_hash
from stlib.locations import rows_of
from stlib.overlap import contours
from stlib.params import Params
from stlib.sections import Section
from stlib.stack import stack_graph

Encoder = features.Encoder
TOUCHING = 1.5  # pitches: between the diagonal neighbour at 1.41 and the next but one at 2


def section_fields(
    params: Params,
    section: Section,
    panel: Sequence[str],
    needs: frozenset[str],
    encoder: Encoder,
    seen: np.ndarray,
    intra: int,
    tile_of: Section | None = None,
    permuted: bool = False,
    share: float = 1.0,
) -> dict[str, Tensor]:
    """Return the fields of one section.

    Parameters
    ----------
    seen
        Locations whose counts may be read (N,); those of the others are never looked at.
    intra
        Nearest neighbours in the graph; squares have those that they touch.
    tile_of
        The section that this one is a tile of: features are standardised as there, and not kept.
    permuted
        Whether each node gets the image of another one.
    share
        Of the counts, that the labels are to be expected of; see `stlib.transfer`.
    """
    n = len(section)

    def frozen(level: str, of: Section = section) -> Tensor:
        found = features.features(params, of, level, encoder, kept=tile_of is None or of is tile_of)
        return _images(found, of, level, permuted)

    counts = _where(seen, expression.panel_counts(section, panel)) if seen.any() else _nothing(n, len(panel))
    depth = section.counts.sum(1) if seen.any() else _nothing(n, 1)
    fields = {
        "position": torch.from_numpy(section.position),
        "array": torch.from_numpy(section.array),
        "layer": torch.full((n,), section.layer),
        "row": torch.arange(n),
        "expression": torch.from_numpy(expression.thinned_log_proportion(counts, share)),
        "depth": torch.from_numpy(_where(seen, np.asarray(depth, np.float32).ravel())),
    }
    if needs & {"features", "relative", "cross", "neighbours", "imputed", "readout"}:
        fields["features"] = frozen("spot")
    if needs & {"relative", "imputed", "readout"}:
        over = fields["features"] if tile_of is None else frozen("spot", tile_of)
        fields["relative"] = standardised(fields["features"], over)
    if needs & {"counts", "imputed"}:
        fields["counts"] = torch.from_numpy(counts)
    if "neighbours" in needs:
        around, inside = features.neighbours(params, section, encoder)
        fields["neighbour_features"] = _images(around, section, "spot", permuted)
        fields["neighbour_inside"] = _images(inside, section, "spot", permuted)
    if "levels" in needs:
        for level in LEVELS:
            fields |= _level(params, section, panel, level, frozen(level), counts)
    if "graph" in needs:
        edges, weight = _neighbours(section, intra)
        fields["edge_index"], fields["edge_weight"] = torch.from_numpy(edges), torch.from_numpy(weight)
    if "rate" in needs:
        if section.rate is None:
            raise ValueError(
                f"section '{section.name}': true rates are known for made data alone; `oracle` cannot run on "
                "it"
            )
        fields["rate"] = torch.from_numpy(section.rate[:, section.columns(panel)])
    return fields


def stack_fields(
    params: Params,
    sections: Sequence[Section],
    aligned: dict[str, Registration],
    looks: Tensor,
    intra: int,
    cross: int,
) -> dict[str, Tensor | float]:
    """Return what the sections of one stack have together: registered places, and one graph of all.

    A section whose registration is not proven has NaN for places, and no edge to another section.

    Parameters
    ----------
    params, sections
        The dataset, and the sections in the batch's order.
    aligned
        Section -> map to the middle one.
    looks
        Frozen features of all locations (N, D), in one space.
    intra, cross
        Neighbours in the own section, and in each other one.
    """
    um_per_px = float(np.mean(sections[0].um_per_px))
    radius_um = params.graph.radius_px * um_per_px
    places = [_registered(aligned[section.name], section.position) for section in sections]
    circles = all(aligned[section.name].is_similarity for section in sections)
    edges = stack_graph(
        np.concatenate([section.position for section in sections]),
        np.concatenate(places),
        np.repeat(np.arange(len(sections)), [len(section) for section in sections]),
        looks.numpy(),
        pitch=np.concatenate([np.full(len(section), _pitch_px(section)) for section in sections]),
        intra=intra,
        cross=cross,
        radius=radius_um,
        contour=None
        if circles
        else np.concatenate([_contours(s, aligned[s.name], params.graph.radius_px) for s in sections]),
    )
    return {
        "registered": torch.from_numpy(np.concatenate(places)),
        "radius_um": radius_um,
        "pitch_um": sections[0].pitch_um,
        "edge_index": torch.from_numpy(edges.edge_index),
        "edge_weight": torch.from_numpy(edges.edge_weight).float(),
        "across": torch.from_numpy(edges.across),
    }


def standardised(x: Tensor, over: Tensor | None = None) -> Tensor:
    """Return features (N, D) with mean 0 and deviation 1 over their rows, or those of `over` (M, D).

    A constant one becomes 0.
    """
    over = x if over is None else over
    return (x - over.mean(0)) / over.std(0, correction=0).clamp(min=1e-6)


def _contours(section: Section, registration: Registration, radius_px: float) -> np.ndarray:
    """Return the registered outline of each spot (N, 99, 2), um."""
    outline = contours(section.position, radius_px)
    return _registered(registration, outline.reshape(-1, 2)).reshape(outline.shape)


def _registered(registration: Registration, position: np.ndarray) -> np.ndarray:
    """Return places in um of the stack's frame (M, 2); NaN where the section is not proven to lie there."""
    return registration.to_um(position) if registration.ok else np.full(position.shape, np.nan)


def another(section: Section, level: str, number: int) -> np.ndarray:
    """Return for each node of a level (number,) another one of its section, the same at each call."""
    return np.random.default_rng(int(text_hash(section.name, level)[:15], 16)).permutation(number)


def _images(found: np.ndarray, section: Section, level: str, permuted: bool) -> Tensor:
    """Return what was read of each node's image (nodes, ...), of its own or of another node's."""
    return torch.from_numpy(np.array(found[another(section, level, len(found))] if permuted else found))


def _neighbours(section: Section, intra: int) -> graph.Edges:
    """Return the edges within a section (2, E), and 1 / distance in pitches (E,).

    Squares are joined to the 8 that they touch: no ties, and the same whatever else is there.
    """
    pitch = _pitch_px(section)
    if section.shape == "square":
        edges, distance = graph.radius_graph(section.position, TOUCHING * pitch)
    else:
        edges, distance = graph.knn_graph(section.position, intra)
    return graph.symmetric(edges, pitch / np.maximum(distance, 1e-6))


def _level(
    params: Params,
    section: Section,
    panel: Sequence[str],
    level: str,
    looks: Tensor,
    counts: np.ndarray,
) -> dict[str, Tensor]:
    parents, cells = graph.grid_parents(section.position, params.levels[level].px)
    seen = np.isfinite(counts).all(1)
    held = np.unique(parents[seen])  # a cell is labelled by those of its spots that may be read
    label = _nothing(len(cells), counts.shape[1])
    if level in section.cells and len(held):  # the spots are a sample; the cell sums all that it holds
        label[held] = _cell_counts(section, panel, level, cells[held])
    else:
        label[held] = expression.sum_over(parents[seen], counts[seen], len(cells))[held]
    return {
        f"{level}_parent": torch.from_numpy(parents),
        f"{level}_cell": torch.from_numpy(cells),
        f"{level}_features": standardised(looks),
        f"{level}_expression": torch.from_numpy(expression.log_proportion(label)),
        f"{level}_edges": torch.from_numpy(graph.grid_graph(cells)),
    }


def _cell_counts(section: Section, panel: Sequence[str], level: str, wanted: np.ndarray) -> np.ndarray:
    """Return the counts of all that was measured in some cells (R, G)."""
    index, counts = section.cells[level]
    rows = rows_of(wanted, index)
    absent = wanted[rows < 0].tolist()
    if absent:
        raise ValueError(
            f"section '{section.name}': each {level} cell with a location has the sum of its counts, found "
            f"none for {len(absent)}, e.g. {absent[0]}. If `levels` changed since then, run `make data` again"
        )
    return counts[rows][:, section.columns(panel)].toarray()


def _pitch_px(section: Section) -> float:
    return section.pitch_um / float(section.um_per_px.mean())


def _nothing(*size: int) -> np.ndarray:
    return np.full(size, np.nan, np.float32)


def _where(seen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values (N, ...) float32 with NaN where they may not be read."""
    out = np.array(values, np.float32)
    out[~seen] = np.nan
    return out
