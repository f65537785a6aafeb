"""What is wrong in a file is named with its place and the nearest right word."""

import pytest

from stlib.records import Record, nearest, parse, read_yaml


class Leaf(Record):
    colour: str = ""


class Tree(Record):
    leaves: list[Leaf] = []
    named: dict[str, Leaf] = {}
    best: Leaf | None = None
    nested: dict[str, list[Leaf]] = {}


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"leaves": [{}, {"color": "red"}]}, "leaves.1.color"),
        ({"named": {"oak": {"color": "red"}}}, "named.oak.color"),
        ({"best": {"color": "red"}}, "best.color"),
        ({"nested": {"oak": [{"color": "red"}]}}, "nested.oak.0.color"),
    ],
)
def test_unknown_key_in_a_collection_of_records_names_the_nearest(content, where):
    with pytest.raises(ValueError, match=rf"unknown key '{where}' \(nearest: 'colour'\)"):
        parse(Tree, content, "x.yaml")


def test_a_file_that_is_no_yaml_or_holds_no_keys_is_named(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: [1")
    with pytest.raises(ValueError, match="here: not readable as YAML"):
        read_yaml(path, "here")
    path.write_text("- a")
    with pytest.raises(ValueError, match="here: expected keys and values, found list"):
        read_yaml(path, "here")
    path.write_text("a: 1")
    assert read_yaml(path, "here") == {"a": 1}


def test_the_nearest_word_or_all_there_are():
    assert nearest("magnett", ["magnet", "asign"]) == "'magnet'"
    assert nearest("zzz", ["b", "a"]) == "one of ['a', 'b']"
