"""ELAN files: new ones, and one more tier in old ones with every other byte as it was."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from pympi import Elan

from firstwords.errors import CorpusError
from firstwords.inference.elan_writer import add_tier, new_eaf
from firstwords.inference.transcript import Segment, Transcript, Word


def transcript(*segments: tuple[float, float, str]) -> Transcript:
    made = tuple(Segment(a, b, text, (Word(text, a, b, 0.5),), 0.5) for a, b, text in segments)
    return Transcript(" ".join(s.text for s in made), made, "und", 10.0, "a.wav")


SPOKEN = transcript((0.5, 1.25, "ẹ kú àárọ̀"), (2.0, 3.0, 'a < b & "c"'), (5.0, 5.0, "x"))

ORIGINAL = """<?xml version="1.0" encoding="{encoding}"?>
<!-- by hand: > " ' -->
<ANNOTATION_DOCUMENT AUTHOR="é" DATE="2020-01-01T00:00:00+00:00" FORMAT="2.8" VERSION="2.8">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"><PROPERTY NAME="x">3</PROPERTY></HEADER>\r
    <TIME_ORDER>
        <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="0"/>
        <TIME_SLOT TIME_SLOT_ID="ts2" />
        <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="2500"/>
    </TIME_ORDER>
    <TIER LINGUISTIC_TYPE_REF="free" PARTICIPANT="a > b" TIER_ID="Ref">
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts3">
            <ANNOTATION_VALUE>né &lt;là&gt;</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="tr" PARENT_REF="Ref" TIER_ID="Tr > x"/>
    <LINGUISTIC_TYPE CONSTRAINTS="Symbolic_Association" LINGUISTIC_TYPE_ID="tr" TIME_ALIGNABLE="false"/>
    <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="free" TIME_ALIGNABLE="true"/>
    <CONSTRAINT DESCRIPTION="1-1" STEREOTYPE="Symbolic_Association"/>
