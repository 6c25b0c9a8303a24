"""The Conformer encoder; docs/architecture.md draws the house."""

from firstwords.encoders.conformer.config import ConformerConfig
from firstwords.encoders.conformer.encoder import Conformer
from firstwords.encoders.conformer.streaming import ConformerState

__all__ = ["Conformer", "ConformerConfig", "ConformerState"]
