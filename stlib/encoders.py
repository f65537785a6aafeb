"""Image networks by name, with the origin of their weights in the name: ``<model>@<origin>``.

A model is one of timm (``resnet50``, ``vit_base_patch32_clip_224.laion2b``), or one of pathology
(`stlib.pathology`: ``uni``, ``ciga_resnet18``). ``@untrained`` is random, ``@hub`` is downloaded by timm,
``@file:<path>`` is a state dict (.safetensors, .pth, .bin or .ckpt; a relative path starts at the root of the
checkout). No network is ever silently untrained. `backbone` is for a model that trains its encoder, `Timm`
for frozen features. What encodes patches, `Timm` or `stlib.stain.Stain`, has a `name` by which it is asked
for, a `version` that tells two of one name apart (part of the cache's key), the width `dim`, and `encode`.

torch and timm are imported when a network is first needed: who only reads cached features needs neither.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stlib import paths
from stlib.fingerprint import weights_hash
from stlib.pathology import RECIPES
from stlib.weights import load_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH = 64  # patches that are encoded together
SEED = 0  # of the random weights of a frozen encoder
LEAST_PX = 32  # side of a patch: the stride of the usual networks


def require_patches(patches: np.ndarray) -> None:
    """Refuse what no encoder can take."""
    shape = patches.shape
    if len(shape) != 4 or shape[3] != 3 or patches.dtype != np.uint8 or min(shape[1:3]) < LEAST_PX:
        raise ValueError(
            f"patches are uint8 (N, H, W, 3), at least {LEAST_PX} px wide, found {patches.dtype} {shape}"
        )


class Spec(NamedTuple):
    """A model and where its weights come from."""

    model: str
    origin: str

    def __str__(self) -> str:
        return f"{self.model}@{self.origin}"

    @property
    def file(self) -> Path | None:
        """The file of the weights; None for another origin.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        """
        if not self.origin.startswith("file:"):
            return None
        path = paths.ROOT / self.origin.removeprefix("file:")  # an absolute path stays what it is
        if not path.exists():
            recipe = RECIPES.get(self.model)
            remedy = "Put the model's state dict there, as .safetensors or .pth"
            if recipe is not None:
                remedy = f"Where there is a network, {recipe.download}, and put it there"
            raise FileNotFoundError(f"encoder '{self}': there are no weights at {path}. {remedy}")
        return path


def parse_spec(spec: str) -> Spec:
    """Read the name of an encoder.

    Raises
    ------
    ValueError
        If it does not say where the weights come from.

    Examples
    --------
    >>> parse_spec("resnet50@hub")
    Spec(model='resnet50', origin='hub')
    """
    match = re.fullmatch(r"([^@]+)@(untrained|hub|file:.+)", spec)
    if match is None:
        raise ValueError(
            f"an encoder says where its weights come from, found '{spec}'. Write '{spec}@untrained' "
            f"(random), '{spec}@hub' (downloaded) or '{spec}@file:<path>' (.safetensors or .pth); or 'stain' "
            "for frozen features that need no weights"
        )
    return Spec(*match.groups())


def backbone(spec: str) -> "nn.Module":
    """Build an image network without its classifier: patches (N, 3, P, P) -> features (N, D).

    Random weights are drawn from torch's generator, so that a seeded run repeats. For `spec` see the module,
    for D `width`.

    Raises
    ------
    ValueError
        If the name is malformed, timm has no such model, or a file holds another one.
    FileNotFoundError
        If weights are not to be had; the message says which file to put where.
    """
    import timm

    parsed = parse_spec(spec)
    model, file = parsed.model, parsed.file
    if not (model in RECIPES or model.startswith("hf-hub:") or timm.is_model(model.split(".")[0])):
        raise ValueError(
            f"encoder '{spec}': timm has no model '{model}'; `timm.list_models()` names them all, and "
            f"those of pathology are {', '.join(RECIPES)}"
        )
    if parsed.origin == "hub":
        return _from_hub(parsed)
    network = _create(model)
    return network if file is None else load_weights(network, file, parsed)


def width(network: "nn.Module") -> int:
    """Return the width D of what a network without classifier puts out."""
    return int(getattr(network, "head_hidden_size", None) or network.num_features)


def tokens(network: "nn.Module", pixels: "Tensor") -> "Tensor":
    """Return what a network finds at each place of an image, before it is pooled.

    Of pixels (N, 3, P, P) this is (N, T, D), place by place in rows, D = `network.num_features`; without
    class and register tokens.
    """
    found = network.forward_features(pixels)
    if found.ndim == 3:
        return found[:, network.num_prefix_tokens :]
    channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
    return found.flatten(1, 2) if channels_last else found.flatten(2).mT


def _create(model: str, pretrained: bool = False) -> "nn.Module":
    """Build a network of timm, or by the recipe of a short name."""
    import timm

    recipe = RECIPES.get(model)
    if recipe is None:
        return timm.create_model(model, pretrained=pretrained, num_classes=0)
    options = dict(recipe.options)
    if "mlp_layer" in options:
        options["mlp_layer"] = getattr(timm.layers, options["mlp_layer"])
    mean, std = recipe.normalisation
    overlay = {"mean": mean, "std": std, "num_classes": 0, "hf_hub_id": recipe.hub, "hf_hub_filename": None}
    network = timm.create_model(
        recipe.model, pretrained=pretrained, pretrained_cfg_overlay=overlay, num_classes=0, **options
    )
    if options.get("dynamic_img_size"):
        network.pretrained_cfg["fixed_input_size"] = False
    return network


def _from_hub(spec: Spec) -> "nn.Module":
    """Build a network with the weights that timm downloads."""
    import timm

    recipe, reason = RECIPES.get(spec.model), "they are at no hub"
    if recipe is None or recipe.hub:
        try:
            return _create(spec.model, pretrained=True)
        except Exception as error:  # each hub fails in its own way
            reason = error
    if recipe is None:
        config = timm.get_pretrained_cfg(spec.model)
        where = (config and (config.hf_hub_id or config.url)) or spec.model
        download, suffix = f"download model.safetensors from {where}", ".safetensors"
    else:
        download, suffix = recipe.download, Path(recipe.file).suffix
    file = f"data/weights/{Path(spec.model).name}{suffix}"
    raise FileNotFoundError(
        f"encoder '{spec}': the weights could not be fetched ({reason}). Where there is a network, "
        f"{download}, put it at {file} and write '{spec.model}@file:{file}'"
    ) from (reason if isinstance(reason, Exception) else None)


class Timm:
    """A network as a frozen encoder, normalised as in its training; built when it first encodes.

    For `spec` see the module; untrained weights come from a fixed seed. The device is by default the GPU if
    there is one.
    """

    def __init__(self, spec: str, device: str | None = None) -> None:
        self.name, self.device = spec, device
        self._spec = parse_spec(spec)

    @cached_property
    def version(self) -> str:
        """What the features depend on beside the spec: the content of a weights file."""
        file = self._spec.file
        return f"seed {SEED}" if file is None else weights_hash(file)

    @property
    def dim(self) -> int:
        """Width D of the features."""
        return width(self._network)

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Return the features (N, D) float32 of patches, uint8 (N, H, W, 3)."""
        import torch
        from timm.data import resolve_model_data_config

        require_patches(patches)
        config = resolve_model_data_config(self._network)
        seen, fixed = config["input_size"][1], self._network.pretrained_cfg.get("fixed_input_size", False)
        if fixed and patches.shape[1:3] != (seen, seen):
            raise ValueError(
                f"encoder '{self.name}' sees patches of {seen} x {seen} px only, found {patches.shape[1:3]}. "
                f"Set out_px of each level to {seen} in the params file, or choose another encoder"
            )
        device = next(self._network.parameters()).device
        mean, std = (255 * torch.tensor(config[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
        out = [np.zeros((0, self.dim), np.float32)]
        for i in range(0, len(patches), BATCH):
            block = torch.from_numpy(np.ascontiguousarray(patches[i : i + BATCH])).to(device)
            block = block.permute(0, 3, 1, 2)  # (B, 3, H, W), channels last in memory
            with torch.inference_mode():
                out.append(self._network((block - mean) / std).float().cpu().numpy())
        return np.concatenate(out)

    @cached_property
    def _network(self) -> "nn.Module":
        import torch

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        with torch.random.fork_rng():  # the caller's random numbers stay what they are
            torch.manual_seed(SEED)
            network = backbone(self.name)
        return network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
