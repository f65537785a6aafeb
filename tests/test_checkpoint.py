import pytest
import torch

from stlib.checkpoint import load_checkpoint, save_checkpoint, state_hash


def trained(seed=0, width=3):
    torch.manual_seed(seed)
    model = torch.nn.Linear(4, width)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimiser.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        optimiser.step()
    return model, optimiser


def test_resumed_equals_undisturbed(tmp_path):
    model, optimiser = trained()
    save_checkpoint(tmp_path / "a.safetensors", model, optimiser, {"model": "m", "epoch": 2})
    other, other_optimiser = trained(seed=1)
    about = load_checkpoint(tmp_path / "a.safetensors", other, other_optimiser, "m")
    assert about["epoch"] == 2
    for m, o in ((model, optimiser), (other, other_optimiser)):  # one more step needs the momentum as well
        o.zero_grad()
        m(torch.ones(2, 4)).square().sum().backward()
        o.step()
    torch.testing.assert_close(model.weight, other.weight, rtol=0, atol=0)


@pytest.mark.fault("a checkpoint of another model", "stnet's for asign", "ValueError that names both")
def test_a_checkpoint_of_another_model(tmp_path):
    model, optimiser = trained()
    save_checkpoint(tmp_path / "a.safetensors", model, optimiser, {"model": "stnet"})
    with pytest.raises(ValueError, match="a checkpoint of 'asign' is needed, found one of 'stnet'"):
        load_checkpoint(tmp_path / "a.safetensors", model, optimiser, "asign")


@pytest.mark.fault(
    "a checkpoint of another panel", "3 genes for 5", "ValueError that names the tensor and both shapes"
)
def test_a_checkpoint_of_another_panel(tmp_path):
    model, optimiser = trained()
    save_checkpoint(tmp_path / "a.safetensors", model, optimiser, {"model": "m"})
    wider, _ = trained(width=5)
    with pytest.raises(ValueError, match=r"size mismatch for weight: .*\[3, 4\].*\[5, 4\]"):
        load_checkpoint(tmp_path / "a.safetensors", wider, None, "m")


def test_a_damaged_checkpoint(tmp_path):
    model, optimiser = trained()
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, model, optimiser, {"model": "m"})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable checkpoint.*Delete it"):
        load_checkpoint(path, model, optimiser, "m")


def test_the_hash_of_a_state_is_of_all_that_was_learned(tmp_path):
    model, optimiser = trained()
    save_checkpoint(tmp_path / "a.safetensors", model, optimiser, {"model": "m"})
    again, _ = trained(seed=1)
    assert state_hash(again) != state_hash(model)
    load_checkpoint(tmp_path / "a.safetensors", again, None, "m")
    assert state_hash(again) == state_hash(model)
    flat, tall = torch.nn.Conv1d(1, 6, 1, bias=False), torch.nn.Conv1d(6, 1, 1, bias=False)
    tall.weight.data = flat.weight.data.reshape(1, 6, 1)
    assert state_hash(tall) != state_hash(flat)  # the same numbers in another shape
