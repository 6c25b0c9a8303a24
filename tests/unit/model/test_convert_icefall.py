"""Converting icefall checkpoints: any sizes come back, nothing is run from the file, faults are named."""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from firstwords.encoders.zipformer import Zipformer, ZipformerConfig
from firstwords.errors import CheckpointError, UsageError
from firstwords.heads.transducer.head import TransducerConfig
from firstwords.heads.transducer.predictor import StatelessConfig
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.convert.icefall import convert, input_dim, load
from firstwords.model.convert.icefall_file import read_tokens, read_weights
from firstwords.search.interface import TransducerGreedyConfig
from firstwords.tensors import Padded

VOCABULARY = 11


def random_config(generator: random.Random) -> ZipformerConfig:
    stacks = generator.choice((1, 2, 4, 6))
    pick = generator.choice

    def each(*choices: int) -> tuple[int, ...]:
        return tuple(pick(choices) for _ in range(stacks))

    dims = each(16, 20, 24, 32)
    causal = pick((True, False))
    return ZipformerConfig(
        dims=dims,
        layers=each(1, 2, 3),
        downsampling=(1, *(pick((1, 2, 4, 8)) for _ in range(stacks - 1))),
        feedforward=each(16, 22, 40),
        heads=each(1, 2, 4),
        query_head_dim=each(4, 8, 12),
        position_head_dim=each(2, 4),
        value_head_dim=each(3, 6),
        kernels=each(3, 7, 15),
        unmasked_dims=tuple(pick((8, 16)) for _ in dims),
        position_dim=pick((16, 48)),
        embed_channels=(pick((2, 8)), pick((4, 8)), pick((4, 12))),
        output_downsampling=pick((1, 2)),
        warmup=pick((4000.0, 300.0)),
        causal=causal,
        chunks=(8, 32) if causal else (16, 32, 64, -1),
    )


def icefall_names(encoder: Zipformer) -> dict[str, Tensor]:
    """Our weights under the reference's names, with the parameter that nobody reads in every layer."""
    weights: dict[str, Tensor] = {}
    for name, value in encoder.state_dict().items():
        name = re.sub(r"^embed\.", "encoder_embed.", name)
        down = (found := re.match(r"stacks\.(\d+)", name)) and encoder.config.downsampling[int(found[1])] > 1
        middle = ".encoder.layers." if down else ".layers."
        name = re.sub(r"^stacks\.(\d+)\.layers\.", rf"encoder.encoders.\1{middle}", name)
        name = re.sub(r"^stacks\.", "encoder.encoders.", name)
        name = re.sub(r"^downsample_output", "encoder.downsample_output", name)
        weights[name] = value
        if name.endswith(".bypass.bypass_scale"):
            weights[name.replace(".bypass.", ".")] = torch.full_like(value, 0.5)
    return weights


def arguments(config: ZipformerConfig, mels: int) -> dict[str, Any]:
    return {
        "feature_dim": mels,
        "encoder": {
            "num_heads": list(config.heads),
            "encoder_unmasked_dim": ",".join(map(str, config.unmasked_dims)),
            "warmup_batches": config.warmup,
            "chunk_size": list(config.chunks),
        },
    }


def head(dim: int) -> dict[str, Tensor]:
    return {
        "ctc_output.1.weight": torch.randn(VOCABULARY, dim),
        "ctc_output.1.bias": torch.randn(VOCABULARY),
    }


def write(folder: Path, encoder: Zipformer, **more: Any) -> Path:
    path = folder / "pretrained.pt"
    torch.save({"model": {**icefall_names(encoder), **head(encoder.dim), **more}}, path)
    return path


@pytest.mark.parametrize("seed", range(12))
def test_any_sizes_come_back(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    torch.manual_seed(seed)
    config, mels = random_config(generator), generator.choice((80, 40, 23, 82))
    encoder = Zipformer(config, mels).eval()
    path = write(tmp_path, encoder, **{"joiner.output_linear.weight": torch.zeros(3, 3)})
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps(arguments(config, mels)), encoding="utf-8")
    found = convert(path, settings)
    model = found.model
    assert model.recipe.encoder == config
    assert model.frontend.dim == mels
    assert not model.training
    layers = sum(config.layers)
    assert len(found.left_out) == layers + 1
    assert "joiner.output_linear.weight" in found.left_out
    frames = Padded(torch.randn(2, 61, mels), torch.tensor([61, 40]))
    with torch.no_grad():
        assert torch.equal(model.encoder(frames).values, encoder(frames).values)


def small() -> Zipformer:
    torch.manual_seed(1)
    return Zipformer(random_config(random.Random(3)).with_(position_head_dim=(4,)), 80).eval()


