"""Corpus -> what is wrong with it: all rules in one list, and the numbers a person wants to see.

    result = check(load_corpus(folder))
    for row in result.by_rule():
        print(row.rule.id, row.utterances, row.seconds)

Each recording is opened once; a recording that cannot be read is a finding and never the end. Findings of
severity 'quarantine' put an utterance aside, warnings do not. What the user decided stays: see
``data/decisions.py``. Imports no torch.
"""

from __future__ import annotations

import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from firstwords.cores import available_cores
from firstwords.data import rules_audio, rules_corpus, rules_text
from firstwords.data.manifest import Corpus, Utterance
from firstwords.data.rules import Evidence, Finding, Rule, Sound, is_evaluation, is_training
from firstwords.data.rules_corpus import LONGEST
from firstwords.text.graphemes import graphemes

RULES: tuple[Rule, ...] = (*rules_audio.RULES, *rules_text.RULES, *rules_corpus.RULES)
RULE: Mapping[str, Rule] = {rule.id: rule for rule in RULES}
# What only listening finds: a check with ``fast`` neither finds nor clears it.
HEARD = frozenset({"audio-silent", "audio-not-a-number", "audio-unreadable", "duplicate-audio"})


@dataclass(frozen=True)
class RuleSummary:
    """All findings of one rule.

    Args:
        put_aside: utterances that training must not see because of them; the others are warned of.
    """

    rule: Rule
    utterances: int
    seconds: float
    example: Finding
    put_aside: int

    @property
    def outcome(self) -> str:
        """What came of it, for people: 'put aside', 'warning', or how many of each."""
        if not self.put_aside:
            return "warning"
        return "put aside" if self.put_aside == self.utterances else f"{self.put_aside:,} put aside"


@dataclass(frozen=True)
class Letter:
    """One grapheme cluster of the transcripts as they are written."""

    text: str
    count: int
    utterances: int
    flags: tuple[str, ...]  # rare, look-alike, invisible


@dataclass(frozen=True)
class Statistics:
    """Numbers of the whole corpus; durations in seconds."""

    utterances: int
    recordings: int
    seconds: float
    spoken: int  # utterances with words
    decoded: bool  # False: only headers were read
    closed_vocabulary: bool
    by_split: Mapping[str, tuple[int, float, int]]  # name -> utterances, seconds, speakers
    by_speaker: Mapping[str, float]  # longest first; '(not said)' where the manifest has no speaker
    by_language: Mapping[str, tuple[int, float]]
    sample_rates: Mapping[int, int]  # hertz -> utterances
    durations: tuple[float, ...]
    letters_per_second: tuple[float, ...]
    alphabet: tuple[Letter, ...]  # most frequent first

    @property
    def median_duration(self) -> float:
        return statistics.median(self.durations) if self.durations else 0.0


@dataclass(frozen=True)
class CheckResult:
    """Findings of all rules, and the numbers of the corpus."""

    utterances: tuple[Utterance, ...]
    findings: tuple[Finding, ...]
    statistics: Statistics

    @cached_property
    def seconds_of(self) -> Mapping[str, float]:
        """id -> duration."""
        return {u.id: u.duration for u in self.utterances}

    @cached_property
    def quarantine(self) -> dict[str, str]:
        """id -> reasons, of the utterances that training must not see."""
        reasons: defaultdict[str, list[str]] = defaultdict(list)
        for finding in self.findings:
            if finding.severity == "quarantine":
                reasons[finding.utterance].append(f"{finding.rule}: {finding.detail}")
        return {name: "; ".join(words) for name, words in reasons.items()}

    def by_rule(self, quarantine: Mapping[str, str] | None = None) -> list[RuleSummary]:
        """One row for each rule that found something, most hours first.

        Args:
            quarantine: what is put aside in the end (a person may have let some back in); None: all that this
                check would put aside.
        """
        aside = self.quarantine if quarantine is None else quarantine
        groups: defaultdict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            groups[finding.rule].append(finding)
        rows = [
            RuleSummary(
                RULE[name],
                len(found),
                sum(self.seconds_of[f.utterance] for f in found),
                found[0],
                len({f.utterance for f in found if f.severity == "quarantine" and f.utterance in aside}),
            )
            for name, found in groups.items()
        ]
        return sorted(rows, key=lambda row: (-row.seconds, -row.utterances, row.rule.id))


