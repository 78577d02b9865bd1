"""Compiles the emulator and the kernels with the host's g++, and keeps what it made."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from fastgan.errors import BackendError

HERE = Path(__file__).resolve().parent
# DWARF 4, as binutils before 2.41 mistake the first file of a DWARF 5 table for what the compiler was called with.
# Inlined helpers of the emulator are no place to send a reader to.
_OWN_FILES = ("emulator.h", "runtime.cpp")
_COMMON = ("-std=c++17", "-gdwarf-4", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-fvisibility=hidden")
_CHECKED = ("-O2", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0", "-fno-optimize-sibling-calls")
_BARE = ("-O3",)
_WEEK = 7 * 24 * 3600.0


def why_not() -> str | None:
    """Say why the emulator cannot run here, or None where it can."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        return (
            f"the CUDA emulator needs Linux on x86-64 or aarch64, and this is {platform.system()} {platform.machine()}"
        )
    if shutil.which("g++") is None:
        return "the CUDA emulator needs g++, which is not installed"
    return None


@cache
def _compiler() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


@cache
def _machine_options() -> tuple[str, ...]:
    """Give the options for a fused multiply-add in one instruction where the processor has one."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ()
    return ("-mfma", "-mavx2") if flags and {"fma", "avx2"} <= set(flags.group(1).split()) else ()


def cache_folder() -> Path:
    """Give the folder that compiled kernels are kept in: $FASTGAN_EMULATOR_CACHE, or one of the user's own."""
    named = os.environ.get("FASTGAN_EMULATOR_CACHE")
    if named:
        folder = Path(named).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = Path(tempfile.gettempdir()).resolve() / f"fastgan-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    # Code is loaded from there: nobody else may have put it.
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise BackendError(
            f"{folder} is not this user's alone; remove it or set FASTGAN_EMULATOR_CACHE to another folder"
        )
    return folder


def _make(stem: str, text: str, options: tuple[str, ...], link: tuple[str, ...], include: str = "") -> Path:
    """Compile a text to a shared object, or find the one that was made of the same before.

    ``include`` is what the text includes: it counts in the digest.
    """
    folder = cache_folder()
    link = tuple(part.replace("{folder}", str(folder)) for part in link)
    digest = hashlib.sha256("\0".join([_compiler(), *options, *link, include, text]).encode()).hexdigest()[:24]
    target = folder / f"{stem}-{digest}.so"
    if target.exists():
        os.utime(target)
        return target
    _forget_old(folder)
    # Two processes may make the same thing: each under a name of its own, and the last to rename it wins.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        partial, object_file = Path(scratch) / "partial.so", Path(scratch) / "partial.o"
        for command in (
            ["g++", *options, "-I", str(HERE), "-x", "c++", "-c", "-", "-o", str(object_file)],
            ["g++", "-shared", f"-Wl,-soname,{target.name}", "-o", str(partial), str(object_file), *link],
        ):
            done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True)
            if done.returncode:
                raise BackendError(f"The compiler refuses {stem}:\n{done.stderr.strip()}")
        partial.replace(target)
    return target


def _forget_old(folder: Path) -> None:
    """Remove what was not used for a week: every change of a kernel leaves a file behind."""
    for path in folder.glob("*.so"):
        # Another process may be at the same.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _WEEK:
                path.unlink()


@cache
def library() -> tuple[ctypes.CDLL, Path]:
    """Build and load the emulator's own part; a process has one."""
    source = HERE / "runtime.cpp"
    options = ("-std=c++17", "-O2", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden")
    path = _make("runtime", f'#line 1 "runtime.cpp"\n{source.read_text()}', (*options, *_machine_options()), ())
    there = ctypes.CDLL(str(path))
    address, size, text = ctypes.c_uint64, ctypes.c_uint64, ctypes.c_char_p
    for name, result, parameters in (
        ("start", ctypes.c_int, [size]),
        ("allocate", address, [size]),
        ("free", None, [address]),
        ("written", None, [address, size]),
        ("unwritten", ctypes.c_longlong, [address, size]),
        ("image", address, [address]),
        ("branch", ctypes.c_int, []),
        ("branch_end", None, []),
        ("join", None, []),
        ("report", text, [ctypes.POINTER(address), ctypes.POINTER(text), ctypes.POINTER(ctypes.c_int)]),
        (
            "launch",
            ctypes.c_int,
            [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_uint32] * 4, ctypes.c_int],
        ),
    ):
        function = getattr(there, f"emulator_{name}")
        function.restype, function.argtypes = result, parameters
    return there, path


def build_kernel(stem: str, text: str, name: str, defines: tuple[str, ...], checked: bool) -> Path:
    """Compile one instantiation of a kernel; the compiler's words are in what it raises."""
    _, runtime = library()
    options = (*_COMMON, *(_CHECKED if checked else _BARE), *_machine_options(), "-w", "-DEMULATED", *defines)
    return _make(
        stem,
        f'{text}\n#line 1 "the name {name.replace(chr(34), "")}"\nEMULATED_KERNEL({name})\n',
        options,
        ("-Wl,--no-undefined", "-L{folder}", f"-l:{runtime.name}", "-Wl,-rpath,$ORIGIN"),
        include=(HERE / "emulator.h").read_text(),
    )


def lines_at(path: Path, offset: int) -> list[str]:
    """Give ``file:line`` of an address, then of the places that it is inlined at, without the emulator's own."""
    command = ["addr2line", "-i", "-e", str(path), hex(offset)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return []
    folder = f"{cache_folder()}/"
    frames = [line.split(" (discriminator")[0].removeprefix(folder) for line in done.stdout.splitlines()]
    return [frame for frame in frames if "?" not in frame and Path(frame.rpartition(":")[0]).name not in _OWN_FILES]
