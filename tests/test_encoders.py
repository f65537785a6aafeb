"""Networks that say where their weights are from, frozen and to be trained."""

import hashlib
import re

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from stlib import paths
from stlib.encoders import Timm, backbone, parse_spec, require_patches, tokens, width
from stlib.pathology import RECIPES, Recipe


def test_a_bare_name_is_refused_with_the_three_words():
    for spec in ("resnet50", "resnet50@", "resnet50@imagenet", "@hub"):
        with pytest.raises(ValueError, match=r"weights come from.*@untrained.*@hub.*@file:<path>.*'stain'"):
            parse_spec(spec)


def test_untrained_weights_are_always_the_same():
    batch = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    state = torch.random.get_rng_state()
    first = Timm("test_resnet@untrained", "cpu")
    found = first.encode(batch)
    assert found.shape == (3, first.dim) and found.dtype == np.float32
    assert torch.equal(state, torch.random.get_rng_state())  # and leave the caller's random numbers alone
    torch.manual_seed(99)
    assert np.array_equal(found, Timm("test_resnet@untrained", "cpu").encode(batch))
    model = first._network
    mean, std = (np.array(model.pretrained_cfg[key], np.float32) for key in ("mean", "std"))
    by_hand = torch.from_numpy((batch / 255 - mean) / std).permute(0, 3, 1, 2).float()
    assert found == pytest.approx(model(by_hand).numpy(), abs=1e-4)


def test_an_unknown_model_and_a_wrong_size_are_named():
    with pytest.raises(ValueError, match="timm has no model 'resnet5000'"):
        Timm("resnet5000@untrained").encode(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="sees patches of 160 x 160 px only.*Set out_px"):
        Timm("test_vit@untrained").encode(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, 3\), at least 32 px wide, found float32"):
        require_patches(np.zeros((1, 64, 64, 3), np.float32))


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(7)
    source = timm.create_model("test_resnet").eval()  # with its classifier, which is left out
    safetensors.torch.save_file(source.state_dict(), tmp_path / "a.safetensors")
    torch.save(source.state_dict(), tmp_path / "a.pth")
    batch = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found = [Timm(f"test_resnet@file:{tmp_path}/a.{kind}", "cpu") for kind in ("safetensors", "pth")]
    one, two = (e.encode(batch) for e in found)
    trainable = backbone(f"test_resnet@file:{tmp_path}/a.pth").state_dict()  # the same, to be trained
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in trainable.items())
    assert np.array_equal(one, two)
    assert not np.allclose(one, Timm("test_resnet@untrained", "cpu").encode(batch))
    assert found[0].version == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()

    part = {key: value for key, value in source.state_dict().items() if "layer4" not in key}
    safetensors.torch.save_file(part | {"odd": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"no state dict of test_resnet: \d+ entries are missing.*1 unknown"):
        Timm(f"test_resnet@file:{tmp_path}/b.safetensors").encode(batch)
    with pytest.raises(FileNotFoundError, match="there are no weights at .*c.pth"):
        _ = Timm(f"test_resnet@file:{tmp_path}/c.pth").version


@pytest.mark.fault(
    "weights that hold a pickled object", "a .pt whose pickle would run code", "ValueError; nothing is run"
)
def test_a_pickled_object_is_not_run(tmp_path):
    torch.save(timm.create_model("test_resnet"), tmp_path / "model.pth")
    with pytest.raises(
        ValueError,
        match=r"nothing but tensors is read.*Only if you trust.*'test_resnet@file:.*/model.safetensors'",
    ):
        Timm(f"test_resnet@file:{tmp_path}/model.pth").encode(np.zeros((1, 64, 64, 3), np.uint8))


def test_without_network_the_error_says_what_to_put_where(monkeypatch):
    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        FileNotFoundError,
        match="no route to host.*model.safetensors from timm/.*'test_resnet@file:data/weights/test_resnet.",
    ):
        Timm("test_resnet@hub").encode(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(
        FileNotFoundError,
        match=r"accept the licence at https://huggingface.co/MahmoodLab/UNI, download pytorch_model.bin from "
        r"https://huggingface.co/MahmoodLab/UNI, put it at data/weights/uni.bin and write "
        r"'uni@file:data/weights/uni.bin'",
    ):
        backbone("uni@hub")
    with pytest.raises(
        FileNotFoundError, match=r"are at no hub.*tenpercent_resnet18.ckpt from https://github"
    ):
        backbone("ciga_resnet18@hub")
    with pytest.raises(FileNotFoundError, match="no weights at .*/uni.bin.*accept the licence.*put it there"):
        backbone("uni@file:data/none/uni.bin")


def test_a_backbone_draws_from_the_generator_of_its_run():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([value.ravel() for value in backbone("test_resnet@untrained").parameters()])

    first = weights(1)
    assert torch.equal(first, weights(1)) and not torch.equal(first, weights(2))


def test_the_width_is_that_of_the_output():
    for name in ("test_resnet", "test_efficientnet", "test_vit"):
        network = backbone(f"{name}@untrained").eval()
        assert network(torch.zeros(1, 3, 160, 160)).shape == (1, width(network))
    assert Timm("test_resnet@untrained").dim == width(backbone("test_resnet@untrained"))


def test_tokens_are_what_is_pooled():
    pixels = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    resnet, vit = (backbone(f"{name}@untrained").eval() for name in ("test_resnet", "test_vit"))
    found = tokens(resnet, pixels)
    assert found.shape == (2, 25, resnet.num_features)  # 160 / 32 = 5
    torch.testing.assert_close(found.mean(1), resnet(pixels))
    assert torch.equal(found[:, 1], resnet.forward_features(pixels)[:, :, 0, 1])  # row by row
    assert tokens(vit, pixels).shape == (2, 100, vit.num_features)  # 160 / 16 = 10, without the class token
    assert torch.equal(tokens(vit, pixels)[:, 0], vit.forward_features(pixels)[:, 1])


def test_the_resnet_of_ciga_is_read_as_it_was_published(tmp_path):
    torch.manual_seed(3)
    source = timm.create_model("resnet18", num_classes=4).eval()
    entries = {f"model.resnet.{key}": value for key, value in source.state_dict().items()}
    entries["model.projection.weight"] = torch.zeros(2, 2)  # of its pretraining alone
    torch.save({"epoch": 9, "state_dict": entries}, tmp_path / "a.ckpt")
    network = backbone(f"ciga_resnet18@file:{tmp_path}/a.ckpt").eval()
    own = network.state_dict()
    assert len(own) == 120 and all(torch.equal(source.state_dict()[key], value) for key, value in own.items())
    assert sum(value.numel() for value in network.parameters()) == 11_176_512
    assert tokens(network, torch.zeros(1, 3, 224, 224)).shape == (1, 49, 512)
    assert network.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)

    del entries["model.resnet.layer1.0.conv1.weight"]
    torch.save({"state_dict": entries}, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match=r"no state dict of ciga_resnet18: 1 entries are missing.*0 unknown"):
        backbone(f"ciga_resnet18@file:{tmp_path}/b.ckpt")