def check(
    corpus: Corpus,
    *,
    fast: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckResult:
    """All utterances of a corpus (quarantined ones too) -> findings and statistics.

    Args:
        fast: look at file headers only; rules about what is heard are left out.
        workers: files read side by side (default: one per core).
        progress: called with (files done, files in all) from this thread.
    """
    sounds = listen(corpus.utterances, decode=not fast, workers=workers, progress=progress)
    evidence = Evidence(corpus.utterances, sounds, decoded=not fast)
    measured = {u.id for u in corpus.utterances if is_evaluation(u.split)}
    findings: list[Finding] = []
    for rule in RULES:
        for name, detail in rule.find(evidence):
            spared = rule.spares_evaluation and name in measured
            findings.append(Finding(rule.id, "warning" if spared else rule.severity, name, detail))
    return CheckResult(corpus.utterances, tuple(findings), summarize(evidence))


def listen(
    utterances: Sequence[Utterance],
    *,
    decode: bool,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Sound]:
    """Utterances -> id -> what it sounds like; each file is read once, several at a time.

    Threads are enough: decoding and the sums leave the interpreter lock.
    """
    files: defaultdict[Path, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        files[utterance.audio].append(utterance)
    jobs = (partial(rules_audio.measure, path, group, decode=decode) for path, group in files.items())
    sounds: dict[str, Sound] = {}
    count = workers or available_cores()
    with ThreadPoolExecutor(count) as pool:
        # A window of jobs, so that an interrupt is answered within a few files and not after all of them.
        running = {pool.submit(job) for job in islice(jobs, 4 * count)}
        done_files = 0
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                sounds |= future.result()
                done_files += 1
            running |= {pool.submit(job) for job in islice(jobs, len(finished))}
            if progress is not None:
                progress(done_files, len(files))
    return sounds


def summarize(evidence: Evidence) -> Statistics:
    """Evidence -> the numbers of the corpus."""
    splits: defaultdict[str, list[Utterance]] = defaultdict(list)
    speakers: defaultdict[str, float] = defaultdict(float)
    languages: defaultdict[str, list[float]] = defaultdict(list)
    for utterance in evidence.utterances:
        splits[utterance.split or "(none)"].append(utterance)
        speakers[utterance.speaker or "(not said)"] += utterance.duration
        languages[utterance.language or "(not said)"].append(utterance.duration)
    return Statistics(
        utterances=len(evidence.utterances),
        recordings=len({u.audio for u in evidence.utterances}),
        seconds=sum(u.duration for u in evidence.utterances),
        spoken=len(evidence.spoken),
        decoded=evidence.decoded,
        closed_vocabulary=evidence.closed_vocabulary,
        by_split={
            name: (len(group), sum(u.duration for u in group), len({u.speaker for u in group} - {None}))
            for name, group in splits.items()
        },
        by_speaker=dict(sorted(speakers.items(), key=lambda pair: -pair[1])),
        by_language={name: (len(lengths), sum(lengths)) for name, lengths in languages.items()},
        sample_rates=Counter(s.sample_rate for s in evidence.sounds.values() if s.sample_rate),
        durations=tuple(u.duration for u in evidence.utterances),
        letters_per_second=tuple(
            len(evidence.letters[u.id]) / u.duration for u in evidence.spoken if u.duration > 0
        ),
        alphabet=alphabet([u.text or "" for u in evidence.spoken]),
    )


def alphabet(texts: Iterable[str]) -> tuple[Letter, ...]:
    """Transcripts -> their grapheme clusters as written (white space left out), most frequent first."""
    counts: Counter[str] = Counter()
    holders: Counter[str] = Counter()
    kept = list(texts)
    for text in kept:
        found = [c for c in graphemes(text) if not c.isspace()]
        counts.update(found)
        holders.update(set(found))
    odd = rules_text.odd_look_alikes(kept)
    return tuple(
        Letter(cluster, count, holders[cluster], _flags(cluster, count, odd))
        for cluster, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    )


def _flags(cluster: str, count: int, odd: Mapping[str, str]) -> tuple[str, ...]:
    flags: list[str] = []
    if count < rules_text.RARE:
        flags.append("rare")
    for c in unicodedata.normalize("NFD", cluster):
        if c in odd:
            flags.append(f"looks like {rules_text.describe(odd[c])}")
    if rules_text.is_invisible(cluster):
        flags.append("invisible")
    if not unicodedata.is_normalized("NFC", cluster):
        flags.append("not composed (NFC)")
    return tuple(flags)


def usable_seconds(result: CheckResult, quarantine: Mapping[str, str]) -> tuple[float, float]:
    """Seconds with words outside the quarantine that training takes: of its own splits, and of everything.

    A corpus without splits counts as training: 'firstwords train' makes the split.
    """
    spoken = [u for u in _with_words(result, quarantine) if u.duration <= LONGEST]
    everything = sum(u.duration for u in spoken)
    has_splits = any(is_training(u.split) for u in spoken)
    return (
        sum(u.duration for u in spoken if is_training(u.split)) if has_splits else everything,
        everything,
    )


def too_long(result: CheckResult, quarantine: Mapping[str, str]) -> tuple[int, float]:
    """Utterances with words that training leaves out for their length alone, and their seconds."""
    long = [u.duration for u in _with_words(result, quarantine) if u.duration > LONGEST]
    return len(long), sum(long)


def _with_words(result: CheckResult, quarantine: Mapping[str, str]) -> list[Utterance]:
    return [u for u in result.utterances if u.id not in quarantine and (u.text or "").strip()]
