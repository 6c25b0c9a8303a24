"""Which search a recipe's settings mean. The one place that knows all searches."""

from __future__ import annotations

from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.greedy import GreedySearch
from firstwords.search.interface import CtcBeamConfig, GreedyConfig, Search, SearchConfig

__all__ = ["CtcBeamConfig", "GreedyConfig", "Search", "SearchConfig", "build_search"]


def build_search(config: GreedyConfig | CtcBeamConfig, frame_seconds: float) -> Search:
    """Settings and the seconds between two encoded frames -> a search."""
    match config:
        case GreedyConfig():
            return GreedySearch(frame_seconds)
        case CtcBeamConfig():
            return CtcBeamSearch(config, frame_seconds)
