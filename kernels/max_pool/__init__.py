"""The maximum over windows of an image, with the place that each came from: forward and backward.

    y[b, c, i, j] = max_{k, l < size} x[b, c, i·stride + k, j·stride + l],   place = k·size + l of the first such pixel
    dx[b, c, m, n] = Σ dy[b, c, i, j] over the windows whose place is the pixel (m, n)

H' = ceil((H - size) / stride) + 1: the last windows may reach over the edge, as if the image went on with -infinity
there. Windows overlap where the stride is less than the size. The first pixel of a window, row by row, wins a tie; NaN
passes on as in np.maximum, and the first pixel that is NaN is the one that wins.
Axes: B batch, C channels, H and W rows and columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan.kernels.common.arrays import Array, require_array, require_out
from fastgan.kernels.common.backends import implementation

# A place is kept in a byte.
MAX_SIZE = 16
_UINT8 = np.dtype(np.uint8)


def forward(
    x_BCHW: Array,
    size: int,
    stride: int,
    *,
    out: Array | None = None,
    out_places: NDArray[np.uint8] | None = None,
    backend: str = "auto",
) -> tuple[Array, NDArray[np.uint8]]:
    """Take the maximum of every window, and where in the window it is.

    Parameters
    ----------
    x_BCHW : (B, C, H, W) float32 or float64
        The images.
    size : int
        Rows, and columns, of a window, 1 to 16 and at most H and W.
    stride : int
        Steps from one window to the next, 1 to ``size``.
    out : (B, C, H', W'), optional
        Where y goes.
    out_places : (B, C, H', W') uint8, optional
        Where the places go.
    backend : str
        As for ``backends.resolve``.

    Returns
    -------
    y, places : (B, C, H', W') array and uint8

    Raises
    ------
    TypeError, ValueError
        An argument is not of this kind; the message names it.
    """
    require_array("x", x_BCHW, (None, None, None, None))
    B, C, H, W = x_BCHW.shape
    shape = (B, C, output_length("H", H, size, stride), output_length("W", W, size, stride))
    out = require_out("out", out, shape, x_BCHW.dtype, x_BCHW)
    out_places = require_out("out_places", out_places, shape, _UINT8, x_BCHW)
    implementation(__name__, backend, x=x_BCHW, out=out, out_places=out_places).forward(
        x_BCHW, size, stride, out, out_places
    )
    return out, out_places


def backward(
    dy_BCHW: Array,
    places_BCHW: NDArray[np.uint8],
    size: int,
    stride: int,
    image: tuple[int, int],
    *,
    out: Array | None = None,
    backend: str = "auto",
) -> Array:
    """Carry a gradient to the pixels that were the maxima.

    Parameters
    ----------
    dy_BCHW : (B, C, H', W') float32 or float64
        The gradient of y.
    places_BCHW : (B, C, H', W') uint8
        The places, as ``forward`` gave them.
    size, stride, backend
        As for ``forward``.
    image : (H, W)
        Rows and columns of x; H' does not tell them.
    out : (B, C, H, W), optional
        Where dx goes.

    Returns
    -------
    (B, C, H, W) array
        dx.
    """
    H, W = image
    require_array("dy", dy_BCHW, (None, None, output_length("H", H, size, stride), output_length("W", W, size, stride)))
    require_array("places", places_BCHW, dy_BCHW.shape, (_UINT8,))
    out = require_out("out", out, (*dy_BCHW.shape[:2], H, W), dy_BCHW.dtype, dy_BCHW)
    implementation(__name__, backend, dy=dy_BCHW, places=places_BCHW, out=out).backward(
        dy_BCHW, places_BCHW, size, stride, out
    )
    return out


def output_length(axis: str, length: int, size: int, stride: int) -> int:
    """Give the rows or columns of the output: ``ceil((length - size) / stride) + 1``.

    Raises
    ------
    ValueError
        ``size`` or ``stride`` is out of its range.
    """
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"size is {size}; it must be 1 to {MAX_SIZE}, as a place in a window is kept in a byte")
    if not 1 <= stride <= size:
        raise ValueError(f"stride is {stride}; it must be 1 to {size}, the window's size, so that no pixel is left out")
    if length < size:
        raise ValueError(f"{axis} is {length}; it must be {size} or more, the window's size")
    return -(-(length - size) // stride) + 1
