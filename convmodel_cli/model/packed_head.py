"""The head of a language model and its loss, with one copy of the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from convmodel_cli.model.gradients import add_gradient

_MOST_LOGITS = 2**26  # at once, where none have to be kept for the gradient


def head_losses(hidden: Tensor, head: Tensor, copy: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target, fp32: hidden (targets, width), head (vocabulary, width) -> (targets,).

    `copy` is the head in the type of `hidden`, which the products are made with.
    """
    if torch.is_grad_enabled():
        losses: Tensor = _HeadLoss.apply(hidden, head, copy, targets)  # type: ignore[no-untyped-call]
        return losses
    size = max(16, _MOST_LOGITS // len(head))
    parts = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat([-_of_targets(_log_likelihoods(part, copy), own) for part, own in parts])


def _log_likelihoods(hidden: Tensor, head: Tensor) -> Tensor:
    logits = torch.mm(hidden, head.t())
    return torch._log_softmax(logits, -1, False, out=logits)


def _of_targets(log_likelihoods: Tensor, targets: Tensor) -> Tensor:
    return log_likelihoods.gather(1, targets[:, None]).squeeze(1).float()


class _HeadLoss(torch.autograd.Function):
    """The logits are overwritten by their log-likelihoods, and these by what the gradient needs of them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, copy: Tensor, targets: Tensor) -> Tensor:
        log_likelihoods = _log_likelihoods(hidden, copy)
        of_targets = _of_targets(log_likelihoods, targets)
        ctx.kept = hidden, head, copy, targets, log_likelihoods, of_targets
        return -of_targets

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, head, copy, targets, log_likelihoods, of_targets = ctx.kept
        ctx.kept = None
        errors = log_likelihoods.exp_()
        # Not the likelihood less 1, which leaves nothing of a small error in bf16.
        errors[torch.arange(len(targets)), targets] = of_targets.expm1().to(errors.dtype)
        scale = grad[:, None].to(errors.dtype)
        if head.requires_grad:
            add_gradient(head, errors.t() @ (hidden * scale))
        return (errors @ copy).mul_(scale), None, None, None
