"""conversation -> token ids, token types, targets."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, GPT2Tokenizer

from convmodel_cli import ConversationTokenizer
from convmodel_cli.data.context import encode_context
from convmodel_cli.data.encoding import (
    Sequences,
    encode_conversations,
    learned_turns,
)
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.vocabulary import Vocabulary, turns_to_encode
from convmodel_cli.data.windows import Part, cut_into_windows
from convmodel_cli.errors import DataError
from convmodel_cli.model.checkpoint import save_everything_but_weights
from convmodel_cli.model.language_model import LanguageModel
from helpers import BYTES, BytesTokenizer, made_up_conversations

SEED_TABLE = {
    "input_ids": [50256, 15496, 50256, 2437, 389, 345, 50256],
    "token_type_ids": [0, 0, 1, 1, 1, 1, 0],
    "attention_mask": [1, 1, 1, 1, 1, 1, 1],
}


def filler_gpt2_tokenizer() -> GPT2Tokenizer:
    """A vocabulary of GPT-2's size in which the five ids of the seed table are real and the others are filler."""
    real = {"Hello": 15496, "How": 2437, "Ġare": 389, "Ġyou": 345, "<|endoftext|>": 50256}
    pieces = ["H", "e", "l", "o", "w", "Ġ", "a", "r", "y", "u", "He", "ll", "Hell", "Ho", "Ġa", "Ġar", "Ġy", "Ġyo"]
    merges = [("H", "e"), ("l", "l"), ("He", "ll"), ("Hell", "o"), ("H", "o"), ("Ho", "w"), ("Ġ", "a"), ("Ġa", "r")]
    merges += [("Ġar", "e"), ("Ġ", "y"), ("Ġy", "o"), ("Ġyo", "u")]
    taken = set(real.values())
    free = (number for number in range(50257) if number not in taken)
    vocab = {**real, **{piece: next(free) for piece in pieces}}
    vocab.update({f"filler{number}": number for number in free})
    return GPT2Tokenizer(vocab=vocab, merges=merges)  # type: ignore[arg-type]


def test_seed_table_with_filler_vocabulary() -> None:
    assert ConversationTokenizer(filler_gpt2_tokenizer())(["Hello", "How are you"]) == SEED_TABLE


@pytest.fixture
def gpt2_files() -> Path:
    folder = os.environ.get("CONVMODEL_TEST_DATA")
    if not folder:
        pytest.skip("CONVMODEL_TEST_DATA is not set")
    return Path(folder) / "gpt2-tokenizer"


def test_seed_table_with_gpt2_own_vocabulary(gpt2_files: Path, tmp_path: Path) -> None:
    tokenizer = GPT2Tokenizer(str(gpt2_files / "vocab.json"), str(gpt2_files / "merges.txt"))
    assert ConversationTokenizer(tokenizer)(["Hello", "How are you"]) == SEED_TABLE
    tokenizer.save_pretrained(tmp_path)
    assert ConversationTokenizer.from_pretrained(str(tmp_path))(["Hello", "How are you"]) == SEED_TABLE


def test_a_tokenizer_with_neither_sep_nor_eos_gets_a_sep_that_survives_reloading(tmp_path: Path) -> None:
    tokenizer = filler_gpt2_tokenizer()
    tokenizer.eos_token = tokenizer.bos_token = tokenizer.unk_token = None
    wrapped = ConversationTokenizer(tokenizer)
    assert wrapped.sep_token_id == 50257
    wrapped.save_pretrained(str(tmp_path))
    assert ConversationTokenizer.from_pretrained(str(tmp_path)).sep_token_id == 50257


def test_a_tokenizer_with_a_sep_of_its_own_keeps_it() -> None:
    tokenizer = filler_gpt2_tokenizer()
    tokenizer.add_special_tokens({"sep_token": "<s>"})
    assert ConversationTokenizer(tokenizer).sep_token_id == tokenizer.convert_tokens_to_ids("<s>")


