"""The Python face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import convmodel_cli
from conftest import TALKS, Convmodel
from convmodel_cli import ConversationExample, ConversationModel
from convmodel_cli.errors import DataError, UsageError
from helpers import write_jsonl

EXAMPLES = [ConversationExample(conversation=talk) for talk in TALKS]


@pytest.fixture(scope="module")
def model() -> ConversationModel:
    new = ConversationModel.new("new-tiny", conversations=TALKS, vocab_size=400, device="cpu")
    return new.fit(iter(EXAMPLES), valid_iterator=EXAMPLES, epochs=30, batch_size=6, eval_every=15, patience=0)


def test_all_names_are_there() -> None:
    for name in convmodel_cli.__all__:
        assert getattr(convmodel_cli, name)
    with pytest.raises(AttributeError):
        _ = convmodel_cli.nothing


def test_fit_keeps_a_history_and_improves(model: ConversationModel) -> None:
    history = model.history
    assert len(history.train_losses) == len(history.valid_losses) == len(history.tokens_seen) == 3
    assert history.valid_losses[-1] < history.valid_losses[0] / 2
    assert history.tokens_seen[0] == 0


def test_generate_takes_the_options_of_transformers(model: ConversationModel) -> None:
    output = model.generate(context=["Hi!"], do_sample=True, top_p=0.95, top_k=50, num_return_sequences=5)
    assert len(output.responses) == 5
    assert output.context == ["Hi!"]
    assert model.generate(context=["Good night!"], num_beams=2, do_sample=False).responses == ["Sleep well."]


def test_a_saved_model_comes_back_in_python_and_in_the_command_line(
    model: ConversationModel, tmp_path: Path, convmodel: Convmodel
) -> None:
    model.save_pretrained(str(tmp_path / "saved"))
    again = ConversationModel.from_pretrained(str(tmp_path / "saved"), device="cpu")
    for talk in TALKS:
        context = talk[:1]
        expected = model.generate(context=context, do_sample=False).responses
        assert again.generate(context=context, do_sample=False).responses == expected
        assert convmodel("generate", "-m", "./saved", "--greedy", *context).out == expected[0] + "\n"


def test_fitting_again_goes_on_from_the_best(model: ConversationModel) -> None:
    best = min(model.history.valid_losses)
    model.fit(EXAMPLES, EXAMPLES, epochs=1, learning_rate=1.0, optimizer="adamw")
    assert model.history.valid_losses[3] == pytest.approx(best, rel=1e-2)
    assert model.generate(context=["Good night!"], do_sample=False).responses == ["Sleep well."]


def test_sampling_is_the_same_before_and_after_saving(model: ConversationModel, tmp_path: Path) -> None:
    model.save_pretrained(str(tmp_path / "saved"))
    again = ConversationModel.from_pretrained(str(tmp_path / "saved"), device="cpu")
    drawn = []
    for either in (model, again):
        torch.manual_seed(1)
        drawn.append(either.generate(context=["Hi!"], num_return_sequences=5, temperature=3.0).responses)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 1


def test_every_option_of_generate_is_passed_on(model: ConversationModel) -> None:
    context = ["What do you eat?"]
    shown = len(model.tokenizer(context)["input_ids"])
    whole = model.generate(context=context, do_sample=False).responses[0]
    assert whole == "I like rice and beans."
    limits: list[dict[str, Any]] = [{"max_new_tokens": 2}, {"max_length": shown + 2}]
    for limit in limits:
        output = model.generate(context=context, do_sample=False, return_dict_in_generate=True, **limit)
        assert whole.startswith(output.responses[0]) and output.responses[0] != whole


@pytest.mark.parametrize("wrong", [{"learn": "assistant"}, {"optimizer": "sgd"}, {"epochs": 2.5}, {"schedule": "up"}])
def test_values_that_do_not_exist_are_refused(model: ConversationModel, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        model.fit(EXAMPLES, **wrong)


def test_fit_without_valid_and_with_output(tmp_path: Path, convmodel: Convmodel) -> None:
    new = ConversationModel.new(conversations=TALKS, vocab_size=400, device="cpu")
    new.fit(EXAMPLES, output=str(tmp_path / "out"), epochs=1)
    assert new.history.valid_losses == []
    data = write_jsonl(tmp_path / "talks.jsonl", TALKS)
    assert convmodel("eval", data, "-m", "./out").code == 0


def test_mistakes_are_said(model: ConversationModel) -> None:
    with pytest.raises(UsageError, match="expected one of new-tiny"):
        ConversationModel.new("new-huge")
    with pytest.raises(DataError, match="example 2: expected at least two turns"):
        model.fit([EXAMPLES[0], ConversationExample(conversation=["alone"])])
    with pytest.raises(DataError, match="expected conversations, got none"):
        model.fit([])
    with pytest.raises(TypeError, match="no setting 'epoch'"):
        model.fit(EXAMPLES, epoch=3)
    with pytest.raises(ValueError, match="--epochs: expected at least 1"):
        model.fit(EXAMPLES, epochs=0)
    with pytest.raises(ValueError, match="--epochs: expected a whole number, got True"):
        model.fit(EXAMPLES, epochs=True)


@pytest.mark.parametrize(
    ("context", "problem"),
    [
        (["a", None], "turn 2: expected a string, got null"),
        (["a", "\ud800"], "turn 2: expected text, got half of a surrogate pair in it"),
        (["a", ""], "turn 2: expected text, got an empty string"),
        ([], "expected at least one turn, got an empty list"),
        ("ab", 'expected a list of turns, got the string "ab"'),
    ],
)
def test_a_context_that_is_none_is_refused(model: ConversationModel, context: Any, problem: str) -> None:
    with pytest.raises(DataError, match=f"^the context: {problem}"):
        model.generate(context)


def test_learn_flags_choose_the_targets(model: ConversationModel) -> None:
    flagged = [ConversationExample(conversation=["a", "b"], learn=[False, False])]
    with pytest.raises(DataError, match="expected turns to learn, got none"):
        model.fit(flagged)
