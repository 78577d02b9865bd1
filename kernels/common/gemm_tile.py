"""Which tiles a product is cut into: the defines of ``gemm_tile.cuh``, and the choice among them.

The batch is 100 or 200 rows and a GPU has a hundred multiprocessors and more, so a product has few large tiles: K is
split among blocks until there are enough of them. What is the fastest is estimated from a few numbers of the machine;
the estimate only chooses, every choice computes the same sums, up to the order of K's parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from fastgan.errors import BackendError
from fastgan.kernels.common.arrays import Array, Workspace
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch, runtime

FMA, TF32, SPLIT = 0, 1, 2
# What computes each precision, None being the device's own choice; bench/ sets it to compare.
ARITHMETIC: dict[str, int | None] = {"float32": None, "tf32": TF32}
# SPLIT keeps float32's error on tensor cores. On an H200 a training step takes a fifth less time than by FMA; other
# GPUs have not been tried.
_SPLIT_FROM: Final = 90
# The architecture from which on blocks form clusters.
_CLUSTERS_FROM: Final = 90
_MAX_SPLITS: Final = 8
# The longest chain of float32 additions: BLAS libraries cut K about there too, and errors grow with its length.
_MAX_CHAIN: Final = 512
# Tiles have at most 2^8 rows, and a place in one is a word of bytes (``Quad`` in gemm_tile.cuh).
_LONGEST_ROW: Final = 2**21


@dataclass(frozen=True)
class Shape:
    """A tile's size, and how a block's warps and a warp's lanes share it.

    Attributes
    ----------
    m, n, k : int
        Rows and columns of the tile, and how much of K is in shared memory at a time.
    warps_m, warps_n : int
        Warps along m and n.
    lanes_m : int
        Lanes of a warp along m; the rest of 32 are along n. Float32 FMA only.
    stages : int
        Tiles of an operand that asynchronous copies keep under way or in use.
    """

    m: int
    n: int
    k: int
    warps_m: int
    warps_n: int
    lanes_m: int = 4
    stages: int = 3

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.warps_m * self.warps_n * 32


# 208 x 80 is two batches of 100 by 16 maxout units of 5 pieces; 96 x 128 cuts 1200 x 1200 weights into 130 tiles, for
# 132 multiprocessors.
_FMA_SHAPES: Final = (
    Shape(208, 80, 16, 4, 2), Shape(104, 80, 16, 2, 2), Shape(96, 128, 16, 2, 4), Shape(128, 128, 16, 2, 4, lanes_m=8),
    Shape(64, 64, 16, 2, 2), Shape(32, 32, 32, 2, 2),
)  # fmt: skip
_MMA_SHAPES: Final = (
    Shape(256, 80, 32, 4, 2), Shape(128, 80, 32, 4, 2), Shape(128, 96, 32, 2, 4), Shape(128, 128, 32, 2, 4),
    Shape(64, 64, 32, 2, 2), Shape(32, 32, 32, 2, 2, stages=4),
)  # fmt: skip


@dataclass(frozen=True)
class Operand:
    """What ``gemm_tile.cuh`` knows of an operand at compile time.

    Attributes
    ----------
    k_fast : bool
        K runs along its rows in memory.
    plain : bool
        It comes by asynchronous copies, as it is.
    """

    k_fast: bool
    plain: bool


@dataclass(frozen=True)
class Tiling:
    """A choice: the tile's shape, how many blocks share K, and what they compute in.

    Attributes
    ----------
    shape : Shape
    splits : int
        Blocks along K.
    clustered : bool
        Whether those are a cluster.
    arithmetic : int
        ``FMA``, ``TF32`` or ``SPLIT``.
    columns : int
        Columns of the product that a tile covers: ``shape.n``, or less so that maxout's units stay whole.
    promote : bool
        Whether each tile's sums are added up by themselves first; FMA only, the tensor cores' are short anyway.
    """

    shape: Shape
    splits: int
    clustered: bool
    arithmetic: int
    columns: int
    promote: bool = False

    def shared_floats(self, a: Operand, b: Operand) -> int:
        """Size of a block's shared memory without the ticket's word."""
        s = self.shape
        operands = sum(
            (s.stages if operand.plain else 2) * (size * (s.k + 4) if operand.k_fast else s.k * across_stride(size))
            for operand, size in ((a, s.m), (b, s.n))
        )
        return max(operands, s.m * across_stride(s.n))

    def kernel(self, source: str, name: str, a: Operand, b: Operand, *, extra_bytes: int = 0, **defines: int) -> Kernel:
        """Describe a kernel over this tiling, with so many bytes of shared memory behind the tile's."""
        s = self.shape
        sizes = {
            "TILE_M": s.m, "TILE_N": s.n, "TILE_K": s.k, "WARPS_M": s.warps_m, "WARPS_N": s.warps_n,
            "LANES_M": s.lanes_m, "STAGES": s.stages, "SPLITS": self.splits, "CLUSTERED": int(self.clustered),
            "ARITHMETIC": self.arithmetic, "PROMOTE": int(self.promote), "SHARED_FLOATS": self.shared_floats(a, b),
        }  # fmt: skip
        return Kernel(
            source, name, (*sizes.items(), *defines.items()), s.threads,
            4 * (self.shared_floats(a, b) + 4) + extra_bytes, self.splits if self.clustered else 1,
        )  # fmt: skip

    def grid(self, M: int, N: int) -> tuple[int, int, int]:
        """Blocks for a product of M rows and N columns."""
        return (_divide_up(N, self.columns), _divide_up(M, self.shape.m), self.splits)

    def aligned(self, *matrices: Any) -> dict[str, int]:
        """Give ``ALIGNED``: whether all matrices of a kernel, and so all tiles, begin at 16 bytes and have whole quads.

        Raises
        ------
        BackendError
            One has too long rows, as for ``check_row``.
        """
        for matrix in matrices:
            check_row(matrix.shape[-1])
        return {
            "ALIGNED": int(
                self.columns % 4 == 0
                and all(
                    matrix.shape[-1] % 4 == 0 and matrix.__cuda_array_interface__["data"][0] % 16 == 0
                    for matrix in matrices
                )
            )
        }

    def scratch(self, M: int, N: int, workspace: Workspace) -> dict[str, Array | None]:
        """Give what blocks that are no cluster meet in: their tiles, and tickets that are 0 between launches."""
        if self.splits == 1 or self.clustered:
            return {"partials": None, "tickets": None}
        x, y, z = self.grid(M, N)
        size = x * y * z * self.shape.m * across_stride(self.shape.n)
        return {
            "partials": workspace.array("partials", (size,), np.dtype(np.float32)),
            "tickets": workspace.zeros("tickets", (x * y,), np.dtype(np.uint32)),
        }


