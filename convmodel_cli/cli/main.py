"""One command from start to exit code: what goes wrong becomes a sentence on stderr."""

from __future__ import annotations

import io
import os
import shlex
import sys
import traceback
from itertools import pairwise
from typing import Any

import typer

from convmodel_cli.cli.app import app
from convmodel_cli.cli.display import Screen
from convmodel_cli.errors import BUG_EXIT_CODE, ConvmodelError, StorageError, UsageError
from convmodel_cli.escaping import escaped
from convmodel_cli.knobs import expected
from convmodel_cli.settings import ScreenSettings
from convmodel_cli.signals import EXIT_CODES


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code. Every error a user can cause is a sentence on stderr."""
    if sys.stdout is None or not sys.stdout.isatty():
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"  # no escape codes in help on a pipe, whatever the environment
    try:
        code = app(arguments, standalone_mode=False, prog_name="convmodel")
        _flush()
    except ConvmodelError as error:
        return _fail(error, arguments)
    except _TyperUsageError as error:
        return _fail(_from_typer(error), arguments) if arguments else UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_CODES["SIGINT"]
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # typer's answer to a reader that left early
            return 0
        return leaving.code if isinstance(leaving.code, int) else BUG_EXIT_CODE  # a signal's
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(StorageError(f"{error.filename or 'the output'}: {error.strerror or error}"), arguments)
    except Exception as error:
        return _fail_internally(error, arguments)
    return code if isinstance(code, int) else 0


# Every usage error of typer is of this kind, wherever the version at hand keeps it.
_TyperUsageError: Any = typer.BadParameter.__base__


_OF_FIT = "CONVMODEL_FIT_"
_FP16 = "fp16 overflows without scaling the loss; bf16 is as small and as fast, and has the range of fp32"


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _from_typer(error: Any) -> UsageError:
    context = error.ctx
    command = context.command_path if context is not None else "convmodel"
    message = _of_pydantic(error) or error.format_message()
    return UsageError(message, _FP16 if "fp16" in message else f"see: {command} --help")


# Newer versions of typer have pydantic read these, whose messages leave out the value.
_PARSED = {"int_parsing": int, "float_parsing": float, "bool_parsing": bool}


def _of_pydantic(error: Any) -> str | None:
    reason: Any = error.__cause__
    if not isinstance(error, typer.BadParameter) or error.param is None or not hasattr(reason, "errors"):
        return None
    first = reason.errors()[0]
    option = max(error.param.opts, key=len)
    if first["type"] in _PARSED:
        return f"{option}: expected {expected(_PARSED[first['type']])}, got {first['input'] or 'nothing'}"
    return f"{option}: {first['msg'].removeprefix('Value error, ')}"


def _fail(error: ConvmodelError, arguments: list[str]) -> int:
    if sys.stderr is None:
        return error.exit_code
    screen = Screen(_screen_settings(arguments))
    screen.error(error)
    if error.resumable:
        screen.advise("go on with", _resume_command(arguments))
    return error.exit_code


def _resume_command(arguments: list[str]) -> str:
    words = [word for word in arguments if word not in ("--overwrite", "--resume")]
    said = [f"{name}={shlex.quote(value)}" for name, value in sorted(os.environ.items()) if name.startswith(_OF_FIT)]
    again = ["<", "THE-SAME-DATA"] if "-" in words else []
    return " ".join([*said, shlex.join(["convmodel", *words, "--resume"]), *again])


def _screen_settings(arguments: list[str]) -> ScreenSettings:
    """What the user said about output, read from a command line that could not be followed."""
    words = " ".join(arguments).replace("=", " ").split()
    colors = [after for word, after in pairwise(words) if word == "--color" and after in ("always", "never")]
    color: Any = colors[-1] if colors else "auto"
    return ScreenSettings(verbose="-v" in words or "--verbose" in words, color=color)


def _fail_internally(error: Exception, arguments: list[str]) -> int:
    if "--debug" in arguments and sys.stderr is not None:
        sys.stderr.write(escaped("".join(traceback.format_exception(error))))
    reason = str(error).strip().split("\n")[0]
    message = f"internal error: {type(error).__name__}: {reason}"
    return _fail(ConvmodelError(message, "this is a bug of convmodel; --debug shows where"), arguments) or BUG_EXIT_CODE


def main() -> None:
    """Run the command line of this process. Whatever the locale, text goes out as UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
