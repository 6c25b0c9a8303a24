"""bpe.vocab: how sherpa-onnx writes hot words in the pieces of a transducer's bundle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from firstwords.export.make import make_bundle
from firstwords.export.sherpa import has_sherpa
from firstwords.export.tokens import bpe_vocab
from firstwords.model.checkpoint import save_model
from firstwords.model.speech_model import SpeechModel
from firstwords.text.characters import GraphemeTokenizer
from firstwords.text.given import GivenTokenizer
from firstwords.text.pieces import BYTES
from firstwords.text.subwords import SubwordConfig, SubwordTokenizer
from firstwords.text.tokenizer import BLANK, Tokenizer
from streaming_model import CARD, causal_recipe, talk

TEXTS = ["we went by train", "in the rain they went", "nairobi lies in kenya"] * 10
HOT = "in"  # few pieces: sherpa-onnx takes four tokens a frame before it adds what hot words are worth
HEADS = {
    "ctc": {"kind": "ctc"},
    "transducer": {"kind": "transducer", "predictor": {"kind": "stateless", "dim": 16}, "joiner_dim": 24},
}


HEAR = """
import sys
import numpy as np
import sherpa_onnx
folder, words, sound = sys.argv[1:]
parts = {part: f"{folder}/{part}.onnx" for part in ("encoder", "decoder", "joiner")}
recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
    **parts, tokens=f"{folder}/tokens.txt", decoding_method="modified_beam_search", modeling_unit="bpe",
    bpe_vocab=f"{folder}/bpe.vocab", hotwords_file=words, hotwords_score=12.0)
stream = recognizer.create_stream()
stream.accept_waveform(16000, np.load(sound))
recognizer.decode_stream(stream)
print("heard", stream.result.text)
"""


def tokenizer_of(kind: str) -> Tokenizer:
    if kind == "graphemes":
        return GraphemeTokenizer.train(TEXTS)
    model = "bpe" if kind == "bpe" else "unigram"
    return SubwordTokenizer.train(TEXTS, SubwordConfig(model=model, vocabulary=30))


def listed(content: str) -> dict[str, float]:
    rows = [line.split("\t") for line in content.splitlines()]
    return {piece: float(score) for piece, score in rows}


def best_pieces(word: str, scores: dict[str, float]) -> list[str]:
    """The pieces with the greatest sum, by trying all ways."""
    ways = [[word[:n], *best_pieces(word[n:], scores)] for n in range(1, len(word) + 1) if word[:n] in scores]
    return max(ways, key=lambda way: sum(scores[p] for p in way), default=[])


@pytest.mark.parametrize("kind", ["unigram", "bpe", "graphemes"])
def test_words_are_written_as_the_tokenizer_writes_them(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    scores = listed(bpe_vocab(tokenizer))
    assert not {BLANK, *BYTES} & scores.keys()
    assert scores.keys() == {*tokenizer.pieces} - {BLANK, *BYTES}
    for word in ("we", "nairobi", "train"):
        own = [tokenizer.pieces[token] for token in tokenizer.encode(f"in {word}")]
        spoken = own[own.index("▁") :] if kind == "graphemes" else own
        start = (
            next(n for n, piece in enumerate(spoken) if n and piece.startswith("▁")) if spoken == own else 0
        )
        assert best_pieces(f"▁{word}", scores) == spoken[start:]


def test_pieces_that_are_no_text_are_left_out() -> None:
    tokenizer = GivenTokenizer([BLANK, "<unk>", "▁a", "b"])
    assert listed(bpe_vocab(tokenizer)).keys() == {"▁a", "b"}


@pytest.mark.skipif(not has_sherpa(), reason="sherpa-onnx is not installed")
@pytest.mark.parametrize("kind", ["unigram", "bpe", "graphemes"])
def test_sherpa_hears_a_word_that_it_was_told(kind: str, tmp_path: Path) -> None:
    """In each frame the pieces of the words are less likely than the blank, all others hardly at all."""
    tokenizer = tokenizer_of(kind)
    torch.manual_seed(0)
    model = SpeechModel(causal_recipe(heads=HEADS), len(tokenizer.pieces)).eval()
    wanted = tokenizer.encode(f"{HOT} {HOT}")  # twice: letters begin without a space
    likely = torch.full((len(tokenizer.pieces),), -20.0)
    likely[wanted], likely[0] = -6.0, 0.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("joiner.output.weight"):
                parameter.zero_()
            elif name.endswith("joiner.output.bias"):
                parameter.copy_(likely)
    save_model(tmp_path / "model", model, tokenizer, card=CARD)
    folder = make_bundle(tmp_path / "model", tmp_path / "bundle", kind="transducer").folder
    np.save(tmp_path / "talk.npy", talk(2))
    (tmp_path / "words.txt").write_text(f"{HOT}\n", encoding="utf-8")

    def heard(words: str) -> tuple[str, str]:
        orders = [sys.executable, "-c", HEAR, str(folder), words, str(tmp_path / "talk.npy")]
        done = subprocess.run(orders, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout.splitlines()[-1].removeprefix("heard").strip(), done.stderr

    assert heard("")[0] == ""
    text, told = heard(str(tmp_path / "words.txt"))
    assert HOT in text
    assert "encode" not in told
