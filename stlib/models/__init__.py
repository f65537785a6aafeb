"""The methods: one file each, found by its name.

A method is a file that ends in ``Model = ItsClass``. Its name is the file's everywhere: ``build("asign")``,
the row of a table, the folder of a run. A variant of it, an ablation, is written ``asign@no_graph``.
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from stlib.batch import Batch, Shape
from stlib.losses import mse, seen
from stlib.records import require_known


@dataclass(frozen=True)
class Config:
    """What every method can be told; its own settings come on top."""

    epochs: int = 0  # 0: nothing is trained
    batch_size: int = 1024  # locations per batch; UNIT "window": windows
    batches_per_step: int = 1  # whose mean gradient makes a step; as many processes can share a training
    frozen: str = "dataset"  # encoder of the frozen features; "dataset": the one its params file names
    intra: int = 8  # nearest neighbours in the own section
    cross: int = 12  # neighbours in each other section of the stack
    known_train: float | None = None  # 3d: share of all spots known in training; None: one whole section
    known_test: float = 1.0  # 3d: share of the known section of a test patient that is measured
    permuted: bool = False  # each node sees the image of another one of its section
    window_px: int = 1024  # UNIT "window": side of a window, px of the halved slide
    halvings: int = 0  # UNIT "window": how often the slide's resolution is halved before it is seen

    def limited(self, max_epochs: int | None) -> "Config":
        """Return the settings with no more than `max_epochs` epochs."""
        return self if max_epochs is None else replace(self, epochs=min(self.epochs, max_epochs))


COMMON = {"permuted": {"permuted": True}}  # variants of every method: what is left of it without its images


class Reach(NamedTuple):
    """How far from a location lies what its prediction depends on, in steps from neighbour to neighbour."""

    locations: int
    cells: int  # of each coarser level


class Method(nn.Module):
    """What every method has; a subclass overrides what differs.

    Attributes
    ----------
    UNIT
        What one batch holds: ``spot`` (spots of any section), ``section`` (one whole section), ``stack``
        (all sections of a patient, or a connected part of them) or ``window`` (windows of slides, and the
        locations in them; to predict, one whole slide).
    NEEDS
        Fields beyond the base that a batch must hold, see `stlib.batch.Batch`.
    PROTOCOLS
        Protocol -> fields of `Config` that it changes. A protocol that is absent does not fit the method.
    VARIANTS
        Name -> fields of `Config` that it changes: the ablations. Those of `COMMON` every method has.
    PAPER
        Protocol -> fields of `Config` in which the default is not the paper's own model.
    """

    UNIT: ClassVar[str] = "spot"
    NEEDS: ClassVar[frozenset[str]] = frozenset()
    PROTOCOLS: ClassVar[dict[str, dict[str, Any]]] = {"2d": {}, "3d": {}, "hd": {}}
    VARIANTS: ClassVar[dict[str, dict[str, Any]]] = {}
    PAPER: ClassVar[dict[str, dict[str, Any]]] = {}
    Config: ClassVar[type[Config]] = Config

    def __init__(self, config: Config, shape: Shape):
        super().__init__()
        self.config, self.shape = config, shape

    @classmethod
    def needs(cls, config: Config) -> frozenset[str]:
        """Return the fields a batch must hold under these settings."""
        return cls.NEEDS

    @classmethod
    def reach(cls, config: Config) -> Reach | None:
        """Return how far a prediction looks beyond its own location; None: over the whole section."""
        return Reach(0, 0) if cls.UNIT == "spot" else None

    def prepare(self, train: Iterable[Batch]) -> None:
        """Compute once, from training data alone, what is not learned by gradient; keep it in buffers."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"expression": (N, G)}`` and, where there are coarser levels, theirs."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def loss(self, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        """Return the scalar that training lowers; by default the mean squared error."""
        return mse(out["expression"], batch.expression)

    def optimiser(self) -> torch.optim.Optimizer:
        """Return the optimiser of the paper; by default AdamW, of the config's lr and weight_decay."""
        return torch.optim.AdamW(self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay)

    def rate(self, progress: float) -> float:
        """Return the factor on the learning rate after the share `progress` (0 to 1) of the training."""
        return 1.0

    def predict(self, batch: Batch) -> Tensor:
        """Return the expression (N, G) of a batch, without augmentation or gradient."""
        return self(batch)["expression"]


def labelled(train: Iterable[Batch], *fields: str) -> tuple[Tensor, ...]:
    """Return fields (M, ...) of the training locations that have a label, one batch after the other."""
    parts = []
    for batch in train:  # no batch is kept: its patches are large
        rows = seen(batch.expression)
        parts.append([batch[field][rows] for field in fields])
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def names() -> list[str]:
    """Return all methods there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def method(name: str) -> type[Method]:
    """Return the class of a method; its variant, if one is named, must exist.

    Raises
    ------
    ValueError
        If no file or variant of that name exists.
    """
    stem, _, variant = name.partition("@")
    require_known(stem, names(), f"model '{stem}' is no file of stlib/models/")
    found = importlib.import_module(f"stlib.models.{stem}").Model
    if variant:
        require_known(variant, found.VARIANTS | COMMON, f"model '{stem}' has no variant '{variant}'")
    return found


def configure(name: str, protocol: str, **overrides: Any) -> Config:
    """Return the settings of a method for a protocol.

    Parameters
    ----------
    name
        File of `stlib/models/`, with ``@variant`` if wanted.
    protocol
        ``2d``, ``3d`` or ``hd``.
    overrides
        Fields of the method's `Config`, from the params file; a variant stands above them.

    Raises
    ------
    ValueError
        If the name, the variant, the protocol or a field is unknown.
    """
    found = method(name)
    if protocol not in found.PROTOCOLS:
        raise ValueError(f"model '{name}' fits protocol {' or '.join(found.PROTOCOLS)}, found '{protocol}'")
    known = {field.name for field in fields(found.Config)}
    for key in overrides:
        message = f"`overrides` in the params file: model '{name}' has no setting '{key}'"
        require_known(key, known, message)
    variant = (found.VARIANTS | COMMON).get(name.partition("@")[2], {})
    return found.Config(**{**found.PROTOCOLS[protocol], **overrides, **variant})


def build(name: str, config: Config, shape: Shape) -> Method:
    """Build a method for data of a shape."""
    return method(name)(config, shape)


def trainable(model: Method) -> bool:
    """Return whether gradient descent has anything to do."""
    return any(parameter.requires_grad for parameter in model.parameters())
