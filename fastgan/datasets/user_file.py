"""A user's own images: one array in a .npy, .npz or .h5 file."""

from __future__ import annotations

import hashlib
import math
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.datasets.dataset import CHUNK_ROWS, Dataset, Split
from fastgan.errors import DataError, FastganWarning
from fastgan.memory import check_memory

HDF5_SUFFIXES = (".h5", ".hdf5")
SUFFIXES = (".npy", ".npz", *HDF5_SUFFIXES)
PIXEL_NAMES = ("images", "pixels", "samples", "x")
LABEL_NAMES = ("labels", "y")
MIN_ROWS = 10
CHANNELS = (1, 3)
# By so much rounding may have taken a float out of [0, 1], as in (x + 1) / 2 of a network's last layer.
ROUNDING = 1e-6

# What NumPy, zipfile, zlib and h5py raise on files that are not what their ending says, cut off or damaged.
READ_ERRORS = (
    ValueError,
    OverflowError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
    OSError,
    # NumPy reads the header of an array as Python source.
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_user_file(path: str | os.PathLike[str]) -> Dataset:
    """Load a user's own images and split them 80/10/10 in file order into "train", "valid" and "test".

    The array is (N, D), (N, H, W), or (N, H, W, C) with 1 or 3 channels, of uint8 or of floats in [0, 1], with at
    least 10 rows. (N, C, H, W) is understood too where it cannot be the other: where C is 1 or 3 and W is neither.
    Columns of an (N, D) array are pixels in C·H·W order: of a square image in one channel where D is a square, else of
    one row. Floats become float32; what rounding alone took out of [0, 1] is brought back. In a .npz or .h5 file it is
    the only array, or the only one of those named "images", "pixels", "samples" or "x"; labels, integers of shape (N,),
    may lie beside it under the name "labels" or "y". Pickled objects are never loaded.

    Parameters
    ----------
    path : path
        A .npy, .npz, .h5 or .hdf5 file.

    Returns
    -------
    Dataset
        Named by the file's stem; "train" and "valid" have 80% and 10% of the rows, rounded down, "test" the rest.

    Raises
    ------
    DataError
        If the file is missing or cannot be read, or its arrays are not as above.
    """
    path = Path(path)
    pixels, labels, image_shape, digest = read_images(path)
    num_rows = len(pixels)
    if num_rows < MIN_ROWS:
        raise DataError(f"{path} holds {num_rows} images; at least {MIN_ROWS} are needed to split them")
    num_train, num_valid = num_rows * 8 // 10, num_rows // 10
    divisor = 255.0 if pixels.dtype == np.uint8 else 1.0
    splits = {}
    for split_name, rows in (
        ("train", slice(0, num_train)),
        ("valid", slice(num_train, num_train + num_valid)),
        ("test", slice(num_train + num_valid, None)),
    ):
        splits[split_name] = Split(pixels[rows], divisor, None if labels is None else labels[rows])
    return Dataset(path.stem, image_shape, splits, str(path), {path.name: digest}, num_validation=num_valid)


def read_images(
    path: str | os.PathLike[str],
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.int64] | None, tuple[int, int, int], str]:
    """Read the images, and the labels where there are some, of a file that `load_user_file` describes.

    Parameters
    ----------
    path : path
        A .npy, .npz, .h5 or .hdf5 file, of any number of rows.

    Returns
    -------
    pixels : array (N, D), uint8 or float32
        In C·H·W order.
    labels : array (N,), int64, or None
    image_shape : tuple
        (C, H, W).
    digest : str
        SHA-256 of the file.

    Raises
    ------
    DataError
        If the file is missing or cannot be read, or its arrays are not as `load_user_file` describes.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path, or make the file")
    if path.is_dir():
        raise DataError(f"{path} is a folder where a {', '.join(SUFFIXES)} file is expected; name a file in it")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} does not end in {', '.join(SUFFIXES)}; save the images as one of these")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty; save the images into it again")
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from error
    try:
        pixels, labels, image_shape = _read_hdf5(path) if path.suffix.lower() in HDF5_SUFFIXES else _read_numpy(path)
    except READ_ERRORS as error:
        raise DataError(_unreadable(path, error)) from error
    return pixels, labels, image_shape, digest


_Contents = tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.int64] | None, tuple[int, int, int]]


def _read_numpy(path: Path) -> _Contents:
    if path.suffix.lower() == ".npy":
        # Mapped rather than read: a header that tells of more than the file holds is refused before memory is taken.
        # Where a header's shape overflows, NumPy warns and then finds the file too small.
        with np.errstate(over="ignore"):
            array = np.lib.format.open_memmap(path, mode="r")
        return _contents(path, array, None)
    # Opened here, as NumPy leaves a file open that turns out to be no zip file, and takes what is none for a pickle.
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no zip file, or its end is missing")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            pixel_name, label_name = _choose(path, arrays.files)
            pixels = arrays[pixel_name]
            labels = None if label_name is None else arrays[label_name]
    # What an archive holds beside arrays comes as bytes, and has no shape.
    return _contents(path, np.asarray(pixels), labels)


def _read_hdf5(path: Path) -> _Contents:
    # h5py takes longer to import than NumPy, and is needed for no registered data set.
    import h5py

    with h5py.File(path, "r") as file:
        arrays: Mapping[str, Any] = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        if not arrays and len(file):
            raise DataError(f"{path} holds no array at its top level; save the images there, outside of any group")
        pixel_name, label_name = _choose(path, list(arrays))
        for name in (pixel_name, label_name):
            if name is not None:
                _check_stored(path, arrays[name])
        labels = None if label_name is None else arrays[label_name][()]
        return _contents(path, arrays[pixel_name], labels)


# The most that HDF5's filters, of which deflate is the strongest in use, make of a byte.
_MOST_INFLATED = 1100


def _check_stored(path: Path, array: Any) -> None:
    """Refuse an array that tells of far more than the file holds: HDF5 gives zeros for what was never written."""
    num_bytes = math.prod(array.shape or ()) * array.dtype.itemsize
    if num_bytes > _MOST_INFLATED * max(array.id.get_storage_size(), _MOST_INFLATED):
        raise DataError(
            f"{path} tells of an array of shape {array.shape} and holds {array.id.get_storage_size():,} bytes of it; "
            "write all of the images into it"
        )


def _choose(path: Path, array_names: list[str]) -> tuple[str, str | None]:
    """Return the names of the pixels and of the labels."""
    labels = [name for name in array_names if name in LABEL_NAMES]
    others = [name for name in array_names if name not in LABEL_NAMES]
    pixels = [name for name in others if name in PIXEL_NAMES] or others
    if len(pixels) != 1 or len(labels) > 1:
        raise DataError(
            f"{path} holds the arrays {', '.join(array_names) or '(none)'}, so it is not clear which are the images "
            f"and the labels; name one of them {' or '.join(PIXEL_NAMES)}, and at most one {' or '.join(LABEL_NAMES)}"
        )
    return pixels[0], labels[0] if labels else None


def _contents(path: Path, array: Any, labels: Any) -> _Contents:
    """Bring the arrays into the form of a `Split`; ``array`` has a shape and a dtype, and gives rows by slices."""
    shape, dtype = array.shape, array.dtype
    if not (dtype == np.uint8 or np.issubdtype(dtype, np.floating)):
        raise DataError(
            f"{path} holds values of type {dtype}; save the images as uint8 from 0 to 255, or as floats in [0, 1]"
        )
    if len(shape) not in (2, 3, 4):
        raise DataError(
            f"{path} holds an array of shape {shape}; images must be saved as (N, D), (N, H, W), (N, H, W, C) or "
            "(N, C, H, W)"
        )
    if shape[0] == 0:
        raise DataError(f"{path} holds an array of shape {shape}, which is no image at all; save some into it")
    if math.prod(shape) == 0:
        raise DataError(f"{path} holds an array of shape {shape}; images of at least one pixel are needed")
    if len(shape) == 4 and shape[_channel_axis(shape)] not in CHANNELS:
        raise DataError(
            f"{path} holds an array of shape {shape}, which as (N, H, W, C) would have {shape[3]} channels; save "
            "images of 1 (grey) or 3 (red, green and blue), in the last axis, and without opacity: images[..., :3]"
        )

    num_rows, num_pixels = shape[0], math.prod(shape[1:])
    check_memory(math.prod(shape) * (1 if dtype == np.uint8 else 4), f"{num_rows:,} images of {num_pixels:,} pixels")
    pixels = np.empty((num_rows, num_pixels), np.uint8 if dtype == np.uint8 else np.float32)
    for start in range(0, num_rows, CHUNK_ROWS):
        chunk = np.asarray(array[start : start + CHUNK_ROWS])
        if len(shape) == 4:
            chunk = np.moveaxis(chunk, _channel_axis(shape), 1)
        chunk = chunk.reshape(len(chunk), num_pixels)
        if dtype == np.uint8:
            pixels[start : start + len(chunk)] = chunk
        else:
            _check_floats(path, chunk, start)
            np.clip(chunk, 0, 1, out=pixels[start : start + len(chunk)], casting="same_kind")
    if dtype == np.uint8 and pixels.max() <= 1:
        warnings.warn(
            f"{path} holds no number above 1, and as uint8 those are 255ths: images that are all but black; multiply "
            "images of 0 and 1 by 255, or save them as floats",
            FastganWarning,
            stacklevel=2,
        )
    return pixels, None if labels is None else _checked_labels(path, np.asarray(labels), num_rows), _image_shape(shape)


def _check_floats(path: Path, chunk: NDArray[np.floating], first_row: int) -> None:
    # A comparison with NaN is false, so this one finds NaN, infinities and values out of range alike.
    wrong = ~((chunk >= -ROUNDING) & (chunk <= 1 + ROUNDING))
    if wrong.any():
        row, column = (int(index) for index in np.argwhere(wrong)[0])
        raise DataError(
            f"{path} holds {chunk[row, column]} in image {first_row + row}; floats must be finite and in [0, 1], "
            "so bring their whole range there (0 … 255 by x / 255, -1 … 1 by (x + 1) / 2), or save them as uint8"
        )


def _checked_labels(path: Path, labels: NDArray[Any], num_rows: int) -> NDArray[np.int64]:
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path} holds labels of type {labels.dtype}; save them as integers, or leave them away")
    if labels.shape != (num_rows,):
        raise DataError(
            f"{path} holds {num_rows} images but labels of shape {labels.shape}; "
            "save one label an image, or leave them away"
        )
    return labels.astype(np.int64)


def _channel_axis(shape: tuple[int, ...]) -> int:
    """Say which of four axes holds the channels: the last, unless only the second can, as in what PyTorch saves."""
    return 1 if shape[3] not in CHANNELS and shape[1] in CHANNELS else 3


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) == 4:
        axis = _channel_axis(shape)
        height, width = (shape[i] for i in (1, 2, 3) if i != axis)
        return (shape[axis], height, width)
    if len(shape) == 3:
        return (1, shape[1], shape[2])
    side = math.isqrt(shape[1])
    return (1, side, side) if side * side == shape[1] else (1, 1, shape[1])


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    # NumPy tells of objects in three ways: as "pickled data", as "Object arrays" and as "Python objects in dtype".
    if any(word in reason.lower() for word in ("pickle", "object arrays", "python objects")):
        return f"{path} holds Python objects, which are not loaded; save the images as an array of uint8 or float32"
    if "unable to lock" in reason.lower():
        return f"{path} is open in another program, which is writing to it; wait for that, or close it there"
    return f"{path} cannot be read as a {path.suffix} file ({reason}); save the images into it again"
