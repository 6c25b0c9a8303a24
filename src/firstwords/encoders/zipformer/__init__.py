"""The Zipformer encoder; docs/architecture.md draws the house."""

from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.encoders.zipformer.streaming import ZipformerState

__all__ = ["Zipformer", "ZipformerConfig", "ZipformerState"]
