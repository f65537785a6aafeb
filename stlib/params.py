"""What a dataset is: strict YAML in `params/`, read into a frozen, typed record.

An unknown key, a value of the wrong type or a fold that names what does not exist is an error that names the
file, the key and the nearest right one.
"""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stlib import paths
from stlib.records import Record, keyed, nearest, parse, read_yaml

Protocol = Literal["2d", "3d", "hd"]
Setting = Literal["strict", "published"]
Patients = dict[str, list[str]]  # patient -> sections in cutting order


class Source(Record):
    """Where the data comes from, and under which terms."""

    reader: str  # a module of stlib.datasets
    url: str = ""  # what `make data` downloads from; empty: nothing to download
    folder: str = ""  # of a lab's own files, where DATA= names no other
    doi: str = ""
    licence: str
    citation: str
    options: dict[str, Any] = {}  # checked by the reader's own `Options`


class Spot(Record):
    """The measured locations."""

    shape: Literal["circle", "square"]
    size_um: float = Field(gt=0)  # diameter or side
    pitch_um: float = Field(gt=0)  # distance between neighbouring centres


class Level(Record):
    """The patch cut around a location, or the grid cell it lies in."""

    px: int = Field(gt=0)  # side in level-0 pixels
    out_px: int = Field(gt=0)  # side of what the encoder sees, after area averaging


class Levels(Record):
    """Three levels of context: the spot's own patch, and the region and global grid cell around it."""

    spot: Level
    region: Level
    global_: Level = Field(alias="global")

    def __getitem__(self, level: str) -> Level:
        return getattr(self, {"global": "global_"}.get(level, level))


class Sample(Record):
    """Which locations of a section are kept, drawn by seed: squares of neighbours, so that graphs are local.

    MagNet draws 6,000 single bins of a slide: that is a square of one bin.
    """

    number: int = Field(gt=0)  # of locations, at most
    square_um: float = Field(gt=0)  # side of the squares that are drawn
    seed: int = 0


class Panel(Record):
    """The genes that are predicted: the `size` genes that come first by a rule, and those named besides."""

    rule: Literal["top_mean", "highly_variable", "spatially_variable"] = "top_mean"  # see `stlib.panels`
    size: int = Field(gt=0)
    add: list[str] = []  # markers that a figure shows; at the end of the panel, unless they are in it
    choice: Literal["setting", "published"] = "setting"  # published: all sections choose, also under strict


class Graph(Record):
    """What the graph across sections depends on, besides the settings of a model."""

    radius_px: float = Field(gt=0)  # of the circle whose overlap is measured, level-0 px


class Matcher(Record):
    """Weights of XFeat, which the route ``ants`` matches with: .pt with tensors alone, or .safetensors."""

    source: str  # a file below the folder of data, or an https:// address
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Registration(Record):
    """How the sections of a block are aligned; see `stlib.registration`."""

    route: Literal["robust", "ants"] = "robust"  # ants: as in ASIGN's paper
    um_per_px: float = Field(gt=0)  # of the finest stage
    xfeat: Matcher | None = None  # None: the route ants starts as robust does, and says so

    @model_validator(mode="after")
    def _fits(self) -> "Registration":
        if self.route == "robust" and self.xfeat is not None:
            raise ValueError("xfeat is used by the route ants alone, found route robust; remove one of them")
        return self


class Training(Record):
    """What holds for every trained model on this data."""

    max_epochs: int | None = None  # a limit on each model's own number of epochs
    max_seeds: int | None = Field(default=None, gt=0)  # a limit on a table's own number of seeds
    patience: int | None = None  # epochs without a lower validation error before a training ends; None: never
    precision: Literal["32-true", "bf16-mixed"] = "32-true"


class Expect(Record):
    """Totals that must come out when the raw data is read."""

    sections: int
    spots: int | Annotated[list[int], Field(min_length=2, max_length=2)]  # or the least and the most
    umi: int | None = None
    genes_union: int | None = None
    genes_common: int | None = None
    panel_sha256: str | None = None  # of the published panel, one gene a line
    published: dict[str, int] = {}  # totals that the papers print; shown beside ours


