"""The training step as one would write it in NumPy in an afternoon: the comparison's baseline, float32 throughout.

Temporaries where they fall, NumPy's own generator, a backward pass for each player. Only Algorithm 1 with k = 1 and the
networks of the ``mnist`` and ``digits`` presets (ReLU, sigmoid, maxout; dropout in D).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan.config import Config, LinearConfig, MaxoutConfig
from fastgan.trainer import Trainer

Array = NDArray[np.float32]


class PlainTraining:
    """Two networks as lists of parameters.

    Parameters
    ----------
    config : Config
        The networks, the rates and the batch size.
    trainer : Trainer
        Whose weights are copied.
    """

    def __init__(self, config: Config, trainer: Trainer) -> None:
        self.config = config
        self.G = [[np.array(layer.W), np.array(layer.b)] for layer in trainer.generator.layers]
        self.D = [[np.array(layer.W), np.array(layer.b)] for layer in trainer.discriminator.layers]
        self.velocity = {id(p): np.zeros_like(p) for layer in self.G + self.D for p in layer}
        self.random = np.random.default_rng(0)

    def draw_noise(self) -> Array:
        """Draw z (B, Z), uniform on (-√3, √3)."""
        shape = (self.config.batch_size, self.config.noise_dim)
        return (self.random.random(shape, dtype=np.float32) * 2 - 1) * np.float32(3**0.5)

    def draw_masks(self, num_rows: int) -> list[Array]:
        """Draw the factors of D's inputs, a layer each: 0 or 1 / keep."""
        masks = []
        for (W, _), config in zip(self.D, self.config.discriminator, strict=True):
            kept = self.random.random((num_rows, len(W)), dtype=np.float32) < config.dropout_keep
            masks.append(kept * np.float32(1 / config.dropout_keep))
        return masks

    def step(self, real: Array, z: tuple[Array, Array], masks: tuple[list[Array], list[Array]]) -> tuple[float, float]:
        """Update D on data and generated rows, then G on fresh noise; give both losses."""
        B = self.config.batch_size
        images, _ = self._generate(z[0])
        logits, saved = self._discriminate(np.concatenate([real, images]), masks[0])
        d_loss = 0.5 * (np.logaddexp(0, -logits[:B]).mean() + np.logaddexp(0, logits[B:]).mean())
        probability = 1 / (1 + np.exp(-logits))
        d_logits = np.concatenate([probability[:B] - 1, probability[B:]])[:, None] * np.float32(0.5 / B)
        self._descend(self.D, self._backward_discriminator(d_logits, saved)[0])

        images, G_saved = self._generate(z[1])
        logits, saved = self._discriminate(images, masks[1])
        g_loss = np.logaddexp(0, -logits).mean()
        d_logits = (1 / (1 + np.exp(-logits)) - 1)[:, None] * np.float32(1 / B)
        _, d_images = self._backward_discriminator(d_logits, saved)
        self._descend(self.G, self._backward_generator(d_images, G_saved))
        return float(d_loss), float(g_loss)

    def _generate(self, x: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        saved = []
        for (W, b), config in zip(self.G, self.config.generator, strict=True):
            assert isinstance(config, LinearConfig)
            z = x @ W + b
            y = np.maximum(z, 0) if config.activation == "relu" else 1 / (1 + np.exp(-z))
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
                one_hot = np.arange(config.num_pieces) == pieces[:, :, None]
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
