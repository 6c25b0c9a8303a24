"""Is a model one for the language that is asked for? Tags are BCP 47."""

from __future__ import annotations

from firstwords.errors import UsageError


def check_language(own: str, wanted: str | None) -> None:
    """UsageError where a model of language ``own`` is asked for another; "und" is any."""
    if wanted is not None and "und" not in (own, wanted) and _root(wanted) != _root(own):
        raise UsageError(
            f"This model was trained for '{own}', not for '{wanted}'.",
            mend="Leave the language out, or use a model of that language.",
        )


def _root(language: str) -> str:
    """The primary subtag: sw-KE -> sw."""
    return language.replace("_", "-").split("-")[0].lower()