def test_settings_that_make_no_zipformer_are_asked_for_anew(tmp_path: Path) -> None:
    encoder = small()
    settings = tmp_path / "config.json"
    wrong = {"encoder": {"num_heads": list(encoder.config.heads), "warmup_batches": -1}}
    settings.write_text(json.dumps(wrong), encoding="utf-8")
    with pytest.raises(CheckpointError, match="make no Zipformer") as refused:
        convert(write(tmp_path, encoder), settings)
    assert "--config" in refused.value.mend


def test_sizes_without_config_are_the_published_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Zipformer(ZipformerConfig.preset("kws"), 80)
    model = load(write(tmp_path, encoder))
    assert model.recipe.encoder == encoder.config


def test_average_and_module_prefix(tmp_path: Path) -> None:
    encoder = small()
    weights = {**icefall_names(encoder), **head(encoder.dim)}
    average = {f"module.{name}": value.double() * 1.0 for name, value in weights.items()}
    last = {name: torch.zeros_like(value) for name, value in weights.items()}
    path = tmp_path / "epoch-1.pt"
    torch.save({"model": last, "model_avg": average, "exp_dir": Path("exp"), "num_heads": "x"}, path)
    with pytest.raises(CheckpointError, match="num_heads"):
        load(path)  # arguments inside the checkpoint count
    heads = ",".join(map(str, encoder.config.heads))
    torch.save({"model": last, "model_avg": average, "exp_dir": Path("exp"), "num_heads": heads}, path)
    found = convert(path)
    assert found.averaged
    assert torch.equal(found.model.encoder.state_dict()["embed.out.weight"], encoder.embed.out.weight)
    assert next(found.model.encoder.parameters()).dtype == torch.float32


def test_epoch_style_file_is_read_without_running_code(golden: Path) -> None:
    path = golden / "zipformer_tiny" / "epoch_style.pt"
    weights, inside, averaged = read_weights(path)
    assert averaged
    assert set(weights) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert inside["encoder_dim"] == "192,256"
    with pytest.raises(CheckpointError, match="holds no Zipformer"):
        load(path)


def test_code_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": {}, "args": argparse.Namespace(a=1)}, path)
    with pytest.raises(CheckpointError, match=r"would run code.*Namespace"):
        load(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"version https://git-lfs", "cannot be read"), (b"", "cannot be read"), (None, "does not exist")],
)
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load(path)


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    encoder = small()
    weights = {**icefall_names(encoder), **head(encoder.dim)}
    name = "encoder.encoders.0.layers.0.conv_module2.out_proj.bias"
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps(arguments(encoder.config, 80)), encoding="utf-8")
    path = tmp_path / "pretrained.pt"
    torch.save({"model": {k: v for k, v in weights.items() if k != name}}, path)
    with pytest.raises(CheckpointError, match=r"conv_module2.out_proj.bias is missing"):
        load(path, settings)
    torch.save({"model": weights | {name: torch.zeros(3)}}, path)
    with pytest.raises(CheckpointError, match=r"has shape \(3,\)"):
        load(path, settings)
    torch.save({"model": {k: v for k, v in weights.items() if "conv.4" not in k}}, path)
    with pytest.raises(CheckpointError, match=r"conv.4"):
        load(path, settings)


