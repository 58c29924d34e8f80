"""Config files: what a file says becomes the default of an option; and where each value came from."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import typer
from typer.core import TyperCommand

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.errors import ModelError, UsageError
from convmodel_cli.escaping import to_json
from convmodel_cli.storage import from_home

# A list of files in a config is a positional argument and repeated options on the command line.
_LISTS = {"train": "more_train", "valid": "more_valid"}
_NOT_SETTINGS = {"config", "print_config"}
_SOURCES = {
    "COMMANDLINE": "command line",
    "ENVIRONMENT": "environment",
    "DEFAULT_MAP": "config file",
    "DEFAULT": "default",
}
# What transformers calls our settings. Its do_sample stays out, for there is no option to switch greedy off again, and
# what looks back at the text, for there it counts the context too.
_GENERATION_CONFIG = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "max_new_tokens": "max_new_tokens",
}


class Command(TyperCommand):
    """A command whose help shows the program's own defaults: those of a file are text that could steer a terminal."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.default_map = None
        super().format_help(ctx, formatter)


def use_config(context: typer.Context, path: str | None) -> str | None:
    """Make the values of a config file the defaults of this command; raises UsageError."""
    if path is not None:
        known = {
            str(parameter.name): bool(getattr(parameter, "multiple", False) or parameter.nargs == -1)
            for parameter in context.command.params
            if parameter.name not in (*_NOT_SETTINGS, "help")
        }
        stated = _defaults(_read(path), path, known)
        _from_model_folder(context).difference_update(stated)
        context.default_map = {**(context.default_map or {}), **stated}
    return path


def use_model_folder(context: typer.Context, name: str) -> str:
    """Make what the model's generation_config.json says of sampling the default, below a config file.

    Of a model on the hub nothing is known before it is loaded. Raises ModelError for a file that makes no sense.
    """
    path = from_home(name) / "generation_config.json"
    stated = context.default_map or {}
    takes = {parameter.name for parameter in context.command.params} - set(stated)
    found = {ours: value for ours, value in _sampling_of(path).items() if ours in takes}
    _from_model_folder(context).update(found)
    context.default_map = {**found, **stated}
    return name


def _sampling_of(path: Path) -> dict[str, Any]:
    """The sampling settings in a generation_config.json, by our names."""
    if not path.is_file():
        return {}
    try:
        written = orjson.loads(path.read_bytes())
        if not isinstance(written, dict):
            raise TypeError(f"expected an object, got {type(written).__name__}")
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: expected settings of transformers' generate, got others: {error}") from None
    found = {ours: written.get(theirs) for theirs, ours in _GENERATION_CONFIG.items()}
    return {name: value for name, value in found.items() if value is not None and _is_possible(name, value)}


def _is_possible(name: str, value: Any) -> bool:
    """Whether the value is within our limits; transformers has some that mean "none", like a temperature of 0."""
    try:
        SamplingSettings(**{name: value})
    except (ValueError, TypeError):
        return False
    return not isinstance(value, bool)


def _from_model_folder(context: typer.Context) -> set[str]:
    """The settings whose defaults come from the model's folder."""
    names: set[str] = context.meta.setdefault("convmodel.model_folder", set())
    return names


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


def describe_config(context: typer.Context) -> str:
    """Every value in force with its source, as a YAML file that `--config` reads; raises UsageError."""
    lines = []
    for name, value in context.params.items():
        if name in _NOT_SETTINGS:
            continue
        source = context.get_parameter_source(name)
        shown = _SOURCES[source.name if source else "DEFAULT"]
        if shown == "config file" and name in _from_model_folder(context):
            shown = "model folder"
        try:
            written = to_json(value).decode()  # a JSON value is a YAML value
        except TypeError:  # a file name may be of any bytes
            raise UsageError(f"{name}: expected UTF-8 text, got other bytes") from None
        lines.append(f"{name}: {written}  # {shown}")
    return "\n".join(lines)
