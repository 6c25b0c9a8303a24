"""The card of a bundle: what it is, which engines run it and how, what the comparison gave."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from firstwords import __version__
from firstwords.export.make import Made
from firstwords.files import readable_size

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
        "The graphs hold the model alone. The speech gate and the closed vocabulary stand in bundle.json: "
        "firstwords obeys them, sherpa-onnx knows neither. Language models and phrases are given when "
        "recordings are transcribed.\n" + "".join(f"\n{line}\n" for line in made.left_out)
    )


def _command(made: Made) -> str:
    """How sherpa-onnx is called with these files."""
    program = "sherpa-onnx" if made.plan.streaming else "sherpa-onnx-offline"
    if made.plan.kind == "ctc":
        option = "zipformer2-ctc-model" if made.plan.streaming else "zipformer-ctc-model"
        return f"{program} --tokens=tokens.txt --{option}=model.onnx recording.wav"
    files = " ".join(f"--{part}={part}.onnx" for part in ("encoder", "decoder", "joiner"))
    return f"{program} --tokens=tokens.txt {files} recording.wav"
