"""CTC as a scorer of next tokens: how probable are all readings that begin with this prefix?

Watanabe et al., 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition", section IV-B.
For a prefix g two numbers per frame are kept: the log-probability of all paths over the frames 0..t that read
as g and end in its last token, r^n_t, or in a blank, r^b_t. With

    φ_t = r^b_t              where the new token c repeats the last one of g
          r^n_t ⊕ r^b_t      otherwise (⊕ adds probabilities); φ_{-1} = 1 for the empty prefix, else 0

all readings that begin with gc have together ψ(gc) = ⊕_t φ_{t-1} x_{t,c}, and g itself r^n_T ⊕ r^b_T. The
score of c after g is ψ(gc) / ψ(g); over all tokens and the end these sum to one.

Notable features. ψ needs nothing of gc itself, so the scores of the whole vocabulary are one matrix product,
and nothing need be chosen beforehand. Only for the token that is taken the recursions

    r^n_t = (r^n_{t-1} ⊕ φ_{t-1}) x_{t,c}      r^b_t = (r^n_{t-1} ⊕ r^b_{t-1}) x_{t,blank}

are run, and these, being linear, are two cumulative sums: r^n_t = X_t ⊕_{s≤t} φ_{s-1} / X_{s-1}, where X_t is
the product of x_{s,c} up to t. No loop over frames is left. Everything is float64 on the CPU.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.nn.scorer import TokenScorer
from firstwords.search.ctc_common import BLANK
from firstwords.tensors import Padded, real_frames

NEVER = float("-inf")
_LEAST = -1000.0  # log-probabilities below are not told from it: cumulative sums must stay finite


class CtcPrefix(NamedTuple):
    """What is known of each row's prefix, and of the ways in which it may go on."""

    token: Float[Tensor, "rows time"]  # r^n
    blank: Float[Tensor, "rows time"]  # r^b
    first: Float[Tensor, " rows"]  # log φ_{-1}: 0 for the empty prefix, else -inf
    last: Int[Tensor, " rows"]  # 0 for the empty prefix
    total: Float[Tensor, "rows vocabulary"]  # log ψ of the prefix and each token; column 0: and no token more


@final
class CtcPrefixScorer(TokenScorer[CtcPrefix]):
    """CTC log-probabilities (B, T, V) of a batch, asked token by token; its rows are B times any number."""

    def __init__(self, log_probs: Padded) -> None:
        values = log_probs.values.detach().to("cpu").double().clamp(min=_LEAST)
        self.batch, self.time, self.vocabulary = values.shape
        self.real = real_frames(log_probs.lengths.to("cpu"), self.time)
        # Behind the end every blank is certain, so that the last frame has the sums over the whole utterance,
        # and no token is possible.
        self.log_probs = values.masked_fill(~self.real[..., None], 0)
        self.probs = values.exp().masked_fill(~self.real[..., None], 0)

    def start(self, rows: int) -> CtcPrefix:
        """Empty prefixes: nothing but blanks so far, and everything is still possible."""
        blank = self._of_rows(self.log_probs[..., BLANK].cumsum(dim=1), rows)
        return CtcPrefix(
            token=torch.full_like(blank, NEVER),
            blank=blank,
            first=blank.new_zeros(rows),
            last=torch.zeros(rows, dtype=torch.int64),
            total=blank.new_zeros(rows, self.vocabulary),
        )

    def score(
        self, last: Int[Tensor, " rows"], state: CtcPrefix
    ) -> tuple[Float[Tensor, "rows vocabulary"], CtcPrefix]:
        """The tokens chosen last -> log ψ(gc) - log ψ(g) of every token c, and of the end."""
        last = last.to("cpu")
        so_far = state.total.gather(1, last[:, None])
        if bool(last.any()):  # otherwise this is the first token of all rows
            state = self._grow(state, last)
        state = state._replace(total=self._totals(state))
        return (state.total - so_far).masked_fill(so_far == NEVER, NEVER), state

    def reorder(self, state: CtcPrefix, kept: Int[Tensor, " kept"]) -> CtcPrefix:
        """The state of the rows ``kept``."""
        kept = kept.to("cpu")
        return CtcPrefix(*(part[kept] for part in state))

    def _grow(self, state: CtcPrefix, token: Int[Tensor, " rows"]) -> CtcPrefix:
        """Each prefix and one token more."""
        repeats = (token == state.last)[:, None]
        either = torch.logaddexp(state.token, state.blank)
        entering = _before(torch.where(repeats, state.blank, either), state.first)
        never = torch.full_like(state.first, NEVER)
        in_token = _carry(entering, self._of_tokens(token)).masked_fill(
            ~self._of_rows(self.real, len(token)), NEVER
        )
        in_blank = _carry(_before(in_token, never), self._of_rows(self.log_probs[..., BLANK], len(token)))
        return CtcPrefix(in_token, in_blank, never, token, state.total)

    def _totals(self, state: CtcPrefix) -> Float[Tensor, "rows vocabulary"]:
        """log ψ(gc) of every token c; column 0: the log-probability of g and nothing more."""
        either = torch.cat([state.first[:, None], torch.logaddexp(state.token, state.blank)], dim=1)
        before = either[:, :-1]
        highest = either.amax(dim=1, keepdim=True).clamp(min=torch.finfo(either.dtype).min)
        sums = (before - highest).exp().unflatten(0, (self.batch, -1)) @ self.probs
        total = sums.log().flatten(0, 1) + highest
        # The last token again needs a blank between. (Where there is none yet this fills column 0.)
        again = _before(state.blank, state.first) + self._of_tokens(state.last)
        again = again.masked_fill(~self._of_rows(self.real, len(again)), NEVER)
        total.scatter_(1, state.last[:, None], again.logsumexp(dim=1, keepdim=True))
        total[:, BLANK] = either[:, -1]
        return total

    def _of_tokens(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows time"]:
        """Log-probability of each row's own token at every frame."""
        wanted = tokens.unflatten(0, (self.batch, 1, -1)).expand(-1, self.time, -1)
        return self.log_probs.gather(2, wanted).transpose(1, 2).flatten(0, 1)

    def _of_rows(self, values: Tensor, rows: int) -> Tensor:
        """One entry per utterance -> one per row."""
        return values.repeat_interleave(rows // max(self.batch, 1), dim=0)


def _before(values: Float[Tensor, "rows time"], first: Float[Tensor, " rows"]) -> Float[Tensor, "rows time"]:
    """The values one frame earlier; ``first`` stands before frame 0."""
    return torch.cat([first[:, None], values], dim=1)[:, :-1]


def _carry(
    entering: Float[Tensor, "rows time"], factor: Float[Tensor, "rows time"]
) -> Float[Tensor, "rows time"]:
    """r_t = (r_{t-1} + entering_t) factor_t from r = 0 on, all of them logarithms, as cumulative sums."""
    product = factor.cumsum(dim=1)
    return product + (entering - (product - factor)).logcumsumexp(dim=1)
