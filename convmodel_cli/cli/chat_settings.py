"""The settings of a chat that change while it goes on: /set, and how they stand in the toolbar."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, get_type_hints

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.errors import UsageError
from convmodel_cli.knobs import check_limits, parse_value
from convmodel_cli.settings import ComputeSettings

_SETTINGS = {setting.name: setting for setting in fields(SamplingSettings)}
_HINTS = get_type_hints(SamplingSettings)
NAMES = (*_SETTINGS, "seed")


def describe_settings(sampling: SamplingSettings, seed: int) -> list[str]:
    """A line for each setting."""
    values = {name: getattr(sampling, name) for name in _SETTINGS} | {"seed": seed}
    values["repetition_penalty"] = sampling.penalty
    return [f"{name:<20}{_written(value)}" for name, value in values.items()]


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return (" ".join(map(shlex.quote, value)) or "none") if isinstance(value, tuple) else str(value)


def change_settings(sampling: SamplingSettings, seed: int, text: str) -> tuple[SamplingSettings, int]:
    """The settings after `name=value name=value`; raises UsageError and changes nothing if one of them is wrong."""
    changes: dict[str, Any] = {}
    try:
        for name, value in _assignments(text):
            if name == "seed":
                seed = _seed(value)
                continue
            parsed = parse_value(_SETTINGS[name], _HINTS[name], value)
            changes[name] = changes.get(name, ()) + parsed if isinstance(parsed, tuple) else parsed
        return replace(sampling, **changes), seed  # at once, for some only go together
    except ValueError as error:
        raise UsageError(str(error)) from None


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """(name, value as it is written) of each setting; raises UsageError for one that does not exist."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise UsageError(f"expected quotation marks in pairs, got {text}", 'like /set stop_word="the end"') from None
    for word in words:
        written, equals, value = word.partition("=")
        name = written.removeprefix("--").replace("-", "_")
        if not equals:
            raise UsageError(f"expected name=value, got {word}", "like /set temperature=0.5")
        if name not in NAMES:
            begun = [known for known in NAMES if len(name) > 1 and known.startswith(name)]
            near = begun or difflib.get_close_matches(name, NAMES, 1)
            hint = f"did you mean {near[0]}?" if near else "/set lists the settings"
            raise UsageError(f"there is no setting {written}", hint)
        yield name, value


def _seed(text: str) -> int:
    [setting] = [setting for setting in fields(ComputeSettings) if setting.name == "seed"]
    seed = parse_value(setting, int, text)
    check_limits(ComputeSettings(seed=seed))
    return int(seed)


def summary(sampling: SamplingSettings, seed: int) -> str:
    """`T 0.8 · p 0.95 · seed 71`"""
    if sampling.beams > 1:
        return f"{sampling.beams} beams"
    return "greedy" if sampling.greedy else f"T {sampling.temperature:g} · p {sampling.top_p:g} · seed {seed}"
