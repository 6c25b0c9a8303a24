"""Readers of recipes, models, checkpoints and results, with valid files to begin from (see fuzzing.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuzzing import Reader, texts

# --- models ----------------------------------------------------------------------------------------------


def _recipes() -> list[bytes]:
    from firstwords.config import dump_config
    from tone_corpus import tone_recipe

    return [
        dump_config(tone_recipe()).encode(),
        b'[encoder]\nkind = "zipformer"\n[heads.ctc]\nkind = "ctc"\n[training]\nminutes = 5\n',
        b'base = "base.toml"\nname = "x"\nseed = 2\n',
    ]


def _base_recipe(folder: Path) -> None:
    (folder / "base.toml").write_bytes(_recipes()[1])


def _read_recipe(folder: Path) -> None:
    from firstwords.config import dump_config
    from firstwords.model.recipe import read_recipe

    recipe = read_recipe(folder / "recipe.toml")
    dump_config(recipe).encode()


_SPOTTED = """format = 1
kind = "spotted phrases"
model = "m"
threshold = 3.0
share = 0.5
false_alarms = 0.01
phrases = [
    { text = "ae", mean = -9.0, deviation = 2.5 },
]
decoys = []
"""


def _read_spotted(folder: Path) -> None:
    from firstwords.search.spotted import is_spotted_file, read_spotted, spotter_of
    from firstwords.text.characters import GraphemeTokenizer

    is_spotted_file(folder / "names.spotted")
    spotter_of(read_spotted(folder / "names.spotted"), GraphemeTokenizer.train(["aeiou"]))


def _assignments() -> list[bytes]:
    return [b"training.steps=5", b"encoder.dims=[48, 48]", b"name=x y", b"text.normalizer=default", b"seed=1"]


def _set_recipe(folder: Path) -> None:
    from firstwords.model.recipe import read_recipe

    (folder / "recipe.toml").write_bytes(_recipes()[0])
    given = (folder / "set.txt").read_bytes().decode("utf-8", "surrogateescape")
    read_recipe(folder / "recipe.toml", overrides=(given,))


def _model(folder: Path) -> None:
    from nonsense_model import make_nonsense_model

    make_nonsense_model(folder)


def _file_of_model(name: str) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            _model(Path(place))
            return [(Path(place) / name).read_bytes()]

    return make


def _head_of_weights() -> list[bytes]:
    """The header of the weights (and a little of them); the rest would drown every edit."""
    whole = _file_of_model("model.safetensors")()[0]
    return [whole[: 8 + int.from_bytes(whole[:8], "little") + 1000], whole[:300_000]]


def _load_model(folder: Path) -> None:
    from firstwords.model.checkpoint import load_model

    load_model(folder, device="cpu")


def _prove_model(folder: Path) -> None:
    from firstwords.model.checkpoint import load_model

    load_model(folder, device="cpu", check=True)


def _info(folder: Path) -> None:
    """'firstwords info' reads headers and the card of whatever folder it is given."""
    import contextlib
    import io

    from firstwords.cli.info import run

    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        run(folder, check=False)


def _tokenizer(kind: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        from robustness.writers_models import TOKENIZERS

        TOKENIZERS[kind](folder).save(folder)

    return prepare


def _file_of_tokenizer(kind: str, name: str) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            _tokenizer(kind)(Path(place))
            return [(Path(place) / name).read_bytes()]

    return make


def _load_tokenizer(folder: Path) -> None:
    from firstwords.text.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    tokenizer.decode([t for t in tokenizer.encode("ab") if t < len(tokenizer.pieces)])


def _given(folder: Path) -> None:
    from firstwords.text.given import GivenTokenizer

    GivenTokenizer.read(folder / "tokens.txt").decode([1])


def _icefall(folder: Path) -> None:
    from firstwords.model.convert.icefall import load

    load(folder / "pretrained.pt", folder / "config.json")


def _icefall_files(folder: Path) -> None:
    from robustness.writers_models import an_icefall_checkpoint

    an_icefall_checkpoint(folder)


def _file_of_icefall(name: str) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            _icefall_files(Path(place))
            return [(Path(place) / name).read_bytes()]

    return make


# --- runs and results ------------------------------------------------------------------------------------


def _checkpoint(folder: Path) -> None:
    from firstwords.training.resume import Checkpoints
    from robustness.writers_training import some_state

    Checkpoints(folder).save(3, some_state(3))


def _file_of_checkpoint(name: str) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            _checkpoint(Path(place))
            return [(Path(place) / "step-00000003" / name).read_bytes()]

    return make


def _newest(folder: Path) -> None:
    from firstwords.training.resume import Checkpoints

    Checkpoints(folder).newest()


def _identity(folder: Path) -> None:
    from firstwords.training.resume import check_identity

    check_identity(folder, {"recipe": "a", "corpus": "b"}, whole=True)


def _log(folder: Path) -> None:
    from firstwords.quickstart.page import training_curves
    from firstwords.training.log import MetricsLog, read_log

    records = read_log(folder / "log.jsonl")
    training_curves(records)
    MetricsLog(folder / "log.jsonl", after=2).close()


def _hypotheses(folder: Path) -> None:
    from firstwords.report.evaluation_json import read_hypotheses

    read_hypotheses(folder / "hypotheses.jsonl")


_RUN_LOG = (
    '{"kind": "train", "step": 1, "loss": 3.0}\n{"kind": "train", "step": 2, "loss": 2.5}\n'
    '{"kind": "dev", "step": 2, "cer": 0.5, "wer": 0.9}\n{"kind": "dev", "step": 4, "cer": 0.4, "wer": 0.8}\n'
)

READERS: tuple[Reader, ...] = (
    Reader("recipe", _recipes, "recipe.toml", _read_recipe, _base_recipe),
    Reader("spotted phrases", texts(_SPOTTED), "names.spotted", _read_spotted),
    Reader("recipe --set", _assignments, "set.txt", _set_recipe),
    Reader("model recipe", _file_of_model("recipe.toml"), "recipe.toml", _load_model, _model, slow=True),
    Reader("model weights", _head_of_weights, "model.safetensors", _load_model, _model, slow=True),
    Reader(
        "model answer",
        _file_of_model("check/expected.json"),
        "check/expected.json",
        _prove_model,
        _model,
        slow=True,
    ),
    Reader(
        "model clip", _file_of_model("check/clip.flac"), "check/clip.flac", _prove_model, _model, slow=True
    ),
    Reader("model info", _file_of_model("recipe.toml"), "recipe.toml", _info, _model),
    Reader("model info weights", _head_of_weights, "model.safetensors", _info, _model),
    Reader("model info card", _file_of_model("card.md"), "card.md", _info, _model),
    Reader(
        "pieces",
        _file_of_tokenizer("graphemes", "pieces.txt"),
        "pieces.txt",
        _load_tokenizer,
        _tokenizer("graphemes"),
    ),
    Reader(
        "tokenizer.toml",
        _file_of_tokenizer("given", "tokenizer.toml"),
        "tokenizer.toml",
        _load_tokenizer,
        _tokenizer("given"),
    ),
    Reader(
        "subwords.model",
        _file_of_tokenizer("subwords", "subwords.model"),
        "subwords.model",
        _load_tokenizer,
        _tokenizer("subwords"),
        slow=True,
    ),
    Reader("tokens.txt", texts("<blk> 0\n▁a 1\nb 2\n<0x41> 3\n"), "tokens.txt", _given),
    Reader(
        "icefall checkpoint",
        _file_of_icefall("pretrained.pt"),
        "pretrained.pt",
        _icefall,
        _icefall_files,
        slow=True,
    ),
    Reader(
        "icefall config", _file_of_icefall("config.json"), "config.json", _icefall, _icefall_files, slow=True
    ),
    Reader(
        "checkpoint state",
        _file_of_checkpoint("state.json"),
        "step-00000003/state.json",
        _newest,
        _checkpoint,
    ),
    Reader(
        "checkpoint tensors",
        _file_of_checkpoint("state.safetensors"),
        "step-00000003/state.safetensors",
        _newest,
        _checkpoint,
    ),
    Reader("run identity", texts('{"recipe": "a", "corpus": "b"}\n'), "identity.json", _identity),
    Reader("metrics log", texts(_RUN_LOG), "log.jsonl", _log),
    Reader(
        "hypotheses",
        texts('{"id": "a", "hypothesis": "x"}\n{"id": "b", "hypothesis": ""}\n'),
        "hypotheses.jsonl",
        _hypotheses,
    ),
)
