"""What a new model knows before its first step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from convmodel_cli.model.new import SIZES, Size, new_model

TEXTS = ["Hello there, how are you today?", "I am fine, thank you. And you?"]


@pytest.mark.parametrize("with_types", [True, False])
@pytest.mark.parametrize("size", SIZES.values())
def test_the_first_heads_of_a_new_model_look_one_two_and_three_tokens_back(size: Size, with_types: bool) -> None:
    network: Any = new_model(Size(1, size.width, size.heads), TEXTS, 300, seed=0).network
    places = torch.arange(1024)
    ids = torch.randint(network.config.vocab_size, (1024,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = network.transformer.wte(ids) + network.transformer.wpe(places)
        if with_types:
            x = x + network.transformer.wte(places // 9 % 2)
        block = network.transformer.h[0]
        queries, keys, _ = block.attn.c_attn(block.ln_1(x)).view(1024, 3, size.heads, -1).permute(1, 2, 0, 3)
        scores = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
        weights = scores.masked_fill(places[:, None] < places, -torch.inf).softmax(-1)
    for head, offset in enumerate((1, 2, 3)):
        seen = weights[head].diagonal(-offset)
        assert seen.mean() > 3 * weights[3].diagonal(-offset).mean()
        assert (weights[head, 3:].argmax(-1) == places[3:] - offset).float().mean() > 0.9


def test_a_seed_decides_the_weights() -> None:
    def weights(seed: int) -> Any:
        return new_model(Size(1, 64, 1), TEXTS, 300, seed=seed).network.state_dict()

    one, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["transformer.h.0.attn.c_attn.weight"], other["transformer.h.0.attn.c_attn.weight"])
