"""The Python face: the same tokenizer, model and loop, without files and screen.

from convmodel_cli import ConversationExample, ConversationModel

model = ConversationModel.new("new-tiny", conversations=[["Hello", "Hi"]])
model.fit(train_iterator=[ConversationExample(conversation=["Hello", "Hi"])], epochs=20)
print(model.generate(context=["Hello"], do_sample=True, num_return_sequences=5).responses)
model.save_pretrained("model")
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.data.context import encode_context
from convmodel_cli.data.conversations import parse_given
from convmodel_cli.data.store import Conversations
from convmodel_cli.data.vocabulary import Vocabulary, turns_to_encode
from convmodel_cli.errors import DataError, UsageError
from convmodel_cli.events import Evaluated
from convmodel_cli.settings import NEW_BASES, ComputeSettings, TrainingSettings
from convmodel_cli.signals import StopRequest
from convmodel_cli.workflows.answer import make_responder
from convmodel_cli.workflows.improve import improve, prepare_training
from convmodel_cli.workflows.plan import make_plan
from convmodel_cli.workflows.record import RunRecord, as_content, read_record, write_record
from convmodel_cli.workflows.run_folder import write_model_files
from convmodel_cli.workflows.state import RunState

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class ConversationExample:
    """One conversation to learn: turns, oldest first; `learn` may flag the turns that are targets."""

    conversation: list[str]
    learn: list[bool] | None = None
    persona: str = ""


@dataclass(frozen=True, slots=True)
class ConversationResponses:
    """What `ConversationModel.generate` returns."""

    responses: list[str]
    context: list[str]


@dataclass(slots=True)
class History:
    """The course of training: one entry in each list for each evaluation. Losses are nats per target token."""

    train_losses: list[float] = field(default_factory=list)
    valid_losses: list[float] = field(default_factory=list)
    tokens_seen: list[int] = field(default_factory=list)


class ConversationTokenizer:
    """Turns -> the token ids, token types and attention mask that the model is trained on."""

    def __init__(self, tokenizer: Any, sep_id: int | None = None) -> None:
        from convmodel_cli.model.checkpoint import choose_sep

        self.tokenizer = tokenizer
        self.sep_token_id = choose_sep(tokenizer) if sep_id is None else sep_id

    @classmethod
    def from_pretrained(cls, name: str) -> ConversationTokenizer:
        """The tokenizer of a folder or of a model on the hub; raises ModelError."""
        from convmodel_cli.model.checkpoint import load_tokenizer

        return cls(load_tokenizer(name))

    def __call__(self, turns: list[str], persona: str = "") -> dict[str, list[int]]:
        """`input_ids`, `token_type_ids` and `attention_mask` of a conversation, as plain lists."""
        vocabulary = Vocabulary(self.tokenizer, self.sep_token_id)
        encoded = vocabulary.encode(turns_to_encode(turns, persona))
        persona_ids = vocabulary.encode_persona(persona)
        room = 1 + len(persona_ids) + sum(len(turn) + 1 for turn in encoded)
        shown = encode_context(encoded, persona_ids, self.sep_token_id, room)
        return {"input_ids": shown.ids, "token_type_ids": shown.types, "attention_mask": [1] * len(shown.ids)}

    def decode(self, ids: list[int]) -> str:
        """The text of some tokens; control tokens are left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def save_pretrained(self, folder: str) -> None:
        self.tokenizer.save_pretrained(folder)


