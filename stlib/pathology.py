"""Image networks trained on pathology slides, by short name: how timm builds them, where their weights are.

A recipe belongs to weights: the same architecture with another option (LayerScale, registers, the gated MLP)
has other parameters, and pixels must be normalised as in training. Architectures and options are those of the
model cards; the numbers of parameters that they give are tested.
"""

from typing import Any, NamedTuple

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GATED_MLP = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}  # of timm.layers


class Recipe(NamedTuple):
    """How a network is built, and where its weights are.

    Attributes
    ----------
    model, options
        Architecture of timm and its keyword arguments. With `dynamic_img_size` it takes any patch whose sides
        are multiples of its own patches; without, 224 px.
    hub
        Repository at huggingface.co; empty if the weights are not there.
    file
        What to download, there or at `page`.
    page
        Address of the weights; empty: that of the repository.
    gated
        Whether a licence must be accepted first.
    normalisation
        Mean and deviation of the channels, on 0 to 1.
    prefixes
        Words before each name in the file, removed in this order; what the network lacks is then left out.
    """

    model: str
    options: dict[str, Any] = {}
    hub: str = ""
    file: str = "pytorch_model.bin"
    page: str = ""
    gated: bool = True
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    prefixes: tuple[str, ...] = ()

    @property
    def download(self) -> str:
        """What to do to have the file."""
        where = self.page or f"https://huggingface.co/{self.hub}"
        licence = f"accept the licence at {where}, " if self.gated else ""
        return f"{licence}download {self.file} from {where}"


RECIPES = {
    # Ciga, Xu & Martel 2022, doi:10.1016/j.mlwa.2021.100198: SimCLR on 57 sets of slides; 512 features
    "ciga_resnet18": Recipe(
        "resnet18",
        file="tenpercent_resnet18.ckpt",
        page="https://github.com/ozanciga/self-supervised-histopathology/releases/tag/tenpercent",
        gated=False,
        prefixes=("model.", "resnet."),
    ),
    # Chen et al. 2024, doi:10.1038/s41591-024-02857-3; 1024 features
    "uni": Recipe(
        "vit_large_patch16_224", {"init_values": 1e-5, "dynamic_img_size": True}, hub="MahmoodLab/UNI"
    ),
    # its successor; 1536 features
    "uni2_h": Recipe(
        "vit_giant_patch14_224",
        {
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "init_values": 1e-5,
            "reg_tokens": 8,
            "no_embed_class": True,
            "dynamic_img_size": True,
            **GATED_MLP,
        },
        hub="MahmoodLab/UNI2-h",
    ),
    # Saillard et al. 2024, github.com/bioptimus/releases; 1536 features
    "h_optimus_0": Recipe(
        "vit_giant_patch14_reg4_dinov2",
        {"img_size": 224, "init_values": 1e-5},
        hub="bioptimus/H-optimus-0",
        normalisation=((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)),
    ),
    # Zimmermann et al. 2024, arXiv:2408.00738; the class token alone, 1280 features (its authors append the
    # mean of the patch tokens)
    "virchow2": Recipe(
        "vit_huge_patch14_224",
        {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "reg_tokens": 4, **GATED_MLP},
        hub="paige-ai/Virchow2",
    ),
    # Xu et al. 2024, doi:10.1038/s41586-024-07441-w, its network for tiles; 1536 features
    "gigapath": Recipe(
        "vit_giant_patch14_dinov2",
        {
            "img_size": 224,
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "init_values": 1e-5,
            "mlp_ratio": 5.33334,
        },
        hub="prov-gigapath/prov-gigapath",
    ),
}
