"""The Toronto Face Database: a MATLAB 5 file that its owners give out on request, so the user brings it.

``images`` (N, 48, 48) hold 0 … 255; ``folds`` (N, 5) say of each image, in each of five folds, 0 unlabelled, 1 train,
2 valid, 3 test; ``labs_ex`` (N,) are the expressions 1 … 7, -1 where there is none; ``labs_id`` the identities, which
nothing here needs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastgan.datasets.dataset import CHUNK_ROWS, DamagedFileError, Dataset, FileCheck, Progress, Split
from fastgan.datasets.folders import search_places
from fastgan.datasets.mat import read_arrays
from fastgan.errors import DataError

FILE = "TFD_48x48.mat"
NUM_FOLDS: Final = 5
_SIDE = 48
# Split by fold code. What is trained on is "train" in every data set: here the unlabelled, the same in each fold.
_CODES = {"train": 0, "labelled": 1, "valid": 2, "test": 3}
_WHERE_FROM = (
    "the Toronto Face Database is given out by its owners on request and cannot be downloaded: ask the University of "
    f"Toronto's machine learning group for {FILE}, and name its folder by --data-dir or $FASTGAN_DATA"
)
_REPLACE = f"put the {FILE} that its owners give out in its place"


@dataclass(frozen=True)
class TfdDataset:
    """The registry's entry for ``tfd``.

    The splits are "train", the unlabelled images, which the paper's generator learns from; and by the fold's codes
    "labelled" (code 1), "valid" (2, all of which chooses the Parzen sigma) and "test" (3).

    Parameters
    ----------
    name : str, optional
        The registered name, and the name of its folder.
    num_images, num_unlabelled : int, optional
        How many the file holds.
    fold : int, optional
        0 to 4.
    """

    name: str = "tfd"
    num_images: int = 102_236
    num_unlabelled: int = 98_058
    fold: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), with one channel."""
        return (1, _SIDE, _SIDE)

    @property
    def split_sizes(self) -> Mapping[str, int]:
        """Rows of "train", and of the other three together: how they share them is the fold's affair."""
        return {"train": self.num_unlabelled, "folds": self.num_images - self.num_unlabelled}

    def find(self, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
        """Return the folder that holds the file, whatever its content, or None if no place does."""
        for folder in self._candidates(data_dir):
            if (folder / FILE).is_file():
                return folder
        return None

    def fetch(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Return the folder that holds the file, which nobody but its owners gives out.

        Raises
        ------
        DataError
            If there is none; the sentence says where it comes from.
        """
        folder = self.find(data_dir)
        if folder is None:
            raise DataError(self._not_found(data_dir))
        return folder

    def verify(self, data_dir: str | os.PathLike[str] | None = None) -> tuple[FileCheck, ...]:
        """Check the file's arrays; there is no published digest to hold it against.

        Raises
        ------
        DataError
            If it is not found.
        """
        path = self.fetch(data_dir) / FILE
        try:
            return (FileCheck(FILE, path, "", self._read(path)[1], ""),)
        except DataError as error:
            return (FileCheck(FILE, path, "", None, str(error)),)

    def load(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        download: bool = True,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Read the file and split it by the fold's codes; it is never downloaded.

        Raises
        ------
        DataError
            If the file is missing, cannot be read, or does not hold what it should.
        """
        folder = self.fetch(data_dir)
        (pixels, codes, labels), digest = self._read(folder / FILE)
        splits = {}
        for split_name, code in _CODES.items():
            rows = np.flatnonzero(codes == code)
            splits[split_name] = Split(pixels[rows], 255.0, labels[rows])
        num_validation = len(splits["valid"])
        return Dataset(self.name, self.image_shape, splits, str(folder), {FILE: digest}, num_validation)

    def _candidates(self, data_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
        for place in search_places(data_dir):
            yield place / self.name
            yield place

    def _not_found(self, data_dir: str | os.PathLike[str] | None) -> str:
        folders = ", ".join(str(folder) for folder in self._candidates(data_dir))
        return f"{FILE} was not found in {folders}; {_WHERE_FROM}"

    def _read(self, path: Path) -> tuple[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]], str]:
        """Give pixels (N, 2304), the fold's codes (N,) and labels (N,), and the file's SHA-256."""
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                shapes: dict[str, list[tuple[int, ...]]] = {
                    "images": [(self.num_images, _SIDE, _SIDE)],
                    "folds": [(self.num_images, NUM_FOLDS)],
                    "labs_ex": [(self.num_images, 1), (1, self.num_images)],
                }
                arrays = read_arrays(file, path, shapes, _REPLACE)
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
            raise DamagedFileError(path, problem, "check the path and its permissions") from error
        codes = _whole_numbers(path, "folds", arrays["folds"], 0, 3)
        if not ((codes == 0) == (codes[:, :1] == 0)).all():
            raise DamagedFileError(path, "holds images that are unlabelled in some folds only", _REPLACE)
        num_unlabelled = int((codes[:, 0] == 0).sum())
        if num_unlabelled != self.num_unlabelled:
            problem = f"holds {num_unlabelled:,} unlabelled images where {self.num_unlabelled:,} belong"
            raise DamagedFileError(path, problem, _REPLACE)
        codes_N = codes[:, self.fold]
        for split_name in ("valid", "test"):
            if not (codes_N == _CODES[split_name]).any():
                raise DamagedFileError(path, f"has no {split_name} images in fold {self.fold}", _REPLACE)
        labels = _whole_numbers(path, "labs_ex", arrays["labs_ex"].reshape(-1), -1, 7)
        pixels = np.empty((self.num_images, _SIDE * _SIDE), np.uint8)
        for start in range(0, self.num_images, CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            chunk = _whole_numbers(path, "images", arrays["images"][rows], 0, 255)
            pixels[rows] = chunk.reshape(len(chunk), -1)
        return (pixels, codes_N, labels), digest


def _whole_numbers(path: Path, name: str, array: NDArray[Any], low: int, high: int) -> NDArray[np.int64]:
    # A comparison with NaN is false, so that this refuses it too.
    if not ((array >= low) & (array <= high) & (array == np.floor(array))).all():
        raise DamagedFileError(path, f"holds {name} that are not whole numbers from {low} to {high}", _REPLACE)
    return array.astype(np.int64)


TFD = TfdDataset()
