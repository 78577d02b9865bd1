"""Matrix products with BLAS's own scale and accumulation: the reference's.

NumPy and SciPy bring an OpenBLAS each, with threads of its own that go on spinning for a while after a product: a step
that calls both has more of them than cores. So all products go through SciPy's, though NumPy's is a tenth faster on one
thread where no operand is transposed.
"""

from __future__ import annotations

from scipy.linalg.blas import dgemm, sgemm

from fastgan.kernels.common.arrays import Array


def gemm(a: Array, b: Array, out: Array, alpha: float = 1.0, beta: float = 0.0) -> None:
    """Compute ``out ← alpha · a @ b + beta · out`` in place, in the dtype of ``out``.

    NumPy's matmul has neither alpha nor beta; with them a weight gradient goes straight into the velocity, and two
    passes over the weights are saved. BLAS speaks column-major: ``outᵀ = bᵀ aᵀ``, and each operand is handed over as
    the column-major array that it, or its transpose, already is, so nothing is copied.

    Parameters
    ----------
    a : (m, k) array
        C-contiguous, or the transpose of such an array.
    b : (k, n) array
        Likewise.
    out : (m, n) array
        C-contiguous; with ``beta = 0`` its content is not read.
    """
    product = sgemm if out.dtype.itemsize == 4 else dgemm
    left, trans_left = (b.T, 0) if b.flags.c_contiguous else (b, 1)
    right, trans_right = (a.T, 0) if a.flags.c_contiguous else (a, 1)
    product(alpha, left, right, beta, out.T, trans_a=trans_left, trans_b=trans_right, overwrite_c=1)
