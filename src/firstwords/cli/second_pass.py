"""The options by which a language model chooses among readings, the same for every verb."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from firstwords.inference.recognizer import Recognizer
    from firstwords.lm.llm_remote import RemoteConfig
    from firstwords.search.rescore import RescoreConfig

_MANY_UNKNOWN = 0.05  # of the tokens
MODEL_VARIABLE, KEY_VARIABLE = "FIRSTWORDS_LLM_MODEL", "FIRSTWORDS_LLM_KEY"

Rescore = Annotated[
    str | None,
    typer.Option(
        "--rescore",
        help="Let this language model choose among the readings: a folder in Hugging Face format, "
        "or hub:NAME to download one.",
        metavar="LLM",
    ),
]
RescoreUrl = Annotated[
    str | None,
    typer.Option(
        "--rescore-url",
        help="In place of --rescore: an OpenAI-compatible server, to which readings are sent as text; "
        f"model and key from {MODEL_VARIABLE} and {KEY_VARIABLE}.",
        metavar="URL",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", help="With --rescore: a text of the domain, or a file that holds one."),
]
RescoreWeight = Annotated[
    float | None,
    typer.Option(
        "--rescore-weight", help="With --rescore: how much the language model says; default 0.3.", min=0.0
    ),
]
RescoreBonus = Annotated[
    float | None,
    typer.Option("--rescore-bonus", help="With --rescore: nats for every word, against lost words."),
]
RescoreLength = Annotated[
    float | None,
    typer.Option(
        "--rescore-length",
        help="With --rescore: scores are divided by (tokens to this power); 0, the default: sums, 1: means.",
        min=0.0,
        max=1.0,
    ),
]


@dataclass(frozen=True, kw_only=True)
class SecondPassOptions:
    """What --rescore, --rescore-url, --prompt and the weights were given."""

    llm: Rescore = None
    url: RescoreUrl = None
    prompt: Prompt = None
    weight: RescoreWeight = None
    bonus: RescoreBonus = None
    length: RescoreLength = None

    @property
    def given(self) -> bool:
        """Shall a language model choose?"""
        return self.llm is not None or self.url is not None

    def check(self, *, stream: bool) -> None:
        """Which options go together."""
        from firstwords.errors import UsageError

        numbers = {
            "--rescore-weight": self.weight,
            "--rescore-bonus": self.bonus,
            "--rescore-length": self.length,
        }
        given = {"--prompt": self.prompt, **numbers}
        if not self.given and (lone := [name for name, value in given.items() if value is not None]):
            raise UsageError(f"{lone[0]} belongs to --rescore.", mend="Name a language model with --rescore.")
        if self.llm is not None and self.url is not None:
            raise UsageError(
                "--rescore and --rescore-url exclude each other: one is a model here, one a server.",
                mend=f"Leave one out; the model of a server is named by {MODEL_VARIABLE}.",
            )
        for name, value in numbers.items():
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{name} {value}: no number.", mend="Give one such as 0.3.")
        if stream and self.given:
            raise UsageError(
                f"{self._option} needs whole utterances: it cannot be used with --stream.",
                mend="Leave one out.",
            )
        if self.url is not None:
            _remote_settings(self.url)

    def apply(self, recognizer: Recognizer, device: str, say: Callable[[str], None]) -> None:
        """Load the language model, if one was named, have it choose, and say what that changes."""
        if not self.given:
            return
        from firstwords.errors import UsageError
        from firstwords.inference.fused import closed_vocabulary_off
        from firstwords.inference.rescored import add_remote_pass, add_second_pass, read_prompt
        from firstwords.inference.second_pass import SecondPassConfig
        from firstwords.search.rescore import RescoreConfig

        named = {"weight": self.weight, "word_bonus": self.bonus, "length_power": self.length}
        weights = {name: value for name, value in named.items() if value is not None}
        config = SecondPassConfig(rescore=RescoreConfig().with_(**weights))
        prompt = read_prompt(self.prompt) if self.prompt is not None else ""
        if self.prompt is not None and not prompt.strip():
            raise UsageError("--prompt: there is no text in it.", mend="Give one, or leave --prompt out.")
        closed = recognizer.reader.closed_words
        if self.url is None:
            assert self.llm is not None
            made = add_second_pass(recognizer, self.llm, prompt=prompt, config=config, device=device)
            for line in made.doubts(self.llm):
                say(line)
        else:
            from firstwords.lm.llm_remote import RemoteLlm

            remote = RemoteLlm(_remote_settings(self.url), lambda line: typer.echo(line, err=True))
            made = add_remote_pass(recognizer, remote, prompt=prompt, config=config)
            if made.choose is not None:
                off = " Weights do nothing." if weights else ""
                say(f"{self.url} gives no log-probabilities: it chooses among numbered readings.{off}")
        for line in closed_vocabulary_off(recognizer, closed):
            say(line)

    def words(self, recognizer: Recognizer) -> list[str]:
        """Who chooses among what and with which weights; nothing where nobody does, or without weights."""
        from firstwords.search.search import search_words

        made = recognizer.second_pass
        if not self.given or made is None or made.choose is not None:
            return []
        config = made.config.rescore
        origin = "as given" if self.weight is not None else "not measured: docs/llm-rescoring.md"
        parts = f"weight {config.weight:g}, bonus {config.word_bonus:g}, length {config.length_power:g}"
        among = search_words(recognizer.search_config)
        return [f"Language model {self.named} chooses among the readings of {among}: {parts} ({origin})."]

    @property
    def named(self) -> str:
        """The language model, for people."""
        return self.llm or f"{os.environ.get(MODEL_VARIABLE, '')} at {self.url}"

    @property
    def as_typed(self) -> str:
        """What names it on a command line, the prompt with it."""
        from firstwords.errors import quoted

        model = f"--rescore-url {quoted(self.url)}" if self.llm is None else f"--rescore {quoted(self.llm)}"
        return model if self.prompt is None else f"{model} --prompt {quoted(self.prompt)}"

    @property
    def note(self) -> str:
        """For a report: what its reader must know."""
        told = " after a domain prompt" if self.prompt else ""
        return f"Readings were chosen by the language model {self.named}{told}." if self.given else ""

    def tell(self, recognizer: Recognizer, say: Callable[[str], None]) -> None:
        """Say what did not fit."""
        made = recognizer.second_pass
        if made is None:
            return
        if made.unknown > _MANY_UNKNOWN * made.tokens:
            say(
                f"{100 * made.unknown / made.tokens:.0f} % of what the language model was shown is unknown "
                "to its tokenizer: it cannot tell such words apart."
            )
        if cut := made.cut:
            say(f"The prompt does not fit into the language model: its first {cut} tokens were left out.")
        if made.left_out:
            say(
                "What was said before does not all fit into the language model: up to "
                f"{made.left_out} of the texts carried, the oldest, were left out."
            )

    @property
    def _option(self) -> str:
        return "--rescore" if self.url is None else "--rescore-url"


def weight_options(config: RescoreConfig) -> str:
    """The weights of a second pass as they are typed; without those that are as if not given."""
    found = f"--rescore-weight {config.weight:g}"
    if config.word_bonus:
        found += f" --rescore-bonus {config.word_bonus:g}"
    return found + (f" --rescore-length {config.length_power:g}" if config.length_power else "")


def _remote_settings(url: str) -> RemoteConfig:
    """The address and what the environment says of the server; UsageError before anything is sent."""
    from firstwords.config import parse_config
    from firstwords.errors import ConfigError, UsageError
    from firstwords.lm.llm_remote import RemoteConfig

    model = os.environ.get(MODEL_VARIABLE, "").strip()
    if not model:
        raise UsageError(
            f"--rescore-url: the environment variable {MODEL_VARIABLE} names no model.",
            mend=f"Set it to a name that the server knows; a key, if it wants one, in {KEY_VARIABLE}.",
        )
    settings = {"enabled": True, "url": url, "model": model, "key_variable": KEY_VARIABLE}
    try:
        return parse_config(settings, RemoteConfig, name="remote", source="--rescore-url")
    except ConfigError:
        raise UsageError(
            f"--rescore-url '{_shown(url)}' is no address of a server.",
            mend="Give one like https://host/v1, without name or password; a key belongs into "
            f"{KEY_VARIABLE}.",
        ) from None


def _shown(url: str) -> str:
    """An address without what may be a password."""
    return url.rpartition("@")[2] if "@" in url else url
