"""Everything in the product that writes files, each as an operation that can be done again and again.

A new writer belongs into ``WRITERS``: ``test_failing_writes`` then proves that it leaves no half a file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from firstwords.audio.waveform import read, write
from firstwords.cli.transcribe_files import Job, write_results
from firstwords.data.cache import AudioCache
from firstwords.data.corpora.importing import Plan, import_corpus
from firstwords.data.manifest import (
    Utterance,
    load_corpus,
    read_manifest,
    read_quarantine,
    write_manifest,
    write_quarantine,
)
from firstwords.files import staged, write_atomically
from firstwords.inference.made import RECORD, made_in
from firstwords.inference.transcript import Segment, Transcript, Word
from firstwords.lm.language_model import save_language_model
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.recipe import Recipe, read_recipe, write_recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.quickstart.page import build_page
from firstwords.report.check_files import check_and_write
from firstwords.report.evaluate import evaluate, save_evaluation
from firstwords.search.language_models import language_model_fingerprint
from firstwords.search.spotted import SpottedFile, SpottedPhrase, read_spotted, write_spotted
from firstwords.search.tuned import TunedSetting, add_tuned, check_source, read_tuned
from firstwords.text.characters import GraphemeTokenizer
from firstwords.text.given import GivenTokenizer
from firstwords.text.load import load_tokenizer
from firstwords.text.subwords import SubwordConfig, SubwordTokenizer
from firstwords.training.log import MetricsLog, read_log
from firstwords.training.resume import Checkpoints, check_identity, read_checkpoint
from nonsense_model import make_nonsense_model
from small_ngrams import train
from tone_corpus import make_tone_corpus, tone_recipe


@dataclass(frozen=True)
class Writer:
    """One operation that writes below ``home``.

    Args:
        prepare: makes what the operation reads, in a folder of its own (once).
        before: puts an old state into ``home``; None: the operation starts from nothing.
        write: the operation itself.
        prove: raises, or returns False, if the result in ``home`` is not what was to be written.
        may_stay: of a new file left behind by a failure: whether it is whole (an interrupted copy goes on).
    """

    name: str
    prepare: Callable[[Path], Any]
    write: Callable[[Path, Any], Any]
    prove: Callable[[Path, Any], Any]
    before: Callable[[Path, Any], Any] | None = None
    may_stay: Callable[[Path, Any], bool] | None = None


def nothing(_: Path) -> None:
    return None


# --- corpora ---------------------------------------------------------------------------------------------


def a_source(folder: Path) -> Path:
    for number in range(4):
        path = folder / "source" / f"s{number}" / f"u{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.sin(np.arange(8000) / (5 + number)), 8000)
        path.with_suffix(".txt").write_text(f"text {number}", encoding="utf-8")
    return folder / "source"


def imported_before(home: Path, source: Path) -> None:
    import_corpus(source, home, Plan(seed=3))
    write_quarantine(home, {"u1": "noise"})


def imports(home: Path, source: Path) -> None:
    import_corpus(source, home, Plan(seed=1, dev=0.3))


def is_imported(home: Path, source: Path) -> None:
    corpus = load_corpus(home)
    assert len(corpus.utterances) == 4
    assert not corpus.quarantine
    assert json.loads((home / "import.json").read_text(encoding="utf-8"))["finished"] is True
    assert all(u.audio.is_file() for u in corpus.utterances)


def copies(home: Path, source: Path) -> None:
    import_corpus(source, home, Plan(copy=True))


def a_stereo_source(folder: Path) -> Path:
    source = a_source(folder)
    for path in source.rglob("*.wav"):
        sound, rate = soundfile.read(path)
        soundfile.write(path, np.stack([sound, sound / 2], axis=1), rate)
    return source


def divides(home: Path, source: Path) -> None:
    import_corpus(source, home, Plan(channels={"*": 1}))


def is_a_whole_channel(path: Path, source: Path) -> bool:
    """Of an interrupted import by channels: whole ones, and the note whose import it is."""
    if path.name == "import.json":
        return json.loads(path.read_text(encoding="utf-8"))["finished"] is False
    both = soundfile.read(next(source.rglob(path.name.removesuffix(".channel1.wav"))))[0]
    return np.array_equal(soundfile.read(path)[0], both[:, 1])


def is_a_whole_copy(path: Path, source: Path) -> bool:
    """Of an interrupted import with copies: whole recordings, and the note whose import it is."""
    if path.name == "import.json":
        return json.loads(path.read_text(encoding="utf-8"))["finished"] is False
    return path.read_bytes() == next(source.rglob(path.name)).read_bytes()


def a_corpus(folder: Path) -> Path:
    return make_tone_corpus(folder / "corpus", train=3, dev=1, test=1)


def with_manifest(home: Path, corpus: Path) -> None:
    write_manifest(home / "manifest.jsonl", list(read_manifest(corpus / "manifest.jsonl"))[:2])
    write_quarantine(home, {"train-000": "by hand"})


def checked_before(home: Path, corpus: Path) -> None:
    """A check has been here, and a person has deleted one of its lines."""
    with_manifest(home, corpus)
    check_and_write(load_corpus(home), name="corpus", workers=1)
    (home / "check" / "quarantine.json").write_text('{"train-001": "audio-clipped: much"}', encoding="utf-8")


def checks(home: Path, corpus: Path) -> None:
    if not (home / "manifest.jsonl").is_file():
        with_manifest(home, corpus)
    check_and_write(load_corpus(home), name="corpus", workers=1)


def is_checked(home: Path, _: Path) -> None:
    assert read_quarantine(home)["train-000"] == "by hand"
    assert "train-001" in (home / "allow.txt").read_text(encoding="utf-8")
    assert (home / "check" / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    json.loads((home / "check" / "quarantine.json").read_text(encoding="utf-8"))
    assert (home / "check" / "findings.jsonl").is_file()


# --- models ----------------------------------------------------------------------------------------------


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


def two_language_models(folder: Path) -> list[Path]:
    folders = [folder / str(order) for order in (2, 3)]
    for order, one in zip((2, 3), folders, strict=True):
        save_language_model(one, train(["ab a", "b ba"], "char", order))
    return folders


def mixes(home: Path, folders: list[Path]) -> None:
    from firstwords.lm.mixture import mix_language_models

    mix_language_models(folders, home / "mix")


def is_mixed(home: Path, _: Any) -> None:
    from firstwords.lm.language_model import load_language_model
    from firstwords.lm.mixture import read_mixture

    for part, share in read_mixture(home / "mix"):
        load_language_model(part)
        assert share == 0.5


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


def some_state(step: int) -> dict[str, Any]:
    return {"model": {"weight": torch.full((40, 30), float(step))}, "counters": {"step": step}}


def checkpoints_before(home: Path, _: None) -> None:
    for step in (1, 2, 3):
        Checkpoints(home).save(step, some_state(step))
    Checkpoints(home).save_best(2, some_state(2))


def is_checkpoint(home: Path, _: None) -> None:
    checkpoints = Checkpoints(home)
    newest = checkpoints.newest()
    assert newest is not None
    assert not checkpoints.spoiled
    assert torch.equal(newest.state["model"]["weight"], some_state(newest.step)["model"]["weight"])
    for path in [*home.glob("step-*"), *home.glob("best-*")]:
        read_checkpoint(path)


def logs(home: Path, _: None) -> None:
    log = MetricsLog(home / "log.jsonl", after=1)
    try:
        for step in (2, 3):
            log.write("train", step, {"loss": 1.5 / step, "text": "ẹ̀"})
    finally:
        log.close()


def logged_before(home: Path, _: None) -> None:
    text = '{"kind": "train", "step": 1, "loss": 3.0}\n{"kind": "train", "step": 2, "loss": 2.0}\n{"kind": "t'
    (home / "log.jsonl").write_text(text, encoding="utf-8")


def is_logged(home: Path, _: None) -> None:
    steps = [line["step"] for line in read_log(home / "log.jsonl")]
    assert steps[-2:] == [2, 3]
    assert (home / "log.jsonl").read_bytes().endswith(b"\n")


# --- results ---------------------------------------------------------------------------------------------


def an_evaluation(folder: Path) -> Any:
    corpus = load_corpus(a_corpus(folder))
    heard = [Transcript(u.text or "", (), "und", u.duration, "") for u in corpus.utterances]
    return evaluate(list(corpus.utterances), heard, replicates=20, model="m", corpus="c", split="test")


def evaluated_before(home: Path, _: Any) -> None:
    for name in ("evaluation.json", "hypotheses.jsonl", "report.html"):
        (home / name).write_text("old " + name, encoding="utf-8")


def is_evaluated(home: Path, _: Any) -> None:
    assert json.loads((home / "evaluation.json").read_text(encoding="utf-8"))["word_error_rate"]["rate"] == 0
    assert (home / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert len((home / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()) == 5


FORMATS = ["txt", "json", "srt", "vtt", "ctm", "textgrid", "eaf"]
WORDS = (Word("samaki", 0.0, 0.4, 0.9), Word("wali", 0.5, 0.9, 0.8))


def a_transcript(folder: Path) -> tuple[Path, Transcript]:
    """A recording with a linguist's own .eaf beside it, which gets one more tier."""
    audio = folder / "one.wav"
    soundfile.write(audio, 0.1 * np.sin(np.arange(8000) / 5), 8000)
    audio.with_suffix(".eaf").write_text(
        '<ANNOTATION_DOCUMENT><HEADER/><TIME_ORDER></TIME_ORDER><TIER LINGUISTIC_TYPE_REF="t" '
        'TIER_ID="mine"/><LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="t" TIME_ALIGNABLE="true"/>'
        "</ANNOTATION_DOCUMENT>",
        encoding="utf-8",
    )
    segments = (Segment(0.0, 0.9, "samaki wali", WORDS, 0.85),)
    return audio, Transcript("samaki wali", segments, "sw", 1.0, "one.wav")