</ANNOTATION_DOCUMENT>
"""


def annotations(path: Path, tier: str) -> list[tuple[int, int, str]]:
    return [tuple(entry[:3]) for entry in Elan.Eaf(str(path)).get_annotation_data_for_tier(tier)]


EXPECTED = [(500, 1250, "ẹ kú àárọ̀"), (2000, 3000, 'a < b & "c"'), (5000, 5001, "x")]


def test_a_new_file_is_read_by_pympi(tmp_path: Path) -> None:
    path = tmp_path / "a.eaf"
    path.write_text(new_eaf(SPOKEN, tmp_path / "my talk & more.wav", "swahili-small"), encoding="utf-8")
    eaf = Elan.Eaf(str(path))
    assert list(eaf.get_tier_names()) == ["firstwords:swahili-small"]
    assert annotations(path, "firstwords:swahili-small") == EXPECTED
    (media,) = eaf.get_linked_files()
    assert media["RELATIVE_MEDIA_URL"] == "./my talk & more.wav"
    root = ElementTree.parse(path).getroot()
    assert root.get("FORMAT") == "3.0"
    assert [child.tag for child in root] == ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE"]
    kinds = {element.get("LINGUISTIC_TYPE_ID") for element in root.iter("LINGUISTIC_TYPE")}
    assert {tier.get("LINGUISTIC_TYPE_REF") for tier in root.iter("TIER")} <= kinds


def test_nothing_said_gives_an_empty_tier(tmp_path: Path) -> None:
    path = tmp_path / "a.eaf"
    path.write_text(new_eaf(transcript(), tmp_path / "a.wav", "m"), encoding="utf-8")
    assert annotations(path, "firstwords:m") == []
    added = add_tier(path.read_bytes(), SPOKEN, "n")
    path.write_bytes(added)
    assert annotations(path, "firstwords:n") == EXPECTED


def is_contained(parts: bytes, whole: bytes) -> bool:
    """Whether ``parts`` is left when some lines are taken out of ``whole``."""
    at = 0
    for byte in whole:
        at += at < len(parts) and parts[at] == byte
    return at == len(parts)


@pytest.mark.parametrize("encoding", ["UTF-8", "ISO-8859-1", "UTF-8-SIG", "UTF-16"])
def test_a_tier_is_added_and_all_else_stays(tmp_path: Path, encoding: str) -> None:
    text = ORIGINAL.format(encoding=encoding.removesuffix("-SIG"))
    original = text.encode(encoding.lower())
    path = tmp_path / "a.eaf"
    added = add_tier(original, SPOKEN, "m")
    path.write_bytes(added)
    assert is_contained(original, added)
    # Taking our own lines out of the new text gives the old bytes back.
    lines = added.decode(encoding.lower()).split("\n")
    kept, ours = [], False
    for line in lines:
        ours = ours or 'TIER_ID="firstwords:m"' in line
        if not ours and '"fwts' not in line:
            kept.append(line)
        ours = ours and "</TIER>" not in line
    assert "\n".join(kept).encode(encoding.lower()) == original
    root = ElementTree.fromstring(added)
    values = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    tier = next(tier for tier in root.iter("TIER") if tier.get("TIER_ID") == "firstwords:m")
    assert tier.get("LINGUISTIC_TYPE_REF") == "free"
    found = [
        (
            int(values[a.get("TIME_SLOT_REF1")] or 0),
            int(values[a.get("TIME_SLOT_REF2")] or 0),
            a.findtext("ANNOTATION_VALUE"),
        )
        for a in tier.iter("ALIGNABLE_ANNOTATION")
    ]
    assert found == EXPECTED
    # Slots stand in order of time, unaligned ones where they stood.
    times = [int(value) for value in values.values() if value is not None]
    assert times == sorted(times)
    assert next(iter(values)) == "ts1"
    assert [child.tag for child in root].index("LINGUISTIC_TYPE") > max(
        place for place, child in enumerate(root) if child.tag == "TIER"
    )


def test_added_tiers_have_names_and_ids_of_their_own() -> None:
    twice = add_tier(add_tier(ORIGINAL.format(encoding="UTF-8").encode(), SPOKEN, "m"), SPOKEN, "m")
    root = ElementTree.fromstring(twice)
    assert [tier.get("TIER_ID") for tier in root.iter("TIER")] == [
        "Ref", "Tr > x", "firstwords:m", "firstwords:m (2)",
    ]  # fmt: skip
    ids = [e.get("ANNOTATION_ID") for e in root.iter("ALIGNABLE_ANNOTATION")]
    ids += [e.get("TIME_SLOT_ID") for e in root.iter("TIME_SLOT")]
    assert len(set(ids)) == len(ids)


EMPTY = """<ANNOTATION_DOCUMENT FORMAT="3.0"><HEADER/><TIME_ORDER{order}
<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="firstwords" CONSTRAINTS="Time_Subdivision" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>"""


@pytest.mark.parametrize("order", ["/>", " />", "></TIME_ORDER>"])
def test_files_without_annotations_get_a_tier_and_a_type(order: str) -> None:
    root = ElementTree.fromstring(add_tier(EMPTY.format(order=order).encode(), SPOKEN, "m"))
    assert [child.tag for child in root] == [
        "HEADER",
        "TIME_ORDER",
        "TIER",
        "LINGUISTIC_TYPE",
        "LINGUISTIC_TYPE",
    ]
    assert len(list(root.iter("TIME_SLOT"))) == 6
    (tier,) = root.iter("TIER")
    new = [
        t
        for t in root.iter("LINGUISTIC_TYPE")
        if t.get("LINGUISTIC_TYPE_ID") == tier.get("LINGUISTIC_TYPE_REF")
    ]
    assert len(new) == 1
    assert "CONSTRAINTS" not in new[0].attrib


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<TEXT/>", "no ELAN file"),
        (b"not xml", "not well-formed"),
        (b"<ANNOTATION_DOCUMENT><HEADER/></ANNOTATION_DOCUMENT>", "no TIME_ORDER"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><ANNOTATION_DOCUMENT/>', "entities"),
    ],
)
def test_other_files_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(CorpusError, match=says):
        add_tier(data, SPOKEN, "m", source="'a.eaf'")
