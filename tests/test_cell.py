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
