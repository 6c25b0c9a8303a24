"""What architectures.py compares: encoders, heads and searches at about the size of a Zipformer."""

from __future__ import annotations

from typing import Any

CTC = {"ctc": {"kind": "ctc"}}
# How Zipformers are trained, and how the others are. With ScaledAdam as it is set for the former, a Conformer
# broke down in batches of 20 s (dev CER 70 %; 22 % so: LOG.md, 2026-11-21). --rates goes around these.
SCALED_ADAM: dict[str, Any] = {"optimizer": "scaled_adam", "schedule": {"kind": "eden", "lr": 0.045}}
ADAMW: dict[str, Any] = {"optimizer": "adamw", "schedule": {"kind": "cosine", "lr": 0.001}}
# Encoder settings on top of its preset, heads by kind, search.
VARIANTS: dict[str, dict[str, Any]] = {
    "zipformer": {"encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]}, "heads": CTC},
    "conformer": {"encoder": {"kind": "conformer"}, "heads": CTC},
    # Fewer frames and smaller kernels: arXiv:2305.05084, there with 256 channels.
    "fastconformer": {
        "encoder": {
            "kind": "conformer",
            "kernel": 9,
            "subsampling": {"factor": 8, "separable": True, "channels": 112},
        },
        "heads": CTC,
    },
    "squeezeformer": {"encoder": {"kind": "squeezeformer"}, "heads": CTC},
    "e_branchformer": {"encoder": {"kind": "e_branchformer"}, "heads": CTC},
    "transformer": {"encoder": {"kind": "transformer"}, "heads": CTC},
    "las": {
        "encoder": {"kind": "listener"},
        "heads": {"ctc": {"kind": "ctc", "weight": 0.3}, "speller": {"kind": "speller"}},
        "search": {"kind": "attention_beam"},
    },
    "quartznet": {"encoder": {"kind": "quartznet"}, "heads": CTC},
    "mobilenet": {"encoder": {"kind": "mobilenet"}, "heads": CTC},
    "resnet": {"encoder": {"kind": "resnet"}, "heads": CTC},
    "resnet, separable": {"encoder": {"kind": "resnet", "separable": True}, "heads": CTC},
    "lstm": {"encoder": {"kind": "lstm"}, "heads": CTC},
    "dnn": {"encoder": {"kind": "dnn"}, "heads": CTC},
    "zipformer, CR-CTC": {
        "encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]},
        "heads": {"ctc": {"kind": "ctc", "consistency": 0.2}},
    },
    "zipformer, AED+CTC": {
        "encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]},
        "heads": {
            "ctc": {"kind": "ctc", "weight": 0.3},
            "transformer_decoder": {"kind": "transformer_decoder"},
        },
        # Joint decoding with a decoder of so few passes: 34.9 % on yoruba's dev split (LOG.md, 2026-11-23).
        "search": {"kind": "rescoring"},
    },
    "zipformer, transducer": {
        "encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]},
        "heads": {"transducer": {"kind": "transducer"}},
        "search": {"kind": "transducer_greedy"},
    },
    "zipformer, TDT": {
        "encoder": {"kind": "zipformer", "dropout": [0.15, 0.1]},
        "heads": {"transducer": {"kind": "transducer", "loss": "full", "durations": [0, 1, 2, 3, 4]}},
        "search": {"kind": "transducer_greedy"},
    },
}


# What makes other encoders as large as the Zipformer of that name (S: 22 M), where their presets do not.
EQUAL: dict[str, dict[str, dict[str, Any]]] = {
    "S": {
        "conformer": {"dim": 256, "layers": 13, "feedforward": 1024, "subsampling": {"channels": 256}},
        "squeezeformer": {
            "dim": 256,
            "layers": 12,
            "feedforward": 1024,
            "reduce_at": 5,
            "recover_at": 11,
            "subsampling": {"channels": 256, "separable": True},
        },
        "e_branchformer": {"layers": 10, "subsampling": {"channels": 256}},
        "transformer": {"layers": 15, "feedforward": 2048, "subsampling": {"channels": 256}},
    }
}
