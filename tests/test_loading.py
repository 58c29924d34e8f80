"""Models from folders and from the Hugging Face hub, through the real loading code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from conftest import TALKS, Convmodel
from convmodel_cli import ConversationTokenizer
from convmodel_cli.events import Started
from convmodel_cli.settings import ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows.fit import FitRequest, fit
from helpers import weights_digest, write_jsonl

REVISION = "0123456789abcdef0123456789abcdef01234567"
CANARY = "hf_CANARYcanaryCANARY"
SEED_IDS = [50256, 15496, 50256, 2437, 389, 345, 50256]


@pytest.fixture
def gpt2_folder(tmp_path: Path) -> Path:
    """A small model with GPT-2's own vocabulary, as transformers saves it."""
    data = os.environ.get("CONVMODEL_TEST_DATA")
    if not data:
        pytest.skip("CONVMODEL_TEST_DATA is not set")
    files = Path(data) / "gpt2-tokenizer"
    folder = tmp_path / "gpt2-small"
    GPT2Tokenizer(str(files / "vocab.json"), str(files / "merges.txt")).save_pretrained(folder)
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, n_positions=64)).save_pretrained(folder)
    return folder


def test_a_base_with_gpt2_own_vocabulary_is_tuned_and_keeps_its_ids(
    convmodel: Convmodel, gpt2_folder: Path, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    outcome = convmodel(
        "fit", data, data, "--base", str(gpt2_folder), "-o", "out", "--epochs", "1", "--batch-size", "2"
    )
    assert outcome.code == 0, outcome.err
    assert (
        ConversationTokenizer.from_pretrained(str(tmp_path / "out"))(["Hello", "How are you"])["input_ids"] == SEED_IDS
    )
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "How are you"}]
    template = AutoTokenizer.from_pretrained(tmp_path / "out").apply_chat_template(messages, return_dict=False)
    assert template == SEED_IDS
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["activation_function"], config["vocab_size"]) == ("gelu_new", 50257)
    assert convmodel("generate", "-m", "out", "Hello").code == 0


def test_a_base_that_is_written_to_leaves_the_run_as_it_is(trained: str, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    digests = []
    for output in ("alone", "disturbed"):
        base = shutil.copytree(trained, tmp_path / f"base-of-{output}")
        request = FitRequest((data,), (data,), str(base), str(tmp_path / output))
        for event in fit(
            request, RunSettings(), TrainingSettings(epochs=1, batch_size=2), ComputeSettings(device="cpu")
        ):
            if output == "disturbed" and isinstance(event, Started):
                file = base / "model.safetensors"
                with file.open("r+b") as written:
                    written.write(bytes(file.stat().st_size))
        digests.append(weights_digest(tmp_path / output))
    assert digests[0] == digests[1]


def run_with_hub(folder: Path, home: Path, *arguments: str, offline: bool) -> subprocess.CompletedProcess[str]:
    """Run the program with a cache of its own and a hub that refuses every connection."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": CANARY}
    environment.pop("HF_HUB_OFFLINE")
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, "-m", "convmodel_cli", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert CANARY not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize("offline", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_model_of_the_hub_comes_from_the_cache_if_the_hub_cannot_be_reached(
    trained: str, tmp_path: Path, offline: bool
) -> None:
    cached = tmp_path / "home" / "hub" / "models--someone--talker"
    shutil.copytree(trained, cached / "snapshots" / REVISION)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(REVISION)
    outcome = run_with_hub(
        tmp_path, tmp_path / "home", "generate", "-m", "someone/talker", "--greedy", "Good night!", offline=offline
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "Sleep well.\n"


def test_a_model_that_is_nowhere_names_model_cache_and_remedies(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    home = tmp_path / "home"
    outcome = run_with_hub(tmp_path, home, "fit", data, "--base", "gpt2", "-o", "out", offline=False)
    assert outcome.returncode == 4
    for part in ("gpt2", "hub cannot be reached", str(home / "hub"), "./folder", "--base new-tiny"):
        assert part in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_token_is_not_shown_by_debug_either(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    outcome = run_with_hub(tmp_path, tmp_path / "home", "eval", data, "-m", "gpt2", "--debug", offline=False)
    assert outcome.returncode == 4
