"""The head of a language model and its loss, with one copy of the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convmodel_cli.model.gradients import add_parts
from convmodel_cli.model.products import multiply

_MOST_LOGITS = 2**26  # at once, where none have to be kept for the gradient
_LOGITS_IN_FP32 = 2**19  # at once: they and what is made of them stay in the processor's caches
_ENTRIES_AT_ONCE = 2048  # of the vocabulary: as fast as all, and their gradients need little room of their own


def head_losses(hidden: Tensor, head: Tensor, copy: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target, fp32: hidden (targets, width), head (vocabulary, width) -> (targets,).

    `copy` is the head in the type of `hidden`, which the products are made with.
    """
    if torch.is_grad_enabled():
        losses: Tensor = _HeadLoss.apply(hidden, head, copy, targets)  # type: ignore[no-untyped-call]
        return losses
    size = max(16, _MOST_LOGITS // len(head))
    parts = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat([-_in_cache(_log_likelihoods, multiply(part, copy.t()), own) for part, own in parts])


def _in_cache(find: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor) -> Tensor:
    """What is found of each target, for so many logits at once that they stay in the processor's cache.

    In fp32 whatever the logits are: torch's logarithm of the softmax in bf16 is up to 0.1 beside the truth.
    """
    rows = max(16, _LOGITS_IN_FP32 // logits.shape[1])
    return torch.cat([find(*part) for part in zip(logits.split(rows), targets.split(rows), strict=True)])


def _log_likelihoods(logits: Tensor, targets: Tensor) -> Tensor:
    """Of the targets, fp32; logits in fp32 are overwritten."""
    exact = logits.float()  # the logits themselves if they are fp32
    return torch._log_softmax(exact, -1, False, out=exact).gather(1, targets[:, None]).squeeze(1)


def _to_likelihoods(logits: Tensor, targets: Tensor) -> Tensor:
    """Overwrite logits by likelihoods; returns the logarithms of the targets', with no exponential computed twice.

    They are taken from how far the target is behind the likeliest, whose likelihood is never too small for its
    logarithm.
    """
    exact = logits.float()
    # Before the softmax, which may be in the place of the logits.
    behind = exact.gather(1, targets[:, None]).squeeze(1) - exact.amax(1)
    likelihoods = torch._softmax(exact, -1, False, out=exact)
    logits.copy_(likelihoods)
    return behind + likelihoods.amax(1).log()


class _HeadLoss(torch.autograd.Function):
    """The logits are overwritten by their likelihoods, and these by what the gradient needs of them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, copy: Tensor, targets: Tensor) -> Tensor:
        likelihoods = multiply(hidden, copy.t())
        of_targets = _in_cache(_to_likelihoods, likelihoods, targets)
        ctx.kept = hidden, head, copy, targets, likelihoods, of_targets
        return -of_targets

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, head, copy, targets, errors, of_targets = ctx.kept
        ctx.kept = None
        # Not the likelihood less 1, which leaves nothing of a small error in bf16.
        errors[torch.arange(len(targets)), targets] = of_targets.expm1().to(errors.dtype)
        scale = grad[:, None]  # not rounded: it is the same for all, and would turn every gradient a little
        if head.requires_grad:
            scaled = (hidden * scale).to(hidden.dtype)
            add_parts(head, (part.t() @ scaled for part in errors.split(_ENTRIES_AT_ONCE, dim=1)))
        return ((errors @ copy) * scale).to(hidden.dtype), None, None, None
