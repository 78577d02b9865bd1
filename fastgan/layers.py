"""Layers: parameters and their velocities, and the three things a layer does in a step.

``forward`` fills a ``Saved`` with the output and with what backward needs; ``backward_input`` carries a gradient on;
``backward_update`` changes the parameters. All arrays are fixed buffers made beforehand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fastgan.config import ConvMaxoutConfig, ConvTransposeConfig, LayerConfig, LinearConfig, MaxoutConfig
from fastgan.errors import ConfigError
from fastgan.kernels import conv_maxout, conv_transpose, linear, linear_maxout, max_pool
from fastgan.kernels.common.arrays import Array, Rate, Workspace
from fastgan.kernels.common.backends import require_operations
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
    places : (B, O) uint8, optional
        Where in its window each maximum of a pooled layer is.
    """

    x: Array
    y: Array
    pieces: Array | None
    dropout: Dropout | None
    places: Array | None = None

    def rows(self, rows: slice) -> Saved:
        """Give the part of some rows, as views."""
        dropout = self.dropout
        if dropout is not None:
            bits = None if dropout.bits is None else dropout.bits[rows]
            dropout = replace(dropout, row_offset=dropout.row_offset + (rows.start or 0), bits=bits)
        pieces = None if self.pieces is None else self.pieces[rows]
        places = None if self.places is None else self.places[rows]
        return Saved(self.x[rows], self.y[rows], pieces, dropout, places)


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


class ConvMaxout(_Layer):
    """``y = max over windows of max over pieces of dropout(x) * W + b``, images in rows of C·H·W.

    Attributes
    ----------
    W, vW : (C, K, K, U·P)
        Kernels and their velocity.
    b, vb : (U·P,)
        Biases and their velocity.
    """

    config: ConvMaxoutConfig

    def __init__(
        self,
        config: ConvMaxoutConfig,
        input_shape: Shape,
        W: Array,
        b: Array,
        device: HostDevice,
        workspace: Workspace,
    ) -> None:
        super().__init__(config, W, b, device, workspace)
        require_operations(self.backend, "conv_maxout", "max_pool")
        self._input_shape = input_shape
        self._unpooled_shape = _unpooled_shape(config, input_shape)
        self._output_shape = output_shape(config, input_shape)

    @property
    def num_inputs(self) -> int:
        """C·H·W."""
        return math.prod(self._input_shape)

    @property
    def num_outputs(self) -> int:
        """U·H'·W' after pooling."""
        return math.prod(self._output_shape)

    def saved(self, x: Array, y: Array, dropout: Dropout | None, device: HostDevice) -> Saved:
        """Make the buffers of a pass over ``x`` into ``y``."""
        pieces = device.empty((len(x), math.prod(self._unpooled_shape)), np.uint8)
        return Saved(x, y, pieces, dropout, device.empty(y.shape, np.uint8))

    def forward(self, saved: Saved) -> Array:
        """Fill ``saved`` from ``saved.x``; give y (B, U·H'·W')."""
        assert saved.pieces is not None
        assert saved.places is not None
        unpooled, _ = conv_maxout.forward(
            _images(saved.x, self._input_shape), self.W, self.b, self.config.num_pieces,
            pad=self.config.pad, dropout=saved.dropout,
            out=self._unpooled(saved, self.forward_workspace), out_pieces=_images(saved.pieces, self._unpooled_shape),
            precision=self.precision, workspace=self.forward_workspace, backend=self.backend,
        )  # fmt: skip
        max_pool.forward(
            unpooled, self.config.pool_size, self.config.pool_stride,
            out=_images(saved.y, self._output_shape), out_places=_images(saved.places, self._output_shape),
            backend=self.backend,
        )  # fmt: skip
        return saved.y

    def backward_input(self, dy: Array, saved: Saved, out: Array, row_scale: Array | None = None) -> Array:
        """Write dx (B, C·H·W) into ``out``."""
        assert saved.pieces is not None
        conv_maxout.backward_input(
            self._unpool(dy, saved, self.workspace), _images(saved.pieces, self._unpooled_shape), self.W,
            self.config.num_pieces,
            pad=self.config.pad, dropout=saved.dropout, row_scale_B=row_scale, out=_images(out, self._input_shape),
            precision=self.precision, workspace=self.workspace, backend=self.backend,
        )  # fmt: skip
        return out

    def backward_weights(self, dy: Array, saved: Saved, row_scale: Array | None = None) -> tuple[Array, Array]:
        """Give dW and db."""
        assert saved.pieces is not None
        return conv_maxout.backward_weights(
            _images(saved.x, self._input_shape), self._unpool(dy, saved, self.workspace),
            _images(saved.pieces, self._unpooled_shape), self.config.num_pieces,
            pad=self.config.pad, dropout=saved.dropout, row_scale_B=row_scale,
            precision=self.precision, workspace=self.workspace, backend=self.backend,
        )  # fmt: skip

    def backward_update(self, dy: Array, saved: Saved, update: Update, row_scale: Array | None = None) -> None:
        """Change W, b and their velocities; ``backward_input`` comes first, it needs W as it was."""
        assert saved.pieces is not None
        conv_maxout.backward_update(
            _images(saved.x, self._input_shape), self._unpool(dy, saved, self.update_workspace),
            _images(saved.pieces, self._unpooled_shape), self.config.num_pieces, self.W, self.b, self.vW, self.vb,
            pad=self.config.pad,
            learning_rate=update.learning_rate, momentum=update.momentum, max_col_norm=self.config.max_col_norm,
            dropout=saved.dropout, row_scale_B=row_scale, skip=update.skip,
            precision=self.precision, workspace=self.update_workspace, backend=self.backend,
        )  # fmt: skip

    def _unpooled(self, saved: Saved, workspace: Workspace) -> Array:
        # Nothing but the winners' numbers and places is needed later, so all layers and passes share this.
        return workspace.array("unpooled", (len(saved.x), *self._unpooled_shape), saved.x.dtype)

    def _unpool(self, dy: Array, saved: Saved, workspace: Workspace) -> Array:
        """Carry a gradient back through the pooling."""
        assert saved.places is not None
        _, height, width = self._unpooled_shape
        return max_pool.backward(
            _images(dy, self._output_shape), _images(saved.places, self._output_shape),
            self.config.pool_size, self.config.pool_stride, (height, width),
            out=self._unpooled(saved, workspace), backend=self.backend,
        )  # fmt: skip


