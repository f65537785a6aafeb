"""Save and resume a training: tensors as safetensors, everything else as JSON in the same file.

Nothing is ever unpickled. A file is whole or absent: it is written under another name, flushed and renamed.
It carries the SHA-256 of its tensors, so that one that was damaged later is noticed.
"""

import errno
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stlib.paths import replacing


def save_checkpoint(
    path: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer | None, about: dict[str, Any]
) -> None:
    """Write the state of a model, of its optimiser, and what they are.

    `path` is a .safetensors file, `about` plain data; its `model`, a name, is compared when the file is read.
    """
    tensors = {f"model.{key}": value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    groups = []
    if optimiser is not None:
        state = optimiser.state_dict()
        groups = state["param_groups"]
        for index, entries in state["state"].items():
            for key, value in entries.items():
                tensors[f"optimiser.{index}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    tensors = {key: value.clone() for key, value in tensors.items()}  # safetensors refuses shared memory
    write_tensors(path, tensors, {"about": json.dumps(about), "groups": json.dumps(groups)})


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], words: dict[str, str]) -> None:
    """Write tensors, words about them, and the hash of both."""
    words = words | {"sha256": _hash(tensors, words)}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, words)
        except SafetensorError as error:  # it tells the number of the system's error in words alone
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return what `write_tensors` wrote.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    with _opened(path) as file:
        tensors, words = {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata())
        if words.pop("sha256") != _hash(tensors, words):
            raise ValueError("other values than those that were written")
    return tensors, words


def read_about(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself, without reading its tensors.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    with _opened(path) as file:
        return json.loads(file.metadata()["about"])


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Open a file; whatever fails within says that it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except Exception as error:  # the library raises its own, undocumented types
        raise ValueError(
            f"{path}: not a readable checkpoint ({error}). Delete it; what it holds is made anew"
        ) from error


def load_checkpoint(
    path: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer | None, name: str
) -> dict[str, Any]:
    """Put a saved state into a model and its optimiser; return what the checkpoint says of itself.

    `name` is the model that the state must belong to, e.g. ``asign@no_graph``.

    Raises
    ------
    ValueError
        If the file is damaged, or holds another model or other shapes.
    """
    tensors, words = read_tensors(path)
    about, groups = json.loads(words["about"]), json.loads(words["groups"])
    if about["model"] != name:
        raise ValueError(
            f"{path}: a checkpoint of '{name}' is needed, found one of '{about['model']}'. Choose "
            "the folder of the right run"
        )
    saved = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    try:
        model.load_state_dict(saved)
    except RuntimeError as error:
        raise ValueError(f"{path}: of another panel, configuration or code? {error}") from error
    if optimiser is not None and groups:
        state: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, entry = key.split(".", 2)
                state.setdefault(int(index), {})[entry] = value
        optimiser.load_state_dict({"state": state, "param_groups": groups})
    return about


def state_hash(model: torch.nn.Module) -> str:
    """Return the SHA-256 of what a model has learned: names, shapes and values of its state."""
    return _hash(model.state_dict(), {})


def _hash(tensors: dict[str, torch.Tensor], words: dict[str, str]) -> str:
    found = hashlib.sha256(json.dumps(words, sort_keys=True).encode() if words else b"")
    for name, value in sorted(tensors.items()):
        found.update(repr((name, tuple(value.shape))).encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
