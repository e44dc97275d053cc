"""TensorSketch of a last layer's gradient: sums of outer products in few dimensions, without forming them.

The gradient of a row's summed loss with respect to the output weights is G = sum over t of (p_t - y_t) h_t^T,
with h_t (H) the hidden state, p_t (V) the predicted probabilities and y_t the one-hot target; where a model
scales or caps its logits, entry by entry times their slope. G has V x H entries; its sketch s(G) has D, and
the inner product of two sketches estimates without bias that of the two gradients, with variance at most
11 |G|^2 |G'|^2 / D (Frobenius norms).

Source: Pham and Pagh, "Fast and scalable polynomial kernels via explicit feature maps" (KDD 2013); the bound
is (2 + 3^q) / D with q = 2 factors, Avron, Nguyen and Woodruff (NeurIPS 2014), Lemma 2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SKETCH_SIZE = 512
"""D by default."""

SKETCH_SEED = 20130811
"""Seed of the hashes. Fixed: sketches of different runs are comparable only under the same hashes."""


class TensorSketch:
    """Sketch of sum_t h_t x r_t, for h (T, H) and r (T, V).

    Each factor is count-sketched (coordinate i goes to bucket hash(i) with sign(i)); the outer product's
    sketch is the circular convolution of the two, a product in the Fourier domain, where the sum over t is
    taken as well.
    """

    def __init__(
        self, hidden: int, vocabulary: int, size: int = SKETCH_SIZE, seed: int = SKETCH_SEED
    ) -> None:
        self.size = size
        left, right = np.random.SeedSequence(seed).spawn(2)
        self._left = _hashes(left, hidden, size)
        self._right = _hashes(right, vocabulary, size)

    def to(self, device: torch.device) -> TensorSketch:
        """Move the hashes to ``device``; returns self."""
        self._left = (self._left[0].to(device), self._left[1].to(device))
        self._right = (self._right[0].to(device), self._right[1].to(device))
        return self

    def spectrum(self, h: Tensor, p: Tensor, targets: Tensor, slope: Tensor | None = None) -> Tensor:
        """Fourier coefficients (T, D // 2 + 1), complex64, of the sketches of h_t x f_t (p_t - y_t).

        ``h`` (T, H) and ``p`` (T, V) are float32; ``targets`` (T,) holds the index of each y_t. ``slope``
        (T, V) is f, the derivative of each logit by the output layer's value where logits are scaled or
        capped; None: 1. ``p`` is overwritten with its product.
        """
        buckets, signs = self._right
        if slope is not None:
            p = p.mul_(slope)
        residual = _count(p, buckets, signs, self.size)
        # p - y without a copy of p: the target's one is taken out of its bucket.
        rows = torch.arange(len(targets), device=targets.device)
        at_target = signs[targets] if slope is None else signs[targets] * slope[rows, targets]
        residual[rows, buckets[targets]] -= at_target
        spectrum: Tensor = torch.fft.rfft(residual)
        return spectrum.mul_(torch.fft.rfft(_count(h, *self._left, self.size)))

    def total(self, spectra: Tensor, rows: Tensor, count: int) -> Tensor:
        """Sums of sketches, (count, D) float32: spectrum t is added to row ``rows[t]``."""
        sums = torch.zeros(count, spectra.shape[1], 2, device=spectra.device)
        sums.index_add_(0, rows, torch.view_as_real(spectra))
        sketches: Tensor = torch.fft.irfft(torch.view_as_complex(sums), n=self.size)
        return sketches


def _hashes(seed: np.random.SeedSequence, entries: int, size: int) -> tuple[Tensor, Tensor]:
    """Bucket (int64) and sign (float32, +-1) of each of ``entries`` coordinates."""
    rng = np.random.default_rng(seed)
    buckets, signs = rng.integers(0, size, entries), 2 * rng.integers(0, 2, entries) - 1
    return torch.from_numpy(buckets), torch.from_numpy(signs.astype(np.float32))


def _count(x: Tensor, buckets: Tensor, signs: Tensor, size: int) -> Tensor:
    """Count sketches (T, size) of the rows of ``x`` (T, entries)."""
    return x.new_zeros(len(x), size).index_add_(1, buckets, x * signs)
