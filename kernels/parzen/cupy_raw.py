"""Launches of ``parzen.cu`` and ``warpgroups.cu``.

Distances come from a product where float32 is enough for a sigma, by the estimate that ``cpu.py`` makes too, of what
the device's own product is off by, and from direct differences in float64 where it is not. The product is of centred
data in halves on tensor cores, or, where the queries are whole 255ths and the samples lie in [0, 1], of bytes, which is
the quicker and the more exact of the two.

The device should never wait for the host: what has to be known of the data is found there, and read once; and the
product is made for all sigmas before it is known which of them it is exact enough for, as it mostly is for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common import gemm_tile, planes_tile
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.gemm_tile import FMA, Operand
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch, runtime
from fastgan.kernels.common.planes_tile import BYTES, HALVES, PLANES, WarpgroupTiling
from fastgan.kernels.parzen.cpu import LOG2_E, MAX_RATE, PROBED_NUMBERS, estimated_error, max_error

_SOURCE: Final = "parzen/parzen.cu"
_WARPGROUPS: Final = "parzen/warpgroups.cu"
_TYPES: Final = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
_ROWS: Final = Operand(k_fast=True, plain=True)
# Where the product's error is measured; the samples are one tile's at most, so that a query has one part.
_PROBED_QUERIES: Final = 1024
_PROBED_SAMPLES: Final = 128
# More sigmas in one pass would take the registers from the product.
_SIGMAS_A_PASS: Final = 16
_QUERIES_A_PASS: Final = 1 << 15
_MAX_SHARDS: Final = 64
# Kinds of rows, as ``parzen_facts`` tells them.
_FROM_0_TO_1, _WHOLE_255THS = 1, 2

# Halves hold a rest as well as a number if the numbers are large: norms of some thousands, and no number beyond 65,504.
_HALVES_SCALE: Final = 2.0**12


def arithmetic(architecture: int) -> int:
    """Choose what the product of any data computes in."""
    return HALVES if architecture >= planes_tile.FROM else FMA


@dataclass(frozen=True)
class Rows:
    """Queries or samples as an arithmetic's product takes them.

    Attributes
    ----------
    arithmetic : int
        One of ``gemm_tile.py``'s, over centred float32 rows, or of ``planes_tile.py``'s.
    data : array
        (N, D) float32, or planes as ``planes_tile.planes_shape`` says.
    norms : array
        Of what is in ``data``: float64; of planes' rows float32, or, in the unit of products of bytes, int64.
    scale : float
        What the rows were multiplied by.
    N, D : int
        Rows and their numbers.
    """

    arithmetic: int
    data: Array
    norms: Array
    scale: float
    N: int
    D: int


@dataclass(frozen=True)
class Sigmas:
    """Some of the sigmas, as kernels take them.

    Attributes
    ----------
    table : array
        (4, S) float64 on the device: log2(e) / (2 σ²) and 1 / (2 σ²) of scaled distances, what a log density is less,
        and its row among the results.
    """

    table: Array

    @classmethod
    def of(
        cls, sigmas_S: NDArray[np.float64], scale: float, constants_S: NDArray[np.float64], places_S: NDArray[np.intp]
    ) -> Sigmas:
        """Bring them to the device, of distances between rows that were multiplied by ``scale``."""
        precisions = 0.5 / (sigmas_S * scale) ** 2
        return cls(runtime().upload(np.stack([precisions * LOG2_E, precisions, constants_S, places_S])))

    def __len__(self) -> int:
        """Give their number."""
        S: int = self.table.shape[1]
        return S

    @property
    def rates(self) -> Array:
        """Give log2(e) / (2 σ²)."""
        return self.table[0:1]

    @property
    def precisions(self) -> Array:
        """Give 1 / (2 σ²)."""
        return self.table[1:2]


@dataclass(frozen=True)
class Parts:
    """What blocks found of the queries, each from some of the samples.

    Attributes
    ----------
    least, sums : array
        (parts, M) least distances, and (parts, S, M) sums relative to them.
    rows, tiles, tiles_a_block : int
        So many queries have as many parts as there are blocks with any of their tiles.
    """

    least: Array
    sums: Array
    rows: int
    tiles: int
    tiles_a_block: int

    @classmethod
    def all_shards(cls, least: Array, sums: Array) -> Parts:
        """All queries have all parts."""
        return cls(least, sums, sums.shape[2], len(sums), 1)


def log_density(
    queries_MD: Array, samples_ND: Array, sigmas_S: NDArray[np.float64], progress: Callable[[int], None] | None
) -> NDArray[np.float64]:
    """Fill (S, M), some tens of thousands of queries at a time; arrays of the host are brought to the device."""
    there = runtime()
    (M, D), N, S = queries_MD.shape, len(samples_ND), len(sigmas_S)
    out_SM = np.empty((S, M))
    if M == 0:
        return out_SM
    queries_MD, samples_ND = (
        there.upload(array) if isinstance(array, np.ndarray) else array for array in (queries_MD, samples_ND)
    )
    # Uploads wait for all that was launched before: this one is for much later.
    any_sigma = Sigmas.of(np.ones(1), 1.0, np.zeros(1), np.zeros(1, np.intp))
    means_D = there.empty((D,), np.float64)
    launch(
        Kernel(_SOURCE, f"parzen_means<{_TYPES[samples_ND.dtype]}>", threads=1024, shared_bytes=8 * 1024),
        (-(-D // 32), 1, 1), rows=samples_ND, N=np.int64(N), D=np.int32(D), means=means_D,
    )  # fmt: skip
    summary = there.empty((2, 2), np.float64)
    places_M = _telling(queries_MD, means_D, _PROBED_QUERIES, summary[0:1])
    places_N = _telling(samples_ND, means_D, _PROBED_SAMPLES, summary[1:2])
    (norm_M, kind_M), (norm_N, kind_N) = there.download(summary).tolist()
    # Extreme data and sigmas overflow to infinity, or NaN, in these few numbers: which then mean "not fast".
    with np.errstate(all="ignore"):
        greatest = norm_M + norm_N
        usable = bool(np.isfinite(greatest))
        scale = float(2.0 ** -np.round(0.5 * np.log2(greatest))) if usable and greatest > 0 else 1.0
        # A distance's error over 2 σ² is that in nats.
        may_be_off_S = 2.0 * sigmas_S**2 * max_error(sigmas_S)
    constants_S = np.log(N) + D * np.log(sigmas_S * np.sqrt(2.0 * np.pi))
    way = arithmetic(there.architecture)
    if way == HALVES and kind_M == _WHOLE_255THS and kind_N >= _FROM_0_TO_1 and D <= planes_tile.LONGEST_OF_BYTES:
        way = BYTES

    def passes(places: NDArray[np.intp], scale: float) -> Iterator[Sigmas]:
        for first in range(0, len(places), _SIGMAS_A_PASS):
            some = places[first : first + _SIGMAS_A_PASS]
            yield Sigmas.of(sigmas_S[some], scale, constants_S[some], some)

    samples = rows_of(samples_ND, way, means_D, scale, are_samples=True) if usable else None
    # Which sigmas the product is exact enough for; it is made for all that it can take before that is known.
    fits_S = np.zeros(S, bool)
    if samples is not None:
        with np.errstate(all="ignore"):
            fits_S = 0.5 * LOG2_E / (sigmas_S * samples.scale) ** 2 <= MAX_RATE
    for m in range(0, M, _QUERIES_A_PASS):
        some_MD = queries_MD[m : m + _QUERIES_A_PASS]
        out = there.empty((S, len(some_MD)), np.float64)
        if samples is not None and fits_S.any():
            queries = rows_of(some_MD, way, means_D, scale, are_samples=False)
            for sigmas in passes(np.flatnonzero(fits_S), samples.scale):
                merge(by_product(queries, samples, sigmas), sigmas, out)
            if m == 0:
                probed = (_some(queries_MD, places_M), _some(samples_ND, places_N))
                error = estimated_error(greatest, _product_error(*probed, any_sigma, way, means_D, scale))
                if way == BYTES:
                    error = min(error, _bytes_error(D, greatest))
                # Written so that NaN, of an error or a σ² beyond all numbers, is not exact enough.
                fits_S &= error <= may_be_off_S
        for sigmas in passes(np.flatnonzero(~fits_S), 1.0):
            merge(directly(some_MD, samples_ND, sigmas), sigmas, out)
        out_SM[:, m : m + len(some_MD)] = there.download(out)
        if progress is not None:
            progress(len(some_MD))
    return out_SM


def _bytes_error(D: int, greatest: float) -> float:
    """Bound the error of a squared distance between rows of bytes.

    ``greatest`` is the sum of the greatest squared norms of centred queries and samples, so no distance is beyond its
    double. What rounding the numbers moves is ‖q - x‖ times the length of the roundings, twice; what is left is that of
    the distance to float32.
    """
    a_number = 1.5 * 2.0**-24
    return float(2 * np.sqrt(2 * greatest * D) * a_number + D * a_number**2 + 2 * greatest * 2.0**-24)


def _product_error(
    queries_MD: Array, samples_ND: Array, any_sigma: Sigmas, arithmetic: int, means_D: Array, scale: float
) -> float:
    """Measure the error of squared distances from a product, on each query's to its nearest sample.

    That is the same under any sigma. Infinite where a distance is not finite.
    """
    there = runtime()
    queries, samples = (
        rows_of(rows, arithmetic, means_D, scale, are_samples=are_samples)
        for rows, are_samples in ((queries_MD, False), (samples_ND, True))
    )
    by_way = by_product(queries, samples, any_sigma), directly(queries_MD, samples_ND, any_sigma)
    found, exact = (there.download(parts.least).min(axis=0).astype(np.float64) for parts in by_way)
    error = float(np.abs(found / samples.scale**2 - exact).max())
    return error if np.isfinite(error) else np.inf


def _telling(rows: Array, means_D: Array, count: int, summary: Array) -> Array:
    """Choose rows to measure an error on, ``count`` at most: of every few neighbours the first one and the longest.

    What else is to be known of all of them goes into ``summary`` (1, 2): the greatest squared norm, once they are
    centred, and the least kind.
    """
    there = runtime()
    N, D = rows.shape
    half = max(4, min(count, PROBED_NUMBERS // D) // 2)
    group = -(-N // half)
    groups = -(-N // group)
    facts, places = there.empty((2, N), np.float64), there.empty((2 * groups,), np.int64)
    launch(
        Kernel(_SOURCE, f"parzen_facts<{_TYPES[rows.dtype]}>", threads=128, shared_bytes=8 * 128), (N, 1, 1),
        rows=rows, N=np.int64(N), D=np.int32(D), means=means_D, facts=facts,
    )  # fmt: skip
    launch(
        Kernel(_SOURCE, "parzen_telling", threads=1024, shared_bytes=16 * 1024), (1, 1, 1),
        facts=facts, N=np.int64(N), group=np.int64(group), groups=np.int32(groups), places=places, summary=summary,
    )  # fmt: skip
    return places


def _some(rows: Array, places: Array) -> Array:
    """Give the rows at some places."""
    some = runtime().empty((len(places), rows.shape[1]), rows.dtype)
    launch(
        Kernel(_SOURCE, f"parzen_some<{_TYPES[rows.dtype]}>"), (len(some), 1, 1),
        rows=rows, D=np.int32(rows.shape[1]), places=places, some=some,
    )  # fmt: skip
    return some


def rows_of(rows: Array, arithmetic: int, means_D: Array, scale: float, *, are_samples: bool) -> Rows:
    """Prepare rows for an arithmetic's product; for ``BYTES`` they must be of the kind that those take."""
    there = runtime()
    N, D = rows.shape
    if arithmetic not in PLANES:
        data, of_data = there.empty(rows.shape, np.float32), there.empty((N,), np.float64)
        launch(
            Kernel(_SOURCE, f"parzen_centre<{_TYPES[rows.dtype]}>", threads=128, shared_bytes=8 * 128), (N, 1, 1),
            rows=rows, D=np.int32(D), means=means_D, scale=np.float64(scale), centred=data, norms=of_data,
        )  # fmt: skip
        return Rows(arithmetic, data, of_data, scale, N, D)
    num_planes = PLANES[arithmetic][are_samples]
    data = there.empty(planes_tile.planes_shape(num_planes, N, D, arithmetic), np.uint8)
    _, chunks, padded_rows, _ = data.shape
    norms = there.empty((padded_rows,), np.float32 if arithmetic == HALVES else np.int64)
    name, more = f"parzen_bytes<{_TYPES[rows.dtype]}, {num_planes}>", {}
    if arithmetic == HALVES:
        scale *= _HALVES_SCALE
        name, more = f"parzen_halves<{_TYPES[rows.dtype]}>", {"means": means_D, "scale": np.float64(scale)}
    launch(
        Kernel(_SOURCE, name, threads=128, shared_bytes=8 * 128), (padded_rows, 1, 1),
        rows=rows, N=np.int32(N), D=np.int32(D), **more, padded_rows=np.int32(padded_rows), chunks=np.int32(chunks),
        planes=data, norms=norms,
    )  # fmt: skip
    return Rows(arithmetic, data, norms, scale if arithmetic == HALVES else 1.0, N, D)


