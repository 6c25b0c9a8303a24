"""Named sizes of the encoders that keep them in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstwords.errors import ConfigError


def preset_of(name: str, presets: Mapping[str, dict[str, Any]], encoder: str) -> dict[str, Any]:
    """The settings called ``name``; ConfigError with the known names if there are none."""
    if name not in presets:
        raise ConfigError(f"No {encoder} size is called '{name}'.", mend=f"Sizes: {', '.join(presets)}.")
    return presets[name]
