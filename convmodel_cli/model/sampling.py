"""From logits to a token: small pure functions on (rows, vocabulary), composed by `Chooser`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.errors import ModelError
from convmodel_cli.model.compute import exact


def penalize_repetition(logits: Tensor, responses: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Make tokens that a response already holds less likely, whatever the sign of their logit.

    Keskar et al. 2019, but for the response alone: the context would bring in the sep token, and responses that are
    punished for ending run on.
    """
    logits = logits.clone()
    for row, response in enumerate(responses):
        if response:
            held = torch.tensor(sorted(set(response)), device=logits.device)
            scores = logits[row, held]
            logits[row, held] = torch.where(scores > 0, scores / penalty, scores * penalty)
    return logits


def ban_repeated_ngrams(logits: Tensor, responses: Sequence[Sequence[int]], size: int) -> Tensor:
    """Rule out each token that would repeat a run of `size` tokens within its response."""
    logits = logits.clone()
    for row, response in enumerate(responses):
        ending = list(response[len(response) - size + 1 :]) if size > 1 else []
        for start in range(len(response) - size + 1):
            if list(response[start : start + size - 1]) == ending:
                logits[row, response[start + size - 1]] = -torch.inf
    return logits


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Rule out all but the k likeliest tokens; ties with the last one stay."""
    if k >= logits.shape[-1]:
        return logits
    last = logits.topk(k).values[:, -1:]
    return logits.masked_fill(logits < last, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Rule out the tail behind the likeliest tokens that together have probability `p`; ties with the last one stay.

    The likeliest always stays.
    """
    likelihoods = logits.softmax(-1)
    possible = max(1, int((likelihoods > 0).sum(-1).max()))
    ordered = likelihoods.topk(possible).values
    beyond = (ordered.cumsum(-1) - ordered >= p) | (ordered == 0)  # another row may have more that are possible
    beyond[:, 0] = False  # a p below the smallest fp32 is 0
    least = ordered.masked_fill(beyond, torch.inf).amin(-1, keepdim=True)
    return logits.masked_fill(likelihoods < least, -torch.inf)


def keep_min_p(logits: Tensor, share: float) -> Tensor:
    """Rule out tokens whose probability is less than `share` of the likeliest one's."""
    likelihoods = logits.softmax(-1)
    return logits.masked_fill(likelihoods < share * likelihoods.amax(-1, keepdim=True), -torch.inf)


def pick(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens (rows,) drawn by inverting the distribution at one number in [0, 1) for each row.

    One number a row, known beforehand, makes a draw independent of whatever else is in the batch.
    """
    cumulative = exact(logits).softmax(-1).cumsum(-1)
    total = cumulative[:, -1:]
    # The sum may end beside 1, and rounding may reach it: staying below it never takes a token of probability 0.
    aim = torch.minimum(uniforms.to(total)[:, None] * total, total.nextafter(torch.zeros_like(total)))
    picked = torch.searchsorted(cumulative, aim, right=True).squeeze(-1)
    return picked.clamp(max=logits.shape[-1] - 1).to(logits.device)


def check_numbers(largest: float) -> None:
    """Raise ModelError if the largest of a model's outputs is none to go by; all of them -inf is nothing broken."""
    if not largest < math.inf:  # not a number is not less
        raise ModelError(
            "expected the model to give probabilities, got numbers that are not finite",
            "its weights are damaged: take another copy of the model, or train it again",
        )


def uniform_stream(seed: int, context: Sequence[int], candidate: int, count: int) -> NDArray[np.float64]:
    """The random numbers (count,) of one response, from the seed, what is answered and which candidate it is.

    Not from the place in a batch or a file: the same context gets the same response wherever it stands.
    """
    return np.random.default_rng(stream_key(seed, context, candidate)).random(count)


def stream_key(seed: int, context: Sequence[int], candidate: int) -> NDArray[np.uint32]:
    """What the random numbers of a response depend on, as 256 bits."""
    digest = hashlib.sha256(np.array([seed, candidate, *context], np.int64).tobytes()).digest()
    return np.frombuffer(digest, np.uint32)


@dataclass(frozen=True, slots=True)
class Chooser:
    """Chooses the next token of each row. `end_ids` close a response, `banned_ids` may not occur in one."""

    sampling: SamplingSettings
    end_ids: tuple[int, ...]
    banned_ids: tuple[int, ...]

    def choose(self, logits: Tensor, responses: Sequence[Sequence[int]], uniforms: Sequence[float]) -> Tensor:
        """Tokens (rows,) after `responses`, the ids so far of each row; `uniforms`, one for each, decide the draws."""
        sampling = self.sampling
        logits = self.weigh(logits, responses)
        if sampling.greedy:
            return logits.argmax(-1)
        logits = logits / sampling.temperature
        if sampling.top_k:
            logits = keep_top_k(logits, sampling.top_k)
        if sampling.top_p < 1.0:
            logits = keep_top_p(logits, sampling.top_p)
        if sampling.min_p > 0.0:
            logits = keep_min_p(logits, sampling.min_p)
        return pick(logits, torch.tensor(uniforms, dtype=torch.float64))

    def weigh(self, logits: Tensor, responses: Sequence[Sequence[int]]) -> Tensor:
        """Apply what looks at the response so far; temperature and the rest come after it.

        Raises ModelError if the logits are no numbers to choose by.
        """
        check_numbers(float(logits.max()))
        sampling = self.sampling
        if sampling.penalty != 1.0:
            logits = penalize_repetition(logits, responses, sampling.penalty)
        if sampling.no_repeat_ngram:
            logits = ban_repeated_ngrams(logits, responses, sampling.no_repeat_ngram)
        return self._rule_out(logits, responses)

    def _rule_out(self, logits: Tensor, responses: Sequence[Sequence[int]]) -> Tensor:
        too_short = [row for row, response in enumerate(responses) if len(response) < self.sampling.min_new_tokens]
        all_short = len(too_short) == len(responses)
        ruled_out = self.banned_ids + self.end_ids if all_short else self.banned_ids
        if ruled_out:
            logits = logits + _barrier(ruled_out, logits.shape[-1], logits.device)
        if too_short and not all_short:
            logits = logits.clone()
            for end in self.end_ids:
                logits[too_short, end] = -torch.inf
        if too_short and self.sampling.no_repeat_ngram:  # every token may have been said
            logits[logits.isneginf().all(-1), self.end_ids[0]] = 0.0
        return logits


@lru_cache(maxsize=4)
def _barrier(ids: tuple[int, ...], vocabulary: int, device: torch.device) -> Tensor:
    """What is added to logits to rule these ids out, of shape (vocabulary,)."""
    return torch.zeros(vocabulary, device=device).index_fill_(0, torch.tensor(ids, device=device), -torch.inf)
