"""Responses by transformers' own `generate`: beam search, and whatever else it can do."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.errors import UsageError
from convmodel_cli.model.compute import Compute
from convmodel_cli.model.generation import Context, make_chooser
from convmodel_cli.model.language_model import LanguageModel
from convmodel_cli.model.sampling import Chooser, stream_key


@dataclass(frozen=True, slots=True)
class _OwnRules(LogitsProcessor):
    """Our rules on what may follow a response so far; those of transformers would count the context as part of it."""

    chooser: Chooser
    context_tokens: int

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.chooser.weigh(scores, input_ids[:, self.context_tokens :].tolist())


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
    config = _config(model, sampling, count)
    ids = torch.tensor([context.ids], device=compute.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if with_types and model.takes_types:
        inputs["token_type_ids"] = torch.tensor([context.types], device=compute.device)
    seed = int(stream_key(compute.seed, context.ids, context.candidate).view("<u8")[0] >> 1)
    network: Any = model.network
    with torch.random.fork_rng(), torch.inference_mode(), compute.forward():
        torch.manual_seed(seed)
        try:
            rows = network.generate(
                **inputs,
                generation_config=config,
                max_new_tokens=context.max_response,
                eos_token_id=list(chooser.end_ids),
                logits_processor=[_OwnRules(chooser, len(context.ids))],
            )
        except (ValueError, TypeError, ImportError, NotImplementedError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UsageError(f"transformers cannot generate with these options: {reason}") from None
    return [_until_end(row, chooser.end_ids) for row in rows[:, len(context.ids) :].tolist()]


def _until_end(tokens: Sequence[int], end_ids: Sequence[int]) -> tuple[list[int], bool]:
    for place, token in enumerate(tokens):
        if token in end_ids:
            return list(tokens[:place]), True
    return list(tokens), False


def _config(model: LanguageModel, sampling: SamplingSettings, count: int) -> GenerationConfig:
    sampled = not sampling.greedy and sampling.beams == 1
    config = GenerationConfig(
        do_sample=sampled,
        num_beams=sampling.beams,
        num_return_sequences=count,
        pad_token_id=model.sep_id,
        bos_token_id=model.sep_id,
    )
    for key, value in _options(sampling.generate_option, config).items():
        setattr(config, key, value)
    if config.do_sample:
        config.temperature, config.top_k, config.top_p = sampling.temperature, sampling.top_k, sampling.top_p
        config.min_p = sampling.min_p or None
    return config


def _options(given: Sequence[str], config: GenerationConfig) -> Mapping[str, Any]:
    """`key=value` as transformers' options; values are JSON where they can be, else text."""
    known = [name for name in vars(config) if not name.startswith("_")]
    options = {}
    for option in given:
        key, _, text = option.partition("=")
        if key not in known or key.startswith(("output_", "return_")):
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else "see GenerationConfig in the documentation of transformers"
            raise UsageError(f"--generate-option: transformers' generate has no option {key} that could be used", hint)
        try:
            options[key] = json.loads(text.lower() if text in ("True", "False", "None") else text)
        except ValueError:
            options[key] = text
    return options