class Params(Record):
    """All that is known about one dataset. The YAML files in `params/` document each field by example."""

    name: str
    like: str = ""  # a dataset whose keys hold where this one says nothing, and whose rows it has in tables
    title: str
    source: Source
    sections: Patients
    counts_only: Patients = {}
    known: dict[str, str]
    same_tissue_group: dict[str, str] = {}  # patient -> name shared with the same tissue in other datasets
    spot: Spot
    sample: Sample | None = None  # None: every location
    panel: Panel
    levels: Levels
    graph: Graph
    encoder: str
    registration: Registration
    folds: dict[Protocol, dict[str, list[str]]]
    training: Training
    overrides: dict[str, dict[str, Any]] = {}
    absent: dict[str, str] = {}  # method, or method@variant -> why it cannot run here; said under tables
    showcase: list[str] = []  # genes that the figures map
    expect: Expect | None = None
    notes: list[str] = []  # reductions against the papers; printed in every caption

    @property
    def base(self) -> str:
        """The name without a size: that of the file, the raw data and the slides."""
        return self.name.split("@")[0]

    @property
    def size(self) -> str:
        """The size that the name ends in; empty for a dataset without sizes."""
        return self.name.partition("@")[2]

    @property
    def kin(self) -> set[str]:
        """What tables may call the dataset: its own name, and that of the one it is like."""
        return {self.base, self.like or self.base}

    @property
    def patient_of(self) -> dict[str, str]:
        """Section -> patient, for all sections whose counts may be read."""
        pairs = chain(self.sections.items(), self.counts_only.items())
        return {section: patient for patient, sections in pairs for section in sections}

    @property
    def with_slide(self) -> tuple[str, ...]:
        """Sections that have a slide: those that are trained on and predicted."""
        return tuple(chain.from_iterable(self.sections.values()))

    def options(self, kind: type[Record]) -> Any:
        """Return what stands under ``source.options``, as the reader declares it."""
        return parse(kind, self.source.options, f"params/{self.base}.yaml, source.options")

    def twins(self, patient: str) -> list[str]:
        """Return the other patients of the dataset that are the same tissue as one."""
        group = self.same_tissue_group.get(patient)
        same = (other for other, name in self.same_tissue_group.items() if name == group)
        return [other for other in same if other != patient]

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        listed = [*chain(*self.sections.values()), *chain(*self.counts_only.values())]
        for section in {s for s in listed if listed.count(s) > 1}:
            raise ValueError(f"each section belongs to one patient, once; '{section}' is listed twice")
        for patient, section in self.known.items():
            if section not in self.sections.get(patient, []):
                raise ValueError(
                    f"known.{patient}: '{section}' is no section of patient '{patient}' with a slide "
                    f"(found {self.sections.get(patient, 'no such patient')})"
                )
        patients = {*self.sections, *self.counts_only}
        for patient in self.same_tissue_group.keys() - patients:
            raise ValueError(f"same_tissue_group names '{patient}'; nearest: {nearest(patient, patients)}")
        for protocol, folds in self.folds.items():
            self._check_folds(protocol, folds)
        return self

    def _check_folds(self, protocol: str, folds: dict[str, list[str]]) -> None:
        tested: dict[str, str] = {}  # patient -> fold
        for name, patients in folds.items():
            for patient in patients:
                where = f"folds.{protocol}.{name}"
                if patient not in self.sections:
                    hint = (
                        f"it is a section of patient '{self.patient_of[patient]}'; folds are made of patients"
                        if patient in self.patient_of
                        else f"nearest: {nearest(patient, self.sections)}"
                    )
                    raise ValueError(f"{where} names '{patient}', which `sections` does not contain; {hint}")
                if patient in tested:
                    raise ValueError(
                        f"{where}: patient '{patient}' is already tested in fold '{tested[patient]}'; a "
                        "patient is tested once"
                    )
                tested[patient] = name
                for twin in set(self.twins(patient)) - set(patients):
                    raise ValueError(
                        f"{where} tests '{patient}' and trains on '{twin}', which is the same tissue "
                        f"(same_tissue_group: '{self.same_tissue_group[patient]}'); test both in one fold"
                    )
                if protocol == "3d" and patient not in self.known:
                    raise ValueError(
                        f"{where}: patient '{patient}' needs a known section; add known.{patient}"
                    )
            if protocol != "3d" and set(patients) >= set(self.sections):
                raise ValueError(f"folds.{protocol}.{name} tests every patient; none is left to train on")


