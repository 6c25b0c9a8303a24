"""Everything in the product that writes files, each as an operation that can be done again and again.

A new writer belongs into the list of its room; ``test_failing_writes`` proves that it leaves no half file.
"""

from __future__ import annotations

from collections.abc import Mapping

from robustness.writer import Writer
from robustness.writers_corpora import CORPORA
from robustness.writers_language_models import LANGUAGE_MODELS
from robustness.writers_models import MODELS
from robustness.writers_results import RESULTS
from robustness.writers_training import LOG, TRAINING

WRITERS = [*CORPORA, *MODELS, *LANGUAGE_MODELS, *TRAINING, *RESULTS]
BY_NAME: Mapping[str, Writer] = {w.name: w for w in (*WRITERS, LOG)}
