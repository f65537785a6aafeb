"""Networks that say where their weights are from, frozen and to be trained."""

import hashlib

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from stlib.encoders import Timm, backbone, parse_spec, require_patches, width


def test_a_bare_name_is_refused_with_the_three_words():
    for spec in ("resnet50", "resnet50@", "resnet50@imagenet", "@hub"):
        with pytest.raises(ValueError, match=r"weights come from.*@untrained.*@hub.*@file:<path>.*'stain'"):
            parse_spec(spec)


def test_untrained_weights_are_always_the_same():
    batch = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    state = torch.random.get_rng_state()
    first = Timm("test_resnet@untrained", "cpu", False)
    found = first.encode(batch)
    assert found.shape == (3, first.dim) and found.dtype == np.float32
    assert torch.equal(state, torch.random.get_rng_state())  # and leave the caller's random numbers alone
    torch.manual_seed(99)
    assert np.array_equal(found, Timm("test_resnet@untrained", "cpu", False).encode(batch))
    model = first._network
    mean, std = (np.array(model.pretrained_cfg[key], np.float32) for key in ("mean", "std"))
    by_hand = torch.from_numpy((batch / 255 - mean) / std).permute(0, 3, 1, 2).float()
    assert found == pytest.approx(model(by_hand).numpy(), abs=1e-4)
    half = Timm("test_resnet@untrained", "cpu", True)
    assert half.version != first.version
    assert half.encode(batch) == pytest.approx(found, abs=0.1 * float(np.abs(found).max()))


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


def test_a_pickled_object_is_not_run(tmp_path):
    torch.save(timm.create_model("test_resnet"), tmp_path / "model.pth")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        Timm(f"test_resnet@file:{tmp_path}/model.pth").encode(np.zeros((1, 64, 64, 3), np.uint8))


def test_without_network_the_error_says_what_to_put_where(monkeypatch):
    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        FileNotFoundError, match="no route to host.*test_resnet.*'test_resnet@file:data/weights/"
    ):
        Timm("test_resnet@hub").encode(np.zeros((1, 64, 64, 3), np.uint8))


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