class ConvTranspose(_Layer):
    """A transposed convolution to the image's rows of O·H'·W'.

    Attributes
    ----------
    W, vW : (C, O, K, K)
        Kernels and their velocity.
    b, vb : (O, H', W')
        A bias a pixel, and its velocity.
    """

    config: ConvTransposeConfig

    def __init__(
        self,
        config: ConvTransposeConfig,
        input_shape: Shape,
        W: Array,
        b: Array,
        device: HostDevice,
        workspace: Workspace,
    ) -> None:
        super().__init__(config, W, b, device, workspace)
        require_operations(self.backend, "conv_transpose")
        self._input_shape = _square_images(config, input_shape)
        self._output_shape = output_shape(config, input_shape)

    @property
    def num_inputs(self) -> int:
        """C·H·W."""
        return math.prod(self._input_shape)

    @property
    def num_outputs(self) -> int:
        """O·H'·W'."""
        return math.prod(self._output_shape)

    def saved(self, x: Array, y: Array, dropout: Dropout | None, device: HostDevice) -> Saved:
        """Make the buffers of a pass over ``x`` into ``y``."""
        return Saved(x, y, None, dropout)

    def forward(self, saved: Saved) -> Array:
        """Fill ``saved`` from ``saved.x``; give y (B, O·H'·W')."""
        conv_transpose.forward(
            _images(saved.x, self._input_shape), self.W, self.b, self.config.stride,
            out=_images(saved.y, self._output_shape),
            precision=self.precision, workspace=self.forward_workspace, backend=self.backend,
        )  # fmt: skip
        return saved.y

    def backward_input(self, dy: Array, saved: Saved, out: Array, row_scale: Array | None = None) -> Array:
        """Write dx (B, C·H·W) into ``out``; only D's layers scale rows."""
        assert row_scale is None
        conv_transpose.backward_input(
            _images(dy, self._output_shape), self.W, self.config.stride, out=_images(out, self._input_shape),
            precision=self.precision, workspace=self.workspace, backend=self.backend,
        )  # fmt: skip
        return out

    def backward_weights(self, dy: Array, saved: Saved, row_scale: Array | None = None) -> tuple[Array, Array]:
        """Give dW and db."""
        assert row_scale is None
        return conv_transpose.backward_weights(
            _images(saved.x, self._input_shape), _images(dy, self._output_shape), self.config.stride,
            precision=self.precision, workspace=self.workspace, backend=self.backend,
        )  # fmt: skip

    def backward_update(self, dy: Array, saved: Saved, update: Update, row_scale: Array | None = None) -> None:
        """Change W, b and their velocities; ``backward_input`` comes first, it needs W as it was."""
        assert row_scale is None
        conv_transpose.backward_update(
            _images(saved.x, self._input_shape), _images(dy, self._output_shape), self.W, self.b, self.vW, self.vb,
            self.config.stride,
            learning_rate=update.learning_rate, momentum=update.momentum, skip=update.skip,
            precision=self.precision, workspace=self.update_workspace, backend=self.backend,
        )  # fmt: skip


