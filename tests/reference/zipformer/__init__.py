"""The twin of the product's Zipformer: the published model in ordinary eager PyTorch, float32.

Written from the specification (arXiv:2310.11230 and the published recipe's numbers) without the product's
tricks: (T, N, C) sequences, channels-first convolutions, attention by plain matrix products, regularisers
whose gradients come from autograd. It has what the published code does to save memory (activation, dropout
and linear map as one step; BiasNorm and Swoosh that keep their input alone), so that it is a fair opponent.
Parameters have the product's names and shapes, random decisions fall in the same order with the same draws:

    twin.load_state_dict(ours.state_dict()); the same seed, the same step in training

Padding leaks as in the published model: compare with ``Zipformer(..., padding="reference")``.
"""

from reference.zipformer.encoder import EagerZipformer

__all__ = ["EagerZipformer"]