def by_product(queries: Rows, samples: Rows, sigmas: Sigmas) -> Parts:
    """Find least distances and sums, of scaled distances from the product."""
    there = runtime()
    if samples.arithmetic in PLANES and there.architecture == WarpgroupTiling.ARCHITECTURE:
        return _by_warpgroups(queries, samples, sigmas)
    M, N, D, S = queries.N, samples.N, samples.D, len(sigmas)
    bytes_a_row = 8 * S + 4
    if samples.arithmetic in PLANES:
        of_planes = planes_tile.choose(M, N, samples.arithmetic, bytes_a_row=bytes_a_row)
        kernel = of_planes.kernel(_SOURCE, "parzen_planes", extra_bytes=of_planes.shape.m * bytes_a_row, SIGMAS=S)
        tiles, query_tiles = of_planes.grid(M, N)
        columns = _sizes_of_planes(queries, samples)
    else:
        gemm_tile.check_row(D)
        tiling = gemm_tile.choose(
            M, N, D, _ROWS, _ROWS, samples.arithmetic, split=False, bytes_a_row=bytes_a_row
        )  # fmt: skip
        extra_bytes = tiling.shape.m * bytes_a_row
        kernel = tiling.kernel(_SOURCE, "parzen_product", _ROWS, _ROWS, extra_bytes=extra_bytes, SIGMAS=S)
        tiles, query_tiles, _ = tiling.grid(M, N)
        columns = {"D": np.int32(D)}
    shards = _num_shards(tiles, query_tiles, there.num_multiprocessors)
    least, sums = there.empty((shards, M), np.float32), there.empty((shards, S, M), np.float64)
    launch(
        kernel, (shards, query_tiles, 1),
        queries=queries.data, query_norms=queries.norms, samples=samples.data, sample_norms=samples.norms,
        rates=sigmas.rates, M=np.int32(M), N=np.int32(N), **columns, least=least, sums=sums,
    )  # fmt: skip
    return Parts.all_shards(least, sums)


