"""THE table of what can be cut: encoder -> function that names its groups. One file per family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from firstwords.compression.families.attention import attention_groups
from firstwords.compression.families.convolutional import mobilenet_groups, quartznet_groups, resnet_groups
from firstwords.compression.families.recurrent import dnn_groups, listener_groups, lstm_groups
from firstwords.compression.families.zipformer import zipformer_groups
from firstwords.compression.groups import Group
from firstwords.encoders.conformer import Conformer
from firstwords.encoders.dnn import Dnn
from firstwords.encoders.e_branchformer import EBranchformer
from firstwords.encoders.encoder import Encoder
from firstwords.encoders.listener import Listener
from firstwords.encoders.lstm import Lstm
from firstwords.encoders.mobilenet import MobileNet
from firstwords.encoders.quartznet import QuartzNet
from firstwords.encoders.resnet import ResNet
from firstwords.encoders.squeezeformer import Squeezeformer
from firstwords.encoders.transformer import Transformer
from firstwords.encoders.zipformer import Zipformer
from firstwords.model.speech_model import SpeechModel

FAMILIES: dict[type[Encoder], Callable[[Any, str], Iterator[Group]]] = {
    Zipformer: zipformer_groups,
    Conformer: attention_groups,
    Squeezeformer: attention_groups,
    EBranchformer: attention_groups,
    Transformer: attention_groups,
    Listener: listener_groups,
    Lstm: lstm_groups,
    Dnn: dnn_groups,
    QuartzNet: quartznet_groups,
    MobileNet: mobilenet_groups,
    ResNet: resnet_groups,
}


def groups_of(model: SpeechModel) -> list[Group]:
    """Everything that can be cut from a model as it is; empty where nothing is known of its encoder."""
    family = FAMILIES.get(type(model.encoder))
    return [] if family is None else list(family(model.encoder, "encoder."))