Layer = Linear | LinearMaxout | ConvMaxout | ConvTranspose

# Of one row: (I,) units, or (C, H, W) an image.
Shape = tuple[int, ...]


def output_shape(config: LayerConfig, input_shape: Shape, num_outputs: int = 1) -> Shape:
    """Give the shape of a layer's output for that of its input.

    Parameters
    ----------
    config : layer configuration
    input_shape : (I,) or (C, H, W)
        Of one row.
    num_outputs : int
        Units of a linear layer whose configuration leaves them open.

    Raises
    ------
    ConfigError
        The layer cannot have such an input; the sentence says why.
    """
    if isinstance(config, ConvTransposeConfig):
        _, side, _ = _square_images(config, input_shape)
        length = conv_transpose.output_length(side, config.kernel_size, config.stride)
        return (config.num_channels, length, length)
    if not isinstance(config, ConvMaxoutConfig):
        return (config.num_units or num_outputs,)
    channels, height, width = _unpooled_shape(config, input_shape)
    try:
        lengths = [
            max_pool.output_length(axis, length, config.pool_size, config.pool_stride)
            for axis, length in (("H", height), ("W", width))
        ]
    except ValueError as error:
        raise ConfigError(
            f"Windows of {config.pool_size} x {config.pool_size} do not fit a convolution: {error}"
        ) from None
    return (channels, *lengths)


def parameter_shapes(config: LayerConfig, input_shape: Shape, num_outputs: int = 1) -> tuple[Shape, Shape]:
    """Give the shapes of W and b; arguments as for ``output_shape``."""
    shape = output_shape(config, input_shape, num_outputs)
    if isinstance(config, ConvTransposeConfig):
        K = config.kernel_size
        return (config.input_channels, config.num_channels, K, K), shape
    columns = shape[0] if isinstance(config, LinearConfig) else shape[0] * config.num_pieces
    if isinstance(config, ConvMaxoutConfig):
        return (input_shape[0], config.kernel_size, config.kernel_size, columns), (columns,)
    return (math.prod(input_shape), columns), (columns,)


def _unpooled_shape(config: ConvMaxoutConfig, input_shape: Shape) -> Shape:
    if len(input_shape) != 3:
        raise ConfigError(f"A convolution's input has rows and columns; {input_shape[0]} units have none")
    try:
        lengths = [
            conv_maxout.output_length(axis, length, config.kernel_size, config.pad)
            for axis, length in zip("HW", input_shape[1:], strict=True)
        ]
    except ValueError as error:
        raise ConfigError(f"A convolution does not fit its input: {error}") from None
    return (config.num_channels, *lengths)


def _square_images(config: ConvTransposeConfig, input_shape: Shape) -> Shape:
    num_units = math.prod(input_shape)
    side = math.isqrt(num_units // config.input_channels)
    if side == 0 or config.input_channels * side * side != num_units:
        raise ConfigError(
            f"A transposed convolution of {config.input_channels} input channels has {num_units} inputs, which are not "
            "so many square images"
        )
    return (config.input_channels, side, side)


def _images(rows: Array, shape: Shape) -> Array:
    """See rows (B, C·H·W) as images (B, C, H, W)."""
    return rows.reshape(len(rows), *shape)


def make(
    config: LayerConfig, input_shape: Shape, W: Array, b: Array, device: HostDevice, workspace: Workspace
) -> Layer:
    """Make the layer that a configuration describes around its first weights and biases (``parameter_shapes``)."""
    if isinstance(config, ConvMaxoutConfig):
        return ConvMaxout(config, input_shape, W, b, device, workspace)
    if isinstance(config, ConvTransposeConfig):
        return ConvTranspose(config, input_shape, W, b, device, workspace)
    if isinstance(config, MaxoutConfig):
        return LinearMaxout(config, W, b, device, workspace)
    return Linear(config, W, b, device, workspace)
