"""What only transformers' own generate can do: --beams and --generate-option."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from conftest import TALKS, Convmodel
from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.model.checkpoint import load_model
from convmodel_cli.model.compute import Compute
from convmodel_cli.model.generation import Context
from convmodel_cli.model.language_model import LanguageModel
from convmodel_cli.model.library_generation import respond_by_library
from convmodel_cli.workflows.answer import Responder
from helpers import write_jsonl

CONTEXTS = [talk[:end] for talk in TALKS for end in range(1, len(talk))] + [["Hi!", "Sleep well.", "I say 🙂"]]
WILD = ["--temperature", "5", "--top-p", "1", "--top-k", "0", "--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def model(trained: str) -> LanguageModel:
    return load_model(trained)


def beam_searched(model: LanguageModel, context: Context, beams: int, count: int = 1) -> list[list[int]]:
    """The responses of transformers' own beam search, each up to its sep."""
    ids = torch.tensor([context.ids])
    network: Any = model.network
    rows: Sequence[list[int]] = network.generate(
        input_ids=ids,
        token_type_ids=torch.tensor([context.types]),
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=beams,
        num_return_sequences=count,
        max_new_tokens=context.max_response,
        min_new_tokens=1,
        eos_token_id=model.sep_id,
        pad_token_id=model.sep_id,
    )[:, len(context.ids) :].tolist()
    return [row[: row.index(model.sep_id)] if model.sep_id in row else row for row in rows]


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_equal_transformers_own_token_for_token(model: LanguageModel, compute: Compute, beams: int) -> None:
    responder = Responder(model, compute, SamplingSettings(beams=beams, max_new_tokens=12), 60, True)
    contexts = [responder.context_of_text(turns)[0] for turns in CONTEXTS[::2]]
    for count in (1, beams):
        ours = [sorted(list(one.ids) for one in written) for written in responder.answer(contexts, count, 4)]
        assert ours == [sorted(beam_searched(model, context, beams, count)) for context in contexts]
    assert any(len({tuple(one.ids) for one in written}) == beams for written in responder.answer(contexts, beams)), (
        "all beams found the same"
    )


def test_beams_and_options_depend_neither_on_the_batch_nor_on_the_order(
    convmodel: Convmodel, trained: str, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "contexts.jsonl", CONTEXTS[:6])
    turned = write_jsonl(tmp_path / "turned.jsonl", CONTEXTS[:6][::-1])
    for options in (["--beams", "3", "-n", "2"], ["--generate-option", "do_sample=true", *WILD]):
        outcome = convmodel("generate", "-m", trained, "-i", data, "--json", *options)
        alone = convmodel("generate", "-m", trained, "-i", data, "--json", "--batch-size", "1", *options)
        last = convmodel("generate", "-m", trained, "-i", turned, "--json", *options)
        assert outcome.code == 0
        assert outcome == alone
        assert outcome.out.splitlines() == last.out.splitlines()[::-1]


def test_beams_give_one_response_each_at_most_best_first(convmodel: Convmodel, trained: str) -> None:
    [line] = convmodel("generate", "-m", trained, "Hi!", "--beams", "4", "-n", "4", "--json").out.splitlines()
    scores = [response["logprob"] for response in json.loads(line)["responses"]]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    refused = convmodel("generate", "-m", trained, "Hi!", "--beams", "2", "-n", "3")
    assert refused.code == 2
    assert "expected at most one for each of the 2 beams, got 3" in refused.err


def test_length_penalty_reaches_the_search(convmodel: Convmodel, trained: str) -> None:
    def tokens(penalty: str) -> int:
        option = f"length_penalty={penalty}"
        arguments = ["Hi!", "Good night!", "--beams", "6", "--json", "--generate-option", option]
        return int(json.loads(convmodel("generate", "-m", trained, *arguments).out)["responses"][0]["tokens"])

    assert tokens("-20.0") < tokens("5.0")


