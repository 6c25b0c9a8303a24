"""The built-in corpus: its plan, the voices, the child process, and the finished folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from firstwords.audio.waveform import read
from firstwords.config import parse_config
from firstwords.data.manifest import load_corpus
from firstwords.errors import ConfigError, CorpusError, DependencyError
from firstwords.quickstart import corpus as corpus_module
from firstwords.quickstart.corpus import Espeak, build_corpus, find_espeak, prove_voices_differ
from firstwords.quickstart.makeup import NON_SPEECH, MakeUp, Voice, plan, read_makeup
from firstwords.quickstart.voices import DrawnVoice, draw_voices, write_variants


def small() -> MakeUp:
    makeup = read_makeup()
    values = makeup.model_dump()
    values["utterances"] = {"train": 66, "dev": 4, "test": 5}
    values["drawn_voices"] = 6
    return MakeUp.model_validate(values)


def silent(_what: str, _done: int, _of: int) -> None:
    """No progress in tests."""


def test_committed_makeup_keeps_its_promises() -> None:
    makeup = read_makeup()
    timbres = {v.timbre: v.split for v in makeup.voices}
    assert len(makeup.voices) >= 12
    assert sum(s == "test" for s in timbres.values()) >= 3
    assert makeup.snr_db == (5.0, 25.0)
    speaking = [p for p in plan(makeup) if p.voice]
    for p in speaking:
        assert p.split == ("train" if isinstance(p.voice, DrawnVoice) or not p.voice else p.voice.split)
    assert len({p.voice.name for p in speaking if isinstance(p.voice, DrawnVoice)}) == makeup.drawn_voices > 0
    texts = {p.text for p in speaking}
    assert any("seven" in t for t in texts)
    assert "call home" in texts


def test_plan_is_a_function_of_the_seed() -> None:
    makeup = small()
    assert plan(makeup) == plan(makeup)
    other = MakeUp.model_validate(makeup.model_dump() | {"seed": makeup.seed + 1})
    assert [p.phrases for p in plan(makeup)] != [p.phrases for p in plan(other)]


def test_a_voice_may_not_speak_in_two_splits() -> None:
    values = small().model_dump(mode="json")
    values["voices"][0]["name"] = "en-gb-x-rp+f2"  # 'f2' is a test voice
    values["voices"][0]["split"] = "train"
    with pytest.raises(ConfigError, match="'f2' speaks in"):
        parse_config(values, MakeUp, name="corpus", source="corpus.toml")


def test_equal_voices_are_found_out(tmp_path: Path) -> None:
    twice = [Voice(name=n, split="train", rate=160, pitch=50) for n in ("en-us+m1", "en-us+m2")]
    prove_voices_differ(find_espeak(), twice, tmp_path)
    same = [Voice(name=n, split="train", rate=160, pitch=50) for n in ("en-us", "gmw/en-US")]
    with pytest.raises(CorpusError, match="exactly alike"):
        prove_voices_differ(find_espeak(), same, tmp_path)


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    voices = [Voice(name="en-us+nobody", split="train", rate=160, pitch=50)]
    with pytest.raises(CorpusError, match="no variant 'nobody'"):
        prove_voices_differ(find_espeak(), voices, tmp_path)


def test_a_long_data_path_is_copied_to_a_short_one(tmp_path: Path) -> None:
    espeak = find_espeak()
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    shutil.copytree(espeak.data, deep / "espeak-ng-data")
    far = Espeak(espeak.library, deep / "espeak-ng-data")
    work = tmp_path / "w"
    work.mkdir()
    voices = [Voice(name="en-us+m1", split="train", rate=160, pitch=50)]
    with pytest.raises(CorpusError, match="return code"):
        prove_voices_differ(far, voices, work)  # the fault is real: espeak-ng cannot read this path
    near = corpus_module._with_own_data(far, work)
    assert near.data.parent == work
    prove_voices_differ(near, voices, work)


def test_drawn_voices_differ_and_can_be_repeated(tmp_path: Path) -> None:
    voices = draw_voices(3, 12)
    assert voices[:5] == draw_voices(3, 5)
    assert voices != draw_voices(4, 12)
    with pytest.raises(CorpusError, match="no variant 'drawn000'"):
        prove_voices_differ(find_espeak(), voices, tmp_path)  # espeak-ng would fall back to the plain voice
    own = corpus_module._with_own_data(find_espeak(), tmp_path)
    write_variants(voices, own.data)
    prove_voices_differ(own, voices, tmp_path)


def test_missing_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DependencyError, match=r"firstwords\[quickstart\]"):
        find_espeak()


def test_corpus_is_finished_or_absent_and_the_same_twice(tmp_path: Path) -> None:
    makeup = small()
    for name in ("one", "two"):
        build_corpus(makeup, tmp_path / name, silent)
    one, two = load_corpus(tmp_path / "one"), load_corpus(tmp_path / "two")
    assert [u.id for u in one.utterances] == [u.id for u in two.utterances]
    for a, b in zip(one.utterances, two.utterances, strict=True):
        x, y = read(a.audio).samples, read(b.audio).samples
        np.testing.assert_array_equal(x, y)
        assert 0 < np.abs(x).max() <= 1
        assert abs(len(x) / 16000 - a.duration) < 1e-3
    train = {u.speaker for u in one.split("train")}
    assert sum("drawn" in (speaker or "") for speaker in train) == 6
    assert train.isdisjoint({u.speaker for u in one.split("test")})
    silentless = [u for u in one.utterances if u.text == ""]
    assert silentless
    assert all(u.labels["kind"] == NON_SPEECH for u in silentless)
    assert not list(tmp_path.glob("*.building"))
    stamp = tmp_path / "one" / "makeup.json"
    before = stamp.stat().st_mtime_ns
    build_corpus(makeup, tmp_path / "one", silent)
    assert stamp.stat().st_mtime_ns == before  # nothing to do
    assert json.loads(stamp.read_text())["digest"] == makeup.digest
