"""A conversation with a model: its state after anything that may be done to it equals a fresh computation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from test_generation import own_generate

from conftest import TALKS
from convmodel_cli.answer_events import Dropped, Response
from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.data.context import seldom_moving_start
from convmodel_cli.data.encoding import encode_conversations
from convmodel_cli.data.formats import Conversation
from convmodel_cli.errors import UsageError
from convmodel_cli.model.generation import Context, Memory
from convmodel_cli.model.gpt2_decoding import Gpt2
from convmodel_cli.settings import ComputeSettings
from convmodel_cli.workflows.answer import Responder, open_responder
from convmodel_cli.workflows.chat import Chat, open_chat
from convmodel_cli.workflows.chat_files import conversation_of

QUESTIONS = [talk[0] for talk in TALKS] + [talk[2] for talk in TALKS if len(talk) > 2]
SIX = ["Hi!", "What do you eat?", "Tell me a joke.", "Where do you live?", "And to drink?", "Good night!"]


@pytest.fixture(scope="module")
def responder(trained: str) -> Responder:
    """Greedy, and allowed to look further back than it has learned to."""
    sampling = SamplingSettings(greedy=True, max_new_tokens=12)
    opened = open_responder(trained, sampling, ComputeSettings(device="cpu", precision="fp32"))
    return replace(opened, max_context=400)


def chat_with(responder: Responder, max_context: int = 400, **sampling: Any) -> Chat:
    changed = replace(responder.sampling, **sampling)
    return open_chat(replace(responder, max_context=max_context, sampling=changed))


def context_by_hand(chat: Chat, turns: Sequence[Sequence[int]]) -> Context:
    """The context in front of the last turn, spelled out as in training."""
    sep = chat.responder.model.sep_id
    ids, types = [sep], [0]
    for index, turn in enumerate(turns[:-1]):
        ids += [*turn, sep]
        types += [index % 2] * len(turn) + [1 - index % 2]
    return Context(tuple(ids), tuple(types), chat.responder.sampling.max_new_tokens)


def answer_afresh(chat: Chat) -> tuple[int, ...]:
    """The last response of a chat, computed anew by another chat that has only the turns before it."""
    fresh = open_chat(chat.responder, chat.persona, chat.bot_first)
    fresh.turns = chat.turns[:-2]
    list(fresh.say(chat.turns[-2].text))
    return fresh.turns[-1].ids


def test_chat_equals_generation_on_its_history_token_by_token(responder: Responder) -> None:
    chat = chat_with(responder)
    for text in SIX:
        list(chat.say(text))
        context = context_by_hand(chat, [list(turn.ids) for turn in chat.turns])
        [[written]] = responder.answer([context])
        assert chat.turns[-1].ids == written.ids == tuple(own_generate(responder.model, context, 12))
    assert len(chat.turns) == 12


def undo(chat: Chat, dice: random.Random) -> None:
    chat.undo(dice.randint(1, min(2, len(chat.turns) // 2)))


def retry(chat: Chat, dice: random.Random) -> None:
    list(chat.retry())


def interrupt(chat: Chat, dice: random.Random) -> None:
    after = dice.randint(1, 4)
    for number, _ in enumerate(chat.say(dice.choice(QUESTIONS)), 1):
        if number >= after:
            chat.stop()


def pick(chat: Chat, dice: random.Random) -> None:
    list(chat.propose(2))
    chat.pick(2)


def edit(chat: Chat, dice: random.Random) -> None:
    list(chat.edit(dice.choice(QUESTIONS)))


def fix(chat: Chat, dice: random.Random) -> None:
    chat.fix(dice.choice(QUESTIONS))


def change_persona(chat: Chat, dice: random.Random) -> None:
    chat.set_persona(dice.choice(["", "I am a cook.", "  Be kind. "]))


def load(chat: Chat, dice: random.Random) -> None:
    chat.put(Conversation(tuple(dice.choice(TALKS))))


def clear(chat: Chat, dice: random.Random) -> None:
    chat.clear()


def change_settings(chat: Chat, dice: random.Random) -> None:
    sampling = chat.responder.sampling
    changed = replace(
        sampling, greedy=not sampling.greedy, max_new_tokens=dice.choice([4, 12]), top_k=dice.choice([0, 9])
    )
    chat.adjust(replace(changed, stop_word=dice.choice([(), ("e",), ("Hello", "you")])), seed=dice.randint(0, 9))


def begin_anew(chat: Chat, dice: random.Random) -> None:
    chat.clear()
    chat.bot_first = not chat.bot_first
    if chat.bot_first:
        list(chat.begin())


COMMANDS = [undo, retry, interrupt, pick, edit, fix, change_persona, load, clear, change_settings, begin_anew]


def cached_tokens(chat: Chat) -> int:
    return 0 if chat.memory.cache is None else len(chat.memory.cache)


def next_answer(chat: Chat, memory: Memory | None, text: str) -> tuple[int, ...]:
    """What the chat would answer, without answering it."""
    turns = [*chat.turns, chat._turn(text, len(chat.turns))]
    context, _ = chat._context(turns)
    builder = [builder for _, builder in chat.responder.stream(context, memory)][-1]
    return builder.written().ids


@pytest.mark.parametrize("seed", [*range(16), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(16, 50))])
def test_after_random_commands_the_cached_answer_is_the_one_computed_afresh(responder: Responder, seed: int) -> None:
    dice = random.Random(seed)
    chat = chat_with(responder, max_context=96, greedy=seed % 2 == 0, temperature=1.3)
    for _ in range(8):
        list(chat.say(dice.choice(QUESTIONS)))
        assert chat.turns[-1].ids == answer_afresh(chat)
        dice.choice(COMMANDS)(chat, dice)
        assert cached_tokens(chat) == len(chat.memory.ids) == len(chat.memory.types)
        text = dice.choice(QUESTIONS)
        cached = next_answer(chat, chat.memory, text)
        assert cached == next_answer(chat, Memory(), text) == next_answer(chat, None, text)


def test_only_new_tokens_are_computed(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = chat_with(responder)
    for text in SIX[:4]:
        list(chat.say(text))
    computed: list[int] = []
    embed = Gpt2._embed_places

    def counting(self: Gpt2, ids: list[int], *rest: Any) -> torch.Tensor:
        computed.append(len(ids))
        return embed(self, ids, *rest)

    monkeypatch.setattr(Gpt2, "_embed_places", counting)
    list(chat.say("Good night!"))
    said, answered = chat.turns[-2:]
    # The sep that closed the last response, the turn and its sep; then each token of the response but the last sep.
    assert computed == [len(said.ids) + 2] + [1] * len(answered.ids)


def test_what_is_remembered_counts_only_with_its_types() -> None:
    memory = Memory([5, 6, 7], [0, 0, 1])
    assert memory.keep_common(Context((5, 6, 7, 8), (0, 1, 1, 1), 9)) == 1
    assert memory.ids == [5]


def test_a_loaded_conversation_says_again_what_is_dropped(responder: Responder) -> None:
    chat = chat_with(responder, max_context=64)
    long = Conversation(tuple(turn for talk in TALKS for turn in talk))
    for _ in range(2):
        chat.put(long)
        assert any(isinstance(event, Dropped) for event in chat.say("Hi!"))
        assert not any(isinstance(event, Dropped) for event in chat.say("Hi!"))


def test_a_response_that_was_cut_is_not_learned_unless_it_is_called_good(responder: Responder) -> None:
    chat = chat_with(responder, max_new_tokens=3)
    list(chat.say("Where do you live?"))
    assert conversation_of(chat).learn == (True, False)
    chat.mark(good=True)
    assert conversation_of(chat).learn == (True, True)


def test_a_conversation_with_roles_keeps_them(responder: Responder) -> None:
    chat = chat_with(responder)
    roles = Conversation(("Hi!", "Hello there."), assistant=(False, True))
    chat.put(roles)
    list(chat.say("How are you?"))
    kept = conversation_of(chat)
    assert (kept.assistant, kept.learn) == ((False, True, False, True), None)
    chat.put(Conversation(("Hi!", "Hello there."), assistant=(False, True), learn=(False, False)))
    list(chat.say("How are you?"))
    assert conversation_of(chat).learn == (False, False, False, True)


def test_a_retry_is_another_response_to_the_same_turns_and_repeats_from_the_start(responder: Responder) -> None:
    def course() -> list[tuple[int, ...]]:
        chat = chat_with(responder, greedy=False, temperature=4.0, top_p=1.0)
        list(chat.say("Hi!"))
        seen = [chat.turns[-1].ids]
        for _ in range(3):
            list(chat.retry())
            seen.append(chat.turns[-1].ids)
        return seen

    first = course()
    assert len(set(first)) == 4
    assert course() == first


def test_candidates_are_what_retries_would_give_and_one_can_be_picked(responder: Responder) -> None:
    chat = chat_with(responder, greedy=False, temperature=4.0, top_p=1.0)
    list(chat.say("Hi!"))
    proposed = list(chat.propose(3))
    other = chat_with(responder, greedy=False, temperature=4.0, top_p=1.0)
    list(other.say("Hi!"))
    for written in proposed:
        list(other.retry())
        assert other.turns[-1].ids == written.ids
    chat.pick(2)
    assert (chat.turns[-1].text, chat.turns[-1].ids) == (proposed[1].response.text, proposed[1].ids)
    chat.pick(3)  # another mind
    assert chat.turns[-1].ids == proposed[2].ids
    list(chat.say("Good night!"))
    with pytest.raises(UsageError, match="nothing to pick from"):
        chat.pick(1)


def test_a_stopped_response_stays_as_far_as_it_came(responder: Responder) -> None:
    chat = chat_with(responder)
    [*_, response] = stopped(chat, "Where do you live?")
    assert isinstance(response, Response)
    assert response.finish == "interrupted"
    assert chat.turns[-1].text == response.text and 0 < len(chat.turns[-1].ids) < 12


def stopped(chat: Chat, text: str) -> list[object]:
    events: list[object] = []
    for event in chat.say(text):
        chat.stop()
        events.append(event)
    return events


@pytest.mark.parametrize("max_context", [64, 65, 80])
def test_two_hundred_turns_drop_the_oldest_pairs_seldom_say_it_once_and_equal_generation_on_the_rest(
    responder: Responder, max_context: int
) -> None:
    chat = chat_with(responder, max_context)
    told = 0
    starts = []
    for number in range(100):
        told += sum(isinstance(event, Dropped) for event in chat.say(QUESTIONS[number % 4]))
        start = chat.context_use().dropped
        starts.append(start)
        if number % 10 == 9:
            assert start > 0 and start % 2 == 0
            cut = [list(turn.ids) for turn in chat.turns[start:]]
            context = context_by_hand(chat, cut)
            assert len(context.ids) + 12 <= max_context
            [[written]] = chat.responder.answer([context])
            assert chat.turns[-1].ids == written.ids
            text_context, dropped = chat.responder.context_of_text([turn.text for turn in chat.turns[start:-1]])
            assert dropped is None and text_context.ids == context.ids
    assert told == 1
    assert len(chat.turns) == 200
    kept = sum(before == after for before, after in pairwise(starts))
    assert kept >= len(starts) // 4, "the cache is thrown away at nearly every turn"


def test_a_wide_context_moves_its_start_seldom() -> None:
    moves = [seldom_moving_start([9] * count, 500) for count in range(1, 400, 2)]
    jumps = [after - before for before, after in pairwise(moves) if after > before]
    assert jumps and min(jumps) >= 12
    for count, start in zip(range(1, 400, 2), moves, strict=True):
        assert (count - start) * 10 <= 500
        assert start == 0 or (count - start) * 10 > 300


@pytest.mark.parametrize("length", [51, 52, 63, 64, 500])
def test_a_turn_as_long_as_the_context_is_cut_and_said(responder: Responder, length: int) -> None:
    chat = chat_with(responder, 64)
    model = responder.model
    [token] = model.vocabulary.encode(["a"])[0]
    text = str(model.tokenizer.decode([token] * length))
    count = len(model.vocabulary.encode([text])[0])
    dropped = [event for event in chat.say(text) if isinstance(event, Dropped)]
    room = 64 - 12 - 2
    assert [event.tokens_of_newest for event in dropped] == ([count - room] if count > room else [])
    list(chat.say("Hi!"))
    assert len(chat.turns) == 4


@pytest.mark.parametrize("persona", ["", "I am a cook."])
@pytest.mark.parametrize("bot_first", [False, True])
def test_what_the_chat_has_fed_is_a_prefix_of_the_training_encoding(
    responder: Responder, persona: str, bot_first: bool
) -> None:
    chat = open_chat(responder, persona, bot_first)
    if bot_first:
        list(chat.begin())
        chat.fix("Good day.")  # the model may open with tokens that its text is not encoded to
    checked = 0
    for text in ["Hi!", "What do you eat?", "And to drink?"]:
        list(chat.say(text))
        said = [turn.text for turn in chat.turns]
        if responder.encode(said, persona) != [list(turn.ids) for turn in chat.turns]:
            continue
        checked += 1
        conversation = Conversation(tuple(said), persona=persona)
        whole = encode_conversations([conversation], responder.model.vocabulary, 1000, "all")
        fed = len(chat.memory.ids)
        last_ended = len(chat.turns[-1].ids) < 12
        assert fed == len(whole.ids) - (1 if last_ended else 2)  # the last sep is not fed before the next turn
        assert chat.memory.ids == whole.ids[:fed].tolist()
        assert chat.memory.types == whole.types[:fed].tolist()
        assert cached_tokens(chat) == fed
    assert checked


def test_an_empty_response_keeps_what_was_said(responder: Responder) -> None:
    chat = chat_with(responder, min_new_tokens=0)
    model = responder.model
    sep = torch.nn.functional.one_hot(torch.tensor(model.sep_id), model.vocab_size) * 1e6
    head: Any = model.network.get_output_embeddings()
    hook = head.register_forward_hook(lambda *parts: parts[2] + sep)
    response = list(chat.say("Hi!"))[-1]
    hook.remove()
    assert isinstance(response, Response)
    assert (response.text, response.finish) == ("", "stop")
    assert [turn.text for turn in chat.turns] == ["Hi!", ""]
    list(chat.say("Good night!"))
    assert len(chat.turns) == 4


def test_a_chat_survives_an_error_inside_the_network(responder: Responder) -> None:
    chat = chat_with(responder)
    list(chat.say("Hi!"))
    network: Any = responder.model.network
    hook = network.transformer.h[1].register_forward_hook(lambda *_: 1 / 0)  # the first block has grown the cache
    with pytest.raises(ZeroDivisionError):
        list(chat.say("What do you eat?"))
    hook.remove()
    assert len(chat.turns) == 2
    list(chat.say("Good night!"))
    assert chat.turns[-1].ids == answer_afresh(chat)


@pytest.mark.parametrize(
    "refused",
    [
        lambda chat: chat.undo(3),
        lambda chat: chat.undo(0),
        lambda chat: chat.pick(1),
        lambda chat: chat.set_persona("word " * 500),
        lambda chat: chat.put(Conversation(("a", "b"), persona="word " * 500)),
    ],
)
def test_what_is_refused_leaves_everything_as_it_was(responder: Responder, refused: Any) -> None:
    chat = chat_with(responder)
    list(chat.say("Hi!"))
    list(chat.say("What do you eat?"))
    before = list(chat.turns), chat.persona, chat.bot_first
    with pytest.raises(UsageError):
        refused(chat)
    assert (list(chat.turns), chat.persona, chat.bot_first) == before


@pytest.mark.parametrize(
    "refused",
    [lambda c: c.undo(), lambda c: c.retry(), lambda c: c.edit("a"), lambda c: c.fix("a"), lambda c: c.mark(good=True)],
)
def test_nothing_can_be_done_to_what_was_not_said(responder: Responder, refused: Any) -> None:
    chat = chat_with(responder)
    with pytest.raises(UsageError, match="yet"):
        refused(chat)


def test_marks_and_corrections_become_learn_flags(responder: Responder) -> None:
    chat = chat_with(responder)
    for text in SIX[:3]:
        list(chat.say(text))
    assert conversation_of(chat).learn is None
    chat.mark(good=False)
    assert conversation_of(chat).learn == (True, True, True, True, True, False)
    chat.fix("I do know one.")
    assert conversation_of(chat).learn == (True,) * 6
    assert conversation_of(chat).turns[-1] == "I do know one."


def test_a_conversation_comes_back_as_it_was(responder: Responder) -> None:
    for bot_first in (False, True):
        chat = open_chat(responder, "I am a cook.", bot_first)
        if bot_first:
            list(chat.begin())
        list(chat.say("Hi!"))
        list(chat.say("What do you eat?"))
        chat.mark(good=False)
        kept = conversation_of(chat)
        other = open_chat(responder)
        assert other.put(kept) is None
        assert conversation_of(other) == kept
        assert other.bot_first == bot_first
