"""The training step as one would write it in NumPy in an afternoon: the comparison's baseline, float32 throughout.

Temporaries where they fall, NumPy's own generator, a backward pass for each player. Only k = 1 and the networks of the
``mnist`` and ``digits`` presets (ReLU, sigmoid, maxout; dropout in D).

CuPy can take NumPy's place: then this is what the products of cuBLAS give without any fusion, launch by launch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgan.config import Config, LinearConfig, MaxoutConfig
from fastgan.trainer import Trainer

if TYPE_CHECKING:
    from bench.recipe import Draws

Array = NDArray[np.float32]


class PlainTraining:
    """Two networks as lists of parameters.

    Parameters
    ----------
    config : Config
        The networks, the rates and the batch size.
    trainer : Trainer
        Whose weights are copied, and whose data are learnt.
    xp : module
        NumPy, or CuPy for a GPU; then ``step`` returns before the work is done.
    """

    def __init__(self, config: Config, trainer: Trainer, xp: Any = np) -> None:
        self.config, self.xp = config, xp
        self.pixels, self.divisor = xp.asarray(trainer.data), np.float32(trainer.divisor)
        self.G = [[xp.array(layer.W), xp.array(layer.b)] for layer in trainer.generator.layers]
        self.D = [[xp.array(layer.W), xp.array(layer.b)] for layer in trainer.discriminator.layers]
        self.velocity = {id(p): xp.zeros_like(p) for layer in self.G + self.D for p in layer}
        self.random = xp.random.default_rng(0)

    def step(self) -> tuple[Any, Any]:
        """Make one step on random rows of the data, with noise and masks of its own generator; give both losses."""
        B = self.config.batch_size
        real = self.pixels[self.random.integers(0, len(self.pixels), B)] / self.divisor
        if self.config.update == "simultaneous":
            return self._step_simultaneously(real, self._draw_noise(), self._draw_masks(2 * B))
        noises = [self._draw_noise(), self._draw_noise()]
        return self._step_algorithm_1(real, noises, [self._draw_masks(2 * B), self._draw_masks(B)])

    def step_with(self, draws: Draws) -> tuple[float, float]:
        """Make one step with what is handed in; give both losses."""
        here = self.xp.asarray
        real, noises = here(draws.real), [here(z) for z in draws.noises]
        masks = [[here(mask) for mask in of_substep] for of_substep in draws.masks]
        if self.config.update == "simultaneous":
            d_loss, g_loss = self._step_simultaneously(real, noises[0], masks[0])
        else:
            d_loss, g_loss = self._step_algorithm_1(real, noises, masks)
        return float(d_loss), float(g_loss)

    def weights(self) -> list[Array]:
        """Give copies of G's and then D's weights."""
        # CuPy's arrays have ``get``, which copies them to the host.
        return [W.copy() if self.xp is np else W.get() for W, _ in self.G + self.D]

    def _draw_noise(self) -> Array:
        """Draw z (B, Z), uniform on (-√3, √3)."""
        shape = (self.config.batch_size, self.config.noise_dim)
        return (self.random.random(shape, dtype=np.float32) * 2 - 1) * np.float32(3**0.5)

    def _draw_masks(self, num_rows: int) -> list[Array]:
        """Draw the factors of D's inputs, a layer each: 0 or 1 / keep."""
        masks = []
        for (W, _), config in zip(self.D, self.config.discriminator, strict=True):
            kept = self.random.random((num_rows, len(W)), dtype=np.float32) < config.dropout_keep
            masks.append(kept * np.float32(1 / config.dropout_keep))
        return masks

    def _step_algorithm_1(self, real: Array, noises: list[Array], masks: list[list[Array]]) -> tuple[Any, Any]:
        """Update D on data and generated rows, then G on fresh noise."""
        images, _ = self._generate(noises[0])
        logits, saved = self._discriminate(self.xp.concatenate([real, images]), masks[0])
        d_loss, d_logits = self._discriminator_loss(logits)
        self._descend(self.D, self._backward_discriminator(d_logits, saved)[0])

        images, G_saved = self._generate(noises[1])
        logits, saved = self._discriminate(images, masks[1])
        g_loss, d_logits = self._generator_loss(logits)
        _, d_images = self._backward_discriminator(d_logits, saved)
        self._descend(self.G, self._backward_generator(d_images, G_saved))
        return d_loss, g_loss

    def _step_simultaneously(self, real: Array, noise: Array, masks: list[Array]) -> tuple[Any, Any]:
        """Update both from one batch: a backward pass of D's loss, and one of G's from the generated rows."""
        B = self.config.batch_size
        images, G_saved = self._generate(noise)
        logits, saved = self._discriminate(self.xp.concatenate([real, images]), masks)
        d_loss, d_logits = self._discriminator_loss(logits)
        d_gradients, _ = self._backward_discriminator(d_logits, saved)
        g_loss, d_logits = self._generator_loss(logits[B:])
        generated = [(x[B:], mask[B:], None if pieces is None else pieces[B:]) for x, mask, pieces in saved]
        _, d_images = self._backward_discriminator(d_logits, generated)
        self._descend(self.D, d_gradients)
        self._descend(self.G, self._backward_generator(d_images, G_saved))
        return d_loss, g_loss

    def _softplus(self, x: Array) -> Any:
        return self.xp.logaddexp(np.float32(0), x)

    def _discriminator_loss(self, logits: Array) -> tuple[Any, Array]:
        B = self.config.batch_size
        loss = 0.5 * (self._softplus(-logits[:B]).mean() + self._softplus(logits[B:]).mean())
        probability = 1 / (1 + self.xp.exp(-logits))
        gradient = self.xp.concatenate([probability[:B] - 1, probability[B:]])[:, None] * np.float32(0.5 / B)
        return loss, gradient

    def _generator_loss(self, logits: Array) -> tuple[Any, Array]:
        gradient = (1 / (1 + self.xp.exp(-logits)) - 1)[:, None] * np.float32(1 / len(logits))
        return self._softplus(-logits).mean(), gradient

    def _generate(self, x: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        saved = []
        for (W, b), config in zip(self.G, self.config.generator, strict=True):
            assert isinstance(config, LinearConfig)
            z = x @ W + b
            y = self.xp.maximum(z, 0) if config.activation == "relu" else 1 / (1 + self.xp.exp(-z))
            saved.append((x, y))
            x = y
        return x, saved

    def _backward_generator(self, dy: Array, saved: list[tuple[Array, Array]]) -> list[Array]:
        gradients: list[Array] = []
        for (W, _), config, (x, y) in reversed(list(zip(self.G, self.config.generator, saved, strict=True))):
            assert isinstance(config, LinearConfig)
            dz = dy * (y > 0) if config.activation == "relu" else dy * y * (1 - y)
            gradients = [x.T @ dz, dz.sum(0), *gradients]
            dy = dz @ W.T
        return gradients

    def _discriminate(self, x: Array, masks: list[Array]) -> tuple[Array, list[tuple[Array, Array, Any]]]:
        saved = []
        for (W, b), config, mask in zip(self.D, self.config.discriminator, masks, strict=True):
            x = x * mask
            z = x @ W + b
            pieces = None
            if isinstance(config, MaxoutConfig):
                z = z.reshape(len(x), -1, config.num_pieces)
                pieces = z.argmax(-1)
                z = z.max(-1)
            saved.append((x, mask, pieces))
            x = z
        return x[:, 0], saved

    def _backward_discriminator(self, dy: Array, saved: list[tuple[Array, Array, Any]]) -> tuple[list[Array], Array]:
        gradients: list[Array] = []
        for (W, _), config, (x, mask, pieces) in reversed(
            list(zip(self.D, self.config.discriminator, saved, strict=True))
        ):
            if isinstance(config, MaxoutConfig):
                one_hot = self.xp.arange(config.num_pieces) == pieces[:, :, None]
                dy = (dy[:, :, None] * one_hot).reshape(len(dy), -1)
            gradients = [x.T @ dy, dy.sum(0), *gradients]
            dy = (dy @ W.T) * mask
        return gradients, dy

    def _descend(self, network: list[list[Array]], gradients: list[Array]) -> None:
        rate, momentum = np.float32(self.config.learning_rate), np.float32(self.config.momentum)
        for parameter, gradient in zip((p for layer in network for p in layer), gradients, strict=True):
            velocity = self.velocity[id(parameter)]
            velocity *= momentum
            velocity -= rate * gradient
            parameter += velocity
