"""Which tiles a product of planes is cut into: the defines of ``planes_tile.cuh`` and ``warpgroup_tile.cuh``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

from fastgan.kernels.common.gemm_tile import Shape, across_stride
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import runtime

# As in the header; the numbers go on from those of gemm_tile.py.
HALVES, BYTES = 3, 4
# The architecture from which on there are the tensor cores' steps of both.
FROM: Final = 80
# Planes of A and of B.
PLANES: Final = {HALVES: (2, 2), BYTES: (1, 3)}
# Bytes of a row's chunk, and what the number of rows is a multiple of: every tile of warpgroups is whole.
CHUNK: Final = 64
_ROWS: Final = 256
# Three products of bytes in integers of 32 bits: 255² a term.
LONGEST_OF_BYTES: Final = (2**31 - 1) // 255**2

# Largest first. A thread holds two sums an element in HALVES, three in BYTES: hence the fewer columns.
SHAPES: Final = {
    HALVES: (Shape(128, 128, CHUNK, 4, 4), Shape(32, 32, CHUNK, 2, 2)),
    BYTES: (Shape(128, 96, CHUNK, 2, 4), Shape(32, 32, CHUNK, 2, 2)),
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
        return max(s.stages * (in_a * s.m + in_b * s.n) * CHUNK, s.m * across_stride(s.n) * 4)

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


def planes_shape(num_planes: int, N: int, D: int, arithmetic: int) -> tuple[int, int, int, int]:
    """Give the shape of N rows' planes, in bytes: (planes, chunks, rows, bytes of a chunk)."""
    size = D * (2 if arithmetic == HALVES else 1)
    return num_planes, -(-size // CHUNK), -(-N // _ROWS) * _ROWS, CHUNK


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


@dataclass(frozen=True)
class WarpgroupTiling:
    """The one tile of ``warpgroup_tile.cuh`` for an arithmetic, and the blocks that share a product's tiles.

    Attributes
    ----------
    arithmetic : int
    tiles_m, tiles_n : int
        Tiles along M and along N.
    tiles_a_block : int
        A block has so many, row by row.
    """

    arithmetic: int
    tiles_m: int
    tiles_n: int
    tiles_a_block: int

    # The architecture that has warpgroups: none after it does.
    ARCHITECTURE: ClassVar[int] = 90
    THREADS: ClassVar[int] = 384
    COLUMNS: ClassVar[int] = 128
    # Rows of a tile, slots of the ring, and bytes of a norm.
    _OF: ClassVar = {HALVES: (256, 4, 4), BYTES: (128, 6, 8)}

    @classmethod
    def of(cls, M: int, N: int, arithmetic: int, num_blocks: int) -> WarpgroupTiling:
        """Share an (M, N) product among so many blocks at most."""
        tiles_m, tiles_n = -(-M // cls._OF[arithmetic][0]), -(-N // cls.COLUMNS)
        return cls(arithmetic, tiles_m, tiles_n, -(-tiles_m * tiles_n // num_blocks))

    @property
    def rows(self) -> int:
        """Rows of a tile."""
        return self._OF[self.arithmetic][0]

    @property
    def blocks(self) -> int:
        """Blocks that have a tile."""
        return -(-self.tiles_m * self.tiles_n // self.tiles_a_block)

    @property
    def parts(self) -> int:
        """The most blocks that have tiles of one row of tiles."""
        first = [y * self.tiles_n for y in range(self.tiles_m)]
        return max((f + self.tiles_n - 1) // self.tiles_a_block - f // self.tiles_a_block + 1 for f in first)

    def kernel(self, source: str, name: str, *, extra_bytes: int) -> Kernel:
        """Describe a kernel over this tiling, with so many bytes of shared memory behind the ring."""
        rows, stages, norm = self._OF[self.arithmetic]
        in_a, in_b = PLANES[self.arithmetic]
        ring = stages * (in_a * rows + in_b * self.COLUMNS) * CHUNK + (stages + 1) * self.COLUMNS * norm + 16 * stages
        defines = (("ARITHMETIC", self.arithmetic), ("STAGES", stages))
        return Kernel(source, name, defines, self.THREADS, ring + extra_bytes, architecture="sm_90a")
