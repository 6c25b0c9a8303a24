"""C5: what augmentation is worth with few utterances, on clean and on noisy test clips.

    python benchmarks/low_resource/augmentation.py [--clips 1000] [--minutes 5] [--seeds 1 2 3]

none: speeds, SpecAugment and everything of [data.augment] off. masks: speeds and SpecAugment. all: these
and rooms, gain, band limits, and noise from folds 1 to 4 of the noise corpus. The noisy test has fold 5, at
0 to 15 dB.
"""

from __future__ import annotations

from study import Arm, digits, noisy, parser_of, report, run_arms, saved

OFF = tuple(
    f"data.augment.{effect}.probability=0" for effect in ("room", "noise", "gain", "band_limit", "pitch")
)
NONE = (*OFF, "data.speeds=[1.0]", "training.specaugment.probability=0")
SNR_DB = (0.0, 15.0)


def main() -> None:
    parser = parser_of(__doc__, minutes=5.0)
    parser.add_argument("--clips", type=int, default=1000)
    options = parser.parse_args()
    corpus = digits(options, options.clips)
    tests = {
        "clean": (corpus, options.scored),
        "noisy": (noisy(options, corpus, options.scored, SNR_DB), options.scored),
    }
    noise = (options.shared / "noise").resolve().as_posix()
    everything = (
        f'data.noise_folders=["{noise}"]',
        f"data.noise_splits={[f'fold{n}' for n in range(1, 5)]}",
        "data.augment.noise.probability=0.5",
        "data.augment.room.probability=0.3",
        "data.augment.gain.probability=0.8",
        "data.augment.band_limit.probability=0.1",
    )
    arms = [
        Arm("none", corpus, tests, NONE),
        Arm("masks", corpus, tests, OFF),
        Arm("all", corpus, tests, everything),
    ]
    scores = run_arms(arms, options)
    report("augmentation", scores, options)
    for arm in ("masks", "all"):
        for test in tests:
            print(f"  {arm} against none, {test}: {saved(scores['none'][test], scores[arm][test])}")


if __name__ == "__main__":
    main()