def transcribed_before(home: Path, made: tuple[Path, Transcript]) -> None:
    for suffix in ("txt", "json", "eaf"):
        (home / f"one.{suffix}").write_text("old", encoding="utf-8")


def transcribes(home: Path, made: tuple[Path, Transcript]) -> None:
    audio, transcript = made
    write_results(Job(audio, 1.0, home / "one"), transcript, "m", FORMATS, {"model": "m"})


def is_the_record(path: Path, _: object) -> bool:
    """Written before the transcripts: then they are known to be ours, whenever a kill comes."""
    return path.name == RECORD


def is_transcribed(home: Path, made: tuple[Path, Transcript]) -> None:
    names = [f"one.{'TextGrid' if f == 'textgrid' else f}" for f in FORMATS]
    assert sorted(p.name for p in home.iterdir()) == sorted([*names, RECORD])
    known = made_in(home)
    assert all(known[name].is_in(home / name) for name in names)
    record = json.loads((home / "one.json").read_text(encoding="utf-8"))
    assert Transcript.from_record(record) == made[1]
    eaf = (home / "one.eaf").read_text(encoding="utf-8")
    assert 'TIER_ID="mine"' in eaf
    assert eaf.endswith("</ANNOTATION_DOCUMENT>")


def writes_page(home: Path, evaluation: Any) -> None:
    page = build_page(
        title="A first recogniser",
        warning="",
        evaluation=evaluation,
        metrics=home / "none.jsonl",
        stages={"all": 1.0},
        reports={},
        commands=("firstwords import X --to corpus",),
        folder=home,
    )
    page.save(home / "report.html")


