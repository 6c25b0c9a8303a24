"""A language model chooses among the readings of the search: of one utterance, or of a recording in order.

    recognizer = Recognizer.load("my-model")
    add_second_pass(recognizer, "my-llm", prompt="A harvest report.")      inference/rescored.py

Of a recording, each stretch is judged after the texts chosen before it (lm/llm_context.py), as many of the
last as fit into the model's context behind the domain prompt. What is carried into a group of windows depends
on the tokens so far alone, so a transcription that goes on after a kill gives what it would have given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from firstwords.config import Config
from firstwords.inference.transcript import Token, build_transcript
from firstwords.lm.llm_context import CarriedContext, ContextConfig
from firstwords.lm.llm_score import TextScore, TextScorer
from firstwords.lm.writing import Missing, doubts, pieces_with_letters
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import (
    AttentionBeamConfig,
    CtcBeamConfig,
    GreedyConfig,
    RescoringConfig,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
)
from firstwords.search.rescore import RescoreConfig, put_first, rescore
from firstwords.text.pieces import SPACE
from firstwords.text.tokenizer import Tokenizer

_PIECES = 8  # of the recogniser for one token of the language model, at most, in what is looked back at


class SecondPassConfig(Config):
    """How much the language model says, and what it is told."""

    rescore: RescoreConfig = RescoreConfig()
    context: ContextConfig = ContextConfig()


@final
class SecondPass:
    """Readings of one stretch or of several, best first -> the same readings in a better order.

    Args:
        prompt: domain text before everything else.
        name: what stands for the scorer where results are compared, such as the fingerprint of its folder.
        choose: texts and prompt -> the number of the best text or None; in place of scores, for a model that
            gives none.
    """

    def __init__(
        self,
        scorer: TextScorer,
        tokenizer: Tokenizer,
        config: SecondPassConfig | None = None,
        *,
        prompt: str = "",
        name: str = "",
        choose: Callable[[Sequence[str], str], int | None] | None = None,
    ) -> None:
        self.scorer = scorer
        self.choose = choose
        self.tokenizer = tokenizer
        self.config = config or SecondPassConfig()
        self.prompt = prompt
        self.cut = 0  # most tokens of the domain prompt that did not fit
        self.left_out = 0  # most texts said before that had no room beside it
        self.tokens = self.unknown = 0  # of all readings, and those that the scorer's tokenizer cannot write
        self.kept: dict[str, TextScore] | None = None  # set it to {} to have scores of chosen texts kept
        how = type(scorer).__name__ + ("" if choose is None else ", chooses")
        facts = "\n".join((name, prompt, self.config.model_dump_json(), how))
        self.identity = hashlib.sha256(facts.encode(errors="surrogatepass")).hexdigest()[:16]
        self._carried = CarriedContext(self.config.context)

    def doubts(self, name: str) -> list[str]:
        """What a user must be told of a scorer, called so, that cannot write what the recogniser writes."""
        written = [piece.replace(SPACE, "") for piece in pieces_with_letters(self.tokenizer).values()]
        words = "its tokenizer cannot write {count} of the {total} pieces with letters of this recogniser"
        missing = Missing(self.scorer.unwritten(written), len(written), words)
        return doubts(f"language model {name}", [missing])

    def alone(self, readings: Sequence[Hypothesis]) -> list[Hypothesis]:
        """Readings of an utterance, whose neighbours are not known."""
        return self._ordered(readings, self.prompt)

    def scores_of(self, texts: Sequence[str]) -> list[TextScore]:
        """Texts -> the score of each behind the prompt; of those that were chosen and ``kept``, that one.

        What was scored behind a prompt that had to be cut depends on the other readings, and is not kept.
        """
        kept = self.kept or {}
        missing = [text for text in dict.fromkeys(texts) if text not in kept]
        new = self.scorer.score(missing, self.prompt) if missing else []
        known = {**kept, **dict(zip(missing, new, strict=True))}
        return [known[text] for text in texts]

    def begin(self, tokens: Sequence[Token]) -> None:
        """What ``in_order`` follows: all tokens of the recording so far, none at its start."""
        self._carried = CarriedContext(self.config.context)
        most = self.config.context.tokens * _PIECES
        if not most:
            return
        heard = build_transcript(tokens[-most:], self.tokenizer, language="", duration=float("inf"), audio="")
        # What is looked back at may begin within a word.
        for segment in heard.segments[len(tokens) > most :]:
            self._carried = self._carried.after(segment.text, segment.confidence, self.scorer.token_count)

    def in_order(self, stretches: Sequence[Sequence[Hypothesis]]) -> list[list[Hypothesis]]:
        """Readings of stretches that follow each other; a stretch without any stays without."""
        chosen: list[list[Hypothesis]] = []
        for readings in stretches:
            ordered = self._ordered(readings, self._prompt_before(readings))
            if ordered:
                text = self._text(ordered[0])
                self._carried = self._carried.after(text, ordered[0].confidence, self.scorer.token_count)
            chosen.append(ordered)
        return chosen

    def note(self, scores: Sequence[TextScore]) -> None:
        """Remember what did not fit, and what the scorer's tokenizer cannot write."""
        self.cut = max(self.cut, *(score.prompt_cut for score in scores))
        self.tokens += sum(score.tokens for score in scores)
        self.unknown += sum(score.unknown for score in scores)

    # -- one step below

    def _text(self, reading: Hypothesis) -> str:
        return " ".join(self.tokenizer.decode(reading.tokens).split())

    def _prompt_before(self, readings: Sequence[Hypothesis]) -> str:
        """The domain prompt, and of what was said before as many of the last texts as fit behind it."""
        fitting = self._carried
        if fitting.texts and len(readings) > 1:
            texts = [self._text(reading) for reading in readings]
            while fitting.texts and self.scorer.prompt_cut(texts, fitting.prompt(self.prompt)):
                fitting = fitting.without_oldest()
            self.left_out = max(self.left_out, len(self._carried.texts) - len(fitting.texts))
        return fitting.prompt(self.prompt)

    def _ordered(self, readings: Sequence[Hypothesis], prompt: str) -> list[Hypothesis]:
        if len(readings) < 2:
            return list(readings)
        texts = [self._text(reading) for reading in readings]
        if self.choose is not None:
            distinct = list(dict.fromkeys(texts))
            choice = self.choose(distinct, prompt) if len(distinct) > 1 else None
            ordered = put_first(readings, 0 if choice is None else texts.index(distinct[choice]))
            return [_spread(ordered[0], readings[0]), *ordered[1:]]
        scores = self.scorer.score(texts, prompt)
        self.note(scores)
        ordered = rescore(readings, texts, scores, self.config.rescore)
        if self.kept is not None and prompt == self.prompt:
            chosen = self._text(ordered[0])
            score = scores[texts.index(chosen)]
            if not score.prompt_cut:
                self.kept[chosen] = score
        return [_spread(ordered[0], readings[0]), *ordered[1:]]