def test_sampling_by_the_library_repeats_with_its_seed(convmodel: Convmodel, trained: str) -> None:
    arguments = ["generate", "-m", trained, "Hi!", "-n", "3", "--generate-option", "do_sample=true", *WILD]
    first, second = convmodel(*arguments, "--seed", "7"), convmodel(*arguments, "--seed", "7")
    assert first.code == 0
    assert len(set(first.out.splitlines())) == 3
    assert first == second
    assert first.out != convmodel(*arguments, "--seed", "8").out


def test_as_many_responses_as_are_asked_for_also_where_they_are_the_same(convmodel: Convmodel, trained: str) -> None:
    greedy = ["--greedy", "--generate-option", "use_cache=false"]
    assert convmodel("generate", "-m", trained, "Good night!", "-n", "3", *greedy).out == "Sleep well.\n" * 3


def test_what_the_models_own_generation_config_says_changes_nothing(compute: Compute, trained: str) -> None:
    """A penalty of the library counts the context, and the sep with it."""
    model = load_model(trained)
    responder = Responder(model, compute, SamplingSettings(beams=2), 28, True)
    context, _ = responder.context_of_text(["Good night!"])
    before = responder.answer([context], 2)
    odd = GenerationConfig(repetition_penalty=5.0, suppress_tokens=[before[0][0].ids[0]], num_beams=7, max_length=3)
    model.network.generation_config = odd
    assert responder.answer([context], 2) == before
    assert model.network.generation_config is odd


CLOSED = [
    ("length_penalty", "expected key=value, got 'length_penalty'"),
    ("=2", "expected key=value, got '=2'"),
    ("temperature=2", "temperature has an option of its own here, --temperature"),
    ("num_beams=2", "num_beams has an option of its own here, --beams"),
    ("eos_token_id=5", "eos_token_id is decided by the model"),
    ("return_dict_in_generate=true", "return_dict_in_generate asks for more than responses"),
    ("output_scores=true", "output_scores asks for more than responses"),
    ("custom_generate=someone/code", "custom_generate runs code from the hub"),
    ("num_beam_groups=2", "num_beam_groups runs code from the hub"),
    ("penalty_alpha=0.6", "penalty_alpha runs code from the hub"),
]


