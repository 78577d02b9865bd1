"""The matrix product of the backend ``cpu``, in blocks that an operation's own loop goes on with.

Why not BLAS: between two products of a training step its threads spin, so that a loop of ours beside them has no core;
what comes before and after a product is a pass of its own over memory; and its sums depend on the number of threads.
Here a thread computes a block of C from start to end, and the operation's loop goes on with it while it is in cache:
bias and activation, the greatest piece, the update of the weights. Blocks never share a sum, so how many threads there
are and how they share the work changes no bit.

A block takes what it needs of A and B in packed form, as Goto and van de Geijn (2008) do: A's rows in tiles, element by
element as the tile reads them; B's columns in panels as wide as a tile, at most ``_DEPTH`` rows at a time, so that a
panel stays in the core's first cache while A's tiles go by. Sums over those rows are added to what the rows before
gave: no chain of roundings is longer than ``_DEPTH``. While a tile is computed, memory is asked for what comes next:
weights are read once a product, and waiting for them took a third of an update's time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from fastgan.kernels.common import loops
from fastgan.kernels.common.arrays import Array, Workspace
from fastgan.kernels.common.loops import called, loop, prange
from fastgan.kernels.common.threads import num_threads
from fastgan.kernels.common.vectors import (
    PANEL_BYTES,
    TILE_ROWS,
    VECTOR_BYTES,
    copy_rows,
    fetch,
    fetch_to_write,
    tile,
    transpose_block,
)

# Columns of a block of C, rows of B that are packed at a time, most rows of a block: a panel and six rows of A fit a
# first cache of 32 KB; packed B, the block, and so many rows of A fit a second one of 512 KB.
_COLUMNS, _DEPTH, _ROWS = 96, 240, 240
# A product whose every block changes its place in a large array goes along whole rows of that array, which the machine
# reads ahead: its blocks are a tile high and as wide as keeps what is packed of B in so many bytes.
_PACKED_BYTES = 1 << 18
# Numbers of A that are packed at a time: very wide rows take lower blocks.
_PACKED_NUMBERS = 1 << 19
# Rows that make packing all of B worth it: it costs as much as two to four of them.
_ENOUGH_ROWS = 8 * TILE_ROWS
# Multiply-adds that a thread makes in the time in which a loop touches an element.
_FOR_AN_ELEMENT = 16


class Plan:
    """How C = A B with A (M, K) and B (K, N) is cut into blocks and shared out; made once for a shape.

    Attributes
    ----------
    blocks : (T, J, 7) int64
        Of each thread's blocks in their order: first row and the one after the last, first column and the one after the
        last, the end of the columns that come next, and whether A's and B's parts are packed already. Empty ones, with
        neither row nor column, at the end.
    depth : int
        Rows of B that are packed at a time.
    """

    def __init__(self, M: int, N: int, K: int, itemsize: int, threads: int, multiple: int, along_rows: bool) -> None:
        width = PANEL_BYTES // itemsize
        self.depth = math.ceil(K / math.ceil(K / _DEPTH))
        along_rows = along_rows and self.depth == K
        step, columns = _widths(width, multiple)
        if along_rows:
            columns = math.ceil(_PACKED_BYTES // (K * itemsize) / step) * step
        most_rows = max(TILE_ROWS, min(_ROWS, _PACKED_NUMBERS // K // TILE_ROWS * TILE_ROWS))
        rows = TILE_ROWS if along_rows else math.ceil(M / math.ceil(M / most_rows) / TILE_ROWS) * TILE_ROWS
        parts = []
        for m0, m1, n0, n1 in _share(M, N, K, threads, multiple):
            heights = list(itertools.pairwise([*range(m0, m1, rows), m1]))
            # The first block is narrow: nobody has asked for its part of B beforehand.
            widths = list(itertools.pairwise([n0, *range(n0 + step, n1, columns), n1]))
            if along_rows:
                part = [(m, n, False, m[0] > m0) for n in widths for m in heights]
            else:
                part = [(m, n, n[0] > n0, False) for m in heights for n in widths]
            parts.append([(*m, *n, min(n[1] + columns, n1), *is_packed) for m, n, *is_packed in part])
        self.blocks = np.zeros((len(parts), max(len(part) for part in parts), 7), np.int64)
        for part, own in zip(parts, self.blocks, strict=True):
            own[: len(part)] = part
        stride = math.ceil(columns / width) * width
        self._shapes = ((len(parts), rows * K), (len(parts), self.depth * stride), (len(parts), rows, stride))

    def scratch(self, workspace: Workspace, dtype: np.dtype[Any]) -> tuple[Array, ...]:
        """Give each thread's room for packed A and B and for a block's sums, (T, any), (T, any) and (T, any, any)."""
        names = ("packed A", "packed B", "sums of a block")
        return tuple(workspace.array(name, shape, dtype) for name, shape in zip(names, self._shapes, strict=True))


def _widths(width: int, multiple: int) -> tuple[int, int]:
    """Give the columns of a narrow block and of the others, which are a multiple of a maxout unit's pieces.

    Whole panels where they can be; where they cannot, what leaves the least of the last panel empty: five pieces and
    panels of 64 columns go together at 320 only, which is too many, but 190 are all but two of three panels'.
    """
    step = math.lcm(multiple, width)
    if step <= 2 * _COLUMNS:
        return step, math.ceil(_COLUMNS / step) * step
    few = max(multiple, width // multiple * multiple)
    wide = [panels * width // multiple * multiple for panels in range(_COLUMNS // width + 1, 2 * _COLUMNS // width + 1)]
    most = max((few, *wide), key=lambda columns: (columns >= _COLUMNS, columns % width or width))
    return few, most


def plan(M: int, N: int, K: int, itemsize: int, multiple: int = 1, along_rows: bool = False) -> Plan:
    """Plan a product for the threads in force, or give the plan that was made before.

    Parameters
    ----------
    M, N, K, itemsize : int
        A is (M, K), B is (K, N), their elements have so many bytes.
    multiple : int
        What the columns of a block must be a multiple of.
    along_rows : bool
        Whether a block's place in a large array is gone over with it.
    """
    return _plan(M, N, K, itemsize, num_threads(), multiple, along_rows)


_plan: Callable[..., Plan] = lru_cache(maxsize=256)(Plan)


def _share(M: int, N: int, K: int, threads: int, multiple: int) -> list[tuple[int, int, int, int]]:
    """Cut C into a part for each thread: its first and last row and column.

    By rows while each thread has enough of them to make packing all of B worth it: what it reads of A is then what it
    wrote in the pass before, and is still in its core's cache. By columns beyond that.
    """
    threads = max(1, min(threads, M * N * K // (_FOR_AN_ELEMENT * loops.PARALLEL_SIZE)))
    # As many parts as there are threads to make them, and of ways to that the one with the most cuts of rows.
    most = max(1, min(threads, M // _ENOUGH_ROWS))
    down = max(range(1, most + 1), key=lambda number: (threads // number * number, number))
    across = max(1, min(threads // down, N // multiple))
    # A tile takes as long as its pairs of rows, so that parts need not be whole tiles.
    pairs, units = M // 2, N // multiple
    rows = [part * pairs // down * 2 for part in range(down)] + [M]
    columns = [unit * units // across * multiple for unit in range(across)] + [N]
    return [
        (*of_rows, *of_columns) for of_rows in itertools.pairwise(rows) for of_columns in itertools.pairwise(columns)
    ]


@called
def _pack_b(b: Any, is_transposed: Any, k0: Any, k1: Any, n0: Any, n1: Any, packed: Any) -> None:
    """Pack rows k0 … k1-1 and columns n0 … n1-1 of B, which ``b`` or its transpose is.

    In the last panel the columns that follow in B come along, or zeros up to a whole vector where there are none:
    nobody reads what is made of them.
    """
    width, lanes = PANEL_BYTES // packed.itemsize, VECTOR_BYTES // packed.itemsize
    depth, stride, N = k1 - k0, b.shape[1], b.shape[0] if is_transposed else b.shape[1]
    for n in range(n0, n1, width):
        start = (n - n0) * depth
        wanted = min(width, -(-(n1 - n) // lanes) * lanes)
        full = min(wanted, N - n)
        whole = full // lanes * lanes
        if is_transposed:
            for c in range(0, whole, lanes):
                k = 0
                while k + lanes <= depth:
                    transpose_block(b, (n + c) * stride + k0 + k, stride, packed, start + k * width + c, width)
                    k += lanes
                while k < depth:
                    for j in range(lanes):
                        packed[start + k * width + c + j] = b[n + c + j, k0 + k]
                    k += 1
            for c in range(whole, full):
                for k in range(depth):
                    packed[start + k * width + c] = b[n + c, k0 + k]
        else:
            copy_rows(b, k0 * stride + n, stride, packed, start, depth, whole // lanes)
            for k in range(depth):
                for c in range(whole, full):
                    packed[start + k * width + c] = b[k0 + k, n + c]
        if full < wanted:
            for k in range(depth):
                for c in range(full, wanted):
                    packed[start + k * width + c] = 0


@called
def _pack_a(a: Any, is_transposed: Any, m0: Any, m1: Any, packed: Any) -> None:
    """Pack rows m0 … m1-1 of A, which ``a`` or its transpose is, in tiles; zeros fill the last one."""
    K = a.shape[0] if is_transposed else a.shape[1]
    # Six assignments at once, as LLVM then moves numbers by the vector.
    for m in range(m0, m1, TILE_ROWS):
        to = packed[(m - m0) * K : (m - m0 + TILE_ROWS) * K].reshape(K, TILE_ROWS)
        full = min(TILE_ROWS, m1 - m)
        if is_transposed and full == TILE_ROWS:
            for k in range(K):
                at, of = to[k], a[k, m : m + TILE_ROWS]
                at[0], at[1], at[2], at[3], at[4], at[5] = of[0], of[1], of[2], of[3], of[4], of[5]
        elif is_transposed:
            for k in range(K):
                for r in range(full):
                    to[k, r] = a[k, m + r]
        elif full == TILE_ROWS:
            r0, r1, r2, r3, r4, r5 = a[m], a[m + 1], a[m + 2], a[m + 3], a[m + 4], a[m + 5]
            for k in range(K):
                to[k, 0], to[k, 1], to[k, 2], to[k, 3], to[k, 4], to[k, 5] = r0[k], r1[k], r2[k], r3[k], r4[k], r5[k]
        else:
            for r in range(full):
                for k in range(K):
                    to[k, r] = a[m + r, k]
        for k in range(K):
            for r in range(full, TILE_ROWS):
                to[k, r] = 0


@called
def block(
    a: Any, a_transposed: Any, b: Any, b_transposed: Any, blocks: Any, number: Any, depth: Any,
    packed_a: Any, packed_b: Any, sums: Any, W: Any, v: Any,
) -> Any:  # fmt: skip
    """Compute a block of C into ``sums``; give its first row, the one after the last, and likewise the columns.

    A and B are ``a`` and ``b``, or their transposes. ``W`` and ``v``, if they are not empty, are what will be gone over
    in the block's place.
    """
    m0, m1 = blocks[number, 0], blocks[number, 1]
    n0, n1, n2 = blocks[number, 2], blocks[number, 3], blocks[number, 4]
    K = a.shape[0] if a_transposed else a.shape[1]
    if blocks[number, 5] == 0:
        _pack_a(a, a_transposed, m0, m1, packed_a)
    for k0 in range(0, K, depth):
        k1 = min(k0 + depth, K)
        if blocks[number, 6] == 0:
            _pack_b(b, b_transposed, k0, k1, n0, n1, packed_b)
        # What comes next of B: the next rows, or the first ones of the next columns; nothing where it is packed.
        k2, c0, c1 = (k1, n0, n1) if k1 < K else (0, n1, n2)
        k3 = min(k2 + depth, K)
        r0, r1, r2, r3 = (c0, c1, k2, k3) if b_transposed else (k2, k3, c0, c1)
        if blocks[number, 6] != 0:
            r1 = r0
        _multiply(packed_a, K, m0, m1, k0, k1, packed_b, n0, n1, sums, b, r0, r1, r2, r3, W, v)
    return m0, m1, n0, n1


@called
def _multiply(
    packed_a: Any, K: Any, m0: Any, m1: Any, k0: Any, k1: Any, packed_b: Any, n0: Any, n1: Any, sums: Any,
    b: Any, r0: Any, r1: Any, r2: Any, r3: Any, W: Any, v: Any,
) -> None:  # fmt: skip
    """Multiply what is packed of A and B, and ask for what comes next.

    That is rows r0 … r1-1 and columns r2 … r3-1 of ``b``, a few rows a tile, and what W and v have in the tile's place.
    """
    width = PANEL_BYTES // packed_b.itemsize
    depth, stride = k1 - k0, sums.shape[1]
    num_tiles = -(-(m1 - m0) // TILE_ROWS)
    rows_at_a_time = (r1 - r0) * width // max(1, num_tiles * (n1 - n0)) + 1
    for n in range(n0, n1, width):
        for t in range(num_tiles):
            for r in range(r0, min(r0 + rows_at_a_time, r1)):
                fetch(b, r * b.shape[1] + r2, r3 - r2)
            r0 += rows_at_a_time
            m = m0 + t * TILE_ROWS
            if W.shape[0] > 0:
                for r in range(m, min(m + TILE_ROWS, m1)):
                    fetch_to_write(W, r * W.shape[1] + n, width)
                    fetch_to_write(v, r * v.shape[1] + n, width)
            tile(
                packed_a, t * TILE_ROWS * K + k0 * TILE_ROWS, packed_b, (n - n0) * depth, depth,
                sums, t * TILE_ROWS * stride + n - n0, stride, k0 > 0, m1 - m, n1 - n,
            )  # fmt: skip


@loop
def _product(
    a: Any, a_transposed: Any, b: Any, b_transposed: Any, alpha: Any, beta: Any, out: Any,
    blocks: Any, depth: Any, packed_a: Any, packed_b: Any, sums: Any,
) -> None:  # fmt: skip
    none = out[:0]
    for part in prange(blocks.shape[0]):
        for i in range(blocks.shape[1]):
            m0, m1, n0, n1 = block(
                a, a_transposed, b, b_transposed, blocks[part], i, depth,
                packed_a[part], packed_b[part], sums[part], none, none,
            )  # fmt: skip
            for m in range(m0, m1):
                c, to = sums[part, m - m0], out[m, n0:n1]
                if beta == 0:
                    for j in range(n1 - n0):
                        to[j] = alpha * c[j]
                else:
                    for j in range(n1 - n0):
                        to[j] = beta * to[j] + alpha * c[j]


def product(a: Array, b: Array, out: Array, workspace: Workspace, alpha: float = 1.0, beta: float = 0.0) -> None:
    """Compute ``out ← alpha · a @ b + beta · out`` in place.

    Parameters
    ----------
    a : (M, K) array
        C-contiguous, or the transpose of such an array.
    b : (K, N) array
        Likewise.
    out : (M, N) array
        C-contiguous; with ``beta = 0`` its content is not read.
    """
    a, a_transposed = _in_memory(a)
    b, b_transposed = _in_memory(b)
    M, N = out.shape
    how = plan(M, N, a.shape[0] if a_transposed else a.shape[1], out.itemsize)
    _product(
        a, a_transposed, b, b_transposed, out.dtype.type(alpha), out.dtype.type(beta), out,
        how.blocks, how.depth, *how.scratch(workspace, out.dtype), parts=len(how.blocks),
    )  # fmt: skip


def _in_memory(array: Array) -> tuple[Array, bool]:
    """Give the C-contiguous array that an operand, or its transpose, is, and whether it is its transpose."""
    return (array, False) if array.flags.c_contiguous else (array.T, True)
