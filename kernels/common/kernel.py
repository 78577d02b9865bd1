"""One kernel of a ``.cu`` file, as a compiler is asked for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

# Where the paths of sources begin.
ROOT: Final = Path(__file__).resolve().parent.parent
# What the kernels are compiled for; those of one need what it has and nothing newer.
ARCHITECTURES: Final = (75, 80, 90)
_INCLUDE = re.compile(r'^#include "([a-z_0-9./]+)"\s*$', re.MULTILINE)
_BRANCHES: Final = ("#else", "#elif", "#endif")
# -fmad is the default; said because the error bounds count on it. No --use_fast_math: it takes away NaN's and
# subnormals' meaning.
OPTIONS: Final = ("--std=c++17", "--fmad=true")


@dataclass(frozen=True)
class Kernel:
    """One instantiation of a kernel's template.

    Attributes
    ----------
    source : str
        The file, from the folder ``kernels`` on.
    name : str
        The name expression: ``forward<true>`` for one.
    defines : tuple of (str, int)
        What the preprocessor is to know: tile sizes and the like.
    threads : int
        Threads of a block.
    shared_bytes : int
        Dynamic shared memory of a block.
    cluster : int
        Blocks of a cluster along z; above 1 it needs sm_90.
    architecture : str
        What it is compiled for, where that is not the device's own: ``sm_90a`` for what only Hopper has.
    """

    source: str
    name: str
    defines: tuple[tuple[str, int], ...] = ()
    threads: int = 256
    shared_bytes: int = 0
    cluster: int = 1
    architecture: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """What the compiler is given besides the device's architecture; sm_90a comes before that and wins."""
        own = (f"-arch={self.architecture}",) if self.architecture else ()
        return (*OPTIONS, *own, *(f"-D{name}={value}" for name, value in self.defines))


@cache
def program_text(source: str) -> str:
    """Give a source with its includes in their places, once each, and ``#line`` marks that keep file and line right.

    One text serves every compiler, and a cache that is keyed by the text sees a change in a header.
    """
    seen: set[str] = set()

    def expanded(path: str) -> str:
        if path in seen:
            return ""
        seen.add(path)
        parts = [f'#line 1 "{path}"\n']
        for number, line in enumerate((ROOT / path).read_text().splitlines(keepends=True), 1):
            found = _INCLUDE.match(line)
            if found and found.group(1) != "emulator.h":
                parts += [expanded(f"common/{found.group(1)}"), f'#line {number + 1} "{path}"\n']
            elif line.startswith(_BRANCHES):
                # The marks of a branch that is left out count for nothing.
                parts += [line, f'#line {number + 1} "{path}"\n']
            elif line.strip() != "#pragma once":
                parts.append(line)
            else:
                parts.append("\n")
        return "".join(parts)

    return expanded(source)
