"""MNIST and the data sets that share its format, IDX: big-endian header, then the bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastgan.datasets.dataset import DamagedFileError, Dataset, FileCheck, Progress, Split, TruncatedFileError
from fastgan.datasets.folders import cache_folder, search_places
from fastgan.errors import DataError

# The magic number is 0x0800 (unsigned bytes) plus the number of dimensions.
KINDS = {1: "labels", 3: "images"}
CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"

FETCH_AGAIN = "delete it and fetch it again (`fastgan data fetch NAME`)"
REPLACE = "put the right file in its place (`fastgan data fetch NAME`)"

# Data sets whose files bear the very same names, so that only the folder's name tells them apart.
NAMESAKES = ("mnist", "fashion-mnist")


@dataclass(frozen=True)
class IdxFile:
    """One file of a data set.

    Parameters
    ----------
    name : str
        Such as "train-images-idx3-ubyte", without ".gz".
    shape : tuple of int
        (N,) for labels, (N, H, W) for images.
    sha256 : str
        Digest (hexadecimal) of the uncompressed file, header and all.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str

    def variants(self) -> tuple[str, ...]:
        """Return the names under which the file circulates, the quickest to read first."""
        dotted = self.name.replace("-idx", ".idx")
        return (self.name, dotted, f"{self.name}.gz", f"{dotted}.gz")

    @property
    def max_download(self) -> int:
        """The most bytes that its .gz may have: gzip never makes content longer than by its headers."""
        content = 4 * (1 + len(self.shape)) + math.prod(self.shape)
        return content + content // 1000 + 65536