def check_row(length: int) -> None:
    """Check that places in a tile of rows of so many numbers fit a word.

    Raises
    ------
    BackendError
        They do not.
    """
    if length > _LONGEST_ROW:
        raise BackendError(f"A matrix has rows of {length} numbers; the backend cupy takes {_LONGEST_ROW} at most")


def arithmetic_of(precision: str, *, split: bool = True) -> int:
    """Give what computes a precision on the current device; without ``split`` float32 is FMA unless it is set."""
    chosen = ARITHMETIC[precision]
    if chosen is not None:
        return chosen
    return SPLIT if split and runtime().architecture >= _SPLIT_FROM else FMA


def _divide_up(a: int, b: int) -> int:
    return -(-a // b)


def across_stride(n: int) -> int:
    """As in ``device.cuh``: the least odd multiple of 8 from n on."""
    octets = -(-n // 8)
    return 8 * octets if octets % 2 else 8 * octets + 8


def choose(
    M: int,
    N: int,
    K: int,
    a: Operand,
    b: Operand,
    arithmetic: int,
    *,
    pieces: int = 1,
    split: bool = True,
    bytes_a_row: int = 0,
) -> Tiling:
    """Choose the tiling of a product on the current device.

    Parameters
    ----------
    M, N, K : int
        The product's shape.
    a, b : Operand
        Its operands.
    arithmetic : int
        ``FMA``, ``TF32`` or ``SPLIT``; see ``arithmetic_of``.
    pieces : int
        Columns that must stay in one tile, where they fit one.
    split : bool
        Whether K may be split.
    bytes_a_row : int
        Shared memory that the kernel needs besides for each row of the tile.
    """
    there = runtime()
    return _choose(
        (M, N, K), (a, b), arithmetic, pieces, split, bytes_a_row,
        (there.architecture >= _CLUSTERS_FROM, there.num_multiprocessors, there.max_shared_bytes),
    )  # fmt: skip


# What the estimate counts with, in clocks of a multiprocessor. Fitted so that what is chosen for the MNIST recipe's
# products takes the least time, by the times of all tilings on an H200: each stands for more than its name says.
_FMA_A_CLOCK: Final = {FMA: 86.0, TF32: 380.0, SPLIT: 250.0}
_SHARED_BYTES_A_CLOCK: Final = 160.0
_L2_BYTES_A_CLOCK: Final = 41.0
_CLOCKS_A_COPY: Final = 1800.0
_CLOCKS_A_BLOCK: Final = 1500.0
_CLOCKS_TO_MEET: Final = 90.0
_TILE_WORDS_A_CLOCK: Final = 100.0


def _clocks(tiling: Tiling, M: int, N: int, K: int, num_multiprocessors: int) -> float:
    """Estimate how long a product takes: each multiprocessor's blocks, one after the other."""
    s = tiling.shape
    tiles_a_block = _divide_up(_divide_up(K, s.k), tiling.splits)
    products = s.m * s.n * s.k / _FMA_A_CLOCK[tiling.arithmetic]
    # Every warp reads its rows of A and of B.
    fragments = s.warps_m * s.warps_n * (s.m / s.warps_m + s.n / s.warps_n) * s.k * 4 / _SHARED_BYTES_A_CLOCK
    loads = (s.m + s.n) * s.k * 4 / _L2_BYTES_A_CLOCK
    latency = _CLOCKS_A_COPY / (s.stages - 1)
    end = s.m * s.n / _TILE_WORDS_A_CLOCK + (_CLOCKS_TO_MEET if tiling.splits > 1 else 0)
    x, y, z = tiling.grid(M, N)
    rounds = _divide_up(x * y * z, num_multiprocessors)
    # Blocks on one multiprocessor hide each other's latency, not each other's work.
    busy = rounds * tiles_a_block * max(products, fragments, loads)
    return max(busy, tiles_a_block * latency) + rounds * end + _CLOCKS_A_COPY + _CLOCKS_A_BLOCK


@cache
def _choose(
    sizes: tuple[int, int, int], operands: tuple[Operand, Operand], arithmetic: int, pieces: int, split: bool,
    bytes_a_row: int, machine: tuple[bool, int, int],
) -> Tiling:  # fmt: skip
    (M, N, K), (clusters, num_multiprocessors, max_shared_bytes) = sizes, machine

    def clocks(tiling: Tiling) -> float:
        return _divide_up(pieces, tiling.shape.n) * _clocks(tiling, M, N, K, num_multiprocessors)

    # The first of equals.
    return min(candidates(K, operands, arithmetic, pieces, split, bytes_a_row, clusters, max_shared_bytes), key=clocks)


def candidates(
    K: int, operands: tuple[Operand, Operand], arithmetic: int, pieces: int, split: bool, bytes_a_row: int,
    clusters: bool, max_shared_bytes: int,
) -> Iterator[Tiling]:  # fmt: skip
    """Yield what ``choose`` chooses from: arguments as there, and whether and how much of it the device has."""
    for shape in _FMA_SHAPES if arithmetic == FMA else _MMA_SHAPES:
        columns = max(1, shape.n // pieces) * pieces if pieces <= shape.n else pieces
        chunks = _divide_up(pieces, shape.n)
        # A unit whose pieces fill several tiles is one block's: its running maximum is in that block's registers.
        for splits in (1, 2, 4, _MAX_SPLITS) if split and chunks == 1 else (1,):
            promote = arithmetic == FMA and splits * _MAX_CHAIN < K
            tiling = Tiling(shape, splits, clusters and splits > 1, arithmetic, columns, promote)
            shared_bytes = 4 * (tiling.shared_floats(*operands) + 4) + bytes_a_row * shape.m
            if splits <= max(_divide_up(K, shape.k), 1) and shared_bytes <= max_shared_bytes:
                yield tiling


def launch_product(tiling: Tiling, kernel: Kernel, M: int, N: int, workspace: Workspace, **arguments: Any) -> None:
    """Launch a kernel over a tiling, whose last two parameters are ``partials`` and ``tickets``."""
    launch(kernel, tiling.grid(M, N), **arguments, **tiling.scratch(M, N, workspace))
