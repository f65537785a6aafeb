"""Places of the array by hand: a grid that is turned by a quarter, of which a sample is known."""

import numpy as np
import pytest

from stlib.lattice import lattice


@pytest.fixture
def turned(toy_sections):
    from dataclasses import replace

    array = np.array([[0.0, 0], [3, 0], [0, 5], [2, 2]])
    position = np.stack([100 - 10 * array[:, 1], 20 + 10 * array[:, 0]], 1)  # x from rows, y from columns
    section = toy_sections["P1-1"]
    return replace(section, barcodes=np.array(list("abcd")), array=array, position=position)


def test_every_place_in_a_rectangle_is_there_once(turned):
    array, position = lattice(turned, np.array([75.0, 15.0]), np.array([105.0, 45.0]))
    wanted = {(column, row) for column in (0, 1, 2) for row in (0, 1, 2)}  # x 80 to 100, y 20 to 40
    assert sorted(map(tuple, array.astype(int).tolist())) == sorted(wanted)
    np.testing.assert_allclose(position[:, 0], 100 - 10 * array[:, 1], atol=1e-9)


def test_places_outside_of_it_are_not(turned):
    array, _ = lattice(turned, np.array([75.0, 15.0]), np.array([79.0, 45.0]))
    assert len(array) == 0
