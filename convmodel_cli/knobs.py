"""How a setting is declared and checked: its default, its help and its limits stand in the field itself."""

from __future__ import annotations

import math
from dataclasses import Field, field, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def knob(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    flags: tuple[str, ...] = (),
    shown_default: str | None = None,
    metavar: str | None = None,
) -> Any:
    """One setting. `flags` replaces the option name derived from the field; `shown_default` explains a None."""
    metadata = {
        "help": help,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "flags": flags,
        "shown_default": shown_default,
        "metavar": metavar,
    }
    return field(default=default, metadata=metadata)


def option_name(setting: Field[Any]) -> str:
    """The long option of a field, as the user types it: `learning_rate` is `--learning-rate`."""
    for flag in setting.metadata["flags"]:
        if flag.startswith("--"):
            return str(flag.split("/")[0])
    return "--" + setting.name.replace("_", "-")


_LARGEST = 2**53 - 1  # what JSON holds exactly
_YES, _NO = ("true", "on", "yes", "1"), ("false", "off", "no", "0")


def parse_value(setting: Field[Any], hint: Any, text: str) -> Any:
    """The value that a text means for a field of this type; raises ValueError with a sentence."""
    kinds = _kinds(hint)
    if type(None) in kinds and text.lower() in ("", "auto", "none"):
        return None
    if hint == tuple[str, ...]:
        return (text,) if text else ()
    if bool in kinds:
        if text.lower() not in _YES + _NO:
            raise ValueError(f"{option_name(setting)}: expected on or off, got {text or 'nothing'}")
        return text.lower() in _YES
    for kind, name in ((int, "a whole number"), (float, "a number")):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                raise ValueError(f"{option_name(setting)}: expected {name}, got {text or 'nothing'}") from None
    return text


def expected(hint: Any) -> str:
    """What a value of this type is, in words."""
    kinds = _kinds(hint)
    if texts := [kind for kind in kinds if isinstance(kind, str)]:
        return f"one of {', '.join(texts)}"
    names = ((bool, "true or false"), (int, "a whole number"), (float, "a number"), (str, "text"))
    return next((name for kind, name in names if kind in kinds), "a list of texts")


def takes_list(hint: Any) -> bool:
    """Whether a value of this type is a list of texts."""
    return any(get_origin(kind) in (list, tuple) for kind in _kinds(hint))


def is_value_of(hint: Any, value: Any) -> bool:
    """Whether a single value, as a file has it, is of this type. Only text may stand for another: `1e-4`, `yes`."""
    kinds = _kinds(hint)
    if isinstance(value, str):
        return str in kinds or value in kinds or _is_text_of(kinds, value)
    return type(value) in kinds or (type(value) is int and float in kinds)


def _is_text_of(kinds: tuple[Any, ...], text: str) -> bool:
    if bool in kinds:
        return text.lower() in _YES + _NO
    for kind in (int, float):
        if kind in kinds:
            try:
                kind(text)
            except ValueError:
                return False
            return True
    return False


def check_limits(settings: Any) -> None:
    """Check each field of a group against its type and limits; raises ValueError with a sentence."""
    hints = get_type_hints(type(settings))
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        kinds = _kinds(hints[setting.name])
        if isinstance(value, str):
            _check_text(setting, value, kinds)
        elif isinstance(value, tuple):
            for part in value:
                _check_text(setting, part, (str,))
        elif isinstance(value, bool) and bool not in kinds:
            raise ValueError(f"{option_name(setting)}: expected {expected(hints[setting.name])}, got {value}")
        elif int in kinds and isinstance(value, float):
            raise ValueError(f"{option_name(setting)}: expected a whole number, got {value:g}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(setting, value)


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a type: those of `X | None`, and the values of a Literal."""
    # `Literal[...] | None` is the older kind of union.
    alternatives = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    return tuple(kind for part in alternatives for kind in (get_args(part) if get_origin(part) is Literal else (part,)))


def _check_text(setting: Field[Any], value: str, kinds: tuple[Any, ...]) -> None:
    if str not in kinds and value not in kinds:
        known = ", ".join(kind for kind in kinds if isinstance(kind, str))
        wanted = f"one of {known}" if known else "a number"
        raise ValueError(f"{option_name(setting)}: expected {wanted}, got {value}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{option_name(setting)}: expected UTF-8 text, got other bytes")


def _check_number(setting: Field[Any], value: float) -> None:
    limits = setting.metadata
    wanted = []
    if limits["at_least"] is not None and not value >= limits["at_least"]:
        wanted.append(f"at least {limits['at_least']}")
    if limits["above"] is not None and not value > limits["above"]:
        wanted.append(f"a number above {limits['above']:g}")
    if not math.isfinite(value):
        wanted.append("a finite number")
    if isinstance(value, int) and abs(value) > _LARGEST:
        wanted.append(f"at most {_LARGEST}")
    if limits["at_most"] is not None and not value <= limits["at_most"]:
        wanted.append(f"at most {limits['at_most']}")
    if wanted:
        raise ValueError(f"{option_name(setting)}: expected {' and '.join(wanted)}, got {value}")