@dataclass(frozen=True)
class IdxDataset:
    """A data set of four IDX files: images and labels, for training and for testing.

    The last ``num_valid`` training images are the split "valid", the others "train".

    Parameters
    ----------
    name : str
        The registered name, and the name of its folder.
    train_images, train_labels, test_images, test_labels : IdxFile
        Its files.
    mirrors : tuple of str
        Addresses of folders that hold the files as .gz, tried in this order.
    num_valid : int, optional
        Rows of "valid".
    num_validation : int, optional
        How many leading rows of "valid" choose the Parzen sigma.
    """

    name: str
    train_images: IdxFile
    train_labels: IdxFile
    test_images: IdxFile
    test_labels: IdxFile
    mirrors: tuple[str, ...]
    num_valid: int = 10_000
    num_validation: int = 1_000

    @property
    def files(self) -> tuple[IdxFile, ...]:
        """The four files."""
        return (self.train_images, self.train_labels, self.test_images, self.test_labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), with one channel."""
        return (1, self.train_images.shape[1], self.train_images.shape[2])

    @property
    def split_sizes(self) -> Mapping[str, int]:
        """Rows of each split."""
        num_train = self.train_images.shape[0] - self.num_valid
        return {"train": num_train, "valid": self.num_valid, "test": self.test_images.shape[0]}

    def find(self, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
        """Return the folder that holds all files, whatever their content, or None if no place holds any.

        Raises
        ------
        DataError
            If the first folder that holds some of the files does not hold all of them.
        """
        located = self._locate(data_dir)
        if located is None:
            return None
        folder, paths = located
        if len(paths) < len(self.files):
            raise DataError(self._incomplete(folder, paths))
        return folder

    def fetch(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Make sure that the files are there and right; download those that are missing.

        Parameters
        ----------
        data_dir : path, optional
            Where to look, and to put what is missing: into the folder itself if it holds some of the files already or
            is named after the data set, else into a folder of that name in it. Unless given, the usual places are
            looked into; the first folder that holds some of the files is completed, else the cache folder takes them.
        mirror : str, optional
            An http(s) address to use instead of the known ones; ``<mirror>/<file name>.gz`` must be there.
        progress : callable, optional
            Called as ``progress(file name, bytes done, bytes in all or None)``.

        Returns
        -------
        path
            The folder that holds the files.

        Raises
        ------
        ConfigError
            If ``mirror`` is not an http(s) address.
        DataError
            If a file that is there is not what it should be (it is left as it is), a download fails, or the folder
            cannot be written.
        """
        # urllib and what it brings take 20 ms to import, which only a download should cost.
        from fastgan.datasets.download import checked_mirror, download

        mirrors = self.mirrors if mirror is None else (checked_mirror(mirror),)
        located = self._locate(data_dir)
        folder, paths = located if located is not None else (self._new_folder(data_dir), {})
        for file in self.files:
            if file.name in paths:
                _read_checked(file, paths[file.name])
                continue
            urls = [f"{base.rstrip('/')}/{file.name}.gz" for base in mirrors]

            def check(path: Path, file: IdxFile = file) -> None:
                _read_checked(file, path)

            download(urls, folder / f"{file.name}.gz", max_bytes=file.max_download, check=check, progress=progress)
        return folder

    def verify(self, data_dir: str | os.PathLike[str] | None = None) -> tuple[FileCheck, ...]:
        """Check every file's digest, and say of each what is wrong with it.

        Raises
        ------
        DataError
            If none of the files is found, or a file's place is taken by a folder.
        """
        located = self._locate(data_dir)
        if located is None:
            raise DataError(self._not_found(data_dir))
        folder, paths = located
        return tuple(_check(file, paths.get(file.name), folder) for file in self.files)

    def load(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        download: bool = True,
        mirror: str | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Read the files and check their digests; download them into the cache folder if no place holds them.

        Raises
        ------
        DataError
            If the files are missing (and ``data_dir`` is given or ``download`` is false) or not what they should be.
        """
        located = self._locate(data_dir)
        folder, paths = located if located is not None else (None, {})
        if len(paths) < len(self.files):
            # Only the cache folder is ours to complete: in any other a missing file is for the user to know about.
            if folder is not None and folder != self._new_folder(None):
                raise DataError(self._incomplete(folder, paths))
            if data_dir is not None or not download:
                raise DataError(self._not_found(data_dir) if folder is None else self._incomplete(folder, paths))
            folder = self.fetch(None, mirror, progress)
            paths = self._paths_in(folder)
        arrays = {file.name: _read_checked(file, paths[file.name]) for file in self.files}

        num_pixels = math.prod(self.image_shape)
        train_pixels = arrays[self.train_images.name].reshape(-1, num_pixels)
        test_pixels = arrays[self.test_images.name].reshape(-1, num_pixels)
        train_labels = arrays[self.train_labels.name].astype(np.int64)
        test_labels = arrays[self.test_labels.name].astype(np.int64)
        num_train = self.split_sizes["train"]
        return Dataset(
            self.name,
            self.image_shape,
            {
                "train": Split(train_pixels[:num_train], 255.0, train_labels[:num_train]),
                "valid": Split(train_pixels[num_train:], 255.0, train_labels[num_train:]),
                "test": Split(test_pixels, 255.0, test_labels),
            },
            str(folder),
            {file.name: file.sha256 for file in self.files},
            self.num_validation,
        )

    def _candidates(self, data_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
        """Yield the folders to look into; a folder named after a namesake is that data set's own."""
        for place in search_places(data_dir):
            yield place / self.name
            if place.name == self.name or place.name not in NAMESAKES:
                yield place

    def _locate(self, data_dir: str | os.PathLike[str] | None) -> tuple[Path, dict[str, Path]] | None:
        """Return the first folder that holds any of the files, and file name -> path of those that it holds."""
        for folder in self._candidates(data_dir):
            if paths := self._paths_in(folder):
                return folder, paths
        return None

    def _paths_in(self, folder: Path) -> dict[str, Path]:
        paths = {}
        for file in self.files:
            variants = [folder / variant for variant in file.variants()]
            path = next((path for path in variants if path.is_file()), None)
            # Some programs unpack X.gz into a folder X that holds X.
            taken = next((path for path in variants if path.is_dir()), None)
            if path is not None:
                paths[file.name] = path
            elif taken is not None:
                raise DataError(
                    f"{taken} is a folder where a file of {self.name} is expected; move the file in it up to {folder}"
                )
        return paths

    def _new_folder(self, data_dir: str | os.PathLike[str] | None) -> Path:
        """Return the folder that takes downloads where no file has been found yet."""
        place = cache_folder() if data_dir is None else Path(data_dir)
        return place if place.name == self.name else place / self.name

    def _fetch_command(self, data_dir: str | os.PathLike[str] | None) -> str:
        option = "" if data_dir is None else f" --data-dir {data_dir}"
        return f"`fastgan data fetch {self.name}{option}`"

    def _not_found(self, data_dir: str | os.PathLike[str] | None) -> str:
        folders = ", ".join(str(folder) for folder in self._candidates(data_dir))
        return (
            f"{self.name} was not found: none of {', '.join(file.name for file in self.files)} (raw or .gz) "
            f"is in {folders}; run {self._fetch_command(data_dir)} to download it"
        )

    def _incomplete(self, folder: Path, paths: Mapping[str, Path]) -> str:
        missing = ", ".join(file.name for file in self.files if file.name not in paths)
        return (
            f"{folder} holds {', '.join(path.name for path in paths.values())} of {self.name} but lacks {missing} "
            f"(raw or .gz); run {self._fetch_command(folder)} to complete it"
        )


def read_idx(path: str | os.PathLike[str], shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], str]:
    """Read an IDX file of unsigned bytes, raw or compressed by gzip, whose shape is known.

    Which of the two it is, is told by its first bytes. Never more than the shape's bytes are decompressed, so a small
    file cannot fill the memory.

    Parameters
    ----------
    path : path
        The file.
    shape : tuple of int
        (N,) of labels or (N, H, W) of images.

    Returns
    -------
    array of that shape, uint8
        C-contiguous.
    str
        SHA-256 (hexadecimal) of the uncompressed file, header and all.

    Raises
    ------
    TruncatedFileError
        If it ends too early.
    DamagedFileError
        If it cannot be read, or its magic number, its counts or its length are not those of ``shape``.
    """
    try:
        with open(path, "rb") as raw:
            start = raw.read(len(GZIP_MAGIC))
            if not start:
                raise TruncatedFileError(path, "is empty", FETCH_AGAIN)
            raw.seek(0)
            if start == GZIP_MAGIC:
                with gzip.open(raw) as content:
                    return _read_content(content, path, shape, None)
            return _read_content(raw, path, shape, os.fstat(raw.fileno()).st_size)
    except EOFError as error:
        raise TruncatedFileError(path, "is a gzip file that ends too early", FETCH_AGAIN) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFileError(path, f"is a damaged gzip file ({error})", FETCH_AGAIN) from error
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise DamagedFileError(path, problem, "check the path and its permissions") from error


