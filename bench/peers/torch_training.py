"""The training step in PyTorch on the CPU or a GPU, with the settings of somebody who wants it fast.

One backward pass a loss, and only towards what it updates (``autograd.grad``); no gradient for images that D learns
from; maxout over pieces that lie outside (``amax`` over them, with its gradient, takes 0.5 ms for 200 x 240 units where
``max`` over pieces side by side takes 0.9); masks from ``rand``, in half the time of ``dropout``'s Bernoulli numbers;
the fused SGD, one pass over the weights. In the simultaneous step G's loss goes back through D for the real rows too:
two passes of D, of the real and of the generated rows, were no quicker than the joined one. (Milliseconds on a CPU.)

On a GPU the whole step, random numbers included, can be captured once as a CUDA graph and replayed: then nothing of it
is left to the host but the launch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.recipe import Array, Draws, pieces_inside, pieces_outside
from fastgan.config import Config, LayerConfig, MaxoutConfig
from fastgan.trainer import Trainer


class TorchTraining:
    """Two networks as lists of (W, b).

    Parameters
    ----------
    config : Config
        The networks, the rates and the batch size; k is 1.
    trainer : Trainer
        Whose weights are copied, and whose data are learnt.
    autocast : bool
        Compute products in bfloat16.
    compiled : bool
        Compile the losses with their gradients by ``torch.compile``, whole, for the shapes at hand.
    device : {"cpu", "cuda"}
        Where it computes.
    graph : bool
        Capture the step as a CUDA graph at its first use, and replay it.
    """

    def __init__(
        self,
        config: Config,
        trainer: Trainer,
        *,
        autocast: bool = False,
        compiled: bool = False,
        device: str = "cpu",
        graph: bool = False,
    ) -> None:
        self.config, self.device = config, device
        self.pixels, self.divisor = torch.from_numpy(trainer.data).to(device), float(trainer.divisor)
        self.G = _parameters(trainer.generator.layers, config.generator, device)
        self.D = _parameters(trainer.discriminator.layers, config.discriminator, device)
        self._autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=autocast)
        self._graphed = graph
        # What replays the step with random numbers of its own.
        self._replay: Any = None
        self._optimizers = {
            id(network): torch.optim.SGD(_flat(network), config.learning_rate, config.momentum, fused=True)
            for network in (self.G, self.D)
        }

        def maybe_compiled(function: Any) -> Any:
            return torch.compile(function, fullgraph=True, dynamic=False) if compiled else function

        self._generate = maybe_compiled(self._generate_eagerly)
        self._discriminator_loss = maybe_compiled(self._discriminator_loss_eagerly)
        self._generator_loss = maybe_compiled(self._generator_loss_eagerly)
        self._both_losses = maybe_compiled(self._both_losses_eagerly)

    def step(self) -> None:
        """Make one step on random rows of the data, with noise and masks of PyTorch's generator.

        On a GPU it returns before the step is done.
        """
        if not self._graphed:
            self._draw_and_step()
            return
        if self._replay is None:
            self._replay = self._captured(self._draw_and_step)
        self._replay()

    def _draw_and_step(self) -> tuple[Tensor, Tensor]:
        B, Z, device = self.config.batch_size, self.config.noise_dim, self.device
        rows = torch.randint(len(self.pixels), (B,), device=device)
        real = self.pixels[rows].to(torch.float32).div_(self.divisor)
        num_noises = 1 if self.config.update == "simultaneous" else 2
        noises = [torch.rand(B, Z, device=device).mul_(2).sub_(1).mul_(3**0.5) for _ in range(num_noises)]
        return self._step(real, noises)

    def step_with(self, draws: Draws) -> tuple[float, float]:
        """Make one step with what is handed in; give both losses."""

        def here(array: Array) -> Tensor:
            return torch.from_numpy(array).to(self.device)

        real, noises = here(draws.real), [here(z) for z in draws.noises]
        masks = [[here(mask) for mask in of_substep] for of_substep in draws.masks]

        def step() -> tuple[Tensor, Tensor]:
            return self._step(real, noises, masks)

        losses = self._captured(step)() if self._graphed else step()
        return losses[0].item(), losses[1].item()

    def _captured(self, step: Any) -> Any:
        """Capture a step as a graph; the steps that PyTorch wants made before leave nothing behind."""
        before = [parameter.detach().clone() for parameter in _flat(self.G) + _flat(self.D)]
        velocities = [velocity.clone() for velocity in self._velocities()]
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(beside)
        with torch.no_grad():
            for parameter, start in zip(_flat(self.G) + _flat(self.D), before, strict=True):
                parameter.copy_(start)
            for i, velocity in enumerate(self._velocities()):
                # Before the first step there are none: they begin at 0.
                velocity.copy_(velocities[i] if velocities else torch.zeros_like(velocity))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            losses = step()

        def replay() -> tuple[Tensor, Tensor]:
            graph.replay()
            return losses

        return replay

    def _velocities(self) -> list[Tensor]:
        states = [state for optimizer in self._optimizers.values() for state in optimizer.state.values()]
        return [state["momentum_buffer"] for state in states if state.get("momentum_buffer") is not None]

    def weights(self) -> list[Array]:
        """Give copies of G's and then D's weights, a unit's pieces side by side."""
        configs = (*self.config.generator, *self.config.discriminator)
        layers = zip(self.G + self.D, configs, strict=True)
        return [pieces_inside(W.detach().cpu().numpy().copy(), _num_pieces(config)) for (W, _), config in layers]

    def _step(self, real: Tensor, noises: list[Tensor], masks: Any = (None, None)) -> tuple[Tensor, Tensor]:
        if self.config.update == "simultaneous":
            with self._autocast:
                d_loss, g_loss = self._both_losses(real, noises[0], masks[0])
            d_gradients = torch.autograd.grad(d_loss, _flat(self.D), retain_graph=True)
            g_gradients = torch.autograd.grad(g_loss, _flat(self.G))
            self._descend(self.D, d_gradients)
            self._descend(self.G, g_gradients)
            return d_loss, g_loss
        # Autocast keeps its copies of weights until its block ends: a block each, since D's weights change in between.
        with self._autocast, torch.no_grad():
            images = self._generate(noises[0])
        with self._autocast:
            d_loss = self._discriminator_loss(real, images, masks[0])
        self._descend(self.D, torch.autograd.grad(d_loss, _flat(self.D)))
        with self._autocast:
            g_loss = self._generator_loss(noises[1], masks[1])
        self._descend(self.G, torch.autograd.grad(g_loss, _flat(self.G)))
        return d_loss, g_loss

    def _discriminator_loss_eagerly(self, real: Tensor, images: Tensor, masks: list[Tensor] | None) -> Tensor:
        logits = self._discriminate(torch.cat([real, images]), masks)
        return _d_loss(logits, len(real))

    def _generator_loss_eagerly(self, noise: Tensor, masks: list[Tensor] | None) -> Tensor:
        return functional.softplus(-self._discriminate(self._generate_eagerly(noise), masks)).mean()

    def _both_losses_eagerly(self, real: Tensor, noise: Tensor, masks: list[Tensor] | None) -> tuple[Tensor, Tensor]:
        logits = self._discriminate(torch.cat([real, self._generate_eagerly(noise)]), masks)
        return _d_loss(logits, len(real)), functional.softplus(-logits[len(real) :]).mean()

    def _generate_eagerly(self, x: Tensor) -> Tensor:
        for (W, b), config in zip(self.G, self.config.generator, strict=True):
            z = torch.addmm(b, x, W)
            x = torch.relu(z) if getattr(config, "activation", "") == "relu" else torch.sigmoid(z)
        return x.float()

    def _discriminate(self, x: Tensor, masks: list[Tensor] | None) -> Tensor:
        for i, ((W, b), config) in enumerate(zip(self.D, self.config.discriminator, strict=True)):
            if masks is not None:
                mask = masks[i].to(x.dtype)
            else:
                mask = torch.rand_like(x).lt_(config.dropout_keep).mul_(1 / config.dropout_keep)
            x = torch.addmm(b, x * mask, W)
            if isinstance(config, MaxoutConfig):
                x = x.view(len(x), config.num_pieces, -1).amax(1)
        return x.float()

    def _descend(self, network: list[tuple[Tensor, Tensor]], gradients: tuple[Tensor, ...]) -> None:
        for parameter, gradient in zip(_flat(network), gradients, strict=True):
            parameter.grad = gradient
        self._optimizers[id(network)].step()


def _d_loss(logits: Tensor, B: int) -> Tensor:
    return 0.5 * (functional.softplus(-logits[:B]).mean() + functional.softplus(logits[B:]).mean())


def _parameters(layers: Any, configs: tuple[LayerConfig, ...], device: str) -> list[tuple[Tensor, Tensor]]:
    made = []
    for layer, config in zip(layers, configs, strict=True):
        arrays = [pieces_outside(np.array(array), _num_pieces(config)) for array in (layer.W, layer.b)]
        W, b = (torch.from_numpy(array).to(device).requires_grad_() for array in arrays)
        made.append((W, b))
    return made


def _num_pieces(config: LayerConfig) -> int:
    return config.num_pieces if isinstance(config, MaxoutConfig) else 1


def _flat(network: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [parameter for layer in network for parameter in layer]
