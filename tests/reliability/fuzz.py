"""Every parser against mutated real files and made-up values: only our own sentences, soon, and in bounded memory."""

import contextlib
import gzip
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

import fastgan
from fastgan import checkpoint, datasets
from fastgan.checkpoint import Checkpoint
from fastgan.datasets.idx import read_idx
from fastgan.datasets.mat import read_arrays
from fastgan.errors import FastganError, FastganWarning
from tests.datasets.made_up import ARRAYS, CONTENT, TRAIN_IMAGES, TRAIN_LABELS
from tests.runs_for_tests import environment

# A case takes a hundredth of a second; this is a hang.
SECONDS = 20
# Memory that any case may take, and what it may take for each byte that is declared and can be there.
FREE, PER_BYTE = 64 << 20, 2
# What gzip's and zip's deflate can make of a byte.
INFLATED = 1032


class Parser:
    """A parser, some real inputs, and how many bytes one of them may declare at most.

    Parameters
    ----------
    name : str
    suffix : str
        Of the file that it reads.
    seeds : list of bytes
        Real inputs, and hostile ones.
    parse : callable
        Of a path.
    declared : callable
        Of the input's bytes: the most bytes that it may make of them.
    """

    def __init__(self, name, suffix, seeds, parse, declared):
        self.name, self.suffix, self.seeds, self.parse, self.declared = name, suffix, seeds, parse, declared