def test_text_never_becomes_a_control_token(tiny: LanguageModel) -> None:
    sep_text = tiny.tokenizer.eos_token
    turns = ("a <sep> b", f"{sep_text}", f"x{sep_text}y", "[PAD] <s> </s> <|im_end|>")
    sequences = encode_conversations([Conversation(turns)], tiny.vocabulary, 10_000, "all")
    ids = sequences.ids.tolist()
    assert ids.count(tiny.sep_id) == len(turns) + 1
    parts: list[list[int]] = [[]]
    for token in ids[1:]:
        if token == tiny.sep_id:
            parts.append([])
        else:
            parts[-1].append(token)
    assert [tiny.tokenizer.decode(part) for part in parts[:-1]] == list(turns)


def test_the_fast_way_to_ids_gives_those_of_the_tokenizer_whatever_it_was_used_for_before(tiny: LanguageModel) -> None:
    texts = [
        "",
        " a ",
        "日本語 🙂\n\n",
        f"x{tiny.tokenizer.eos_token}y",
        *made_up_conversations(5)[0].turns,
        "long " * 99,
    ]
    expected = tiny.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    tiny.tokenizer(texts, padding=True, truncation=True, max_length=3)
    assert tiny.vocabulary.encode(texts) == expected


def test_a_large_conversation_does_not_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    class Counting(BytesTokenizer):
        def __call__(self, text: list[str], **options: Any) -> dict[str, list[list[int]]]:
            calls.append(len(text))
            return super().__call__(text, **options)

    sizes = (1, 50, 2, 3, 60, 4)
    conversations = [Conversation((f"a{size}", "b" * size), persona=f"p{size}") for size in sizes]
    whole = encode_conversations(conversations, BYTES, 100, "all")
    monkeypatch.setattr("convmodel_cli.data.encoding._CHARACTERS_PER_CALL", 40)
    parts = encode_conversations(conversations, Vocabulary(Counting(), 0), 100, "all")
    assert calls == [6, 9, 3]
    assert parts.ids.tolist() == whole.ids.tolist() and parts.conversations.tolist() == [0, 1, 2, 3, 4, 5]


def expected_windows(conversation: Conversation, max_length: int) -> list[tuple[list[int], list[int], list[bool]]]:
    """(ids, types, targets) of each window with a target, token by token."""
    persona = BYTES.encode_persona(conversation.persona)
    learned = learned_turns(conversation, "auto")
    turns = BYTES.encode(turns_to_encode(conversation.turns, conversation.persona))
    parts = [Part(np.array(ids, np.int32), n, learned[n]) for n, ids in enumerate(turns)]
    windows = []
    for window in cut_into_windows(parts, 1 + len(persona), max_length):
        if not any(part.learned for part in window):
            continue
        first = window[0].index % 2
        tokens = [(id_, first, False) for id_ in (BYTES.sep_id, *persona)]
        for part in window:
            tokens += [(id_, part.index % 2, part.learned) for id_ in part.ids.tolist()]
            tokens += [(BYTES.sep_id, 1 - part.index % 2, part.learned)] * part.closed
        ids, types, targets = (list(column) for column in zip(*tokens, strict=True))
        windows.append((ids, types, targets))
    return windows


def test_whole_conversations_and_windows_in_turn_are_what_they_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convmodel_cli.data.encoding._CHARACTERS_PER_CALL", 60)  # so that there are several chunks
    draw = random.Random(0)
    conversations = []
    for number in range(60):
        turns = tuple(
            "abcdefgh"[: draw.randrange(1, 9)] * draw.choice((1, 1, 1, 5)) for _ in range(draw.randrange(2, 7))
        )
        flags = tuple(draw.random() < 0.6 for _ in turns) if number % 2 else None
        conversations.append(Conversation(turns, learn=flags, persona="xyz" if number % 3 == 0 else ""))
    max_length = 24
    sequences = encode_conversations(conversations, BYTES, max_length, "auto")
    windows = [(n, *each) for n, own in enumerate(conversations) for each in expected_windows(own, max_length)]
    assert sequences.conversations.tolist() == [number for number, *_ in windows]
    for index, (_, *expected) in enumerate(windows):
        tokens = sequences[index]
        assert [tokens.ids.tolist(), tokens.types.tolist(), tokens.targets.tolist()] == expected
    assert 0 < sequences.num_cut < 60 and len(sequences) == len(windows)
    alone = [encode_conversations([own], BYTES, max_length, "auto").num_bytes.tolist() for own in conversations]
    assert sequences.num_bytes.tolist() == [each for own in alone for each in own]


