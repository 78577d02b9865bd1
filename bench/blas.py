"""The bare matrix products of a piece of work: what bounds it where BLAS does the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg.blas

Array = npt.NDArray[np.float32]


class Gemm(NamedTuple):
    """One product out_MN = op(a) op(b), where op transposes if asked; ``a`` is stored M x K, or K x M if transposed."""

    m: int
    n: int
    k: int
    trans_a: bool = False
    trans_b: bool = False


class GemmSequence:
    """A sequence of float32 products into outputs made beforehand, called with nothing in between.

    Products that read an array of the same shape in the same place (left, right, out) share it, as the passes of a
    training step share weights and activations: so the sequence touches no more memory than the work that it bounds.

    Parameters
    ----------
    shapes : sequence of (m, n, k, trans_a, trans_b)
        The products in order, each a `Gemm` or such a tuple; the last two may be left out.
    library : {"numpy", "scipy"}
        Whether ``numpy.matmul(out=)`` or ``scipy.linalg.blas.sgemm`` is called; each brings a BLAS of its own.
    seed : int, optional
        Of the inputs, which are uniform in [-1, 1).

    Attributes
    ----------
    flop : int
        Floating-point operations of one run, 2 m n k for each product.
    bytes : int
        Bytes of one run if every product reads its inputs and writes its output once.
    """

    def __init__(self, shapes: Sequence[Gemm | tuple[Any, ...]], library: str = "numpy", seed: int = 0) -> None:
        makers = {"numpy": _numpy_call, "scipy": _scipy_call}
        if library not in makers:
            raise ValueError(f"library was {library!r}; it must be 'numpy' or 'scipy'")
        self.shapes = [Gemm(*shape) for shape in shapes]
        self.flop = sum(2 * gemm.m * gemm.n * gemm.k for gemm in self.shapes)
        self.bytes = sum(4 * (gemm.m * gemm.k + gemm.k * gemm.n + gemm.m * gemm.n) for gemm in self.shapes)
        random = np.random.default_rng(seed)
        arrays: dict[tuple[str, int, int], Array] = {}

        def array(place: str, rows: int, columns: int) -> Array:
            if (place, rows, columns) not in arrays:
                # The places are apart, since NumPy would call another routine for an array times its own transpose.
                arrays[place, rows, columns] = 2 * random.random((rows, columns), dtype=np.float32) - 1
            return arrays[place, rows, columns]

        self._operands = []
        for m, n, k, trans_a, trans_b in self.shapes:
            a = array("left", k, m) if trans_a else array("left", m, k)
            b = array("right", n, k) if trans_b else array("right", k, n)
            self._operands.append((a, b, array("out", m, n)))
        self._calls = [
            makers[library](*operands, gemm.trans_a, gemm.trans_b)
            for gemm, operands in zip(self.shapes, self._operands, strict=True)
        ]

    def run(self) -> None:
        """Compute every product once, in order."""
        for call in self._calls:
            call()

    def verify(self) -> None:
        """Compute every product and compare it with float64; raises ``AssertionError`` where one is wrong."""
        calls = zip(self._calls, self._operands, self.shapes, strict=True)
        for call, (a, b, out), (_, _, k, trans_a, trans_b) in calls:
            out.fill(np.nan)
            call()
            expected = (a.T if trans_a else a).astype(np.float64) @ (b.T if trans_b else b).astype(np.float64)
            assert np.isfinite(out).all(), "a product is not finite"
            # k terms of random sign sum to about sqrt(k), so k roundings of that, as random, come to about k times one.
            assert np.abs(out - expected).max() <= 4 * k * np.finfo(np.float32).eps, "a product differs from float64"


def _numpy_call(a: Array, b: Array, out: Array, trans_a: bool, trans_b: bool) -> Callable[[], object]:
    left, right = a.T if trans_a else a, b.T if trans_b else b
    return lambda: np.matmul(left, right, out=out)


def _scipy_call(a: Array, b: Array, out: Array, trans_a: bool, trans_b: bool) -> Callable[[], object]:
    # BLAS counts columns first, as the transposed views do: out' = op(b)' op(a)', without a copy of anything.
    sgemm, left, right, out_t = scipy.linalg.blas.sgemm, b.T, a.T, out.T
    return lambda: sgemm(1.0, left, right, 0.0, out_t, trans_b, trans_a, True)
