"""What the documents say is true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from convmodel_cli.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The arguments of every `convmodel ...` in the README's code."""
    code = re.findall(r"```\n(.*?)```", README, re.DOTALL) + re.findall(r"`([^`\n]+)`", README)
    found = []
    for line in "\n".join(code).splitlines():
        for part in re.split(r"&&|\||\$\(|\)", line):
            words = part.strip()
            if words == "convmodel" or words.startswith("convmodel "):
                found.append(shlex.split(words)[1:])
    return found


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_command_of_the_readme_is_understood(arguments: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    if not arguments or arguments[0].startswith("-"):
        return
    command = group.commands[arguments[0]]
    context = command.make_context(arguments[0], arguments[1:])
    assert context.params


def test_the_readme_holds_enough_commands_to_test() -> None:
    names = {arguments[0] for arguments in commands() if arguments}
    assert names == {"fit", "eval", "generate", "chat"}
    assert len(commands()) > 15


def test_the_two_commands_stand_in_the_readme() -> None:
    assert "\npip install . && convmodel fit && convmodel chat\n" in README
    assert "\npip install -e '.[dev]' && pytest\n" in README


def test_the_readme_opens_with_a_sentence_and_a_transcript() -> None:
    title, sentence, block = README.split("\n\n")[:3]
    assert title == "# convmodel"
    assert sentence.endswith(".") and "\n" not in sentence
    speakers = [line.split("> ")[0] for line in block.strip("`\n").splitlines()]
    assert speakers == ["you", "bot"] * (len(speakers) // 2) and len(speakers) >= 6


def test_the_map_names_every_module_and_no_other() -> None:
    package = ROOT / "convmodel_cli"
    here = {str(path.relative_to(package)) for path in package.rglob("*.py") if not path.name.startswith("__")}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE))
    assert named == here


def test_the_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    from convmodel_cli import errors, signals

    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    raised = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ConvmodelError)
    }
    assert codes == {0, *signals.EXIT_CODES.values()} | raised


def test_no_page_has_a_figure_that_is_still_to_be_filled_in() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]:
        assert not re.findall(r"@\w+@|\bTODO\b", page.read_text(encoding="utf-8")), page
