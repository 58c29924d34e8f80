"""A causal language model with its tokenizer, and the one forward pass that training and evaluation share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from tokenizers import decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from convmodel_cli.data.batching import MicroBatch
from convmodel_cli.data.vocabulary import TextEncoder, Vocabulary
from convmodel_cli.model.attention import use_fast_attention
from convmodel_cli.model.gpt2_decoding import Gpt2
from convmodel_cli.model.gpt2_packed import packed_losses, packs, row_length

# These add the embedding of the token type to that of the token, and nothing but a linear head follows the last layer.
_ADDS_TYPE_EMBEDDINGS = frozenset({"gpt2", "gpt_neo", "gptj", "codegen"})


@dataclass(frozen=True, slots=True)
class _IdsAlone:
    """Calls the library under a tokenizer for ids and nothing else; offsets and masks cost as much again."""

    tokenizer: PreTrainedTokenizerFast

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, split_special_tokens: bool, return_attention_mask: bool
    ) -> dict[str, list[list[int]]]:
        assert not return_attention_mask
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = split_special_tokens
        encoded = backend.encode_batch_fast(text, add_special_tokens=add_special_tokens)
        return {"input_ids": [each.ids for each in encoded]}


def fast_encoder(tokenizer: PreTrainedTokenizerBase) -> TextEncoder:
    """The same ids as the tokenizer gives, sooner where that can be."""
    return _IdsAlone(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerFast) else tokenizer


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of ids as it is, without control tokens; by the library under a tokenizer where there is one."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return str(tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=True))
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def joins_bytes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the text of ids is their bytes one behind the other, so that none is changed by what follows."""
    return isinstance(tokenizer, PreTrainedTokenizerFast) and isinstance(
        tokenizer.backend_tokenizer.decoder, decoders.ByteLevel
    )


def cuts_at_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer cuts texts before each single space, as GPT-2's does, so that words keep their ids."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return False
    backend = tokenizer.backend_tokenizer
    cut, model = backend.pre_tokenizer, backend.model
    return (
        (isinstance(cut, ByteLevel) and cut.use_regex and not cut.add_prefix_space)
        and (isinstance(model, BPE) and not model.dropout)
        and backend.normalizer is None
        and all(token.special for token in backend.get_added_tokens_decoder().values())  # others may hold spaces
    )


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """`network` maps ids of shape (rows, tokens) to logits (rows, tokens, vocabulary).

    `decoding` holds its weights as they were when it was made ready to answer, if it was.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sep_id: int
    decoding: Gpt2 | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(fast_encoder(self.tokenizer), self.sep_id, cuts_at_spaces(self.tokenizer))

    @property
    def takes_types(self) -> bool:
        return self.network.config.model_type in _ADDS_TYPE_EMBEDDINGS

    @property
    def max_positions(self) -> int:
        """Tokens the network can attend to at once."""
        return int(getattr(self.network.config, "max_position_embeddings", None) or 1024)

    @property
    def pads(self) -> bool:
        """Whether the sequences of a micro-batch are computed as rows of one length."""
        return not packs(self.network)

    @property
    def row_length(self) -> Callable[[int], int] | None:
        """The length of the row in which so many tokens of a micro-batch stand, if it is not padded."""
        return None if self.pads else row_length(self.network)

    @property
    def embedding(self) -> nn.Embedding:
        """The table of token embeddings, which also embeds the token types."""
        return cast(nn.Embedding, self.network.get_input_embeddings())

    @property
    def vocab_size(self) -> int:
        return len(self.embedding.weight)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def move_to(self, device: torch.device) -> None:
        """Move the weights, in place."""
        nn.Module.to(self.network, device)

    def embed(self, ids: Tensor, types: Tensor | None, with_types: Tensor | None = None) -> Tensor:
        """Input embeddings (rows, tokens, width): of the tokens, plus those of the types in the rows that show them.

        Equals what GPT-2 adds itself for `token_type_ids`, but can differ from row to row.
        """
        embedded: Tensor = self.embedding(ids)
        if types is None or not self.takes_types:
            return embedded
        of_types: Tensor = self.embedding(types)
        if with_types is not None:
            of_types = of_types * with_types[:, None, None]
        return embedded + of_types


def target_logits(model: LanguageModel, batch: MicroBatch) -> Tensor:
    """Logits (targets, vocabulary) at the places that predict a target."""
    network: Any = model.network
    if not model.takes_types:
        logits: Tensor = network(input_ids=batch.ids, use_cache=False).logits
        return logits.flatten(0, 1)[batch.predict_from]
    embedded = model.embed(batch.ids, batch.types, batch.with_types)
    hidden: Tensor = network.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    chosen: Tensor = network.get_output_embeddings()(hidden.flatten(0, 1)[batch.predict_from])
    return chosen


def target_losses(model: LanguageModel, batch: MicroBatch) -> Tensor:
    """Negative log-likelihood of each target in nats, of shape (targets,), fp32."""
    if not model.pads:
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        with torch.autocast("cpu", enabled=False):
            return packed_losses(model.network, batch, dtype)
    return nn.functional.cross_entropy(target_logits(model, batch).float(), batch.target_ids, reduction="none")


def prepare_network(network: PreTrainedModel) -> None:
    """Swap in faster kernels of the same functions, learn every token, and switch dropout off until a run sets it."""
    use_fast_attention(network)
    _use_fused_activations(network)
    # No gradient comes to the padding's embedding, and where padding and sep are one token it is the sep's.
    embeddings: Any = network.get_input_embeddings()
    embeddings.padding_idx = None
    network.eval()


def keeps_cache(network: PreTrainedModel) -> bool:
    """Whether the network goes on from a cache of keys and values; recurrent ones and some old ones do not."""
    cache = DynamicCache()
    ids = torch.zeros((1, 2), dtype=torch.long)
    try:
        with torch.inference_mode():
            network(input_ids=ids, past_key_values=cache, use_cache=True)
            return int(cache.get_seq_length()) == ids.shape[1]
    except (AttributeError, IndexError, TypeError, ValueError):  # they stumble over the cache in ways of their own
        return False


def _use_fused_activations(network: nn.Module) -> None:
    """Replace GPT-2's activation, seven passes over the widest tensor, by the same function in one kernel."""
    for module in network.modules():
        for name, child in module.named_children():
            if type(child).__name__ == "NewGELUActivation":
                setattr(module, name, nn.GELU(approximate="tanh"))


def set_dropout(network: nn.Module, rate: float) -> None:
    """Dropout of embeddings and residuals; none in attention, where it would rule out the fast kernels."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0 if "att" in name.rsplit(".", 1)[-1] else rate
        for attribute, value in list(vars(module).items()):  # some models keep a rate and call the function
            if "drop" in attribute and isinstance(value, float):
                setattr(module, attribute, 0.0 if "att" in attribute or "layer" in attribute else rate)


def copy_of_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
