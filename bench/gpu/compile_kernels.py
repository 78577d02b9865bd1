"""Compiles what the other parts launch, on all cores, so that none of them waits for the compiler.

CuPy keeps what was compiled on the disk and finds it there again in other processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import recipe
from bench.gpu import clock as clocks
from bench.gpu import part, sanitizer
from bench.gpu.part import FAILED, PASSED, Context
from bench.gpu.record import arithmetic, step_kernels
from bench.gpu.training_step import ARITHMETICS
from fastgan.kernels.common import gemm_tile, launcher
from fastgan.kernels.common.devices import TF32_FROM
from fastgan.kernels.common.kernel import Kernel
from fastgan.presets import preset

_UPDATES = ("alternating", "simultaneous")


def kernels() -> Iterator[Kernel]:
    """Yield the kernels of the MNIST networks' steps, of the digits', and of the sanitizer's short runs."""
    for precision, number in ARITHMETICS.values():
        if number != gemm_tile.FMA and launcher.runtime().architecture < TF32_FROM:
            continue
        with arithmetic(precision, number):
            for update in _UPDATES:
                yield from step_kernels(recipe.configuration(update), recipe.random_images(1000), precision)
                digits = preset("digits").replace({"update": update})
                yield from step_kernels(digits, recipe.random_images(1000, (1, 8, 8)), precision)
    for precision, config in sanitizer.configurations():
        yield from step_kernels(config, recipe.random_images(200, (1, 8, 8)), precision)


def run(context: Context) -> int:
    """Compile them all."""
    began = time.perf_counter()
    wanted = set(kernels())
    compiled = clocks.compile_all(wanted, context.left - 2)
    print(f"compile: {len(compiled)} of {len(wanted)} kernels in {time.perf_counter() - began:.1f} s")
    return PASSED if compiled == wanted else FAILED


if __name__ == "__main__":
    part.main(run)
