"""Settings -> the stages that do it; and the stages as a command line names them."""

from __future__ import annotations

import re
from pathlib import Path

from firstwords.errors import TextError, UsageError
from firstwords.formatting.hotwords import HotwordLimits, Hotwords
from firstwords.formatting.number_table import load_table
from firstwords.formatting.numbers import Numbers
from firstwords.formatting.settings import STAGES, HotwordsConfig, PostConfig, StageName
from firstwords.formatting.stage import Formatter, Stage

_NONE = "none"
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")  # BCP 47


def build_formatter(config: PostConfig, *, language: str, folder: Path) -> Formatter:
    """Settings -> Formatter.

    Args:
        language: BCP 47, of the recipe.
        folder: what relative paths are relative to.
    """
    return Formatter([_stage(name, config, language, folder) for name in config.stages])


def recipe_formatter(config: PostConfig | None, *, language: str, folder: Path) -> Formatter | None:
    """The same; None where no stage is named."""
    if config is None or not config.stages:
        return None
    return build_formatter(config, language=language, folder=folder)


def _stage(name: StageName, config: PostConfig, language: str, folder: Path) -> Stage:
    match name:
        case "numbers":
            own = folder / config.numbers.table if config.numbers.table else None
            return Numbers(load_table(config.numbers.language or language, own))
        case "punctuation":
            from firstwords.formatting.punctuation import Punctuation  # imports torch
            from firstwords.formatting.punctuation_model import load_punctuator

            return Punctuation(load_punctuator(folder / config.punctuation.model))
        case "hotwords":
            hot = config.hotwords
            limits = HotwordLimits(hot.threshold, hot.unsure, hot.shortest)
            return Hotwords(hotword_phrases(hot, folder), limits)


def hotword_phrases(config: HotwordsConfig, folder: Path) -> tuple[str, ...]:
    """The phrases of the settings and of their file, each once."""
    listed = [*config.phrases, *(read_phrases(folder / config.file) if config.file else ())]
    return tuple(dict.fromkeys(phrase for text in listed if (phrase := " ".join(text.split()))))


def read_phrases(path: Path) -> list[str]:
    """A text file -> its lines, without the boosts that ``--phrases`` reads behind a tab."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TextError(f"'{path}' is no UTF-8 text.", mend="Save the phrases as UTF-8.") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise TextError(
            f"The phrases in '{path}' cannot be read: {reason}.", mend="Check the path of the file."
        ) from None
    phrases = [line for line in (line.partition("\t")[0] for line in text.splitlines()) if line.strip()]
    if not phrases:
        raise TextError(f"'{path}' holds no phrases.", mend="Write one a line.")
    return phrases


def named_stages(text: str, config: PostConfig | None) -> PostConfig:
    """``numbers,punctuation=FOLDER,hotwords=FILE`` -> the settings with these stages; ``none``: no stage.

    What stands behind ``=`` replaces the settings' own; paths become absolute. Of ``numbers`` it is
    a language (``numbers=en``) or a table: what looks like a language and is no file is one.
    """
    values = (config or PostConfig()).model_dump(mode="json")
    chosen: list[str] = []
    key_of = {"numbers": "table", "punctuation": "model", "hotwords": "file"}
    for part in text.split(","):
        name, sign, path = (side.strip() for side in part.partition("="))
        if name == _NONE and not sign and text.strip() == _NONE:
            continue
        if name not in STAGES:
            raise UsageError(
                f"--post {text}: '{name}' is no stage.",
                mend=f"Known: {', '.join(STAGES)}; several with commas. '{_NONE}' alone turns all off.",
            )
        if name in chosen or (sign and not path):
            what = "stands twice" if name in chosen else "has nothing behind ="
            raise UsageError(f"--post {text}: '{name}' {what}.", mend="Mend it.")
        chosen.append(name)
        if name == "numbers" and _LANGUAGE.fullmatch(path) and not Path(path).is_file():
            values[name] = {"language": path, "table": ""}
        elif path:
            values[name][key_of[name]] = str(Path(path).absolute())
            if name == "hotwords":
                values[name]["phrases"] = ()
    values["stages"] = chosen
    if "punctuation" in chosen and not values["punctuation"]["model"]:
        raise UsageError(
            f"--post {text}: stage 'punctuation' needs a model.",
            mend="Make one: 'firstwords punctuation train TEXT --to FOLDER'; then --post punctuation=FOLDER.",
        )
    if "hotwords" in chosen and not (values["hotwords"]["file"] or values["hotwords"]["phrases"]):
        raise UsageError(
            f"--post {text}: stage 'hotwords' needs phrases.",
            mend="Write them into a file, one a line, and give --post hotwords=FILE.",
        )
    return PostConfig.model_validate(values)
