"""The recipe of a neural language model: everything that decides it, but for text and tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from firstwords.config import Config, dump_config, merge, override, parse_config, read_toml
from firstwords.errors import UsageError
from firstwords.files import write_atomically
from firstwords.lm.neural.config import KINDS, LstmLmConfig, NetworkConfig
from firstwords.training.schedule import CosineConfig, ScheduleConfig

RECIPE = "recipe.toml"
Share: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]


# What is used where no recipe says otherwise.
SCHEDULES = {"lstm": CosineConfig(lr=6e-3, warmup=0.03), "transformer": CosineConfig(lr=3e-3, warmup=0.1)}


class LmTrainingConfig(Config):
    """How long, how fast and how carefully.

    The length of a run is the least of ``steps``, ``epochs`` and ``minutes``. The best weights are kept.
    """

    minutes: PositiveFloat | None = None  # wall clock, validation included
    epochs: PositiveFloat | None = 20.0
    steps: PositiveInt | None = None

    batch_tokens: PositiveInt = 2048  # of one step, padding counted
    max_sentences: PositiveInt = 256  # of one batch
    window: Annotated[int, Field(ge=2)] = 512  # tokens; longer lines are read in parts of that length
    accumulate: PositiveInt = 1  # batches per optimizer step

    optimizer: Literal["adamw", "scaled_adam"] = "adamw"
    schedule: ScheduleConfig = CosineConfig(lr=6e-3, warmup=0.03)  # of an LSTM; see SCHEDULES
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    average_share: Share = 0.2  # last part of the run whose weights are averaged

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.8  # of the free memory that a batch may fill
    validate_every: PositiveInt | Literal["auto"] = "auto"  # steps; auto: 1 to 20 times a run, by their cost
    save_every_seconds: PositiveFloat = 60.0
    early_stop: PositiveInt | None = 5  # validations without a better perplexity


class LmRecipe(Config):
    """What is trained on which units, and how."""

    format: Literal[1] = 1
    seed: int = 1
    unit: Literal["char", "piece"] = "char"
    normalizer: str = "default"
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05  # of the sentences, where no dev text is given
    network: NetworkConfig = LstmLmConfig()
    training: LmTrainingConfig = LmTrainingConfig()

    @property
    def digest(self) -> str:
        """Changes with every setting."""
        return hashlib.sha256(dump_config(self).encode()).hexdigest()


@dataclass(frozen=True)
class LmWanted:
    """What the caller asked for; None: what the recipe says.

    Args:
        recipe: TOML file.
        overrides: ``a.b=1`` assignments.
    """

    recipe: Path | None = None
    kind: str | None = None
    size: str | None = None
    unit: str | None = None
    normalizer: str | None = None
    minutes: float | None = None
    overrides: tuple[str, ...] = ()

    def fresh(self) -> LmRecipe:
        """The recipe of a run that begins."""
        if self.recipe is None:
            return self.applied_to({})
        return self.applied_to(read_toml(self.recipe), source=str(self.recipe))

    def on(self, stored: LmRecipe) -> LmRecipe:
        """What a run that goes on would be, were it begun with what is asked for now."""
        if self.recipe is not None:
            return self.fresh()
        return self.applied_to(stored.model_dump(mode="json", exclude_none=True))

    def applied_to(self, values: Mapping[str, Any], source: str = "--set") -> LmRecipe:
        """Settings of a file, or none, with everything else that was asked for."""
        changed = dict(values)
        if self.kind is not None or self.size is not None:
            changed["network"] = self._network(changed.get("network"))
        for key, value in (("unit", self.unit), ("normalizer", self.normalizer)):
            if value is not None:
                changed[key] = value
        if self.minutes is not None:
            changed["training"] = _table(changed.get("training")) | {"minutes": self.minutes}
        changed = override(changed, self.overrides)
        defaults = LmRecipe().model_dump(mode="json", exclude_none=True)
        kind = _table(changed.get("network")).get("kind")
        if isinstance(kind, str) and kind in SCHEDULES:
            defaults["training"]["schedule"] = SCHEDULES[kind].model_dump(mode="json")
        return parse_config(merge(defaults, changed), LmRecipe, name="recipe", source=source)

    def _network(self, values: object) -> Any:
        """The network of a recipe, or of the kind and size that are named."""
        table = _table(values)
        kind = self.kind or table.get("kind", "lstm")
        if kind not in KINDS:
            raise UsageError(f"--kind {kind}: no such kind.", mend=f"Known: ngram, {', '.join(KINDS)}.")
        if table and table.get("kind") != kind:
            raise UsageError(
                f"--kind {kind}: the recipe is of kind '{table.get('kind')}'.", mend="Leave --kind away."
            )
        if table and self.size is None:
            return table
        return KINDS[kind].preset(self.size or "tiny").model_dump(mode="json")


def _table(values: object) -> dict[str, Any]:
    return dict(cast("dict[str, Any]", values)) if isinstance(values, dict) else {}


def read_lm_recipe(path: Path) -> LmRecipe:
    """TOML file -> recipe."""
    return parse_config(read_toml(path), LmRecipe, name="recipe", source=str(path))


def write_lm_recipe(path: Path, recipe: LmRecipe) -> None:
    """Recipe -> TOML file, every default written out."""
    write_atomically(path, dump_config(recipe))
