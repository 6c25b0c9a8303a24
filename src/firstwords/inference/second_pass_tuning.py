"""Weights of a recogniser's second pass (rescored.py) chosen on dev."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from firstwords.data.manifest import Utterance
from firstwords.errors import UsageError
from firstwords.inference.heard import attempt_readings, with_reference
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.tuning import ERRORS, By, Progress
from firstwords.search.rescore import Candidate, TunedRescoring, candidates, tune_rescoring
from firstwords.search.tuning import check_split
from firstwords.text.normalize import normalizer


def tune_second_pass(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    *,
    split: str,
    by: By = "wer",
    any_split: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> TunedRescoring:
    """Dev utterances -> the weights of the recogniser's second pass (inference/rescored.py) that err least.

    Each utterance is judged alone. Utterances without a transcript or with unreadable audio are left out.
    """
    check_split(split, any_split=any_split)
    second = recognizer.second_pass
    if second is None:
        raise UsageError(
            "There is no second pass to tune.", mend="Add one: add_second_pass(recognizer, LLM)."
        )
    if second.choose is not None:
        raise UsageError(
            "The language model gives no log-probabilities, it chooses a reading: nothing is to be tuned.",
            mend="Leave it out here.",
        )
    score = normalizer(recognizer.recipe.text.scoring)
    spoken = with_reference(recognizer, utterances)
    options: list[list[Candidate]] = []
    for number, readings in enumerate(attempt_readings(recognizer, spoken)):
        if progress is not None:
            progress(Progress("second pass", number, len(spoken)))
        if isinstance(readings, list):
            texts = [" ".join(recognizer.tokenizer.decode(r.tokens).split()) for r in readings]
            said = second.scorer.score(texts, second.prompt)
            second.note(said)
            scored = [score(text) for text in texts]
            reference = score(spoken[number].text or "")
            options.append(candidates(readings, scored, said, reference, errors=ERRORS[by]))
    return tune_rescoring(options, split, any_split=any_split)
