"""Where batches come from: one fold for one model, made from prepared sections and caches.

For training the batches are shuffled and augmented; whole, each location comes once, in order, untouched.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stlib import expression, features
from stlib.alignment import Registration, load_registration
from stlib.batch import Batch, Shape, hide, subset
from stlib.blocks import kd_blocks
from stlib.dense_feed import DenseFeed
from stlib.fields import another, section_fields, stack_fields
from stlib.fingerprint import text_hash
from stlib.known import FIELDS, Covariances, known_fields
from stlib.losses import seen
from stlib.params import Params
from stlib.records import require_known
from stlib.sections import Section
from stlib.transfer import views

if TYPE_CHECKING:
    from stlib.models import Config

UNITS = ("spot", "section", "stack", "window")
NEEDS = (
    *("patch", "features", "relative", "neighbours", "levels", "graph", "cross", "counts", "rate", "window"),
    *FIELDS,
)


class Feed:
    """Make the batches of one fold for one model.

    Parameters
    ----------
    params
        The dataset, of a transfer the one at home.
    sections
        Prepared sections by name: all that are trained on, validated or predicted. Those of another dataset
        are seen as `stlib.transfer` says.
    panel
        Genes to predict, in order.
    config
        The model's settings; those that every model has say how it is fed.
    unit, needs
        What one batch holds, and which fields, see `stlib.models.Method`.
    protocol
        In ``2d`` a stack has no edges between its sections.
    hidden
        Sections whose counts must never be read: the test sections that are not known.
    measured
        Known sections of test patients, of which a share of `known_test` is measured.
    counted
        Sections whose counts may say how genes vary together, slide or not.
    aligned
        Section -> map to the middle one of its stack. Default: as registered for the dataset.
    """

    def __init__(
        self,
        params: Params,
        sections: dict[str, Section],
        panel: list[str],
        config: "Config",
        *,
        unit: str,
        needs: frozenset[str],
        protocol: str,
        hidden: tuple[str, ...] = (),
        measured: tuple[str, ...] = (),
        counted: Iterable[Section] = (),
        aligned: Mapping[str, Registration] | None = None,
    ):
        _check_words("UNIT", {unit}, UNITS)
        _check_words("NEEDS", needs, NEEDS)
        self.params, self.panel, self.views = params, panel, views(params, sections, hidden)
        self.sections = {name: view.section for name, view in self.views.items()}
        self.unit, self.needs, self.protocol, self.config = unit, needs, protocol, config
        self.hidden, self.measured, self.counted = set(hidden), set(measured), tuple(counted)
        self.covariances = Covariances(self.counted, panel)
        self.aligned = aligned
        self.dense = DenseFeed(params, self.views, config)
        self.encoder = features.encoder(params.encoder if config.frozen == "dataset" else config.frozen)
        self.order = {name: index for index, name in enumerate(sections)}
        patients = list(dict.fromkeys(section.patient for section in sections.values()))
        self.patients = {patient: index for index, patient in enumerate(patients)}
        self._parts: dict[str, dict[str, Tensor]] = {}
        self._groups: dict[tuple[str, ...], Batch] = {}
        self._patches: dict[str, np.ndarray] = {}  # memory maps
        self._known: dict[tuple, dict[str, Tensor]] = {}

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
        known
            Sections whose expression the model may read.
        labelled
            Whether the other sections have their labels (to learn from), or NaN (to be predicted).
        """
        known = set(known)
        for group in self._grouped(names):
            batch = self._group(group)
            section_known = torch.tensor([name in known for name in self.sections])
            batch.known = section_known[batch.section] & seen(batch.expression)
            if not labelled:
                batch = hide(batch, ~batch.known)
            self._add_known(batch, group)
            rows = torch.arange(len(batch.row))
            size = self.config.batch_size if self.unit == "spot" else len(rows)
            if self.unit == "window":
                batch.tiles = self.dense.tiles(group[0])
            for part in rows.split(size):
                yield self._with_patches(subset(batch, part))

    def training(self, names: Iterable[str], generator: torch.Generator) -> Iterator[Batch]:
        """Yield the named sections once in shuffled batches, patches turned and mirrored at random.

        In the protocol 3d one section of each stack plays the known one, drawn anew each time, so that
        training asks what the test will ask; a single section has no known one. With `known_train` that share
        of all spots is known instead, as in ASIGN's paper. Windows of slides hold whole locations, see
        `stlib.windows`.
        """
        if self.unit == "window":
            names = tuple(names)
            batch = self._group(names)
            batch.known = torch.zeros(len(batch.row), dtype=torch.bool)
            yield from self.dense.training(batch, names, generator)
            return
        groups = self._grouped(names)
        for index in torch.randperm(len(groups), generator=generator).tolist():
            batch = self._group(groups[index])
            batch.known = self._draw_known(batch, generator)
            self._add_known(batch, groups[index])
            for rows in self._blocks(batch, generator):
                part = self._with_patches(subset(batch, rows))
                if "patch" in self.needs:
                    part.patch = augment(part.patch, generator)
                yield part

    def truth(self, name: str) -> np.ndarray:
        """Return the labels of a section (N, G) for scoring; models never see this."""
        counts = expression.panel_counts(self.sections[name], self.panel)
        return expression.thinned_log_proportion(counts, self.views[name].share)

    def _grouped(self, names: Iterable[str]) -> list[tuple[str, ...]]:
        names = tuple(names)
        if self.unit == "spot":
            return [names] if names else []
        if self.unit in ("section", "window"):
            return [(name,) for name in names]
        stacks: dict[str, list[str]] = {}
        for name in names:
            stacks.setdefault(self.sections[name].patient, []).append(name)
        return [tuple(sorted(stack, key=lambda name: self.sections[name].layer)) for stack in stacks.values()]

    def _draw_known(self, batch: Batch, generator: torch.Generator) -> Tensor:
        labelled = seen(batch.expression)
        if self.protocol != "3d" or self.unit != "stack":
            return torch.zeros_like(labelled)
        if self.config.known_train is not None:
            return (torch.rand(len(labelled), generator=generator) < self.config.known_train) & labelled
        present = batch.section.unique()
        if len(present) == 1:
            return torch.zeros_like(labelled)
        return (batch.section == present[torch.randint(len(present), (), generator=generator)]) & labelled

    def _blocks(self, batch: Batch, generator: torch.Generator) -> Iterable[Tensor]:
        """Cut a group into batches: spots at random, sections and stacks into connected pieces of tissue."""
        n = len(batch.row)
        if self.unit == "spot":
            return torch.randperm(n, generator=generator).tensor_split(-(-n // self.config.batch_size))
        place = batch.registered if "registered" in batch else batch.position
        return kd_blocks(place.nan_to_num(), self.config.batch_size, generator)

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
            sections = [self.sections[name] for name in names]
            aligned = self.aligned or load_registration(self.params.name)
            for key, value in stack_fields(
                self.params, sections, aligned, batch.features, self.config.intra, self.config.cross
            ).items():
                batch[key] = value
        elif "edge_index" in batch:
            batch.across = torch.zeros(batch.edge_index.shape[1], dtype=torch.bool)
        if "rate" in self.needs:
            batch.dispersion = self.sections[names[0]].dispersion
        return batch

    def _part(self, name: str) -> dict[str, Tensor]:
        """Return the fields of one section; made once."""
        if name not in self._parts:
            section = self.sections[name]
            fields = section_fields(
                self.views[name].params, section, self.panel, self.needs, self.encoder, self._seen(name),
                self.config.intra, permuted=self.config.permuted, share=self.views[name].share,
            )  # fmt: skip
            if "window" in self.needs:
                fields |= self.dense.fields(name)
            fields["section"] = torch.full((len(section),), self.order[name])
            fields["patient"] = torch.full((len(section),), self.patients[section.patient])
            self._parts[name] = fields
        return self._parts[name]

    def _seen(self, name: str) -> np.ndarray:
        """Return whose counts may be read (N,): all, none, or a share of the measured section."""
        section = self.sections[name]
        seen = np.full(len(section), name not in self.hidden)
        if name in self.measured and self.config.known_test < 1:
            rng = np.random.default_rng(int(text_hash(name)[:15], 16))
            seen &= rng.permutation(len(section)) < round(self.config.known_test * len(section))
        return seen

    def _add_known(self, batch: Batch, names: tuple[str, ...]) -> None:
        """Add what follows from the known labels of a group; made once for each set of known sections."""
        if not self.needs & set(FIELDS):
            return
        known = batch.known
        labelled = int(seen(batch.expression).sum())
        key = names, tuple(batch.section[known].unique().tolist()), int(known.sum()), labelled
        patient = self.sections[names[0]].patient
        fields = self._known.get(key) or known_fields(batch, self.needs, self.covariances.of_others(patient))
        if self.config.known_train is None:  # else known spots are drawn anew each time
            self._known[key] = fields
        for name, value in fields.items():
            batch[name] = value

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
                    self._patches[name] = features.patches(
                        self.views[name].params, self.sections[name], "spot"
                    )
                rows = batch.row[here].numpy()
                if self.config.permuted:
                    rows = another(self.sections[name], "spot", len(self.sections[name]))[rows]
                patch[here] = torch.from_numpy(self._patches[name][rows])
        batch.patch = patch.permute(0, 3, 1, 2)  # (N, 3, P, P), channels last in memory
        return batch


def _check_words(name: str, words: Iterable[str], known: tuple[str, ...]) -> None:
    for word in words:
        require_known(word, known, f"{name} of a method: '{word}' is unknown")


def augment(patch: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each patch (N, 3, P, P) by a random multiple of 90 degrees and mirror half of them."""
    turn = torch.randint(4, (len(patch),), generator=generator)
    mirror = torch.randint(2, (len(patch),), generator=generator).bool()
    out = patch.clone()
    for quarter in (1, 2, 3):
        out[turn == quarter] = patch[turn == quarter].rot90(quarter, (2, 3))
    out[mirror] = out[mirror].flip(3)
    return out
