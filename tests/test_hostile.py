"""Text that is not ours is shown and never obeyed, wherever it comes from, on a terminal and on a pipe."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import AddedToken
from transformers import GPT2Config, GPT2LMHeadModel

from convmodel_cli.model.new import train_tokenizer
from harness import Server
from helpers import write_jsonl
from hostile import OURS, OURS_IN_CHAT, PARTS, Stage, hostile, raw_in, shown

DATA = f"{hostile('file name')}\udc9b.jsonl"  # the last is a byte 0x9b, which is no UTF-8
BASE = f"./base {hostile('model folder')}"
AGAIN = ("--resume", "--allow-changes", "--keep-checkpoints")
PLAN = ["--base", BASE, "-o", "none", "--dry-run"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good and bad data and a model that answers everything with hostile text."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / DATA).parent.mkdir(parents=True)
    write_jsonl(folder / DATA, [[hostile("data line"), "b"]] * 2)
    write_jsonl(folder / "tokens.jsonl", [[hostile("token"), "b"]])
    write_jsonl(folder / "bad.jsonl", [["a", "b"], {hostile("error excerpt"): 1}])
    tokenizer = train_tokenizer(iter(["a b"]), 300)
    tokenizer.add_tokens([AddedToken(hostile(token), normalized=False) for token in ("response", "token")])
    sep, response = int(tokenizer.eos_token_id), tokenizer.convert_tokens_to_ids(hostile("response"))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=512, n_layer=1, n_embd=8, n_head=1, tie_word_embeddings=False,
        bos_token_id=sep, eos_token_id=sep, pad_token_id=sep,
    )  # fmt: skip
    network = GPT2LMHeadModel(config)
    with torch.no_grad():  # after a sep comes the response, and after that a sep
        for parameter in network.parameters():
            parameter.zero_()
        network.transformer.ln_f.weight.fill_(1)
        for dimension, (token, answer) in enumerate([(sep, response), (response, sep)]):
            network.transformer.wte.weight[token, dimension] = 1
            network.lm_head.weight[answer, dimension] = 9
    network.save_pretrained(folder / BASE)
    tokenizer.save_pretrained(folder / BASE)
    return folder


@pytest.fixture(scope="module", params=["terminal", "pipe"])
def stage(request: pytest.FixtureRequest, server: Server, place: Path) -> Stage:
    return Stage(server, place, request.param)


@pytest.fixture(scope="module")
def model(stage: Stage) -> str:
    return f"./{stage.way} {hostile('model folder')}"


@pytest.fixture(scope="module")
def fitted(stage: Stage, model: str) -> str:
    """What `fit` writes while it makes the model, as it leaves the program."""
    options = ["--valid", DATA, "--train", "bad.jsonl", "--skip-bad", "--max-steps", "2", "--eval-every", "1", "-v"]
    return stage.output("fit", DATA, "--base", BASE, "-o", model, "--keep-checkpoints", *options)


def from_json(text: str) -> Any:
    return json.loads(next(line for line in text.split("\n") if line.startswith("{")))


@pytest.mark.parametrize("part", [part for part, look in PARTS.items() if part != look], ids=ascii)
def test_no_hostile_code_passes_for_one_of_ours(part: str) -> None:
    assert raw_in(f"a{part} ", OURS) and raw_in(f"a{part} ", OURS_IN_CHAT)


def test_a_response_is_written_out(stage: Stage, model: str, fitted: str) -> None:
    assert f"→ {shown('response')}" in fitted
    assert stage.run("generate", "-m", model, "a", "--greedy") == shown("response") + "\n"
    said = stage.chat(model, "a")
    if stage.way == "pipe":
        assert from_json(said)["responses"][0]["text"] == hostile("response")
        assert stage.run("chat", "-m", model, "--greedy", stdin="a\n") == shown("response") + "\n"
    else:
        assert f"bot> {shown('response')}\n" in said


def test_what_is_typed_or_piped_in_is_written_out(stage: Stage, model: str, fitted: str) -> None:
    said = stage.chat(model, hostile("prompt"))
    if stage.way == "pipe":
        assert from_json(said)["context"] == [hostile("prompt")]
    else:  # the carriage return in what is pasted is a new line
        assert all(part in said for part in shown("prompt").split("\\x0d"))
        saved = (stage.folder / "saved.jsonl").read_text(encoding="utf-8")
        assert not raw_in(saved)
        assert json.loads(saved.splitlines()[-1]) == [hostile("prompt").replace("\r", "\n"), hostile("response")]
    assert not raw_in((stage.folder / "transcript.txt").read_text(encoding="utf-8"))
    assert from_json(stage.run("generate", "-m", model, hostile("prompt"), "--json"))["context"] == [hostile("prompt")]


def test_a_line_of_the_data_is_written_out(stage: Stage, fitted: str) -> None:
    assert f"{shown('data line')} → " in fitted
    bytes_of_it = "d a t a · l i n e · \\x1b [ 3 1 m · \\x1b ] 0 ; t i t l e \\x07 ·"
    assert bytes_of_it in stage.run("fit", DATA, *PLAN)


def test_the_name_of_a_file_is_written_out(stage: Stage, model: str, fitted: str) -> None:
    name = f"{shown('file name')}\\udc9b.jsonl"
    assert f"{name}:2 is {name}:1" in fitted
    assert f"data          {name}\n" in stage.run("eval", DATA, "-m", model)
    assert f"error: {shown('no file')}: no such file" in stage.run("fit", hostile("no file"), code=2)


def test_the_name_of_a_model_folder_is_written_out(stage: Stage, model: str, fitted: str) -> None:
    name = f"{stage.way} {shown('model folder')}"
    assert f"training ./base {shown('model folder')} (" in fitted
    assert f"saved the weights of step 1 in {name}" in fitted
    assert f"next: convmodel chat --model '{name}'" in fitted
    assert name in fitted.replace("\r\n", "\n").split("\n")
    assert f"model         ./{name}\n" in stage.run("eval", DATA, "-m", model)
    missing = stage.run("generate", "a", "-m", f"./{hostile('no folder')}", code=4)
    assert f"error: ./{shown('no folder')}: expected a model folder" in missing
    assert not raw_in((stage.folder / model / "README.md").read_text(encoding="utf-8"))


def test_a_token_of_the_vocabulary_is_written_out(stage: Stage) -> None:
    assert shown("token").replace(" ", "·") in stage.run("fit", "tokens.jsonl", *PLAN)


def test_what_an_error_cites_is_written_out(stage: Stage, model: str, fitted: str) -> None:
    cited = f'got an object with "{shown("error excerpt")}"'
    assert cited in fitted
    assert cited in stage.run("fit", "bad.jsonl", code=3)
    assert cited in stage.run("generate", "-m", model, "-i", "bad.jsonl", code=3)


def test_the_message_of_an_exception_is_written_out(stage: Stage) -> None:
    damaged = stage.folder / f"damaged {stage.way}"
    shutil.copytree(stage.folder / BASE, damaged)
    (damaged / "config.json").write_text(json.dumps({"model_type": hostile("config")}))
    assert f"`{shown('config')}`" in stage.run("generate", "a", "-m", str(damaged), code=4)
    bug = {"fail_at": "convmodel_cli.workflows.fit:read_fit_data", "fail_with": hostile("bug")}
    said = f"RuntimeError: {shown('bug')}\n"
    assert stage.run("fit", code=1, **bug).count(said) == 1
    assert stage.run("fit", "--debug", code=1, **bug).count(said) == 2


def test_nothing_but_the_bar_moves_the_cursor_while_a_run_goes(stage: Stage, fitted: str) -> None:
    assert not raw_in(fitted, stage.ours)
    if stage.way == "pipe":
        assert "━" not in fitted and "tok/s ·" not in fitted
        return
    drawn = fitted[fitted.index("\x1b[?25l") : fitted.rindex("\x1b[?25h")]
    assert "━" in drawn and "tok/s ·" in drawn
    assert all(shown(source) in drawn for source in ("data line", "response", "model folder"))


def test_a_report_shows_it_as_text(stage: Stage, model: str, fitted: str) -> None:
    page = (stage.folder / model / "report.html").read_text(encoding="utf-8")
    assert not raw_in(page)
    assert "<script" not in page
    words = html.unescape(page)
    assert all(shown(source) in words for source in ("data line", "response", "model folder", "file name"))


def test_json_means_the_text_and_holds_nothing_raw(stage: Stage, model: str, fitted: str) -> None:
    answered = from_json(stage.run("generate", "-m", model, hostile("prompt"), "--greedy", "--json"))
    assert answered["responses"][0]["text"] == hostile("response")
    measured = from_json(stage.run("eval", DATA, "-m", model, "--json"))
    assert measured["model"] == model and measured["data"].startswith(hostile("file name"))
    assert from_json(stage.run("fit", *AGAIN, "-o", model, "--json"))["model"] == model[2:]
    planned = from_json(stage.run("fit", "tokens.jsonl", *PLAN, "--json"))
    assert hostile("token") in [token["text"] for token in planned["first"]]


def test_a_journal_means_the_text_and_holds_nothing_raw(stage: Stage, model: str, fitted: str) -> None:
    folder = stage.folder / model
    written = [*folder.glob("*.jsonl"), *folder.glob("checkpoints/*/*.json"), folder / "convmodel.json"]
    assert len(written) == 6  # of two checkpoints
    assert not [path.name for path in written if raw_in(path.read_text(encoding="utf-8"))]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]
    sampled = [(event["context"], event["response"]) for event in events if event["event"] == "Sampled"]
    assert sampled == [([hostile("data line")], hostile("response"))] * 3
    assert json.loads((folder / "convmodel.json").read_bytes())["base"] == BASE


def test_what_a_config_file_says_is_written_out(stage: Stage) -> None:
    (stage.folder / "hostile.json").write_text(json.dumps({"output": hostile("config")}))
    printed = stage.run("fit", "--config", "hostile.json", "--print-config")
    assert yaml.safe_load(printed)["output"] == hostile("config")
    assert "Folder for the model." in stage.run("fit", "--config", "hostile.json", "--help")


def test_a_name_that_is_no_text_is_refused_where_it_would_be_written(stage: Stage) -> None:
    assert "train: expected UTF-8 text, got other bytes" in stage.run("fit", DATA, "--print-config", code=2)
    assert "--output: expected UTF-8 text, got other bytes" in stage.run("fit", DATA, "-o", "\udc9b", code=2)
