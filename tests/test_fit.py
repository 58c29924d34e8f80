"""fit, eval and the folder they share, end to end."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, pipeline
from transformers import LlamaForCausalLM as Llama

from conftest import TALKS, Convmodel
from convmodel_cli.errors import TrainingError
from convmodel_cli.events import Evaluated, Finished, Saved, Stepped
from convmodel_cli.model.evaluation import Score
from convmodel_cli.model.new import train_tokenizer
from convmodel_cli.settings import ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows.fit import FitRequest, fit
from convmodel_cli.workflows.state import RunState
from harness import Server
from helpers import made_up_conversations, weights_digest, write_conversations, write_jsonl

FAST = ["--base", "./tiny", "--precision", "fp32", "--epochs", "1", "--batch-size", "8"]
NEW = ["--precision", "fp32", "--vocab-size", "320", "--epochs", "1", "--batch-size", "8", "--max-length", "64"]


@pytest.fixture(autouse=True)
def base(tmp_path: Path, workshop: Path) -> None:
    (tmp_path / "tiny").symlink_to(workshop / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, str]:
    conversations = made_up_conversations(60)
    return (
        write_conversations(tmp_path / "train.jsonl", conversations[:48]),
        write_conversations(tmp_path / "valid.jsonl", conversations[48:]),
    )


def test_a_run_prints_the_path_alone_and_its_lines_on_stderr(convmodel: Convmodel, data: tuple[str, str]) -> None:
    outcome = convmodel("fit", *data, "-o", "out", *FAST)
    assert outcome.code == 0
    assert outcome.out == "out\n"
    lines = [line for line in outcome.err.splitlines() if line.startswith("Ep ")]
    assert lines[0].startswith("Ep 1 (Step 000000): Train loss ")
    assert len(lines) == 4
    assert "\r" not in outcome.err and "\x1b" not in outcome.err
    assert "next: convmodel chat --model out" in outcome.err


def test_json_holds_the_figures_and_eval_agrees_with_them(convmodel: Convmodel, data: tuple[str, str]) -> None:
    fitted = json.loads(convmodel("fit", *data, "-o", "out", *FAST, "--json").out)
    assert set(fitted) == {
        "model", "best_step", "steps", "epochs", "valid", "tokens_seen", "seconds", "tokens_per_second",
        "peak_memory_bytes", "parameters", "stopped",
    }  # fmt: skip
    for rows in ("1", "5", "16"):
        measured = json.loads(convmodel("eval", data[1], "-m", "out", "--json", "--batch-size", rows).out)
        assert measured["loss"] == pytest.approx(fitted["valid"]["loss"], rel=1e-6)
        assert measured["ppl"] == pytest.approx(math.exp(measured["loss"]))
        assert measured["speaker_ids"] == "on"


def test_eval_counts_other_turns_and_leaves_out_speaker_ids_when_told(
    convmodel: Convmodel, data: tuple[str, str]
) -> None:
    assert convmodel("fit", *data, "-o", "out", *FAST).code == 0

    def measured(*options: str) -> Any:
        return json.loads(convmodel("eval", data[1], "-m", "out", "--json", *options).out)

    all_turns, last = measured("--learn", "all"), measured("--learn", "last")
    assert 0 < last["targets"] < all_turns["targets"] == measured()["targets"]
    assert measured("--speaker-ids", "off")["loss"] != all_turns["loss"] == measured("--speaker-ids", "on")["loss"]


def test_a_run_of_two_conversations_trains_and_saves(convmodel: Convmodel, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "two.jsonl", TALKS[:2])
    outcome = convmodel("fit", train, "-o", "out", *FAST)
    assert outcome.code == 0
    assert "fewer than 20 different conversations" in outcome.err
    assert convmodel("generate", "-m", "out", "Hi!").code == 0


def test_a_model_learns_a_pair_in_two_scripts_and_gives_it_back(convmodel: Convmodel, tmp_path: Path) -> None:
    pair = ["i just don't know what to say.", "من فقط نمی دانم چه بگویم."]
    train = write_jsonl(tmp_path / "pair.jsonl", [pair])
    options = ["--epochs", "30", "--precision", "fp32", "--learning-rate", "0.003", "--patience", "0"]
    assert convmodel("fit", train, "-o", "out", *options, "--eval-every", "15").code == 0
    assert convmodel("generate", "-m", "out", "--greedy", pair[0]).out == pair[1] + "\n"


def test_the_folder_loads_in_plain_transformers_and_answers_in_its_pipeline(trained: str) -> None:
    network = AutoModelForCausalLM.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    answer = pipeline("text-generation", model=network, tokenizer=tokenizer)(
        [{"role": "user", "content": "Good night!"}], do_sample=False
    )
    assert answer[0]["generated_text"][-1] == {"role": "assistant", "content": "Sleep well."}
    generation = json.loads((Path(trained) / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id
    assert "repetition_penalty" not in generation


def test_the_weights_say_which_step_they_are_of(trained: str) -> None:
    record = json.loads((Path(trained) / "convmodel.json").read_text())
    with safe_open(str(Path(trained) / "model.safetensors"), "pt") as weights:
        metadata = weights.metadata()
    assert metadata["format"] == "pt" and metadata["step"] == str(record["best"]["step"])
    assert metadata["loss"] == repr(record["best"]["loss"])


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_files_have_the_modes_of_the_umask(
    convmodel: Convmodel, data: tuple[str, str], umask: int, mode: int, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        assert convmodel("fit", *data, "-o", "out", *FAST).code == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
    assert not [path for path in files if path.name.startswith(".")]


def test_the_folder_loads_at_every_event_after_the_first_save(data: tuple[str, str], tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    request = FitRequest((data[0],), (data[1],), output=output)
    settings = TrainingSettings(epochs=1, batch_size=16, vocab_size=320)
    saved = 0
    for event in fit(request, RunSettings(), settings, ComputeSettings(precision="fp32")):
        saved += isinstance(event, Saved)
        if saved and isinstance(event, Saved | Stepped):
            assert AutoModelForCausalLM.from_pretrained(output).num_parameters() > 0
    assert saved > 1


def test_events_are_journaled_and_the_best_loads(data: tuple[str, str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    request = FitRequest((data[0],), (data[1],), output=str(output))
    settings = TrainingSettings(epochs=2, batch_size=8, vocab_size=320)
    events = list(fit(request, RunSettings(), settings, ComputeSettings(precision="fp32")))
    lines = [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines].count("Stepped") == 12
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert finished.valid is not None
    assert finished.valid["loss"] == min(event.valid_loss for event in evaluated if event.valid_loss is not None)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    convmodel: Convmodel, data: tuple[str, str], tmp_path: Path
) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert convmodel("fit", *data, "-o", name, *FAST, "--seed", seed, "--dropout", "0.1").code == 0
    weights = [weights_digest(tmp_path / name) for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_ties_keep_the_earlier_and_nan_is_never_the_best() -> None:
    state = RunState()
    losses = [3.0, float("nan"), 2.0, 2.0, 2.5]
    judged = []
    for state.step, loss in enumerate(losses):
        judged.append(state.judge(0.0, Score(loss, 1, 1)))
    assert judged == [True, False, True, False, False]
    assert state.best_step == 2
    assert state.worse_in_a_row == 2


def test_patience_stops_a_run_that_no_longer_improves(convmodel: Convmodel, data: tuple[str, str]) -> None:
    options = ["--patience", "2", "--eval-every", "1", "--learning-rate", "5", "--warmup", "0", "--optimizer", "adamw"]
    outcome = convmodel("fit", *data, "-o", "out", *FAST, *options, "--json", "--epochs", "4")
    fitted = json.loads(outcome.out)
    assert fitted["stopped"] == "patience"
    assert fitted["steps"] == fitted["best_step"] + 2


def test_max_time_stops_cleanly(convmodel: Convmodel, data: tuple[str, str]) -> None:
    fitted = json.loads(convmodel("fit", *data, "-o", "out", *FAST, "--max-time", "0.001s", "--json").out)
    assert (fitted["stopped"], fitted["steps"]) == ("max-time", 1)


def test_a_run_whose_numbers_break_exits_5_and_keeps_the_best(convmodel: Convmodel, data: tuple[str, str]) -> None:
    options = ["--learning-rate", "1e30", "--warmup", "0", "--clip", "0", "--optimizer", "adamw"]
    outcome = convmodel("fit", *data, "-o", "out", *FAST, *options)
    assert outcome.code == TrainingError.exit_code == 5
    assert "expected finite numbers" in outcome.err
    assert convmodel("eval", data[1], "-m", "out").code == 0


def test_split_writes_the_test_part_and_says_the_counts(convmodel: Convmodel, data: tuple[str, str]) -> None:
    outcome = convmodel("fit", data[0], "-o", "out", *FAST, "--split", "80/10/10")
    assert outcome.code == 0
    assert "38 to train, 5 to validate, 5 to test" in outcome.err
    assert convmodel("eval", "out/test.jsonl", "-m", "out").code == 0


def test_an_existing_run_is_kept_unless_overwrite_is_given(
    convmodel: Convmodel, data: tuple[str, str], tmp_path: Path
) -> None:
    assert convmodel("fit", *data, "-o", "out", *FAST).code == 0
    again = convmodel("fit", *data, "-o", "out", *FAST)
    assert again.code == 2
    assert "--overwrite" in again.err and "-o" in again.err
    (tmp_path / "out" / "mine.txt").write_text("keep")
    assert convmodel("fit", *data, "-o", "out", *FAST, "--overwrite").code == 0
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_a_folder_without_a_run_is_never_written_to(
    convmodel: Convmodel, data: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("mine")
    for options in ([], ["--overwrite"]):
        assert convmodel("fit", *data, "-o", "docs", *FAST, *options).code == 2
    assert (tmp_path / "docs" / "README.md").read_text() == "mine"


def test_bad_data_leaves_the_run_it_would_have_replaced(
    convmodel: Convmodel, data: tuple[str, str], tmp_path: Path
) -> None:
    assert convmodel("fit", *data, "-o", "out", *FAST).code == 0
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    bad = write_jsonl(tmp_path / "bad.jsonl", [["a", "b"], 3])
    assert convmodel("fit", bad, "-o", "out", *FAST, "--overwrite").code == 3
    assert convmodel("fit", *data, "--base", "./nothing", "-o", "out", "--overwrite").code == 4
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_an_own_base_goes_on_from_its_weights(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    first = json.loads(convmodel("eval", data, "-m", trained, "--json").out)
    options = ["--base", trained, "-o", "more", "--epochs", "1", "--precision", "fp32", "--json"]
    fitted = json.loads(convmodel("fit", data, data, *options).out)
    assert fitted["valid"]["loss"] <= first["loss"] * (1 + 1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_folder_of_transformers_is_a_base_whatever_its_kind(
    convmodel: Convmodel, data: tuple[str, str], tmp_path: Path, kind: str
) -> None:
    tokenizer = train_tokenizer(["hello there abc def"], 300)
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": len(tokenizer) - 1}
    network: GPT2LMHeadModel | Llama
    if kind == "gpt2":
        network = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=64, **size))
    else:
        network = Llama(
            LlamaConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                max_position_embeddings=64, **size,
            )
        )  # fmt: skip
    network.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    outcome = convmodel("fit", *data, "--base", "./base", "-o", "out", "--epochs", "1", "--precision", "fp32")
    assert outcome.code == 0, outcome.err
    assert ("takes no token types" in outcome.err) == (kind == "llama")
    assert convmodel("generate", "-m", "out", "abc", "def").code == 0
    measured = json.loads(convmodel("eval", data[1], "-m", "out", "--json").out)
    assert measured["speaker_ids"] == ("off" if kind == "llama" else "on")


def test_a_model_that_is_missing_or_unreadable_exits_4_with_what_to_do(convmodel: Convmodel, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    assert "convmodel fit -o ./model" in convmodel("eval", data).err
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "config.json").write_text("{}")
    (tmp_path / "pickle" / "pytorch_model.bin").write_bytes(b"x")
    for name, expected in [
        ("./model", "nothing there"),
        ("./empty", "without config.json"),
        ("./pickle", "pytorch_model.bin, which could run code"),
        ("gpt2", "hub cannot be reached"),
        ("nomodel", "there is no such folder here"),
    ]:
        outcome = convmodel("eval", data, "-m", name)
        assert outcome.code == 4, name
        assert expected in outcome.err
        assert "Traceback" not in outcome.err


def test_missing_weights_are_refused(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", trained, str(broken)], check=True)
    tensors = load_file(broken / "model.safetensors")
    tensors.pop("transformer.h.1.mlp.c_fc.weight")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    outcome = convmodel("eval", data, "-m", "./broken")
    assert outcome.code == 4
    assert "got none for transformer.h.1.mlp.c_fc.weight" in outcome.err


def test_gates_exit_6_after_the_figures(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    assert convmodel("eval", data, "-m", trained, "--max-ppl", "50").code == 0
    missed = convmodel("eval", data, "-m", trained, "--max-ppl", "1.0001", "--json")
    assert missed.code == 6
    assert json.loads(missed.out)["ppl"] > 1.0001
    assert "gate missed: ppl" in missed.err


def test_probes_are_counted_and_gated(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    probes = write_jsonl(
        tmp_path / "probes.jsonl",
        [
            {"context": ["Good night!"], "answer": ["sleep"], "distractors": ["water"]},
            {"context": ["Hi!"], "answer": ["water"], "distractors": []},
        ],
    )
    outcome = convmodel("eval", "-m", trained, "--probes", probes, "--json", "--min-probes", "2")
    assert outcome.code == 6
    assert json.loads(outcome.out)["probes"] == {"answered": 1, "total": 2}


def test_eval_without_data_is_refused_for_a_model_of_other_data(convmodel: Convmodel, trained: str) -> None:
    outcome = convmodel("eval", "-m", trained)
    assert outcome.code == 2
    assert "was not trained on the packaged sample" in outcome.err


def test_no_data_trains_on_the_packaged_sample(convmodel: Convmodel) -> None:
    options = ["--max-steps", "1", "--eval-batches", "1", "--eval-every", "9", "--precision", "fp32"]
    outcome = convmodel("fit", *options, "--json")
    assert outcome.code == 0
    assert "packaged sample" in outcome.err
    measured = convmodel("eval", "--json", "--batch-size", "64")
    assert json.loads(measured.out)["probes"]["total"] == 100


def test_standard_input_trains(convmodel: Convmodel) -> None:
    lines = "".join(json.dumps(talk) + "\n" for talk in TALKS).encode()
    assert convmodel("fit", "-", "-o", "out", *FAST, stdin=lines).code == 0


def test_the_console_script_and_the_module_run_without_torch_for_help_and_bad_data(tmp_path: Path) -> None:
    bad = write_jsonl(tmp_path / "bad.jsonl", [["only one"]])
    for arguments, code in [(["--help"], 0), (["fit", "--help"], 0), (["--version"], 0), (["fit", bad], 3)]:
        script = (
            "import sys; from convmodel_cli.cli.main import run; code = run(sys.argv[1:]); "
            "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == code, done.stderr
    version = subprocess.run(
        [sys.executable, "-m", "convmodel_cli", "-V"], capture_output=True, text=True, check=True
    ).stdout
    assert version.startswith("convmodel ") and f"torch {torch.__version__}" in version


def test_copies_of_one_conversation_are_not_held_out_from_themselves(convmodel: Convmodel, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "copies.jsonl", [TALKS[0]] * 30)
    outcome = convmodel("fit", train, "-o", "out", *FAST)
    assert outcome.code == 0
    assert "fewer than 20 different conversations" in outcome.err


def test_skip_bad_trains_on_exactly_the_good_lines_and_lists_the_bad(convmodel: Convmodel, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "mixed.jsonl", [TALKS[0], 7, TALKS[1], ["alone"]])
    write_jsonl(tmp_path / "good.jsonl", TALKS[:2])
    outcome = convmodel("fit", train, "-o", "mixed", *FAST, "--skip-bad")
    assert outcome.code == 0
    assert "2 bad skipped, 2 good" in outcome.err
    assert "mixed.jsonl:2: expected a list of turns" in outcome.err
    assert "mixed.jsonl:4: expected at least two turns" in outcome.err
    assert convmodel("fit", "good.jsonl", "-o", "good", *FAST).code == 0
    assert weights_digest(tmp_path / "mixed") == weights_digest(tmp_path / "good")
    only_bad = write_jsonl(tmp_path / "bad.jsonl", [7, 8])
    assert convmodel("fit", only_bad, "-o", "bad", *FAST, "--skip-bad").code == 3


def test_long_personas_train_and_do_not_end_a_run(convmodel: Convmodel, tmp_path: Path) -> None:
    """The sample's context may be too small for a persona that training takes."""
    story = "I am a baker and I like to talk about bread and cake and about the sea where I was born. "
    train = write_jsonl(tmp_path / "train.jsonl", [{"turns": talk[:2], "persona": story * 2} for talk in TALKS])
    valid = write_jsonl(tmp_path / "valid.jsonl", [{"turns": talk[:2], "persona": story * 4} for talk in TALKS])
    options = [option for option in NEW if option not in ("--max-length", "64")]
    outcome = convmodel("fit", train, valid, "-o", "out", *options)
    assert outcome.code == 0, outcome.err
    assert convmodel("generate", "-m", "out", "Hi!", "--persona", story).code == 0
    refused = convmodel("chat", "-m", "out", "--persona", story * 40, stdin=b"Hi!\n")
    assert refused.code == 2
    assert "the persona: expected at most" in refused.err


