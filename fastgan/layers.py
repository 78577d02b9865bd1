"""Layers: parameters and their velocities, and the three things a layer does in a step.

``forward`` fills a ``Saved`` with the output and with what backward needs; ``backward_input`` carries a gradient on;
``backward_update`` changes the parameters. All arrays are fixed buffers made beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fastgan.config import LayerConfig, LinearConfig, MaxoutConfig
from fastgan.kernels import linear, linear_maxout
from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.devices import HostDevice
from fastgan.kernels.dropout import Dropout


@dataclass(frozen=True, eq=False)
class Update:
    """What an update of the parameters needs besides gradients.

    Attributes
    ----------
    learning_rate, momentum : float or (1,) float32
        As for ``kernels.sgd.update``.
    skip : (1,) int64, optional
        Where it holds anything but 0 the update changes nothing.
    """

    learning_rate: Rate
    momentum: Rate
    skip: Array | None = None


@dataclass(frozen=True, eq=False)
class Saved:
    """What a layer's forward pass leaves for its backward pass.

    Attributes
    ----------
    x : (B, I)
        The input, before its dropout.
    y : (B, O)
        The output.
    pieces : (B, O) uint8, optional
        The winning pieces of a maxout layer.
    dropout : Dropout, optional
        The input's dropout.
    """

    x: Array
    y: Array
    pieces: Array | None
    dropout: Dropout | None

    def rows(self, rows: slice) -> Saved:
        """Give the part of some rows, as views."""
        dropout = self.dropout
        if dropout is not None:
            bits = None if dropout.bits is None else dropout.bits[rows]
            dropout = replace(dropout, row_offset=dropout.row_offset + (rows.start or 0), bits=bits)
        pieces = None if self.pieces is None else self.pieces[rows]
        return Saved(self.x[rows], self.y[rows], pieces, dropout)


class _Layer:
    """What the layers share: parameters, their velocities, and where they live."""

    PARAMETERS: ClassVar = ("W", "b", "vW", "vb")

    def __init__(self, config: LayerConfig, W: Array, b: Array, device: HostDevice, workspace: Workspace) -> None:
        self.config = config
        self.backend, self.precision = device.backend, device.precision
        # What may run beside other operations of the network needs scratch of its own.
        self.workspace = workspace
        self.forward_workspace, self.update_workspace = (device.branch_workspace(workspace) for _ in range(2))
        self.W, self.b = device.upload(W), device.upload(b)
        self.vW, self.vb = device.upload(np.zeros_like(W)), device.upload(np.zeros_like(b))

    @property
    def num_inputs(self) -> int:
        """I."""
        return int(self.W.shape[0])


class Linear(_Layer):
    """``y = f(dropout(x) W + b)``.

    Attributes
    ----------
    W, vW : (I, O)
        Weights and their velocity.
    b, vb : (O,)
        Biases and their velocity.
    """

    config: LinearConfig

    @property
    def num_outputs(self) -> int:
        """O."""
        return int(self.W.shape[1])

    def saved(self, x: Array, y: Array, dropout: Dropout | None, device: HostDevice) -> Saved:
        """Make the buffers of a pass over ``x`` into ``y``."""
        return Saved(x, y, None, dropout)

    def forward(self, saved: Saved) -> Array:
        """Fill ``saved`` from ``saved.x``; give y (B, O)."""
        return linear.forward(
            saved.x, self.W, self.b, self.config.activation,
            dropout=saved.dropout, out=saved.y,
            precision=self.precision, workspace=self.forward_workspace, backend=self.backend,
        )  # fmt: skip

    def backward_input(self, dy: Array, saved: Saved, out: Array, row_scale: Array | None = None) -> Array:
        """Write dx (B, I) into ``out``."""
        return linear.backward_input(
            dy, saved.y, self.W, self.config.activation,
            dropout=saved.dropout, row_scale_B=row_scale, out=out,
            precision=self.precision, workspace=self.workspace, backend=self.backend,
        )  # fmt: skip

    def backward_weights(self, dy: Array, saved: Saved, row_scale: Array | None = None) -> tuple[Array, Array]:
        """Give dW and db."""
        return linear.backward_weights(
            saved.x, dy, saved.y, self.config.activation,
            dropout=saved.dropout, row_scale_B=row_scale,
            precision=self.precision, workspace=self.workspace, backend=self.backend,
        )  # fmt: skip

    def backward_update(self, dy: Array, saved: Saved, update: Update, row_scale: Array | None = None) -> None:
        """Change W, b and their velocities; ``backward_input`` comes first, it needs W as it was."""
        linear.backward_update(
            saved.x, dy, saved.y, self.config.activation, self.W, self.b, self.vW, self.vb,
            learning_rate=update.learning_rate, momentum=update.momentum, max_col_norm=self.config.max_col_norm,
            dropout=saved.dropout, row_scale_B=row_scale, skip=update.skip,
            precision=self.precision, workspace=self.update_workspace, backend=self.backend,
        )  # fmt: skip


class LinearMaxout(_Layer):
    """``y = max over pieces of dropout(x) W + b``: like ``Linear``, with W (I, U·P) and b (U·P,)."""

    config: MaxoutConfig

    @property
    def num_outputs(self) -> int:
        """U."""
        return self.config.num_units

    def saved(self, x: Array, y: Array, dropout: Dropout | None, device: HostDevice) -> Saved:
        """Make the buffers of a pass over ``x`` into ``y``."""
        return Saved(x, y, device.empty(y.shape, np.uint8), dropout)

    def forward(self, saved: Saved) -> Array:
        """Fill ``saved`` from ``saved.x``; give y (B, U)."""
        y, _ = linear_maxout.forward(
            saved.x, self.W, self.b, self.config.num_pieces,
            dropout=saved.dropout, out=saved.y, out_pieces=saved.pieces,
            precision=self.precision, workspace=self.forward_workspace, backend=self.backend,
        )  # fmt: skip
        return y

    def backward_input(self, dy: Array, saved: Saved, out: Array, row_scale: Array | None = None) -> Array:
        """Write dx (B, I) into ``out``."""
        assert saved.pieces is not None
        return linear_maxout.backward_input(
            dy, saved.pieces, self.W, self.config.num_pieces,
            dropout=saved.dropout, row_scale_B=row_scale, out=out,
            precision=self.precision, workspace=self.workspace, backend=self.backend,
        )  # fmt: skip

    def backward_weights(self, dy: Array, saved: Saved, row_scale: Array | None = None) -> tuple[Array, Array]:
        """Give dW and db."""
        assert saved.pieces is not None
        return linear_maxout.backward_weights(
            saved.x, dy, saved.pieces, self.config.num_pieces,
            dropout=saved.dropout, row_scale_B=row_scale,
            precision=self.precision, workspace=self.workspace, backend=self.backend,
        )  # fmt: skip

    def backward_update(self, dy: Array, saved: Saved, update: Update, row_scale: Array | None = None) -> None:
        """Change W, b and their velocities; ``backward_input`` comes first, it needs W as it was."""
        assert saved.pieces is not None
        linear_maxout.backward_update(
            saved.x, dy, saved.pieces, self.config.num_pieces, self.W, self.b, self.vW, self.vb,
            learning_rate=update.learning_rate, momentum=update.momentum, max_col_norm=self.config.max_col_norm,
            dropout=saved.dropout, row_scale_B=row_scale, skip=update.skip,
            precision=self.precision, workspace=self.update_workspace, backend=self.backend,
        )  # fmt: skip


Layer = Linear | LinearMaxout


def num_columns(config: LayerConfig, num_outputs: int) -> int:
    """Give the number of W's columns: O, or U·P."""
    return num_outputs * config.num_pieces if isinstance(config, MaxoutConfig) else num_outputs


def make(config: LayerConfig, W: Array, b: Array, device: HostDevice, workspace: Workspace) -> Layer:
    """Make the layer that a configuration describes around its first weights (I, columns) and biases (columns,)."""
    if isinstance(config, MaxoutConfig):
        return LinearMaxout(config, W, b, device, workspace)
    return Linear(config, W, b, device, workspace)