class ConversationModel:
    """A model to train and talk with. `hf_model` and `tokenizer` are the parts underneath."""

    def __init__(self, model: LanguageModel, compute: Compute, run: RunRecord) -> None:
        self._model = model
        self._compute = compute
        self._run = run
        self.history = History()
        model.move_to(compute.device)

    @classmethod
    def from_pretrained(cls, name: str, device: Any = "auto", seed: int = 0) -> ConversationModel:
        """Load a folder or a model of the hub; raises ModelError."""
        from convmodel_cli.model.checkpoint import load_model

        return cls(load_model(name), _compute(device, seed), replace(read_record(name), base=name))

    @classmethod
    def new(
        cls,
        base: str = "new-tiny",
        conversations: Iterable[list[str]] = (),
        vocab_size: int = TrainingSettings().vocab_size,
        device: Any = "auto",
        seed: int = 0,
    ) -> ConversationModel:
        """An untrained model, its vocabulary from the conversations; raises UsageError for another base."""
        if base not in NEW_BASES:
            raise UsageError(f"base: expected one of {', '.join(NEW_BASES)}, got {base}")
        from convmodel_cli.model.new import SIZES, new_model

        texts = (turn for conversation in conversations for turn in conversation)
        compute = _compute(device, seed)
        run = RunRecord(base=base, speaker_ids=TrainingSettings().speaker_ids, max_context=0)
        return cls(new_model(SIZES[base], texts, vocab_size, seed), compute, run)

    @property
    def hf_model(self) -> Any:
        """The transformers model."""
        return self._model.network

    @property
    def tokenizer(self) -> ConversationTokenizer:
        return ConversationTokenizer(self._model.tokenizer, self._model.sep_id)

    def fit(
        self,
        train_iterator: Iterable[ConversationExample],
        valid_iterator: Iterable[ConversationExample] | None = None,
        output: str | None = None,
        **settings: Any,
    ) -> ConversationModel:
        """Train in place and keep the best weights; `settings` are those of `convmodel fit`.

        Goes on from the current weights when called again. Writes the model to `output` if that is given.
        """
        from convmodel_cli.model.language_model import copy_of_weights

        training = _training_settings(settings)
        train = _conversations(train_iterator, "train_iterator")
        valid = Conversations() if valid_iterator is None else _conversations(valid_iterator, "valid_iterator")
        plan = make_plan(self._model, self._run.base, train, valid, training, self._compute, self._run.max_context)
        optimizers = prepare_training(self._model, plan, self._compute)
        best = copy_of_weights(self.hf_model)
        try:
            for event in improve(self._model, optimizers, plan, self._compute, RunState(), StopRequest()):
                if isinstance(event, Evaluated):
                    self._remember(event)
                    if event.best:
                        best = copy_of_weights(self.hf_model)
        finally:  # also when the run breaks off
            self.hf_model.load_state_dict(best)
            self.hf_model.eval()
        self._run = RunRecord(plan.speaker_ids, plan.learn, plan.max_length, plan.max_context, plan.base)
        if output is not None:
            self.save_pretrained(output)
        return self

    def _remember(self, event: Evaluated) -> None:
        self.history.train_losses.append(event.train_loss)
        self.history.tokens_seen.append(event.tokens_seen)
        if event.valid_loss is not None:
            self.history.valid_losses.append(event.valid_loss)

    def save_pretrained(self, folder: str) -> None:
        """Write a folder that transformers and every convmodel command load."""
        from convmodel_cli.model.weights import save_weights

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        write_model_files(self._model, path)
        write_record(path, as_content(self._run))
        save_weights(self._model, path, {})

    def generate(self, context: list[str], persona: str = "", **options: Any) -> ConversationResponses:
        """Responses to the turns of a context; `options` are those of transformers' `generate`.

        Without options it samples as the commands do, but for the repetition penalty. Raises DataError for a context
        that is none.
        """
        import torch

        from convmodel_cli.model.checkpoint import generation_config

        given = list(context) if isinstance(context, tuple) else context
        turns = parse_given(given, "the context", min_turns=1).turns
        sampling = SamplingSettings(max_new_tokens=int(options.get("max_new_tokens", 64)))
        responder = make_responder(self._model, self._compute, sampling, self._run)
        encoded, _ = responder.context_of_text(turns, persona)
        device = self._compute.device
        inputs: dict[str, Any] = {"input_ids": torch.tensor([encoded.ids], device=device)}
        if responder.with_types:
            inputs["token_type_ids"] = torch.tensor([encoded.types], device=device)
        defaults = generation_config(self._model)
        defaults.max_new_tokens = None  # it would win over a `max_length` that is asked for
        if "max_length" not in options:
            options["max_new_tokens"] = encoded.max_response
        with torch.inference_mode():
            output = self.hf_model.generate(
                **inputs,
                attention_mask=torch.ones_like(inputs["input_ids"]),
                generation_config=defaults,
                **options,
            )
        rows = output if isinstance(output, torch.Tensor) else output.sequences
        responses = [self.tokenizer.decode(ids) for ids in rows[:, len(encoded.ids) :].tolist()]
        return ConversationResponses(responses, list(turns))


def _compute(device: Any, seed: int) -> Compute:
    from convmodel_cli.model.compute import set_up

    return set_up(ComputeSettings(device=str(device), seed=seed), for_training=True)  # type: ignore[arg-type]


def _training_settings(settings: dict[str, Any]) -> TrainingSettings:
    known = {setting.name for setting in fields(TrainingSettings)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise TypeError(f"fit() has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
    return TrainingSettings(**settings)


def _conversations(examples: Iterable[ConversationExample], name: str) -> Conversations:
    checked = Conversations()
    for number, example in enumerate(examples, 1):
        record = {"turns": example.conversation, "learn": example.learn, "persona": example.persona or None}
        checked.append(parse_given(record, f"{name}: example {number}", min_turns=2))
    if not checked:
        raise DataError(f"{name}: expected conversations, got none")
    return checked
