"""Writers of models, what becomes of them, and bundles."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from firstwords.files import staged, write_atomically
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.recipe import Recipe, read_recipe, write_recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.text.characters import GraphemeTokenizer
from firstwords.text.given import GivenTokenizer
from firstwords.text.load import load_tokenizer
from firstwords.text.subwords import SubwordConfig, SubwordTokenizer
from nonsense_model import make_nonsense_model
from robustness.writer import Writer, nothing, old
from tone_corpus import make_tone_corpus, tone_recipe


def a_model(folder: Path) -> Any:
    return load_model(make_nonsense_model(folder / "model"), device="cpu")


def another_model(home: Path, loaded: Any) -> None:
    """An older training state of the same recipe: other weights, another card."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        model = SpeechModel(loaded.recipe, len(loaded.tokenizer.pieces)).eval()
    save_model(home, model, loaded.tokenizer, card="# old\n")


def saves_model(home: Path, loaded: Any) -> None:
    save_model(home, loaded.model, loaded.tokenizer, card="# new\n")


def is_the_model(home: Path, _: Any) -> None:
    load_model(home, device="cpu", check=True)
    assert (home / "card.md").read_text(encoding="utf-8") == "# new\n"


def an_icefall_checkpoint(folder: Path) -> Path:
    from firstwords.encoders.zipformer import Zipformer

    torch.manual_seed(1)
    encoder = Zipformer(tone_recipe().encoder, 80).eval()
    weights = _foreign_names(encoder)
    weights |= {"ctc_output.1.weight": torch.randn(7, encoder.dim), "ctc_output.1.bias": torch.randn(7)}
    config = encoder.config
    settings = {
        "num_heads": list(config.heads),
        "encoder_unmasked_dim": ",".join(map(str, config.unmasked_dims)),
    }
    torch.save({"model": weights}, folder / "pretrained.pt")
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder / "pretrained.pt"


def _foreign_names(encoder: Any) -> dict[str, torch.Tensor]:
    """Our weights under the names of the reference."""
    import re

    weights: dict[str, torch.Tensor] = {}
    for name, value in encoder.state_dict().items():
        found = re.match(r"stacks\.(\d+)", name)
        down = found and encoder.config.downsampling[int(found[1])] > 1
        middle = ".encoder.layers." if down else ".layers."
        name = re.sub(r"^embed\.", "encoder_embed.", name)
        name = re.sub(r"^stacks\.(\d+)\.layers\.", rf"encoder.encoders.\1{middle}", name)
        name = re.sub(r"^stacks\.", "encoder.encoders.", name)
        weights[re.sub(r"^downsample_output", "encoder.downsample_output", name)] = value
    return weights


def converts(home: Path, checkpoint: Path) -> None:
    from firstwords.cli.convert import run

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        run("icefall", checkpoint, home, checkpoint.with_name("config.json"), None, False)


def is_converted(home: Path, _: Path) -> None:
    load_model(home, device="cpu", check=True)


def two_models(folder: Path) -> list[Any]:
    from firstwords.model.merging import average, read_parent

    folders = [make_nonsense_model(folder / f"m{seed}", seed=seed) for seed in (1, 2)]
    return average([read_parent(one) for one in folders])


def merges(home: Path, ingredients: list[Any]) -> None:
    from firstwords.training.merge import merge_models

    merge_models(ingredients, home / "merged", how="average")


def is_merged(home: Path, _: Any) -> None:
    load_model(home / "merged", device="cpu", check=True)


def a_model_and_speech(folder: Path) -> Path:
    make_nonsense_model(folder / "model")
    make_tone_corpus(folder / "corpus", train=2, dev=1, test=0)
    return folder


def quantizes(home: Path, made: Path) -> None:
    from firstwords.compression.quantize import Order, quantize

    quantize(made / "model", home / "small", Order())


def prunes(home: Path, made: Path) -> None:
    from firstwords.compression.prune import Orders, prune_model
    from firstwords.training.progress import Progress

    orders = Orders(0.2, by="magnitude")
    quiet = Progress(quiet=True)
    prune_model(made / "model", made / "corpus", home / "small", orders, device="cpu", progress=quiet)


def a_model_with_norms(folder: Path) -> Path:
    values = tone_recipe().model_dump()
    values["encoder"] = {"kind": "dnn", "hidden": 16, "layers": 2}
    tokenizer = GraphemeTokenizer.train(["aeiou aeiou"] * 3)
    model = SpeechModel(Recipe.model_validate(values), len(tokenizer.pieces)).eval()
    save_model(folder / "model", model, tokenizer, card="")
    return folder


def folds(home: Path, made: Path) -> None:
    from firstwords.compression.steps import fold_model

    fold_model(made / "model", home / "small")


