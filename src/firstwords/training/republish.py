"""A model folder of which files are gone, written again from what its run has kept.

RUN/model.safetensors     deleted, or never copied (of other models: other files)
RUN/resume/best-00000900  the weights that were best on dev: these are published again
RUN/resume/step-00001200  where there are no best ones: what is best of these is chosen on dev anew
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firstwords.training.averaging import set_weights
from firstwords.training.session import Run
from firstwords.training.tasks.task import BatchT, Task
from firstwords.training.trainer import Validations


def republish(model: Sequence[Path], task: Task[BatchT], dev: Validations[BatchT], run: Run) -> None:
    """Write the model of a resumed run once more, if it had one and a file of it is not there any longer.

    Args:
        model: the files without which there is no model.
    """
    gone = [path for path in model if not path.exists()]
    if not gone or run.counters.validated < 0 or not run.processes.first:
        return
    best = run.checkpoints.best()
    if best is None:
        run.tell(
            f"'{gone[0]}' is gone, and so are the weights that were best on dev: "
            f"those of step {run.step} are published."
        )
        run.counters.best = float("inf")  # of weights that nobody has any longer
        run.validate(task, dev)
        return
    run.tell(
        f"'{gone[0]}' is gone: the model is published again from the weights that were best on dev "
        f"(step {best.step}, {run.folder.name}/best-{best.step:08d})."
    )
    own = {name: value.clone() for name, value in task.model.state_dict().items()}
    task.model.load_state_dict(best.state["model"])
    run.publish(task.validate(dev), best.step)
    set_weights(task.model, own)