class Callback:
    """What a checkpoint of Lightning may hold beside its tensors."""


def test_the_way_that_an_error_names_works_and_begins_with_trust(tmp_path):
    source = timm.create_model("test_resnet")
    file = tmp_path / "c.ckpt"
    torch.save({"callbacks": {Callback: 1}, "state_dict": source.state_dict()}, file)
    with pytest.raises(ValueError, match="holds more than tensors") as caught:
        backbone(f"test_resnet@file:{file}")
    words = str(caught.value)
    assert words.index("is to run code") < words.index("Only if you trust") < words.index("torch.load")
    assert "weights_only=False" not in words  # no command to paste: the file may be anyone's
    target, name = re.search(r"to '(\S+)', and name that file: '(\S+)'", words).groups()
    safetensors.torch.save_file(source.state_dict(), target)
    assert torch.equal(backbone(name).conv1[0].weight, source.conv1[0].weight)


# what the model cards say; CLIP: the image half of ViT-B/32
COUNTS = {
    "ciga_resnet18": (11_176_512, 512),
    "uni": (303_350_784, 1024),
    "uni2_h": (681_394_176, 1536),
    "h_optimus_0": (1_134_774_272, 1536),
    "virchow2": (631_239_424, 1280),
    "gigapath": (1_134_953_984, 1536),
    "vit_base_patch32_clip_224.laion2b": (87_456_000, 768),
    "densenet121": (6_953_856, 1024),
    "resnet50": (23_508_032, 2048),
}


@pytest.mark.parametrize("name", {**COUNTS, **RECIPES})
def test_networks_have_the_size_that_their_weights_have(name):
    with torch.device("meta"):
        network = backbone(f"{name}@untrained")
        out = network(torch.zeros(1, 3, 224, 224))
    assert (sum(value.numel() for value in network.parameters()), width(network)) == COUNTS[name]
    assert out.shape == (1, width(network))


def test_a_short_name_is_its_architecture_with_its_options(monkeypatch, tmp_path):
    options = {"init_values": 1e-5, "dynamic_img_size": True}
    recipe = Recipe("test_vit", options, hub="someone/tiny", normalisation=((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    monkeypatch.setitem(RECIPES, "tiny", recipe)
    torch.manual_seed(4)
    source = timm.create_model("test_vit", num_classes=0, **options).eval()
    torch.save(source.state_dict(), tmp_path / "tiny.bin")
    asked = []
    monkeypatch.setattr(
        timm.models._builder,
        "load_state_dict_from_hf",
        lambda where, **rest: asked.append(where) or dict(source.state_dict()),
    )
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    batch = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)  # not 160 px: dynamic
    mean, std = (np.array(value, np.float32) for value in recipe.normalisation)
    pixels = torch.from_numpy((batch / 255 - mean) / std).permute(0, 3, 1, 2).float()
    expected = source(pixels).detach().numpy()
    for origin in ("hub", "file:tiny.bin"):
        assert Timm(f"tiny@{origin}", "cpu").encode(batch) == pytest.approx(expected, abs=1e-4)
    assert asked == ["someone/tiny"]
    assert not np.allclose(Timm("tiny@untrained", "cpu").encode(batch), expected, atol=1e-2)