def _read_content(
    content: io.BufferedIOBase | gzip.GzipFile,
    path: str | os.PathLike[str],
    shape: tuple[int, ...],
    num_bytes: int | None,
) -> tuple[NDArray[np.uint8], str]:
    """Read header and bytes; ``num_bytes`` is the content's length where it is known before reading."""
    header_format = f">{1 + len(shape)}I"
    header_size, body_size = struct.calcsize(header_format), math.prod(shape)
    kind, magic = KINDS[len(shape)], 0x0800 + len(shape)

    header = content.read(header_size)
    found_magic = int.from_bytes(header[:4], "big")
    if len(header) >= 4 and found_magic != magic:
        problem = f"starts with the number {found_magic} where {magic} stands in an IDX file of {kind}"
        raise DamagedFileError(path, problem, REPLACE)
    if len(header) < header_size:
        raise TruncatedFileError(path, "ends inside its header", FETCH_AGAIN)
    counts = struct.unpack(header_format, header)[1:]
    told = f"says that it holds {_times(counts)} {kind}"
    told_size = header_size + math.prod(counts)
    if num_bytes is not None and num_bytes != told_size:
        kind_of_error = TruncatedFileError if num_bytes < told_size else DamagedFileError
        problem = f"{told}, which takes {told_size:,} bytes, but is {num_bytes:,} bytes long"
        raise kind_of_error(path, problem, FETCH_AGAIN)
    if counts != shape:
        raise DamagedFileError(path, f"{told} where {_times(shape)} belong", REPLACE)

    body = np.empty(body_size, np.uint8)
    view, done = memoryview(body), 0
    digest = hashlib.sha256(header)
    while done < body_size:
        num_read = content.readinto(view[done : done + CHUNK_BYTES])
        if not num_read:
            raise TruncatedFileError(path, f"{told}, {body_size:,} bytes, but ends after {done:,}", FETCH_AGAIN)
        digest.update(view[done : done + num_read])
        done += num_read
    # Reading beyond the last byte also makes gzip compare its checksum.
    if content.read(1):
        raise DamagedFileError(path, f"{told} but goes on after them", FETCH_AGAIN)
    return body.reshape(shape), digest.hexdigest()


def _read_checked(file: IdxFile, path: Path) -> NDArray[np.uint8]:
    array, found = read_idx(path, file.shape)
    if found != file.sha256:
        raise _wrong_digest(file, path, found)
    return array


def _check(file: IdxFile, path: Path | None, folder: Path) -> FileCheck:
    if path is None:
        return FileCheck(file.name, None, file.sha256, None, f"{file.name} (raw or .gz) is not in {folder}")
    try:
        found = read_idx(path, file.shape)[1]
    except DataError as error:
        return FileCheck(file.name, path, file.sha256, None, str(error))
    problem = "" if found == file.sha256 else str(_wrong_digest(file, path, found))
    return FileCheck(file.name, path, file.sha256, found, problem)


def _wrong_digest(file: IdxFile, path: Path, found: str) -> DamagedFileError:
    return DamagedFileError(
        path,
        f"has the wrong content: its SHA-256 is {found} where {file.sha256} is expected",
        "it is damaged or belongs to another data set, so delete it or move it away, and fetch it again",
    )


def _times(counts: tuple[int, ...]) -> str:
    return " x ".join(f"{count:,}" for count in counts)


MNIST = IdxDataset(
    name="mnist",
    train_images=IdxFile(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    train_labels=IdxFile(
        "train-labels-idx1-ubyte", (60_000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    test_images=IdxFile(
        "t10k-images-idx3-ubyte", (10_000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    test_labels=IdxFile(
        "t10k-labels-idx1-ubyte", (10_000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)

FASHION_MNIST = IdxDataset(
    name="fashion-mnist",
    train_images=IdxFile(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    train_labels=IdxFile(
        "train-labels-idx1-ubyte", (60_000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    test_images=IdxFile(
        "t10k-images-idx3-ubyte", (10_000, 28, 28), "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    test_labels=IdxFile(
        "t10k-labels-idx1-ubyte", (10_000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
)
