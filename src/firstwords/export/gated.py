"""A bundle that goes to its place when it has passed the parity gate; an earlier one stays until then.

    TO                  new or empty: the bundle is made here, and stays here whatever the gate says
    TO.unproven         where TO holds a bundle already: the new one is made beside it, read, and then moved
                        over it; if it reads otherwise than its model, it is left here, and TO is as it was

An earlier bundle that did not pass its own gate is no better, and is replaced.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from firstwords.errors import CheckpointError
from firstwords.export.bundle import BUNDLE, gate_warning, is_bundle
from firstwords.export.make import Made
from firstwords.export.parity import Clip, Gate, check_bundle_of
from firstwords.export.write import own_files, refuse_other_folders
from firstwords.files import staged

UNPROVEN = ".unproven"


def prove_and_place(
    make: Callable[[Path], Made],
    to: Path,
    clips: Sequence[Clip] | None = None,
    *,
    long: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Made, Gate]:
    """Make a bundle, run the gate on it, and put it into ``to``.

    Args:
        make: writes a bundle into the folder that it is given.

    Raises:
        CheckpointError: the gate is not passed; a bundle that was in ``to`` is as it was, without one the new
            one is there, and has no card.
    """
    refuse_other_folders(to)
    if not is_bundle(to) or gate_warning(to) is not None:
        made = make(to)
        return made, check_bundle_of(made, clips, long=long, report=report)
    whole = to.resolve()
    aside = whole.with_name(whole.name + UNPROVEN)
    refuse_other_folders(aside)
    of_before = aside.exists()  # an attempt that failed, which a model that cannot be read shall not cost
    try:
        made = make(aside)
    except BaseException:
        if not of_before:
            shutil.rmtree(aside, ignore_errors=True)
        raise
    try:
        gate = check_bundle_of(made, clips, long=long, report=report)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error.what} The bundle in '{to}' is as it was; the new one is in '{aside}'.",
            mend=error.mend,
        ) from None
    except BaseException:
        _discard(aside)
        raise
    replace_bundle(aside, to)
    _discard(aside)
    return replace(made, folder=to), gate


def replace_bundle(new: Path, to: Path) -> None:
    """All files of a bundle over those of an earlier one, bundle.json last, or none of them."""
    files = own_files(new)
    gone = [name for name in own_files(to) if name not in files]
    with staged(to, last=[BUNDLE], gone=gone) as place:
        for name in files:
            shutil.copyfile(new / name, place / name)


def _discard(bundle: Path) -> None:
    """Its files, and the folder, unless somebody put something into it."""
    with contextlib.suppress(OSError):
        for name in own_files(bundle):
            (bundle / name).unlink()
        bundle.rmdir()