def is_page(home: Path, _: Any) -> None:
    assert (home / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")


def writes_bundle(home: Path, _: None) -> None:
    from firstwords.cli.doctor import run
    from firstwords.report import doctor

    real, doctor.examine = doctor.examine, lambda _folder: [doctor.Part("disk", "ok", "fine")]
    try:
        with redirect_stdout(io.StringIO()):
            run(Path(), home / "bundle.txt")
    finally:
        doctor.examine = real


def is_bundle(home: Path, _: None) -> None:
    assert "packages:" in (home / "bundle.txt").read_text(encoding="utf-8")


SOUND = (0.2 * np.sin(np.arange(30_000) / 9)).astype(np.float32)


def is_sound(suffix: str) -> Callable[[Path, None], None]:
    def check(home: Path, _: None) -> None:
        got = read(home / f"a{suffix}")
        assert got.repairs == ()
        assert abs(len(got.samples) - len(SOUND)) <= 1500  # lossy codecs pad

    return check


def caches(home: Path, _: None) -> None:
    AudioCache([0.3, 0.4], sample_rate=8000, limit_bytes=1e6, path=home / "audio-0.cache")


def is_cache(home: Path, _: None) -> None:
    assert (home / "audio-0.cache").stat().st_size == 2 * 16 + 2 * (3200 + 4000)


def old(name: str, content: str = "old") -> Callable[[Path, Any], Any]:
    return lambda home, _: (home / name).write_text(content, encoding="utf-8")


def _utterance(name: str) -> Utterance:
    return Utterance(id=name, audio=Path("/recordings") / f"{name}.wav", duration=1.0, text="ẹ̀")


SPOTTED = SpottedFile(
    model="m",
    threshold=3.0,
    share=0.5,
    false_alarms=0.01,
    phrases=(SpottedPhrase(text="ọmọ ní", mean=-9.0, deviation=2.5),),
)
TUNED = TunedSetting(model="m", lm="l", search="greedy", weight=0.5)


def a_source_model(folder: Path) -> Path:
    save_language_model(folder / "source", train(["a e i", "o u"], "char", 2))
    return folder / "source"


def taking_off(source: Path) -> TunedSetting:
    return TUNED.with_(source=language_model_fingerprint(source), source_weight=0.25)


WRITERS = [
    Writer("import into a new folder", a_source, imports, is_imported),
    Writer("import again", a_source, imports, is_imported, imported_before),
    Writer("import with copies", a_source, copies, is_imported, may_stay=is_a_whole_copy),
    Writer("import by channels", a_stereo_source, divides, is_imported, may_stay=is_a_whole_channel),
    Writer(
        "manifest",
        nothing,
        lambda home, _: write_manifest(home / "manifest.jsonl", [_utterance("a"), _utterance("b")]),
        lambda home, _: [u.id for u in read_manifest(home / "manifest.jsonl")] == ["a", "b"],
        old("manifest.jsonl"),
    ),
    Writer(
        "quarantine",
        nothing,
        lambda home, _: write_quarantine(home, {"a": "hum", "b": "ẹ̀"}),
        lambda home, _: read_quarantine(home) == {"a": "hum", "b": "ẹ̀"},
        old("quarantine.jsonl", '{"id": "a", "reason": "old"}\n'),
    ),
    Writer(
        "weights of a language model",
        nothing,
        lambda home, _: add_tuned(home, TUNED.with_(weight=0.7)),
        lambda home, _: read_tuned(home).tuned == (TUNED.with_(weight=0.7),),
        lambda home, _: add_tuned(home, TUNED),
    ),
    Writer(
        "weights of a language model that take another one off",
        a_source_model,
        lambda home, source: add_tuned(home, taking_off(source), source),
        lambda home, source: (
            check_source(home, read_tuned(home).tuned[0]) == home / "sources" / taking_off(source).source
        ),
        lambda home, _: add_tuned(home, TUNED),
        may_stay=lambda path, source: path.read_bytes() == (source / path.name).read_bytes(),
    ),
    Writer(
        "phrases to be spotted",
        nothing,
        lambda home, _: write_spotted(home / "names", SPOTTED),
        lambda home, _: read_spotted(home / "names") == SPOTTED,
        lambda home, _: write_spotted(home / "names", SPOTTED.with_(threshold=9.0)),
    ),
    Writer("check with decisions", a_corpus, checks, is_checked, checked_before),
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
    Writer("mixture of language models", two_language_models, mixes, is_mixed),
    Writer("quantize", a_model_and_speech, quantizes, is_small),
    Writer("prune", a_model_and_speech, prunes, is_small, may_stay=is_begun),
    Writer("fold", a_model_with_norms, folds, is_small),
    Writer("bundle over an earlier one", a_bundle, replaces_bundle, is_the_new_bundle, an_earlier_bundle),
    Writer("compress to a target", a_file_called_model, plans, is_planned, may_stay=is_begun),
    Writer(
        "first checkpoint", nothing, lambda home, _: Checkpoints(home).save(4, some_state(4)), is_checkpoint
    ),
    Writer(
        "fourth checkpoint",
        nothing,
        lambda home, _: Checkpoints(home).save(4, some_state(4)),
        is_checkpoint,
        checkpoints_before,
    ),
    Writer(
        "a checkpoint again",
        nothing,
        lambda home, _: Checkpoints(home).save(3, some_state(3)),
        is_checkpoint,
        checkpoints_before,
    ),
    Writer(
        "best checkpoint",
        nothing,
        lambda home, _: Checkpoints(home).save_best(4, some_state(4)),
        is_checkpoint,
        checkpoints_before,
    ),
    Writer(
        "identity of a run",
        nothing,
        lambda home, _: check_identity(home, {"recipe": "a"}),
        lambda home, _: check_identity(home, {"recipe": "a"}),
    ),
    Writer(
        "audio cache",
        nothing,
        caches,
        is_cache,
        old("audio-0.cache"),
    ),
    Writer("evaluation", an_evaluation, lambda home, e: save_evaluation(e, home) and None, is_evaluated),
    Writer(
        "evaluation over another",
        an_evaluation,
        lambda home, e: save_evaluation(e, home) and None,
        is_evaluated,
        evaluated_before,
    ),
    Writer("transcripts", a_transcript, transcribes, is_transcribed, may_stay=is_the_record),
    Writer(
        "transcripts over others",
        a_transcript,
        transcribes,
        is_transcribed,
        transcribed_before,
        may_stay=is_the_record,
    ),
    Writer("page of the quickstart", an_evaluation, writes_page, is_page, old("report.html")),
    Writer("bundle of the doctor", nothing, writes_bundle, is_bundle, old("bundle.txt")),
    *(
        Writer(
            f"audio {suffix}",
            nothing,
            lambda home, _, suffix=suffix: write(home / f"a{suffix}", SOUND, 16000),
            is_sound(suffix),
            old(f"a{suffix}"),
        )
        for suffix in (".wav", ".flac", ".ogg", ".opus", ".mp3")
    ),
]
LOG = Writer("metrics log", nothing, logs, is_logged, logged_before)
BY_NAME: Mapping[str, Writer] = {w.name: w for w in (*WRITERS, LOG)}