def load_params(dataset: str) -> Params:
    """Read `params/<dataset>.yaml`; where the file declares sizes, one is named: ``crc_hd@8um``.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message lists the datasets there are.
    ValueError
        If the file does not say what it must, or has no such size; the message names file, key, finding and
        remedy.
    """
    base, _, size = dataset.partition("@")
    path = _file(base)
    params = read_params(path, size)
    if params.base != base:
        raise ValueError(f"params/{path.name}: name is '{params.base}', but the file is called '{base}'")
    return params


def _file(base: str) -> Path:
    """Return the file of a dataset, or say which datasets there are."""
    path = paths.PARAMS / f"{base}.yaml"
    if not path.exists():
        known = [p.stem for p in paths.PARAMS.glob("*.yaml")]
        raise FileNotFoundError(
            f"params/{base}.yaml does not exist; a dataset is a file in params/ (nearest: "
            f"{nearest(base, known)})"
        )
    return path


def read_params(path: Path, size: str = "") -> Params:
    """Read one params file at one of its sizes, if it declares any; see `load_params`.

    What stands under ``sizes: {<size>: ...}`` takes the place of the same keys of the file, and what stands
    in the file takes the place of the same keys of the one that it is ``like``; `overrides` method by method.
    """
    where = f"params/{path.name}"
    content = content_of(path)
    sizes = content.pop("sizes", None) or {}
    if size not in (sizes or {"": None}):
        raise ValueError(
            f"{where}: "
            + (f"one of its sizes is named, {sorted(sizes)}" if sizes else "it declares no sizes")
            + f"; found '{path.stem}{size and '@'}{size}'. Write "
            + (f"{path.stem}@{sorted(sizes)[0]}" if sizes else path.stem)
        )
    if size:
        own = keyed(sizes[size], f"{where}: sizes.{size}")
        content = _over(content, own) | {"name": f"{content.get('name')}@{size}"}
    return parse(Params, content, where)


def content_of(path: Path) -> dict[str, Any]:
    """Read a params file over the one that it is like, as plain data."""
    where = f"params/{path.name}"
    own = read_yaml(path, where)
    if not (like := own.get("like")):
        return own
    other = paths.PARAMS / f"{like}.yaml"
    if not other.exists():
        known = [p.stem for p in paths.PARAMS.glob("*.yaml")]
        raise FileNotFoundError(
            f"{where}: like names '{like}', which is no file in params/ (nearest: {nearest(like, known)})"
        )
    content = read_yaml(other, f"params/{other.name}")
    if "like" in content:
        raise ValueError(
            f"{where}: like names a dataset that says all about itself; found '{like}', which is like "
            f"'{content['like']}'. Name that one"
        )
    return _over(content, own)


def _over(content: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Lay keys over the same ones of another; in `overrides` a method that is not named keeps its own."""
    both = [each.get("overrides") for each in (content, own)]
    merged = {"overrides": both[0] | both[1]} if all(isinstance(each, dict) for each in both) else {}
    return content | own | merged


def files_of(dataset: str) -> list[Path]:
    """Return the params files that say what a dataset is: its own, and that of the one it is like."""
    params = load_params(sized(dataset)[0])
    return [paths.PARAMS / f"{name}.yaml" for name in (params.base, params.like) if name]


def sizes_of(base: str) -> list[str]:
    """Return the sizes that a dataset has, in the order of its params file; none for most."""
    return list(content_of(_file(base)).get("sizes") or {})


def sized(dataset: str) -> list[str]:
    """Return the datasets that a name stands for: itself, those it joins, or where it names no size, each.

    Examples
    --------
    >>> sized("toy_hd@8um+16um")
    ['toy_hd@8um', 'toy_hd@16um']
    """
    base, named, sizes = dataset.partition("@")
    every = sizes.split("+") if named else sizes_of(base)
    return [f"{base}@{size}" for size in every] or [dataset]
