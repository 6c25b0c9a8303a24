"""Language models of a few thousand random weights with a tokenizer, saved as their libraries save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip(
    "transformers", reason='transformers is not installed: pip install "firstwords[llm]"'
)

WORDS = tuple("anna bob cat dog eats fish goes home in on the it says woof meow today to town zebra".split())  # noqa: SIM905
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]


def tokenizer(kind: str = "words") -> Any:
    """kind: "words" (one token a word, a line end is one, too), "letters" (one token a letter)."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    letters = sorted({c for word in WORDS for c in word} | {" ", "\n"})
    pieces = [*SPECIAL, "\n", *WORDS] if kind == "words" else [*SPECIAL, *letters]
    raw = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    pattern = Regex(r"\n|[^\s]+") if kind == "words" else Regex(r"[\s\S]")
    split = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    raw.pre_tokenizer = split if kind == "words" else pre_tokenizers.Split(pattern, behavior="isolated")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
    )


def model(kind: str, vocabulary: int, *, positions: int = 128, width: int = 16, seed: int = 0) -> Any:
    """A random model, its weights large enough that every token is expected differently."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "intermediate_size": 2 * width}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": positions}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    match kind:
        case "llama":
            config = transformers.LlamaConfig(**sizes, **layers, **ids)
        case "mistral":  # sees eight tokens back
            config = transformers.MistralConfig(
                **sizes, **layers, **ids, num_key_value_heads=1, sliding_window=8
            )
        case "gpt2":
            config = transformers.GPT2Config(
                vocab_size=vocabulary, n_embd=width, n_layer=2, n_head=2, n_positions=positions, **ids
            )
        case "bloom":  # no positions of its own
            config = transformers.BloomConfig(
                vocab_size=vocabulary, hidden_size=width, n_layer=2, n_head=2, **ids
            )
        case "bert":
            config = transformers.BertConfig(**sizes, **layers, **ids)
        case "roberta":
            config = transformers.RobertaConfig(**sizes, **layers, **ids)
        case _:
            raise ValueError(kind)
    masked = kind in {"bert", "roberta"}
    kinds = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    made = kinds.from_config(config)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, 0.3)
    return made.eval()


def save(folder: Path, kind: str, *, letters: bool = False, **sizes: Any) -> Path:
    """Write a model and its tokenizer."""
    own = tokenizer("letters" if letters else "words")
    model(kind, len(own), **sizes).save_pretrained(folder)
    own.save_pretrained(folder)
    return folder
