import numpy as np
import pytest

from bench.blas import Gemm, GemmSequence

SHAPES = [(5, 7, 3), (5, 7, 3, True, False), Gemm(5, 7, 3, trans_b=True), (5, 7, 3, True, True), (1, 1, 1)]


@pytest.mark.parametrize("library", ["numpy", "scipy"])
def test_products_agree_with_float64(library):
    sequence = GemmSequence(SHAPES, library)
    sequence.verify()
    sequence.run()


@pytest.mark.parametrize("library", ["numpy", "scipy"])
def test_a_wrong_product_does_not_verify(library):
    sequence = GemmSequence(SHAPES, library)
    sequence._calls[2] = lambda: None
    with pytest.raises(AssertionError, match="not finite"):
        sequence.verify()
    sequence = GemmSequence(SHAPES, library)
    sequence._calls[3] = lambda: sequence._operands[3][2].fill(0.25)
    with pytest.raises(AssertionError, match="differs from float64"):
        sequence.verify()


def test_counts_and_shared_arrays():
    sequence = GemmSequence([(2, 3, 4), (2, 3, 4), (4, 3, 2, True)])
    assert sequence.flop == 3 * 2 * 2 * 3 * 4
    assert sequence.bytes == 4 * (2 * (8 + 12 + 6) + (8 + 6 + 12))
    (a0, b0, c0), (a1, b1, c1), (a2, _, _) = sequence._operands
    assert a0 is a1 is a2
    assert b0 is b1
    assert c0 is c1
    assert a0.dtype == np.float32


def test_an_unknown_library_is_a_sentence():
    with pytest.raises(ValueError, match="library was 'mkl'; it must be 'numpy' or 'scipy'"):
        GemmSequence([(1, 1, 1)], "mkl")
