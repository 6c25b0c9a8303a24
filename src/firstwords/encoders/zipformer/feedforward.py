"""The feed-forward module of a Zipformer layer: arXiv:2310.11230, section 3.2."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from firstwords.encoders.zipformer.activations import dropout_over_time, initialize_scaled, swoosh_l
from firstwords.encoders.zipformer.constraints import Balancer, Whiten
from firstwords.encoders.zipformer.schedules import Schedule, Scheduled
from firstwords.nn.linear import Linear


class FeedForward(Scheduled):
    """(B, T, D) -> (B, T, D): widen, SwooshL, dropout, back."""

    def __init__(self, dim: int, hidden: int, dropout: Schedule | float) -> None:
        super().__init__()
        self.dropout = dropout
        self.in_proj = Linear(dim, hidden)
        self.hidden_balancer = Balancer(0.3, 1.0, 0.75, 5.0)
        self.out_proj = Linear(hidden, dim)
        initialize_scaled(self.out_proj, 0.1)
        self.out_whiten = Whiten(Schedule((0.0, 7.5), (20000.0, 15.0), default=7.5), grad_scale=0.01)

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        hidden = swoosh_l(self.hidden_balancer(self.in_proj(x)))
        hidden = dropout_over_time(hidden, self.now(self.dropout), training=self.training)
        return self.out_whiten(self.out_proj(hidden))