def _by_warpgroups(queries: Rows, samples: Rows, sigmas: Sigmas) -> Parts:
    there = runtime()
    M, N, S = queries.N, samples.N, len(sigmas)
    tiling = WarpgroupTiling.of(M, N, samples.arithmetic, there.num_multiprocessors)
    least, sums = there.empty((tiling.parts, M), np.float32), there.empty((tiling.parts, S, M), np.float64)
    launch(
        tiling.kernel(_WARPGROUPS, "parzen_warpgroups", extra_bytes=S * (8 * tiling.rows + 4)), (tiling.blocks, 1, 1),
        queries=queries.data, query_norms=queries.norms, samples=samples.data, sample_norms=samples.norms,
        rates=sigmas.rates, S=np.int32(S), M=np.int32(M), N=np.int32(N), **_sizes_of_planes(queries, samples),
        tiles_a_block=np.int32(tiling.tiles_a_block), least=least, sums=sums,
    )  # fmt: skip
    return Parts(least, sums, tiling.rows, tiling.tiles_n, tiling.tiles_a_block)


def _sizes_of_planes(queries: Rows, samples: Rows) -> dict[str, np.int32]:
    _, chunks, query_rows, _ = queries.data.shape
    sizes = {"query_rows": query_rows, "sample_rows": samples.data.shape[2], "chunks": chunks}
    return {name: np.int32(size) for name, size in sizes.items()}