@pytest.mark.parametrize(
    ("learn", "assistant", "expected"),
    [
        ("auto", None, (True, True, True)),
        ("auto", (False, True, False), (False, True, False)),
        ("all", (False, True, False), (True, True, True)),
        ("responses", None, (False, True, False)),
        ("responses", (True, False, True), (True, False, True)),
        ("last", None, (False, False, True)),
    ],
)
def test_learned_turns(learn: str, assistant: tuple[bool, ...] | None, expected: tuple[bool, ...]) -> None:
    assert learned_turns(Conversation(("a", "b", "c"), assistant), learn) == expected


def test_flags_of_the_record_win() -> None:
    conversation = Conversation(("a", "b"), assistant=(False, True), learn=(True, False))
    assert learned_turns(conversation, "last") == (True, False)


def test_targets_are_the_learned_turns_and_their_closing_seps_though_pad_and_sep_are_one() -> None:
    sequences = encode_conversations([Conversation(("ab", "c"))], BYTES, 100, "responses")
    assert sequences.targets.tolist() == [False, False, False, False, True, True]
    assert sequences.num_bytes.tolist() == [1]


def sequences_of(turns: tuple[str, ...], max_length: int, learn: str = "all", persona: str = "") -> Sequences:
    return encode_conversations([Conversation(turns, persona=persona)], BYTES, max_length, learn)


def spelled(sequences: Sequences, index: int) -> str:
    """A sequence of bytes as text, each sep as a bar."""
    return "".join("|" if token == 0 else chr(token - 1) for token in sequences[index].ids.tolist())


@pytest.mark.parametrize("max_length", [12, 13, 16, 24, 40, 1000])
@pytest.mark.parametrize("learn", ["all", "responses", "last"])
@pytest.mark.parametrize("persona", ["", "me"])
def test_windows_train_every_target_once_in_order(max_length: int, learn: str, persona: str) -> None:
    for conversation in made_up_conversations(60, longest_turn=12, seed=max_length):
        sequences = sequences_of(conversation.turns, max_length, learn, persona)
        wanted = []
        learned = learned_turns(conversation, learn)
        for turn, is_learned in zip(conversation.turns, learned, strict=True):
            if is_learned:
                wanted += [1 + byte for byte in turn.encode()] + [0]
        assert sequences.ids[sequences.targets].tolist() == wanted
        assert sequences.lengths.max() <= max_length
        for index in range(len(sequences)):
            assert sequences[index].targets.any()
            assert sequences[index].ids[0] == 0
            if persona:
                assert spelled(sequences, index).startswith("|me\n")
                assert not sequences[index].targets[1:4].any()
        assert sequences.num_bytes.sum() == sum(
            len(turn) for turn, is_learned in zip(conversation.turns, learned, strict=True) if is_learned
        )


