"""Every tile that may be chosen, on the emulator: the choice goes by the size, and a test's sizes are small."""

import numpy as np
import pytest

from fastgan.errors import BackendError
from fastgan.kernels import linear, linear_maxout
from fastgan.kernels.common import gemm_tile, launcher
from fastgan.kernels.common.arrays import Workspace
from fastgan.kernels.common.gemm_tile import _FMA_SHAPES, _MMA_SHAPES, FMA, SPLIT, TF32, Operand, Tiling
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.linear import cupy_raw as linear_cupy
from fastgan.kernels.linear_maxout import cupy_raw as linear_maxout_cupy
from tests.kernels.accuracy import assert_as_exact
from tests.kernels.on_device import on

SHAPES = [(FMA, shape) for shape in _FMA_SHAPES]
SHAPES += [(arithmetic, shape) for arithmetic in (TF32, SPLIT) for shape in _MMA_SHAPES]
# How blocks share K, in turn: alone, as a cluster, by tickets.
MEETINGS = [(1, False), (2, True), (4, False), (8, True), (2, False), (4, True)]
DROPOUT = Dropout(0.5, seed=3, stream=1 << 24, step=5, row_offset=2)


def named(case):
    arithmetic, shape = case
    return f"{('fma', 'tf32', 'split')[arithmetic]}-{shape.m}x{shape.n}x{shape.k}"


@pytest.fixture(params=enumerate(SHAPES), ids=lambda numbered: named(numbered[1]))
def tiled(request, emulated, monkeypatch):
    """One tile for all products, and how blocks share K where they may; gives the tile's shape and its arithmetic."""
    number, (arithmetic, shape) = request.param
    splits, clustered = MEETINGS[number % len(MEETINGS)]

    def chosen(M, N, K, a, b, _, *, pieces=1, split=True, bytes_a_row=0):
        columns = shape.n // pieces * pieces if pieces <= shape.n else pieces
        alone = not split or pieces > shape.n
        promote = arithmetic == FMA and number % 2 == 1
        return Tiling(shape, 1 if alone else splits, clustered and not alone, arithmetic, columns, promote)

    for module in (linear_cupy, linear_maxout_cupy):
        monkeypatch.setattr(module, "choose", chosen)
    return shape, arithmetic


def exactly(x, W, b, settings):
    dropped = linear.forward(x, np.eye(x.shape[1], dtype=x.dtype), np.zeros(x.shape[1], x.dtype), dropout=settings)
    return dropped.astype(np.float64) @ W.astype(np.float64) + b


def check(found, exact, plain, arithmetic):
    """Hold a product against float64: float32's own error, four times it for split products, TF32's ten bits."""
    if arithmetic == TF32:
        # A rounding of 2^-11 in each operand, sums of random signs.
        assert_as_exact(found, exact, exact, factor=0.0, floor=1e-3)
    else:
        assert_as_exact(found, exact, plain, factor=2.0 if arithmetic == FMA else 4.0, floor=3e-7)


@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "ragged"])
def test_products_of_a_tile_and_a_little_more(tiled, rng, aligned):
    shape, arithmetic = tiled
    # A whole tile, and one more or less of everything; K in more parts than there are blocks to share it.
    B, O, I = (shape.m, shape.n, 12 * shape.k) if aligned else (shape.m + 1, shape.n - 1, 9 * shape.k + 5)
    x, W, b, dy = (rng.normal(size=size).astype(np.float32) for size in ((B, I), (I, O), (O,), (B, O)))
    there = on(linear, "cupy")
    y = there.forward(x, W, b, dropout=DROPOUT, backend="cupy")
    exact = exactly(x, W, b, DROPOUT)
    plain = linear.forward(x, W, b, dropout=DROPOUT, backend="reference")
    check(y, exact, plain, arithmetic)
    dx = there.backward_input(dy, y, W, backend="cupy")
    check(dx, dy.astype(np.float64) @ W.T.astype(np.float64), dy @ W.T, arithmetic)
    # The same bits again.
    assert (there.forward(x, W, b, dropout=DROPOUT, backend="cupy") == y).all()


def test_a_layer_of_maxout_units(tiled, rng):
    shape, arithmetic = tiled
    P = 3
    U = shape.n // P + 2
    B, I = shape.m - 1, 5 * shape.k + 3
    x, W, b, dy = (rng.normal(size=size).astype(np.float32) for size in ((B, I), (I, U * P), (U * P,), (B, U)))
    vW, vb = (rng.normal(size=array.shape).astype(np.float32) for array in (W, b))
    there = on(linear_maxout, "cupy")
    y, pieces = there.forward(x, W, b, P, backend="cupy")
    z = (x.astype(np.float64) @ W.astype(np.float64) + b).reshape(B, U, P)
    check(y, z.max(-1), linear_maxout.forward(x, W, b, P, backend="reference")[0], arithmetic)
    # Where the best two are further apart than the error, the best one won.
    best = np.sort(z, -1)
    clear = best[:, :, -1] - best[:, :, -2] > (0.05 if arithmetic == TF32 else 1e-4) * np.abs(z).max()
    assert clear.mean() > 0.5
    assert (pieces == z.argmax(-1))[clear].all()
    found, wanted = ([array.copy() for array in (W, b, vW, vb)] for _ in range(2))
    rates = {"learning_rate": 0.1, "momentum": 0.5, "dropout": DROPOUT}
    there.backward_update(x, dy, pieces, P, *found, **rates, backend="cupy")
    linear_maxout.backward_update(x, dy, pieces, P, *wanted, **rates, backend="reference")
    for own, reference in zip(found, wanted, strict=True):
        tolerance = (2e-2 if arithmetic == TF32 else 1e-5) * np.abs(reference).max()
        np.testing.assert_allclose(own, reference, rtol=0, atol=tolerance)


