"""Launches of ``nearest.cu``."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.kernel import Kernel
from fastgan.kernels.common.launcher import launch, runtime

_SIDE: Final = 32
_TYPES: Final = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
_ALL: Final = Kernel("nearest/nearest.cu", "nearest_of_all")


def indices(queries_MD: Array, samples_ND: Array) -> NDArray[np.int64]:
    """Compare each query with every sample; arrays of the host are brought to the device, and the answer back."""
    there = runtime()
    on_host = isinstance(queries_MD, np.ndarray)
    queries_MD, samples_ND = (
        there.upload(array) if isinstance(array, np.ndarray) else array for array in (queries_MD, samples_ND)
    )
    (M, D), N = queries_MD.shape, len(samples_ND)
    found: NDArray[np.int64] = there.empty((M,), np.int64)
    if M:
        query_tiles, sample_tiles = -(-M // _SIDE), -(-N // _SIDE)
        # Enough blocks for the device, twice over, and no more partial answers than that needs.
        num_shards = min(sample_tiles, max(1, 2 * there.num_multiprocessors // query_tiles))
        kernel = Kernel(
            "nearest/nearest.cu", f"nearest_of_shard<{_TYPES[queries_MD.dtype]}, {_TYPES[samples_ND.dtype]}>",
            shared_bytes=16 * _SIDE * 17,
        )  # fmt: skip
        distances, at = there.empty((num_shards, M), np.float64), there.empty((num_shards, M), np.int64)
        launch(
            kernel, (query_tiles, num_shards, 1),
            queries=queries_MD, samples=samples_ND, M=np.int32(M), N=np.int64(N), D=np.int32(D),
            distances=distances, indices=at,
        )  # fmt: skip
        launch(
            _ALL, (-(-M // _ALL.threads), 1, 1),
            distances=distances, indices=at, M=np.int32(M), num_shards=np.int32(num_shards), out=found,
        )  # fmt: skip
    return there.download(found) if on_host else found
