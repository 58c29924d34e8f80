"""The knobs of generate and chat: how responses are drawn, and what surrounds them. The others are in `settings.py`."""

from __future__ import annotations

from dataclasses import dataclass

from convmodel_cli.knobs import check_limits, knob

# Options of transformers' generate that are not open, and why. The others are handed on.
_OWN_OPTIONS = {
    "max_new_tokens": "--max-new-tokens",
    "max_length": "--max-new-tokens",
    "min_new_tokens": "--min-new-tokens",
    "min_length": "--min-new-tokens",
    "temperature": "--temperature",
    "top_p": "--top-p",
    "top_k": "--top-k",
    "min_p": "--min-p",
    "repetition_penalty": "--repetition-penalty",
    "no_repeat_ngram_size": "--no-repeat-ngram",
    "num_beams": "--beams",
    "num_return_sequences": "-n",
    "stop_strings": "--stop-word",
}
_BY_MODEL = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
_FROM_HUB = (
    *("custom_generate", "trust_remote_code", "penalty_alpha", "dola_layers"),
    *("num_beam_groups", "diversity_penalty", "constraints", "force_words_ids"),
)
_CLOSED_OPTIONS = (
    {key: f"has an option of its own here, {flag}" for key, flag in _OWN_OPTIONS.items()}
    | dict.fromkeys(_BY_MODEL, "is decided by the model")
    | dict.fromkeys(_FROM_HUB, "runs code from the hub, which is never done here")
)


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Sampling"""

    temperature: float = knob(0.8, "Below 1 is safer, above 1 is wilder.", at_least=0.01)
    top_p: float = knob(0.95, "Keep the likeliest tokens that make up this share.", above=0, at_most=1)
    top_k: int = knob(50, "Keep this many of the likeliest tokens; 0 keeps all.", at_least=0)
    min_p: float = knob(0.0, "Drop tokens less likely than this share of the likeliest.", at_least=0, at_most=1)
    repetition_penalty: float | None = knob(
        None,
        "Above 1 makes repeating the response's own tokens less likely.",
        at_least=0.01,
        at_most=100,
        shown_default="1.1, with --greedy or --beams 1",
    )
    no_repeat_ngram: int = knob(0, "Never repeat a run of this many tokens in a response; 0 allows it.", at_least=0)
    max_new_tokens: int = knob(64, "Longest response in tokens.", at_least=1)
    min_new_tokens: int = knob(1, "Shortest response in tokens.", at_least=0)
    greedy: bool = knob(False, "Always take the likeliest token.", flags=("--greedy",))
    stop_word: tuple[str, ...] = knob((), "End the response in front of this text; repeatable.", metavar="TEXT")
    beams: int = knob(
        1, "Search the likeliest response with this many beams instead of sampling.", at_least=1, at_most=1000
    )
    generate_option: tuple[str, ...] = knob(
        (), "Any other option of transformers' generate; repeatable.", metavar="KEY=VALUE"
    )

    def __post_init__(self) -> None:
        if self.temperature == 0:
            raise ValueError("--temperature: expected more than 0, got 0; --greedy takes the likeliest token")
        check_limits(self)
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"--min-new-tokens: expected at most --max-new-tokens, {self.max_new_tokens}, got {self.min_new_tokens}"
            )
        if "" in self.stop_word:
            raise ValueError("--stop-word: expected text, got an empty string")
        for option in self.generate_option:
            key, equals, _ = option.partition("=")
            if not key or not equals:
                raise ValueError(f"--generate-option: expected key=value, got {option!r}")
            if key in _CLOSED_OPTIONS:
                raise ValueError(f"--generate-option: {key} {_CLOSED_OPTIONS[key]}")
            if key.startswith(("output_", "return_")):
                raise ValueError(f"--generate-option: {key} asks for more than responses, which are all that is shown")

    @property
    def penalty(self) -> float:
        """The repetition penalty in force: 1 is none."""
        if self.repetition_penalty is not None:
            return self.repetition_penalty
        return 1.0 if self.greedy or self.beams > 1 else 1.1

    @property
    def by_library(self) -> bool:
        """Whether only transformers' own generate can do this."""
        return self.beams > 1 or bool(self.generate_option)


@dataclass(frozen=True, slots=True)
class ResponseSettings:
    """Responses"""

    persona: str = knob("", "Who the model is to be, in front of every context.", metavar="TEXT")
    raw: bool = knob(
        False, "Write responses as they are, with control characters; never to a terminal.", flags=("--raw",)
    )

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Generation"""

    num_responses: int | None = knob(
        None,
        "Responses to each context, best mean log-probability first.",
        at_least=1,
        flags=("--num-responses", "-n"),
        shown_default="1; with --choices all",
    )
    self_chat: int | None = knob(
        None,
        "Let the model talk to itself for this many turns after each context; writes conversations for fit.",
        at_least=1,
        metavar="TURNS",
    )
    batch_size: int | None = knob(
        None, "Contexts answered together; never changes a response in fp32.", at_least=1, shown_default="auto"
    )

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """Chat"""

    bot_first: bool = knob(False, "The model says the first turn.", flags=("--bot-first",))
    no_history: bool = knob(False, "Keep no history of what was typed.", flags=("--no-history",))

    def __post_init__(self) -> None:
        check_limits(self)
