"""Strict, typed records from plain data; errors name what is wrong, where, and the nearest right word."""

import copy
import difflib
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Record(BaseModel):
    """Hold declared fields only, of the declared types, for ever."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="constants")


def read_yaml(path: Path, where: str) -> dict[str, Any]:
    """Read a YAML file of keys and values as plain data.

    `where` is what a message calls it.
    """
    try:
        content = copy.deepcopy(_parsed(path.read_text()))
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not readable as YAML: {error}") from error
    return keyed(content, where)


@lru_cache(64)
def _parsed(text: str) -> Any:
    """Parse YAML once for each text: Make's targets ask for the same few files thousands of times."""
    return yaml.CSafeLoader(text).get_single_data()


def parse(record: type[Record], content: Any, where: str) -> Any:
    """Build `record` from plain data, with errors a person can act on.

    `content` holds dictionaries, lists and scalars, as YAML yields them; `where` is what the message calls
    the source, e.g. a file name.
    """
    try:
        return record.model_validate(keyed(content, where))
    except ValidationError as error:
        lines = [_explain(record, problem) for problem in error.errors()]
        raise ValueError(f"{where}: " + "; ".join(lines)) from None


def keyed(content: Any, where: str) -> dict[str, Any]:
    """Return a dictionary, or say that it is none."""
    if not isinstance(content, dict):
        raise ValueError(f"{where}: expected keys and values, found {type(content).__name__}")
    return content


def _explain(record: type[Record], problem: dict[str, Any]) -> str:
    """Say which key is wrong, what was found there, and what would be right."""
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields = _fields(record, problem["loc"][:-1])
        return f"unknown key '{location}' (nearest: {nearest(problem['loc'][-1], fields)})"
    if problem["type"] == "missing":
        return f"key '{location}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    found = "" if problem["type"] == "value_error" else f", found {problem['input']!r}"
    return f"{location}: {message}{found}" if location else message


def _fields(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """Return the keys that are allowed at a place of a record, entries of lists and dictionaries included."""
    if get_origin(kind) in (Union, UnionType):  # Record | None
        return _fields(get_args(kind)[0], location)
    fields = {field.alias or name: field for name, field in getattr(kind, "model_fields", {}).items()}
    if not location:
        return list(fields)
    if location[0] in fields:
        return _fields(fields[location[0]].annotation, location[1:])
    entry = get_args(kind)[-1:]  # of list[Record] or dict[str, Record]
    return _fields(entry[0], location[1:]) if entry else []


def require_known(word: str, words: Any, message: str) -> None:
    """Raise a ValueError that ends in the nearest right word, unless `word` is one of `words`."""
    if word not in words:
        raise ValueError(f"{message} (nearest: {nearest(word, words)})")


def nearest(word: str, known: Any) -> str:
    """Return the entry of `known` that looks most like `word`, quoted, or the whole list."""
    match = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f"'{match[0]}'" if match else f"one of {sorted(map(str, known))}"
