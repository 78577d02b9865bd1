"""One training step of the paper's MNIST networks: the bare products in it, every backend, and other libraries.

Every library uses the cores that the process may use; fewer for all: ``taskset --cpu-list 0 python -m bench ...``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from bench import recipe
from bench.harness import CannotRunError, Case, comparison, settled
from bench.plain_numpy import PlainTraining
from bench.recipe import Tolerance, Training
from fastgan.config import Config
from fastgan.datasets import Dataset
from fastgan.kernels.common import backends, threads
from fastgan.kernels.common.devices import device
from fastgan.trainer import Trainer

# Batches of all rows, and those that --full adds for the bound and the backends, and for the peers.
_BATCHES, _MORE_BATCHES, _MORE_PEER_BATCHES = (100,), (16, 64, 256, 1024, 4096), (1024,)


@comparison("training-step", "One training step of the MNIST networks: backends and other libraries.")
def training_step(full: bool) -> Iterator[Case]:
    """Yield the bare products, each backend, a plain NumPy step and the peers, for both updates."""
    data = recipe.random_images()
    for update in ("alternating", "simultaneous"):
        for B in sorted(_BATCHES + (_MORE_BATCHES if full else ())):
            config = recipe.configuration(update, B)
            yield from fastgan_cases(config, data, {"update": update, "B": B})
            if B in _BATCHES + _MORE_PEER_BATCHES:
                yield from peer_cases(config, data, {"update": update, "B": B})


def fastgan_cases(config: Config, data: Dataset, params: dict[str, Any]) -> Iterator[Case]:
    """Yield the bare products of a configuration's step, and the step of each backend."""
    products = recipe.gemms(config, data.num_pixels)
    bare = recipe.BareProducts(products)
    same: dict[str, Any] = {"params": params, "flop": recipe.flop_of(products), "threads": threads.num_threads()}
    yield Case("bare sgemm", run=bare.run, verify=bare.verify, setup=settled(bare.run), **same)
    for backend in recipe.HOST_BACKENDS:
        name = f"fastgan {backend}"
        if (reason := backends.why_not(backend)) is not None:
            yield Case(name, missing=reason, **same)
            continue
        own = recipe.FastganSteps(config, data, backend)
        verify = recipe.check_fastgan(config, data, backend)
        yield Case(name, run=own.step, verify=verify, setup=settled(own.step), bound="bare sgemm", **same)


def peer_cases(config: Config, data: Dataset, params: dict[str, Any]) -> Iterator[Case]:
    """Yield the step in plain NumPy and in other libraries."""
    flop = recipe.flop_of(recipe.gemms(config, data.num_pixels))
    for peer in _PEERS:
        same: dict[str, Any] = {"params": params, "flop": flop, "precision": peer.precision}
        same |= {"threads": threads.num_threads()}
        if importlib.util.find_spec(peer.package) is None:
            yield Case(peer.name, missing=f"not installed: pip install {peer.package}", **same)
            continue
        work = PeerWork(peer.make)
        yield Case(
            peer.name,
            run=work.step,
            verify=partial(work.verify, config, data, peer.tolerance),
            setup=settled(work.step),
            bound="bare sgemm",
            packages=(peer.package,),
            **same,
        )


class PeerWork:
    """A peer that is made when it is verified, since making it imports its library, and may compile."""

    def __init__(self, make: Callable[[Config, Trainer], Training]) -> None:
        self._make = make
        self._training: Training | None = None

    def verify(self, config: Config, data: Dataset, tolerance: Tolerance) -> None:
        """Check the first step, and make one with the peer's own generator."""
        try:
            self._training = self._make(config, Trainer(config, data, device("reference"), 2))
            found = recipe.outcome_of_peer(config, data, self._training)
            self._training.step()
        except Exception as error:
            # Whatever a library or its compiler raises: the other rows do not depend on it.
            first_line = (str(error).strip().splitlines() or [""])[0]
            raise CannotRunError(f"{type(error).__name__}: {first_line}") from error
        recipe.check_same(found, recipe.outcome_of_fastgan(config, data, "reference"), tolerance)

    def step(self) -> None:
        """Make a step."""
        assert self._training is not None
        self._training.step()


def _torch(config: Config, trainer: Trainer, **options: bool) -> Training:
    import torch

    from bench.peers.torch_training import TorchTraining

    torch.set_num_threads(threads.num_threads())
    return TorchTraining(config, trainer, **options)


def _jax(config: Config, trainer: Trainer) -> Training:
    import os

    # On the CPU also where JAX finds a GPU: read when JAX is first imported.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from bench.peers.jax_training import JaxTraining

    return JaxTraining(config, trainer)


class Peer(NamedTuple):
    """A library that makes the step: its row's name, its package, what makes it, and how exact it must be."""

    name: str
    package: str
    make: Callable[[Config, Trainer], Training]
    precision: str = "float32"
    tolerance: Tolerance = recipe.FLOAT32
    compiles: bool = False


_PEERS = (
    Peer("plain NumPy", "numpy", PlainTraining),
    Peer("PyTorch", "torch", _torch),
    Peer("PyTorch autocast", "torch", partial(_torch, autocast=True), "bfloat16", recipe.BFLOAT16),
    Peer("PyTorch torch.compile", "torch", partial(_torch, compiled=True), compiles=True),
    Peer("JAX jit", "jax", _jax),
)
