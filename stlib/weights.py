"""Read weights files, plain or as they were published, into networks."""

from pathlib import Path
from typing import TYPE_CHECKING

from stlib.pathology import RECIPES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stlib.encoders import Spec


def load_weights(network: "nn.Module", file: Path, spec: "Spec") -> "nn.Module":
    """Put the state dict of a file into a network; its classifier, if the file has one, is left out.

    Raises
    ------
    ValueError
        If the file holds another network, or objects that would have to be run to be read.
    """
    plain = f"{spec.model}@{spec.origin.removesuffix(file.suffix)}.safetensors"
    state, own = read_state(file, f"encoder '{spec}'", plain), network.state_dict()
    prefixes = RECIPES[spec.model].prefixes if spec.model in RECIPES else ()
    for prefix in prefixes:
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    state = {
        key: value
        for key, value in state.items()
        if not (heads and key.startswith(heads)) and (key in own or not prefixes)
    }
    missing, unexpected = network.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(
            f"encoder '{spec}': {file.name} is no state dict of {spec.model}: {len(missing)} entries are "
            f"missing, e.g. {missing[:2]}, {len(unexpected)} unknown, e.g. {unexpected[:2]}"
        )
    return network


def read_state(file: Path, whose: str, name: str) -> dict[str, "Tensor"]:
    """Read a state dict, alone or beside the other entries of a checkpoint; nothing pickled is run.

    Parameters
    ----------
    file
        A .safetensors file, or what torch saved.
    whose, name
        Who asks for it, and by what name the file of plain tensors would be asked for: for the message.

    Raises
    ------
    ValueError
        If the file holds objects that would have to be run to be read.
    """
    import pickle

    import torch
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        return load_file(file)
    try:
        content = torch.load(file, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{whose}: {file.name} holds more than tensors, and nothing but tensors is read "
            "(weights_only). To read the rest is to run code that whoever made the file chose. Only if you "
            "trust them with your machine, open the file once with torch.load as PyTorch's manual describes, "
            "write the tensors of its state dict with safetensors.torch.save_file to "
            f"'{file.with_suffix('.safetensors')}', and name that file: '{name}'"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            return content[key]
    return content
