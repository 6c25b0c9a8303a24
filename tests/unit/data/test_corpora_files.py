"""Layouts whose transcripts lie in plain files: folder with .txt, LibriSpeech, Kaldi, Audacity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firstwords.data.corpora import LAYOUTS, Imported, Options
from firstwords.errors import CorpusError

Tree = Callable[..., Path]
Take = Callable[..., Imported]


def by_id(imported: Imported) -> dict[str, Any]:
    return {u.id: u for u in imported.utterances}


def reasons(imported: Imported) -> dict[str, str]:
    return {s.where: s.reason for s in imported.skipped}


class TestFolder:
    def test_texts_beside_recordings(self, tree: Tree, take: Take) -> None:
        root = tree({"a 1.wav": 1.5, "a 1.txt": "habari\nya  asubuhi \n", "b.FLAC": 1, "b.TXT": "\ufeffsawa"})
        imported = take(root, "folder", language="sw")
        first, second = imported.utterances
        assert (first.id, first.text, first.duration, first.start) == ("a_1", "habari ya asubuhi", 1.5, 0)
        assert (second.text, second.speaker, second.split, second.language) == ("sawa", None, None, "sw")
        assert first.audio == root / "a 1.wav"
        assert not imported.skipped

    def test_folders_are_speakers_unless_told_otherwise(self, tree: Tree, take: Take) -> None:
        root = tree({f"{who}/{n}.wav": 1 for who in ("amina", "juma") for n in (1, 2)})
        for path in root.rglob("*.wav"):
            path.with_suffix(".txt").write_text("neno")
        imported = take(root, "folder")
        assert {u.id: u.speaker for u in imported.utterances} == {
            "amina-1": "amina",
            "amina-2": "amina",
            "juma-1": "juma",
            "juma-2": "juma",
        }
        assert any("taken as speakers (amina, juma" in note for note in imported.notes)
        assert {u.speaker for u in take(root, "folder", speakers="none").utterances} == {None}
        assert {u.speaker for u in take(root, "folder", speakers="prefix").utterances} == {"1", "2"}

    def test_folders_named_like_splits_are_splits(self, tree: Tree, take: Take) -> None:
        root = tree({"train/s1/a.wav": 1, "train/s1/a.txt": "x", "valid/b.wav": 1, "valid/b.txt": "y"})
        imported = take(root, "folder")
        assert {u.id: (u.split, u.speaker) for u in imported.utterances} == {
            "train-s1-a": ("train", None),
            "valid-b": ("dev", None),
        }

    def test_texts_in_a_parallel_tree_are_found_by_their_unique_names(self, tree: Tree, take: Take) -> None:
        root = tree(
            {"wav/p1/u1.wav": 1, "txt/p1/u1.txt": "moja", "wav/p1/u2.wav": 1, "txt/p1/u2.txt": "mbili"}
        )
        assert {u.text for u in take(root, "folder").utterances} == {"moja", "mbili"}

    def test_the_same_name_in_two_folders_is_never_paired_across_them(self, tree: Tree, take: Take) -> None:
        root = tree({"a/1.wav": 1, "b/1.wav": 1, "a/1.txt": "of a"})
        imported = take(root, "folder")
        assert [(u.id, u.text) for u in imported.utterances] == [("a-1", "of a")]
        assert reasons(imported) == {"b/1.wav": "no text file of the same name"}

    def test_whatever_cannot_be_used_is_named_and_the_rest_goes_on(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "good.wav": 1,
                "good.txt": "nzuri",
                "alone.wav": 1,
                "widow.txt": "no sound",
                "broken.wav": b"RIFF nonsense",
                "broken.txt": "x",
                "latin.wav": 1,
                "latin.txt": "caf\xe9".encode("latin-1"),
                "lost.wav": 1,
                "lost.txt": "a\ufffdb",
                "README.txt": "about",
            }
        )
        imported = take(root, "folder")
        assert [u.id for u in imported.utterances] == ["good"]
        found = reasons(imported)
        assert set(found) == {"alone.wav", "widow.txt", "broken.wav", "latin.txt", "lost.wav"}
        assert "not UTF-8: line 1" in found["latin.txt"]
        assert "broken.wav" in found["broken.wav"]
        assert "U+FFFD" in found["lost.wav"]

    def test_utf16_texts_of_windows_editors(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "a.wav": 1,
                "a.txt": "ẹ̀kọ́ ọ̀rọ̀".encode("utf-16"),
                "b.wav": 1,
                "b.txt": "ọjọ́ kan ni a rí\n".encode("utf-16-le"),
            }
        )
        assert [u.text for u in take(root, "folder").utterances] == ["ẹ̀kọ́ ọ̀rọ̀", "ọjọ́ kan ni a rí"]

    def test_of_two_text_files_one_is_read_and_that_is_said(self, tree: Tree, take: Take) -> None:
        imported = take(tree({"a.wav": 1, "a.lab": "lab", "a.txt": "text"}), "folder")
        assert [u.text for u in imported.utterances] == ["text"]
        assert reasons(imported) == {"a.lab": "'a.txt' was read instead"}

    def test_of_a_recording_in_two_forms_the_better_is_taken(self, tree: Tree, take: Take) -> None:
        root = tree({"a.wav": 1, "a.flac": 1, "a.txt": "text"})
        imported = take(root, "folder")
        assert [u.audio.name for u in imported.utterances] == ["a.wav"]
        assert reasons(imported) == {"a.flac": "'a.wav' of the same name was taken instead"}

    def test_everything_dropped_says_so(self, tree: Tree, take: Take) -> None:
        with pytest.raises(CorpusError, match="2 utterances without text were dropped"):
            take(tree({"a.wav": 1, "a.txt": "", "b.wav": 1, "b.txt": ""}), "folder", drop_empty=True)

    def test_a_recording_is_no_folder(self, tree: Tree) -> None:
        root = tree({"a.wav": 1, "a.txt": "a"})
        with pytest.raises(CorpusError, match="is a file"):
            LAYOUTS["folder"].read(root / "a.wav", Options())

    def test_empty_texts_are_counted_and_dropped_on_wish(self, tree: Tree, take: Take) -> None:
        root = tree({"a.wav": 1, "a.txt": " \n", "b.wav": 1, "b.txt": "b"})
        imported = take(root, "folder")
        assert by_id(imported)["a"].text == ""
        assert any("1 utterances have an empty text" in note for note in imported.notes)
        dropped = take(root, "folder", drop_empty=True)
        assert [u.id for u in dropped.utterances] == ["b"]
        assert any("1 utterances without text were dropped" in note for note in dropped.notes)

    def test_hidden_files_and_earlier_imports_are_passed_over(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "a.wav": 1,
                "a.txt": "a",
                "._a.wav": b"mac",
                ".git/x.wav": 1,
                "__MACOSX/a.wav": b"mac",
                "corpus/import.json": "{}",
                "corpus/audio/a.wav": 1,
                "corpus/manifest.jsonl": '{"id": "a", "audio": "audio/a.wav"}',
            }
        )
        imported = take(root, "folder")
        assert [u.id for u in imported.utterances] == ["a"]
        assert not imported.skipped

    def test_nothing_usable_is_an_error_that_sums_up_the_reasons(self, tree: Tree, take: Take) -> None:
        root = tree({f"{n}.wav": b"RIFF" for n in range(7)} | {f"{n}.txt": "x" for n in range(7)})
        with pytest.raises(CorpusError, match="7 were left out") as caught:
            take(root, "folder")
        assert "7 x, for example 0.wav" in caught.value.what
        assert caught.value.mend


class TestLibriSpeech:
    def test_speakers_splits_and_subsets(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "LibriSpeech/train-clean-100/19/198/19-198.trans.txt": "19-198-0000 NORTHANGER ABBEY\n",
                "LibriSpeech/train-clean-100/19/198/19-198-0000.flac": 1,
                "LibriSpeech/dev-clean/84/121/84-121.trans.txt": (
                    "84-121-0000 GO\n84-121-0001 LOST\n84-121-0002\n"
                ),
                "LibriSpeech/dev-clean/84/121/84-121-0000.flac": 1,
                "LibriSpeech/dev-clean/84/121/84-121-0002.flac": 1,
                "LibriSpeech/SPEAKERS.TXT": "19 | F",
            }
        )
        imported = take(root, "librispeech")
        found = by_id(imported)
        assert found["19-198-0000"].text == "NORTHANGER ABBEY"
        assert found["19-198-0000"].speaker == "19"
        assert found["19-198-0000"].split == "train"
        assert found["84-121-0000"].split == "dev"
        assert found["84-121-0000"].labels == {"subset": "dev-clean"}
        assert found["84-121-0002"].text == ""
        (missing,) = imported.skipped
        assert missing.where == "line 2 of LibriSpeech/dev-clean/84/121/84-121.trans.txt"
        assert "does not exist" in missing.reason

    def test_one_subset_alone(self, tree: Tree, take: Take) -> None:
        root = tree({"test-clean/1/2/1-2.trans.txt": "1-2-0000 A", "test-clean/1/2/1-2-0000.flac": 1})
        (utterance,) = take(root / "test-clean", "librispeech").utterances
        assert utterance.split == "test"


KALDI = {
    "data/train/wav.scp": "r1 audio/r1.wav\nr2 audio/r2.wav\n",
    "data/train/segments": "u1 r1 0.5 1.5\nu2 r1 1.5 -1\nu3 r2 0.0 1.0\n",
    "data/train/text": "u1 habari yako\nu2\tnzuri sana\nu3 \n",
    "data/train/utt2spk": "u1 amina\nu2 amina\nu3 juma\n",
    "data/train/utt2lang": "u1 sw\nu2 sw\nu3 sw\n",
    "data/train/utt2gender": "u1 f\n",
    "audio/r1.wav": 3.0,
    "audio/r2.wav": 2.0,
}


class TestKaldi:
    def test_a_data_directory_with_segments(self, tree: Tree, take: Take) -> None:
        root = tree(KALDI)
        imported = take(root / "data/train", "kaldi")
        found = by_id(imported)
        assert (found["u1"].start, found["u1"].duration, found["u1"].text) == (0.5, 1.0, "habari yako")
        assert (found["u2"].start, found["u2"].duration, found["u2"].text) == (1.5, 1.5, "nzuri sana")
        assert (found["u3"].speaker, found["u3"].text, found["u3"].language) == ("juma", "", "sw")
        assert found["u1"].labels == {"gender": "f"}
        assert found["u1"].split is None
        assert not imported.skipped

    def test_directories_beside_each_other_are_splits(self, tree: Tree, take: Take) -> None:
        other = {
            "data/dev/wav.scp": "d1 audio/r1.wav",
            "data/dev/text": "d1 x",
            "data/dev/spk2utt": "mtu d1 d2",
        }
        imported = take(tree(KALDI | other), "kaldi")
        found = by_id(imported)
        assert (found["u1"].split, found["d1"].split, found["d1"].speaker) == ("train", "dev", "mtu")

    def test_commands_are_refused_and_never_run(self, tree: Tree, take: Take, tmp_path: Path) -> None:
        proof = tmp_path / "was_run"
        scp = f"r1 touch {proof} && cat audio/r1.wav |\nr2 audio/r2.wav\nr3 feats.ark:14\n"
        root = tree(KALDI | {"data/train/wav.scp": scp})
        imported = take(root, "kaldi")
        assert [u.id for u in imported.utterances] == ["u3"]
        found = reasons(imported)
        assert "commands from data are never run" in found["wav.scp entry r1"]
        assert "Kaldi archive" in found["wav.scp entry r3"]
        assert sum("'r1' was left out" in reason for reason in found.values()) == 2
        assert not proof.exists()

    def test_only_commands_is_an_error_that_says_why(self, tree: Tree, take: Take) -> None:
        root = tree({"wav.scp": "a sph2pipe -f wav a.sph |\n", "text": "a moja\n"})
        with pytest.raises(CorpusError, match="never run"):
            take(root, "kaldi")

    def test_lines_that_fit_nothing_are_named(self, tree: Tree, take: Take) -> None:
        root = tree(
            {
                "wav.scp": "r audio/r.wav\nr again.wav\nq gone.wav\n",
                "segments": "a r 0 1\nb r one 2\nc nowhere 0 1\nd r 0 1 2\ne r 9 10\nf r 1 0.5\ng r 0 1\n",
                "text": "a x\nb x\nc x\nd x\ne x\nf x\nh x\n",
                "audio/r.wav": 2.0,
            }
        )
        imported = take(root, "kaldi")
        assert [u.id for u in imported.utterances] == ["a"]
        found = reasons(imported)
        assert "stands twice" in found["line 2 of wav.scp"]
        assert "does not exist" in found["wav.scp entry q"]
        assert "does not read" in found["b of segments"]
        assert "not in wav.scp" in found["c of segments"]
        assert "channel '2'" in found["d of segments"]
        assert "only 2.000 s long" in found["e of segments"]
        assert "not after its start" in found["f of segments"]
        assert "no line in text" in found["g of segments"]
        assert "no such utterance" in found["h of text"]

    def test_paths_that_no_file_system_takes_are_missing_files(self, tree: Tree, take: Take) -> None:
        root = tree(
            {"wav.scp": f"a a.wav\nb {'x' * 5000}\nc nul\x00.wav\n", "text": "a A\nb B\nc C\n", "a.wav": 1}
        )
        imported = take(root, "kaldi")
        assert [u.id for u in imported.utterances] == ["a"]
        assert {"wav.scp entry b", "wav.scp entry c"} <= set(reasons(imported))

    def test_without_text_the_utterances_have_no_transcript(self, tree: Tree, take: Take) -> None:
        imported = take(tree({"wav.scp": "a a.wav", "a.wav": 1}), "kaldi")
        assert imported.utterances[0].text is None
        assert any("without transcripts" in note for note in imported.notes)

    def test_one_line_of_bad_bytes_costs_one_utterance(self, tree: Tree, take: Take) -> None:
        names = [f"u{n}" for n in range(20)]
        text = b"".join(b"%s maneno\n" % n.encode() for n in names[1:]) + b"u0 caf\xe9\n"
        files: dict[str, Any] = {f"{n}.wav": 0.5 for n in names}
        scp = "".join(f"{n} {n}.wav\n" for n in names)
        imported = take(tree(files | {"wav.scp": scp, "text": text}), "kaldi")
        assert len(imported.utterances) == 19
        assert "letters lost" in imported.skipped[0].reason

    def test_it_says_the_same_as_lhotse(self, tree: Tree, take: Take) -> None:
        kaldi = pytest.importorskip("lhotse.kaldi")
        root = tree(KALDI | {"data/train/wav.scp": ""})
        scp = "".join(f"r{n} {(root / f'audio/r{n}.wav').as_posix()}\n" for n in (1, 2))
        (root / "data/train/wav.scp").write_text(scp)
        (root / "data/train/segments").write_text("u1 r1 0.5 1.5\nu2 r1 1.5 2.5\nu3 r2 0.25 1.0\n")
        (root / "data/train/text").write_text("u1 habari yako\nu2 nzuri sana\nu3 sawa\n")
        _, supervisions, _ = kaldi.load_kaldi_data_dir(root / "data/train", 8000)
        ours = by_id(take(root / "data/train", "kaldi"))
        assert {s.id for s in supervisions} == set(ours)
        for theirs in supervisions:
            mine = ours[theirs.id]
            assert (mine.text, mine.speaker) == (theirs.text, theirs.speaker)
            assert (mine.start, mine.duration) == pytest.approx((theirs.start, theirs.duration))


class TestAudacity:
    def test_labels_beside_a_recording(self, tree: Tree, take: Take) -> None:
        track = "0.5\t1.25\thabari\n\\\t100.0\t3000.0\n1,5\t2,0\tya leo\n2.1\t2.1\tpoint\n2.2\t2.4\t\n"
        imported = take(tree({"talk.wav": 3.0, "talk.txt": track}), "audacity")
        assert [(u.start, u.duration, u.text) for u in imported.utterances] == [
            (0.5, 0.75, "habari"),
            (1.5, 0.5, "ya leo"),
        ]
        assert imported.utterances[0].id == "talk-0000500-0001250"
        assert "not after its start" in imported.skipped[0].reason
        assert any("1 labels hold no text" in note for note in imported.notes)
