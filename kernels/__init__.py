"""The operations: a folder each, a public module each, nothing else.

``from fastgan import kernels`` and then ``kernels.linear.forward(...)``, ``kernels.parzen.log_density(...)``. Every
operation checks its arguments, takes its outputs as ``out=`` where it matters, leaves its inputs untouched, and runs on
the backend that ``backend=`` names. The NumPy file ``reference.py`` of each folder is its definition.

Axes: B batch, Z noise dimension, I inputs of a layer, O outputs, U maxout units, P pieces of a unit, N samples,
M queries, D data dimension, S sigmas, C channels, H and W rows and columns of an image, K of a kernel. A gradient is
``d`` and the name.
"""

from fastgan.kernels import (
    conv_maxout,
    conv_transpose,
    dropout,
    gan_loss,
    gather,
    linear,
    linear_maxout,
    max_pool,
    nearest,
    noise,
    parzen,
    sgd,
    step,
)

__all__ = [
    "conv_maxout",
    "conv_transpose",
    "dropout",
    "gan_loss",
    "gather",
    "linear",
    "linear_maxout",
    "max_pool",
    "nearest",
    "noise",
    "parzen",
    "sgd",
    "step",
]
