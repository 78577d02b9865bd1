"""CIFAR-10 in its binary version: records of one label byte and 3,072 pixel bytes (R, G, B planes, row by row).

The archive is known by its SHA-256 and read without being unpacked. An unpacked folder has no digest to be known by
(the same images circulate re-encoded), so it is known by its files' sizes and labels, and its digests are recorded in
every run. The Python version is a pickle, which runs what it likes when it is loaded: it is never read.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fastgan.datasets.dataset import DamagedFileError, Dataset, FileCheck, Progress, Split, TruncatedFileError
from fastgan.datasets.folders import cache_folder, search_places
from fastgan.errors import DataError

ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
FILES = (*TRAIN_FILES, TEST_FILE)
# What the Python version is called, packed and unpacked.
PICKLES = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1")
NUM_CLASSES = 10

# The recipe's contrast normalisation: an image's mean is removed, and what is left is scaled to this L2 norm.
CONTRAST = 55.0

_FETCH_AGAIN = "delete it and fetch it again (`fastgan data fetch cifar10`)"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class CifarDataset:
    """The registry's entry for ``cifar10``.

    The first of the training images are the split "train", the last ``num_valid`` the split "valid", in file order.

    Parameters
    ----------
    name : str, optional
        The registered name, and the name of its folder.
    num_records : int, optional
        Images a file.
    num_valid : int, optional
        Rows of "valid".
    num_validation : int, optional
        How many leading rows of "valid" choose the Parzen sigma.
    archive_sha256 : str, optional
        Digest (hexadecimal) of the packed archive.
    archive_bytes : int, optional
        Its length.
    mirrors : tuple of str, optional
        Addresses of folders that hold the archive, tried in this order.
    """

    name: str = "cifar10"
    num_records: int = 10_000
    num_valid: int = 10_000
    num_validation: int = 1_000
    archive_sha256: str = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    archive_bytes: int = 170_052_171
    mirrors: tuple[str, ...] = ("https://www.cs.toronto.edu/~kriz/",)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W): red, green, blue."""
        return (3, 32, 32)

    @property
    def split_sizes(self) -> Mapping[str, int]:
        """Rows of each split."""
        num_train = len(TRAIN_FILES) * self.num_records - self.num_valid
        return {"train": num_train, "valid": self.num_valid, "test": self.num_records}

    @property
    def _record_bytes(self) -> int:
        return 1 + 3 * 32 * 32

    @property
    def _file_bytes(self) -> int:
        return self.num_records * self._record_bytes

    def find(self, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
        """Return the folder that holds the six files, or the archive, whatever their content; None if no place does.

        Raises
        ------
        DataError
            If the first folder that holds some of the files does not hold all of them, or there is nothing but the
            Python version.
        """
        located = self._locate(data_dir)
        return None if located is None else located if located.is_dir() else located.parent

    def fetch(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Make sure that the images are there and right; download the archive where there are none.

        Parameters
        ----------
        data_dir : path, optional
            Where to look, and to put the archive: into the folder itself if it is named after the data set, else into
            a folder of that name in it. Unless given, the usual places are looked into, and the cache folder takes it.
        mirror : str, optional
            An http(s) address to use instead of the known one; ``<mirror>/cifar-10-binary.tar.gz`` must be there.
        progress : callable, optional
            Called as ``progress(file name, bytes done, bytes in all or None)``.

        Returns
        -------
        path
            The folder that holds the archive, or the files.

        Raises
        ------
        ConfigError
            If ``mirror`` is not an http(s) address.
        DataError
            If what is there is not what it should be, the download fails, or the folder cannot be written.
        """
        from fastgan.datasets.download import checked_mirror, download

        mirrors = self.mirrors if mirror is None else (checked_mirror(mirror),)
        located = self._locate(data_dir, refuse_pickles=False)
        if located is not None:
            for _ in self._read(located):
                pass
            return located if located.is_dir() else located.parent
        place = cache_folder() if data_dir is None else Path(data_dir)
        folder = place if place.name == self.name else place / self.name
        urls = [f"{base.rstrip('/')}/{ARCHIVE}" for base in mirrors]
        download(
            urls, folder / ARCHIVE, max_bytes=self.archive_bytes, check=self._check_archive, progress=progress
        )  # fmt: skip
        return folder

    def verify(self, data_dir: str | os.PathLike[str] | None = None) -> tuple[FileCheck, ...]:
        """Check the archive's digest, or of each file of a folder its size and labels.

        Raises
        ------
        DataError
            If there is neither.
        """
        located = self._locate(data_dir)
        if located is None:
            raise DataError(self._not_found(data_dir))
        if not located.is_dir():
            try:
                self._check_archive(located)
            except DataError as error:
                return (FileCheck(ARCHIVE, located, self.archive_sha256, None, str(error)),)
            return (FileCheck(ARCHIVE, located, self.archive_sha256, self.archive_sha256, ""),)
        checks = []
        for name in FILES:
            try:
                checks.append(FileCheck(name, located / name, "", self._read_file(located / name)[1], ""))
            except DataError as error:
                checks.append(FileCheck(name, located / name, "", None, str(error)))
        return tuple(checks)

    def load(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        download: bool = True,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Read the images; download the archive into the cache folder if no place holds any.

        Raises
        ------
        DataError
            If they are missing (and ``data_dir`` is given or ``download`` is false) or not what they should be.
        """
        located = self._locate(data_dir)
        if located is None:
            if data_dir is not None or not download:
                raise DataError(self._not_found(data_dir))
            located = self.fetch(None, mirror, progress) / ARCHIVE
        n = self.num_records
        pixels = np.empty((len(FILES) * n, 3 * 32 * 32), np.uint8)
        labels = np.empty(len(FILES) * n, np.int64)
        digests = {}
        for name, records, digest in self._read(located):
            rows = slice(FILES.index(name) * n, (FILES.index(name) + 1) * n)
            labels[rows], pixels[rows] = records[:, 0], records[:, 1:]
            digests[name] = digest
        splits, start = {}, 0
        for split_name, num_rows in self.split_sizes.items():
            rows = slice(start, start + num_rows)
            splits[split_name] = Split(pixels[rows], 255.0, labels[rows], contrast=CONTRAST)
            start += num_rows
        # By name, so that the archive and the folder that was made from it have the same record.
        digests = {name: digests[name] for name in FILES}
        return Dataset(self.name, self.image_shape, splits, str(located), digests, self.num_validation)

    def _candidates(self, data_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
        for place in search_places(data_dir):
            for folder in (place / self.name, place):
                yield folder / FOLDER
                yield folder

    def _locate(self, data_dir: str | os.PathLike[str] | None, *, refuse_pickles: bool = True) -> Path | None:
        """Return the first folder that holds the files, or the first archive."""
        pickled = None
        for folder in self._candidates(data_dir):
            there = [name for name in FILES if (folder / name).is_file()]
            if there and len(there) < len(FILES):
                missing = ", ".join(name for name in FILES if name not in there)
                raise DataError(
                    f"{folder} holds {', '.join(there)} of {self.name} but lacks {missing}; unpack the archive again"
                )
            if there:
                return folder
            if (folder / ARCHIVE).is_file():
                return folder / ARCHIVE
            pickled = pickled or next((folder / name for name in PICKLES if (folder / name).exists()), None)
        if pickled is not None and refuse_pickles:
            raise DataError(
                f"{pickled} is the Python version of CIFAR-10, a pickle, which can run any code when it is loaded, so "
                "it is not read; fetch the binary version (`fastgan data fetch cifar10`)"
            )
        return None

    def _read(self, located: Path) -> Iterator[tuple[str, NDArray[np.uint8], str]]:
        """Yield each file's name, its records (num_records, 3073) and its SHA-256."""
        if located.is_dir():
            for name in FILES:
                yield name, *self._read_file(located / name)
            return
        # Nothing of an archive is looked at before its digest is known to be right.
        self._check_archive(located)
        found = set()
        try:
            with tarfile.open(located, "r|gz") as archive:
                for member in archive:
                    name = member.name.removeprefix(f"{FOLDER}/")
                    if name not in FILES or name in found:
                        continue
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is None or member.size != self._file_bytes:
                        raise DamagedFileError(
                            located,
                            f"holds a {member.name} of {member.size:,} bytes where {self._file_bytes:,} belong",
                            _FETCH_AGAIN,
                        )
                    found.add(name)
                    yield name, *self._read_records(file, located)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise DamagedFileError(located, f"cannot be read ({error})", _FETCH_AGAIN) from error
        if len(found) < len(FILES):
            missing = ", ".join(name for name in FILES if name not in found)
            raise DamagedFileError(located, f"lacks {missing}", _FETCH_AGAIN)

    def _read_file(self, path: Path) -> tuple[NDArray[np.uint8], str]:
        try:
            size = path.stat().st_size
            if size != self._file_bytes:
                raise DamagedFileError(
                    path,
                    f"is {size:,} bytes long where {self.num_records:,} records of {self._record_bytes:,} bytes make "
                    f"{self._file_bytes:,}",
                    "it is damaged or belongs to another data set, so unpack the archive again",
                )
            with open(path, "rb") as file:
                return self._read_records(file, path)
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
            raise DamagedFileError(path, problem, "check the path and its permissions") from error

    def _read_records(self, file: IO[bytes], path: Path) -> tuple[NDArray[np.uint8], str]:
        content = file.read(self._file_bytes)
        if len(content) != self._file_bytes:
            raise TruncatedFileError(path, f"ends after {len(content):,} bytes of a file", _FETCH_AGAIN)
        records = np.frombuffer(content, np.uint8).reshape(self.num_records, self._record_bytes)
        wrong = np.flatnonzero(records[:, 0] >= NUM_CLASSES)
        if len(wrong):
            raise DamagedFileError(
                path,
                f"holds the label {records[wrong[0], 0]} in record {wrong[0]}, where labels are 0 to {NUM_CLASSES - 1}",
                "it is damaged or belongs to another data set, so unpack the archive again",
            )
        return records, hashlib.sha256(content).hexdigest()

    def _check_archive(self, path: Path) -> None:
        digest = hashlib.sha256()
        try:
            size = path.stat().st_size
            if size < self.archive_bytes:
                problem = f"is {size:,} bytes long where {self.archive_bytes:,} belong"
                raise TruncatedFileError(path, problem, _FETCH_AGAIN)
            if size == self.archive_bytes:
                with open(path, "rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        digest.update(chunk)
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
            raise DamagedFileError(path, problem, "check the path and its permissions") from error
        if size != self.archive_bytes or digest.hexdigest() != self.archive_sha256:
            raise DamagedFileError(
                path,
                f"is not the archive of the binary version, whose SHA-256 is {self.archive_sha256}",
                _FETCH_AGAIN,
            )

    def _not_found(self, data_dir: str | os.PathLike[str] | None) -> str:
        folders = ", ".join(str(folder) for folder in self._candidates(data_dir))
        option = "" if data_dir is None else f" --data-dir {data_dir}"
        return (
            f"{self.name} was not found: neither {ARCHIVE} nor {', '.join(FILES)} is in {folders}; "
            f"run `fastgan data fetch {self.name}{option}` to download it"
        )


CIFAR10 = CifarDataset()
