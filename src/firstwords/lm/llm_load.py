"""Any language model in Hugging Face format as a scorer of texts: what it is, its folder says."""

from __future__ import annotations

from pathlib import Path

from firstwords.lm.llm import CausalLlm
from firstwords.lm.llm_folder import Dtype, find_llm, kind_of
from firstwords.lm.llm_masked import MaskedLlm
from firstwords.lm.llm_score import LlmConfig, TextScorer


def load_scorer(
    path_or_id: Path | str, *, device: str = "auto", dtype: Dtype = "auto", config: LlmConfig | None = None
) -> TextScorer:
    """Model folder, or ``hub:ORGANISATION/NAME`` to download one, -> CausalLlm or MaskedLlm."""
    folder = find_llm(path_or_id)
    kind = MaskedLlm if kind_of(folder) == "masked" else CausalLlm
    return kind.load(folder, device=device, dtype=dtype, config=config)