def a_bundle(folder: Path) -> Path:
    (folder / "bundle").mkdir(parents=True)
    listed = '{"files": {"model.onnx": {}}}'
    for name, content in {"bundle.json": listed, "model.onnx": "new", "parity.json": "{}"}.items():
        (folder / "bundle" / name).write_text(content)
    return folder / "bundle"


def an_earlier_bundle(home: Path, _: Path) -> None:
    earlier = {"bundle.json": '{"files": {"encoder.onnx": {}}}', "encoder.onnx": "old", "card.md": "old"}
    for name, content in earlier.items():
        (home / name).write_text(content)


def replaces_bundle(home: Path, made: Path) -> None:
    from firstwords.export.gated import replace_bundle

    replace_bundle(made, home)


def is_the_new_bundle(home: Path, made: Path) -> None:
    found = {path.name: path.read_text() for path in home.iterdir()}
    assert found == {path.name: path.read_text() for path in made.iterdir()}


class _Copying:
    """Steps of compression that copy, and figures that fall with each."""

    def reach(self, source: Path) -> Any:
        from firstwords.compression.planner import Reach

        del source
        return Reach(0.5)

    def prune(self, source: Path, to: Path, share: float) -> None:
        self.store(source, to, "fp32", round(100 * share))

    def store(self, source: Path, to: Path, keep: str, budget: int | None) -> None:
        with staged(to, last=("compression.json",)) as new:
            for path in source.iterdir():
                if path.is_file():
                    write_atomically(new / path.name, path.read_bytes())
            write_atomically(new / "compression.json", json.dumps([keep, budget]))

    def measure(self, folder: Path) -> dict[Any, float]:
        return {"size": 2000.0 - len(str(folder)), "parameters": 500.0}


def plans(home: Path, made: Path) -> None:
    from firstwords.compression.planner import compress_to_target
    from firstwords.compression.target import Target

    target = Target.parse("size<1KB, parameters<400")
    compress_to_target(made / "model", home / "small", target, _Copying(), most=2)


def a_file_called_model(folder: Path) -> Path:
    (folder / "model" / "tokenizer").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_text("weights")
    (folder / "model" / "recipe.toml").write_text("a recipe")
    (folder / "model" / "card.md").write_text("card")
    return folder


def is_planned(home: Path, made: Path) -> None:
    small = home / "small"
    assert (small / "model.safetensors").read_bytes() == (made / "model" / "model.safetensors").read_bytes()
    assert len(list((small / "attempts").glob("*.json"))) == 4


def is_small(home: Path, _: Any) -> None:
    from firstwords.compression.history import read_history

    load_model(home / "small", device="cpu", check=True)
    assert len(read_history(home / "small").steps) == 1


def is_begun(path: Path, _: Any) -> bool:
    """Whole files of rounds and attempts, from which the same call goes on."""
    return bool({"rounds", "attempts"} & set(path.parts))


def is_the_recipe(home: Path, _: None) -> None:
    assert read_recipe(home / "recipe.toml") == tone_recipe()


TEXTS = ["samaki na wali", "habari ya asubuhi", "mtoto anasoma kitabu", "nyumba ya rafiki yangu"] * 30


TOKENIZERS = {
    "graphemes": lambda _: GraphemeTokenizer.train(TEXTS),
    "subwords": lambda _: SubwordTokenizer.train(TEXTS, SubwordConfig(vocabulary=30)),
    "given": lambda _: GivenTokenizer(["<blank>", "a", "b", "▁ab"]),
}


def is_the_tokenizer(home: Path, tokenizer: Any) -> None:
    assert load_tokenizer(home).piece_hash == tokenizer.piece_hash


MODELS = [
    Writer(
        "recipe",
        nothing,
        lambda home, _: write_recipe(home / "recipe.toml", tone_recipe()),
        is_the_recipe,
        old("recipe.toml"),
    ),
    *(
        Writer(
            f"tokenizer of {kind}",
            make,
            lambda home, tokenizer: tokenizer.save(home),
            is_the_tokenizer,
            lambda home, _: GivenTokenizer(["<blank>", "x"]).save(home),
        )
        for kind, make in TOKENIZERS.items()
    ),
    Writer("model into a new folder", a_model, saves_model, is_the_model),
    Writer("model over an older one", a_model, saves_model, is_the_model, another_model),
    Writer("convert", an_icefall_checkpoint, converts, is_converted),
    Writer("merge", two_models, merges, is_merged),
    Writer("quantize", a_model_and_speech, quantizes, is_small),
    Writer("prune", a_model_and_speech, prunes, is_small, may_stay=is_begun),
    Writer("fold", a_model_with_norms, folds, is_small),
    Writer("bundle over an earlier one", a_bundle, replaces_bundle, is_the_new_bundle, an_earlier_bundle),
    Writer("compress to a target", a_file_called_model, plans, is_planned, may_stay=is_begun),
]
