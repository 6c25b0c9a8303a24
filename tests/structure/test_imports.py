"""The house: imports point down, light rooms stay light, files stay short, nothing unsafe is loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "firstwords"
FILES = sorted(SOURCE.rglob("*.py"))

# Low to high; rooms on one line may not import each other unless they are the same room.
LAYERS: list[tuple[str, ...]] = [
    ("errors",),
    ("files",),  # whole or not at all
    ("folders",),  # what a folder is
    ("config", "cores"),
    ("text",),  # letters: what scoring counts
    ("scoring", "audio"),
    ("training.schedule",),  # arithmetic alone
    ("data",),
    ("tensors", "device"),
    ("nn",),
    ("features",),  # front ends that learn are made of blocks of nn
    ("lm",),  # asked through nn/scorer
    ("training.settings",),  # recipes need them; they hold the settings of SpecAugment
    ("encoders",),
    ("heads",),  # intermediate CTC taps an encoder
    ("search",),
    ("formatting",),  # from recognised words to text for people
    ("model",),
    ("inference",),
    ("training",),
    ("export",),  # models into bundles, and what runs bundles
    ("compression",),
    ("report",),
    ("quickstart",),
    ("cli",),
    ("__main__",),  # python -m firstwords
]
# data/batch, sampler and loader make tensors; the rest of the room must not.
TORCH_FREE = (
    "firstwords",
    "firstwords.errors",
    "firstwords.config",
    "firstwords.cores",
    "firstwords.text.load",
    "firstwords.text.normalize",
    "firstwords.scoring.error_rate",
    "firstwords.audio.waveform",
    "firstwords.audio.augment",
    "firstwords.audio.activity",
    "firstwords.data.manifest",
    "firstwords.data.validate",
    "firstwords.data.split",
    "firstwords.data.corpora",
    "firstwords.training.schedule",
    "firstwords.formatting.build",
    "firstwords.formatting.settings",
    "firstwords.formatting.punctuation_text",
    "firstwords.lm.perplexity",
    "firstwords.lm.ngram_arpa",
    "firstwords.search.prefix_beam",
    "firstwords.search.ctc_streams",
    "firstwords.inference.listener",
    "firstwords.export.check_bundle",
    "firstwords.export.runtime",
    "firstwords.export.runtime_stream",
    "firstwords.export.runtime_language_model",
    "firstwords.cli.main",
    "firstwords.cli.transcribe_bundle",
    "firstwords.cli.info_bundle",
)
# What ``pip install firstwords`` does not bring: transcribing a bundle must do without.
NOT_IN_CORE = (
    *("torch", "jaxtyping", "regex", "jinja2", "safetensors", "sentencepiece", "kaldialign", "defusedxml"),
    *("onnx", "onnxscript", "transformers", "scipy"),
)
# And all that the runtime of bundles loads, where recordings have the rate of the model.
RUNTIME_NEEDS = (
    *("numpy", "onnxruntime", "soundfile", "_soundfile", "_soundfile_data", "_cffi_backend"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
)
TENSOR_USERS_IN_DATA = {"data.batch", "data.loader"}


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int | None:
    """Index of the most specific entry that covers the module."""
    best: tuple[int, int] | None = None
    for index, rooms in enumerate(LAYERS):
        for room in rooms:
            if (module == room or module.startswith(room + ".")) and (best is None or len(room) > best[0]):
                best = (len(room), index)
    return best[1] if best else None


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("firstwords"):
            base = node.module.removeprefix("firstwords").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                target = SOURCE.joinpath(*inner.split("."))
                is_module = target.with_suffix(".py").exists() or (target / "__init__.py").exists()
                found.add(inner if is_module else base)
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("firstwords.") for a in node.names if a.name.startswith("firstwords.")
            }
    return found - {""}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path: Path) -> None:
    module = module_of(path)
    if module == "":
        return  # the package's own lazy names
    own = layer_of(module)
    assert own is not None, f"{module} belongs to no room of docs/architecture.md"
    for target in sorted(imports_of(path)):
        below = layer_of(target)
        if below is None:
            continue
        same_room = module.split(".")[0] == target.split(".")[0]
        tensors_in_data = module in TENSOR_USERS_IN_DATA and target in {"tensors", "device"}
        assert below < own or (below == own and same_room) or tensors_in_data, (
            f"{module} imports {target} above it"
        )


def test_no_import_cycles() -> None:
    graph = {module_of(p): imports_of(p) for p in FILES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module in done:
            return
        for target in graph.get(module, ()):
            if target != module:
                visit(target, (*trail, module))
        done.add(module)

    for module in graph:
        if module:
            visit(module, ())


def test_light_rooms_import_no_torch() -> None:
    script = (
        "import sys, importlib\n"
        f"for name in {TORCH_FREE!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-500:]


def test_bundles_are_transcribed_by_the_core_alone(tmp_path: Path) -> None:
    """In a process in which nothing of the extras can be imported: recordings, streams, a language model."""
    import numpy as np

    from firstwords.audio.waveform import write
    from firstwords.lm.ngram_arpa import write_arpa
    from small_ngrams import train
    from tone_bundle import make_tone_bundle
    from tone_corpus import RATE, sing

    make_tone_bundle(tmp_path / "offline")
    make_tone_bundle(tmp_path / "streaming", "transducer", streaming=True)
    write(tmp_path / "said.flac", sing("aei uoa", np.random.default_rng(0)), RATE)
    write_arpa(tmp_path / "lm.arpa", train(["aeiuoa", "aeiou"], "char").model)
    script = f"""
import pathlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {NOT_IN_CORE!r}:
            raise ImportError(name + " is not in the core")
sys.meta_path.insert(0, Blocked())
from firstwords.cli import main as cli
def run(*arguments):
    sys.argv = ["firstwords", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, arguments
run("transcribe", "offline", "said.flac")
run("transcribe", "offline", "said.flac", "--beam", "4", "--lm", "lm.arpa", "--lm-weight", "0.1")
run("transcribe", "offline", "said.flac", "--out", "out", "--format", "txt,json,srt,vtt,ctm,textgrid,eaf")
run("transcribe", "streaming", "said.flac")
run("info", "streaming", "--check")
from firstwords.audio.waveform import read
from firstwords.export.runtime import Runtime
stream = Runtime.load("streaming").stream()
stream.accept(read(pathlib.Path("said.flac")).samples, 16000)
stream.finish()
print(stream.text)
assert not [name for name in sys.modules if name.partition(".")[0] in {NOT_IN_CORE!r}]
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert [line for line in result.stdout.splitlines() if line == "aeiuoa"] == ["aeiuoa"] * 4
    assert (tmp_path / "out" / "said.txt").read_text().strip() == "aeiuoa"


def test_the_runtime_needs_little(tmp_path: Path) -> None:
    """Recordings and streams where nothing else can be imported; another rate asks for soxr by name."""
    import numpy as np

    from firstwords.audio.waveform import write
    from tone_bundle import make_tone_bundle
    from tone_corpus import RATE, sing

    make_tone_bundle(tmp_path / "offline")
    make_tone_bundle(tmp_path / "streaming", "transducer", streaming=True)
    write(tmp_path / "said.flac", sing("aei uoa", np.random.default_rng(0)), RATE)
    script = f"""
import pathlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        if not known and top not in {("firstwords", *RUNTIME_NEEDS)!r}:
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Blocked())
from firstwords.audio.waveform import read
from firstwords.errors import DependencyError
from firstwords.export.runtime import Runtime
samples = read(pathlib.Path("said.flac")).samples
print(Runtime.load("offline").transcribe("said.flac").text)
stream = Runtime.load("streaming").stream()
stream.accept(samples, {RATE})
stream.finish()
print(stream.text)
try:
    Runtime.load("offline").transcribe(samples, {RATE} // 2)
except DependencyError as error:
    print(error.what)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr[-2000:]
    needed = f"Changing {RATE // 2} Hz into {RATE} Hz needs the package 'soxr'."
    assert result.stdout.splitlines() == ["aeiuoa", "aeiuoa", needed]


def test_nothing_imports_torchaudio_or_torchcodec() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            assert not any(n.split(".")[0] in {"torchaudio", "torchcodec"} for n in names), path


def test_pickles_are_opened_only_by_convert_and_only_weights() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            name = f"{owner.id}.{node.func.attr}" if isinstance(owner, ast.Name) else ""
            assert name not in {"pickle.load", "pickle.loads", "yaml.load", "marshal.loads"}, path
            if name == "torch.load":
                assert "convert" in path.parts, f"{path.name} opens a pickle; only model/convert may"
                safe = [k for k in node.keywords if k.arg == "weights_only"]
                assert safe, path
                assert isinstance(safe[0].value, ast.Constant), path
                assert safe[0].value.value is True, path


def test_files_are_short() -> None:
    """A warning, not a failure: a file over 400 lines says in its head why it is one file."""
    long = {module_of(p): n for p in FILES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400}
    for module, lines in long.items():
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(f"{module} has {lines} lines", stacklevel=1)
    assert not [m for m, n in long.items() if n > 500], long
