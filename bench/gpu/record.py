"""The launches of a real training step, recorded with their arguments, so that each can be made again by itself."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastgan.config import Config
from fastgan.datasets import Dataset
from fastgan.kernels.common import gemm_tile, launcher
from fastgan.kernels.common.arrays import Array, Workspace
from fastgan.kernels.common.devices import device
from fastgan.kernels.common.gemm_tile import Operand, Tiling
from fastgan.kernels.common.kernel import Kernel
from fastgan.trainer import Trainer

# Parameters that are read and written; the others are read or written.
_CHANGED_IN_PLACE = ("W", "b", "vW", "vb")
# Scratch, and a data set of which a step reads some rows.
_NOT_COUNTED = ("partials", "tickets", "data")


@dataclass(frozen=True)
class Product:
    """What ``gemm_tile.choose`` was asked, and what it chose."""

    M: int
    N: int
    K: int
    operands: tuple[Operand, Operand]
    arithmetic: int
    pieces: int
    split: bool
    bytes_a_row: int
    chosen: Tiling


@dataclass(frozen=True)
class Launch:
    """A launch of the step.

    Attributes
    ----------
    kernel : Kernel
    grid : three ints
    arguments : dict
        Name -> array of the device, NumPy scalar or None.
    product : Product, optional
        The matrix product that it makes, where it makes one.
    """

    kernel: Kernel
    grid: tuple[int, int, int]
    arguments: dict[str, Any]
    product: Product | None = field(default=None)

    @property
    def label(self) -> str:
        """What it computes, for people: ``linear_maxout_forward 200x1200x784`` for one."""
        name = self.kernel.name.partition("<")[0]
        if self.product is None:
            shapes = [v.shape for k, v in self.arguments.items() if k in ("out", "logits") and hasattr(v, "shape")]
            return f"{name} {'x'.join(map(str, shapes[0]))}" if shapes else name
        return f"{name} {self.product.M}x{self.product.N}x{self.product.K}"

    @property
    def flop(self) -> int:
        """Of the product; the rest is not counted."""
        return 2 * self.product.M * self.product.N * self.product.K if self.product else 0

    @property
    def bytes(self) -> int:
        """What it cannot do without reading or writing, once each."""
        total = 0
        updates = self.kernel.name.startswith(("linear_backward_update", "linear_maxout_backward_update", "sgd"))
        for name, value in self.arguments.items():
            if hasattr(value, "shape") and name not in _NOT_COUNTED and not isinstance(value, np.generic):
                size = math.prod(value.shape) * np.dtype(value.dtype).itemsize
                total += size * (2 if updates and name in _CHANGED_IN_PLACE else 1)
            elif name == "data":
                # As many rows as are written, a byte or a float a pixel.
                rows = self.arguments.get("out")
                total += 0 if rows is None else math.prod(rows.shape) * np.dtype(value.dtype).itemsize
        return total

    def run(self) -> None:
        """Launch it again."""
        launcher.launch(self.kernel, self.grid, **self.arguments)

    def tiled(self, tiling: Tiling, workspace: Workspace) -> Launch:
        """Give the same product with another tiling."""
        product = self.product
        assert product is not None
        sizes = {name for name, _ in product.chosen.kernel("", "", *product.operands).defines}
        others = {name: value for name, value in self.kernel.defines if name not in sizes}
        if "ALIGNED" in others:
            # All else about it is the matrices' own.
            others["ALIGNED"] = int(others["ALIGNED"] and tiling.columns % 4 == 0)
        kernel = tiling.kernel(self.kernel.source, self.kernel.name, *product.operands, extra_bytes=0, **others)
        arguments = dict(self.arguments)
        if "partials" in arguments:
            arguments |= tiling.scratch(product.M, product.N, workspace)
        return Launch(kernel, tiling.grid(product.M, product.N), arguments, product)

    def outputs(self) -> dict[str, Array]:
        """Name the arrays that a product writes."""
        names: tuple[str, ...] = ("y", "dx", "dW", "db", *_CHANGED_IN_PLACE)
        if "y" in self.arguments and ("dy" in self.arguments or "vW" in self.arguments):
            names = names[1:]
        if "vW" not in self.arguments:
            names = tuple(name for name in names if name not in _CHANGED_IN_PLACE)
        return {name: self.arguments[name] for name in names if self.arguments.get(name) is not None}


@contextlib.contextmanager
def intercepted(original: Callable[..., Any], replacement: Callable[..., Any]) -> Iterator[None]:
    """Put a function in another's place wherever one of fastgan's kernel modules has imported it."""
    places = [
        (module, name)
        for module_name, module in list(sys.modules.items())
        if module_name.startswith("fastgan.kernels") and module is not None
        for name, value in list(vars(module).items())
        if value is original
    ]
    assert places, f"nothing uses {original.__name__}"
    for module, name in places:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for module, name in places:
            setattr(module, name, original)


def record(sequence: Callable[[], object], *, launching: bool = True) -> list[Launch]:
    """Run a sequence of operations and give its launches.

    Parameters
    ----------
    sequence : callable
    launching : bool
        Whether the launches are made; without, nothing is compiled either.
    """
    launches: list[Launch] = []
    asked: list[Product] = []
    choose, launch = gemm_tile.choose, launcher.launch

    def recording_choose(
        M: int, N: int, K: int, a: Operand, b: Operand, arithmetic: int,
        *, pieces: int = 1, split: bool = True, bytes_a_row: int = 0,
    ) -> Tiling:  # fmt: skip
        tiling = choose(M, N, K, a, b, arithmetic, pieces=pieces, split=split, bytes_a_row=bytes_a_row)
        asked.append(Product(M, N, K, (a, b), arithmetic, pieces, split, bytes_a_row, tiling))
        return tiling

    def recording_launch(kernel: Kernel, grid: tuple[int, int, int], **arguments: Any) -> None:
        # A choice is followed by the launch that it is for.
        launches.append(Launch(kernel, grid, arguments, asked.pop() if asked else None))
        if launching:
            launch(kernel, grid, **arguments)

    # The modules of all operations are imported when they are first used.
    _import_operations()
    with intercepted(choose, recording_choose), intercepted(launch, recording_launch):
        sequence()
    assert not asked, "a tiling was chosen and not launched"
    return launches


def _import_operations() -> None:
    import importlib.util
    import pkgutil

    from fastgan import kernels

    for operation in pkgutil.iter_modules(kernels.__path__):
        if operation.ispkg and operation.name != "common":
            name = f"fastgan.kernels.{operation.name}.cupy_raw"
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)


@contextlib.contextmanager
def arithmetic(precision: str, number: int) -> Iterator[None]:
    """Let a precision be computed by one of ``gemm_tile``'s arithmetics within the block."""
    before = gemm_tile.ARITHMETIC[precision]
    gemm_tile.ARITHMETIC[precision] = number
    try:
        yield
    finally:
        gemm_tile.ARITHMETIC[precision] = before


def step_launches(config: Config, data: Dataset, precision: str = "float32") -> list[Launch]:
    """Give the launches of a trainer's second step: by then its scratch arrays are made."""
    trainer = Trainer(config, data, device("cupy", precision=precision), 1000)
    trainer.step()
    return record(trainer.step)


def step_kernels(config: Config, data: Dataset, precision: str = "float32") -> list[Kernel]:
    """Give the kernels that making a trainer and stepping launch, without launching or compiling any."""

    def make_and_step() -> None:
        Trainer(config, data, device("cupy", precision=precision), 1000).step()

    return list(dict.fromkeys(launch.kernel for launch in record(make_and_step, launching=False)))


def distinct(launches: Sequence[Launch]) -> list[tuple[Launch, int]]:
    """Give launches that do the same once each, with their number, in the order of their first."""
    found: dict[tuple[Any, ...], tuple[Launch, int]] = {}
    for launch in launches:
        shapes = tuple((name, getattr(value, "shape", None)) for name, value in launch.arguments.items())
        key = (launch.kernel, launch.grid, shapes)
        first, count = found.get(key, (launch, 0))
        found[key] = (first, count + 1)
    return list(found.values())
