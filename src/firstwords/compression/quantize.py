"""``firstwords compress quantize``: a model folder in, one of fewer bytes out.

    asked for                     what is done
    fp16, bf16, int8, kmeans      all matrices are kept so (compression/choices.py)
    a budget of bytes             bits for each block by measured harm (mixed.py), against the most bits that
                                  fit if all blocks have the same; the better of the two on dev is kept
    tune, with kmeans             the centroids are trained for some minutes
    static                        scales of the inputs of linear layers, for 8-bit computation
    qat                           the same, and the model trained while weights and inputs are rounded

The original is only read. What was quantized before stays as rough as it is; early exit comes after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from firstwords.compression.calibration import LEAST_UTTERANCES, MOST_UTTERANCES, input_scales
from firstwords.compression.choices import (
    INT8,
    Plan,
    StorageKind,
    blocks,
    file_bytes,
    of_bits,
    plan_bytes,
    uniform,
)
from firstwords.compression.history import note_step
from firstwords.compression.learned import learned_state, round_layers, share_weights
from firstwords.compression.material import Material
from firstwords.compression.mixed import BITS, Option, block_plan, least_harm, require_room, sensitivities
from firstwords.compression.order import copy_companions, is_sparse, require_exit_last
from firstwords.compression.tuning import tune_in_place
from firstwords.data.manifest import load_corpus
from firstwords.errors import UsageError
from firstwords.files import staged
from firstwords.model.checkpoint import CARD, WEIGHTS, LoadedModel, load_model, save_model
from firstwords.model.int8 import compute_in_int8
from firstwords.model.linears import linear_layers
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import Storage, restored, storage_words
from firstwords.search.speech_gate import SpeechGate
from firstwords.training.progress import Progress

FREEZE_AT = 0.7  # of QAT: from here on the scales of inputs stay
UTTERANCES = 32  # of dev, that harm is measured on


@dataclass(frozen=True)
class Order:
    """What is wanted; ``check`` refuses what contradicts itself.

    Args:
        kind: of all matrices; None: int8, or what a budget asks for.
        bits: of kmeans.
        rows: of a matrix that share a codebook.
        budget: most bytes of model.safetensors.
        tune: minutes of training.
        steps: of training, at most.
        utterances: of dev, that harm is measured on.
    """

    kind: StorageKind | None = None
    bits: int | None = None
    rows: int = 64
    budget: int | None = None
    corpus: Path | None = None
    tune: float | None = None
    steps: int | None = None
    static: bool = False
    qat: bool = False
    utterances: int = UTTERANCES
    device: str = "auto"

    def check(self) -> None:
        """UsageError for what goes not together."""
        kind = self.kind or "int8"
        if self.bits is not None and kind != "kmeans" and self.budget is None:
            raise UsageError(f"--bits goes with --storage kmeans, not with {kind}.", mend="Leave it out.")
        if self.bits is not None and not 1 <= self.bits <= 8:
            raise UsageError(f"--bits {self.bits}: expected 1 to 8.", mend="4 and 6 are usual.")
        if self.budget is not None and (self.kind is not None or self.bits is not None):
            raise UsageError(
                "--budget chooses how each layer is kept.", mend="Leave out --storage and --bits."
            )
        if self.static and self.qat:
            raise UsageError("--qat measures inputs as --static does.", mend="Leave out --static.")
        if (self.static or self.qat) and (kind != "int8" or self.budget is not None):
            raise UsageError(
                "--static and --qat are for 8-bit computation.", mend="Leave out --storage and --budget."
            )
        if self.qat and self.tune is None:
            raise UsageError("--qat trains.", mend="Say for how many minutes: --tune 10.")
        if self.tune is not None and not self.qat and kind != "kmeans" and self.budget is None:
            raise UsageError(
                f"--tune: {kind} has nothing to train.",
                mend="Use it with --qat, --storage kmeans or --budget.",
            )
        for name, given in (("budget", self.budget), ("static", self.static), ("tune", self.tune)):
            if given and self.corpus is None:
                raise UsageError(f"--{name} needs speech to measure with.", mend="Add --corpus CORPUS.")

    @property
    def storage(self) -> Storage:
        """Of all matrices, where there is no budget."""
        return Storage(kind=self.kind or "int8", bits=self.bits or 4, rows=self.rows)


@dataclass(frozen=True)
class Variant:
    """A way to keep the model, and what came of it on dev."""

    name: str
    bytes: int
    cer: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Quantized:
    """What was written.

    Args:
        before, after: the files, with dev error rates where there was a corpus.
        others: that were tried.
        bits: of each block, where a budget chose them.
    """

    folder: Path
    before: Variant
    after: Variant
    others: tuple[Variant, ...] = ()
    bits: dict[str, int] = field(default_factory=dict[str, int])
    computed: Variant | None = None  # error rate when it computes in 8 bits


Say = Callable[[str], None]


def quantize(folder: Path, to: Path, order: Order, *, progress: Progress | None = None) -> Quantized:
    """A model folder -> the same model in fewer bytes, as the folder ``to``, which must not exist."""
    order.check()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"'{to}' exists and is not empty.", mend="Give --to a new folder.")
    if to.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"'{to}' lies within '{folder}', which is only read.", mend="Give --to another place."
        )
    progress = progress or Progress(quiet=True)
    loaded = load_model(folder, device="cpu")
    require_exit_last(loaded, "quantize")
    if order.budget is not None:
        words = _words(loaded)
        require_room(loaded.model.state_dict(), order.budget, words=words, rows=order.rows)
    if (order.static or order.qat) and not linear_layers(loaded.model):
        kind = loaded.recipe.encoder.kind
        raise UsageError(
            f"An encoder of kind '{kind}' has no linear layers that could compute in 8 bits.",
            mend="Leave out --static and --qat.",
        )
    material = None
    if order.corpus is not None:
        material = Material(load_corpus(order.corpus), loaded, order.device, progress)
    return _Quantizer(loaded, order, material, progress.say).run(to)


def _words(loaded: LoadedModel) -> int:
    """Bytes of the header about recipe, pieces, vocabulary, gate and scales of inputs, at most."""
    scales = len(json.dumps(json.dumps(loaded.input_scales)))  # a text within the header, quotes and all
    return 1024 + scales + 2 * sum(len(word.encode()) + 6 for word in loaded.speech_gate.words)


@dataclass
class _Quantizer:
    loaded: LoadedModel
    order: Order
    material: Material | None
    say: Say
    gate: SpeechGate | None = None

    def run(self, to: Path) -> Quantized:
        """Choose, train, measure, write."""
        order, model = self.order, self.loaded.model
        names = list(model.state_dict())
        if is_sparse(self.loaded):
            self.say("The zeros among its weights take as many bytes as other numbers from now on.")
        before = self._judged("before", (self.loaded.folder / WEIGHTS).stat().st_size, model)
        others: tuple[Variant, ...] = ()
        bits: dict[str, int] = {}
        scales = dict(self.loaded.input_scales)
        if order.budget is not None:
            plan, bits, others = self._mixed(order.budget)
        else:
            plan = uniform(model.state_dict(), order.storage)
        if order.static or order.qat:
            scales = self._calibrated()
        if order.tune is not None:
            assert self.material is not None  # the order was checked
            if order.qat:
                scales = self._trained_rounded(scales, names)
            else:
                self._trained_centroids(plan, names)
        model = self.loaded.model
        model.cpu().load_state_dict(restored(model.state_dict(), plan))
        judged = self._judged("after", file_bytes(model.state_dict(), plan), model)
        computed = self._computed(scales) if scales and self._on_processor else None
        result = Quantized(to, before, judged, others, bits, computed)
        return self._write(result, plan, scales)

    def _mixed(self, budget: int) -> tuple[Plan, dict[str, int], tuple[Variant, ...]]:
        """Bits by harm, and the most uniform bits that fit; the better of the two."""
        assert self.material is not None
        material, model, rows = self.material, self.loaded.model, self.order.rows
        state = {name: value.clone() for name, value in model.state_dict().items()}
        batches = material.dev_batches(self.order.utterances)
        fallback = self._uniform_within(state, budget)
        groups = blocks(state)
        total = len(groups) * len(BITS)
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            if done % (len(BITS) * max(1, len(groups) // 10)) == 0 or done == total:
                self.say(f"harm of {done} of {total} choices measured")

        harms = sensitivities(
            model.to(material.compute.device),
            groups,
            lambda: material.losses(model, batches),
            rows=rows,
            bits=BITS,
            progress=tick,
        )
        plan, bits = self._within(state, groups, harms, budget)
        tried = [("mixed bits", plan, max(bits.values(), default=0))]
        if fallback is not None:
            tried.append((f"{fallback[0]} bits everywhere", fallback[1], fallback[0]))
        found: list[Variant] = []
        for name, chosen, _ in tried:
            model.load_state_dict(restored(state, chosen))
            judged = self._judged(name, file_bytes(state, chosen), model, quiet=True)
            found.append(Variant(name, judged.bytes, judged.cer, material.loss(model, batches)))
            self.say(_shown(found[-1]))
        model.load_state_dict(state)
        best = min(range(len(found)), key=lambda n: (found[n].cer or 0.0, found[n].loss or 0.0))
        if best:
            return tried[best][1], {}, tuple(found)
        return plan, bits, tuple(found)

    def _uniform_within(self, state: dict[str, Tensor], budget: int) -> tuple[int, Plan] | None:
        for bits in (16, 8, 7, 6, 5, 4, 3, 2):
            plan = uniform(state, of_bits(bits, rows=self.order.rows))
            if file_bytes(state, plan) + _words(self.loaded) <= budget:
                return bits, plan
        return None

    def _within(
        self,
        state: Mapping[str, Tensor],
        groups: Mapping[str, Sequence[str]],
        harms: Mapping[str, Sequence[Option]],
        budget: int,
    ) -> tuple[Plan, dict[str, int]]:
        """The best plan whose file, header and all, is within the budget."""
        grouped = {name for names in groups.values() for name in names}
        others = {name: tensor for name, tensor in state.items() if name not in grouped}
        rest = uniform(others, INT8)
        room = budget - plan_bytes(others, rest)
        least = sum(min(option.bytes for option in harms[block]) for block in groups)
        for attempt in range(10):
            chosen = least_harm([harms[block] for block in groups], room)
            bits = {block: option.bits for block, option in zip(groups, chosen, strict=True)}
            plan = dict(rest)
            for block, names in groups.items():
                plan |= block_plan({n: state[n] for n in names}, bits[block], rows=self.order.rows)
            excess = file_bytes(state, plan) + _words(self.loaded) - budget
            if excess <= 0:
                return plan, bits
            # The header is known only when the choice is, and another choice has another: a little more.
            room = max(least, room - excess - (1 << (4 + attempt)))
        raise UsageError(
            f"No choice of bits keeps the file within {budget} bytes.", mend="Raise --budget a little."
        )

    def _calibrated(self) -> dict[str, float]:
        assert self.material is not None
        model = self.loaded.model.to(self.material.compute.device)
        utterances = list(self.material.calibration(MOST_UTTERANCES))
        if len(utterances) < LEAST_UTTERANCES:
            self.say(
                f"Calibrated on {len(utterances)} utterances, all there are; {LEAST_UTTERANCES} are advised."
            )
        return input_scales(model, linear_layers(model), utterances)

    def _trained_centroids(self, plan: Plan, names: Sequence[str]) -> None:
        assert self.material is not None
        model = deepcopy(self.loaded.model)
        model.load_state_dict(restored(model.state_dict(), plan))
        share_weights(model, plan)
        tune_in_place(self.material, model, minutes=self.order.tune, steps=self.order.steps)
        self.loaded.model.load_state_dict(learned_state(model, names))

    def _trained_rounded(self, scales: dict[str, float], names: Sequence[str]) -> dict[str, float]:
        assert self.material is not None
        model = deepcopy(self.loaded.model)
        inputs = round_layers(model, scales)

        def freeze(progress: float) -> None:
            for rounded in inputs:
                rounded.frozen = progress >= FREEZE_AT

        tune_in_place(self.material, model, minutes=self.order.tune, steps=self.order.steps, paced=freeze)
        self.loaded.model.load_state_dict(learned_state(model, names))
        return {name: rounded.value for name, rounded in zip(scales, inputs, strict=True)}

    @property
    def _on_processor(self) -> bool:
        return self.material is not None and self.material.compute.device.type == "cpu"

    def _computed(self, scales: dict[str, float]) -> Variant:
        """What dev says when the layers really multiply in 8 bits."""
        model = deepcopy(self.loaded.model).cpu()
        compute_in_int8(model, scales)
        return self._judged("computed in 8 bits", 0, model, gate=False)

    def _judged(
        self, name: str, size: int, model: SpeechModel, *, quiet: bool = False, gate: bool = True
    ) -> Variant:
        if self.material is None:
            return Variant(name, size)
        found, measured = self.material.measure(model)
        if gate:
            self.gate = measured
        variant = Variant(name, size, found.numbers["cer"])
        if not quiet:
            self.say(_shown(variant))
        return variant

    def _write(self, result: Quantized, plan: Plan, scales: dict[str, float]) -> Quantized:
        to, loaded = result.folder, self.loaded
        with staged(to, last=(WEIGHTS,)) as new:
            copy_companions(loaded.folder, new)
            save_model(
                new,
                loaded.model.cpu(),
                loaded.tokenizer,
                card=_card(loaded, result, plan),
                speech_gate=self.gate if self.gate is not None else loaded.speech_gate,
                storage=plan,
                input_scales=scales,
            )
            note_step(new, loaded.folder, "quantize", self._settings(result))
            size = (new / WEIGHTS).stat().st_size
        return replace(result, after=replace(result.after, bytes=size))

    def _settings(self, result: Quantized) -> dict[str, Any]:
        order = self.order
        told: dict[str, Any] = (
            {"budget": order.budget} if order.budget is not None else {"storage": order.storage.words}
        )
        told |= {"tune": order.tune} if order.tune is not None else {}
        told |= {"inputs": "qat" if order.qat else "static"} if order.static or order.qat else {}
        told |= {"bits": result.bits} if result.bits else {}
        return told


def _shown(variant: Variant) -> str:
    size = f"{variant.bytes / 1e6:.3f} MB" if variant.bytes else ""
    cer = f"dev CER {100 * variant.cer:.2f} %" if variant.cer is not None else ""
    loss = f"loss {variant.loss:.4f} a token" if variant.loss is not None else ""
    return f"{variant.name}: {', '.join(word for word in (size, cer, loss) if word)}"


def _card(loaded: LoadedModel, result: Quantized, plan: Plan) -> str:
    """The card of the original, and below it what was done."""
    path = loaded.folder / CARD
    card = path.read_text(encoding="utf-8").rstrip() if path.is_file() else f"# {loaded.recipe.name}"
    lines = [
        _shown(v) for v in (result.before, result.after, result.computed, *result.others) if v is not None
    ]
    told = "".join(f"- {line}\n" for line in lines)
    kept = f"Kept as {storage_words(plan)}. The numbers above are those of before."
    return f"{card}\n\n## Quantized\n\n{kept}\n\n{told}"
