"""A network is a list of layers; a pass is one way of sending rows through it, over fixed buffers.

The two networks of the game are made here from a configuration: weights, biases and all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan import layers
from fastgan.config import Config, LayerConfig, LinearConfig
from fastgan.errors import ConfigError
from fastgan.kernels import noise
from fastgan.kernels.common import philox
from fastgan.kernels.common.arrays import Array, Counter
from fastgan.kernels.common.devices import HostDevice
from fastgan.kernels.common.philox import Purpose, stream_id
from fastgan.kernels.dropout import Dropout
from fastgan.layers import Saved, Update
from fastgan.memory import check_memory

# Uniform noise of variance 1, as the released code draws it.
_HALF_WIDTH = 3.0**0.5
_SAMPLES_A_BATCH = 1000


class Network:
    """Layers in order, input side first.

    Attributes
    ----------
    layers : list of layers
    """

    def __init__(self, network_layers: Sequence[layers.Layer], device: HostDevice, dtype: Any = np.float32) -> None:
        self.layers = list(network_layers)
        self.device = device
        self.dtype = np.dtype(dtype)

    @property
    def num_inputs(self) -> int:
        """Columns of the input."""
        return self.layers[0].num_inputs

    @property
    def num_outputs(self) -> int:
        """Columns of the output."""
        return self.layers[-1].num_outputs

    def new_pass(self, x: Array, *, out: Array | None = None, dropouts: Sequence[Dropout | None] = ()) -> Pass:
        """Make the buffers of a pass.

        Parameters
        ----------
        x : (B, I) array
            The buffer that the pass reads its input from each time.
        out : (B, O), optional
            Where the last layer's output goes.
        dropouts : sequence, optional
            A layer's input dropout each; without it nothing is dropped.

        Returns
        -------
        Pass
        """
        num_rows = x.shape[0]
        saved: list[Saved] = []
        for i, layer in enumerate(self.layers):
            is_last = i == len(self.layers) - 1
            y = out if is_last and out is not None else self.device.empty((num_rows, layer.num_outputs), self.dtype)
            saved.append(layer.saved(x, y, dropouts[i] if dropouts else None, self.device))
            x = y
        return Pass(self, saved)

    def parameters(self) -> dict[str, Array]:
        """Name every parameter and velocity: ``0/W``, ``0/b``, ``0/vW``, ``0/vb``, ``1/W`` and so on."""
        return {f"{i}/{name}": getattr(layer, name) for i, layer in enumerate(self.layers) for name in layer.PARAMETERS}


class Pass:
    """Rows going through a network and gradients coming back, always over the same buffers.

    Attributes
    ----------
    network : Network
    saved : list of Saved
        A layer's buffers each.
    """

    def __init__(self, network: Network, saved: list[Saved]) -> None:
        self.network = network
        self.saved = saved
        self._dx: dict[tuple[int, int], Array] = {}

    @property
    def y(self) -> Array:
        """The output of the last forward pass, (B, O)."""
        return self.saved[-1].y

    def rows(self, rows: slice) -> Pass:
        """Give the pass of some of the rows: views of the same buffers."""
        return Pass(self.network, [saved.rows(rows) for saved in self.saved])

    def forward(self) -> Array:
        """Send the input buffer's rows through; give the output (B, O)."""
        self.forward_hidden()
        return self.forward_last()

    def forward_hidden(self) -> None:
        """Send the input buffer's rows through all layers but the last."""
        for layer, saved in zip(self.network.layers[:-1], self.saved[:-1], strict=True):
            layer.forward(saved)

    def forward_last(self) -> Array:
        """Send what ``forward_hidden`` left through the last layer; give the output (B, O)."""
        self.network.layers[-1].forward(self.saved[-1])
        return self.y

    def backward(
        self,
        dy: Array,
        *,
        update: Update | None = None,
        row_scale: Array | None = None,
        input_rows: slice | None = None,
        input_row_scale: Array | None = None,
    ) -> Array | None:
        """Carry a gradient back, updating the parameters on the way where that is asked for.

        Each layer hands the gradient on before it changes: all of it is that of the network that ``forward`` used.
        Factors of rows are read after a ``join`` of the device's: what finds them may be a branch, and the gradient of
        a layer's input goes back beside it. Updates are branches again: a ``join`` comes before what reads the
        parameters.

        Parameters
        ----------
        dy : (B, O) array
            The gradient of the output.
        update : Update, optional
            How to change the parameters; without it they stay.
        row_scale : (B,), optional
            Factors of the rows in the parameters' gradients.
        input_rows : slice, optional
            The rows whose gradient with respect to the network's input is wanted; without it none is computed.
        input_row_scale : (number of input_rows,), optional
            Factors of the rows in that gradient.

        Returns
        -------
        (number of input_rows, I) array, or None
            The gradient with respect to the network's input: a buffer that the next call overwrites.
        """
        device = self.network.device
        dys = [dy]
        for i in range(len(self.saved) - 1, 0, -1):
            dys.insert(0, self.network.layers[i].backward_input(dys[0], self.saved[i], self._buffer(i, len(dy))))
        device.join()
        dx = None
        if input_rows is not None:
            part = self.saved[0].rows(input_rows)
            out = self._buffer(0, len(part.x))
            dx = self.network.layers[0].backward_input(dys[0][input_rows], part, out, input_row_scale)
        if update is not None:
            for layer, saved, dy in zip(self.network.layers, self.saved, dys, strict=True):
                with device.branch():
                    layer.backward_update(dy, saved, update, row_scale)
        return dx

    def gradients(self, dy: Array, row_scale: Array | None = None) -> list[tuple[Array, Array]]:
        """Give (dW, db) of every layer for the gradient ``dy`` (B, O) of the output; nothing is changed."""
        result: list[tuple[Array, Array]] = []
        for i in reversed(range(len(self.saved))):
            layer, saved = self.network.layers[i], self.saved[i]
            result.append(layer.backward_weights(dy, saved, row_scale))
            if i > 0:
                dy = layer.backward_input(dy, saved, self._buffer(i, len(dy)))
        return result[::-1]

    def input_gradients(self, layer: int) -> list[Array]:
        """List the buffers of the gradients of a layer's input, as the last backward pass left them."""
        return [dx for (i, _), dx in self._dx.items() if i == layer]

    def _buffer(self, layer: int, num_rows: int) -> Array:
        """Give the buffer of the gradient of a layer's input, made at its first use."""
        key = (layer, num_rows)
        if key not in self._dx:
            num_inputs = self.network.layers[layer].num_inputs
            self._dx[key] = self.network.device.empty((num_rows, num_inputs), self.network.dtype)
        return self._dx[key]


