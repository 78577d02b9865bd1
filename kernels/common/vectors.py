"""What Numba's loops cannot say, in LLVM's own language.

A tile of a product that stays in registers, a transposed copy that is made in them, and a look ahead into memory:
``products.py`` builds the matrix product of the backend ``cpu`` from these.

A tile has ``TILE_ROWS`` rows and as many columns as fill ``_VECTORS`` of the machine's vectors: large enough that each
of its sums is added to only every so many cycles, which is how long an addition takes, and small enough that all of it,
a row of B and an element of A fit the registers. LLVM writes the loop as one would by hand: on AVX2 twelve
multiply-adds for two loads and six broadcasts, 94 GFLOP/s on a core whose peak is 94.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.core import codegen as _codegen
from numba.core import config as _config
from numba.extending import intrinsic as _numba_intrinsic

# Numba has no types for a checker.
cgutils: Any = _cgutils
codegen: Any = _codegen
config: Any = _config

TILE_ROWS = 6
# Bytes of a line of the cache.
_LINE_BYTES = 64
# Steps of a product that the loop makes in one turn.
_UNROLLED = 4


def _shape_of_registers() -> tuple[int, int]:
    """Give the bytes of the vectors to use and how many of them make a row of a tile."""
    features = config.CPU_FEATURES if config.CPU_FEATURES is not None else codegen.get_host_cpu_features()
    if "+avx512f" in features:
        # 32 registers: 24 sums, a row of B, one of A.
        return 64, 4
    if "+avx," in features + ",":
        # 16 registers: 12 sums, a row of B, one of A.
        return 32, 2
    return 16, 4 if platform.machine().lower() in ("aarch64", "arm64") else 2


VECTOR_BYTES, _VECTORS = _shape_of_registers()
# Bytes of a row of a tile, and so of a panel of B.
PANEL_BYTES = VECTOR_BYTES * _VECTORS

_I64 = ir.IntType(64)
_FLOATS = {types.float32: (ir.FloatType(), 4), types.float64: (ir.DoubleType(), 8)}


def intrinsic(function: Callable[..., Any]) -> Any:
    """Make what Numba calls an intrinsic; the first argument, its typing context, is not the caller's to give."""
    return _numba_intrinsic(function)


class _Emitter:
    """What both intrinsics say of vectors of one type of number."""

    def __init__(self, context: Any, builder: Any, number: Any) -> None:
        self.context, self.builder = context, builder
        self.number, self.bytes = _FLOATS[number]
        self.lanes = VECTOR_BYTES // self.bytes
        self.vector = ir.VectorType(self.number, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def element(self, array_type: Any, array: Any, start: Any) -> Any:
        """Point to an element of an array, counted from its first."""
        data = self.context.make_array(array_type)(self.context, self.builder, array).data
        return self.builder.gep(self.builder.bitcast(data, self.number.as_pointer()), [start])

    def at(self, pointer: Any, *offsets: Any) -> Any:
        for offset in offsets:
            pointer = self.builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])
        return pointer

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.bytes)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.bytes)

    def shuffle(self, first: Any, second: Any, places: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
        return self.builder.shuffle_vector(first, second, mask)

    def broadcast(self, pointer: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, self.builder.load(pointer), ir.IntType(32)(0))
        return self.shuffle(one, undefined, [0] * self.lanes)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        # Rounded once where the machine can, twice where it would have to call a function for it.
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.bytes}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])


@intrinsic
def tile(
    typing_context: Any, a: Any, a_start: Any, b: Any, b_start: Any, depth: Any,
    c: Any, c_start: Any, c_stride: Any, adds: Any, rows: Any, columns: Any,
) -> Any:  # fmt: skip
    """Compute a tile: C's rows r = 0 … 5, ``c[r] = Σ_k a[k, r] · b[k]``, or that added to what c holds.

    Sums are made in the order of k, by one multiply-add a step. All arrays are taken as memory, from an element on: A's
    ``TILE_ROWS`` numbers for k lie behind those for k - 1, as does B's row k, which is ``PANEL_BYTES`` long; row r of C
    is at ``c_start + r · c_stride``. Of a tile at C's edge only ``rows`` and ``columns`` are wanted: vectors and pairs
    of rows beyond are left out, where they can be. Nothing is checked.
    """
    i = types.int64
    return types.void(a, i, b, i, i, c, i, i, types.boolean, i, i), _emit_tile


