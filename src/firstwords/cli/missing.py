"""A package that is not installed -> what to install, in words."""

from __future__ import annotations

from firstwords.errors import DependencyError

# What firstwords[train] brings beside the core; a test compares it with pyproject.toml.
OF_TRAINING = frozenset(
    {"torch", "defusedxml", "jaxtyping", "jinja2", "kaldialign", "regex", "safetensors", "sentencepiece"}
)


def missing_part(error: ModuleNotFoundError) -> DependencyError | None:
    """How to install the package, if it is one that training and models need; None: a fault of ours."""
    if error.name not in OF_TRAINING:
        return None
    return DependencyError(
        f"This command needs the package '{error.name}', which is not installed.",
        mend='pip install "firstwords[train]"',
    )
