"""The stages of formatting that a bundle holds."""

from __future__ import annotations

from firstwords.export.check_bundle import Bundle
from firstwords.formatting.stage import Formatter


def own_stages(bundle: Bundle) -> Formatter | None:
    """What bundle.json names, with its phrases and its table of numbers; None where it names nothing."""
    if not bundle.facts.post.stages:
        return None
    from firstwords.formatting.build import recipe_formatter  # most bundles start without it

    return recipe_formatter(bundle.facts.post, language=bundle.facts.language, folder=bundle.folder)
