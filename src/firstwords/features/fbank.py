"""Log-mel filterbank, numerically Kaldi's (`compute-fbank-feats`), batched over padded utterances.

    samples   |---- utterance ----|000000
    reflected <<|---- utterance ----|>>0000     (snip_edges = False: mirrored at the utterance's OWN end)
    frames      0 1 2 3 ... T-1                 T = (S + shift // 2) // shift

Notable features. An utterance gives the same frames alone and in a batch. Pre-emphasis is applied once to
the waveform instead of to every frame, which is exact because both offered windows are zero at their first
sample. The power spectrum comes from a real FFT or from two matrix products (`transform = "matmul"`):
power does not see a time shift, so the frame is centered on the DFT's origin, where the cosine part needs
only its even half and the sine part only its odd half. That is a quarter of the usual DFT matrix, needs no
complex numbers and can therefore be exported to every runtime.

Reference: Kaldi feature-window.cc and mel-computations.cc (Povey et al., 2011); the values are held to
kaldi-native-fbank by tests/golden and tests/unit/features.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from firstwords.config import Config
from firstwords.features.frontend import Frontend
from firstwords.tensors import Padded, is_captured, is_traced, zero_padding

LOG_FLOOR = (
    1.1920928955078125e-07  # FLT_EPSILON, Kaldi's floor under the logarithm: digital silence is -15.94
)
CACHED_FRAMES = 1000  # analyzed at a time on a CPU
DITHER_PERIOD = 1 << 16  # samples after which the fixed dither sequence repeats


class FbankConfig(Config):
    """Settings of the filterbank; the defaults are those of the Zipformer recipes (icefall, lhotse)."""

    kind: Literal["fbank"] = "fbank"
    sample_rate: int = Field(default=16000, ge=1000, le=192000)
    mels: int = Field(default=80, ge=3)
    window_ms: float = Field(default=25.0, gt=0, allow_inf_nan=False)
    shift_ms: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    low: float = Field(default=20.0, ge=0)  # lower edge of the first filter, Hz
    high: float = -400.0  # upper edge of the last filter, Hz; zero or negative counts down from Nyquist
    dither: float = Field(default=0.0, ge=0)  # standard deviation of added noise, in units of the waveform
    snip_edges: bool = False  # True: only frames that fit wholly inside the utterance
    preemphasis: float = Field(default=0.97, ge=0, le=1)
    window: Literal["povey", "hann"] = "povey"
    scale: float = Field(
        default=1.0, gt=0
    )  # samples are multiplied by it; 32768 for models trained on int16 values
    transform: Literal["fft", "matmul"] = "fft"

    @property
    def dim(self) -> int:
        """Values per frame."""
        return self.mels

    @property
    def window_samples(self) -> int:
        return int(self.sample_rate * 0.001 * self.window_ms)

    @property
    def shift_samples(self) -> int:
        return int(self.sample_rate * 0.001 * self.shift_ms)

    @property
    def high_hz(self) -> float:
        """Upper edge of the last filter in hertz."""
        return self.high if self.high > 0 else self.sample_rate / 2 + self.high

    @model_validator(mode="after")
    def bands_fit(self) -> FbankConfig:
        if not self.low < self.high_hz <= self.sample_rate / 2:
            raise ValueError(
                f"filters from {self.low:g} to {self.high_hz:g} Hz do not fit below the Nyquist frequency "
                f"{self.sample_rate / 2:g} Hz."
            )
        if not 1 <= self.shift_samples <= self.window_samples or self.window_samples < 4:
            raise ValueError(
                f"shift_ms = {self.shift_ms:g} must be at least one sample and at most window_ms = "
                f"{self.window_ms:g}."
            )
        return self


@final
class Fbank(Frontend):
    """Waveforms -> log-mel frames (natural logarithm of the power in each mel band).

    Always computed in float32, also inside an autocast region: the logarithm of a quiet band loses its
    meaning in bfloat16.
    """

    window: Tensor
    filters: Tensor
    cosines: Tensor
    sines: Tensor
    noise: Tensor

    def __init__(self, config: FbankConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.frame_shift = config.shift_samples / config.sample_rate
        self.width = config.window_samples
        self.shift = config.shift_samples
        self.fft_size = 1 << (self.width - 1).bit_length()
        # Kaldi centers frame f on sample shift * f + shift // 2.
        self.before = 0 if config.snip_edges else self.width // 2 - self.shift // 2
        self.after = 0 if config.snip_edges else self.width - self.shift // 2 - self.before
        window = make_window(config.window, self.width)
        cosines, sines = _half_transforms(window, self.fft_size)
        filters = mel_filters(config.mels, self.fft_size, config.sample_rate, config.low, config.high_hz)
        # All of these follow from the config, so they stay out of the state dict.
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filters", filters.float(), persistent=False)
        self.register_buffer("cosines", cosines.float(), persistent=False)
        self.register_buffer("sines", sines.float(), persistent=False)
        if config.dither:
            fixed = torch.Generator().manual_seed(0)
            self.register_buffer("noise", torch.randn(DITHER_PERIOD, generator=fixed), persistent=False)

    def num_frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Samples -> frames of each utterance."""
        if self.config.snip_edges:
            return ((lengths - self.width).div(self.shift, rounding_mode="floor") + 1).clamp(min=0)
        return (lengths + self.shift // 2).div(self.shift, rounding_mode="floor")

    def forward(self, audio: Padded) -> Padded:
        """(B, S) samples in [-1, 1) -> (B, T, mels) frames, zero beyond each length."""
        counts = self.num_frames(audio.lengths)
        rows, samples = audio.values.shape
        if self.before + samples + self.after < self.width:  # not one frame fits, not even mirrored
            return Padded(audio.values.new_zeros(rows, 0, self.dim, dtype=torch.float32), counts)
        with full_precision(audio.values):
            extended = self.reflect(self.prepare(audio.values), audio.lengths)
            return zero_padding(Padded(self.analyze(extended), counts))

    def prepare(
        self, samples: Float[Tensor, "batch samples"], position: int = 0
    ) -> Float[Tensor, "batch samples"]:
        """Float32, scaled and dithered samples; ``position`` is the place of the first one in its stream.

        The dither is one fixed sequence: the same utterance always gives the same frames.
        """
        samples = samples.float()
        if self.config.scale != 1:
            samples = samples * self.config.scale
        if self.config.dither:
            at = torch.arange(position, position + samples.shape[1], device=samples.device) % DITHER_PERIOD
            samples = samples + self.config.dither * self.noise[at]
        return samples

    def reflect(
        self, samples: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch extended"]:
        """Mirror each utterance at its own start and end (nothing to do with snip_edges).

        The mirror has the period 2 n, so that an utterance shorter than half a window is reflected again
        and again, as in Kaldi:  2 1 0 | 0 1 2 | 2 1 0 | 0 ...
        """
        if self.config.snip_edges:
            return samples
        first = torch.arange(-self.before, 0, device=samples.device).expand(samples.shape[0], -1)
        last = lengths[:, None] + torch.arange(self.after, device=samples.device)
        head = samples.gather(1, _mirror(first, lengths)) if self.before else samples[:, :0]
        tail = samples.gather(1, _mirror(last, lengths))
        extended = torch.cat([head, samples, samples.new_zeros(samples.shape[0], self.after)], dim=1)
        return extended.scatter(1, last + self.before, tail)

    def analyze(self, samples: Float[Tensor, "batch extended"]) -> Float[Tensor, "batch frames mels"]:
        """Extended samples -> one log-mel frame per whole window; needs at least one window."""
        rows, places = samples.shape
        if samples.device.type != "cpu" or is_captured() or rows == 1:
            return self._analyze(samples)
        # On a CPU a few rows at a time: what does not leave the cache and needs no fresh memory pages is
        # 1.5 to 2.5 times as fast (8 x 10 s, one thread).
        few = max(1, CACHED_FRAMES * self.shift // places)
        return torch.cat([self._analyze(some) for some in samples.split(few)])

    def _analyze(self, samples: Float[Tensor, "batch extended"]) -> Float[Tensor, "batch frames mels"]:
        emphasis = self.config.preemphasis
        means = self._means(samples)
        # Kaldi removes the mean of a frame before pre-emphasis, which makes it (1 - emphasis) times as big.
        # The first sample of a frame should see itself as its predecessor; there the window is zero.
        emphasized = torch.cat([samples[:, :1], samples[:, 1:] - emphasis * samples[:, :-1]], dim=1)
        frames = self._windows(emphasized)
        offsets = (1 - emphasis) * means
        if self.config.transform == "fft":
            spectrum = torch.fft.rfft((frames - offsets) * self.window, n=self.fft_size)
            spectrum = spectrum[..., : self.fft_size // 2]
            power = spectrum.real.square() + spectrum.imag.square()  # 4 times as fast as a sum over pairs
        else:
            half = self.width // 2
            early = frames[..., :half].flip(2)
            late = frames[..., self.width - half :]
            if (
                self.width % 2
            ):  # the sample in the middle is its own mirror image, counted half from each side
                middle = (frames[..., half : half + 1] + offsets) / 2
                early, late = torch.cat([middle, early], dim=2), torch.cat([middle, late], dim=2)
            even = early + late - 2 * offsets
            odd = late - early
            power = (even @ self.cosines).square() + (odd @ self.sines).square()
        return (power @ self.filters).clamp(min=LOG_FLOOR).log()

    def _means(self, samples: Float[Tensor, "batch extended"]) -> Float[Tensor, "batch frames 1"]:
        """Mean of every window."""
        if not is_traced():
            return self._windows(samples).mean(dim=2, keepdim=True)
        step = math.gcd(self.width, self.shift)  # sums of so many samples are parts of all windows
        count = samples.shape[1] // step
        sums = samples[:, : count * step].reshape(samples.shape[0], count, step).sum(dim=2)
        return cut_windows(sums, self.width // step, self.shift // step).sum(dim=2, keepdim=True) / self.width

    def _windows(self, samples: Float[Tensor, "batch extended"]) -> Float[Tensor, "batch frames width"]:
        """All whole windows, one per frame shift."""
        if is_traced():
            return cut_windows(samples, self.width, self.shift)
        return samples.unfold(1, self.width, self.shift)


def cut_windows(
    samples: Float[Tensor, "batch places"], width: int, shift: int
) -> Float[Tensor, "batch windows width"]:
    """``samples.unfold(1, width, shift)`` for graphs: whole blocks of ``shift`` places, side by side.

    In ONNX, unfold would become a loop, and an index would fetch every sample by itself.

        blocks      0 1 2 3 4 5 ...          width 2 1/2 blocks
        windows     0 1 2|  1 2 3|  2 3 4|   of the last one its first part
    """
    count = (samples.shape[1] - width) // shift + 1
    each = -(-width // shift)
    padded = torch.nn.functional.pad(samples, (0, each * shift - width))
    blocks = padded[:, : (count + each - 1) * shift].reshape(samples.shape[0], count + each - 1, shift)
    last = width - (each - 1) * shift
    parts = [blocks[:, i : i + count, : shift if i < each - 1 else last] for i in range(each)]
    return torch.cat(parts, dim=2)


def full_precision(values: Tensor) -> AbstractContextManager[object]:
    """Autocast switched off; nothing while exporting, where it would leave a region in the graph."""
    if torch.compiler.is_exporting() or is_traced():
        return nullcontext()
    return torch.autocast(values.device.type, enabled=False)


def make_window(name: Literal["povey", "hann"], width: int) -> Float[Tensor, " width"]:
    """Window of ``width`` samples, symmetric, zero at both ends; Povey's is Hann's to the power 0.85."""
    hann = torch.hann_window(width, periodic=False, dtype=torch.float64)
    return hann**0.85 if name == "povey" else hann


def mel(hertz: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Hertz -> mel: 1127 ln(1 + f / 700)."""
    return 1127.0 * torch.log1p(hertz / 700.0)


def mel_filters(
    mels: int, fft_size: int, sample_rate: int, low: float, high: float
) -> Float[Tensor, "bins mels"]:
    """Triangles of equal width on the mel scale, one column per filter, for the fft_size // 2 lowest bins.

    Kaldi gives the Nyquist bin no weight and does not normalize the triangles' area.
    """
    edge_low, edge_high = mel(torch.tensor([low, high], dtype=torch.float64)).tolist()
    step = (edge_high - edge_low) / (mels + 1)
    left = edge_low + step * torch.arange(mels, dtype=torch.float64)
    bins = mel(torch.arange(fft_size // 2, dtype=torch.float64) * sample_rate / fft_size)
    rising = (bins[:, None] - left) / step
    return torch.minimum(rising, 2 - rising).clamp(min=0)


def _mirror(at: Int[Tensor, "batch places"], lengths: Int[Tensor, " batch"]) -> Int[Tensor, "batch places"]:
    """Places outside [0, n) -> the places inside that they mirror."""
    n = lengths[:, None].clamp(min=1)
    at = at.remainder(2 * n)
    return torch.minimum(at, 2 * n - 1 - at)


def _half_transforms(window: Float[Tensor, " width"], fft_size: int) -> tuple[Tensor, Tensor]:
    """Windowed cosine matrix for the even half and sine matrix for the odd half of a centered frame.

    Row r stands for the sample at distance r + 1/2 (even widths) or r (odd widths) from the center.
    """
    width = len(window)
    late = window[width // 2 :]
    distance = torch.arange(len(late), dtype=torch.float64) + (0.0 if width % 2 else 0.5)
    angles = 2 * math.pi / fft_size * distance[:, None] * torch.arange(fft_size // 2, dtype=torch.float64)
    return late[:, None] * torch.cos(angles), late[:, None] * torch.sin(angles)
