"""Grouped, Muon's updates are those of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Muon, Optimizer

from convmodel_cli.model.compute import Compute
from convmodel_cli.model.language_model import LanguageModel
from convmodel_cli.model.muon import GroupedMuon
from convmodel_cli.model.optimizers import Optimization, build_optimizers

SHAPES = [(16, 48), (48, 16), (16, 16), (16, 48), (8, 24), (16, 16)]


def weights() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def take_steps(optimizer: Optimizer, parameters: list[nn.Parameter], steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


def test_the_weights_and_the_state_are_those_of_torch() -> None:
    ours, theirs = weights(), weights()
    options: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}
    grouped, plain = GroupedMuon(ours, dtype=torch.bfloat16, **options), Muon(theirs, **options)
    take_steps(grouped, ours, 4, seed=1)
    take_steps(plain, theirs, 4, seed=1)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=2e-3 * float(other.detach().abs().max()))
        torch.testing.assert_close(grouped.state[own], plain.state[other])
    plain.load_state_dict(grouped.state_dict())  # one can go on for the other


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_an_update_is_as_exact_as_its_type(dtype: torch.dtype, largest: float) -> None:
    updates = []
    for each in (dtype, torch.float64):
        parameters = weights()
        before = [parameter.detach().clone() for parameter in parameters]
        take_steps(GroupedMuon(parameters, dtype=each, lr=0.02), parameters, 1, seed=1)
        updates.append(torch.cat([(now.detach() - old).flatten() for now, old in zip(parameters, before, strict=True)]))
    off = float((updates[0] - updates[1]).norm() / updates[1].norm())
    assert largest / 100 < off < largest


def test_weights_without_gradient_stay_as_they_are() -> None:
    parameters = weights()
    before = parameters[0].detach().clone()
    optimizer = GroupedMuon(parameters, dtype=torch.bfloat16, lr=0.1)
    for parameter in parameters[1:]:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert torch.equal(parameters[0], before)


def test_matrices_side_by_side_are_updated_one_by_one() -> None:
    torch.manual_seed(0)
    fused = nn.Parameter(torch.randn(16, 48))
    alone = [nn.Parameter(part.clone()) for part in fused.detach().chunk(3, dim=1)]
    options: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    grouped, plain = (
        GroupedMuon([{"params": [fused], "parts": 3}], dtype=torch.bfloat16, **options),
        Muon(alone, **options),
    )
    for _ in range(3):
        fused.grad = torch.randn_like(fused)
        for part, gradient in zip(alone, fused.grad.chunk(3, dim=1), strict=True):
            part.grad = gradient.clone()
        grouped.step()
        plain.step()
    expected = torch.cat([part.detach() for part in alone], dim=1)
    torch.testing.assert_close(fused.detach(), expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


def test_queries_keys_and_values_of_gpt2_are_three_matrices_and_nothing_else_is(
    tiny: LanguageModel, compute: Compute
) -> None:
    muon, _ = build_optimizers(tiny, Optimization("muon", 0.01, "linear", 0.1, 0.0, 1.0, 9, 512), compute)
    parts = {weight: group.get("parts", 1) for group in muon.param_groups for weight in group["params"]}
    names = {name: parts[weight] for name, weight in tiny.network.named_parameters() if weight in parts}
    assert len(names) == len(parts) > 3
    assert (
        {name for name, count in names.items() if count == 3} == {name for name in names if "c_attn" in name} != set()
    )
