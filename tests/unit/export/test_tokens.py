"""tokens.txt, and the guess of sherpa-onnx that loses letters."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_graphs import facts_of

from firstwords.errors import TextError
from firstwords.export.decode import TorchReader
from firstwords.export.make import Made
from firstwords.export.sherpa import has_sherpa, read_with_sherpa, shown
from firstwords.export.tokens import tokens_txt
from firstwords.export.tokens_file import looks_like_byte_bpe
from firstwords.model.selfcheck import synthetic_clip
from firstwords.text.tokenizer import BLANK


def test_blank_space_and_order() -> None:
    assert tokens_txt([BLANK, "▁", "a", "▁wa", "<0x0A>"]) == "<blk> 0\n▁ 1\na 2\n▁wa 3\n<0x0A> 4\n"


def test_a_piece_with_white_space_is_refused() -> None:
    with pytest.raises(TextError, match="piece 1"):
        tokens_txt([BLANK, "a b"])


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["a", "ƙ"], True),  # C6 99
        (["a", "ư"], True),  # C6 B0
        (["a", "ɓ", "ƙ"], False),  # C9 93 is above
        (["a", "é"], False),  # C3 A9: nothing reaches C6
        (["a", "▁", "▁wa", "▁ƙ"], True),  # E2 96 81 at the beginning of a piece does not count
        (["a▁", "ƙ"], False),  # elsewhere it does
        (["ok"], False),
    ],
)
def test_the_guess(pieces: list[str], expected: bool) -> None:
    assert looks_like_byte_bpe(pieces) is expected
    written = tokens_txt([BLANK, *pieces]).splitlines()
    assert len(written) == len(pieces) + 1 + expected
    assert not looks_like_byte_bpe(line.rpartition(" ")[0] for line in written)


@pytest.mark.skipif(not has_sherpa(), reason="sherpa-onnx is not installed")
@pytest.mark.parametrize("vowel", ["e", "▁e"])
def test_sherpa_loses_letters_without_the_guard_and_none_with_it(
    bundles: dict[str, Made], tmp_path: Path, vowel: str
) -> None:
    made, facts = bundles["ctc"], facts_of(bundles["ctc"])
    # The model of the tests writes ids 1 to 6; id 2 shall be the letter in question.
    pieces = [BLANK, "▁", "ƙ", vowel, "i", "o", "u", *(f"{i}" for i in range(100, 356))]
    clip = synthetic_clip(16000)
    tokens = TorchReader(facts, made.loaded.model).read(clip, 16000)
    assert 2 in tokens
    guarded, bare = tokens_txt(pieces), "".join(tokens_txt(pieces).splitlines(keepends=True)[:-1])
    found: dict[str, str] = {}
    for name, text in (("guarded", guarded), ("bare", bare)):
        folder = tmp_path / name
        shutil.copytree(made.folder, folder)
        (folder / "tokens.txt").write_text(text, encoding="utf-8")
        (said,) = read_with_sherpa(folder, facts, "fp32", [(clip, 16000)])
        assert said.pieces == shown(pieces, tokens)
        found[name] = said.text
    assert found["guarded"].split() == "".join(shown(pieces, tokens)).split()
    assert "ƙ" in found["guarded"]
    assert "ƙ" not in found["bare"]
