"""Which tiles a product of planes is cut into: the defines of ``planes_tile.cuh``, and the choice among them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from fastgan.kernels.common.gemm_tile import Shape, across_stride
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import runtime

# As in the header; the numbers go on from those of gemm_tile.py.
HALVES, BYTES = 3, 4
# The architecture from which on there are the tensor cores' steps of both.
FROM: Final = 80
# Planes of A and of B.
PLANES: Final = {HALVES: (2, 2), BYTES: (1, 3)}
# Bytes of a row that are in shared memory at a time, and rows' distance there.
_DEPTH: Final = 64
_STRIDE: Final = _DEPTH + 16
# Three products of bytes in integers of 32 bits: 255² a term.
LONGEST_OF_BYTES: Final = (2**31 - 1) // 255**2

# Largest first. Each thread holds two sums an element in HALVES, three in BYTES: hence the narrower tile.
SHAPES: Final = {
    HALVES: (Shape(128, 128, _DEPTH, 2, 4), Shape(32, 32, _DEPTH, 2, 2)),
    BYTES: (Shape(128, 96, _DEPTH, 2, 4), Shape(32, 32, _DEPTH, 2, 2)),
}


@dataclass(frozen=True)
class PlanesTiling:
    """A tile's size and what it computes in."""

    shape: Shape
    arithmetic: int

    @property
    def tile_bytes(self) -> int:
        """A block's shared memory: its slots, or the finished tile in float32."""
        s, (in_a, in_b) = self.shape, PLANES[self.arithmetic]
        return max(s.stages * (in_a * s.m + in_b * s.n) * _STRIDE, s.m * across_stride(s.n) * 4)

    def kernel(self, source: str, name: str, *, extra_bytes: int = 0, **defines: int) -> Kernel:
        """Describe a kernel over this tiling, with so many bytes of shared memory behind the tile's."""
        s = self.shape
        sizes = {
            "TILE_M": s.m, "TILE_N": s.n, "WARPS_M": s.warps_m, "WARPS_N": s.warps_n, "STAGES": s.stages,
            "ARITHMETIC": self.arithmetic, "TILE_BYTES": self.tile_bytes,
        }  # fmt: skip
        return Kernel(source, name, (*sizes.items(), *defines.items()), s.threads, self.tile_bytes + extra_bytes)

    def grid(self, M: int, N: int) -> tuple[int, int]:
        """Tiles along N and along M."""
        return -(-N // self.shape.n), -(-M // self.shape.m)


def pitch(D: int, arithmetic: int) -> int:
    """Give the bytes of a row of a plane: a multiple of what is in shared memory at a time."""
    size = D * (2 if arithmetic == HALVES else 1)
    return -(-size // _DEPTH) * _DEPTH


def choose(M: int, N: int, arithmetic: int, *, bytes_a_row: int = 0) -> PlanesTiling:
    """Choose the tiling of a product on the current device.

    Parameters
    ----------
    M, N : int
        The product's rows and columns.
    arithmetic : int
        ``HALVES`` or ``BYTES``.
    bytes_a_row : int
        Shared memory that the kernel needs besides for each row of the tile.
    """
    there = runtime()
    large, small = (PlanesTiling(shape, arithmetic) for shape in SHAPES[arithmetic])
    x, y = large.grid(M, N)
    # Small tiles take several times as long for the same work, but there are sixteen times as many, and fewer idle rows
    # of few.
    tiling = large if min(M, N) > large.shape.m // 2 and 8 * x * y >= there.num_multiprocessors else small
    for stages in (4, 3, 2):
        tiling = replace(tiling, shape=replace(tiling.shape, stages=stages))
        if tiling.tile_bytes + bytes_a_row * tiling.shape.m <= there.max_shared_bytes:
            break
    return tiling
