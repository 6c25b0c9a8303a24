"""The card of a bundle: what it is, which engines run it and how, what the comparison gave."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from firstwords import __version__
from firstwords.export.make import Made
from firstwords.export.write import gate_of
from firstwords.files import readable_size
from firstwords.search.speech_gate import OPEN

_SHERPA = "sherpa-onnx"


def write_bundle_card(made: Made, engines: Sequence[str], heard: str, table: str) -> str:
    """A bundle that passed the parity gate -> Markdown.

    Args:
        engines: those that were compared.
        heard: how many sounds they read, in words.
        table: what they read.
    """
    recipe, plan = made.loaded.recipe, made.plan
    model = made.loaded.model
    kind = ("streaming " if plan.streaming else "offline ") + plan.kind
    rows = [
        ("language", recipe.language),
        ("bundle", kind),
        ("model", f"{recipe.encoder.kind}, {model.num_parameters / 1e6:.2f} M parameters"),
        ("pieces", str(model.vocabulary)),
        ("audio", f"{recipe.features.sample_rate} Hz, mono"),
        ("frames", f"one per {1000 * model.frame_seconds:g} ms"),
        ("read alike by", ", ".join(engines)),
        ("date", datetime.now(UTC).date().isoformat()),
        ("firstwords", __version__),
        *((f"`{name}`", readable_size(size)) for name, size in made.sizes.items()),
    ]
    if plan.streaming:
        chunk = plan.facts["chunk"]
        shift = 1000 * model.frontend.frame_shift
        rows.insert(2, ("chunk", f"{chunk['shift'] * shift:g} ms, window {chunk['frames'] * shift:g} ms"))
    listed = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in rows)
    alone = ""
    if plan.alone:
        alone = "\nsherpa-onnx cannot run this bundle:\n\n" + "".join(f"- {why}\n" for why in plan.alone)
    else:
        untried = "" if _SHERPA in engines else ", which was not installed where the bundle was compared"
        alone = f"\nWith sherpa-onnx{untried}:\n\n    {_command(made)}\n"
    return (
        f"# {recipe.name}\n\n| | |\n|---|---|\n{listed}\n{alone}\n"
        f"## Parity\n\n{heard}, each read by {', '.join(engines)}:\n\n{table}\n"
        f"{_beside_the_graphs(made)}\n" + "".join(f"\n{line}\n" for line in made.left_out)
    )


def _beside_the_graphs(made: Made) -> str:
    """What engines must bring along, or be told."""
    plan, gate = made.plan, gate_of(made.plan, made.loaded)
    said = ["The graphs hold the model alone."]
    ctc = plan.kind == "ctc"
    if ctc and gate.words:
        said.append(
            "The speech gate and the closed vocabulary stand in bundle.json: firstwords obeys them, "
            "sherpa-onnx knows neither."
        )
    elif gate != OPEN:
        said.append("The speech gate stands in bundle.json: firstwords obeys it, sherpa-onnx has none.")
    said.append(
        "Language models and phrases are given when recordings are transcribed."
        if ctc
        else "firstwords reads it greedily, without language models and phrases."
    )
    return " ".join(said)


def _command(made: Made) -> str:
    """How sherpa-onnx is called with these files."""
    program = "sherpa-onnx" if made.plan.streaming else "sherpa-onnx-offline"
    if made.plan.kind == "ctc":
        option = "zipformer2-ctc-model" if made.plan.streaming else "zipformer-ctc-model"
        return f"{program} --tokens=tokens.txt --{option}=model.onnx recording.wav"
    files = " ".join(f"--{part}={part}.onnx" for part in ("encoder", "decoder", "joiner"))
    return f"{program} --tokens=tokens.txt {files} recording.wav"