@pytest.mark.parametrize("excess", [1, 9 * 40])
def test_a_conversation_beyond_the_context_keeps_every_target_and_every_closing_sep(excess: int) -> None:
    turns = ("abcdefghi",) * ((40 + excess - 3) // 10)
    turns = (*turns, "x" * (40 + excess - 10 * len(turns) - 2))  # with all seps, `40 + excess` tokens
    whole = sequences_of(turns, 1000)
    assert whole.lengths.tolist() == [40 + excess]
    assert len(sequences_of(turns, 40 + excess)) == 1
    windows = sequences_of(turns, 40)
    assert len(windows) == (2 if excess == 1 else 19)
    assert windows.ids[windows.targets].tolist() == whole.ids[whole.targets].tolist()
    assert windows.conversations.tolist() == [0] * len(windows)
    for index in range(len(windows)):
        assert windows[index].targets.any() and windows[index].targets[-1]
        assert windows[index].ids[-1] == 0
    assert windows.num_targets == sum(len(turn) + 1 for turn in turns)


def test_windows_show_earlier_turns_again_up_to_half_a_window() -> None:
    sequences = sequences_of(("aaaa", "bbbb", "ccc"), 12)
    assert len(sequences) == 2
    assert spelled(sequences, 1) == "|bbbb|ccc|"
    assert sequences[1].types.tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0, 1]
    assert sequences[1].targets.tolist() == [False] * 6 + [True] * 4


def test_a_persona_longer_than_half_a_window_is_refused() -> None:
    with pytest.raises(DataError, match="persona of less than half a window"):
        sequences_of(("a", "b"), 12, persona="someone with a long story")


@pytest.mark.parametrize("room", [4, 5, 9, 14, 100])
def test_context_is_the_newest_turns_that_fit(room: int) -> None:
    turns = [[1, 2], [3], [4, 5], [6], [7, 8, 9]]
    shown = encode_context(turns, [], 0, room)
    whole = encode_context(turns, [], 0, 1000)
    assert len(shown.ids) <= room
    assert shown.ids[0] == shown.ids[-1] == 0
    assert shown.dropped_turns % 2 == 0
    kept = len(shown.ids) - 1
    assert whole.ids[-kept:] == shown.ids[1:]
    assert whole.types[-kept:] == shown.types[1:]
    assert shown.cut_tokens == (1 if room == 4 else 0)
    assert (whole.dropped_turns, whole.cut_tokens) == (0, 0)


def test_context_is_a_prefix_of_the_training_encoding(tiny: LanguageModel) -> None:
    for persona in ("", "  I am a cat. "):
        for conversation in made_up_conversations(20):
            whole = encode_conversations(
                [Conversation(conversation.turns, persona=persona)], tiny.vocabulary, 1000, "all"
            )
            turns = tiny.vocabulary.encode(conversation.turns)
            persona_ids = tiny.vocabulary.encode_persona(persona)
            for shown in range(1, len(turns) + 1):
                context = encode_context(turns[:shown], persona_ids, tiny.sep_id, 1000)
                assert context.ids == whole.ids[: len(context.ids)].tolist()
                assert context.types == whole.types[: len(context.types)].tolist()


@pytest.mark.parametrize("persona", ["", " I am kind.\n"])
def test_chat_template_renders_to_the_training_ids(tiny: LanguageModel, tmp_path: Path, persona: str) -> None:
    save_everything_but_weights(tiny, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = [" leading", "two\n\nlines ", "'s odd", "123 ¿qué?", "日本語 🙂", "\n\n many"]
    messages = [{"role": "system", "content": persona}] if persona else []
    messages += [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
    for start in range(len(texts)):
        turns = texts[start:] + texts[:start]
        for index, turn in enumerate(turns):
            messages[index + bool(persona)]["content"] = turn
        expected = encode_conversations(
            [Conversation(tuple(turns), persona=persona)], tiny.vocabulary, 1000, "all"
        ).ids.tolist()
        assert tokenizer.apply_chat_template(messages, return_dict=False) == expected


def test_a_base_template_is_kept_beside_ours(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.tokenizer.chat_template = "theirs"
    save_everything_but_weights(tiny, tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    assert reloaded.chat_template["base"] == "theirs"
    assert "persona" in reloaded.chat_template["default"]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "GPT2Tokenizer"


def test_ids_are_stored_compactly() -> None:
    sequences = encode_conversations(made_up_conversations(10), BYTES, 64, "all")
    names = [str(part.dtype) for part in (sequences.ids, sequences.types, sequences.targets)]
    assert names == ["int32", "uint8", "bool"]
