"""The paper's figures as images: grids of samples, samples beside their nearest training example, and interpolations.

An image is a row of D = C·H·W values in C, H, W order, in [0, 1] as floats or 0..255 as uint8. Everything here is exact
to the pixel and free of randomness, time and metadata: the same arrays give the same PNG bytes, so grids of two runs
can be compared with ``cmp``. Pillow is imported inside the functions that need it; importing this module costs NumPy.
"""

from __future__ import annotations

import io
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["BACKGROUND", "FRAME", "display_pixels", "grid", "grid_with_nearest", "interpolation", "to_png"]

# A middle grey separates the tiles of black-ground digits and of photographs alike, on a white page and on a black one.
BACKGROUND = 128
# The yellow of the paper's figure 2.
FRAME = (255, 214, 10)

_TILE_HEIGHT = 56
_STRIP_HEIGHT = 8

Colour = int | tuple[int, int, int]


def grid(
    images: ArrayLike,
    image_shape: Sequence[int],
    num_columns: int,
    *,
    scale: int | None = None,
    gap: int = 2,
    background: Colour = BACKGROUND,
) -> PIL.Image.Image:
    """Draw images as tiles of a grid, row by row.

    Parameters
    ----------
    images : array_like, shape (N, D)
        Floats, clipped to [0, 1] and rounded to the nearest of the 256 levels, or uint8 levels, drawn as they are;
        N ≥ 1.
    image_shape : (C, H, W)
        The shape of one image, C·H·W = D; C is 1 (grey) or 3 (red, green, blue). An H of 1, as of a data set that has
        no image shape and is (1, 1, D), is drawn as a strip: each value a bar at least 8 pixels tall.
    num_columns : int
        Tiles in a row, ≥ 1. What a ragged last row leaves free is background.
    scale : int, optional
        Pixels a value is wide and tall, ≥ 1 (no smoothing). By default the least that makes a tile 56 pixels tall (a
        strip: 56 pixels wide): 7 for 8x8, 2 for 28x28, 32x32 and 48x48.
    gap : int
        Pixels of background between the tiles and around the grid, ≥ 0.
    background : int or (int, int, int)
        A grey level or a colour, each 0..255.

    Returns
    -------
    PIL.Image.Image
        Mode "L" where image and background are grey, else "RGB".

    Raises
    ------
    TypeError
        If an array is neither of floats nor of uint8, or a count is not an integer.
    ValueError
        If a shape or a range is wrong, or a value is NaN or infinite.

    Notes
    -----
    The top left tile of figures 2 and 3 of the paper is at pixel (gap, gap); tile n is at column n mod num_columns.
    """
    levels = _levels(images, image_shape, "images")
    num_columns = _integer(num_columns, "num_columns", 1)
    gap = _integer(gap, "gap", 0)
    ground = _colour(background, "background")
    tiles = _magnify(levels, scale)
    num_images, tile_height, tile_width, _ = tiles.shape
    num_rows = -(-num_images // num_columns)
    canvas = _canvas(
        gap + num_rows * (tile_height + gap),
        gap + num_columns * (tile_width + gap),
        ground,
        grey=tiles.shape[3] == 1 and len(set(ground)) == 1,
    )
    for n, tile in enumerate(tiles):
        row, column = divmod(n, num_columns)
        _place(canvas, tile, gap + row * (tile_height + gap), gap + column * (tile_width + gap))
    return _to_image(canvas)


def grid_with_nearest(
    samples: ArrayLike,
    neighbours: ArrayLike,
    image_shape: Sequence[int],
    num_columns: int,
    *,
    scale: int | None = None,
    gap: int = 2,
    background: Colour = BACKGROUND,
    frame: tuple[int, int, int] = FRAME,
) -> PIL.Image.Image:
    """Draw rows of samples, and beside each row, framed, the training example nearest to its last sample.

    This is figure 2 of the paper, which shows by it that the model has not memorised the training set.

    Parameters
    ----------
    samples : array_like, shape (R·num_columns, D)
        As ``images`` of :func:`grid`, whole rows only.
    neighbours : array_like, shape (R, D)
        One image a row: the nearest training example of the row's last sample.
    image_shape : (C, H, W)
        The shape of one image.
    num_columns : int
        Samples in a row, ≥ 1.
    scale, gap, background
        As of :func:`grid`; the frame is drawn in the gaps, so ``gap`` ≥ 1.
    frame : (int, int, int)
        The frame's colour, each 0..255.

    Returns
    -------
    PIL.Image.Image
        Mode "RGB". The samples are where :func:`grid` puts them; the neighbours' column begins 4 gaps further right
        than the next column would.

    Raises
    ------
    TypeError, ValueError
        As :func:`grid`, and if the samples do not make whole rows or the neighbours are not one a row.
    """
    levels = _levels(samples, image_shape, "samples")
    nearest = _levels(neighbours, image_shape, "neighbours")
    num_columns = _integer(num_columns, "num_columns", 1)
    gap = _integer(gap, "gap", 1)
    ground = _colour(background, "background")
    edge = _colour(frame, "frame")
    num_rows, rest = divmod(len(levels), num_columns)
    if rest:
        raise ValueError(
            f"samples holds {len(levels)} images, which do not make whole rows of num_columns = {num_columns}; "
            "the nearest example belongs beside a row's last sample"
        )
    if len(nearest) != num_rows:
        raise ValueError(
            f"neighbours holds {len(nearest)} images and must hold one a row, {num_rows}: {len(levels)} samples in "
            f"rows of {num_columns}"
        )
    tiles, nearest_tiles = _magnify(levels, scale), _magnify(nearest, scale)
    _, tile_height, tile_width, _ = tiles.shape
    left = gap + num_columns * (tile_width + gap) + 4 * gap
    canvas = _canvas(gap + num_rows * (tile_height + gap), left + tile_width + gap, ground, grey=False)
    canvas[:, left - gap :] = edge
    for n, tile in enumerate(tiles):
        row, column = divmod(n, num_columns)
        _place(canvas, tile, gap + row * (tile_height + gap), gap + column * (tile_width + gap))
    for row, tile in enumerate(nearest_tiles):
        _place(canvas, tile, gap + row * (tile_height + gap), left)
    return _to_image(canvas)


def display_pixels(
    images_ND: NDArray[np.float32], contrast: float | None, *, scaled_as: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Bring pixels of the networks' range into [0, 1] for a picture.

    Parameters
    ----------
    images_ND : (N, D) float32
        Generated or real images.
    contrast : float or None
        The data's (``Dataset.contrast``). None: pixels are shown as they are, clipped to [0, 1]. Else all are divided
        by the greatest magnitude among those of ``scaled_as``, and [-1, 1] is shown as [0, 1].
    scaled_as : (M, D) float32, optional
        The samples of the picture, which its other images are to be comparable with; by default ``images_ND``.

    Returns
    -------
    (N, D) float32
    """
    shown = images_ND
    if contrast is not None:
        greatest = float(np.abs(images_ND if scaled_as is None else scaled_as).max())
        shown = (images_ND / (greatest or 1.0) + 1.0) / 2.0
    clipped: NDArray[np.float32] = np.clip(shown, 0.0, 1.0, dtype=np.float32)
    return clipped


def interpolation(z_start: ArrayLike, z_end: ArrayLike, num_steps: int) -> NDArray[np.floating[Any]]:
    """Interpolate linearly between pairs of noise vectors, end points included.

    The digits generated from the result, one row of ``num_steps`` tiles a pair, are figure 3 of the paper.

    Parameters
    ----------
    z_start, z_end : array_like, shape (R, Z)
        The noise at the left and at the right end of each row; finite.
    num_steps : int
        Points in a row, ≥ 2: the two ends and what is between them.

    Returns
    -------
    ndarray, shape (R·num_steps, Z)
        Row r·num_steps + k is z_start[r] + k / (num_steps − 1) · (z_end[r] − z_start[r]); bit for bit z_start[r] where
        k = 0 and z_end[r] where k = num_steps − 1. Float32 where both are, else as NumPy promotes them (integers:
        float64).

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or ``num_steps`` is not an integer.
    ValueError
        If a shape or a range is wrong, or a value is NaN or infinite.
    """
    start, end = np.asarray(z_start), np.asarray(z_end)
    for name, array in (("z_start", start), ("z_end", end)):
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} holds {array.dtype} and must hold real numbers")
        if array.ndim != 2:
            raise ValueError(f"{name} has shape {array.shape} and must have shape (R, Z), one noise vector a row")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity, between which nothing can be interpolated")
    if start.shape != end.shape:
        raise ValueError(f"z_start has shape {start.shape} and z_end {end.shape}; they must be the same, (R, Z)")
    num_steps = _integer(num_steps, "num_steps", 2)
    dtype = np.result_type(start.dtype, end.dtype)
    if dtype.kind != "f":
        dtype = np.dtype(np.float64)
    # In float64 and rounded once, so that a float32 row is as even as float32 can hold; weights, not a difference, so
    # that vectors near the end of the range do not overflow.
    t = (np.arange(num_steps) / (num_steps - 1))[None, :, None]
    between = (1.0 - t) * start[:, None, :] + t * end[:, None, :]
    path: NDArray[np.floating[Any]] = between.astype(dtype)
    path[:, 0], path[:, -1] = start, end
    return path.reshape(-1, start.shape[1])


def to_png(image: PIL.Image.Image) -> bytes:
    """Encode an image as an optimised PNG whose bytes depend on the pixels alone.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode PNG can hold ("L" and "RGB" are what this module makes).

    Returns
    -------
    bytes
        The file's content: no timestamp, no resolution, no profile, no text; the same pixels, the same bytes (on the
        same versions of Pillow and zlib).
    """
    # Pillow copies what a loaded image carries (profile, resolution, text) into the file, unless it is taken off.
    bare = image.copy()
    bare.info = {}
    buffer = io.BytesIO()
    bare.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _integer(value: int, name: str, least: int) -> int:
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r} and must be an integer") from None
    if value < least:
        raise ValueError(f"{name} is {value} and must be at least {least}")
    return value


def _colour(value: Colour, name: str) -> tuple[int, int, int]:
    channels = (value,) * 3 if isinstance(value, int | np.integer) else tuple(value)
    if len(channels) != 3 or not all(isinstance(c, int | np.integer) and 0 <= c <= 255 for c in channels):
        raise ValueError(f"{name} is {value!r} and must be a grey level or (red, green, blue), integers of 0..255")
    red, green, blue = (int(c) for c in channels)
    return red, green, blue


def _levels(images: ArrayLike, image_shape: Sequence[int], name: str) -> NDArray[np.uint8]:
    """Check (N, D) images and return them as (N, H, W, C) uint8 levels."""
    array = np.asarray(images)
    if len(image_shape) != 3:
        raise ValueError(f"image_shape is {tuple(image_shape)} and must be (C, H, W)")
    channels, height, width = (_integer(size, "each size of image_shape", 1) for size in image_shape)
    if channels not in (1, 3):
        raise ValueError(f"image_shape is {(channels, height, width)}; its C must be 1 (grey) or 3 (red, green, blue)")
    size = channels * height * width
    if array.ndim != 2 or array.shape[1] != size:
        raise ValueError(
            f"{name} has shape {array.shape} and must have shape (N, {size}): image_shape is {channels, height, width}"
        )
    if not len(array):
        raise ValueError(f"{name} holds no image; there must be at least one")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            bad = int(np.argmin(np.isfinite(array).all(axis=1)))
            raise ValueError(f"{name} holds NaN or infinity, first in image {bad}; a pixel must be a number in [0, 1]")
        # Float64, because a float32 product rounds before rint does and then some halves go the wrong way.
        levels = np.rint(np.clip(array.astype(np.float64), 0.0, 1.0) * 255.0).astype(np.uint8)
    elif array.dtype == np.uint8:
        levels = array
    else:
        raise TypeError(f"{name} holds {array.dtype} and must hold floats in [0, 1] or uint8 levels")
    return levels.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)


def _magnify(levels: NDArray[np.uint8], scale: int | None) -> NDArray[np.uint8]:
    _, height, width, _ = levels.shape
    if scale is None:
        scale = -(-_TILE_HEIGHT // (height if height > 1 else width))
    scale = _integer(scale, "scale", 1)
    return levels.repeat(scale if height > 1 else max(scale, _STRIP_HEIGHT), axis=1).repeat(scale, axis=2)


def _canvas(height: int, width: int, ground: tuple[int, int, int], *, grey: bool) -> NDArray[np.uint8]:
    canvas = np.empty((height, width, 1 if grey else 3), np.uint8)
    canvas[:] = ground[:1] if grey else ground
    return canvas


def _place(canvas: NDArray[np.uint8], tile: NDArray[np.uint8], top: int, left: int) -> None:
    # A grey tile spreads over the three channels of a coloured canvas by broadcasting.
    canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile


def _to_image(canvas: NDArray[np.uint8]) -> PIL.Image.Image:
    import PIL.Image

    return PIL.Image.fromarray(canvas[:, :, 0] if canvas.shape[2] == 1 else canvas)
