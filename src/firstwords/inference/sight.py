"""What a model sees in one utterance: features, the words it reads, CTC posteriors, attention.

For ``firstwords inspect`` and notebooks; report/picture.py draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from firstwords.audio.voices import equalized
from firstwords.audio.waveform import read
from firstwords.errors import UsageError
from firstwords.heads.head import TokenHead
from firstwords.inference.recognizer import Recognizer
from firstwords.tensors import Padded
from firstwords.text.pieces import SPACE

LONGEST = 60.0  # seconds: a picture of more could not be read


@dataclass(frozen=True)
class Sight:
    """One utterance as the model has it.

    Args:
        frames: (T, mels) features, ``frame_shift`` seconds apart.
        pieces: names of the vocabulary, blank first.
        words: (text, start, end) in seconds.
        posteriors: (T', V), ``encoded_shift`` seconds apart; None where no head is CTC.
        attention: (U, T') of the pieces ``written`` and the end; None where no head attends.
    """

    title: str
    frames: npt.NDArray[np.float32]
    frame_shift: float
    encoded_shift: float
    pieces: Sequence[str]
    words: Sequence[tuple[str, float, float]]
    posteriors: npt.NDArray[np.float32] | None = None
    attention: npt.NDArray[np.float32] | None = None
    written: Sequence[str] = ()


def look(recognizer: Recognizer, audio: Path, *, start: float = 0.0, duration: float | None = None) -> Sight:
    """A recording of at most a minute (or a stretch of it, in seconds) -> what the model sees in it."""
    model, rate = recognizer.model, recognizer.sample_rate
    read_as_is = read(
        audio, sample_rate=rate, channels=recognizer.channels, start=start, duration=duration
    ).samples
    seconds = len(read_as_is) / rate
    if seconds > LONGEST:
        raise UsageError(
            f"'{audio}': {seconds:.0f} s are too long for a picture (at most {LONGEST:.0f}).",
            mend="Name a stretch of it: --start 65 --duration 10",
        )
    names = [piece.replace(SPACE, "\u2423") for piece in recognizer.tokenizer.pieces]
    transcript = recognizer.transcribe_samples(read_as_is, rate, window=LONGEST)
    samples = equalized(read_as_is, rate) if recognizer.recipe.data.equalize else read_as_is
    with torch.inference_mode():
        place = recognizer.compute.device
        sound = Padded(torch.from_numpy(samples)[None].to(place), torch.tensor([len(samples)], device=place))
        frames = model.features(sound)
        encoded = model.encode_frames(frames)
        posteriors = None
        if model.ctc is not None:
            scores = model.ctc.log_probs(encoded)
            posteriors = scores.values[0, : int(scores.lengths[0])].exp().float().cpu().numpy()
        attention, written = None, ()
        decoder = next((head for _, head in model.named_heads() if isinstance(head, TokenHead)), None)
        best = recognizer.reader.search(Padded(encoded.values.float(), encoded.lengths))[0][0]
        if decoder is not None and best.tokens:
            targets = Padded(
                torch.tensor([best.tokens], device=place), torch.tensor([len(best.tokens)], device=place)
            )
            attention = decoder.attention(encoded, targets).values[0].float().cpu().numpy()
            written = (*(names[token] for token in best.tokens), "<end>")
    return Sight(
        title=f"{audio.name}: {transcript.text or '(no speech found)'}",
        frames=frames.values[0, : int(frames.lengths[0])].float().cpu().numpy(),
        frame_shift=model.frontend.frame_shift,
        encoded_shift=model.frame_seconds,
        pieces=names,
        words=[(w.word, w.start, w.end) for segment in transcript.segments for w in segment.words],
        posteriors=posteriors,
        attention=attention,
        written=written,
    )
