"""What the notebooks put on the page beside their figures: settings, a model's idea, plain tables."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import pandas as pd
import yaml
from IPython.display import HTML, Markdown

from stlib import statistics
from stlib.alignment import Registration
from stlib.params import Params
from stlib.results import Run
from stlib.splits import Fold

if TYPE_CHECKING:
    from stlib.models import Config


def settings(params: Params, run: Run | None = None) -> Markdown:
    """Show the parameters of a dataset as YAML to unfold: the executed notebook holds each number it used.

    If there is a run, overrides of models that it does not train are left out.
    """
    content = params.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if run is not None:
        models = {member.model.split("@")[0] for member in run.members}
        own = {name: value for name, value in params.overrides.items() if name in models}
        content = {key: value for key, value in content.items() if key != "overrides"}
        content |= {"overrides": own} if own else {}
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    summary = f"the settings of {params.name}, from params/{params.base}.yaml"
    return Markdown(f"<details><summary>{summary}</summary>\n\n```yaml\n{text}```\n\n</details>")


def idea(model: str, config: "Config") -> Markdown:
    """Show what a model does, in the words and equations of its file, and the settings it runs with."""
    from stlib.models import method  # brings torch, which figures do without

    text = inspect.cleandoc(inspect.getmodule(method(model)).__doc__)
    return Markdown(f"```text\n{text}\n```\n\nSettings: `{config}`")


def stages(aligned: Mapping[str, Registration]) -> HTML:
    """Show what each stage of an alignment changed, before and after, and whether it was taken over.

    `aligned` is section -> map, from `stlib.registration.register_dataset` or
    `stlib.alignment.load_registration`.
    """
    lines = []
    for section, found in aligned.items():
        for stage in found.stages:
            before, after = asdict(stage.before), asdict(stage.after)
            proposed = any(after.values())
            scores = {name: f"{before[name]:.2f} → {after[name]:.2f}" if proposed else "" for name in before}
            matches = "" if stage.inliers is None else f"{stage.inliers}"
            own = {"taken over": "yes" if stage.accepted else "no", "matches": matches, "note": stage.note}
            lines.append({"section": section, "stage": stage.name} | scores | own)
    table = pd.DataFrame(lines)
    with pd.option_context("display.max_colwidth", None):
        text = table.loc[:, table.ne("").any()].to_html(index=False, border=0)
    return HTML(text if lines else "nothing to align")


def folds(folds: list[Fold]) -> pd.DataFrame:
    """Show who may look at what."""
    columns = ("train", "validation", "known", "test")
    return pd.DataFrame({name: [" ".join(getattr(fold, name)) or "-" for fold in folds] for name in columns},
                        index=pd.Index([fold.name for fold in folds], name="fold"))  # fmt: skip


def scores(scores: Mapping[str, pd.DataFrame]) -> str:
    """Return scores as text: mean and spread over patients, then the headline patient by patient.

    `scores` is model -> one row a patient, one column a metric (`stlib.metrics.overview`), the headline
    first.
    """
    patients = next(iter(scores.values())).index
    headline = next(iter(scores.values())).columns[0]
    means = pd.DataFrame({model: table.apply(_mean_and_sd) for model, table in scores.items()}).T
    each = pd.DataFrame({model: table[headline].map(_number) for model, table in scores.items()}).T
    several = f"mean ± standard deviation over {len(patients)} patients"
    over = several if len(patients) > 1 else f"patient {patients[0]}"
    columns = each.rename_axis(columns=None).to_string()
    return f"{over}\n{means.to_string()}\n\n{headline} of each patient\n{columns}"


def _mean_and_sd(values: pd.Series) -> str:
    found = statistics.summary(values)
    return _number(found.mean) + (f" ± {found.sd:.2f}" if found.n > 1 else "")


def _number(value: float) -> str:
    return "undefined" if pd.isna(value) else f"{value:.2f}"
