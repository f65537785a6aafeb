"""The parameters of a notebook: what is refused, and what is no parameter."""

import pytest

from stlib.cell import parameters


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match=r"04_train_2d: unknown parameter 'modle' \(nearest: 'model'\)"):
        parameters({"dataset": "toy", "modle": "asign"}, "04_train_2d")
    with pytest.raises(ValueError, match="unknown parameter 'model'"):
        parameters({"dataset": "toy", "model": "asign"}, "01_data")


def test_a_parameter_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"dataset: Input should be a valid string, found 151673"):
        parameters({"dataset": 151673}, "01_data")


def test_names_of_the_kernel_are_no_parameters():
    found = parameters(
        {"dataset": "toy", "_": 3, "In": [], "Out": {}, "pd": pytest, "quit": print}, "01_data"
    )
    assert found.dataset == "toy"


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValueError, match="setting: Input .* 'strict' or 'published', found 'publishd'"):
        parameters({"dataset": "toy", "setting": "publishd"}, "04_train_2d")


def test_a_notebook_runs_again_in_the_same_kernel():
    """What later cells left behind is no parameter; what the parameters cell says counts anew."""
    cell = {"dataset": "toy"}
    cell["p"] = parameters(cell, "01_data")
    cell |= {"thumbnails": {}, "seed": 3, "dataset": "toy_hd"}
    found = parameters(cell, "01_data")
    assert (found.dataset, found.seed) == ("toy_hd", 0)
    with pytest.raises(ValueError, match="unknown parameter 'thumbnails'"):
        parameters({"dataset": "toy", "thumbnails": {}}, "01_data")
