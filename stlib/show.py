"""What the notebooks put on the page beside their figures: settings, a model's idea, plain tables."""

import inspect

import pandas as pd
import yaml
from IPython.display import Markdown

from stlib.models import Config, method
from stlib.params import Params
from stlib.splits import Fold


def settings(params: Params) -> Markdown:
    """Show every parameter of a dataset as YAML, so that the executed notebook holds each number it used."""
    content = params.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    return Markdown(f"```yaml\n{text}```")


def idea(model: str, config: Config) -> Markdown:
    """Show what a model does, in the words and equations of its file, and the settings it runs with."""
    text = inspect.cleandoc(inspect.getmodule(method(model)).__doc__)
    return Markdown(f"```text\n{text}\n```\n\nSettings: `{config}`")


def folds(folds: list[Fold]) -> pd.DataFrame:
    """Show who may look at what."""
    columns = ("train", "validation", "known", "test")
    return pd.DataFrame({name: [" ".join(getattr(fold, name)) or "-" for fold in folds] for name in columns},
                        index=pd.Index([fold.name for fold in folds], name="fold"))  # fmt: skip
