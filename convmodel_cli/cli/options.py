"""Settings dataclasses -> command-line options.

A command takes each group of settings it needs as one parameter:

    @takes_settings
    def eval(data: Data, settings: EvaluationSettings, screen: ScreenSettings) -> None: ...

The decorator shows typer a signature with one option for each field of the groups, in a help panel named by the
group's docstring, and hands the command the groups made from what the user gave.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from convmodel_cli.errors import UsageError
from convmodel_cli.knobs import option_name


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a group of settings by one option for each of its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    nouns = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    options = [option for group in groups.values() for option in _options_of(group)]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = _make(group, {setting.name: given.pop(setting.name) for setting in fields(group)})
        command(**given)

    shown: Any = with_options
    shown.__signature__ = inspect.Signature(nouns + options)
    shown.__annotations__ = {parameter.name: parameter.annotation for parameter in nouns + options}
    del shown.__wrapped__  # typer would look at the command's own annotations
    return with_options


def _make(group: type[Any], values: dict[str, Any]) -> Any:
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
            default=setting.default,
            annotation=Annotated[hints[setting.name], _option(setting, str(group.__doc__), hints[setting.name])],
        )
        for setting in fields(group)
    ]


def _option(setting: Field[Any], panel: str, hint: Any) -> Any:
    metadata = setting.metadata
    flags = metadata["flags"] or ((option_name(setting),) if hint is bool else ())
    shown: bool | str = metadata["shown_default"] or (setting.default not in (None, "", False))
    return typer.Option(
        *flags,
        help=metadata["help"],
        rich_help_panel=panel,
        show_default=shown,
        show_envvar=False,
        metavar=metadata["metavar"],
    )
