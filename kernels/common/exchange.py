"""Arrays of other libraries, taken over without a copy where their memory allows it.

The protocols: DLPack (PyTorch, JAX, CuPy, TensorFlow, ...; https://dmlc.github.io/dlpack/latest/) and the CUDA array
interface, version 3 (Numba, CuPy, PyTorch).
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from fastgan.errors import BackendError
from fastgan.kernels.common.arrays import home_of

# DLPack's device types whose memory the host reads: CPU, and CUDA's and ROCm's pinned memory.
_HOST_KINDS = (1, 3, 11)
# Those that CuPy reads: CUDA's own and managed memory.
_CUDA_KINDS = (2, 13)


def to_device(name: str, array: Any) -> Any:
    """Give ``array`` as a CuPy array, sharing its memory, where it lies on a CUDA device; else as ``to_host`` does.

    Parameters
    ----------
    name, array
        As for ``to_host``.

    Returns
    -------
    object
        A CuPy array, a NumPy array, or ``array`` itself where it speaks neither protocol.

    Raises
    ------
    BackendError, TypeError
        As for ``to_host``.
    """
    if home_of(array) == "cupy":
        return array
    if not isinstance(array, np.ndarray) and _lies_on_cuda(array):
        return _by_cupy(name, array)
    return to_host(name, array)


def to_host(name: str, array: Any) -> Any:
    """Give ``array`` as a NumPy array, sharing its memory where that is the host's.

    Parameters
    ----------
    name : str
        What a message calls it.
    array : object
        A NumPy array, or an object with ``__dlpack__`` or ``__cuda_array_interface__``. One on a CUDA device is copied
        to the host, by CuPy.

    Returns
    -------
    object
        A NumPy array; or ``array`` itself where it speaks neither protocol.

    Raises
    ------
    BackendError
        It lies on a device that cannot be read here; the sentence says what would help.
    TypeError
        Its owner does not hand it out (PyTorch: a tensor that requires a gradient), or NumPy has no such dtype.
    """
    if isinstance(array, np.ndarray):
        # A memory map is an array of a class of its own; what computes wants the plain one.
        return np.asarray(array)
    kind = None
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        kind = int(array.__dlpack_device__()[0])
        if kind in _HOST_KINDS:
            try:
                return np.from_dlpack(array)
            except (BufferError, RuntimeError, TypeError, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise TypeError(f"{name} is a {type(array).__name__} that NumPy cannot share: {reason}") from error
    if _lies_on_cuda(array):
        there = _by_cupy(name, array)
        return importlib.import_module("cupy").asnumpy(there)
    if kind is not None:
        raise BackendError(f"{name} lies on a device of DLPack's kind {kind}, which is not read; bring it to the host")
    return array


def _lies_on_cuda(array: Any) -> bool:
    if hasattr(array, "__cuda_array_interface__"):
        return True
    speaks = hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")
    return speaks and int(array.__dlpack_device__()[0]) in _CUDA_KINDS


def _by_cupy(name: str, array: Any) -> Any:
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise BackendError(
            f"{name} lies on a CUDA device, where fastgan reads it with CuPy, which is not installed: "
            "pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]', or bring it to the host first"
        ) from error
    return cupy.asarray(array) if hasattr(array, "__cuda_array_interface__") else cupy.from_dlpack(array)
