"""Config files: YAML, TOML or JSON -> the values of the parameters of a command."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from convmodel_cli.errors import UsageError
from convmodel_cli.escaping import to_json
from convmodel_cli.knobs import expected, is_value_of, takes_list

# A list of files in a config is a positional argument and repeated options on the command line.
_LISTS = {"train": "more_train", "valid": "more_valid"}
_SHOWN_CHARACTERS = 60


def read_config(path: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """The values in a file by the names of the parameters, which have these types; raises UsageError."""
    return _defaults(_read(path), path, types)


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


def _defaults(values: Mapping[str, Any], path: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """The values by the names of the parameters."""
    defaults: dict[str, Any] = {}
    for written, value in values.items():
        name = str(written).replace("-", "_")
        if name not in types:
            near = difflib.get_close_matches(name, types, 1)
            hint = f"did you mean {near[0]}?" if near else "the help lists the options; names are written with _"
            raise UsageError(f"{path}: there is no setting {written}", hint)
        if value is None:
            continue
        is_list_of_files = name in _LISTS and isinstance(value, list)
        _check(f"{path}: {name}", types[_LISTS[name] if is_list_of_files else name], value)
        if is_list_of_files:
            defaults.update(zip((name, _LISTS[name]), (value[0], value[1:]), strict=True) if value else ())
        else:
            defaults[name] = value
    return defaults


def _check(where: str, hint: Any, value: Any) -> None:
    """Refuse a value of another type: that of an option would be made to fit, so that true became the number 1."""
    wanted, odd = expected(hint), [value]
    if takes_list(hint) and isinstance(value, list):
        wanted, odd = "texts in the list", [part for part in value if not isinstance(part, str)]
    elif is_value_of(hint, value):
        return
    if odd:
        is_bare_word = "text" in wanted or "one of" in wanted
        raise UsageError(f"{where}: expected {wanted}, got {_shown(odd[0])}", _quotes(odd[0]) if is_bare_word else "")


def _shown(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "names and values"
    text = to_json(value).decode() if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _quotes(value: Any) -> str:
    if isinstance(value, bool):
        return "put it into quotes; YAML takes a bare on, off, yes or no for true or false"
    return "" if isinstance(value, str | list | dict) else "put it into quotes"
