"""Layouts of JSON lines: our manifest, NeMo, Lhotse."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firstwords.data.corpora import Imported
from firstwords.data.corpora.json_lines import json_lines
from firstwords.errors import CorpusError

Tree = Callable[..., Path]
Take = Callable[..., Imported]


def lines(*records: object) -> str:
    return "".join(json.dumps(r) + "\n" for r in records)


class TestManifest:
    def test_our_own_lines(self, tree: Tree, take: Take) -> None:
        record = {"id": "a", "audio": "audio/a.wav", "duration": 1.0, "text": "moja", "speaker": "s"}
        more = {"language": "sw", "split": "train", "fold": 3, "empty": None}
        root = tree({"audio/a.wav": 1.04, "manifest.jsonl": lines(record | more), "lm_text.txt": "x"})
        (utterance,) = take(root, "manifest").utterances
        assert (utterance.id, utterance.text, utterance.split) == ("a", "moja", "train")
        assert utterance.duration == 1.04  # a rounded duration is not taken for a cut
        assert utterance.labels == {"fold": "3"}

    def test_parts_of_a_recording(self, tree: Tree, take: Take) -> None:
        part = {"id": "a", "audio": "a.wav", "start": 1.0, "duration": 0.5, "text": "x"}
        whole = {"id": "b", "audio": "a.wav", "text": "y"}
        first, second = take(tree({"a.wav": 3.0, "m.jsonl": lines(part, whole)}), "manifest").utterances
        assert (first.start, first.duration) == (1.0, 0.5)
        assert (second.start, second.duration) == (0.0, 3.0)

    def test_broken_lines_are_named_and_the_rest_goes_on(self, tree: Tree, take: Take) -> None:
        good = {"id": "a", "audio": "a.wav"}
        text = lines(
            good,
            {"audio": "a.wav"},
            {"id": "c"},
            ["list"],
            good | {"id": "d", "start": "soon"},
            good | {"id": "e", "audio": "gone.wav"},
            good | {"id": "f", "duration": 10**400},
            good | {"id": "g", "start": True},
            good,
        )
        root = tree({"a.wav": 1, "m.jsonl": text + "{\n" + "[" * 100_000 + "\n"})
        imported = take(root, "manifest")
        assert [u.id for u in imported.utterances] == ["a"]
        assert [int(s.where.split()[1]) for s in imported.skipped] == [2, 3, 4, 5, 6, 7, 8, 10, 11, 9]


class TestNemo:
    def test_fields_and_relative_paths(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "m/train_manifest.json": lines(
                    {"audio_filepath": "../wav/a.wav", "duration": 1.0, "text": "moja", "lang": "sw"},
                    {
                        "audio_filepath": "../wav/a.wav",
                        "offset": 0.25,
                        "duration": 0.5,
                        "text": "x",
                        "speaker": 7,
                    },
                    {"audio_filename": "../wav/b.wav", "duration": 1.0, "normalized_text": "mbili"},
                    {
                        "audio_filepath": "../wav/b.wav",
                        "duration": 1.0,
                        "text_filepath": "t.txt",
                        "noise": 0.1,
                    },
                    {"audio_filepath": "../wav/none.wav", "duration": 1.0, "text": ""},
                    {"duration": 1.0, "text": ""},
                ),
                "m/t.txt": "tatu",
                "wav/a.wav": 1,
                "wav/b.wav": 1,
            }
        )
        imported = take(root / "m/train_manifest.json", "nemo")
        assert [u.text for u in imported.utterances] == ["moja", "x", "mbili", "tatu"]
        first, part, _, last = imported.utterances
        assert (first.language, first.start, first.duration, first.split) == ("sw", 0.0, 1.0, None)
        assert (part.start, part.duration, part.speaker) == (0.25, 0.5, "7")
        assert last.labels == {"noise": "0.1"}
        assert [s.where for s in imported.skipped] == [
            "line 5 of train_manifest.json",
            "line 6 of train_manifest.json",
        ]
        assert "no audio file is named" in imported.skipped[1].reason

    def test_manifests_named_like_splits(self, tree: Tree, take: Take) -> None:
        line = {"audio_filepath": "a.wav", "duration": 1.0, "text": "x"}
        root = tree({"a.wav": 1, "train_manifest.json": lines(line), "test_manifest.json": lines(line)})
        assert {u.split for u in take(root, "nemo").utterances} == {"train", "test"}
        (root / "other.json").write_text(lines(line))
        with pytest.raises(CorpusError, match="several NeMo manifests"):
            take(root, "nemo")


def recording(path: str, **more: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": path}
    return {
        "id": "rec",
        "sources": [source],
        "sampling_rate": 8000,
        "num_samples": 24000,
        "duration": 3.0,
    } | more


def cut(**more: Any) -> dict[str, Any]:
    supervision = {
        "id": "sup",
        "recording_id": "rec",
        "start": 0.25,
        "duration": 0.5,
        "channel": 0,
        "text": "habari",
        "language": "sw",
        "speaker": "amina",
        "gender": "F",
        "custom": {"accent": "pwani"},
    }
    return {
        "id": "cut",
        "start": 1.0,
        "duration": 1.5,
        "channel": 0,
        "supervisions": [supervision],
        "recording": recording("a.wav"),
        "type": "MonoCut",
    } | more


class TestLhotse:
    @pytest.mark.parametrize("packed", [True, False])
    def test_cuts(self, packed: bool, tree: Tree, take: Take) -> None:
        content = lines(cut()).encode()
        name = "cuts.jsonl.gz" if packed else "cuts.jsonl"
        root = tree({"a.wav": 3.0, name: gzip.compress(content) if packed else content})
        (utterance,) = take(root, "lhotse").utterances
        assert (utterance.id, utterance.start, utterance.duration) == ("cut", 1.25, 0.5)
        assert (utterance.text, utterance.speaker, utterance.language) == ("habari", "amina", "sw")
        assert utterance.labels == {"accent": "pwani", "gender": "F"}

    def test_several_supervisions_of_one_cut_keep_their_own_names(self, tree: Tree, take: Take) -> None:
        one = cut()["supervisions"][0]
        two = one | {"id": "sup2", "start": 0.9, "text": "yako"}
        root = tree({"a.wav": 3.0, "cuts_train.jsonl": lines(cut(supervisions=[one, two]))})
        imported = take(root, "lhotse")
        assert {u.id: (u.start, u.text) for u in imported.utterances} == {
            "sup": (1.25, "habari"),
            "sup2": (1.9, "yako"),
        }

    def test_what_a_plain_utterance_cannot_be_is_left_out_with_a_reason(
        self, tree: Tree, take: Take, tmp_path: Path
    ) -> None:
        proof = tmp_path / "was_run"
        command = {"type": "command", "channels": [0], "source": f"touch {proof}"}
        stereo = {"type": "file", "channels": [0, 1], "source": "a.wav"}
        wrong = [
            ("MixedCut", cut(type="MixedCut")),
            ("never run", cut(recording=recording("a.wav", sources=[command]))),
            ("of type 'url'", cut(recording=recording("a.wav", sources=[command | {"type": "url"}]))),
            ("perturbed", cut(recording=recording("a.wav", transforms=[{"name": "Speed"}]))),
            ("channel 0 of a recording with 2", cut(recording=recording("a.wav", sources=[stereo]))),
            ("0 sources", cut(recording=recording("a.wav", sources=[]))),
            ("no recording", cut(recording=None)),
            ("no supervision", cut(supervisions=[])),
            ("lacks start", cut(supervisions=[{"id": "x", "text": "y"}])),
            ("does not exist", cut(recording=recording("gone.wav"))),
        ]
        root = tree({"a.wav": 3.0, "cuts.jsonl": lines(cut(id="good"), *(c for _, c in wrong))})
        imported = take(root, "lhotse")
        assert [u.id for u in imported.utterances] == ["good"]
        assert len(imported.skipped) == len(wrong)
        for (words, _), skipped in zip(wrong, imported.skipped, strict=True):
            assert words in skipped.reason
        assert not proof.exists()

    def test_recordings_and_supervisions(self, tree: Tree, take: Take) -> None:
        supervision = cut()["supervisions"][0]
        lost = supervision | {"id": "lost", "recording_id": "other"}
        root = tree(
            {
                "a.wav": 3.0,
                "x_recordings_train.jsonl.gz": gzip.compress(lines(recording("a.wav")).encode()),
                "x_supervisions_train.jsonl.gz": gzip.compress(lines(supervision, lost).encode()),
            }
        )
        imported = take(root, "lhotse")
        assert [(u.id, u.start, u.split) for u in imported.utterances] == [("sup", 0.25, None)]
        assert "'other' is in no recordings manifest" in imported.skipped[0].reason

    def test_it_reads_what_lhotse_writes(self, tree: Tree, take: Take) -> None:
        lhotse = pytest.importorskip("lhotse")
        root = tree({"a.wav": 3.0, "b.wav": 2.0})
        recordings = [lhotse.Recording.from_file(root / f"{n}.wav") for n in "ab"]
        supervisions = [
            lhotse.SupervisionSegment(
                id="s1", recording_id="a", start=0.5, duration=1.0, text="moja", speaker="x"
            ),
            lhotse.SupervisionSegment(id="s2", recording_id="a", start=1.75, duration=0.5, text="mbili"),
            lhotse.SupervisionSegment(id="s3", recording_id="b", start=0.0, duration=1.0, text="tatu"),
        ]
        cuts = lhotse.CutSet.from_manifests(
            recordings=lhotse.RecordingSet.from_recordings(recordings),
            supervisions=lhotse.SupervisionSet.from_segments(supervisions),
        ).trim_to_supervisions(keep_overlapping=False)
        cuts.to_file(root / "cuts.jsonl.gz")
        ours = take(root, "lhotse").utterances
        for mine, theirs in zip(ours, cuts, strict=True):
            (supervision,) = theirs.supervisions
            assert (mine.id, mine.text, mine.speaker) == (theirs.id, supervision.text, supervision.speaker)
            assert (mine.start, mine.duration) == pytest.approx((theirs.start, theirs.duration))


def test_a_gzip_bomb_is_refused(tree: Tree) -> None:
    root = tree({"cuts.jsonl.gz": gzip.compress((b'{"id": "%s"}\n' % (b"a" * 1_000_000)) * 20)})
    with pytest.raises(CorpusError, match="200 times its size"):
        list(json_lines(root / "cuts.jsonl.gz"))


def test_a_torn_gzip_is_named(tree: Tree) -> None:
    root = tree({"cuts.jsonl.gz": gzip.compress(lines(*({"id": str(n)} for n in range(999))).encode())[:-50]})
    with pytest.raises(CorpusError, match=r"cuts\.jsonl\.gz"):
        list(json_lines(root / "cuts.jsonl.gz"))
