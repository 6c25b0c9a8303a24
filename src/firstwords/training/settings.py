"""Settings of data, text and training in a recipe.

What each section decides is written at its fields. A run stores the recipe with every default written
out, so a result can always be traced to these values.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from firstwords.audio.augment import AugmentConfig
from firstwords.config import Config
from firstwords.features.specaugment import SpecAugmentConfig
from firstwords.training.schedule import EdenConfig, ScheduleConfig


class DataConfig(Config):
    """Which audio is used and how it is varied; dev and test are never augmented."""

    sample_rate: int = Field(default=16000, ge=1000, le=192000)  # hertz; audio of other rates is resampled
    channels: str | int = "mix"  # "mix", "error" (refuse several channels), or the index of one
    min_duration: float = Field(default=0.1, ge=0)  # seconds; shorter utterances are left out and counted
    max_duration: float = Field(default=30.0, gt=0)  # seconds; longer ones are left out and counted
    equalize: bool = False  # all voices get one long-term spectrum, in training and in reading
    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)  # one of them at random for each utterance and epoch
    keep_pitch: bool = False  # other speeds sound as high as before; else tempo and pitch change together
    augment: AugmentConfig = AugmentConfig()
    noise_folders: tuple[str, ...] = ()  # corpora or folders of noise to mix in; none: synthetic hiss
    negative_folders: tuple[str, ...] = ()  # corpora of non-speech to hear as nothing; none: noise
    noise_splits: tuple[str, ...] = ()  # splits used of both kinds of folder; empty: all of them
    negative_share: float = Field(default=0.05, ge=0, lt=1)  # of the utterances of an epoch; see places.py
    joined_share: float = Field(default=0.1, ge=0, lt=1)  # of the seconds of an epoch: utterances in a row
    cache_megabytes: float = Field(default=2048, ge=0)  # decoded audio kept in memory; 0: none

    @model_validator(mode="after")
    def durations_are_ordered(self) -> Self:
        if self.min_duration >= self.max_duration:
            raise ValueError(
                f"min_duration = {self.min_duration} must be below max_duration = {self.max_duration}."
            )
        if not self.speeds or min(self.speeds) < 0.5 or max(self.speeds) > 2:
            raise ValueError(f"speeds = {self.speeds}: at least one, each between 0.5 and 2.")
        return self


class TextConfig(Config):
    """Names of the normalizers: one for what is learned, one for what is scored; and which words there are.

    ``closed``: see search/speech_gate.py. Set it to false where words will be said that the corpus lacks.
    """

    normalizer: str = "default"
    scoring: str = "score_default"
    closed: bool = True  # where training texts have few words, each often, others count as doubtful speech


class TrainingConfig(Config):
    """How long, how fast and how carefully.

    The length of a run is the least of ``steps``, ``epochs`` and ``minutes`` (those that are set; one hour
    when none is). It is planned once, at the start, so that the learning rate falls to its end when the
    run ends; see ``training/plan.py``.
    """

    minutes: float | None = Field(default=None, gt=0)  # wall clock, validation included
    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, gt=0)

    batch_seconds: float = Field(default=60.0, gt=0)  # audio of one step of one process
    max_utterances: int = Field(default=64, ge=1)  # of one batch
    accumulate: int = Field(default=1, ge=1)  # batches per optimizer step
    # Short utterances first leave the all-blank plateau sooner under the full regularisers; recipes that are
    # chosen for a user have lighter ones, and do without.
    sorted_first_epoch: bool = True
    # Processes that share a step on this machine's cores, each with its part of batch_seconds; auto: several
    # for a small model on a CPU. (Not those of torchrun, which take batch_seconds each.)
    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    workers: int | Literal["auto"] = "auto"  # loader processes; 0: load in the training process

    optimizer: Literal["scaled_adam", "adamw"] = "scaled_adam"
    schedule: ScheduleConfig = EdenConfig(cooldown=0.3)  # with the peak rate; adamw wants about a tenth
    schedule_scale: PositiveFloat | Literal["auto"] = "auto"  # reference batches per step; see plan.py
    weight_decay: float = Field(default=0.01, ge=0)  # adamw alone
    max_grad_norm: float = Field(default=5.0, gt=0)  # adamw alone: ScaledAdam clips by its own statistics
    average_share: float = Field(default=0.33, ge=0, le=1)  # last part of the run whose weights are averaged
    # Reference batches: CR-CTC sees one view until then, and has its full weight after the warm-up.
    consistency_start: int = Field(default=0, ge=0)
    consistency_warmup: int = Field(default=2000, ge=0)

    # Reference batches until the masks of SpecAugment are as wide as set; from nothing, in proportion.
    mask_warmup: int = Field(default=0, ge=0)
    # probability = 0 turns it off
    specaugment: SpecAugmentConfig = SpecAugmentConfig()  # pyright: ignore[reportCallIssue]

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    memory_share: float = Field(default=0.8, gt=0, le=1)  # of the free memory that a batch may fill

    validate_every: int | Literal["auto"] = "auto"  # steps; auto: 1 to 20 times a run, by their cost
    max_validation_seconds: float = Field(default=1800, gt=0)  # of dev audio used while training
    save_every_seconds: float = Field(default=120.0, gt=0)
    early_stop: int | None = Field(default=None, ge=1)  # validations without a better dev CER
    freeze_encoder_steps: int = Field(default=0, ge=0)  # with --from: only the new head learns at first


class DistillationConfig(Config):
    """A trained model that the run learns from beside the transcripts; what each part means: distillation/.

    The teacher must have the run's pieces; ``firstwords compress distil`` sees to that.
    """

    teacher: str = Field(min_length=1)  # model folder
    weight: float = Field(default=0.5, gt=0, le=1)  # of the teacher; the transcripts have the rest
    temperature: PositiveFloat = 1.0  # 1 to 2; flatter distributions above 1
    # CTC: every frame, or the teacher's readings as texts; auto: frames where both have the same rate
    ctc: Literal["auto", "frames", "sequence"] = "auto"
    blank_above: float = Field(default=0.99, ge=0, le=1)  # frames where the teacher is surer of blank than
    blank_weight: float = Field(default=0.1, ge=0, le=1)  # this count so much; 0 drops them
    guide: float = Field(default=0.0, ge=0)  # of the teacher's spikes, beside "frames"
    readings: int = Field(default=4, ge=1)  # of "sequence"
    hidden: float = Field(default=0.0, ge=0)  # of the encoded frames
    hidden_layers: tuple[int, ...] = ()  # of the teacher's encoder, from 0; none: its output
    # clean: each utterance as recorded, at its speed; kept on disk. varied: as the student hears it, but for
    # the masks; computed anew every time
    hears: Literal["clean", "varied"] = "clean"
    cache_megabytes: float = Field(default=4096, ge=0)  # of what it said, per process; 0 keeps nothing
    cache_folder: str | None = None  # shared by several runs; none: in the run's own folder
