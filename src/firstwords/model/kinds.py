"""THE table of kinds: the word a recipe uses -> the settings class and the module it builds.

The only file that knows all architectures. A new one is its own file and one line here; the law tests
(tests/laws) run over these tables by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import Discriminator, Tag

from firstwords.config import Config
from firstwords.encoders.conformer import Conformer, ConformerConfig
from firstwords.encoders.dnn import Dnn, DnnConfig
from firstwords.encoders.e_branchformer import EBranchformer, EBranchformerConfig
from firstwords.encoders.encoder import Encoder
from firstwords.encoders.listener import Listener, ListenerConfig
from firstwords.encoders.lstm import Lstm, LstmConfig
from firstwords.encoders.mobilenet import MobileNet, MobileNetConfig
from firstwords.encoders.quartznet import QuartzNet, QuartzNetConfig
from firstwords.encoders.resnet import ResNet, ResNetConfig
from firstwords.encoders.squeezeformer import Squeezeformer, SqueezeformerConfig
from firstwords.encoders.transformer import Transformer, TransformerConfig
from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.features.fbank import Fbank, FbankConfig
from firstwords.features.frontend import Frontend
from firstwords.features.mfcc import Mfcc, MfccConfig
from firstwords.features.waveform import Waveform, WaveformConfig
from firstwords.heads.attention.speller import SpellerConfig, SpellerHead
from firstwords.heads.attention.transformer import TransformerDecoderConfig, TransformerDecoderHead
from firstwords.heads.ctc import CtcConfig, CtcHead
from firstwords.heads.head import Head
from firstwords.heads.transducer.head import TransducerConfig, TransducerHead


@dataclass(frozen=True)
class Kind:
    """One architecture: its settings, and the call that builds it (arguments named by the table it is in)."""

    config: type[Config]
    build: Callable[..., Any]


# build(config) -> Frontend
FRONTENDS: dict[str, Kind] = {
    "fbank": Kind(FbankConfig, Fbank),
    "mfcc": Kind(MfccConfig, Mfcc),
    "waveform": Kind(WaveformConfig, Waveform),
}
# build(config, input_dim) -> Encoder
ENCODERS: dict[str, Kind] = {
    "zipformer": Kind(ZipformerConfig, Zipformer),
    "quartznet": Kind(QuartzNetConfig, QuartzNet),
    "mobilenet": Kind(MobileNetConfig, MobileNet),
    "resnet": Kind(ResNetConfig, ResNet),
    "lstm": Kind(LstmConfig, Lstm),
    "dnn": Kind(DnnConfig, Dnn),
    "conformer": Kind(ConformerConfig, Conformer),
    "transformer": Kind(TransformerConfig, Transformer),
    "squeezeformer": Kind(SqueezeformerConfig, Squeezeformer),
    "e_branchformer": Kind(EBranchformerConfig, EBranchformer),
    "listener": Kind(ListenerConfig, Listener),
}
# build(config, dim, vocabulary) -> Head
HEADS: dict[str, Kind] = {
    "ctc": Kind(CtcConfig, CtcHead),
    "speller": Kind(SpellerConfig, SpellerHead),
    "transformer_decoder": Kind(TransformerDecoderConfig, TransformerDecoderHead),
    "transducer": Kind(TransducerConfig, TransducerHead),
}
# The name under which a recipe holds a head: two heads of one name exclude each other.
HEAD_NAMES: dict[str, str] = {
    "ctc": "ctc",
    "speller": "attention",
    "transformer_decoder": "attention",
    "transducer": "transducer",
}


def _head_kind(settings: Any) -> str:
    """The kind of head that settings mean; recipes of before need not say "ctc"."""
    if isinstance(settings, Mapping):
        return str(cast("Mapping[str, Any]", settings).get("kind", "ctc"))
    return str(getattr(settings, "kind", "ctc"))  # of what is no settings at all its check says so


# The same tables for the type checker and pydantic; discriminated by 'kind' where there are several.
FrontendSettings = FbankConfig | MfccConfig | WaveformConfig
EncoderSettings = (
    ZipformerConfig
    | ConformerConfig
    | TransformerConfig
    | SqueezeformerConfig
    | EBranchformerConfig
    | QuartzNetConfig
    | MobileNetConfig
    | ResNetConfig
    | LstmConfig
    | DnnConfig
    | ListenerConfig
)
HeadSettings = Annotated[
    Annotated[CtcConfig, Tag("ctc")]
    | Annotated[SpellerConfig, Tag("speller")]
    | Annotated[TransformerDecoderConfig, Tag("transformer_decoder")]
    | Annotated[TransducerConfig, Tag("transducer")],
    Discriminator(_head_kind),
]


def build_frontend(config: FrontendSettings) -> Frontend:
    """Front-end settings -> front end."""
    return FRONTENDS[config.kind].build(config)


def build_encoder(config: EncoderSettings, input_dim: int) -> Encoder:
    """Encoder settings and the width of the features -> encoder."""
    return ENCODERS[config.kind].build(config, input_dim)


def build_head(config: HeadSettings, dim: int, vocabulary: int) -> Head:
    """Head settings, encoder width and number of pieces (blank included) -> head."""
    return HEADS[config.kind].build(config, dim, vocabulary)