def test_what_blocks_meet_in_is_left_as_it_was_found(emulated):
    tiling = Tiling(_FMA_SHAPES[-1], 4, False, FMA, 32)
    workspace = Workspace(emulated.empty, emulated.upload)
    scratch = tiling.scratch(40, 70, workspace)
    assert not emulated.download(scratch["tickets"]).any()
    assert tiling.scratch(40, 70, workspace)["tickets"] is scratch["tickets"]


@pytest.mark.parametrize("architecture", [75, 80, 90])
def test_what_is_chosen_fits_the_device(architecture, monkeypatch):
    limits = {75: 65536, 80: 166912, 90: 232448}
    machine = type("Machine", (), {"architecture": architecture, "num_multiprocessors": 60})()
    machine.max_shared_bytes = limits[architecture]
    monkeypatch.setattr(gemm_tile, "runtime", lambda: machine)
    a, b = Operand(k_fast=True, plain=False), Operand(k_fast=False, plain=True)
    for M, N, K in [(1, 1, 1), (100, 1200, 784), (200, 1200, 1200), (4096, 4096, 4096), (7, 100_000, 3)]:
        for arithmetic in (FMA,) if architecture < 80 else (FMA, TF32, SPLIT):
            tiling = gemm_tile.choose(M, N, K, a, b, arithmetic, pieces=5)
            assert 4 * tiling.shared_floats(a, b) <= limits[architecture]
            assert tiling.clustered == (architecture >= 90 and tiling.splits > 1)
            assert tiling.columns % 5 == 0
            x, y, z = tiling.grid(M, N)
            assert x * tiling.columns >= N > (x - 1) * tiling.columns
            assert y * tiling.shape.m >= M > (y - 1) * tiling.shape.m
            assert z == tiling.splits


def test_more_shared_memory_than_there_is_is_refused(emulated):
    kernel = gemm_tile.Kernel("step/step.cu", "set_rates", threads=1, shared_bytes=emulated.max_shared_bytes + 4)
    with pytest.raises(launcher.BackendError, match="bytes of shared memory a block, and the GPU has"):
        launcher.launch(kernel, (1, 1, 1))


@pytest.mark.parametrize("arithmetic", [FMA, SPLIT])
def test_matrices_that_are_not_aligned_give_the_same_bits(emulated, rng, monkeypatch, arithmetic):
    monkeypatch.setitem(gemm_tile.ARITHMETIC, "float32", arithmetic)
    kernels = []
    launch = emulated.launch
    monkeypatch.setattr(emulated, "launch", lambda kernel, *rest: (kernels.append(kernel), launch(kernel, *rest)))
    B, I, U, P = 37, 44, 10, 4
    host = [rng.normal(size=shape).astype(np.float32) for shape in ((B, I), (I, U * P), (U * P,), (B, U))]

    def on_device(array, offset):
        buffer = np.concatenate([np.zeros(offset, np.float32), array.ravel()])
        return emulated.upload(buffer)[offset:].reshape(array.shape)

    def results(offset):
        x, W, b, dy = (on_device(array, offset) for array in host)
        vW, vb = (on_device(np.zeros(array.shape, np.float32), offset) for array in (host[1], host[2]))
        y, pieces = linear_maxout.forward(x, W, b, P, dropout=DROPOUT, backend="cupy")
        dx = linear_maxout.backward_input(dy, pieces, W, P, dropout=DROPOUT, backend="cupy")
        rates = {"learning_rate": 0.1, "momentum": 0.5, "backend": "cupy"}
        linear_maxout.backward_update(x, dy, pieces, P, W, b, vW, vb, dropout=DROPOUT, **rates)
        z = linear.forward(x, W, b, "relu", backend="cupy")
        return [emulated.download(array) for array in (y, pieces, dx, W, b, vW, vb, z)]

    for one, other in zip(results(0), results(1), strict=True):
        assert (one == other).all()
    flags = [dict(kernel.defines)["ALIGNED"] for kernel in kernels if "ALIGNED" in dict(kernel.defines)]
    assert flags == [1] * 4 + [0] * 4


def test_what_computes_float32(monkeypatch):
    for architecture, expected in ((75, FMA), (80, FMA), (89, FMA), (90, SPLIT), (120, SPLIT)):
        machine = type("Machine", (), {"architecture": architecture})()
        monkeypatch.setattr(gemm_tile, "runtime", lambda machine=machine: machine)
        assert gemm_tile.arithmetic_of("float32") == expected
        assert gemm_tile.arithmetic_of("float32", split=False) == FMA
        assert gemm_tile.arithmetic_of("tf32") == TF32
    monkeypatch.setitem(gemm_tile.ARITHMETIC, "float32", FMA)
    assert gemm_tile.arithmetic_of("float32") == FMA


def test_rows_that_are_too_long_are_refused(emulated):
    x = emulated.empty((1, 2**21 + 4), np.float32)
    W = emulated.empty((2**21 + 4, 1), np.float32)
    with pytest.raises(BackendError, match=r"^A matrix has rows of 2097156 numbers; the backend cupy takes 2097152"):
        linear.forward(x, W, emulated.empty((1,), np.float32), backend="cupy")
