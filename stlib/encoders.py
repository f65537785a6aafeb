"""Image networks by name, with the origin of their weights in the name: ``<timm model>@<origin>``.

``@untrained`` is random, ``@hub`` is downloaded by timm, ``@file:<path>`` is a state dict (.safetensors or .pth; a relative path starts at the
root of the checkout). No network is ever silently untrained.
"""

import re
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from stlib import paths


class Spec(NamedTuple):
    """A model of timm and where its weights come from."""

    model: str
    origin: str

    @property
    def file(self) -> Path | None:
        """The file of the weights, if the origin is one."""
        return paths.ROOT / self.origin.removeprefix("file:") if self.origin.startswith("file:") else None


def parse_spec(spec: str) -> Spec:
    """Read the name of an encoder.

    Raises
    ------
    ValueError
        If it does not say where the weights come from.
    """
    match = re.fullmatch(r"([^@]+)@(untrained|hub|file:.+)", spec)
    if match is None:
        raise ValueError(
            f"an encoder says where its weights come from, found '{spec}'. Write '{spec}@untrained' (random), '{spec}@hub' (downloaded) "
            f"or '{spec}@file:<path>' (.safetensors or .pth); or 'stain' for frozen features that need no weights"
        )
    return Spec(*match.groups())


def backbone(spec: str) -> nn.Module:
    """Build an image network without its classifier: patches (N, 3, P, P) -> features (N, D).

    Random weights are drawn from torch's generator, so that a seeded run repeats.

    Parameters
    ----------
    spec
        See the module.

    Returns
    -------
    torch.nn.Module
        With `num_features`, its width D.

    Raises
    ------
    ValueError
        If the name is malformed, timm has no such model, or a file holds another one.
    FileNotFoundError
        If weights are not to be had; the message says which file to put where.
    """
    model, origin = parse_spec(spec)
    if not timm.is_model(model.removeprefix("hf-hub:").split(".")[0]) and not model.startswith("hf-hub:"):
        raise ValueError(f"encoder '{spec}': timm has no model '{model}'; `timm.list_models()` names them all")
    if origin == "hub":
        return _from_hub(model, spec)
    network = timm.create_model(model, num_classes=0)
    return network if origin == "untrained" else _with_weights(network, parse_spec(spec).file, spec)


def _from_hub(model: str, spec: str) -> nn.Module:
    try:
        return timm.create_model(model, pretrained=True, num_classes=0)
    except Exception as error:  # each hub fails in its own way
        config = timm.get_pretrained_cfg(model)
        where = (config and (config.hf_hub_id or config.url)) or model
        raise FileNotFoundError(
            f"encoder '{spec}': the weights could not be fetched ({type(error).__name__}). Where there is a network, download "
            f"model.safetensors of {where}, put it into data/weights/, and write '{model}@file:data/weights/model.safetensors'"
        ) from error


def _with_weights(network: nn.Module, file: Path, spec: str) -> nn.Module:
    if not file.exists():
        raise FileNotFoundError(f"encoder '{spec}': there are no weights at {file}. Put the model's state dict there, as .safetensors or .pth")
    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    state = {key: value for key, value in state.items() if not (heads and key.startswith(heads))}
    missing, unexpected = network.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(
            f"encoder '{spec}': {file.name} is no state dict of this model: {len(missing)} entries are missing, e.g. {missing[:2]}, "
            f"{len(unexpected)} unknown, e.g. {unexpected[:2]}"
        )
    return network


def width(network: nn.Module) -> int:
    """Return the width D of what a network without classifier puts out."""
    return int(getattr(network, "head_hidden_size", None) or network.num_features)
