"""Responses by transformers' own `generate`: beam search, and whatever else it can do."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.errors import ConvmodelError, TrainingError, UsageError
from convmodel_cli.model.compute import Compute, is_out_of_memory
from convmodel_cli.model.generation import Context, make_chooser
from convmodel_cli.model.language_model import LanguageModel
from convmodel_cli.model.sampling import Chooser, stream_key

_HINT = "see GenerationConfig in the documentation of transformers"
# Python takes any text for true, and transformers looks no closer.
_SWITCHES = {"do_sample", "use_cache", "disable_compile", "renormalize_logits", "remove_invalid_values"}
_TEXTS = {"early_stopping", "cache_implementation", "num_assistant_tokens_schedule", "speculation_type"}


@dataclass(frozen=True, slots=True)
class _OwnRules(LogitsProcessor):
    """Our rules on what may follow a response so far; those of transformers would count the context as part of it."""

    chooser: Chooser
    context_tokens: int

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.chooser.weigh(scores, input_ids[:, self.context_tokens :].tolist())


def check_options(sampling: SamplingSettings) -> None:
    """Raise UsageError for an option that transformers does not have, or whose value it refuses whatever the model."""
    _config(sampling, count=1)


def respond_by_library(
    model: LanguageModel,
    context: Context,
    sampling: SamplingSettings,
    compute: Compute,
    with_types: bool,
    count: int = 1,
) -> list[tuple[list[int], bool]]:
    """(tokens, whether it ended by itself) of `count` responses to a context; raises UsageError for a bad option."""
    chooser = make_chooser(model, sampling)
    config = _config(sampling, count)
    config.pad_token_id = config.bos_token_id = model.sep_id
    ids = torch.tensor([context.ids], device=compute.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if with_types and model.takes_types:
        inputs["token_type_ids"] = torch.tensor([context.types], device=compute.device)
    seed = int(stream_key(compute.seed, context.ids, context.candidate).view("<u8")[0] >> 1)
    network: Any = model.network
    with torch.random.fork_rng(), torch.inference_mode(), compute.forward(), _without_defaults(network):
        torch.manual_seed(seed)
        try:
            rows = network.generate(
                **inputs,
                generation_config=config,
                max_new_tokens=context.max_response,
                eos_token_id=list(chooser.end_ids),
                logits_processor=[_OwnRules(chooser, len(context.ids))],
            )
        except ConvmodelError:
            raise
        except Exception as error:
            raise _explained(error, sampling) from error
    responses = [_until_end(row, chooser.end_ids) for row in rows[:, len(context.ids) :].tolist()]
    return responses * (count // len(responses))


@contextmanager
def _without_defaults(network: Any) -> Iterator[None]:
    """Keep what the model's generation_config.json says out, such as a penalty that would count the context."""
    kept = network.generation_config
    network.generation_config = GenerationConfig()
    try:
        yield
    finally:
        network.generation_config = kept


def _until_end(tokens: Sequence[int], end_ids: Sequence[int]) -> tuple[list[int], bool]:
    for place, token in enumerate(tokens):
        if token in end_ids:
            return list(tokens[:place]), True
    return list(tokens), False


def _explained(error: Exception, sampling: SamplingSettings) -> Exception:
    """The error for a failure inside of transformers: where there are options, there is no telling what they do."""
    if is_out_of_memory(error):
        return TrainingError(f"out of memory with {sampling.beams} beams", "take fewer --beams")
    if not sampling.generate_option:
        return error
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return _refused(sampling, reason)


def _refused(sampling: SamplingSettings, reason: str) -> UsageError:
    given = ", ".join(sampling.generate_option)
    return UsageError(f"--generate-option: transformers cannot generate with {given}: {reason}", _HINT)


def _config(sampling: SamplingSettings, count: int) -> GenerationConfig:
    options = _options(sampling.generate_option)
    sampled = options.pop("do_sample", not sampling.greedy and sampling.beams == 1)
    if sampled and sampling.greedy:
        raise UsageError("--greedy and do_sample=true exclude each other", "drop one of them")
    if sampled:
        options |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        options["min_p"] = sampling.min_p or None
    several = sampled or sampling.beams > 1  # there is one greedy response
    try:
        config = GenerationConfig(
            do_sample=sampled, num_beams=sampling.beams, num_return_sequences=count if several else 1, **options
        )
        config.validate(strict=True)
    except Exception as error:
        lines = str(error).strip().split("\n")  # the second begins the list of what has no effect
        raise _refused(sampling, lines[min(1, len(lines) - 1)].removeprefix("- ")) from error
    return config


def _options(given: Sequence[str]) -> dict[str, Any]:
    """`key=value` as transformers' options; raises UsageError."""
    known = [name for name in vars(GenerationConfig()) if not name.startswith("_")]
    options = {}
    for option in given:
        key, _, text = option.partition("=")
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else _HINT
            raise UsageError(f"--generate-option: transformers' generate has no option {key}", hint)
        value = options[key] = _value(key, text)
        if key in _SWITCHES and not isinstance(value, bool):
            raise UsageError(f"--generate-option: expected {key} to be true or false, got {text}", _HINT)
    return options


def _value(key: str, text: str) -> Any:
    """JSON, or text where an option takes text."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        if key in _TEXTS | _SWITCHES:
            return text
    found = text or "nothing"
    raise UsageError(f"--generate-option: expected {key} to be JSON, such as a number or a list, got {found}", _HINT)


def _no_json(constant: str) -> None:
    raise ValueError(constant)
