"""Settings dataclasses -> command-line options.

A command takes each group of settings it needs as one parameter:

    @takes_settings
    def eval(data: Data, settings: EvaluationSettings, screen: ScreenSettings) -> None: ...

The decorator shows typer a signature with one option for each field of the groups, in a help panel named by the
group's docstring, and hands the command the groups made from what the user gave. A parameter that is `Sources` is no
option: it says where each value came from.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from convmodel_cli.cli.config import Sources, check_environment, describe_config, sources_of, use_config
from convmodel_cli.errors import UsageError
from convmodel_cli.knobs import option_name


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a group of settings by one option for each of its fields."""
    hints, plain = get_type_hints(command, include_extras=True), get_type_hints(command)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    nouns = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in groups and hints[name] is not Sources
    ]
    options = [option for group in groups.values() for option in _options_of(group)]
    types = {noun.name: plain[noun.name] for noun in nouns}
    types |= {name: hint for group in groups.values() for name, hint in get_type_hints(group).items()}
    options += _config_options(types)

    @functools.wraps(command)
    def with_options(context: typer.Context, config: str | None, print_config: bool, **given: Any) -> None:  # noqa: ARG001
        check_environment(context)
        for name, group in groups.items():
            given[name] = _make(group, {setting.name: given.pop(setting.name) for setting in fields(group)})
        if print_config:
            typer.echo(describe_config(context))
            return
        command(**given, **{name: sources_of(context) for name, hint in hints.items() if hint is Sources})

    shown: Any = with_options
    shown.__annotations__ = {parameter.name: parameter.annotation for parameter in nouns + options}
    shown.__annotations__["context"] = typer.Context
    shown.__signature__ = inspect.Signature([_CONTEXT, *nouns, *options])
    del shown.__wrapped__  # typer would look at the command's own annotations
    return with_options


_CONTEXT = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def _config_options(types: Mapping[str, Any]) -> list[inspect.Parameter]:
    """--config, whose file is read before any other option is looked at, and --print-config.

    `types` are those of all other parameters, by their names.
    """

    def read(context: typer.Context, path: str | None) -> str | None:
        if path is not None:
            use_config(context, path, types)
        return path

    config = typer.Option(
        "--config",
        help="Take settings from a YAML, TOML or JSON file, or from a run's convmodel.json.",
        rich_help_panel="Config",
        is_eager=True,
        callback=read,
        show_envvar=False,
        metavar="FILE",
    )
    show = typer.Option(
        "--print-config",
        help="Show every setting with its source, as a config file, and leave.",
        rich_help_panel="Config",
        show_envvar=False,
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter("config", kind, default=None, annotation=Annotated[str | None, config]),
        inspect.Parameter("print_config", kind, default=False, annotation=Annotated[bool, show]),
    ]


def _make(group: type[Any], values: dict[str, Any]) -> Any:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return group(**values)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group)
    return [
        inspect.Parameter(
            setting.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=list(setting.default) if isinstance(setting.default, tuple) else setting.default,
            annotation=Annotated[
                _typer_hint(hints[setting.name]), _option(setting, str(group.__doc__), hints[setting.name])
            ],
        )
        for setting in fields(group)
    ]


def _typer_hint(hint: Any) -> Any:
    """A setting with any number of values is a tuple here and a list there."""
    return list[str] if hint == tuple[str, ...] else hint


def _option(setting: Field[Any], panel: str, hint: Any) -> Any:
    metadata = setting.metadata
    flags = metadata["flags"] or ((option_name(setting),) if hint is bool else ())
    shown: bool | str = metadata["shown_default"] or (setting.default not in (None, "", False, ()))
    return typer.Option(
        *flags,
        help=metadata["help"],
        rich_help_panel=panel,
        show_default=shown,
        show_envvar=False,
        metavar=metadata["metavar"],
        allow_from_autoenv=not isinstance(setting.default, tuple),  # typer would cut a text at its spaces
    )
