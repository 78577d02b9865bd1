"""The matrix product of the backend cpu."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan.kernels.common import loops, products, threads
from fastgan.kernels.common.arrays import Workspace
from tests.kernels.accuracy import assert_as_exact

# One; less than a tile; a tile and a panel, one less and one more; more than a block, and than what is packed at once.
SHAPES = [
    (1, 1, 1),
    (5, 3, 7),
    (6, 16, 8),
    (7, 17, 9),
    (11, 15, 4),
    (13, 64, 241),
    (50, 700, 100),
    (100, 97, 480),
    (250, 129, 333),
    (1201, 37, 30),
]


def stored(array, is_transposed):
    return np.ascontiguousarray(array.T).T if is_transposed else array


@pytest.fixture
def shared_out(monkeypatch):
    """Let small products be shared by threads too."""
    monkeypatch.setattr(loops, "PARALLEL_SIZE", 1)
    products._plan.cache_clear()
    yield
    products._plan.cache_clear()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_product(rng, shape, transposed, dtype):
    M, N, K = shape
    a, b, out = (rng.normal(size=size).astype(dtype) for size in ((M, K), (K, N), (M, N)))
    expected = 0.5 * (a.astype(np.float64) @ b) - 2.0 * out
    plain = dtype(0.5) * (a @ b) - dtype(2) * out
    products.product(stored(a, transposed[0]), stored(b, transposed[1]), out, Workspace(), alpha=0.5, beta=-2.0)
    if dtype is np.float32:
        assert_as_exact(out, expected, plain, floor=2e-7)
    else:
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_sums_are_as_exact_as_those_of_blas(rng):
    a, b = rng.normal(size=(40, 1200)).astype(np.float32), rng.normal(size=(1200, 90)).astype(np.float32)
    out = np.empty((40, 90), np.float32)
    products.product(a, b, out, Workspace())
    assert_as_exact(out, a.astype(np.float64) @ b, a @ b)


def test_what_the_output_held_is_not_read_without_beta(rng):
    a, b, out = rng.normal(size=(9, 5)), rng.normal(size=(5, 20)), np.full((9, 20), np.nan)
    products.product(a, b, out, Workspace())
    np.testing.assert_allclose(out, a @ b)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row_and_column(rng, value):
    a, b = rng.normal(size=(20, 30)).astype(np.float32), rng.normal(size=(30, 40)).astype(np.float32)
    a[7, 3] = value
    b[29, 39] = value
    out = np.empty((20, 40), np.float32)
    products.product(a, b, out, Workspace())
    affected = np.zeros(out.shape, bool)
    affected[7], affected[:, 39] = True, True
    assert (~np.isfinite(out) == affected).all()


@pytest.mark.usefixtures("shared_out")
@pytest.mark.parametrize("shape", [(100, 210, 300), (13, 500, 40), (5, 40, 700), (97, 33, 7)])
def test_the_same_bits_with_any_number_of_threads(rng, shape):
    M, N, K = shape
    a, b = rng.normal(size=(M, K)).astype(np.float32), rng.normal(size=(N, K)).astype(np.float32)
    results = []
    for number in (1, 2, 3, 8):
        with threads.limit(number):
            out = np.empty((M, N), np.float32)
            products.product(a, b.T, out, Workspace())
        results.append(out)
    assert all((out == results[0]).all() for out in results)


@pytest.mark.usefixtures("shared_out")
@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 700), st.integers(1, 150), st.integers(1, 700), st.integers(1, 9),
    st.sampled_from([1, 2, 5, 7, 250]), st.booleans(),
)  # fmt: skip
def test_blocks_cover_every_element_once(M, units, K, num_threads, multiple, along_rows):
    N = units * multiple
    how = products.Plan(M, N, K, 4, num_threads, multiple, along_rows)
    assert 1 <= len(how.blocks) <= num_threads
    packed_a, packed_b, sums = how.scratch(Workspace(), np.dtype(np.float32))
    width = products.PANEL_BYTES // 4
    covered = np.zeros((M, N), np.uint8)
    for part in how.blocks:
        rows, columns = None, None
        for m0, m1, n0, n1, n2, a_is_packed, b_is_packed in part:
            covered[m0:m1, n0:n1] += 1
            if m1 == m0:
                continue
            assert n0 % multiple == 0
            assert n1 <= n2 <= N
            # What is taken as packed is what the block before packed, and of B that was all of its rows.
            assert not a_is_packed or rows == (m0, m1)
            assert not b_is_packed or (columns == (n0, n1) and how.depth >= K)
            rows, columns = (m0, m1), (n0, n1)
            padded_rows = -(-(m1 - m0) // products.TILE_ROWS) * products.TILE_ROWS
            padded_columns = -(-(n1 - n0) // width) * width
            assert padded_rows * K <= packed_a.shape[1]
            assert how.depth * padded_columns <= packed_b.shape[1]
            assert padded_rows <= sums.shape[1]
            assert padded_columns <= sums.shape[2]
    assert (covered == 1).all()


@pytest.mark.parametrize("width", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("multiple", range(1, 13))
def test_blocks_of_whole_units_leave_little_of_a_panel_empty(width, multiple):
    for columns in products._widths(width, multiple)[1:]:
        assert columns % multiple == 0
        assert 96 <= columns <= 192
        assert columns / (-(-columns // width) * width) > 0.9


@pytest.mark.parametrize("M", [100, 102, 200, 201])
@pytest.mark.parametrize("number", [1, 2])
def test_threads_have_as_many_rows_each(M, number):
    parts = products._share(M, 1200, 1200, number, 1)
    rows = [m1 - m0 for m0, m1, _, _ in parts]
    assert len(rows) == number
    assert max(rows) - min(rows) <= 2


def test_a_processor_without_wide_vectors(tmp_path):
    program = (
        "import numpy as np\n"
        "from fastgan.kernels.common import products, vectors\n"
        "from fastgan.kernels.common.arrays import Workspace\n"
        "assert vectors.VECTOR_BYTES == 16, vectors.VECTOR_BYTES\n"
        "rng = np.random.default_rng(0)\n"
        "a, b = rng.normal(size=(23, 50)).astype(np.float32), rng.normal(size=(61, 50)).astype(np.float32)\n"
        "out = np.empty((23, 61), np.float32)\n"
        "products.product(a, b.T, out, Workspace())\n"
        "np.testing.assert_allclose(out, a @ b.T, rtol=0, atol=1e-4)\n"
    )
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("shared_out")
def test_a_forked_child_computes_the_same(rng):
    a, b, out = rng.normal(size=(60, 70)), rng.normal(size=(70, 80)), np.empty((60, 80))
    with threads.limit(2):
        products.product(a, b, out, Workspace())
        child = os.fork()
        if child == 0:
            again = np.empty_like(out)
            products.product(a, b, again, Workspace())
            os._exit(0 if (again == out).all() else 1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
