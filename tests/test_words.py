"""Texts -> token ids by way of their words: the same ids as without."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

import pytest
from tokenizers import AddedToken, normalizers, pre_tokenizers
from transformers import GPT2Tokenizer

from convmodel_cli.data import words
from convmodel_cli.data.encoding import encode_conversations, learned_turns
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.vocabulary import Vocabulary
from convmodel_cli.data.words import WordTable, words_of
from convmodel_cli.model.language_model import LanguageModel, cuts_at_spaces
from convmodel_cli.model.new import train_tokenizer
from helpers import BYTES, made_up_conversations

SPACES = (" ", " ", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\x1c", "\x85", "\u2028", "\u200b", "\0")
LETTERS = ("a", "The", "ing", "é", "e\u0301", "日本", "\ud7a3", "İ", "1", "42", "٣", "½")
OTHERS = ("'s", "'", "?!", "_", "…", "🙂", "👍🏽", "\u200d", "<|endoftext|>", "<sep>")


def ids_of(packed: bytes) -> list[int]:
    return array("i", packed).tolist()


def test_words_have_the_ids_that_they_have_in_their_text() -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices(SPACES + LETTERS + OTHERS, k=draw.randrange(12))) for _ in range(5000)]
    tokenizer = train_tokenizer(texts, 600)  # so there are tokens of several spaces, marks and lines
    vocabulary = LanguageModel(None, tokenizer, 0).vocabulary  # type: ignore[arg-type]
    assert vocabulary.cuts_at_spaces
    packed = WordTable(vocabulary.encode, at_spaces=True).pack(texts)
    assert [ids_of(each) for each in packed] == vocabulary.encode(texts)


@pytest.mark.parametrize("at_spaces", [True, False])
def test_each_word_is_encoded_once_and_what_is_kept_is_bounded(
    monkeypatch: pytest.MonkeyPatch, at_spaces: bool
) -> None:
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> list[list[int]]:
        asked.extend(texts)
        return [[len(text)] for text in texts]

    table = WordTable(encode, at_spaces)
    first = table.pack(["so it is", "so it is", "is it"])
    assert [ids_of(ids) for ids in first] == ([[2, 3, 3], [2, 3, 3], [2, 3]] if at_spaces else [[8], [8], [5]])
    known = len(asked)
    assert known == (4 if at_spaces else 2)
    assert table.pack(["so it is", "is it", ""])[:2] == first[1:] and len(asked) == known + 1
    monkeypatch.setattr(words, "_KEPT_CHARACTERS", 10)
    assert table.pack(["so it is"]) == first[:1] and len(asked) > known + 1


def test_a_text_with_other_white_space_than_single_spaces_is_one_word() -> None:
    assert words_of(" so it is ") == ["", " so", " it", " is", " "]
    for text in ("two  spaces", "two\nlines", "a\ttab", "a\u00a0b c", "a\0b c"):
        assert words_of(text) == [text]


def test_tokenizers_that_do_not_cut_at_spaces_are_asked_for_whole_texts() -> None:
    def tokenizer() -> GPT2Tokenizer:
        return train_tokenizer(["so it is"], 300)

    spaced, split, normal, added = tokenizer(), tokenizer(), tokenizer(), tokenizer()
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    split.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    normal.backend_tokenizer.normalizer = normalizers.Strip()
    added.add_tokens(["so it"])
    assert cuts_at_spaces(tokenizer())
    assert not any(cuts_at_spaces(each) for each in (spaced, split, normal, added))
    special = tokenizer()
    special.add_special_tokens({"sep_token": AddedToken("so it")})
    assert cuts_at_spaces(special)  # control tokens are never seen in a text


@pytest.mark.parametrize("learn", ["all", "responses", "last"])
@pytest.mark.parametrize("persona", ["", " I am\nkind. "])
def test_a_whole_conversation_is_its_turns_one_after_the_other(learn: str, persona: str) -> None:
    some = Conversation(("a", "b é", "c"), learn=(True, False, False))
    none = Conversation(("a", "b"), learn=(False, False))
    talks = [Conversation(item.turns, persona=persona) for item in made_up_conversations(20)] + [some, none]
    sequences = encode_conversations(talks, Vocabulary(BYTES.tokenizer, 0, cuts_at_spaces=True), 10_000, learn)
    assert sequences.conversations.tolist() == list(range(len(talks) - 1))  # of the last nothing is learned
    for index, talk in enumerate(talks[:-1]):
        learned = learned_turns(talk, learn)
        ids = [0, *BYTES.encode_persona(talk.persona)]
        types, targets = [0] * len(ids), [False] * len(ids)
        for number, turn_ids in enumerate(BYTES.encode(talk.turns)):
            ids += [*turn_ids, 0]
            types += [number % 2] * len(turn_ids) + [1 - number % 2]
            targets += [learned[number]] * (len(turn_ids) + 1)
        found = sequences[index]
        assert (found.ids.tolist(), found.types.tolist(), found.targets.tolist()) == (ids, types, targets)
        said = [turn for turn, is_learned in zip(talk.turns, learned, strict=True) if is_learned]
        assert sequences.num_bytes[index] == len("".join(said).encode())
