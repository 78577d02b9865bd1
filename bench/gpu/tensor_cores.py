"""What a tensor core's sums really are, and the error of each arithmetic against plain float32.

Two tables. ``tensor-cores``: crafted products of m16n8k8 in TF32, each with its exact result and what came out, from
which ``meanings`` reads. ``arithmetic``: rms errors of products by ``kernels.linear`` against float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.gpu import part
from bench.gpu.part import FAILED, NOT_HERE, PASSED, Context
from bench.gpu.record import arithmetic
from fastgan.kernels import linear
from fastgan.kernels.common import gemm_tile, launcher
from fastgan.kernels.common.devices import TF32_FROM, device
from fastgan.kernels.common.kernel import Kernel

_MMA = Kernel("../bench/gpu/probe.cu", "mma_cases", (("TENSOR_CORES", 1),), threads=32)
_MOST_BITS = 14


class Question(NamedTuple):
    """One element of a product: pairs of operands by their place in k, and what is added to."""

    name: str
    pairs: dict[int, tuple[float, float]]
    c: float
    exact: float


def questions() -> Iterator[Question]:
    """Yield the crafted products; every number in them is a power of two, or a sum of few."""
    ulp = 2.0**-23
    half = (2.0**-12, 2.0**-12)  # their product is half an ulp of 1
    yield Question("1 + 3/4 ulp", {0: (1.5 * 2.0**-12, 2.0**-12)}, 1.0, 1 + 0.75 * ulp)
    yield Question("-1 - 3/4 ulp", {0: (-1.5 * 2.0**-12, 2.0**-12)}, -1.0, -1 - 0.75 * ulp)
    yield Question("1 + 1/2 ulp + 1/2 ulp, one product after the other in k", {0: half, 1: half}, 1.0, 1 + ulp)
    yield Question("1 + 1/2 ulp + 1/2 ulp, in different halves of k", {0: half, 4: half}, 1.0, 1 + ulp)
    yield Question("an operand of 1 + 2^-11: between two TF32 numbers", {0: (1 + 2.0**-11, 1.0)}, 0.0, 1 + 2.0**-11)
    yield Question(
        "an operand of 1 + 2^-11 + 2^-12: above their middle", {0: (1 + 3 * 2.0**-12, 1.0)}, 0.0, 1 + 3 * 2.0**-12
    )
    yield Question("2^-63 · 2^-77: a subnormal product", {0: (2.0**-63, 2.0**-77)}, 0.0, 2.0**-140)
    yield Question("0 · 1 + 2^-140: a subnormal to add to", {0: (0.0, 1.0)}, 2.0**-140, 2.0**-140)
    for where, place in (("same half of k", 1), ("other half of k", 4)):
        for bits in range(-2, _MOST_BITS):
            small = (2.0**-11, 2.0 ** -(12 + bits))
            exact = 2.0 ** -(23 + bits)
            yield Question(
                f"1 + 2^-(23+{bits}) - 1, {where}", {0: (1.0, 1.0), 2: small, place: (-1.0, 1.0)}, 0.0, exact
            )
    for bits in range(-2, _MOST_BITS):
        small = (2.0**-11, 2.0 ** -(12 + bits))
        exact = 2.0 ** -(23 + bits)
        yield Question(f"c = 1, + 2^-(23+{bits}) - 1", {2: small, 1: (-1.0, 1.0)}, 1.0, exact)


def ask(asked: list[Question]) -> NDArray[np.float32]:
    """Compute each question's element on a tensor core."""
    n = len(asked)
    a, b = np.zeros((n, 16, 8), np.float32), np.zeros((n, 8, 8), np.float32)
    c = np.zeros((n, 16, 8), np.float32)
    for i, question in enumerate(asked):
        for k, (left, right) in question.pairs.items():
            a[i, 0, k], b[i, k, 0] = left, right
        c[i, 0, 0] = question.c
    runtime = launcher.runtime()
    d = runtime.upload(np.zeros((n, 16, 8), np.float32))
    launcher.launch(_MMA, (n, 1, 1), a=runtime.upload(a), b=runtime.upload(b), c=runtime.upload(c), d=d)
    got: NDArray[np.float32] = runtime.download(d)
    return got[:, 0, 0]