def test_heads_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    encoder = small()
    path = write(tmp_path, encoder)
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps({"encoder": {"num_heads": [5]}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="5 attention heads do not fit"):
        load(path, settings)
    settings.write_text(json.dumps({"encoder": {"num_heads": [1] * 9}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="9 numbers"):
        load(path, settings)
    settings.write_text("[1]", encoding="utf-8")
    with pytest.raises(CheckpointError, match="no table"):
        load(path, settings)


def transducer(dim: int, *, simple: bool = True) -> dict[str, Tensor]:
    """Decoder and joiner of 11 pieces, decoder width 8, joiner width 6, context 2."""
    shapes = {
        "decoder.embedding.weight": (VOCABULARY, 8),
        "decoder.conv.weight": (8, 4, 2),
        "joiner.encoder_proj.weight": (6, dim),
        "joiner.encoder_proj.bias": (6,),
        "joiner.decoder_proj.weight": (6, 8),
        "joiner.decoder_proj.bias": (6,),
        "joiner.output_linear.weight": (VOCABULARY, 6),
        "joiner.output_linear.bias": (VOCABULARY,),
    }
    if simple:
        for name, width in (("simple_am_proj", dim), ("simple_lm_proj", 8)):
            shapes |= {f"{name}.weight": (VOCABULARY, width), f"{name}.bias": (VOCABULARY,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("simple", [True, False])
def test_transducer_beside_ctc(simple: bool, tmp_path: Path) -> None:
    encoder = small()
    theirs = transducer(encoder.dim, simple=simple)
    path, settings = write(tmp_path, encoder, **theirs), tmp_path / "config.json"
    more = {"prune_range": 7, "simple_loss_scale": 0.4}
    settings.write_text(json.dumps(arguments(encoder.config, 80) | more), encoding="utf-8")
    found = convert(path, settings)
    config = found.model.recipe.heads["transducer"]
    assert isinstance(config, TransducerConfig)
    assert config.predictor == StatelessConfig(dim=8, context=2)
    assert (config.joiner_dim, config.prune_range, config.simple_weight) == (6, 7, 0.4)
    assert config.loss == ("pruned" if simple else "full")
    assert all("bypass" in name for name in found.left_out)
    ours = found.model.heads["transducer"].state_dict()
    assert len(ours) == len(theirs)
    assert torch.equal(ours["joiner.predictor_proj.weight"], theirs["joiner.decoder_proj.weight"])
    assert torch.equal(ours["predictor.conv.weight"], theirs["decoder.conv.weight"])


def test_transducer_alone(tmp_path: Path) -> None:
    encoder = small()
    path, settings = tmp_path / "pretrained.pt", tmp_path / "config.json"
    settings.write_text(json.dumps(arguments(encoder.config, 80)), encoding="utf-8")
    theirs = transducer(encoder.dim)
    torch.save({"model": {**icefall_names(encoder), **theirs}}, path)
    found = convert(path, settings)
    assert list(found.model.recipe.heads) == ["transducer"]
    assert found.model.recipe.search == TransducerGreedyConfig()
    assert not found.notes
    save_model(tmp_path / "model", found.model, found.tokenizer, card="")
    assert load_model(tmp_path / "model", device="cpu", check=True).recipe == found.model.recipe
    found = convert(path, settings, new_head=True)
    assert set(found.model.recipe.heads) == {"ctc", "transducer"}
    assert "untrained" in found.notes[0]
    del theirs["decoder.embedding.weight"]
    torch.save({"model": {**icefall_names(encoder), **theirs}}, path)
    with pytest.raises(CheckpointError, match="no transducer"):
        convert(path, settings)


def test_part_of_a_transducer_needs_a_new_head(tmp_path: Path) -> None:
    encoder = small()
    path, settings = tmp_path / "pretrained.pt", tmp_path / "config.json"
    settings.write_text(json.dumps(arguments(encoder.config, 80)), encoding="utf-8")
    torch.save({"model": {**icefall_names(encoder), "joiner.output_linear.bias": torch.zeros(7)}}, path)
    with pytest.raises(CheckpointError, match="no CTC output"):
        convert(path, settings)
    found = convert(path, settings, new_head=True)
    assert found.model.vocabulary == 7
    assert "untrained" in found.notes[0]


def test_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text("<blk> 0\n<unk> 2\n▁THE 4\n#0 5\n", encoding="utf-8")
    assert read_tokens(path, 5) == ["<blank>", "<1>", "<unk>", "<3>", "▁THE"]
    for text, words in (("a b c\n", "expected 'piece id'"), ("a 9\n", "5 outputs"), ("a 1\na 2\n", "twice")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError, match=words):
            read_tokens(path, 5)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_tokens(tmp_path / "none.txt", 5)


@pytest.mark.parametrize("mels", [80, 40, 64, 23])
def test_number_of_mel_bins(mels: int) -> None:
    bins = ((mels - 1) // 2 - 1) // 2
    weights = {
        "encoder_embed.out.weight": torch.zeros(2, 4 * bins),
        "encoder_embed.conv.7.weight": torch.zeros(4, 1, 3, 3),
    }
    assert input_dim(weights, {"feature_dim": mels}) == mels
    assert ((input_dim(weights, {}) - 1) // 2 - 1) // 2 == bins


def test_command_writes_a_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from firstwords.cli.convert import run

    encoder = small()
    path = write(tmp_path, encoder, **{"decoder.conv.weight": torch.zeros(2)})
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps(arguments(encoder.config, 80)), encoding="utf-8")
    run("icefall", path, to=tmp_path / "model", config=settings)
    assert "left out: decoder (1 tensors)" in capsys.readouterr().out
    loaded = load_model(tmp_path / "model", device="cpu", check=True)
    assert loaded.recipe.encoder == encoder.config
    assert "decoder.conv.weight" in (tmp_path / "model" / "card.md").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        run("icefall", path, to=tmp_path / "model")
    with pytest.raises(UsageError, match="not known"):
        run("espnet", path, to=tmp_path / "other")
