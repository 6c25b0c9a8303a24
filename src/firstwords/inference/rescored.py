"""A recogniser whose readings a language model chooses among."""

from __future__ import annotations

import os
from pathlib import Path

from firstwords.errors import UsageError
from firstwords.inference.heard import gives_one_reading
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.second_pass import SecondPass, SecondPassConfig, n_best_search
from firstwords.lm.llm_folder import Dtype, find_llm, llm_fingerprint
from firstwords.lm.llm_load import load_scorer
from firstwords.lm.llm_remote import RemoteLlm
from firstwords.lm.llm_score import LlmConfig

_LONGEST_PROMPT = 1 << 20  # bytes of a prompt file
_TEXT_FILES = (".txt", ".md", ".text")


def add_second_pass(
    recognizer: Recognizer,
    llm: Path | str,
    *,
    prompt: str = "",
    config: SecondPassConfig | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
) -> SecondPass:
    """Have a recogniser's readings chosen by a language model from now on.

    A greedy search is replaced by a beam search, since it finds one reading alone. Streams are not touched.

    Args:
        llm: a folder in Hugging Face format, or ``hub:ORGANISATION/NAME`` to download one.
        prompt: domain text, which is read before every utterance.
    """
    check_several(recognizer)
    config = config or SecondPassConfig()
    in_lines = bool(prompt.strip()) or config.context.tokens > 0
    folder = find_llm(llm)
    scorer = load_scorer(
        folder, device=device, dtype=dtype, config=LlmConfig(ending="separator" if in_lines else "eos")
    )
    made = SecondPass(scorer, recognizer.tokenizer, config, prompt=prompt, name=llm_fingerprint(folder))
    return _installed(recognizer, made)


def add_remote_pass(
    recognizer: Recognizer, llm: RemoteLlm, *, prompt: str = "", config: SecondPassConfig | None = None
) -> SecondPass:
    """The same with a model behind an endpoint, which is asked at once what it can do.

    Where it gives no log-probabilities of texts, it chooses among numbered readings (``SecondPass.choose``).
    """
    check_several(recognizer)
    scores = llm.gives_scores(prompt)
    made = SecondPass(
        llm,
        recognizer.tokenizer,
        config,
        prompt=prompt,
        name=f"{llm.config.url} {llm.config.model}",
        choose=None if scores else llm.choose,
    )
    return _installed(recognizer, made)


def check_several(recognizer: Recognizer) -> None:
    """UsageError for a recogniser that never has readings to choose among."""
    if gives_one_reading(recognizer):
        raise UsageError(
            "A transducer with durations gives one reading: a language model has nothing to choose from.",
            mend="Leave --rescore out.",
        )


def _installed(recognizer: Recognizer, made: SecondPass) -> SecondPass:
    recognizer.use(n_best_search(recognizer.search_config), recognizer.scorers)
    recognizer.second_pass = made
    return made


def _looks_like_a_file(given: str) -> bool:
    """The end of a text file's name, or one word in a folder."""
    return given.endswith(_TEXT_FILES) or (len(given.split()) == 1 and ("/" in given or os.sep in given))


def read_prompt(given: str) -> str:
    """What stands behind ``--prompt``: the name of a text file, or the text itself."""
    path = Path(given)
    try:
        if not path.is_file():
            if given and (path.is_dir() or _looks_like_a_file(given)):
                raise UsageError(
                    f"--prompt: there is no file '{given}'.",
                    mend="Check the path. If it is the text itself, write it as a sentence of several words.",
                )
            return given
        if path.stat().st_size > _LONGEST_PROMPT:
            raise UsageError(f"--prompt: '{path}' is longer than a megabyte.", mend="Give a shorter text.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--prompt: '{path}' is no UTF-8 text.", mend="Save it as UTF-8.") from None
    except PermissionError:
        raise UsageError(f"--prompt: '{path}' must not be read.", mend="Check your rights to it.") from None
    except (OSError, ValueError):  # a text too long for the name of a file, or with a NUL
        return given
