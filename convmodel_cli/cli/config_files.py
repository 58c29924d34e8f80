"""Config files: YAML, TOML or JSON -> the values of the parameters of a command."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from convmodel_cli.errors import UsageError

# A list of files in a config is a positional argument and repeated options on the command line.
_LISTS = {"train": "more_train", "valid": "more_valid"}


def read_config(path: str, known: Mapping[str, bool]) -> dict[str, Any]:
    """The values in a file by the names of the parameters, of which `known` says whether each takes a list.

    Raises UsageError.
    """
    return _defaults(_read(path), path, known)


def _read(path: str) -> Mapping[str, Any]:
    """The mapping in a YAML, TOML or JSON file; of a run's convmodel.json its settings."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    kind = Path(path).suffix.lower()
    try:
        if kind == ".toml":
            values = tomllib.loads(content.decode())
        elif kind == ".json":
            values = orjson.loads(content)
        elif kind in (".yaml", ".yml"):
            values = _parse_yaml(content)
        else:
            raise UsageError(
                f"{path}: expected a config file ending in .yaml, .toml or .json, got {kind or 'no ending'}"
            )
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: expected a config file, got something else ({reason})") from None
    if isinstance(values, dict) and isinstance(values.get("settings"), dict):
        values = _of_record(values)
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: expected names and values, got {type(values).__name__}", "write lines like epochs: 3"
        )
    return values


def _parse_yaml(content: bytes) -> Any:
    """Raises ValueError for what is no YAML."""
    import yaml  # few commands are given such a file

    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _of_record(record: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with its base and files; those of the packaged sample go without saying."""
    nouns = {"base": record.get("base")}
    data = record.get("data") or {}
    if not data.get("sample"):
        nouns |= {name: ["-" if file == "<stdin>" else file for file in data.get(name) or ()] for name in _LISTS}
    return {**record["settings"], **{name: value for name, value in nouns.items() if value}}


def _defaults(values: Mapping[str, Any], path: str, known: Mapping[str, bool]) -> dict[str, Any]:
    """The values by the names of the parameters; `known` says of each of these whether it takes a list."""
    defaults: dict[str, Any] = {}
    for written, value in values.items():
        name = str(written).replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "the help lists the options; names are written with _"
            raise UsageError(f"{path}: there is no setting {written}", hint)
        if isinstance(value, list) and name in _LISTS and value:
            defaults[name], defaults[_LISTS[name]] = value[0], value[1:]
        elif value is not None:
            if isinstance(value, list) != known[name] or isinstance(value, dict):
                wanted = "a list" if known[name] else "one value"
                raise UsageError(f"{path}: {name}: expected {wanted}, got {type(value).__name__}")
            defaults[name] = value
    return defaults
