"""What the release's greedy selection sees (B17)."""

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

__all__ = ["sparse_projection"]


def sparse_projection(flat: Float32[ndarray, "n d"], seed: int) -> Float32[ndarray, "n k"]:
    """scikit-learn's sparse Johnson-Lindenstrauss projection with eps 0.9; the features themselves where it would be
    upwards.  (The release also adds 1e-6 to each difference, which changes no order; it is not copied.)"""
    from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim  # a second to import

    n_dims = int(johnson_lindenstrauss_min_dim(len(flat), eps=0.9))
    if n_dims >= flat.shape[1]:
        return flat
    projection = SparseRandomProjection(n_dims, dense_output=True, random_state=seed)
    weight = projection.fit(flat[:1]).components_.T.toarray().astype(np.float32)
    out = np.empty((len(flat), n_dims), dtype=np.float32)
    for low in range(0, len(flat), 16384):
        out[low : low + 16384] = flat[low : low + 16384] @ weight
    return out