def _emit_tile(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    a_type, b_type, c_type = (signature.args[i] for i in (0, 2, 5))
    a, a_start, b, b_start, depth, c, c_start, c_stride, adds, rows, columns = args
    emit = _Emitter(context, builder, c_type.dtype)
    places = _Tile(emit.element(a_type, a, a_start), emit.element(b_type, b, b_start), emit.element(c_type, c, c_start))

    # Each shape is code of its own. Low tiles are whole panels wide and narrow ones are all rows high: a corner that is
    # both is one in hundreds.
    done = builder.append_basic_block("tile.done")
    for height in range(2, TILE_ROWS, 2):
        fits = builder.and_(
            builder.icmp_signed("<=", rows, _I64(height)),
            builder.icmp_signed(">", columns, _I64(emit.lanes * (_VECTORS - 1))),
        )
        with builder.if_then(fits):
            _emit_shape(emit, places, depth, c_stride, adds, height, _VECTORS)
            builder.branch(done)
    for vectors in range(1, _VECTORS):
        with builder.if_then(builder.icmp_signed("<=", columns, _I64(emit.lanes * vectors))):
            _emit_shape(emit, places, depth, c_stride, adds, TILE_ROWS, vectors)
            builder.branch(done)
    _emit_shape(emit, places, depth, c_stride, adds, TILE_ROWS, _VECTORS)
    builder.branch(done)
    builder.position_at_end(done)
    return context.get_dummy_value()


class _Tile(NamedTuple):
    """Where a tile's operands and its sums begin."""

    a: Any
    b: Any
    c: Any


def _emit_shape(emit: _Emitter, places: _Tile, depth: Any, c_stride: Any, adds: Any, rows: int, vectors: int) -> None:
    """Write a tile of so many rows and vectors."""
    builder = emit.builder
    width = emit.lanes * _VECTORS

    def steps(count: int, start: Any, sums: list[Any], name: str) -> tuple[Any, list[Any]]:
        """Write a loop that makes ``count`` steps at a time while so many are left."""
        before = builder.block
        head, body, after = (builder.append_basic_block(f"tile.{name}.{part}") for part in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(_I64)
        k.add_incoming(start, before)
        running = [builder.phi(emit.vector) for _ in sums]
        for phi, value in zip(running, sums, strict=True):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<=", builder.add(k, _I64(count)), depth), body, after)
        builder.position_at_end(body)
        new = list(running)
        row_of_a = emit.at(places.a, builder.mul(k, _I64(TILE_ROWS)))
        row_of_b = emit.at(places.b, builder.mul(k, _I64(width)))
        for u in range(count):
            of_b = [emit.load(emit.at(row_of_b, u * width + v * emit.lanes)) for v in range(vectors)]
            for r in range(rows):
                factor = emit.broadcast(emit.at(row_of_a, u * TILE_ROWS + r))
                for v in range(vectors):
                    i = r * vectors + v
                    new[i] = emit.multiply_add(factor, of_b[v], new[i])
        k.add_incoming(builder.add(k, _I64(count)), builder.block)
        for phi, value in zip(running, new, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return k, list(running)

    k, sums = steps(_UNROLLED, _I64(0), [emit.zero] * (rows * vectors), "many")
    _, sums = steps(1, k, sums, "one")
    targets = [
        emit.at(places.c, builder.mul(_I64(r), c_stride), v * emit.lanes) for r in range(rows) for v in range(vectors)
    ]
    with builder.if_else(adds) as (then, otherwise):
        with then:
            for value, at in zip(sums, targets, strict=True):
                emit.store(builder.fadd(emit.load(at), value), at)
        with otherwise:
            for value, at in zip(sums, targets, strict=True):
                emit.store(value, at)


@intrinsic
def transpose_block(
    typing_context: Any, a: Any, a_start: Any, a_stride: Any, c: Any, c_start: Any, c_stride: Any
) -> Any:
    """Copy a square block of ``VECTOR_BYTES`` by as many, transposed: ``c[j, i] = a[i, j]``; places as for ``tile``."""
    i = types.int64

    def emit_transpose(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, signature.args[3].dtype)
        source = emit.element(signature.args[0], args[0], args[1])
        target = emit.element(signature.args[3], args[3], args[4])
        rows = [emit.load(emit.at(source, builder.mul(_I64(r), args[2]))) for r in range(emit.lanes)]
        # At distance d the blocks of d columns that are off the diagonal change places between rows r and r + d.
        d = 1
        while d < emit.lanes:
            for r in (r for r in range(emit.lanes) if not r & d):
                lower = [j if not j & d else emit.lanes + j - d for j in range(emit.lanes)]
                upper = [j + d if not j & d else emit.lanes + j for j in range(emit.lanes)]
                rows[r], rows[r + d] = (
                    emit.shuffle(rows[r], rows[r + d], lower),
                    emit.shuffle(rows[r], rows[r + d], upper),
                )
            d *= 2
        for r, row in enumerate(rows):
            emit.store(row, emit.at(target, builder.mul(_I64(r), args[5])))
        return context.get_dummy_value()

    return types.void(a, i, i, c, i, i), emit_transpose


@intrinsic
def copy_rows(
    typing_context: Any, a: Any, a_start: Any, a_stride: Any, c: Any, c_start: Any, count: Any, vectors: Any
) -> Any:
    """Copy ``count`` rows of so many vectors, one behind the other as a tile's; places as for ``tile``."""
    i = types.int64

    def emit_copy(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, signature.args[3].dtype)
        source = emit.element(signature.args[0], args[0], args[1])
        target = emit.element(signature.args[3], args[3], args[4])

        def copy_each(vectors: Any) -> None:
            with cgutils.for_range(builder, args[5], intp=_I64) as loop:
                row = emit.at(source, builder.mul(loop.index, args[2]))
                to = emit.at(target, builder.mul(loop.index, _I64(emit.lanes * _VECTORS)))
                with cgutils.for_range(builder, vectors, intp=_I64) as vector:
                    at = builder.mul(vector.index, _I64(emit.lanes))
                    emit.store(emit.load(emit.at(row, at)), emit.at(to, at))

        # With their number known LLVM writes the vectors out.
        with builder.if_else(builder.icmp_signed("==", args[6], _I64(_VECTORS))) as (whole, narrow):
            with whole:
                copy_each(_I64(_VECTORS))
            with narrow:
                copy_each(args[6])
        return context.get_dummy_value()

    return types.void(a, i, i, c, i, i, i), emit_copy


def _emit_fetch(is_for_writing: bool, context: Any, builder: Any, signature: Any, args: Any) -> Any:
    emit = _Emitter(context, builder, signature.args[0].dtype)
    first = emit.element(signature.args[0], args[0], args[1])
    byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    in_a_line = _I64(_LINE_BYTES // emit.bytes)
    with cgutils.for_range_slice(builder, _I64(0), args[2], in_a_line, _I64) as (at, _):
        builder.call(prefetch, [builder.bitcast(emit.at(first, at), byte), i32(int(is_for_writing)), i32(3), i32(1)])
    return context.get_dummy_value()


@intrinsic
def fetch(typing_context: Any, array: Any, start: Any, count: Any) -> Any:
    """Ask for the lines of the cache that hold ``count`` elements from element ``start`` on, and wait for none."""
    return types.void(array, types.int64, types.int64), partial(_emit_fetch, False)


@intrinsic
def fetch_to_write(typing_context: Any, array: Any, start: Any, count: Any) -> Any:
    """Ask for lines as ``fetch`` does, and that no other core keeps a copy."""
    return types.void(array, types.int64, types.int64), partial(_emit_fetch, True)
