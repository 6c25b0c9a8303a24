"""Start from a trained model: its encoder, and its heads as far as they know the pieces."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from firstwords.errors import CheckpointError
from firstwords.heads.ctc import CtcHead
from firstwords.model.checkpoint import LoadedModel, load_model, load_weights
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.text.pieces import BYTES
from firstwords.text.tokenizer import Tokenizer
from firstwords.training.schedule import CosineConfig

FROZEN_SHARE = 0.1  # of the run in which only a new head learns
ADAMW_RATE = 0.001  # that of recipes/conformer.toml
KNOWN_SHARE = 0.75  # of the letters of either model that the other has, for a CTC head to go on
_SHOWN = 8  # new letters that are named


def load_start(folder: Path) -> LoadedModel:
    """The model to start from, on the CPU."""
    return load_model(folder, device="cpu")


def fitted_recipe(recipe: Recipe, start: LoadedModel) -> Recipe:
    """The recipe with the features and encoder of the model it starts from."""
    data = recipe.data.with_(sample_rate=start.recipe.data.sample_rate)
    return recipe.model_copy(
        update={"features": start.recipe.features, "encoder": start.recipe.encoder, "data": data}
    )


def gentle(recipe: Recipe, start: LoadedModel) -> Recipe:
    """A chosen recipe with heads and search of the model, at a quarter of the rate: to keep what it knows.

    It knows where letters are: masks are wide and views two from the start. A model that learned with AdamW
    goes on with it, at its usual rate: the rate of its recipe may be that of a fine-tuning before.
    """
    training = recipe.training
    if start.recipe.training.optimizer == "adamw" != training.optimizer:
        training = training.with_(optimizer="adamw", schedule=CosineConfig(lr=ADAMW_RATE))
    schedule = training.schedule.model_copy(update={"lr": training.schedule.lr / 4})
    training = training.model_copy(update={"schedule": schedule, "mask_warmup": 0, "consistency_start": 0})
    return recipe.model_copy(
        update={"heads": start.recipe.heads, "search": start.recipe.search, "training": training}
    )


def take_over(model: SpeechModel, tokenizer: Tokenizer, start: LoadedModel) -> tuple[bool, str]:
    """Copy what can be kept -> whether the head is new, and a sentence for the user.

    A head is kept where every piece stands at its old place: a vocabulary of the same size but other letters
    would otherwise train from nonsense in silence (NeMo#15778); and only when the start has one of its kind
    and sizes. Other losses make no other head: it keeps its weights, and parts it did not have before
    (``feedback``) begin small. A CTC head that knows most of the letters goes on with what it knows of them,
    wherever they stand now, and new letters begin at random: a corpus that has grown brings a few.
    """
    if model.recipe.encoder != start.recipe.encoder or model.recipe.features != start.recipe.features:
        raise CheckpointError(
            f"'{start.folder}' has another encoder or other features than the recipe.",
            mend="Leave [encoder] and [features] out of the recipe: they come from the model.",
        )
    if model.structure != start.model.structure:
        raise CheckpointError(
            f"From '{start.folder}' other parts were cut than from the model that was begun.",
            mend="Give another --to folder, or the --from of before.",
        )
    same = tokenizer.piece_hash == start.tokenizer.piece_hash
    own, given = model.state_dict(), start.model.state_dict()
    carried = {} if same else {n: _carried(n, model, tokenizer, start) for n in model.recipe.heads}
    new = [n for n in model.recipe.heads if not (carried.get(n) or (same and _is_kept(n, model, start)))]
    anew = tuple(f"heads.{name}." for name in new)
    kept = {n: own[n] if n not in given or n.startswith(anew) else given[n] for n in own}
    for name, tensors in carried.items():
        kept |= {f"heads.{name}.{part}": tensor for part, tensor in tensors.items()}
    load_weights(model, kept, source=str(start.folder))
    if same and not new:
        return False, f"Starting from '{start.folder}': encoder and head (the pieces are the same)."
    if same:
        return True, f"Starting from '{start.folder}': its encoder, with new: heads.{', heads.'.join(new)}."
    if not new:
        unknown = [piece for piece in tokenizer.pieces if piece not in start.tokenizer.pieces]
        named = " ".join(unknown[:_SHOWN]) + (" ..." if len(unknown) > _SHOWN else "")
        learned = f"; new to it: {named}" if unknown else ""
        return False, f"Starting from '{start.folder}': encoder and head, letter by letter{learned}."
    return True, (
        f"Starting from '{start.folder}': its encoder, with a new head for {len(tokenizer.pieces)} pieces "
        f"(the model had {len(start.tokenizer.pieces)})."
    )


def _carried(name: str, model: SpeechModel, tokenizer: Tokenizer, start: LoadedModel) -> dict[str, Tensor]:
    """A CTC head's tensors with what the start knows of each piece at its place now; empty: too little."""
    theirs = start.recipe.heads.get(name)
    head, old = model.heads[name], None if theirs is None else start.model.heads[name]
    if not (isinstance(head, CtcHead) and isinstance(old, CtcHead)):
        return {}
    letters, known = (set(t.pieces[1:]).difference(BYTES) for t in (tokenizer, start.tokenizer))
    if len(letters & known) < KNOWN_SHARE * max(len(letters), len(known)):
        return {}
    places = {piece: place for place, piece in enumerate(start.tokenizer.pieces)}
    now = [place for place, piece in enumerate(tokenizer.pieces) if piece in places]
    before = [places[tokenizer.pieces[place]] for place in now]
    tensors, given = {n: tensor.clone() for n, tensor in head.state_dict().items()}, old.state_dict()
    for part, tensor in tensors.items():
        if part in given and (axis := CtcHead.PIECES.get(part)) is not None:
            tensor.index_copy_(axis, torch.tensor(now), given[part].index_select(axis, torch.tensor(before)))
        elif part in given:
            tensor.copy_(given[part])
    return tensors


def keeps_head(name: str, model: SpeechModel, tokenizer: Tokenizer, start: LoadedModel) -> bool:
    """True where the model goes on with the trained head of the start."""
    return tokenizer.piece_hash == start.tokenizer.piece_hash and _is_kept(name, model, start)


def _is_kept(name: str, model: SpeechModel, start: LoadedModel) -> bool:
    """True where both models have this head, of one kind, and all tensors they share have the same shapes."""
    ours, theirs = model.recipe.heads[name], start.recipe.heads.get(name)
    if theirs is None or ours.kind != theirs.kind:
        return False
    given = start.model.heads[name].state_dict()
    own = model.heads[name].state_dict()
    return all(given[part].shape == tensor.shape for part, tensor in own.items() if part in given)
