"""The 1,797 handwritten digits of 8x8 pixels that come with the package: everything runs without a download."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastgan.datasets.dataset import Dataset, FileCheck, Progress, Split
from fastgan.errors import ConfigError, DataError

FILE = Path(__file__).with_name("digits.npz")

# Of the bytes of `pixels`, then of `labels`: the container's own bytes depend on the zlib that wrote it.
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


@dataclass(frozen=True)
class DigitsDataset:
    """The registry's entry for ``digits``: pixels from 0 to 16, split 1197/300/300 in file order.

    Source and licence (CC BY 4.0) are in ``digits.LICENSE.txt`` beside the file.
    """

    name: str = "digits"
    image_shape: tuple[int, int, int] = (1, 8, 8)
    split_sizes: Mapping[str, int] = field(default_factory=lambda: {"train": 1197, "valid": 300, "test": 300})

    def find(self, data_dir: str | os.PathLike[str] | None = None) -> Path:
        """Return the package's folder; ``data_dir`` has no meaning here, as the file comes with fastgan."""
        return FILE.parent

    def fetch(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Return the package's folder; there is nothing to fetch.

        Raises
        ------
        ConfigError
            If a folder or a mirror is given, which could only be ignored.
        """
        if data_dir is not None or mirror is not None:
            raise ConfigError("digits come inside fastgan and are not downloaded; leave the folder and the mirror away")
        return FILE.parent

    def verify(self, data_dir: str | os.PathLike[str] | None = None) -> tuple[FileCheck, ...]:
        """Check the digest of the package's own file."""
        try:
            found = _read()[2]
        except DataError as error:
            return (FileCheck(FILE.name, FILE, SHA256, None, str(error)),)
        return (FileCheck(FILE.name, FILE, SHA256, found, "" if found == SHA256 else _damaged(found)),)

    def load(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        download: bool = True,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Read the package's own file; the arguments have no meaning here.

        Raises
        ------
        DataError
            If the installed file is missing or damaged.
        """
        pixels, labels, found = _read()
        if found != SHA256:
            raise DataError(_damaged(found))
        splits, start = {}, 0
        for split_name, num_rows in self.split_sizes.items():
            rows = slice(start, start + num_rows)
            splits[split_name] = Split(pixels[rows], 16.0, labels[rows].astype(np.int64))
            start += num_rows
        return Dataset(
            self.name,
            self.image_shape,
            splits,
            "embedded",
            {FILE.name: found},
            num_validation=self.split_sizes["valid"],
        )


def _read() -> tuple[np.ndarray, np.ndarray, str]:
    try:
        # Opened here, as NumPy leaves a file open that turns out to be no zip file.
        with open(FILE, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            pixels, labels = arrays["pixels"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{FILE} cannot be read ({error}); install fastgan again") from error
    return pixels, labels, hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()


def _damaged(found: str) -> str:
    return f"{FILE} has the SHA-256 {found} where {SHA256} is expected; install fastgan again"
