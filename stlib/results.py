"""One run: where it is kept, what it was made of, and when it is done.

    runs/<protocol>/<dataset>/<model>/<setting>-s<seed>/     one model, one protocol
    .../to-<dataset>/                                        of a transfer: what was tested
    runs/<step>/<dataset>/                                   a step that prepares data, or draws results

`run.json` is written last and whole: where it stands, the run is complete. `run.d` beside it tells Make which
files the run was made of. A run is stamped with what it was made of when it began: what is edited while it
computes is not what it computed with.
"""

import json
import os
import sys
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stlib import fingerprint, paths, required
from stlib.machine import device, peak_memory_mb, versions
from stlib.params import Params, files_of, load_params, sized
from stlib.splits import Fold, folds
from stlib.steps import CONTROLS, MADE, NOTEBOOK, READING, modules_of
from stlib.tables import SHARED, ablations, load_costs, load_table, runs_needed
from stlib.tables import Run as Key

if TYPE_CHECKING:
    import pandas as pd

    from stlib.predictions import Predictions

DRAWN = ("table1", "pixnet_table1", "pixnet_figure4")  # tables that 09_figures reads


@dataclass(frozen=True)
class Run:
    """A step for a dataset, or a model under a protocol."""

    step: str  # a key of `NOTEBOOK`
    dataset: str  # of a transfer the one that is trained on
    model: str = ""  # empty for a step that trains nothing
    setting: str = "strict"
    seed: int = 0
    to: str = ""  # the dataset that a transfer tests
    data: str = field(default="", compare=False)  # folder of the raw files, of the step `data`
    started: float = field(default_factory=time.perf_counter, compare=False, repr=False)

    @classmethod
    def at(cls, folder: Path) -> "Run":
        """Return the run that is kept in a folder."""
        step, dataset, *rest = folder.resolve().relative_to(paths.RUNS).parts
        if not rest:
            return cls(step, dataset)
        setting, seed = rest[1].rsplit("-s", 1)
        to = "".join(rest[2:]).removeprefix("to-")
        return cls(step, dataset, rest[0], setting, int(seed), to)

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        if not self.model:
            return paths.RUNS / self.step / self.dataset
        return Key(self.step, self.dataset, self.model, self.setting, self.seed, self.to).folder

    @property
    def record(self) -> Path:
        """The file whose presence says that the run is complete."""
        return self.folder / "run.json"

    @property
    def predictions(self) -> Path:
        """Where the predictions of a model are kept."""
        return self.folder / "predictions.h5ad"

    @property
    def history(self) -> Path:
        """Where the course of a training is kept."""
        return self.folder / "history.csv"

    @cached_property
    def params(self) -> Params:
        """The dataset's params file; where its sizes are left open, at the first of them."""
        return load_params(sized(self.dataset)[0])

    @cached_property
    def protocol(self) -> str:
        """The protocol whose settings a model takes; of a transfer that of the trained dataset."""
        if self.step != "transfer":
            return self.step
        from stlib.transfer import native

        return native(self.params)

    @property
    def folds(self) -> list[Fold]:
        """Who may look at what."""
        if self.step != "transfer":
            return folds(self.params, self.step, self.setting)
        from stlib.transfer import transfer_folds

        trained = [load_params(name) for name in sized(self.dataset)]
        return transfer_folds(trained, load_params(self.to), self.setting)

    @property
    def shared(self) -> bool:
        """Whether this is the one run of all controls."""
        return self.model == SHARED

    def begin(self) -> "Run":
        """Fix what the run and its members are made of, before anything is computed; return the run.

        Without it that is fixed when it is first asked for, at the latest by `finish`.

        Raises
        ------
        FileNotFoundError
            If there is no such dataset, or what the run reads was not made; the message says what makes it.
        """
        if self.step in CONTROLS:
            required.prepared(self._used)
        for name in self._tables:
            required.made(name, self.dataset)
        for run in (self, *self.members):
            _ = run.fingerprint, run.source
        return self

    @property
    def _used(self) -> list[str]:
        """The datasets whose prepared sections are read: each size; of a transfer what is tested, too."""
        return [*sized(self.dataset), *filter(None, [self.to])]

    @property
    def _tables(self) -> list[str]:
        """The tables whose runs are read."""
        if self.step == "figures":
            return list(DRAWN)
        if self.step == "ablations":
            return list(ablations(self.dataset))
        return [self.model] if self.step == "tables" else []

    @cached_property
    def members(self) -> "list[Run]":
        """The run itself, or one run for each control that fits the protocol and the data."""
        if not self.shared:
            return [self]
        names = [
            name for name in CONTROLS[self.step] if name != "oracle" or self.params.source.reader in MADE
        ]
        return [replace(self, model=name) for name in names]

    @property
    def roots(self) -> list[str]:
        """The modules that the run calls."""
        if self.step == "cost":
            names = [row.model for row in load_costs(self.model).rows]
        else:
            names = [run.model for run in self.members] if self.step in (*CONTROLS, "slides") else []
        return modules_of(self.step, names, self.params.source.reader)

    @property
    def inputs(self) -> str:
        """Hash of what the run reads: prepared data, or the runs behind a table."""
        if self.step in READING:
            return ""
        if self.step in ("tables", "ablations"):
            return self._behind_tables()
        registered = self.step in ("3d", "tour", "figures", "cost")
        prepared = fingerprint.data_hash(self._used, registered=registered)
        if self.step == "figures":
            return fingerprint.text_hash(prepared, self._behind_tables())
        return fingerprint.text_hash(prepared, _declared_in(self.model)) if self.step == "cost" else prepared

    def _behind_tables(self) -> str:
        tables = [load_table(name) for name in self._tables]
        stamps = [Run(*key).stamp for table in tables for key in runs_needed(table, self.dataset)]
        shown = self.params.notes, self.params.showcase, self.params.absent
        return fingerprint.text_hash(stamps, *map(_declared_in, self._tables), shown)

    @property
    def stamp(self) -> str:
        """The fingerprint of a run that stands, or a word that none does."""
        return self.written().get("fingerprint", "absent")

    def _hashes(self) -> dict[str, str]:
        """Return the hashes of what the run keeps, as far as it is there."""
        kept = [path for path in self.kept if path.exists()]
        return {str(path.relative_to(paths.OUT)): fingerprint.file_hash(path) for path in kept}

    def written(self) -> dict[str, Any]:
        """Return the record; one that is damaged is none, so that the run is made anew."""
        try:
            return json.loads(self.record.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    @cached_property
    def recipe(self) -> str:
        """Fingerprint of all that the numbers depend on: code, parameters, inputs, lock."""
        key = (self.step, self.dataset, self.model, self.setting, self.seed, self.to)
        uses = self.uses
        files = [fingerprint.weights_hash(path) for path in fingerprint.named_files(uses, self.roots)]
        lock = fingerprint.file_hash(paths.LOCK)
        return fingerprint.text_hash(key, fingerprint.code_hash(self.roots), uses, self.inputs, files, lock)

    @property
    def uses(self) -> dict[str, Any]:
        """The parameters that the run computes with; of a transfer those of the tested dataset, too."""
        own = fingerprint.resolved(self.params, [run.model for run in self.members])
        return own | ({"to": fingerprint.resolved(load_params(self.to), [])} if self.to else {})

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the recipe and of the notebook's code."""
        return fingerprint.text_hash(self.recipe, fingerprint.notebook_hash(NOTEBOOK[self.step]))

    def complete(self) -> bool:
        """Return whether the run stands with what it wrote beside it, and a new one would be the same."""
        return (
            self.stamp == self.fingerprint
            and all(map(fingerprint.intact, self.products))
            and all(path.exists() for path in self.kept)
            and self._hashes() == self.written().get("kept")
            and (not self.data or self.source == self.written()["source"])
        )

    @cached_property
    def source(self) -> str:
        """Which raw files the step `data` reads, if told a folder; without one, what was read stands."""
        return fingerprint.listing_hash(Path(self.data)) if self.data else ""

    @property
    def kept(self) -> list[Path]:
        """What the run itself keeps, beside its record: of a model predictions, of a table its renderings."""
        if self.step in ("tables", "cost"):
            return [paths.RESULTS / self.dataset / f"{self.model}.{suffix}" for suffix in ("md", "csv")]
        trained = self.members if self.step in CONTROLS else []
        return [path for run in trained for path in (run.predictions, run.history)]

    @property
    def products(self) -> list[Path]:
        """What later runs read of this one, outside its folder; if it vanishes, the run is made again."""
        folder, params = paths.processed(self.dataset), self.params
        if self.step == "registration":
            return [folder / "registration.json"]
        if self.step != "data":
            return []
        sections = [paths.section_file(params.name, name) for name in params.patient_of]
        slides = [paths.slide_file(params.name, name) for name in params.with_slide]
        return [folder / "manifest.json", *sections, *slides]

    @property
    def config(self) -> Any:
        """The settings of the run's model."""
        from stlib.task import config_of

        return config_of(self.params, self.model, self.protocol)

    def train(self) -> "tuple[Predictions, pd.DataFrame]":
        """Train and predict every fold; a run that stands is read, not repeated.

        Return the predictions of all folds, and one row per fold, stage and epoch: loss, validation error,
        seconds.
        """
        import pandas as pd

        from stlib.predictions import concatenate, load_predictions
        from stlib.train import train_fold

        if self.complete():
            return load_predictions(self.predictions), pd.read_csv(self.history)
        parts, histories = [], []
        for task in self.tasks:
            part, history, _ = train_fold(task)
            parts.append(part)
            histories.append(history.assign(fold=task.fold.name))
        return concatenate(parts), pd.concat(histories, ignore_index=True)

    def assist(self) -> None:
        """Train every fold beside another process, which alone predicts and writes; see `stlib.ranks`."""
        from stlib.task import feed_of
        from stlib.train import learn

        for task in self.tasks:
            learn(task, feed_of(task))

    @property
    def tasks(self) -> "list[Any]":
        """The folds of a model's run, as they are trained."""
        from stlib.task import Task

        kept = self.folder / "checkpoints"
        return [
            Task(self.params, fold, self.model, self.protocol, self.seed, kept, self.recipe)
            for fold in self.folds
        ]

    def save(self, predictions: "Predictions", history: "pd.DataFrame") -> Path:
        """Write predictions, history and record of a model's run, in this order; one that stands is kept."""
        from stlib.predictions import save_predictions
        from stlib.scales import brought

        if self.complete():
            return self.record
        about = {"protocol": self.step, "dataset": self.dataset, "model": self.model, "setting": self.setting}
        about |= {"to": self.to} if self.to else {}
        save_predictions(self.predictions, predictions, about)
        with paths.replacing(self.history) as temporary:
            history.to_csv(temporary, index=False)
        found = {"train_seconds": round(float(history["seconds"].sum()), 1) if len(history) else 0.0}
        if self.to:
            found |= {"transfer": brought(self.params, load_params(self.to), predictions)}
        return self.finish(**found)

    def finish(self, **content: Any) -> Path:
        """Write `run.d`, then `run.json`: parameters, seed, fingerprint, versions, device, time, peak memory.

        Where a new run would no longer be the same, the record takes the oldest of times, so that Make, which
        compares them, makes it again. `content` is what the step adds: plain data.
        """
        uses = self.uses
        weights = [path for path in fingerprint.named_files(uses, self.roots) if path.exists()]
        described = dict.fromkeys((*files_of(self.dataset), *(files_of(self.to) if self.to else [])))
        own = [*described, paths.LOCK]
        files = [*fingerprint.modules(self.roots), *own, *weights]
        names = [os.path.relpath(path, paths.ROOT) for path in (*files, *self.products, *self.kept)]
        target = self.record.relative_to(paths.OUT)
        with paths.replacing(self.folder / "run.d") as temporary:  # an empty rule for what may vanish
            temporary.write_text(f"{target}: {' '.join(names)}\n" + "".join(f"{name}:\n" for name in names))
        about = {
            "step": self.step,
            "dataset": self.dataset,
            "model": self.model,
            "setting": self.setting,
            "seed": self.seed,
            "to": self.to,
            "fingerprint": self.fingerprint,
            "recipe": self.recipe,
            "source": self.source,
            "kept": self._hashes(),
            "parameters": uses,
            "versions": versions(),
            "device": device(),
            "seconds": round(time.perf_counter() - self.started, 1),
            "peak_memory_mb": peak_memory_mb(),
        }
        with paths.replacing(self.record) as temporary:
            temporary.write_text(json.dumps(about | content, indent=1, default=str))
        if replace(self).fingerprint != self.fingerprint:
            os.utime(self.record, (1, 1))  # no clock, set back or forward, can make it newer than the edit
        return self.record


def _declared_in(table: str) -> list[str]:
    """Return the hashes of a table's declaration and of what is reported."""
    return [fingerprint.file_hash(paths.TABLES / name) for name in (f"{table}.yaml", "reported.csv")]


def main() -> int:
    """End with 0 if the run whose record is named is complete.

    ``python -m stlib.results runs/2d/toy/asign/strict-s0/run.json``; of the step `data` the folder of the raw
    files may follow.
    """
    run = replace(Run.at(Path(sys.argv[1]).resolve().parent), data=" ".join(sys.argv[2:]))
    return int(not run.complete())


if __name__ == "__main__":
    sys.exit(main())
