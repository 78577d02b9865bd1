"""NVRTC by way of ctypes: compiles as on a GPU's machine, where there is none, and reads what the compiler says."""

import ctypes
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastgan.kernels.common.kernel import Kernel, program_text

# CuPy adds this to what it is given.
OPTIONS_OF_CUPY = ("-ftz=true",)


@dataclass(frozen=True)
class Compiled:
    """What came out: the machine code, and what ptxas said of it."""

    cubin: bytes
    log: str
    lowered_name: str

    @property
    def registers(self):
        """Of a thread."""
        return int(self._said(r"Used (\d+) registers")[0])

    @property
    def spills(self):
        """Bytes of spill stores and loads."""
        return sum(map(int, self._said(r"(\d+) bytes spill stores, (\d+) bytes spill loads")))

    @property
    def stack(self):
        """Bytes of a thread's stack frame."""
        return int(self._said(r"(\d+) bytes stack frame")[0])

    def _said(self, pattern):
        # The log speaks of every kernel in the file, one after the other.
        own = self.log[self.log.index(f"entry function '{self.lowered_name}'") :]
        return re.search(pattern, own).groups()


def why_not():
    """Say why there is no NVRTC here, or None."""
    return None if _library_path() else "NVRTC is not installed (pip install nvidia-cuda-nvrtc-cu12)"


@cache
def _library_path():
    for package, pattern in (
        ("nvidia.cuda_nvrtc", "lib/libnvrtc.so.*"),
        ("nvidia.cuda_nvrtc", "bin/nvrtc64_*.dll"),
        ("nvidia.cu13", "lib/libnvrtc.so.*"),
    ):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in spec.submodule_search_locations if spec else ():
            for path in sorted(Path(folder).glob(pattern)):
                if "builtins" not in path.name and ".alt." not in path.name:
                    return path
    return None


@cache
def _library():
    return ctypes.CDLL(str(_library_path()))


def _check(code):
    if code:
        _library().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(_library().nvrtcGetErrorString(code).decode())


def version():
    """Give NVRTC's version."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def compiled(kernel: Kernel, architecture: int, text: str | None = None) -> Compiled:
    """Compile one kernel for one architecture.

    Raises
    ------
    RuntimeError
        With the compiler's log.
    """
    library, program = _library(), ctypes.c_void_p()
    source = (program_text(kernel.source) if text is None else text).encode()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source, kernel.source.encode(), 0, None, None))
    try:
        name = kernel.name.encode()
        _check(library.nvrtcAddNameExpression(program, name))
        options = [*kernel.options, *OPTIONS_OF_CUPY, f"-arch=sm_{architecture}", "--ptxas-options=-v"]
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        code = library.nvrtcCompileProgram(program, len(options), encoded)
        log = _bytes(program, "ProgramLog").decode()
        if code:
            raise RuntimeError(f"{kernel.name} for sm_{architecture}:\n{log}")
        lowered = ctypes.c_char_p()
        _check(library.nvrtcGetLoweredName(program, name, ctypes.byref(lowered)))
        return Compiled(_bytes(program, "CUBIN"), log, lowered.value.decode())
    finally:
        _check(library.nvrtcDestroyProgram(ctypes.byref(program)))


def _bytes(program, what):
    size = ctypes.c_size_t()
    _check(getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(_library(), f"nvrtcGet{what}")(program, buffer))
    return buffer.raw.rstrip(b"\0") if what == "ProgramLog" else buffer.raw