def test_an_option_that_is_not_open_is_refused_before_torch_is_imported() -> None:
    commands = [["generate", "-m", "no-such-model", "Hi!", "--generate-option", option] for option, _ in CLOSED]
    program = (
        "import sys; from convmodel_cli.cli.main import run; "
        f"codes = [run(command) for command in {commands!r}]; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(set(codes) != {2})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == len(CLOSED)
    for line, (_, expected) in zip(lines, CLOSED, strict=True):
        assert line.startswith(f"error: --generate-option: {expected}")


@pytest.mark.parametrize(("option", "expected"), [
    ("lenght_penalty=2", "no option lenght_penalty\nhint: did you mean length_penalty?"),
    ("xyzzy=2", "no option xyzzy\nhint: see GenerationConfig"),
    ("__class__=2", "no option __class__"),
    ("do_sample=maybe", "expected do_sample to be true or false, got maybe"),
    ("use_cache=1", "expected use_cache to be true or false, got 1"),
    ("length_penalty=1,5", "expected length_penalty to be JSON, such as a number or a list, got 1,5"),
    ("length_penalty=NaN", "expected length_penalty to be JSON, such as a number or a list, got NaN"),
    ("length_penalty=", "expected length_penalty to be JSON, such as a number or a list, got nothing"),
    ("bad_words_ids=" + "[" * 5000, "expected bad_words_ids to be JSON, such as a number or a list, got [["),
    ("length_penalty=2", "only used in beam-based"),
    ("cache_implementation=magic", "cache_implementation=magic"),
    ("watermarking_config=3", "watermarking_config=3"),
])  # fmt: skip
def test_a_wrong_option_is_a_sentence_before_the_model_is_loaded(
    convmodel: Convmodel, trained: str, monkeypatch: pytest.MonkeyPatch, option: str, expected: str
) -> None:
    monkeypatch.setattr("convmodel_cli.model.checkpoint.load_model", None)
    outcome = convmodel("generate", "-m", trained, "Hi!", "--generate-option", option)
    assert outcome.code == 2
    assert outcome.out == ""
    assert expected in outcome.err
    assert outcome.err.startswith("error: --generate-option: ")
    assert "\nhint: " in outcome.err


@pytest.mark.parametrize("option", [
    "prefill_chunk_size=-1", "exponential_decay_length_penalty={}", "forced_eos_token_id={}", "assistant_early_exit=3",
    "bad_words_ids=5", "max_time=[1]", "token_healing=true", "suppress_tokens=" + json.dumps(list(range(391))),
])  # fmt: skip
def test_what_breaks_inside_transformers_is_a_sentence_that_names_the_option(
    convmodel: Convmodel, trained: str, option: str
) -> None:
    outcome = convmodel("generate", "-m", trained, "Hi!", "--generate-option", option)
    assert outcome.code == 2, outcome
    assert outcome.err.startswith(f"error: --generate-option: transformers cannot generate with {option[:40]}")
    assert "\nhint: " in outcome.err
    assert outcome.err.count("\n") == 2


@pytest.mark.parametrize("option", [
    "use_cache=false", "cache_implementation=static", "prompt_lookup_num_tokens=3", "max_time=60",
    "bad_words_ids=[[5]]", "guidance_scale=1.5", "renormalize_logits=True", "max_time=null", "forced_eos_token_id=0",
    'cache_implementation="dynamic"', 'watermarking_config={"bias": 0.1}',
])  # fmt: skip
def test_an_option_that_changes_nothing_here_gives_the_greedy_response(
    convmodel: Convmodel, trained: str, option: str
) -> None:
    outcome = convmodel("generate", "-m", trained, "Hi!", "--greedy", "--generate-option", option)
    assert (outcome.code, outcome.out, outcome.err) == (0, "Hello there.\n", "")


def test_our_own_rules_hold_there_too(convmodel: Convmodel, trained: str, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "contexts.jsonl", CONTEXTS)
    rules = ["--repetition-penalty", "1.7", "--no-repeat-ngram", "2", "--min-new-tokens", "6", "--stop-word", "ea"]
    generate = ["generate", "-m", trained, "-i", data, "--greedy", "--json", "--max-new-tokens", "10"]
    for options in ([], rules):
        ours, theirs = (
            [json.loads(line)["responses"][0] for line in convmodel(*generate, *options, *more).out.splitlines()]
            for more in ([], ["--generate-option", "use_cache=false"])
        )
        for own, other in zip(ours, theirs, strict=True):
            assert own | {"logprob": 0} == other | {"logprob": 0}
            assert own["logprob"] == pytest.approx(other["logprob"], abs=1e-4)


def test_greedy_and_sampling_exclude_each_other(convmodel: Convmodel, trained: str) -> None:
    outcome = convmodel("generate", "-m", trained, "Hi!", "--greedy", "--generate-option", "do_sample=true")
    assert outcome.code == 2
    assert "--greedy and do_sample=true exclude each other" in outcome.err


def test_beams_beyond_the_memory_are_a_sentence(
    convmodel: Convmodel, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 319999999968 bytes.")

    monkeypatch.setattr("transformers.GPT2LMHeadModel.generate", too_much)
    outcome = convmodel("generate", "-m", trained, "Hi!", "--beams", "900")
    assert (outcome.code, outcome.err) == (5, "error: out of memory with 900 beams\nhint: take fewer --beams\n")
    assert "expected at most 1000, got 2000" in convmodel("generate", "-m", trained, "Hi!", "--beams", "2000").err


def test_the_global_random_numbers_are_left_alone(model: LanguageModel, compute: Compute) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    context = Context((model.sep_id, 5, model.sep_id), (0, 0, 1), 4)
    respond_by_library(model, context, SamplingSettings(generate_option=("do_sample=true",)), compute, True)
    assert torch.equal(torch.rand(2), expected)
