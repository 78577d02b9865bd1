"""The matrix product of the backend ``cpu``, in blocks that an operation's own loop goes on with.

Why not BLAS: between two products of a training step its threads spin, so that a loop of ours beside them has no core;
what comes before and after a product is a pass of its own over memory; and its sums depend on the number of threads.
Here a thread computes a block of C from start to end, and the operation's loop goes on with it while it is in cache:
bias and activation, the greatest piece, the update of the weights. Blocks never share a sum, so how many threads there
are and how they share the work changes no bit.

A block takes the part of B that it needs in packed form: panels as wide as a tile, one behind the other, at most
``_DEPTH`` rows at a time, so that a panel stays in the core's first cache while A's rows go by. Sums over those rows
are added to what the rows before gave: no chain of roundings is longer than ``_DEPTH``. Layout and order are those of
Goto and van de Geijn (2008), but for A, which is read where it lies. While a tile is computed, memory is asked for what
comes next: weights are read once a product, and waiting for them took a third of an update's time.
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
from fastgan.kernels.common.loops import called, inlined, loop, prange
from fastgan.kernels.common.threads import num_threads
from fastgan.kernels.common.vectors import (
    PANEL_BYTES,
    TILE_ROWS,
    VECTOR_BYTES,
    copy_rows,
    fetch,
    fetch_to_write,
    row_of_tile,
    tile,
    tile_of_transposed,
    transpose_block,
)

# Columns of a block of C, rows of B that are packed at a time, most rows of a block: a panel and six rows of A fit a
# first cache of 32 KB; packed B, the block, and so many rows of A fit a second one of 512 KB.
_COLUMNS, _DEPTH, _ROWS = 96, 240, 240
# A product whose every block changes its place in a large array goes along whole rows of that array, which the machine
# reads ahead: its blocks are a tile high and as wide as keeps what is packed of B in so many bytes.
_PACKED_BYTES = 1 << 18
# Rows that make packing all of B worth it: it costs as much as two to four of them.
_ENOUGH_ROWS = 8 * TILE_ROWS
# Multiply-adds that a thread makes in the time in which a loop touches an element.
_FOR_AN_ELEMENT = 16


class Plan:
    """How C = A B with A (M, K) and B (K, N) is cut into blocks and shared out; made once for a shape.

    Attributes
    ----------
    blocks : (T, J, 6) int64
        Of each thread's blocks in their order: first row and the one after the last, first column and the one after the
        last, the end of the columns that come next, and whether B's part is packed already. Empty ones at the end.
    depth : int
        Rows of B that are packed at a time.
    """

    def __init__(self, M: int, N: int, K: int, itemsize: int, threads: int, multiple: int, along_rows: bool) -> None:
        width = PANEL_BYTES // itemsize
        self.depth = math.ceil(K / math.ceil(K / _DEPTH))
        is_packed_once = self.depth == K
        along_rows = along_rows and is_packed_once
        # Columns of a block are a multiple of a maxout unit's pieces, and of a panel's where that is not too many.
        step = math.lcm(multiple, width)
        step = step if step <= 2 * _COLUMNS else multiple
        columns = _PACKED_BYTES // (K * itemsize) if along_rows else _COLUMNS
        columns = math.ceil(columns / step) * step
        rows = TILE_ROWS if along_rows else math.ceil(M / math.ceil(M / _ROWS) / TILE_ROWS) * TILE_ROWS
        parts = []
        for m0, m1, n0, n1 in _share(M, N, K, threads, multiple):
            part = []
            # The first block is narrow: nobody has asked for its part of B beforehand.
            for first, last in itertools.pairwise([n0, *range(n0 + step, n1, columns), n1]):
                following = min(last + columns, n1)
                m = m0
                while m < m1:
                    # No block has fewer rows than a tile, unless C has.
                    end = m1 if m1 - m < rows + TILE_ROWS else m + rows
                    part.append((m, end, first, last, following, is_packed_once and m > m0))
                    m = end
            parts.append(part)
        most = max(len(part) for part in parts)
        self.blocks = np.zeros((len(parts), most, 6), np.int64)
        for part, own in zip(parts, self.blocks, strict=True):
            own[: len(part)] = part
        stride = math.ceil(columns / width) * width
        self._packed_shape = (len(parts), self.depth * stride)
        self._sums_shape = (len(parts), rows + 2 * TILE_ROWS, stride)

    def scratch(self, workspace: Workspace, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Give each thread's room for packed B and for a block's sums."""
        return workspace.array("packed", self._packed_shape, dtype), workspace.array("sums", self._sums_shape, dtype)


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
    strips, units = M // TILE_ROWS, N // multiple
    rows = [strip * strips // down * TILE_ROWS for strip in range(down)] + [M]
    columns = [unit * units // across * multiple for unit in range(across)] + [N]
    return [
        (*of_rows, *of_columns) for of_rows in itertools.pairwise(rows) for of_columns in itertools.pairwise(columns)
    ]


@called
def _pack(b: Any, is_transposed: Any, k0: Any, k1: Any, n0: Any, n1: Any, packed: Any) -> None:
    """Pack rows k0 … k1-1 and columns n0 … n1-1 of B, which ``b`` or its transpose is; zeros fill the last panel."""
    width, lanes = PANEL_BYTES // packed.itemsize, VECTOR_BYTES // packed.itemsize
    depth, stride = k1 - k0, b.shape[1]
    for n in range(n0, n1, width):
        start = (n - n0) * depth
        full = min(width, n1 - n)
        if is_transposed:
            c = 0
            while c + lanes <= full:
                k = 0
                while k + lanes <= depth:
                    transpose_block(b, (n + c) * stride + k0 + k, stride, packed, start + k * width + c, width)
                    k += lanes
                while k < depth:
                    for j in range(lanes):
                        packed[start + k * width + c + j] = b[n + c + j, k0 + k]
                    k += 1
                c += lanes
            while c < full:
                for k in range(depth):
                    packed[start + k * width + c] = b[n + c, k0 + k]
                c += 1
        elif full == width:
            copy_rows(b, k0 * stride + n, stride, packed, start, depth)
        else:
            for k in range(depth):
                for c in range(full):
                    packed[start + k * width + c] = b[k0 + k, n + c]
        for k in range(depth):
            for c in range(full, width):
                packed[start + k * width + c] = 0


@inlined
def place(row: Any, num_rows: Any) -> Any:
    """Give the row of the sums in which a block's row is: the last tile ends where the block does, and may overlap."""
    full = num_rows // TILE_ROWS * TILE_ROWS
    return row if row < full or full == 0 else row + full + TILE_ROWS - num_rows


@called
def block(
    a: Any, a_transposed: Any, b: Any, b_transposed: Any, blocks: Any, number: Any, depth: Any, packed: Any, sums: Any,
    W: Any, v: Any,
) -> Any:  # fmt: skip
    """Compute a block of C into ``sums``; give its first row, the one after the last, and likewise the columns.

    Row m of C is row ``place(m - m0, m1 - m0)`` of the sums, column n is n - n0. A and B are ``a`` and ``b``, or their
    transposes. ``W`` and ``v``, if they are not empty, are what the block's place in will be gone over.
    """
    m0, m1 = blocks[number, 0], blocks[number, 1]
    n0, n1, n2 = blocks[number, 2], blocks[number, 3], blocks[number, 4]
    K = a.shape[0] if a_transposed else a.shape[1]
    for k0 in range(0, K, depth):
        k1 = min(k0 + depth, K)
        if blocks[number, 5] == 0:
            _pack(b, b_transposed, k0, k1, n0, n1, packed)
        # What comes next: rows k2 … k3-1 of B, and columns c0 … c1-1.
        k2, c0, c1 = (k1, n0, n1) if k1 < K else (0, n1, n2)
        k3 = min(k2 + depth, K)
        r0, r1, r2, r3 = (c0, c1, k2, k3) if b_transposed else (k2, k3, c0, c1)
        if blocks[number, 5] != 0:
            r1 = r0
        _multiply(a, a_transposed, m0, m1, k0, k1, packed, n1 - n0, sums, k2, k3, b, r0, r1, r2, r3, W, v, n0)
    return m0, m1, n0, n1


@called
def _multiply(
    a: Any, a_transposed: Any, m0: Any, m1: Any, k0: Any, k1: Any, packed: Any, num_columns: Any, sums: Any,
    k2: Any, k3: Any, b: Any, r0: Any, r1: Any, r2: Any, r3: Any, W: Any, v: Any, n0: Any,
) -> None:  # fmt: skip
    """Multiply A's rows m0 … m1-1 with what is packed of B, and ask for what comes next.

    That is rows r0 … r1-1 and columns r2 … r3-1 of ``b``, a few rows a tile; beside the last panel, columns k2 … k3-1
    of A; and where there are W and v, what they have in the tile's place.
    """
    width = PANEL_BYTES // packed.itemsize
    depth, stride, out = k1 - k0, a.shape[1], sums.shape[1]
    num_tiles = (m1 - m0) // TILE_ROWS
    # The last tile begins where it must to end with the last row.
    tiles = num_tiles + (1 if num_tiles > 0 and (m1 - m0) % TILE_ROWS > 0 else 0)
    rows_at_a_time = (r1 - r0) * width // max(1, tiles * num_columns) + 1
    for n in range(0, num_columns, width):
        for t in range(tiles):
            m = m0 + t * TILE_ROWS if t < num_tiles else m1 - TILE_ROWS
            for r in range(r0, min(r0 + rows_at_a_time, r1)):
                fetch(b, r * b.shape[1] + r2, r3 - r2)
            r0 += rows_at_a_time
            if W.shape[0] > 0:
                for r in range(m, m + TILE_ROWS):
                    fetch_to_write(W, r * W.shape[1] + n0 + n, width)
                    fetch_to_write(v, r * v.shape[1] + n0 + n, width)
            to = t * TILE_ROWS * out + n
            if a_transposed:
                tile_of_transposed(a, k0 * stride + m, stride, packed, n * depth, depth, sums, to, out, k0 > 0)
            else:
                if k2 != k0 and n + width >= num_columns:
                    for r in range(m, m + TILE_ROWS):
                        fetch(a, r * stride + k2, k3 - k2)
                tile(a, m * stride + k0, stride, packed, n * depth, depth, sums, to, out, k0 > 0)
        if num_tiles == 0:
            for m in range(m0, m1):
                start, step = (k0 * stride + m, stride) if a_transposed else (m * stride + k0, 1)
                row_of_tile(a, start, step, packed, n * depth, depth, sums, (m - m0) * out + n, out, k0 > 0)


@loop
def _product(
    a: Any, a_transposed: Any, b: Any, b_transposed: Any, alpha: Any, beta: Any, out: Any,
    blocks: Any, depth: Any, packed: Any, sums: Any,
) -> None:  # fmt: skip
    none = out[:0]
    for part in prange(blocks.shape[0]):
        for i in range(blocks.shape[1]):
            m0, m1, n0, n1 = block(
                a, a_transposed, b, b_transposed, blocks[part], i, depth, packed[part], sums[part], none, none
            )
            for m in range(m0, m1):
                c, to = sums[part, place(m - m0, m1 - m0)], out[m, n0:n1]
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