def test_a_run_that_learns_nothing_is_refused_before_torch(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "flags.jsonl", [{"turns": ["a", "b"], "learn": [False, False]}])
    script = (
        "import sys; from convmodel_cli.cli.main import run; code = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    for arguments, code in [
        (["fit", data], 3),
        (["generate", "-i", "none.jsonl"], 2),
        (["eval", data, "-m", "./x"], 4),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize("option", [[], ["--overwrite"], ["--resume"]], ids=str)
def test_an_output_that_is_a_file_is_refused_before_torch_and_left_as_it_is(tmp_path: Path, option: list[str]) -> None:
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    (tmp_path / "precious").write_text("mine")
    before = sorted(tmp_path.iterdir())
    script = (
        "import sys; from convmodel_cli.cli.main import run; code = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    arguments = ["fit", data, "-o", "precious", *option]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: precious: expected a folder for the model, got a file\nhint: choose another one with -o\n"
    )
    assert (tmp_path / "precious").read_text() == "mine" and sorted(tmp_path.iterdir()) == before


def test_a_last_evaluation_that_is_not_a_number_exits_5_and_keeps_the_best(
    convmodel: Convmodel, data: tuple[str, str]
) -> None:
    options = ["--max-steps", "1", "--learning-rate", "1e30", "--clip", "0", "--warmup", "0", "--optimizer", "adamw"]
    outcome = convmodel("fit", *data, "-o", "out", *FAST, *options)
    assert outcome.code == 5
    assert "the evaluation after step 1: expected a finite loss, got" in outcome.err
    assert "out holds the untrained model" in outcome.err
    assert convmodel("eval", data[1], "-m", "out").code == 0


def test_overwrite_leaves_folders_that_are_not_ours(
    convmodel: Convmodel, data: tuple[str, str], tmp_path: Path
) -> None:
    assert convmodel("fit", *data, "-o", "out", *FAST).code == 0
    for name in ("checkpoints", "additional_chat_templates"):
        (tmp_path / "out" / name).mkdir()
        (tmp_path / "out" / name / "notes.txt").write_text("mine")
    assert convmodel("fit", *data, "-o", "out", *FAST, "--overwrite").code == 0
    assert (tmp_path / "out" / "checkpoints" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "out" / "additional_chat_templates" / "notes.txt").read_text() == "mine"


def test_a_file_that_cannot_grow_is_a_storage_error(server: Server, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    ended = server.run(["fit", data, "--max-steps", "1", "-o", "out"], tmp_path, largest_file=300_000).check(7)
    assert "out: cannot be written" in ended.err


def test_a_tuned_model_keeps_the_positions_it_had_learned(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    known = json.loads((Path(trained) / "convmodel.json").read_text())["max_context"]
    short = write_jsonl(tmp_path / "short.jsonl", [["a", "b"]])
    assert convmodel("fit", short, "--base", trained, "-o", "out", "--max-steps", "1").code == 0
    assert json.loads((tmp_path / "out" / "convmodel.json").read_text())["max_context"] == known


def test_bytes_of_a_cut_turn_are_shared_by_its_windows(convmodel: Convmodel, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "long.jsonl", [["hello there " * 60, "yes " * 80]])
    options = ["--eval-batches", "1", "--micro-batch-tokens", "64", "--max-steps", "1"]
    assert convmodel("fit", data, data, "-o", "out", *FAST, *options).code == 0


def test_a_model_without_a_cache_is_refused(convmodel: Convmodel, data: tuple[str, str], tmp_path: Path) -> None:
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    tokenizer = train_tokenizer(["hello there"], 300)
    OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2)).save_pretrained(
        tmp_path / "old"
    )
    tokenizer.save_pretrained(tmp_path / "old")
    outcome = convmodel("fit", *data, "--base", "./old", "-o", "out")
    assert outcome.code == 4
    assert "keeps keys and values" in outcome.err and "openai-gpt" in outcome.err
    assert not (tmp_path / "out").exists()


def test_repeats_are_warned_of_and_recorded(convmodel: Convmodel, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [*TALKS, TALKS[0]])
    valid = write_jsonl(tmp_path / "valid.jsonl", [TALKS[1], ["new", "one"]])
    outcome = convmodel("fit", train, valid, "-o", "out", *FAST)
    assert outcome.code == 0
    assert "stand twice in TRAIN: 1 (" in outcome.err and "train.jsonl:7 is" in outcome.err
    assert (
        "of VALID that are in TRAIN too, so that its figures are too good: 1 (" in outcome.err
        and "valid.jsonl:1 is" in outcome.err
    )
    record = json.loads((tmp_path / "out" / "convmodel.json").read_text())["data"]
    assert record["duplicates"]["count"] == record["overlap"]["count"] == 1


def test_an_output_that_is_its_own_base_is_refused_and_kept(
    convmodel: Convmodel, data: tuple[str, str], tmp_path: Path
) -> None:
    assert convmodel("fit", *data, "-o", "out", *FAST).code == 0
    before = weights_digest(tmp_path / "out")
    outcome = convmodel("fit", *data, "-o", "out", *FAST, "--overwrite", "--base", "./out")
    assert outcome.code == 2
    assert "the output is the base" in outcome.err
    assert weights_digest(tmp_path / "out") == before