def directly(queries_MD: Array, samples_ND: Array, sigmas: Sigmas) -> Parts:
    """Find least distances and sums, of direct differences in float64."""
    there = runtime()
    (M, D), N, S = queries_MD.shape, len(samples_ND), len(sigmas)
    kernel = Kernel(
        _SOURCE, f"parzen_direct<{_TYPES[queries_MD.dtype]}, {_TYPES[samples_ND.dtype]}>",
        shared_bytes=8 * (2 * 32 * 17 + 32 * 33 + 32 * S),
    )  # fmt: skip
    query_tiles = -(-M // 32)
    shards = _num_shards(-(-N // 32), query_tiles, there.num_multiprocessors)
    least, sums = there.empty((shards, M), np.float64), there.empty((shards, S, M), np.float64)
    launch(
        kernel, (shards, query_tiles, 1),
        queries=queries_MD, samples=samples_ND, precisions=sigmas.precisions, S=np.int32(S),
        M=np.int32(M), N=np.int64(N), D=np.int32(D), least=least, sums=sums,
    )  # fmt: skip
    return Parts.all_shards(least, sums)


def _num_shards(tiles: int, query_tiles: int, num_multiprocessors: int) -> int:
    """Share the samples' tiles among blocks so that the last to end ends as early as can be."""

    def tiles_in_turn(shards: int) -> int:
        return -(-query_tiles * shards // num_multiprocessors) * -(-tiles // shards)

    return min(range(1, min(tiles, _MAX_SHARDS) + 1), key=tiles_in_turn)


def merge(parts: Parts, sigmas: Sigmas, out: Array) -> None:
    """Merge what blocks found into the sigmas' rows of ``out`` (S, M)."""
    _, S, M = parts.sums.shape
    launch(
        Kernel(_SOURCE, f"parzen_merge<{_TYPES[parts.least.dtype]}>"), (-(-M // 256), S, 1),
        least=parts.least, sums=parts.sums, rows=np.int32(parts.rows), tiles=np.int32(parts.tiles),
        tiles_a_block=np.int32(parts.tiles_a_block), S=np.int32(S), M=np.int32(M), sigmas=sigmas.table, out=out,
    )  # fmt: skip
