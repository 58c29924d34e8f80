"""What a config file or a model folder says becomes the default of an option; and where each value came from."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NewType

import orjson
import typer
from typer.core import TyperCommand

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.cli.config_files import read_config
from convmodel_cli.errors import ModelError, UsageError
from convmodel_cli.escaping import to_json
from convmodel_cli.storage import from_home

_NOT_SETTINGS = {"config", "print_config"}
_SOURCES = {
    "COMMANDLINE": "command line",
    "ENVIRONMENT": "environment",
    "DEFAULT_MAP": "config file",
    "DEFAULT": "default",
}
Sources = NewType("Sources", dict[str, str])  # name of a parameter -> where its value came from
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


def use_config(context: typer.Context, path: str, types: Mapping[str, Any]) -> None:
    """Make the values of a config file the defaults of this command, whose parameters have these types.

    Raises UsageError.
    """
    stated = read_config(path, types)
    _from_model_folder(context).difference_update(stated)
    context.default_map = {**(context.default_map or {}), **stated}


def check_environment(context: typer.Context) -> None:
    """Refuse a variable like CONVMODEL_FIT_EPOCH, which is meant for this command and read by nothing."""
    prefix = f"{context.auto_envvar_prefix}_"
    names = {str(parameter.name): parameter for parameter in context.command.params}
    read = [name for name, parameter in names.items() if getattr(parameter, "allow_from_autoenv", False)]
    for variable in sorted(os.environ):
        if not variable.startswith(prefix) or variable in {prefix + name.upper() for name in read}:
            continue
        name = variable.removeprefix(prefix).lower()
        if name in names:
            raise UsageError(
                f"{variable}: {name} is not read from the environment",
                "give it on the command line or in a config file",
            )
        near = difflib.get_close_matches(name, read, 1)
        hint = f"did you mean {prefix}{near[0].upper()}?" if near else "the help lists the options"
        raise UsageError(f"{variable}: there is no setting {name or 'without a name'}", hint)


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
    return True


def _from_model_folder(context: typer.Context) -> set[str]:
    """The settings whose defaults come from the model's folder."""
    names: set[str] = context.meta.setdefault("convmodel.model_folder", set())
    return names


def sources_of(context: typer.Context) -> Sources:
    """Where each value in force came from, by the names of the parameters."""
    sources = Sources({})
    for name in context.params.keys() - _NOT_SETTINGS:
        source = context.get_parameter_source(name)
        sources[name] = _SOURCES[source.name if source else "DEFAULT"]
        if sources[name] == "config file" and name in _from_model_folder(context):
            sources[name] = "model folder"
    return sources


def describe_config(context: typer.Context) -> str:
    """Every value in force with its source, as a YAML file that `--config` reads; raises UsageError."""
    lines, sources = [], sources_of(context)
    for name, value in context.params.items():
        if name in _NOT_SETTINGS:
            continue
        try:
            written = to_json(value).decode()  # a JSON value is a YAML value
        except TypeError:  # a file name may be of any bytes
            raise UsageError(f"{name}: expected UTF-8 text, got other bytes") from None
        lines.append(f"{name}: {written}  # {sources[name]}")
    return "\n".join(lines)