def meanings(asked: list[Question], got: NDArray[np.float32]) -> list[str]:
    """Read from the answers what the tensor core does."""
    by_name = {question.name: float(value) for question, value in zip(asked, got, strict=True)}
    up, down = by_name["1 + 3/4 ulp"], by_name["-1 - 3/4 ulp"]
    ulp = 2.0**-23
    rounding = {
        (1.0, -1.0): "truncates towards zero",
        (1 + ulp, -1 - ulp): "rounds to nearest",
        (1.0, -1 - ulp): "rounds down",
        (1 + ulp, -1.0): "rounds up",
    }.get((up, down), f"gives {up!r} and {down!r}")
    found = [f"The sum of a product and c {rounding}."]
    for what, beginning in (
        ("products in the same half of k", "1 + 2^-(23+{}) - 1, same half of k"),
        ("products in different halves of k", "1 + 2^-(23+{}) - 1, other half of k"),
        ("products and c", "c = 1, + 2^-(23+{}) - 1"),
    ):
        kept = [bits for bits in range(-2, _MOST_BITS) if by_name[beginning.format(bits)] != 0]
        most = max(kept) if kept else None
        more = " or more" if most == _MOST_BITS - 1 else ""
        found.append(f"A sum of {what} keeps {most}{more} bits below float32's last." if most is not None
                     else f"A sum of {what} loses what is 2^-21 of its largest term.")  # fmt: skip
    between = by_name["an operand of 1 + 2^-11: between two TF32 numbers"]
    above = by_name["an operand of 1 + 2^-11 + 2^-12: above their middle"]
    operand = "used whole" if between == 1 + 2.0**-11 else "truncated" if above == 1.0 else "rounded"
    found.append(f"An operand that is no TF32 number is {operand}.")
    subnormal = by_name["2^-63 · 2^-77: a subnormal product"]
    found.append(f"A subnormal product is {'kept' if subnormal else 'flushed to zero'}.")
    return found


# Arithmetic -> the precision that asks for it, and how many times plain float32's rms error it may have.
ARITHMETICS = {
    "FMA": ("float32", gemm_tile.FMA, 2.0),
    "split": ("float32", gemm_tile.SPLIT, 4.0),
    "tf32": ("tf32", gemm_tile.TF32, None),
}
# Relative to the rms of the result: about one rounding of float32.
_FLOOR = 1e-7
# TF32 is held against a float64 product of operands that are rounded as it rounds them.
_TF32_FACTOR = 1.5


def to_tf32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to 10 bits of mantissa, ties away from zero."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded: NDArray[np.float32] = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return rounded


def rms(x: NDArray[Any]) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def errors(B: int, I: int, O: int) -> Iterator[dict[str, Any]]:
    """Yield a row an arithmetic: the error of x W, x like images and like hidden units, against float64."""
    random = np.random.default_rng(0)
    for kind in ("uniform in [0, 1), four fifths 0", "normal"):
        x = random.normal(size=(B, I)) if kind == "normal" else random.random((B, I)) * (random.random((B, I)) < 0.2)
        x, W = x.astype(np.float32), random.uniform(-0.05, 0.05, (I, O)).astype(np.float32)
        exact = x.astype(np.float64) @ W.astype(np.float64)
        plain = rms(x @ W - exact)
        single = rms(to_tf32(x).astype(np.float64) @ to_tf32(W).astype(np.float64) - exact)
        for name, (precision, number, factor) in ARITHMETICS.items():
            if number != gemm_tile.FMA and launcher.runtime().architecture < TF32_FROM:
                continue
            found = product(x, W, precision, number)
            is_finite = bool(np.isfinite(found).all())
            error = rms(found - exact)
            bar = _FLOOR * rms(exact) + (factor * plain if factor else _TF32_FACTOR * single)
            yield {
                "arithmetic": name, "data": kind, "B": B, "K": I, "N": O, "rms error": f"{error:.4g}",
                "of plain float32's": f"{error / plain:.3g}", "of rounded operands'": f"{error / single:.3g}",
                "bar": f"{bar:.4g}", "passed": is_finite and error <= bar,
            }  # fmt: skip


def product(x: NDArray[np.float32], W: NDArray[np.float32], precision: str, number: int) -> NDArray[np.float32]:
    """Multiply on the device, the precision being computed by this arithmetic."""
    where = device("cupy", precision=precision)
    with arithmetic(precision, number):
        b = where.upload(np.zeros(W.shape[1], np.float32))
        y = linear.forward(where.upload(x), where.upload(W), b, "identity", precision=precision, backend="cupy")
        found: NDArray[np.float32] = where.download(y)
    return found


def run(context: Context, shapes: tuple[tuple[int, int, int], ...] = ((200, 784, 1200), (200, 1200, 784))) -> int:
    """Fill both tables."""
    if launcher.runtime().architecture < TF32_FROM:
        print("tensor-cores: this GPU has no TF32, so nothing was asked of it")
        return NOT_HERE
    asked = list(questions())
    got = ask(asked)
    with context.table("tensor-cores", ("question", "exact", "got")) as table:
        for question, value in zip(asked, got, strict=True):
            table.add({"question": question.name, "exact": question.exact, "got": float(value)})
    found = meanings(asked, got)
    for line in found:
        print(line)
    failed = 0
    columns = (
        "arithmetic", "data", "B", "K", "N", "rms error", "of plain float32's", "of rounded operands'", "bar", "passed",
    )  # fmt: skip
    with context.table("arithmetic", columns) as table:
        for B, I, O in shapes:
            for row in errors(B, I, O):
                table.add(row)
                print(", ".join(f"{key} {value}" for key, value in row.items()))
                failed += not row["passed"]
    print(f"tensor-cores: {found[0]} {failed or 'No'} errors are above their bars.")
    return FAILED if failed else PASSED


if __name__ == "__main__":
    part.main(run)
