"""The training step in JAX: one jitted function from state to state, whose buffers are handed over.

Maxout is over pieces that lie outside; masks come from JAX's default generator, Threefry, which on a CPU is
quicker than the one called "rbg". On a GPU "rbg" can be asked for, and many steps are one call, a scan, so that the
host has no part in them.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.recipe import Array, Draws, pieces_inside, pieces_outside
from fastgan.config import Config, LayerConfig, MaxoutConfig
from fastgan.trainer import Trainer

# Lists of (W, b), one a layer.
Network = list[tuple[jax.Array, jax.Array]]


class JaxTraining:
    """Two networks, their velocities and a key, moved on by one compiled step.

    Parameters
    ----------
    config : Config
        The networks, the rates and the batch size; k is 1.
    trainer : Trainer
        Whose weights are copied, and whose data are learnt.
    generator : {"threefry2x32", "rbg"}
        What masks, noise and rows come from.
    """

    def __init__(self, config: Config, trainer: Trainer, *, generator: str = "threefry2x32") -> None:
        self.config = config
        networks = {
            "G": _parameters(trainer.generator.layers, config.generator),
            "D": _parameters(trainer.discriminator.layers, config.discriminator),
        }
        velocities = jax.tree.map(jnp.zeros_like, networks)
        self.state = {"networks": networks, "velocities": velocities, "key": jax.random.key(0, impl=generator)}
        self.pixels = jnp.asarray(trainer.data)
        update = _step_simultaneously if config.update == "simultaneous" else _step_algorithm_1
        self._update = jax.jit(functools.partial(update, config), donate_argnums=0)
        draw = functools.partial(_step_with_draws, config, update, float(trainer.divisor))
        self._draw_and_update = jax.jit(draw, donate_argnums=0)

        def scan(state: Any, pixels: jax.Array, num_steps: int) -> Any:
            return jax.lax.scan(lambda state, _: draw(state, pixels), state, None, length=num_steps)

        self._scan = jax.jit(scan, donate_argnums=0, static_argnums=2)

    def steps(self, num_steps: int) -> None:
        """Make steps as one call, a compiled loop; the first call for a number compiles."""
        self.state, losses = self._scan(self.state, self.pixels, num_steps)
        jax.block_until_ready((self.state, losses))

    def step(self) -> None:
        """Make one step on random rows of the data, with noise and masks of JAX's generator."""
        self.state, losses = self._draw_and_update(self.state, self.pixels)
        jax.block_until_ready((self.state, losses))

    def step_with(self, draws: Draws) -> tuple[float, float]:
        """Make one step with what is handed in; give both losses."""
        self.state, losses = self._update(self.state, draws)
        return float(losses[0]), float(losses[1])

    def weights(self) -> list[Array]:
        """Give copies of G's and then D's weights, a unit's pieces side by side."""
        networks = self.state["networks"]
        layers = zip(networks["G"] + networks["D"], (*self.config.generator, *self.config.discriminator), strict=True)
        return [pieces_inside(np.array(W), _num_pieces(config)) for (W, _), config in layers]


def _step_with_draws(config: Config, update: Any, divisor: float, state: Any, pixels: jax.Array) -> Any:
    B = config.batch_size
    key, rows_key, noise_key, mask_key = jax.random.split(state["key"], 4)
    real = pixels[jax.random.randint(rows_key, (B,), 0, len(pixels))] / jnp.float32(divisor)
    num_substeps = 1 if config.update == "simultaneous" else 2
    z = jax.random.uniform(noise_key, (num_substeps, B, config.noise_dim), minval=-(3**0.5), maxval=3**0.5)
    masks = []
    for j in range(num_substeps):
        of_substep = []
        for i, ((W, _), layer) in enumerate(zip(state["networks"]["D"], config.discriminator, strict=True)):
            keep, shape = layer.dropout_keep, (2 * B if j == 0 else B, len(W))
            layer_key = jax.random.fold_in(mask_key, 10 * j + i)
            of_substep.append(jax.random.bernoulli(layer_key, keep, shape) * jnp.float32(1 / keep))
        masks.append(of_substep)
    return update(config, state | {"key": key}, Draws(real, list(z), masks))