class Generator(Network):
    """G: noise z to images.

    Attributes
    ----------
    noise : {"uniform", "normal"}
        Distribution of z.
    """

    def __init__(
        self, network_layers: Sequence[layers.Layer], device: HostDevice, noise_kind: str, dtype: Any = np.float32
    ) -> None:
        super().__init__(network_layers, device, dtype)
        self.noise = noise_kind

    def draw_noise(self, out: Array, *, seed: int, stream: int, step: Counter = 0, row_offset: int = 0) -> Array:
        """Fill ``out`` (B, Z) with the noise of a stream's step."""
        backend = self.device.backend
        if self.noise == "normal":
            return noise.normal(out, seed=seed, stream=stream, step=step, row_offset=row_offset, backend=backend)
        return noise.uniform(
            out, low=-_HALF_WIDTH, high=_HALF_WIDTH,
            seed=seed, stream=stream, step=step, row_offset=row_offset, backend=backend,
        )  # fmt: skip

    def sample_noise(self, num: int, seed: int = 0, *, row_offset: int = 0) -> NDArray[np.float32]:
        """Draw the noise that ``sample`` uses.

        Parameters
        ----------
        num : int
            How many rows.
        seed : int
            0 to 2^64 - 1; it has nothing to do with the run's.
        row_offset : int
            Number of the first row.

        Returns
        -------
        (num, Z) float32
        """
        check_memory(num * self.num_inputs * self.dtype.itemsize, f"{num:,} rows of {self.num_inputs} noise numbers")
        z = self.device.empty((num, self.num_inputs), self.dtype)
        return self.device.download(
            self.draw_noise(z, seed=seed, stream=stream_id(Purpose.SAMPLES), row_offset=row_offset)
        )

    def sample(self, num: int, seed: int = 0) -> NDArray[np.float32]:
        """Draw images: fair draws, the same ones for the same seed.

        Parameters
        ----------
        num : int
            How many, 1 or more.
        seed : int
            0 to 2^64 - 1.

        Returns
        -------
        (num, D) float32
            Pixels in the flattened C·H·W order; in [0, 1] where the output layer is a sigmoid.

        Raises
        ------
        NotEnoughMemoryError
            So many do not fit into this machine's memory.
        """
        if num < 1:
            raise ValueError(f"num is {num}; it must be 1 or more")
        check_memory(num * self.num_outputs * self.dtype.itemsize, f"{num:,} samples of {self.num_outputs} pixels")
        samples = np.empty((num, self.num_outputs), self.dtype)
        # Batch by batch, so that nothing else grows with their number; a row is the same in any batch but for the
        # products' rounding.
        for first in range(0, num, _SAMPLES_A_BATCH):
            rows = samples[first : first + _SAMPLES_A_BATCH]
            rows[...] = self.generate(self.sample_noise(len(rows), seed, row_offset=first))
        return samples

    def generate(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Send noise through: (B, Z) float32 to (B, D) float32."""
        return self.device.download(self.new_pass(self.device.upload(z)).forward())


class Discriminator(Network):
    """D: images to the logit of the probability that they are data."""

    def probability(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give D(x) without dropout: (B, D) float32 to (B,) float32 in [0, 1]."""
        logits = self.device.download(self.new_pass(self.device.upload(x)).forward())
        probabilities: NDArray[np.float32] = np.exp(-np.logaddexp(0, -logits[:, 0]))
        return probabilities


def build_generator(
    config: Config, num_pixels: int, pixel_means: NDArray[np.float64], device: HostDevice, dtype: Any = np.float32
) -> Generator:
    """Make G with its first weights.

    Parameters
    ----------
    config : Config
        ``generator``, ``noise``, ``noise_dim`` and ``seed`` are read.
    num_pixels : int
        D, columns of an image.
    pixel_means : (D,) float64
        Means over the training set, for "marginals" biases.
    device : device
        Where it lives.
    dtype : dtype
        float32, or float64 for checks of gradients.
    """
    made = _build(
        config.generator,
        (config.noise_dim,),
        num_pixels,
        Purpose.GENERATOR_WEIGHTS,
        config.seed,
        pixel_means,
        device,
        dtype,
    )
    return Generator(made, device, config.noise, dtype)


def build_discriminator(
    config: Config, image_shape: tuple[int, int, int], device: HostDevice, dtype: Any = np.float32
) -> Discriminator:
    """Make D with its first weights for images of ``image_shape``; other arguments as for ``build_generator``."""
    # The last layer's sigmoid is inside the loss, which needs the logit.
    *hidden, last = config.discriminator
    assert isinstance(last, LinearConfig)
    configs = (*hidden, replace(last, activation="identity", num_units=1))
    made = _build(configs, image_shape, 1, Purpose.DISCRIMINATOR_WEIGHTS, config.seed, None, device, dtype)
    return Discriminator(made, device, dtype)


def _build(
    configs: Sequence[LayerConfig],
    input_shape: layers.Shape,
    num_outputs: int,
    purpose: Purpose,
    seed: int,
    pixel_means: NDArray[np.float64] | None,
    device: HostDevice,
    dtype: Any,
) -> list[layers.Layer]:
    workspace = device.workspace()
    made: list[layers.Layer] = []
    for i, config in enumerate(configs):
        W_shape, b_shape = layers.parameter_shapes(config, input_shape, num_outputs)
        # A weight, its velocity, and the weights once more while they are made.
        sizes = " by ".join(f"{length:,}" for length in W_shape)
        check_memory(3 * math.prod(W_shape) * np.dtype(dtype).itemsize, f"{sizes} weights")
        W = _first_weights(config, math.prod(W_shape[:-1]), W_shape[-1], purpose, i, seed)
        b = _first_biases(config, b_shape, pixel_means)
        first = W.astype(dtype).reshape(W_shape), b.astype(dtype)
        made.append(layers.make(config, input_shape, *first, device, workspace))
        input_shape = layers.output_shape(config, input_shape, num_outputs)
    return made


def _first_weights(
    config: LayerConfig, num_inputs: int, columns: int, purpose: Purpose, layer: int, seed: int
) -> NDArray[np.float32]:
    """Draw a layer's weights (I, columns) by the reference on every backend, so that all start from the same bits."""
    W = np.empty((num_inputs, columns), np.float32)
    if not isinstance(config, LinearConfig) or config.sparse_init is None:
        stream = stream_id(purpose, layer=layer)
        noise.uniform(W, low=-config.irange, high=config.irange, seed=seed, stream=stream, backend="reference")
        return W
    num_nonzero = config.sparse_init
    if num_nonzero > num_inputs:
        network = "generator" if purpose == Purpose.GENERATOR_WEIGHTS else "discriminator"
        raise ConfigError(
            f"{network}.{layer}.sparse_init is {num_nonzero} and the layer has {num_inputs} inputs; it must be "
            f"{num_inputs} or less"
        )
    # Those of the least random words, in each column; the row makes equal words different.
    random_words = philox.words(num_inputs, columns, seed=seed, stream=stream_id(purpose, layer=layer, substep=1))
    keys = (random_words.astype(np.uint64) << np.uint64(32)) | np.arange(num_inputs, dtype=np.uint64)[:, None]
    last = np.partition(keys, num_nonzero - 1, axis=0)[num_nonzero - 1]
    noise.normal(W, seed=seed, stream=stream_id(purpose, layer=layer, substep=2), backend="reference")
    W[keys > last] = 0.0
    return W


def _first_biases(
    config: LayerConfig, shape: layers.Shape, pixel_means: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    if config.bias == "marginals":
        assert pixel_means is not None
        means = np.clip(pixel_means, 1e-7, 1 - 1e-7)
        return np.asarray(np.log(means) - np.log1p(-means))
    return np.full(shape, float(config.bias))