def _numpy_file(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def _npy_header(shape, dtype="|u1", data=b""):
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def _zip_file(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def _hdf5_file(fill):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


class _Evil:
    """What would make a file if it were ever unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def _pickled():
    with_objects = np.empty(10, object)
    with_objects[0] = _Evil()
    return _numpy_file(with_objects, allow_pickle=True)


IMAGES = np.random.default_rng(5).integers(0, 256, (20, 5, 4), dtype=np.uint8)
FLOATS = IMAGES.reshape(20, 20).astype(np.float32) / 255
LABELS = np.arange(20) % 10


def _hdf5_plain(file):
    file["images"] = IMAGES
    file["labels"] = LABELS


def _hdf5_chunked(file):
    file.create_dataset("x", data=FLOATS, chunks=(5, 20), compression="gzip", shuffle=True)


def _hdf5_never_written(file):
    file.create_dataset("images", shape=(10**9, 28, 28), dtype=np.uint8, chunks=(1000, 28, 28))


def _hdf5_labels_never_written(file):
    file["images"] = IMAGES
    file.create_dataset("labels", shape=(10**11,), dtype=np.int64, chunks=(10**6,))


def _made_checkpoint():
    run = fastgan.preset("digits").to_json()
    arrays = {"state": np.arange(8), "generator/0/W": FLOATS, "sums": np.zeros(4)}
    return checkpoint.encode(
        Checkpoint(arrays, {"config": run, "data": {}, "history": [], "seconds": 0.0, "reported": {}})
    )


CHECKPOINT = _made_checkpoint()


def _decode(path):
    content = path.read_bytes()
    checkpoint.decode(content, path)
    # A mutation may put a byte in its own place; anything else must have been refused.
    assert content == CHECKPOINT, "a changed checkpoint was read"


def _decode_with_its_digest(path):
    """As if somebody had damaged it on purpose: the digest is right."""
    content = path.read_bytes()
    body = memoryview(content)[512:]
    return checkpoint.decode(checkpoint._block(body) + bytes(body), path)


def _read_config(path):
    from fastgan.cli.train import _configuration

    return _configuration(str(path), {}).to_json()


IDX = CONTENT[TRAIN_IMAGES]
IDX_LABELS = CONTENT[TRAIN_LABELS]
IMAGES_SHAPE = ARRAYS[TRAIN_IMAGES].shape


def _uncompressed(content):
    return max(len(content), 1 << 16)


# What of a MATLAB file is asked for, by its shapes.
_MATLAB = {"images": [(40, 12, 12)], "folds": [(40, 5)]}


def _matlab_file(**options):
    rng, buffer = np.random.default_rng(5), io.BytesIO()
    images, folds = rng.integers(0, 256, (40, 12, 12), dtype=np.uint8), rng.integers(0, 4, (40, 5)).astype(np.float64)
    savemat(buffer, {"images": images, "folds": folds, "text": "more than is asked for"}, **options)
    return buffer.getvalue()


def _read_matlab(path):
    with path.open("rb") as file:
        read_arrays(file, path, _MATLAB, "ask its owners for another copy")


PARSERS = {
    parser.name: parser
    for parser in (
        Parser(
            "idx", "",
            [IDX, IDX_LABELS, struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1)],
            lambda path: read_idx(path, IMAGES_SHAPE), len,
        ),
        Parser(
            "gzip", ".gz",
            # The last two: a thousand times as large as they are, and of many members.
            [
                gzip.compress(IDX), gzip.compress(IDX, 0),
                gzip.compress(IDX[:16] + bytes(1 << 27), 9), gzip.compress(b"") * 999,
            ],
            lambda path: read_idx(path, IMAGES_SHAPE), lambda content: len(IDX),
        ),
        Parser(
            "mat", ".mat", [_matlab_file(), _matlab_file(do_compression=True), _matlab_file(oned_as="row")],
            _read_matlab, len,
        ),
        Parser(
            "npy", ".npy",
            [
                _numpy_file(IMAGES), _numpy_file(FLOATS), _numpy_file(np.asfortranarray(FLOATS)), _pickled(),
                _npy_header((10**12, 784)), _npy_header((2**62, 2**62)), _npy_header((10**9, 64), "<f8", bytes(4096)),
                _npy_header((20, 20), "|O", bytes(400)), _npy_header((-1, 20)),
            ],
            datasets.load_user_file, _uncompressed,
        ),
        Parser(
            "npz", ".npz",
            [
                _zip_file({"images.npy": _numpy_file(IMAGES), "labels.npy": _numpy_file(LABELS)}),
                _zip_file({"x.npy": _numpy_file(FLOATS)}, zipfile.ZIP_STORED),
                _zip_file({"images.npy": _pickled()}),
                _zip_file({"images.npy": _npy_header((10**12, 784))}),
                _zip_file({"images.npy": _npy_header((1 << 15, 784), "|u1", bytes(784 << 15))}),
                _zip_file({"../../images.npy": _numpy_file(IMAGES)}), _zip_file({}),
            ],
            datasets.load_user_file, lambda content: INFLATED * len(content) + (1 << 16),
        ),
        Parser(
            "hdf5", ".h5",
            [
                _hdf5_file(fill)
                for fill in (_hdf5_plain, _hdf5_chunked, _hdf5_never_written, _hdf5_labels_never_written)
            ],
            datasets.load_user_file, lambda content: INFLATED * len(content) + (1 << 16),
        ),
        Parser("checkpoint", ".h5", [CHECKPOINT], _decode, _uncompressed),
        Parser("checkpoint with its digest", ".h5", [CHECKPOINT], _decode_with_its_digest, _uncompressed),
        Parser(
            "config", ".json",
            [
                json.dumps(fastgan.preset("digits").to_json()).encode(),
                json.dumps({"config": fastgan.preset("mnist").to_json(), "versions": {}}).encode(),
                b"[" * 100_000, b'{"a":' * 100_000, b'{"seed": ' + b"9" * 10_000 + b"}", b'{"learning_rate": 1e999}',
            ],
            _read_config, _uncompressed,
        ),
    )
}  # fmt: skip
INTERESTING = [0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]


def mutated(seeds, rng):
    """Give a real input, changed in one to six places."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        place = rng.randrange(len(content) + 1)
        # Headers are where parsers decide.
        if rng.random() < 0.5:
            place = rng.randrange(min(len(content), 256) + 1)
        kind = rng.randrange(7)
        if kind == 0 and content:
            content[min(place, len(content) - 1)] = rng.randrange(256)
        elif kind == 1 and content:
            content[min(place, len(content) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del content[place:]
        elif kind == 3:
            del content[place : place + rng.choice([1, 2, 4, 100])]
        elif kind == 4:
            content[place:place] = rng.randbytes(rng.choice([1, 2, 8, 300]))
        elif kind == 5:
            number = rng.choice(INTERESTING)
            width = rng.choice([1, 2, 4, 8])
            content[place : place + width] = (number % (1 << 8 * width)).to_bytes(width, rng.choice(["little", "big"]))
        else:
            other = rng.choice(seeds)
            start = rng.randrange(len(other) + 1)
            content[place : place + 64] = other[start : start + 64]
    return bytes(content)


class _Hang(BaseException):
    pass


@contextlib.contextmanager
def no_longer_than(seconds):
    def ring(number, frame):
        raise _Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _resident(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(field))


def try_one(parser, content, folder):
    """Parse one input in a folder of its own; give what it came to, or say what is wrong by an AssertionError."""
    path = folder / f"input{parser.suffix}"
    path.write_bytes(content)
    # Sets the peak back to what is there now.
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS:")
    try:
        with no_longer_than(SECONDS):
            parser.parse(path)
        outcome = "read"
    except FastganError as refused:
        outcome = "refused"
        sentence = str(refused)
        assert len(sentence) > 20, sentence
        assert "\n" not in sentence.strip(), sentence
    except _Hang:
        raise AssertionError(f"{parser.name}: a hang") from None
    taken = _resident("VmHWM:") - before
    allowed = FREE + PER_BYTE * parser.declared(content)
    assert taken <= allowed, f"{parser.name}: {taken >> 20} MB where {allowed >> 20} may be"
    assert [entry.name for entry in folder.iterdir()] == [path.name], f"{parser.name}: it wrote something"
    path.unlink()
    return outcome


def case_of(name, seed, case):
    """Give one case's input."""
    seeds = PARSERS[name].seeds
    return seeds[case] if case < len(seeds) else mutated(seeds, random.Random(f"{name} {seed} {case}"))


def many(name, num_cases, seed, folder):
    """Fuzz one parser; give the count of each outcome."""
    counted = {"read": 0, "refused": 0}
    for case in range(num_cases):
        # Where a library's C code ends the process, the last line tells which case it was.
        print(f"{name} {seed} {case}", file=sys.stderr)
        counted[try_one(PARSERS[name], case_of(name, seed, case), folder)] += 1
    return counted


def in_a_process(num_cases, seed, names=tuple(PARSERS)):
    """Fuzz parsers in a process of its own; give the counts of each."""
    with tempfile.TemporaryFile("w+") as progress:
        done = subprocess.run(
            [sys.executable, "-m", "tests.reliability.fuzz", str(num_cases), str(seed), *names],
            stdout=subprocess.PIPE, stderr=progress, text=True, env=environment(), check=False,
            cwd=Path(__file__).parent.parent.parent,
        )  # fmt: skip
        progress.seek(0)
        last = "".join(progress.readlines()[-25:])
    assert done.returncode == 0, f"ended with {done.returncode}:\n{last}"
    return json.loads(done.stdout)


def _main(num_cases, seed, *names):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "cases"
        place.mkdir()
        os.chdir(place)
        warnings.simplefilter("error")
        # That bytes look as if they were meant to be 0 and 1.
        warnings.filterwarnings("ignore", ".* holds no number above 1", FastganWarning)
        counted = {name: many(name, int(num_cases), int(seed), place) for name in names}
        assert os.listdir(folder) == ["cases"]
    print(json.dumps(counted))


if __name__ == "__main__":
    _main(*sys.argv[1:])
