"""Where batches come from: one fold for one model, made from prepared sections and caches.

For training the batches are shuffled and augmented; whole, each location comes once, in order, untouched.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from stlib import expression, features, graph
from stlib.alignment import load_registration
from stlib.batch import LEVELS, Batch, Shape, hide, subset
from stlib.params import Params, nearest
from stlib.sections import Section

UNITS = ("spot", "section", "stack")
NEEDS = ("patch", "features", "relative", "neighbours", "levels", "graph", "cross", "counts", "rate")


class Feed:
    """Make the batches of one fold for one model.

    Parameters
    ----------
    params
        The dataset.
    sections
        Prepared sections by name: all that are trained on, validated or predicted.
    panel
        Genes to predict, in order.
    unit, needs
        What one batch holds, and which fields, see `stlib.models.Method`.
    protocol
        In ``2d`` a stack has no edges between its sections.
    batch_size
        Locations per training batch at most.
    hidden
        Sections whose counts must never be read: the test sections that are not known.
    frozen
        Encoder of the frozen features; "dataset": the one that the params file names.
    """

    def __init__(
        self,
        params: Params,
        sections: dict[str, Section],
        panel: list[str],
        *,
        unit: str,
        needs: frozenset[str],
        protocol: str,
        batch_size: int,
        hidden: tuple[str, ...] = (),
        frozen: str = "dataset",
    ):
        _check_words("UNIT", {unit}, UNITS)
        _check_words("NEEDS", needs, NEEDS)
        self.params, self.sections, self.panel = params, sections, panel
        self.unit, self.needs, self.protocol, self.batch_size = unit, needs, protocol, batch_size
        self.hidden = set(hidden)
        self.encoder = features.encoder(params.encoder if frozen == "dataset" else frozen)
        self.order = {name: index for index, name in enumerate(sections)}
        patients = list(dict.fromkeys(section.patient for section in sections.values()))
        self.patients = {patient: index for index, patient in enumerate(patients)}
        self._parts: dict[str, dict[str, Tensor]] = {}
        self._groups: dict[tuple[str, ...], Batch] = {}
        self._patches: dict[str, np.ndarray] = {}  # memory maps

    @property
    def shape(self) -> Shape:
        """What the data fixes about the model; D is 0 if it takes no frozen features."""
        part = self._part(next(iter(self.order)))
        found = part.get("features", part.get("region_features"))
        positions = 1 + max(round(float(section.array.max())) for section in self.sections.values())
        return Shape(tuple(self.panel), 0 if found is None else found.shape[1], positions)

    def whole(
        self, names: Iterable[str], known: Iterable[str] = (), labelled: bool = True
    ) -> Iterator[Batch]:
        """Yield each location of the named sections once, in order.

        Parameters
        ----------
        names
            Sections to yield.
        known
            Sections whose expression the model may read.
        labelled
            Whether the other sections have their labels (to learn from), or NaN (to be predicted).
        """
        known = set(known)
        for group in self._grouped(names):
            batch = self._group(group)
            section_known = torch.tensor([name in known for name in self.sections])
            batch.known = section_known[batch.section]
            if not labelled:
                batch = hide(batch, ~batch.known)
            rows = torch.arange(len(batch.row))
            size = self.batch_size if self.unit == "spot" else len(rows)
            for part in rows.split(size):
                yield self._with_patches(subset(batch, part))

    def training(self, names: Iterable[str], generator: torch.Generator) -> Iterator[Batch]:
        """Yield the named sections once in shuffled batches, patches turned and mirrored at random.

        In the protocol 3d one measured section of each stack plays the known one, drawn anew each time, so
        that training asks what the test will ask; of a single section half the spots do.
        """
        groups = self._grouped(names)
        for index in torch.randperm(len(groups), generator=generator).tolist():
            batch = self._group(groups[index])
            batch.known = self._draw_known(batch, generator)
            for rows in self._blocks(batch, generator):
                part = self._with_patches(subset(batch, rows))
                if "patch" in self.needs:
                    part.patch = augment(part.patch, generator)
                yield part

    def truth(self, name: str) -> np.ndarray:
        """Return the labels of a section (N, G) for scoring; models never see this."""
        return expression.log_proportion(expression.panel_counts(self.sections[name], self.panel))

    def _grouped(self, names: Iterable[str]) -> list[tuple[str, ...]]:
        names = tuple(names)
        if self.unit == "spot":
            return [names] if names else []
        if self.unit == "section":
            return [(name,) for name in names]
        stacks: dict[str, list[str]] = {}
        for name in names:
            stacks.setdefault(self.sections[name].patient, []).append(name)
        return [tuple(sorted(stack, key=lambda name: self.sections[name].layer)) for stack in stacks.values()]

    def _draw_known(self, batch: Batch, generator: torch.Generator) -> Tensor:
        n = len(batch.row)
        if self.protocol != "3d" or self.unit != "stack":
            return torch.zeros(n, dtype=torch.bool)
        present = batch.section.unique()
        if len(present) == 1:
            return torch.rand(n, generator=generator) < 0.5
        return batch.section == present[torch.randint(len(present), (), generator=generator)]

    def _blocks(self, batch: Batch, generator: torch.Generator) -> Iterable[Tensor]:
        """Cut a group into batches: spots at random, sections and stacks into connected pieces of tissue."""
        n = len(batch.row)
        if self.unit == "spot":
            return torch.randperm(n, generator=generator).tensor_split(-(-n // self.batch_size))
        place = batch.registered if "registered" in batch else batch.position
        return kd_blocks(place, self.batch_size, generator)

    def _group(self, names: tuple[str, ...]) -> Batch:
        """Return sections side by side, without patches; made once."""
        if names not in self._groups:
            self._groups[names] = self._join(names)
        return self._groups[names].clone()

    def _join(self, names: tuple[str, ...]) -> Batch:
        parts = [self._part(name) for name in names]
        sizes = np.array([len(part["row"]) for part in parts])
        batch = Batch(num_nodes=int(sizes.sum()))
        for key in parts[0]:
            tensors = [part[key] for part in parts]
            if key.endswith(("_parent", "_edges", "edge_index")):  # indices: shift by what stands before
                level = key.split("_")[0]
                before = sizes if key == "edge_index" else [len(part[f"{level}_features"]) for part in parts]
                offsets = np.concatenate([[0], np.cumsum(before)[:-1]]).astype(int)
                tensors = [tensor + int(offset) for tensor, offset in zip(tensors, offsets, strict=True)]
            batch[key] = torch.cat(tensors, -1 if key.endswith(("_edges", "edge_index")) else 0)
        if "cross" in self.needs and self.protocol == "3d":
            self._add_cross(batch, names)
        if "rate" in self.needs:
            batch.dispersion = self.sections[names[0]].dispersion
        return batch

    def _part(self, name: str) -> dict[str, Tensor]:
        """Return the fields of one section as tensors; made once."""
        if name not in self._parts:
            self._parts[name] = self._make_part(name)
        return self._parts[name]

    def _make_part(self, name: str) -> dict[str, Tensor]:
        section, params = self.sections[name], self.params
        n = len(section)
        part = {
            "position": torch.from_numpy(section.position),
            "array": torch.from_numpy(section.array),
            "section": torch.full((n,), self.order[name]),
            "patient": torch.full((n,), self.patients[section.patient]),
            "layer": torch.full((n,), section.layer),
            "row": torch.arange(n),
        }
        counts = None if name in self.hidden else expression.panel_counts(section, self.panel)
        nowhere = torch.full((n, len(self.panel)), torch.nan)
        part["expression"] = (
            nowhere if counts is None else torch.from_numpy(expression.log_proportion(counts))
        )
        part["depth"] = (
            torch.full((n,), torch.nan)
            if counts is None
            else torch.from_numpy(np.asarray(section.counts.sum(1), np.float32).ravel())
        )
        if self.needs & {"features", "relative", "cross", "neighbours"}:
            part["features"] = self._features(section, "spot")
        if "relative" in self.needs:
            part["relative"] = standardised(part["features"])
        if "counts" in self.needs:
            part["counts"] = nowhere if counts is None else torch.from_numpy(counts.astype(np.float32))
        if "neighbours" in self.needs:
            around, inside = features.neighbours(params, section, self.encoder)
            part["neighbour_features"] = torch.from_numpy(np.array(around))
            part["neighbour_inside"] = torch.from_numpy(inside)
        if "levels" in self.needs:
            for level in LEVELS:
                part |= self._level(section, level, counts)
        if "graph" in self.needs:
            pitch_px = section.pitch_um / section.um_per_px.mean()
            edges, distance = graph.knn_graph(section.position, params.graph.intra)
            edges, weight = graph.symmetric(edges, pitch_px / np.maximum(distance, 1e-6))
            part["edge_index"], part["edge_weight"] = (
                torch.from_numpy(edges),
                torch.from_numpy(weight).float(),
            )
        if "rate" in self.needs:
            if section.rate is None:
                raise ValueError(
                    f"section '{name}': true rates are known for made data alone; `oracle` cannot run on it"
                )
            part["rate"] = torch.from_numpy(section.rate[:, section.columns(self.panel)])
        return part

    def _features(self, section: Section, level: str) -> Tensor:
        return torch.from_numpy(np.array(features.features(self.params, section, level, self.encoder)))

    def _level(self, section: Section, level: str, counts: np.ndarray | None) -> dict[str, Tensor]:
        parents, cells = graph.grid_parents(section.position, self.params.levels[level].px)
        label = np.full((len(cells), len(self.panel)), np.nan, np.float32)
        if counts is not None:
            label = expression.log_proportion(expression.sum_over(parents, counts, len(cells)))
        return {
            f"{level}_parent": torch.from_numpy(parents),
            f"{level}_features": standardised(self._features(section, level)),
            f"{level}_expression": torch.from_numpy(label),
            f"{level}_edges": torch.from_numpy(graph.grid_graph(cells)),
        }

    def _add_cross(self, batch: Batch, names: tuple[str, ...]) -> None:
        aligned = load_registration(self.params.name)
        registered = np.concatenate([aligned[name].to_um(self.sections[name].position) for name in names])
        batch.registered = torch.from_numpy(registered)
        um_per_px = float(np.mean(self.sections[names[0]].um_per_px))
        batch.radius_um = self.params.graph.radius_px * um_per_px
        edges, weight = graph.cross_graph(
            registered,
            batch.section.numpy(),
            batch.features.numpy(),
            radius=batch.radius_um,
            k=self.params.graph.cross,
        )
        batch.cross_index, batch.cross_weight = torch.from_numpy(edges), torch.from_numpy(weight).float()

    def _with_patches(self, batch: Batch) -> Batch:
        """Read the patches of a batch from the cache, section by section."""
        if "patch" not in self.needs:
            return batch
        px = self.params.levels["spot"].out_px
        patch = torch.empty(len(batch.row), px, px, 3, dtype=torch.uint8)
        for name, index in self.order.items():
            here = (batch.section == index).nonzero().ravel()
            if len(here):
                if name not in self._patches:
                    self._patches[name] = features.patches(self.params, self.sections[name], "spot")
                patch[here] = torch.from_numpy(self._patches[name][batch.row[here].numpy()])
        batch.patch = patch.permute(0, 3, 1, 2)  # (N, 3, P, P), channels last in memory
        return batch


def _check_words(name: str, words: Iterable[str], known: tuple[str, ...]) -> None:
    for word in words:
        if word not in known:
            raise ValueError(f"{name} of a method: '{word}' is unknown (nearest: {nearest(word, known)})")


def standardised(x: Tensor) -> Tensor:
    """Return features (N, D) with mean 0 and deviation 1 over their rows; a constant one becomes 0."""
    return (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-6)


def kd_blocks(position: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Cut points into connected pieces of at most `size`, halving along a random direction each time.

    Every point is in one piece. O(N log^2 N).

    Parameters
    ----------
    position
        (N, 2).
    size
        Points per piece at most.
    """
    waiting, blocks = [torch.arange(len(position))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= size:
            blocks.append(rows)
            continue
        angle = torch.rand((), generator=generator) * torch.pi
        along = position[rows] @ torch.stack([angle.cos(), angle.sin()]).to(position.dtype)
        waiting += [rows[half] for half in along.argsort().tensor_split(2)]
    return [blocks[index] for index in torch.randperm(len(blocks), generator=generator).tolist()]


def augment(patch: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each patch by a random multiple of 90 degrees and mirror half of them.

    Parameters
    ----------
    patch
        (N, 3, P, P).
    """
    turn = torch.randint(4, (len(patch),), generator=generator)
    mirror = torch.randint(2, (len(patch),), generator=generator).bool()
    out = patch.clone()
    for quarter in (1, 2, 3):
        out[turn == quarter] = patch[turn == quarter].rot90(quarter, (2, 3))
    out[mirror] = out[mirror].flip(3)
    return out
