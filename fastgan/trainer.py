"""Algorithm 1 of the paper, and the simultaneous update of the released code, over fixed buffers.

A step is a fixed sequence of operations: what changes from one to the next is in ``StepState``, which the step itself
moves on. So a device can capture a step once and replay it.

Buffers. G's rows and the data's share one array of (k + 2)·B rows, ``images``:

    rows      0 … B-1     the data of sub-step 0
    rows      B … 2B-1    G(z) of sub-step 0, and after its use the data of sub-step 1
    …
    rows    k·B … k·B+B-1 G(z) of sub-step k - 1
    rows  (k+1)·B …       G(z) of G's own step

G does not change while D learns, so one pass of G makes all k + 1 blocks of it; D's joined batch of sub-step j is then
rows j·B … (j+2)·B-1, data first, without a copy. The simultaneous update has the first two blocks only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastgan import layers
from fastgan.config import Config, ConvMaxoutConfig, ConvTransposeConfig, LinearConfig
from fastgan.datasets import Dataset
from fastgan.errors import ConfigError, DataError
from fastgan.kernels import gather, step
from fastgan.kernels.common.arrays import Array
from fastgan.kernels.common.devices import HostDevice
from fastgan.kernels.common.philox import Purpose, stream_id
from fastgan.kernels.dropout import Dropout
from fastgan.kernels.gan_loss import gan_loss
from fastgan.layers import Update
from fastgan.memory import check_memory
from fastgan.networks import Network, Pass, build_discriminator, build_generator


def learning_rates(config: Config, num_updates: int) -> NDArray[np.float32]:
    """Tabulate the rate of every update: max(learning_rate / decay^t, min_learning_rate), in float64, rounded once.

    Parameters
    ----------
    config : Config
    num_updates : int
        How many, 1 or more.

    Returns
    -------
    (T,) float32
        T is ``num_updates``, or less where the least rate is reached before: the last one holds ever after.
    """
    if config.learning_rate <= config.min_learning_rate:
        num_updates = 1
    elif config.learning_rate_decay > 1 and config.min_learning_rate > 0:
        fall = math.log(config.learning_rate / config.min_learning_rate)
        num_updates = min(num_updates, math.ceil(fall / math.log(config.learning_rate_decay)) + 1)
    elif config.learning_rate_decay == 1:
        num_updates = 1
    check_memory(24.0 * num_updates, f"The learning rates of {num_updates:,} updates")
    t = np.arange(num_updates, dtype=np.float64)
    # By way of the logarithm, since decay^t leaves float64's range long before the quotient does.
    rates = config.learning_rate * np.exp(-t * np.log(config.learning_rate_decay))
    table: NDArray[np.float32] = np.maximum(rates, config.min_learning_rate).astype(np.float32)
    return table


def momenta(config: Config) -> NDArray[np.float32]:
    """Tabulate the momentum of every epoch up to the one from which it stays: index e - 1 is epoch e.

    Returns
    -------
    (momentum_epochs,) float32
    """
    check_memory(24.0 * config.momentum_epochs, f"The momenta of {config.momentum_epochs:,} epochs")
    ramp = np.arange(config.momentum_epochs, dtype=np.float64) / (config.momentum_epochs - 1)
    return (config.momentum + (config.final_momentum - config.momentum) * ramp).astype(np.float32)


class Trainer:
    """The two networks, the step that trains them, and the state that a checkpoint keeps.

    Parameters
    ----------
    config : Config
        A whole configuration.
    dataset : Dataset
        Its "train" split is trained on.
    device : device
        Where everything lives (``kernels.common.devices.device``).
    num_updates : int
        How many updates will be made; rates are tabulated for them.
    dtype : dtype
        float32, or float64 for checks.

    Attributes
    ----------
    generator, discriminator : Generator, Discriminator
    state : StepState
        Where training is.
    sums : (4,) float64
        Sums over all updates so far of the losses and means of ``kernels.gan_loss.SUMS``, D's over its k sub-steps.
    steps_per_epoch : int
        floor(n / (k·B)).

    Raises
    ------
    ConfigError
        The networks do not fit the data.
    DataError
        There are fewer rows than one step needs.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        device: HostDevice,
        num_updates: int,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        split = dataset.splits["train"]
        num_pixels = split.pixels.shape[1]
        _check_fit(config, dataset)
        self.config, self.device = config, device
        B, k = config.batch_size, config.d_steps
        self.steps_per_epoch = len(split) // (k * B)
        if self.steps_per_epoch == 0:
            raise DataError(
                f"The training data of {dataset.name} has {len(split)} rows and a step needs {k * B}: "
                "use a smaller --batch-size or --d-steps"
            )
        means = dataset.pixel_means() if config.generator[-1].bias == "marginals" else np.zeros(num_pixels)
        self.generator = build_generator(config, num_pixels, means, device, dtype)
        self.discriminator = build_discriminator(config, dataset.image_shape, device, dtype)

        # A step's gather divides and no more: other normalisations are made once, here.
        self.data = device.upload(split.pixels if split.contrast is None else split.as_float32())
        self.divisor = split.divisor if split.contrast is None else 1.0
        self.state = step.StepState(device.upload(step.StepState().words))
        self.sums: NDArray[np.float64] = device.upload(np.zeros(4))
        self._momenta = device.upload(momenta(config))
        self.set_num_updates(num_updates)
        self._update = Update(self.state.learning_rate, self.state.momentum, self.state.non_finite)

        simultaneous = config.update == "simultaneous"
        num_blocks = 1 if simultaneous else k + 1
        self._z = device.empty((num_blocks * B, config.noise_dim), dtype)
        self._images = device.empty(((num_blocks + 1) * B, num_pixels), dtype)
        self._generator_pass = self.generator.new_pass(self._z, out=self._images[B:])
        self._last_generator_pass = self._generator_pass.rows(slice((num_blocks - 1) * B, num_blocks * B))
        # Of D's linear and maxout layers, pass by pass, with their inputs' numbers.
        self._masks: list[tuple[Dropout, int]] = []
        # A sub-step's batch of D: real rows 0 … B-1, generated ones B … 2B-1.
        self._joined_passes = [self._new_discriminator_pass(slice(j * B, (j + 2) * B), j, 0) for j in range(k)]
        # D on G's own step: generated rows alone, numbered as in a joined batch.
        self._judging_pass = None if simultaneous else self._new_discriminator_pass(slice((k + 1) * B, None), k, B)
        self._ones = device.upload(np.ones((2 * B, 1), dtype))
        self._d_scale = device.empty((2 * B,), dtype)
        self._g_scale = device.empty((B,), dtype)
        self._losses = device.empty((4,), np.float64)

    def set_num_updates(self, num_updates: int) -> None:
        """Tabulate the rates for so many updates, and the one after them, which the state holds when they are done."""
        self.device.forget()
        self._learning_rates = self.device.upload(learning_rates(self.config, num_updates + 1))
        step.set_rates(self.state, self._learning_rates, self._momenta, backend=self.device.backend)

    def step(self) -> None:
        """Make one training step: the fixed sequence of operations that a device can capture."""
        if self.config.update == "simultaneous":
            self._step_simultaneously()
        else:
            self._step_algorithm_1()
        rows_per_step = self.config.d_steps * self.config.batch_size
        step.advance(
            self.state, self._learning_rates, self._momenta,
            rows_per_step=rows_per_step, rows_per_epoch=self.steps_per_epoch * rows_per_step,
            backend=self.device.backend,
        )  # fmt: skip

    def _step_algorithm_1(self) -> None:
        """Algorithm 1: k updates of D, each on fresh data and fresh noise, then one of G on fresh noise."""
        B, k = self.config.batch_size, self.config.d_steps
        for j in range(k + 1):
            with self.device.branch():
                self._draw_noise(j)
        self.device.join()
        with self.device.branch():
            self._prepare_discriminator()
        self._generator_pass.forward()
        self.device.join()

        # for k steps do: update the discriminator by ascending its stochastic gradient (here: descending the loss's).
        for j in range(k):
            if j > 0:
                self._gather_data(j)
            joined = self._joined_passes[j]
            joined.forward_hidden()
            with self.device.branch():
                self._loss(joined.forward_last(), num_real=B, out_discriminator=self._d_scale)
            # A unit gradient goes back; the loss's gradient of each row's logit scales the row where weights are
            # updated.
            joined.backward(self._ones, update=self._update, row_scale=self._d_scale)
            self.device.join()

        # Sample a minibatch of noise; update the generator by descending its stochastic gradient.
        assert self._judging_pass is not None
        self._judging_pass.forward_hidden()
        with self.device.branch():
            self._loss(self._judging_pass.forward_last(), num_real=0, out_generator=self._g_scale)
        dimages = self._judging_pass.backward(self._ones[:B], input_rows=slice(0, B), input_row_scale=self._g_scale)
        assert dimages is not None
        self._last_generator_pass.backward(dimages, update=self._update)
        self.device.join()

    def _step_simultaneously(self) -> None:
        """Update both from one batch, as the released code does: the same noise and the same dropout masks serve both.

        D's logit is one number a row, so one backward pass of a unit gradient through D serves both objectives: its
        rows are scaled by D's gradient where D's weights are updated, and by G's where they leave D for G.
        """
        B = self.config.batch_size
        with self.device.branch():
            self._prepare_discriminator()
        self._draw_noise(0)
        self._generator_pass.forward()
        self.device.join()
        joined = self._joined_passes[0]
        joined.forward_hidden()
        with self.device.branch():
            self._loss(joined.forward_last(), num_real=B, out_discriminator=self._d_scale, out_generator=self._g_scale)
        dimages = joined.backward(
            self._ones,
            update=self._update,
            row_scale=self._d_scale,
            input_rows=slice(B, 2 * B),
            input_row_scale=self._g_scale,
        )
        assert dimages is not None
        self._generator_pass.backward(dimages, update=self._update)
        self.device.join()

    def _draw_noise(self, substep: int) -> None:
        B = self.config.batch_size
        self.generator.draw_noise(
            self._z[substep * B : (substep + 1) * B],
            seed=self.config.seed, stream=stream_id(Purpose.NOISE, substep=substep), step=self.state.update,
        )  # fmt: skip

    def _prepare_discriminator(self) -> None:
        """Gather what D sees first besides generated images, and draw its masks where they are drawn ahead."""
        self._gather_data(0)
        for dropout, num_columns in self._masks:
            self.device.draw_mask(dropout, num_columns)

    def _gather_data(self, substep: int) -> None:
        B = self.config.batch_size
        gather.rows(
            self.data, self.divisor, self._images[substep * B : (substep + 1) * B],
            seed=self.config.seed, epoch=self.state.epoch, start=self.state.start, start_offset=substep * B,
            backend=self.device.backend,
        )  # fmt: skip

    def _loss(
        self,
        logits: Array,
        *,
        num_real: int,
        out_discriminator: Array | None = None,
        out_generator: Array | None = None,
    ) -> None:
        gan_loss(
            logits.reshape(-1), num_real, self.config.objective,
            out_discriminator=out_discriminator, out_generator=out_generator,
            sums=self.sums, non_finite=self.state.non_finite, out=self._losses, backend=self.device.backend,
        )  # fmt: skip

    def _new_discriminator_pass(self, rows: slice, substep: int, row_offset: int) -> Pass:
        """Make D's pass over some rows of the images, with the masks of a sub-step."""
        x = self._images[rows]
        dropouts: list[Dropout | None] = []
        for i, (layer, config) in enumerate(zip(self.discriminator.layers, self.config.discriminator, strict=True)):
            assert not isinstance(config, ConvTransposeConfig)
            if config.dropout_keep == 1.0:
                dropouts.append(None)
                continue
            bits = self.device.empty((len(x), -(-layer.num_inputs // 8)), np.uint8)
            stream = stream_id(Purpose.DROPOUT, layer=i, substep=substep)
            dropout = Dropout(config.dropout_keep, self.config.seed, stream, self.state.update, row_offset, bits)
            if not isinstance(config, ConvMaxoutConfig):
                dropout = self.device.drawn_ahead(dropout)
                self._masks.append((dropout, layer.num_inputs))
            dropouts.append(dropout)
        return self.discriminator.new_pass(x, dropouts=dropouts)

    def first_non_finite(self) -> str | None:
        """Name what first met a NaN or an infinity in the step where the flag was raised, or None where nothing shows.

        An update that meets one raises the flag, and none is made after that: on the host from the next parameter on,
        on a GPU from the next loss on. So where velocities hold one, it came with the gradients, on their way back or
        in a parameter's own; the first is that of the layer nearest to the loss. Else it came forward: from a
        parameter, or out of a layer. What is read are the step's own buffers, so a step that has been repeated since
        may hide the way there.
        """
        networks: dict[str, Network] = {"generator": self.generator, "discriminator": self.discriminator}
        judging = [] if self._judging_pass is None else [self._judging_pass]
        generating = [self._generator_pass, self._last_generator_pass]
        passes = {"generator": generating, "discriminator": [*self._joined_passes, *judging]}
        velocities = [
            f"{of}/{i}/{name}"
            # As gradients come: through D first, and back from the last layer.
            for of, network in reversed(networks.items())
            for i, layer in reversed(list(enumerate(network.layers)))
            for name in ("W", "b")
            if not self._is_finite(getattr(layer, f"v{name}"))
        ]
        if velocities:
            return self._first_gradient(passes) or f"the gradient of {velocities[0]}"
        if not self._is_finite(self._z):
            return "the noise"
        for of, network in networks.items():
            for i, layer in enumerate(network.layers):
                for name in ("W", "b"):
                    if not self._is_finite(getattr(layer, name)):
                        return f"{of}/{i}/{name}"
                if not all(self._is_finite(each.saved[i].y) for each in passes[of]):
                    return f"the output of {of}/{i}"
        return None

    def _first_gradient(self, passes: dict[str, list[Pass]]) -> str | None:
        """Name the layer that first handed a NaN or an infinity back, in the order of the step."""
        for of in ("discriminator", "generator"):
            for each in passes[of]:
                if not all(self._is_finite(saved.y) for saved in each.saved):
                    # This pass came forward through what an update before it had spoilt.
                    return None
                for i in reversed(range(len(each.saved))):
                    if not all(self._is_finite(dx) for dx in each.input_gradients(i)):
                        return f"the gradient that {of}/{i} handed back"
        return None

    def _is_finite(self, array: Array) -> bool:
        return bool(np.isfinite(self.device.download(array)).all())

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Give copies on the host of all that decides how training goes on: networks, velocities, step and sums."""
        return {name: self.device.download(array) for name, array in self._arrays().items()}

    def load_arrays(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Go on from what ``arrays`` gave.

        Raises
        ------
        ValueError
            A name is missing, or an array has another shape or dtype than this trainer's.
        """
        own = self._arrays()
        for name, array in own.items():
            if name not in arrays:
                raise ValueError(f"there is no {name}")
            if arrays[name].shape != array.shape or arrays[name].dtype != array.dtype:
                raise ValueError(
                    f"{name} is {arrays[name].dtype} {arrays[name].shape}; it must be {array.dtype} {array.shape}"
                )
        for name, array in own.items():
            self.device.overwrite(array, arrays[name])
        step.set_rates(self.state, self._learning_rates, self._momenta, backend=self.device.backend)

    def load_networks(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Take weights and biases from what ``arrays`` gave, and leave velocities and step at their start."""
        current = self.arrays()
        weights = {name: array for name, array in arrays.items() if name.endswith(("/W", "/b")) and name in current}
        self.load_arrays({**current, **weights})

    def _arrays(self) -> dict[str, Array]:
        networks: dict[str, Network] = {"generator": self.generator, "discriminator": self.discriminator}
        named = {
            f"{of}/{name}": array for of, network in networks.items() for name, array in network.parameters().items()
        }
        return {**named, "state": self.state.words, "sums": self.sums}


def _check_fit(config: Config, dataset: Dataset) -> None:
    for network in ("generator", "discriminator"):
        if not getattr(config, network):
            raise ConfigError(f"{network} has no layers; start from a preset")
    shape: layers.Shape = (config.noise_dim,)
    for layer in config.generator:
        shape = layers.output_shape(layer, shape, dataset.num_pixels)
    if shape not in ((dataset.num_pixels,), dataset.image_shape):
        units = " x ".join(map(str, shape))
        pixels = dataset.num_pixels if len(shape) == 1 else " x ".join(map(str, dataset.image_shape))
        raise ConfigError(
            f"The generator's output layer has {units} units and an image of the data {pixels} pixels; use the data "
            "set's own preset"
        )
    output = config.generator[-1]
    if dataset.contrast is None or not isinstance(output, LinearConfig):
        return
    if output.activation != "identity" or output.bias == "marginals":
        raise ConfigError(
            f"The generator's output layer (activation {output.activation}, bias {output.bias}) is made for pixels in "
            f"[0, 1], and those of {dataset.name} are normalised in contrast, of both signs; use the data set's own "
            "preset"
        )
