"""Matrix products as tiles in shared memory: what the kernels of ``linear`` and ``linear_maxout`` have in common.

    C (M, N) = A (M, K) · B (K, N)

A block of 16 x 8 threads makes 32 rows by 16·c columns of C. It walks along K in steps of 32: a tile of A and one of B
go to shared memory, transformed on the way in (dropout drawn again, gradients carried through the activation or spread
over the pieces), and each thread adds the products of its 4 rows and c columns in registers. After every tile these
partial sums are added to others, so that a long sum is as exact as a blocked one. Sums have one order: the same inputs
give the same bits. 8·c FLOP and 4 + c reads of shared memory for each thread and element of K.

Tiles are padded by a column, and a thread's columns lie 17 apart (``slot``): so neither the reads along rows nor
the writes of transposed tiles meet in one bank. Edges are zeros in the tiles.

No kernel here has been timed on a device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastgan.kernels.common import numba_runtime as runtime
from fastgan.kernels.common import philox
from fastgan.kernels.common.arrays import Array, Rate
from fastgan.kernels.common.numba_philox import Draw, draw, top24, words
from fastgan.kernels.common.numba_runtime import cuda, device_function, kernel
from fastgan.kernels.dropout import Dropout

# Threads of a block along columns and rows, and rows that a thread makes.
TX, TY = 16, 8
ROWS = 4
# Columns that a thread makes where nothing else decides it: at most TY, as a thread also sums one column of the tile.
COLUMNS = 4
NUM_THREADS = TX * TY
TILE_M, TILE_N = TY * ROWS, TX * COLUMNS
# A's tile is square, so that it can be filled either way round.
TILE_K = TILE_M
# The tile of A is padded by a column.
PITCH_A = TILE_K + 1
_QUADS = TILE_K // 4


def pitch_b(columns: int) -> int:
    """Give the length of a row of B's tile: 17 a column of a thread's, made odd."""
    return (TX + 1) * columns | 1


PITCH_B = pitch_b(COLUMNS)


class Mask(NamedTuple):
    """A dropout as kernels take it; a threshold of 0 stands for none."""

    draw: Draw
    threshold: np.uint32
    scale: np.float32


_NO_DRAW = Draw(*(np.uint32(0),) * 5)


def mask_of(dropout: Dropout | None) -> tuple[Mask, Array]:
    """Give a kernel's two arguments: the mask, and the step's element on the device."""
    if dropout is None:
        return Mask(_NO_DRAW, np.uint32(0), np.float32(0)), runtime.zero(np.int64)
    numbers, step = draw(dropout.seed, dropout.stream, dropout.step, dropout.row_offset)
    # 2^24, which keeps all, fits as well.
    return Mask(numbers, np.uint32(philox.keep_threshold(dropout.keep)), np.float32(dropout.scale)), step


@device_function
def slot(column: Any) -> Any:
    """Give the place in B's tile of a column that a thread takes 16 apart."""
    return (column // TX) * (TX + 1) + column % TX


@device_function
def element(x: Any, row: Any, column: Any) -> Any:
    """Give an element, 0 beyond the array's edges."""
    if row < x.shape[0] and column < x.shape[1]:
        return x[row, column]
    return x.dtype.type(0)


@device_function
def dropped(value: Any, word: Any, mask: Any) -> Any:
    """Scale an element that the mask keeps. One that it drops is 0 whatever it was, NaN included."""
    if mask.threshold == np.uint32(0):
        return value
    # As value's own type: a product with a float32 would be one in float64, and the branches of two types.
    if top24(word) < mask.threshold:
        return value * type(value)(mask.scale)
    return type(value)(0)


@device_function
def load_dropped(x: Any, mask: Any, step: Any, row0: Any, column0: Any, thread: Any, turned: Any, tile: Any) -> None:
    """Fill A's tile with 32 x 32 elements of x after their dropout, or with their transpose.

    A thread takes four neighbours of a row, which are the four words of one counter.
    """
    for q in range(thread, TILE_K * _QUADS, NUM_THREADS):
        r, c = q // _QUADS, 4 * (q % _QUADS)
        row, column = row0 + r, column0 + c
        w0, w1, w2, w3 = np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(0)
        if mask.threshold != np.uint32(0):
            w0, w1, w2, w3 = words(mask.draw, step, row, column // 4)
        x0 = dropped(element(x, row, column), w0, mask)
        x1 = dropped(element(x, row, column + 1), w1, mask)
        x2 = dropped(element(x, row, column + 2), w2, mask)
        x3 = dropped(element(x, row, column + 3), w3, mask)
        if turned:
            tile[c, r], tile[c + 1, r], tile[c + 2, r], tile[c + 3, r] = x0, x1, x2, x3
        else:
            tile[r, c], tile[r, c + 1], tile[r, c + 2], tile[r, c + 3] = x0, x1, x2, x3


@device_function
def add_products(a: Any, b: Any, tx: Any, ty: Any, partial: Any, total: Any) -> None:
    """Add a tile's products to the thread's (4, c) sums, by way of sums of this tile alone."""
    columns = partial.shape[1]
    for r in range(ROWS):
        for c in range(columns):
            partial[r, c] = 0
    for k in range(TILE_K):
        for r in range(ROWS):
            of_a = a[ty + TY * r, k]
            for c in range(columns):
                partial[r, c] += of_a * b[k, c * (TX + 1) + tx]
    for r in range(ROWS):
        for c in range(columns):
            total[r, c] += partial[r, c]


@device_function
def load_rows(x: Any, row0: Any, column0: Any, thread: Any, tile: Any) -> None:
    """Fill A's tile with 32 x 32 elements of x; neighbouring threads read neighbours of a row."""
    for e in range(thread, TILE_M * TILE_K, NUM_THREADS):
        tile[e // TILE_K, e % TILE_K] = element(x, row0 + e // TILE_K, column0 + e % TILE_K)


@device_function
def load_columns(x: Any, row0: Any, column0: Any, thread: Any, tile: Any) -> None:
    """Fill B's tile with the transpose of 64 x 32 elements of x; neighbouring threads read neighbours of a row."""
    for e in range(thread, TILE_N * TILE_K, NUM_THREADS):
        tile[e % TILE_K, slot(e // TILE_K)] = element(x, row0 + e // TILE_K, column0 + e % TILE_K)


@device_function
def add_squares(a: Any, b: Any, tx: Any, ty: Any, total: Any) -> None:
    """Add a tile's squared differences, in float64, to the thread's (4, c) sums."""
    columns = total.shape[1]
    for k in range(TILE_K):
        for r in range(ROWS):
            of_a = np.float64(a[ty + TY * r, k])
            for c in range(columns):
                difference = of_a - np.float64(b[k, c * (TX + 1) + tx])
                total[r, c] += difference * difference


@device_function
def is_finite(value: Any) -> Any:
    """Tell whether a number is neither a NaN nor an infinity, in its own type."""
    infinite = type(value)(np.inf)
    return -infinite < value < infinite


# What an update does with a gradient.
WRITE, UPDATE = np.int32(0), np.int32(1)


class Backward:
    """The kernels of a layer's backward passes.

        dx = mask(dz Wᵀ) / keep;    dW = x'ᵀ dz;    db = Σ_B dz

    Parameters
    ----------
    gradient : compiled function
        ``gradient(dy, saved, number, row_scale, has_scale, b, column)`` gives an element of dz; ``saved`` and
        ``number`` are what the layer saved and what it needs to know besides.
    """

    def __init__(self, gradient: Any) -> None:
        @kernel
        def input_kernel(
            dy: Any, saved: Any, number: Any, W: Any, row_scale: Any, has_scale: Any, mask: Any, step: Any, dx: Any
        ) -> None:
            a = cuda.shared.array((TILE_M, PITCH_A), dx.dtype)
            b = cuda.shared.array((TILE_K, PITCH_B), dx.dtype)
            partial = cuda.local.array((ROWS, COLUMNS), dx.dtype)
            total = cuda.local.array((ROWS, COLUMNS), dx.dtype)
            tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
            thread = ty * TX + tx
            row0, column0 = cuda.blockIdx.y * TILE_M, cuda.blockIdx.x * TILE_N
            for r in range(ROWS):
                for c in range(COLUMNS):
                    total[r, c] = 0
            for k0 in range(0, W.shape[1], TILE_K):
                # Neighbouring threads read neighbours of a row, of dz and of W.
                for e in range(thread, TILE_M * TILE_K, NUM_THREADS):
                    row, k = row0 + e // TILE_K, k0 + e % TILE_K
                    value = dx.dtype.type(0)
                    if row < dx.shape[0] and k < W.shape[1]:
                        value = gradient(dy, saved, number, row_scale, has_scale, row, k)
                    a[e // TILE_K, e % TILE_K] = value
                load_columns(W, column0, k0, thread, b)
                cuda.syncthreads()
                if row0 + ty < dx.shape[0] and column0 + tx < dx.shape[1]:
                    add_products(a, b, tx, ty, partial, total)
                cuda.syncthreads()
            for r in range(ROWS):
                row = row0 + ty + TY * r
                for c in range(COLUMNS):
                    column = column0 + tx + TX * c
                    if row < dx.shape[0] and column < dx.shape[1]:
                        value = total[r, c]
                        if mask.threshold != np.uint32(0):
                            value = dropped(value, word_of(words(mask.draw, step, row, column // 4), column), mask)
                        dx[row, column] = value

        @kernel
        def weights_kernel(
            x: Any, dy: Any, saved: Any, number: Any, row_scale: Any, has_scale: Any, mask: Any, step: Any,
            use: Any, learning_rate: Any, more_rate: Any, momentum: Any, more_momentum: Any, skip: Any,
            W: Any, bias: Any, vW: Any, vb: Any,
        ) -> None:  # fmt: skip
            if skip[0] != 0:
                return
            finite = True
            a = cuda.shared.array((TILE_M, PITCH_A), vW.dtype)
            b = cuda.shared.array((TILE_K, PITCH_B), vW.dtype)
            partial = cuda.local.array((ROWS, COLUMNS), vW.dtype)
            total = cuda.local.array((ROWS, COLUMNS), vW.dtype)
            tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
            thread = ty * TX + tx
            row0, column0 = cuda.blockIdx.y * TILE_M, cuda.blockIdx.x * TILE_N
            # The blocks of the first row sum db, a column a thread; in float64, as the column may be long.
            sums_bias = cuda.blockIdx.y == 0 and thread < TILE_N
            of_bias = 0.0
            for r in range(ROWS):
                for c in range(COLUMNS):
                    total[r, c] = 0
            for k0 in range(0, x.shape[0], TILE_K):
                load_dropped(x, mask, step, k0, row0, thread, True, a)
                for e in range(thread, TILE_K * TILE_N, NUM_THREADS):
                    row, column = k0 + e // TILE_N, column0 + e % TILE_N
                    value = vW.dtype.type(0)
                    if row < x.shape[0] and column < vW.shape[1]:
                        value = gradient(dy, saved, number, row_scale, has_scale, row, column)
                    b[e // TILE_N, slot(e % TILE_N)] = value
                cuda.syncthreads()
                if row0 + ty < vW.shape[0] and column0 + tx < vW.shape[1]:
                    add_products(a, b, tx, ty, partial, total)
                if sums_bias:
                    for k in range(TILE_K):
                        of_bias += np.float64(b[k, slot(thread)])
                cuda.syncthreads()
            rate = vW.dtype.type(learning_rate[0] + more_rate)
            kept = vW.dtype.type(momentum[0] + more_momentum)
            for r in range(ROWS):
                row = row0 + ty + TY * r
                for c in range(COLUMNS):
                    column = column0 + tx + TX * c
                    if row < vW.shape[0] and column < vW.shape[1]:
                        value = total[r, c]
                        if use == UPDATE:
                            value = kept * vW[row, column] - rate * value
                            W[row, column] += value
                            finite = finite and is_finite(value)
                        vW[row, column] = value
            if sums_bias and column0 + thread < vW.shape[1]:
                value = vW.dtype.type(of_bias)
                if use == UPDATE:
                    value = kept * vb[column0 + thread] - rate * value
                    bias[column0 + thread] += value
                    finite = finite and is_finite(value)
                vb[column0 + thread] = value
            # The mark, where there is a flag.
            if not finite and skip.shape[0] > 1:
                cuda.atomic.max(skip, 1, np.int32(1))

        self.input_kernel, self.weights_kernel = input_kernel, weights_kernel

    def input(
        self, dy: Array, saved: Array, number: int, W: Array, dropout: Dropout | None, row_scale: Array | None,
        dx: Array,
    ) -> None:  # fmt: skip
        """Launch dx's kernel."""
        B, I = dx.shape
        runtime.launch(
            self.input_kernel, (runtime.divide_up(I, TILE_N), runtime.divide_up(B, TILE_M)), (TX, TY),
            dy, saved, np.uint32(number), W, *_scale_of(row_scale, dy), *mask_of(dropout), dx,
        )  # fmt: skip

    def weights(
        self, x: Array, dy: Array, saved: Array, number: int, dropout: Dropout | None, row_scale: Array | None,
        dW: Array, db: Array,
    ) -> None:  # fmt: skip
        """Launch the weights' kernel, to write the gradients."""
        self._launch(x, dy, saved, number, dropout, row_scale, WRITE, 0.0, 0.0, None, dW, db, dW, db)

    def update(
        self, x: Array, dy: Array, saved: Array, number: int, dropout: Dropout | None, row_scale: Array | None,
        learning_rate: Rate, momentum: Rate, skip: Array | None, W: Array, bias: Array, vW: Array, vb: Array,
    ) -> None:  # fmt: skip
        """Launch the weights' kernel, to update: v and W are read and written once, and no gradient is stored."""
        self._launch(x, dy, saved, number, dropout, row_scale, UPDATE, learning_rate, momentum, skip, W, bias, vW, vb)

    def _launch(
        self, x: Array, dy: Array, saved: Array, number: int, dropout: Dropout | None, row_scale: Array | None,
        use: np.int32, learning_rate: Rate, momentum: Rate, skip: Array | None,
        W: Array, bias: Array, vW: Array, vb: Array,
    ) -> None:  # fmt: skip
        I, columns = vW.shape
        runtime.launch(
            self.weights_kernel, (runtime.divide_up(columns, TILE_N), runtime.divide_up(I, TILE_M)), (TX, TY),
            x, dy, saved, np.uint32(number), *_scale_of(row_scale, dy), *mask_of(dropout),
            use, *runtime.rate(learning_rate), *runtime.rate(momentum), runtime.flag(skip),
            W, bias, vW, vb,
        )  # fmt: skip


@device_function
def word_of(four: Any, column: Any) -> Any:
    """Give the word of a column from its counter's four."""
    w0, w1, w2, w3 = four
    j = column % 4
    if j == 0:
        return w0
    if j == 1:
        return w1
    if j == 2:
        return w2
    return w3


def _scale_of(row_scale: Array | None, beside: Array) -> tuple[Array, np.int32]:
    if row_scale is None:
        return runtime.zero(beside.dtype), np.int32(0)
    return row_scale, np.int32(1)
