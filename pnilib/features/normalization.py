"""Standardisation of features, fitted on the training features (not in the paper).

    channel:      y = (x - mean) / sd                         per channel
    half_whiten:  y = Lambda^(-1/4) V^T (x - mean)            V, Lambda: leading eigenvectors and
                                                              eigenvalues of the covariance
Half whitening leaves a direction of variance v with variance sqrt(v): it raises weak directions
without making them as loud as strong ones.  ImageNet backbones keep `none`, as the paper does.
"""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["FeatureNorm", "half_whitening", "moments"]

FLOOR = 1e-6  # variances below FLOOR x the largest count as constant: such channels become 0


def moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (d) and covariance (d, d) over all but the last axis, float64, in one pass (divided by n).

    Values are taken relative to the first batch's mean, so that large offsets cost no digits.
    """
    count, shift = 0, torch.zeros(0)
    total, products = torch.zeros(0), torch.zeros(0)
    for batch in batches:
        values = batch.detach().cpu().double().flatten(0, -2)
        if count == 0:
            shift = values.mean(0)
            total, products = (
                torch.zeros_like(shift),
                torch.zeros(len(shift), len(shift), dtype=torch.float64),
            )
        values = values - shift
        count += len(values)
        total += values.sum(0)
        products += values.T @ values
    if count == 0:
        raise ValueError("moments of no features at all")
    mean = total / count
    return shift + mean, products / count - torch.outer(mean, mean)


def half_whitening(covariance: Float[Tensor, "d d"], dim: int) -> Float[Tensor, "d k"]:
    """Matrix V Lambda^(-1/4) of the k = min(dim, d) leading directions; constant directions give 0.

    Signs are fixed: the entry of largest magnitude in each eigenvector is positive.
    """
    variances, vectors = torch.linalg.eigh(covariance)
    variances, vectors = variances.flip(0)[:dim], vectors.flip(1)[:, :dim]
    peak = vectors.abs().argmax(0)
    vectors = vectors * vectors[peak, torch.arange(vectors.shape[1])].sign()
    alive = variances > FLOOR * variances[0].clamp(min=1e-30)
    return vectors * torch.where(alive, variances.clamp(min=1e-300) ** -0.25, 0.0)


class FeatureNorm:
    """Remembers mean and matrix (or scale) of `channel` or `half_whiten`."""

    def __init__(self, kind: str, mean: Float[Tensor, " d"], linear: Tensor) -> None:
        self.kind = kind
        self.mean = mean
        # channel: factors (d); half_whiten: matrix (d, k), in memory always as LAPACK leaves it, column by column: the
        # last digit of a product depends on the order, and a norm that was saved and loaded must give the same bytes
        self.linear = linear.T.contiguous().T if linear.ndim == 2 else linear

    @classmethod
    def fit(cls, kind: str, batches: Iterable[Tensor], dim: int) -> "FeatureNorm":
        """From raw features (..., d), streamed."""
        mean, covariance = moments(batches)
        if kind == "half_whiten":
            linear = half_whitening(covariance, dim)
        else:
            variances = covariance.diagonal()
            alive = variances > FLOOR * variances.max().clamp(min=1e-30)
            linear = torch.where(alive, variances.clamp(min=1e-300) ** -0.5, 0.0)
        return cls(kind, mean.float(), linear.float())

    @property
    def dim(self) -> int:
        """Channels of the result."""
        return self.linear.shape[-1]

    def __call__(self, features: Float[Tensor, "*grid d"]) -> Float[Tensor, "*grid k"]:
        centred = features - self.mean.to(features.device)
        linear = self.linear.to(features.device)
        return centred @ linear if self.kind == "half_whiten" else centred * linear

    def state(self) -> dict[str, Tensor]:
        """Tensors that `load` turns back into the same norm."""
        return {"norm_mean": self.mean, "norm_linear": self.linear}

    @classmethod
    def load(cls, kind: str, state: Mapping[str, Tensor]) -> "FeatureNorm":
        """Inverse of `state`."""
        return cls(kind, state["norm_mean"], state["norm_linear"])