def _spread(chosen: Hypothesis, first: Hypothesis) -> Hypothesis:
    """A reading without times (attention tells only those of the best one) -> those of the first, shared out.

    Tokens without times would all stand at the start of a window, and be lost where windows are joined.
    """
    if chosen.times is not None or not chosen.tokens or not first.times or not first.ends:
        return chosen
    start, end = first.times[0], first.ends[-1]
    step = (end - start) / len(chosen.tokens)
    times = tuple(start + n * step for n in range(len(chosen.tokens)))
    return replace(chosen, times=times, ends=(*times[1:], end))


def n_best_search(config: SearchConfig) -> SearchConfig:
    """A recipe's search -> one that finds several readings.

    A greedy one becomes a beam search; one that gives a single reading gives all that its beam holds, and a
    beam of one becomes the usual one.
    """
    match config:
        case GreedyConfig():
            return CtcBeamConfig(language_model=config.language_model)
        case TransducerGreedyConfig():
            return TransducerBeamConfig(length_normalized=False, language_model=config.language_model)
        case CtcBeamConfig() | TransducerBeamConfig() | AttentionBeamConfig() | RescoringConfig():
            if config.n_best == 1 or config.beam == 1:
                beam = config.beam if config.beam > 1 else type(config)().beam
                config = config.with_(beam=beam, n_best=beam)
            if isinstance(config, TransducerBeamConfig):
                # Its scores are sums, its order that of means: what is added to is sums.
                return config.with_(length_normalized=False)
            return config
