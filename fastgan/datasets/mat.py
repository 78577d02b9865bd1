"""Arrays of numbers from a MATLAB 5 file, read so that no file can harm: bounded memory, and one kind of error.

SciPy reads these files too, but ends the process on some damaged ones, where an element's type is none. Of the format
("MAT-File Format", The MathWorks) only what holds an array of real numbers is read; everything else is passed over.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from fastgan.datasets.dataset import DamagedFileError

Shape = tuple[int, ...]

_HEADER_BYTES: Final = 128
_CHUNK_BYTES: Final = 1 << 20
# Types of elements.
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
# Classes of arrays; the numbers' own are 6 to 15. What comes after those has another head.
_CLASSES = {1: "cells", 2: "structures", 3: "objects", 4: "text", 5: "a sparse matrix"}
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x08
_MOST_DIMENSIONS, _LONGEST_NAME = 32, 256


def read_arrays(
    file: IO[bytes], path: Path, wanted: Mapping[str, Sequence[Shape]], remedy: str
) -> dict[str, NDArray[Any]]:
    """Read arrays whose names and shapes are known beforehand.

    Parameters
    ----------
    file : binary file
        The whole file, open at any place.
    path : path
        What it is called in an error.
    wanted : mapping of str to sequence of shapes
        Name to the shapes that the array may have; no more memory than such a shape's is ever taken.
    remedy : str
        What an error tells the user to do.

    Returns
    -------
    dict
        Each wanted array, of the kind of number that it is stored as.

    Raises
    ------
    DamagedFileError
        The file is none of MATLAB's version 5, an array is missing, of another kind or shape, there twice, or damaged.
    """
    return _Reader(file, path, wanted, remedy).arrays


class _Reader:
    def __init__(self, file: IO[bytes], path: Path, wanted: Mapping[str, Sequence[Shape]], remedy: str) -> None:
        self._path, self._wanted, self._remedy = path, wanted, remedy
        self.arrays: dict[str, NDArray[Any]] = {}
        file.seek(0)
        header = file.read(_HEADER_BYTES)
        self._order = {b"IM": "<", b"MI": ">"}.get(header[126:], "")
        if not self._order or struct.unpack(f"{self._order}H", header[124:126])[0] != 0x0100:
            raise self._damaged("is not a MATLAB 5 file")
        end = os.fstat(file.fileno()).st_size
        while tag := file.read(8):
            if len(tag) < 8:
                raise self._damaged("ends inside the head of an array")
            kind, num_bytes = struct.unpack(f"{self._order}II", tag)
            after = file.tell() + num_bytes
            if after > end:
                raise self._damaged("ends inside an array")
            self._read_element(kind, _Stored(file, num_bytes))
            file.seek(after)
        missing = [name for name in wanted if name not in self.arrays]
        if missing:
            raise self._damaged(f"holds no {' and no '.join(missing)}")

    def _read_element(self, kind: int, content: _Stored) -> None:
        source: _Stored | _Packed = content
        try:
            if kind == _COMPRESSED:
                source = _Packed(content)
                kind = struct.unpack(f"{self._order}II", source.read(8))[0]
            if kind == _MATRIX:
                self._read_matrix(source)
        except EOFError as error:
            raise self._damaged("ends inside an array") from error
        except zlib.error as error:
            raise self._damaged(f"holds an array that cannot be unpacked ({error})") from error

    def _read_matrix(self, source: _Stored | _Packed) -> None:
        flags = self._read_part(source, _UINT32, 8)
        if len(flags) < 8:
            raise self._damaged("holds an array whose head cannot be read")
        (word,) = struct.unpack(f"{self._order}I", flags[:4])
        array_class, is_complex = word & 0xFF, bool(word >> 8 & _COMPLEX)
        if array_class not in _CLASSES and array_class not in _NUMERIC_CLASSES:
            return
        sizes = self._read_part(source, _INT32, 4 * _MOST_DIMENSIONS)
        shape = struct.unpack(f"{self._order}{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
        name = self._read_part(source, _INT8, _LONGEST_NAME).decode("latin-1")
        if name not in self._wanted:
            return
        if name in self.arrays:
            raise self._damaged(f"holds {name} twice")
        if shape not in self._wanted[name]:
            told = " or ".join(_times(allowed) for allowed in self._wanted[name])
            raise self._damaged(f"holds {name} of the sizes {_times(shape)} where {told} belong")
        if array_class not in _NUMERIC_CLASSES or is_complex:
            raise self._damaged(f"holds {_CLASSES.get(array_class, 'complex numbers')} in {name}")
        kind, num_bytes, small = self._read_tag(source)
        if kind not in _NUMBERS:
            raise self._damaged(f"holds no numbers in {name}")
        dtype = np.dtype(f"{self._order}{_NUMBERS[kind]}")
        array = np.empty(shape, dtype, order="F")
        if num_bytes != array.nbytes:
            raise self._damaged(f"holds {num_bytes:,} bytes in {name} where {array.nbytes:,} belong")
        flat = array.reshape(-1, order="F").view(np.uint8)
        if small:
            flat[:] = np.frombuffer(small[:num_bytes], np.uint8)
        else:
            source.read_into(memoryview(flat))
            source.finish()
        self.arrays[name] = array

    def _read_part(self, source: _Stored | _Packed, kind: int, most: int) -> bytes:
        """Read a small element of an array's head."""
        found, num_bytes, small = self._read_tag(source)
        if found != kind or num_bytes > most:
            raise self._damaged("holds an array whose head cannot be read")
        if small:
            return small[:num_bytes]
        # Padded to a multiple of 8 bytes.
        return source.read(-(-num_bytes // 8) * 8)[:num_bytes]

    def _read_tag(self, source: _Stored | _Packed) -> tuple[int, int, bytes]:
        """Give an element's type, its length, and its content where that is in the tag itself (up to 4 bytes)."""
        tag = source.read(8)
        first, second = struct.unpack(f"{self._order}II", tag)
        if first >> 16:
            if first >> 16 > 4:
                raise self._damaged("holds an array whose head cannot be read")
            return first & 0xFFFF, first >> 16, tag[4:]
        return first, second, b""

    def _damaged(self, problem: str) -> DamagedFileError:
        return DamagedFileError(self._path, problem, self._remedy)


class _Stored:
    """The bytes of an element as they are stored."""

    def __init__(self, file: IO[bytes], num_bytes: int) -> None:
        self._file, self._left = file, num_bytes

    def read_some(self, most: int) -> bytes:
        """Give up to ``most`` bytes; none at the end."""
        chunk = self._file.read(min(most, self._left))
        self._left -= len(chunk)
        return chunk

    def read(self, num_bytes: int) -> bytes:
        """Give exactly so many bytes."""
        chunk = self.read_some(num_bytes)
        if len(chunk) < num_bytes:
            raise EOFError
        return chunk

    def read_into(self, target: memoryview) -> None:
        """Fill ``target``."""
        done = 0
        while done < len(target):
            chunk = self.read(min(_CHUNK_BYTES, len(target) - done))
            target[done : done + len(chunk)] = chunk
            done += len(chunk)

    def finish(self) -> None:
        """Check what can be checked at the end; here nothing."""


class _Packed(_Stored):
    """The bytes of an element that zlib packed, unpacked as far as they are asked for."""

    def __init__(self, packed: _Stored) -> None:
        self._packed = packed
        self._unpacker = zlib.decompressobj()
        self._waiting = b""

    def read_some(self, most: int) -> bytes:
        """Give up to ``most`` bytes; none at the end."""
        while not self._unpacker.eof:
            if not self._waiting:
                self._waiting = self._packed.read_some(_CHUNK_BYTES)
            is_last = not self._waiting
            chunk = self._unpacker.decompress(self._waiting, most)
            self._waiting = self._unpacker.unconsumed_tail
            if chunk or is_last:
                return chunk
        return b""

    def read(self, num_bytes: int) -> bytes:
        """Give exactly so many bytes."""
        parts, left = [], num_bytes
        while left:
            part = self.read_some(left)
            if not part:
                raise EOFError
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Read the padding that is left, which makes zlib compare its checksum."""
        self.read_some(8)
        self.read_some(8)
        if not self._unpacker.eof:
            raise EOFError


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape))
