"""Compile every kernel of the backend numba-cuda for real, with neither GPU nor driver; for a process of its own.

    python tests/kernels/compile_numba_cuda.py

The operations' own launch code runs on arrays of the host, which have the types that arrays of the device have; each
launch is a compilation of its kernel for its arguments, to PTX. Prints a JSON object: dtype -> kernel -> signature ->
PTX. A kernel with more than one signature would be compiled anew in the middle of a run.
"""

import importlib
import json
import sys
from types import SimpleNamespace

import numpy as np
from numba import cuda, typeof
from numba.cuda import dispatcher

from fastgan.kernels.common import numba_runtime
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.step import StepState

CC = (9, 0)
compiled = {}


def compile_for(kernel, grid, block, *arguments):
    types = tuple(typeof(argument) for argument in arguments)
    name = f"{kernel.py_func.__module__}.{kernel.py_func.__name__}"
    # Kernels that are made for a number, or for a function, have it in their closure.
    closure = [cell.cell_contents for cell in kernel.py_func.__closure__ or ()]
    made_for = [str(value) if isinstance(value, int) else value.py_func.__module__ for value in closure]
    signatures = compiled.setdefault(f"{name}({', '.join(made_for)})", {})
    if str(types) not in signatures:
        signatures[str(types)] = cuda.compile_ptx(kernel.py_func, types, cc=CC)[0]


def zero(dtype):
    return np.zeros(1, dtype)


def operation(name):
    return importlib.import_module(f"fastgan.kernels.{name}.numba_cuda")


def run(dtype):
    B, I, O, P = 6, 5, 4, 2
    f = lambda *shape: np.zeros(shape, dtype)  # noqa: E731
    step = np.zeros(1, np.int64)
    # As a training step passes them, and as a caller does by hand: the same types.
    rates = [(np.zeros(1, np.float32), np.zeros(1, np.float32), np.zeros(1, np.int64)), (0.1, 0.5, None)]
    masks = [None, Dropout(0.5, 7, 3, step, 5), Dropout(0.5, 7, 3, 9)]
    scales = [None, f(B)]
    linear, maxout = operation("linear"), operation("linear_maxout")
    x, W, b, y, dy = f(B, I), f(I, O), f(O), f(B, O), f(B, O)
    W_IUP, b_UP, pieces = f(I, O * P), f(O * P), np.zeros((B, O), np.uint8)
    for mask in masks:
        for activation in ("identity", "relu", "sigmoid"):
            linear.forward(x, W, b, activation, mask, y, "float32", None)
        for num_pieces in (*range(1, 9), 17, 255):
            W_P, b_P = f(I, O * num_pieces), f(O * num_pieces)
            maxout.forward(x, W_P, b_P, num_pieces, mask, y, pieces, "float32", None)
        for scale in scales:
            linear.backward_input(dy, y, W, "relu", mask, scale, x, "float32", None)
            linear.backward_weights(x, dy, y, "relu", mask, scale, W, b, "float32", None)
            maxout.backward_input(dy, pieces, W_IUP, P, mask, scale, x, "float32", None)
            maxout.backward_weights(x, dy, pieces, P, mask, scale, W_IUP, b_UP, "float32", None)
            for learning_rate, momentum, skip in rates:
                more = (learning_rate, momentum, 0.9, mask, scale, skip, "float32", None)
                linear.backward_update(x, dy, y, "sigmoid", W, b, W, b, *more)
                maxout.backward_update(x, dy, pieces, P, W_IUP, b_UP, W_IUP, b_UP, *more)
        if mask is not None:
            operation("dropout").apply(x, mask, x)
            operation("dropout").mask(B, I, mask)
    for learning_rate, momentum, skip in rates:
        operation("sgd").update(W, W, W, learning_rate, momentum, 0.9, skip)
        operation("sgd").update(b, b, b, learning_rate, momentum, None, skip)
    noise, gather = operation("noise"), operation("gather")
    for counter in (step, 3):
        noise.uniform(x, -1.0, 1.0, 7, 3, counter, 0)
        noise.normal(x, 7, 3, counter, 0)
        for data in (np.zeros((9, I), np.uint8), np.zeros((9, I), np.float32)):
            gather.rows(data, 255, x, 7, counter, counter, 2)
    gather.order(9, 7, 1, 0, 9)
    losses = operation("gan_loss").gan_loss
    losses(f(B), 3, "minimax", f(B), f(3), np.zeros(4), step, np.zeros(4))
    losses(f(B), 0, "non-saturating", None, f(B), None, None, np.zeros(4))
    operation("step").advance(StepState(), np.zeros(2, np.float32), np.zeros(2, np.float32), 1, 1)
    operation("step").set_rates(StepState(), np.zeros(2, np.float32), np.zeros(2, np.float32))
    operation("nearest").indices(x, x)
    operation("parzen").log_density(x, x, np.ones(3), None)


def main():
    # The architecture is asked of the current device even where it is given: there is none.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=CC)
    numba_runtime.launch, numba_runtime.zero = compile_for, zero
    numba_runtime.empty, numba_runtime.upload, numba_runtime.download = np.zeros, np.array, np.array
    result = {}
    for name in ("float32", "float64"):
        compiled.clear()
        run(np.dtype(name))
        result[name] = dict(compiled)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
