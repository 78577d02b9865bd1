"""What every data set is once it is loaded: named splits of image rows, and where they came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastgan.errors import DataError

# Called as progress(file name, bytes done, bytes in all or None where the server does not say).
Progress = Callable[[str, int, int | None], None]

# Rows handled at once where a whole data set is summed or checked: a few MB of float64 at MNIST's size.
CHUNK_ROWS = 1024
# An L2 norm below this, of a row without its mean, is rounding's.
_NO_CONTRAST = 1e-8


class DamagedFileError(DataError):
    """A file of a data set is not what it should be.

    Parameters
    ----------
    path : path
        The file.
    problem : str
        What is wrong, as the rest of a sentence that begins with the path.
    remedy : str
        What to do.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, remedy: str) -> None:
        super().__init__(f"{os.fspath(path)} {problem}; {remedy}")
        self.problem = problem


class TruncatedFileError(DamagedFileError):
    """A file is right as far as it goes, and ends too early: the rest of a download may mend it."""


def normalise_contrast(pixels_ND: NDArray[np.uint8] | NDArray[np.float32], norm: float) -> NDArray[np.float32]:
    """Remove each row's mean and scale what is left to a given L2 norm.

        y = norm · (x - mean x) / ‖x - mean x‖,   a norm under 1e-8 counting as 1

    Parameters
    ----------
    pixels_ND : array (N, D), uint8 or float32
        Rows of images.
    norm : float
        The L2 norm of every row of the result, but for rows without contrast, which become 0.

    Returns
    -------
    array (N, D), float32
        Computed in float64 and rounded once.
    """
    result = np.empty(pixels_ND.shape, np.float32)
    for start in range(0, len(pixels_ND), CHUNK_ROWS):
        rows = pixels_ND[start : start + CHUNK_ROWS].astype(np.float64)
        rows -= rows.mean(axis=1, keepdims=True)
        norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
        norms[norms < _NO_CONTRAST] = 1.0
        result[start : start + CHUNK_ROWS] = rows * (norm / norms)
    return result


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of images as they are stored.

    Parameters
    ----------
    pixels : array (N, D), uint8 or float32
        C-contiguous. The column number is the flattened C·H·W index, whatever the memory layout of the file was.
    divisor : float
        What uint8 pixels are divided by to lie in [0, 1] (255; 16 for ``digits``); 1.0 for float32.
    labels : array (N,), int64, or None
        The class of each row, where the data set has classes.
    contrast : float, optional
        The norm that each row is brought to by `normalise_contrast` when it is used; None leaves rows in [0, 1].

    Raises
    ------
    ValueError
        If an array's dtype, shape or memory layout is not as above.
    """

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    divisor: float
    labels: NDArray[np.int64] | None
    contrast: float | None = None

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.float32) or not pixels.flags.c_contiguous:
            raise ValueError(
                f"pixels are {pixels.dtype} of shape {pixels.shape}; "
                "they must be a C-contiguous (N, D) array of uint8 or float32"
            )
        if pixels.dtype == np.float32 and self.divisor != 1.0:
            raise ValueError(f"divisor is {self.divisor}; float32 pixels are in [0, 1] already, so it must be 1.0")
        if labels is not None and (labels.dtype != np.int64 or labels.shape != (len(pixels),)):
            raise ValueError(
                f"labels are {labels.dtype} of shape {labels.shape}; they must be int64 of shape ({len(pixels)},)"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def as_float32(self, rows: slice | NDArray[np.integer] = slice(None)) -> NDArray[np.float32]:
        """Return rows as the networks see them: ``float32(pixel) / float32(divisor)``, in [0, 1].

        Where the split has a contrast, that is normalised instead, and pixels are of both signs.

        Parameters
        ----------
        rows : slice or array (n,) of integers, optional
            Which rows, all of them unless said.

        Returns
        -------
        array (n, D), float32
            A new array, also where the pixels are float32 already.
        """
        if self.contrast is not None:
            return normalise_contrast(self.pixels[rows], self.contrast)
        return np.divide(self.pixels[rows], np.float32(self.divisor), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named splits of images of one shape.

    Parameters
    ----------
    name : str
        The registered name, or the stem of a user's file.
    image_shape : (C, H, W)
        Channels, rows, columns of one image.
    splits : mapping of str to Split
        "train", "valid" and "test"; a data set may have more.
    source : str
        Where it came from: a path, or "embedded".
    digests : mapping of str to str
        File name -> SHA-256 (hexadecimal) of its uncompressed content.
    num_validation : int
        How many leading rows of "valid" choose the Parzen sigma.

    Raises
    ------
    ValueError
        If a split's rows are not of ``C * H * W`` pixels.
    """

    name: str
    image_shape: tuple[int, int, int]
    splits: Mapping[str, Split]
    source: str
    digests: Mapping[str, str]
    num_validation: int

    def __post_init__(self) -> None:
        for split_name, split in self.splits.items():
            if split.pixels.shape[1] != self.num_pixels:
                raise ValueError(
                    f'split "{split_name}" has rows of {split.pixels.shape[1]} pixels; '
                    f"images of shape {self.image_shape} have {self.num_pixels}"
                )

    @property
    def contrast(self) -> float | None:
        """The norm that images are brought to, or None where their pixels are in [0, 1]."""
        return next((split.contrast for split in self.splits.values()), None)

    @property
    def num_pixels(self) -> int:
        """D, the number of pixels of one image over all channels."""
        num_channels, height, width = self.image_shape
        return num_channels * height * width

    def pixel_means(self, split: str = "train") -> NDArray[np.float64]:
        """Return the mean of each divided pixel over a split.

        For uint8 the sums are integers, so the only rounding is that of one division a pixel.

        Parameters
        ----------
        split : str, optional
            The split's name.

        Returns
        -------
        array (D,), float64
            In [0, 1].

        Raises
        ------
        ValueError
            If there is no such split, or it has no rows.
        """
        if split not in self.splits:
            raise ValueError(f'{self.name} has no split "{split}"; it has {", ".join(self.splits)}')
        rows = self.splits[split]
        if len(rows) == 0:
            raise ValueError(f'split "{split}" of {self.name} has no rows to take a mean of')
        sum_dtype = np.int64 if rows.pixels.dtype == np.uint8 else np.float64
        total = np.zeros(self.num_pixels, sum_dtype)
        for start in range(0, len(rows), CHUNK_ROWS):
            total += rows.pixels[start : start + CHUNK_ROWS].sum(axis=0, dtype=sum_dtype)
        return np.divide(total, len(rows) * rows.divisor, dtype=np.float64)


@dataclass(frozen=True)
class FileCheck:
    """What was found where one file of a data set should be.

    Parameters
    ----------
    file : str
        The file's name, without the endings of its variants.
    path : path or None
        Where it lies; None if it is missing.
    expected : str
        SHA-256 (hexadecimal) that its uncompressed content must have; empty where none is published, so that its
        layout alone can be checked.
    found : str or None
        The SHA-256 that it has; None if the file is missing or cannot be read to its end.
    problem : str
        What is wrong, as a sentence; empty if nothing is.
    """

    file: str
    path: Path | None
    expected: str
    found: str | None
    problem: str

    @property
    def ok(self) -> bool:
        """Whether the file is there, whole, and what it should be."""
        return not self.problem
