"""Config files: YAML, TOML or JSON -> the values of the parameters of a command."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from convmodel_cli.errors import UsageError
from convmodel_cli.escaping import to_json
from convmodel_cli.knobs import expected, is_value_of, takes_list

# What a run's convmodel.json holds.
_OF_RECORD = {"convmodel", "versions", "base", "settings", "sources", "data", "processor", "parameters", "max_context"}
_OF_RECORD |= {"best", "changes", "finished", "device", "precision", "threads"}
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
            values = _parse_json(content, path)
        elif kind in (".yaml", ".yml"):
            values = _parse_yaml(content, path)
        else:
            raise UsageError(
                f"{path}: expected a config file ending in .yaml, .toml or .json, got {kind or 'no ending'}"
            )
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: expected a config file, got something else ({reason})") from None
    if isinstance(values, dict) and isinstance(values.get("settings"), dict):
        values = _of_record(values, path)
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: expected names and values, got {type(values).__name__}", "write lines like epochs: 3"
        )
    return values


def _parse_json(content: bytes, path: str) -> Any:
    """Raises ValueError for what is no JSON, UsageError for a name that stands twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _check_once((key, path) for key, _ in pairs)
        return dict(pairs)

    orjson.loads(content)  # the stricter of the two, but it takes the last of several
    return json.loads(content, object_pairs_hook=once)


def _parse_yaml(content: bytes, path: str) -> Any:
    """Raises ValueError for what is no YAML, UsageError for a name that stands twice."""
    import yaml  # few commands are given such a file

    loader = yaml.SafeLoader(content)
    try:
        node = loader.get_single_node()
        for pairs in _mappings(node, set()):
            scalars = [key for key, _ in pairs if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge")]
            _check_once((key.value, f"{path}:{key.start_mark.line + 1}") for key in scalars)
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    finally:
        loader.dispose()


def _mappings(node: Any, seen: set[int]) -> Iterator[list[tuple[Any, Any]]]:
    """The (key, value) of each mapping in a YAML node, which may hold one node many times, also itself."""
    if node is None or isinstance(node.value, str) or id(node) in seen:
        return
    seen.add(id(node))
    pairs = [part for part in node.value if isinstance(part, tuple)]
    yield pairs
    for part in (value for _, value in pairs) if pairs else node.value:
        yield from _mappings(part, seen)


def _check_once(names: Iterable[tuple[str, str]]) -> None:
    """Refuse a name that stands twice, of which parsers take the last; each comes with its place."""
    seen: dict[str, str] = {}
    for name, where in names:
        plain = name.replace("-", "_")
        if plain in seen:
            found = f"{name} twice" if name == seen[plain] else f"{seen[plain]} and {name}"
            raise UsageError(f"{where}: expected each name once, got {found}")
        seen[plain] = name


def _of_record(record: dict[str, Any], path: str) -> dict[str, Any]:
    """The settings of a run with its base and files; those of the packaged sample go without saying."""
    if strangers := sorted(record.keys() - _OF_RECORD):
        raise UsageError(f"{path}: {strangers[0]} stands beside settings, where it is not read", "put it among them")
    nouns = {"base": record.get("base")}
    data = record.get("data") or {}
    if not isinstance(data, dict):
        raise UsageError(f"{path}: data: expected names and values, got {_shown(data)}")
    if not data.get("sample"):
        nouns |= {name: _files(data.get(name)) for name in _LISTS}
    return {**record["settings"], **{name: value for name, value in nouns.items() if value}}


def _files(recorded: Any) -> Any:
    """The files of a run by the names that the command line takes."""
    return ["-" if file == "<stdin>" else file for file in recorded] if isinstance(recorded, list) else recorded


def _defaults(values: Mapping[str, Any], path: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """The values by the names of the parameters."""
    defaults: dict[str, Any] = {}
    _check_once((str(name), path) for name in values)
    named = {str(name).replace("-", "_"): value for name, value in values.items()}
    for name, value in named.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, 1)
            hint = f"did you mean {near[0]}?" if near else "the help lists the options; names are written with _"
            raise UsageError(f"{path}: there is no setting {name}", hint)
        if value is None:
            continue
        is_list_of_files = name in _LISTS and isinstance(value, list)
        _check(f"{path}: {name}", types[_LISTS[name] if is_list_of_files else name], value)
        if is_list_of_files and named.get(_LISTS[name]):
            raise UsageError(f"{path}: {name}: expected one file beside {_LISTS[name]}, got a list")
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