def _step_algorithm_1(config: Config, state: Any, draws: Draws) -> Any:
    """Update D on data and generated rows, then G on fresh noise."""
    G, D = state["networks"]["G"], state["networks"]["D"]
    images = _generate(config, G, draws.noises[0])

    def of_discriminator(D: Network) -> jax.Array:
        logits = _discriminate(config, D, jnp.concatenate([draws.real, images]), draws.masks[0])
        return _discriminator_loss(logits, config.batch_size)

    d_loss, d_gradients = jax.value_and_grad(of_discriminator)(D)
    D, D_velocities = _descend(config, D, state["velocities"]["D"], d_gradients)

    def of_generator(G: Network) -> jax.Array:
        logits = _discriminate(config, D, _generate(config, G, draws.noises[1]), draws.masks[1])
        return jax.nn.softplus(-logits).mean()

    g_loss, g_gradients = jax.value_and_grad(of_generator)(G)
    G, G_velocities = _descend(config, G, state["velocities"]["G"], g_gradients)
    return _state(state, G, D, G_velocities, D_velocities), (d_loss, g_loss)


def _step_simultaneously(config: Config, state: Any, draws: Draws) -> Any:
    """Update both from one forward pass, which goes back once for each loss."""
    G, D = state["networks"]["G"], state["networks"]["D"]
    B = config.batch_size

    def losses(G: Network, D: Network) -> tuple[jax.Array, jax.Array]:
        images = _generate(config, G, draws.noises[0])
        logits = _discriminate(config, D, jnp.concatenate([draws.real, images]), draws.masks[0])
        return _discriminator_loss(logits, B), jax.nn.softplus(-logits[B:]).mean()

    both, backward = jax.vjp(losses, G, D)
    _, d_gradients = backward((jnp.float32(1), jnp.float32(0)))
    g_gradients, _ = backward((jnp.float32(0), jnp.float32(1)))
    D, D_velocities = _descend(config, D, state["velocities"]["D"], d_gradients)
    G, G_velocities = _descend(config, G, state["velocities"]["G"], g_gradients)
    return _state(state, G, D, G_velocities, D_velocities), both


def _state(state: Any, G: Network, D: Network, G_velocities: Network, D_velocities: Network) -> Any:
    return state | {"networks": {"G": G, "D": D}, "velocities": {"G": G_velocities, "D": D_velocities}}


def _generate(config: Config, G: Network, x: jax.Array) -> jax.Array:
    for (W, b), layer in zip(G, config.generator, strict=True):
        z = x @ W + b
        x = jax.nn.relu(z) if getattr(layer, "activation", "") == "relu" else jax.nn.sigmoid(z)
    return x


def _discriminate(config: Config, D: Network, x: jax.Array, masks: list[jax.Array]) -> jax.Array:
    for (W, b), layer, mask in zip(D, config.discriminator, masks, strict=True):
        x = (x * mask) @ W + b
        if isinstance(layer, MaxoutConfig):
            x = x.reshape(len(x), layer.num_pieces, -1).max(1)
    return x


def _discriminator_loss(logits: jax.Array, B: int) -> jax.Array:
    return 0.5 * (jax.nn.softplus(-logits[:B]).mean() + jax.nn.softplus(logits[B:]).mean())


def _descend(config: Config, network: Network, velocities: Network, gradients: Network) -> tuple[Network, Network]:
    def velocity(v: jax.Array, g: jax.Array) -> jax.Array:
        return config.momentum * v - config.learning_rate * g

    velocities = jax.tree.map(velocity, velocities, gradients)
    return jax.tree.map(jnp.add, network, velocities), velocities


def _parameters(layers: Any, configs: tuple[LayerConfig, ...]) -> Network:
    made = []
    for layer, config in zip(layers, configs, strict=True):
        W, b = (jnp.array(pieces_outside(array, _num_pieces(config))) for array in (layer.W, layer.b))
        made.append((W, b))
    return made


def _num_pieces(config: LayerConfig) -> int:
    return config.num_pieces if isinstance(config, MaxoutConfig) else 1
