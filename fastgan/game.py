"""The one-dimensional game of the paper's figure 1, played live: p_data, p_g, D, and where G takes z.

G maps z, uniform, to a number x; D tells the data, of a normal distribution, from G's numbers; both are trained by
Algorithm 1, by the same trainer as everything else. What is watched is computed from G and D themselves, on a fixed
grid of z and of x, without a random draw. p_data and p_g are both smoothed by one narrow normal window before they are
compared, so that they are equal where G is right.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from fastgan import theory
from fastgan.config import Config, LinearConfig, MaxoutConfig
from fastgan.datasets import Dataset, Split
from fastgan.kernels.common import threads
from fastgan.kernels.common.devices import device
from fastgan.scoring import check_plots
from fastgan.trainer import Trainer

# The data: so many quantiles of a normal distribution, each as likely as any other.
_MEAN, _DEVIATION, _NUM_DATA = 0.0, 0.6, 10_000
# Where densities and D are looked at, and the window that smooths the densities.
_LOW, _HIGH, _NUM_POINTS, _WINDOW = -3.0, 3.0, 601, 0.06
_NUM_NOISE, _NUM_ARROWS = 20_000, 15
_HALF_WIDTH = 3.0**0.5
# When the game is drawn, in updates of G, and how often the criterion is computed.
MOMENTS = (10, 60, 300, 1000)
_POINTS_OF_CURVE = 120


def game_preset() -> Config:
    """Give the configuration of the game: tiny networks, Algorithm 1 with k = 20."""
    return Config(
        preset="game",
        dataset="game",
        # Biases of 1 and 3 spread the kinks and the slopes of the first layers over the line, at -b/w.
        generator=(
            LinearConfig(num_units=32, activation="relu", irange=2.0, bias=1.0),
            LinearConfig(num_units=32, activation="relu", irange=0.2),
            LinearConfig(num_units=1, activation="identity", irange=0.2, bias=-1.0),
        ),
        discriminator=(
            LinearConfig(num_units=128, activation="sigmoid", irange=8.0, bias=3.0),
            MaxoutConfig(num_units=32, num_pieces=4, irange=0.4),
            LinearConfig(num_units=1, activation="sigmoid", irange=0.3),
        ),
        noise="uniform",
        noise_dim=1,
        update="alternating",
        d_steps=20,
        batch_size=200,
        steps=MOMENTS[-1],
        learning_rate=0.03,
        learning_rate_decay=1.002,
        momentum=0.5,
        final_momentum=0.5,
        threads=1,
    )


@dataclass(frozen=True, eq=False)
class Moment:
    """The game after some updates of G.

    Attributes
    ----------
    update : int
        How many.
    p_g, D : (X,) float64
        G's density and D's output at the points of the grid.
    arrows_x : (A,) float64
        Where G takes each of ``Game.arrows_z``.
    """

    update: int
    p_g: NDArray[np.float64]
    D: NDArray[np.float64]
    arrows_x: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Game:
    """A game that was played.

    Attributes
    ----------
    config : Config
        Its configuration.
    backend : str
        What computed it.
    x, p_data : (X,) float64
        The grid, and the data's density there.
    arrows_z : (A,) float64
        Evenly spaced noise.
    moments : list of Moment
        In order.
    updates : list of int
        When the next two were computed.
    criteria, values : list of float
        C(G), and V(D, G) of the D that there was: never above it.
    """

    config: Config
    backend: str
    x: NDArray[np.float64]
    p_data: NDArray[np.float64]
    arrows_z: NDArray[np.float64]
    moments: list[Moment]
    updates: list[int]
    criteria: list[float]
    values: list[float]

    @property
    def spacing(self) -> float:
        """The width of the grid's cells, which makes a sum over it an integral."""
        return float(self.x[1] - self.x[0])


def game_data() -> Dataset:
    """Give the data: quantiles of a normal distribution, one number an image."""
    quantiles = _MEAN + _DEVIATION * ndtri((np.arange(_NUM_DATA) + 0.5) / _NUM_DATA)
    rows = Split(quantiles.astype(np.float32)[:, None], 1.0, None)
    return Dataset("game", (1, 1, 1), {"train": rows}, "made", {}, 0)


def play(
    seed: int = 0,
    backend: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    moments: Sequence[int] = MOMENTS,
) -> Game:
    """Play the game of ``game_preset``.

    Parameters
    ----------
    seed : int
        Key of all its randomness.
    backend : str
        What computes.
    progress : callable, optional
        Told the updates made and their number in all.
    moments : sequence of int
        When it is drawn, in updates of G, ascending; it ends with the last.

    Returns
    -------
    Game
    """
    config = game_preset().replace({"seed": seed, "steps": moments[-1]})
    compute = device(backend)
    assert config.steps is not None
    x = np.linspace(_LOW, _HIGH, _NUM_POINTS)
    deviation = float(np.hypot(_DEVIATION, _WINDOW))
    p_data = np.exp(-0.5 * ((x - _MEAN) / deviation) ** 2) / (deviation * np.sqrt(2.0 * np.pi))
    noise = _even_noise(_NUM_NOISE)
    game = Game(config, compute.backend, x, p_data, _even_noise(_NUM_ARROWS).astype(np.float64), [], [], [], [])
    watched = {round(update) for update in np.geomspace(1, config.steps, _POINTS_OF_CURVE)} | {0, *moments}
    with threads.limit(1):
        trainer = Trainer(config, game_data(), compute, config.steps)
        for update in range(config.steps + 1):
            if update:
                trainer.step()
            if update not in watched:
                continue
            p_g = _density(trainer.generator.generate(noise[:, None])[:, 0], x)
            D = trainer.discriminator.probability(x.astype(np.float32)[:, None]).astype(np.float64)
            game.updates.append(update)
            game.criteria.append(theory.criterion(p_data, p_g, game.spacing))
            game.values.append(theory.value(p_data, p_g, D, game.spacing))
            if update in moments:
                arrows_x = trainer.generator.generate(game.arrows_z.astype(np.float32)[:, None])[:, 0]
                game.moments.append(Moment(update, p_g, D, arrows_x.astype(np.float64)))
            if progress is not None:
                progress(update, config.steps)
    return game


def _even_noise(num: int) -> NDArray[np.float32]:
    return (_HALF_WIDTH * (2.0 * (np.arange(num) + 0.5) / num - 1.0)).astype(np.float32)


def _density(drawn: NDArray[np.float32], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth equally likely numbers into a density on the grid; what lies beyond it counts at its ends."""
    spacing = x[1] - x[0]
    cells = np.clip(np.rint((drawn - x[0]) / spacing), 0, len(x) - 1).astype(np.int64)
    counts = np.bincount(cells, minlength=len(x)) / (len(drawn) * spacing)
    reach = int(5 * _WINDOW / spacing)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) * spacing / _WINDOW) ** 2)
    return np.convolve(counts, window / window.sum(), mode="same")


def plot(game: Game) -> bytes:
    """Draw the game as the paper's figure 1, with D* and the criterion's way to -log 4, as a PNG file.

    Raises
    ------
    BackendError
        matplotlib is not installed.
    """
    check_plots()
    # Named only here, so that types are checked alike with and without the extra.
    figure: Any = importlib.import_module("matplotlib.figure").Figure(figsize=(12.0, 6.6), layout="constrained")
    grid = figure.add_gridspec(3, len(game.moments), height_ratios=[3.0, 1.5, 2.6], hspace=0.04)
    top = 1.08 * max(1.0, *(float(moment.p_g.max()) for moment in game.moments[1:]), float(game.p_data.max()))
    handles: list[Any] = []
    for column, moment in enumerate(game.moments):
        axes = figure.add_subplot(grid[0, column])
        optimal = theory.optimal_discriminator(game.p_data, moment.p_g)
        # D* is a ratio of two numbers next to nothing where neither density is.
        shown = np.where(game.p_data + moment.p_g > 1e-3, optimal, np.nan)
        handles = [
            *axes.plot(game.x, game.p_data, ":", color="black", linewidth=2.0, label="p_data"),
            *axes.plot(game.x, moment.p_g, "-", color="#1a8f3c", linewidth=2.0, label="p_g"),
            *axes.plot(game.x, shown, "-", color="#9cc3ea", linewidth=3.5, label="D* = p_data / (p_data + p_g)"),
            *axes.plot(game.x, moment.D, "--", color="#1457b8", linewidth=1.8, label="D"),
        ]
        axes.set_title(f"({'abcd'[column]}) after {moment.update:,} updates", fontsize="medium")
        axes.set_xlim(_LOW, _HIGH)
        axes.set_ylim(0.0, top)
        axes.tick_params(labelbottom=False, labelleft=column == 0)
        _plot_arrows(figure.add_subplot(grid[1, column]), game, moment)
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    _plot_criterion(figure.add_subplot(grid[2, :]), game)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _plot_arrows(axes: Any, game: Game, moment: Moment) -> None:
    """Draw where G takes evenly spaced z: the upper line is x, the lower one z, as in the paper."""
    z_across = _LOW + (game.arrows_z / _HALF_WIDTH + 1.0) / 2.0 * (_HIGH - _LOW)
    for start, end in zip(z_across, moment.arrows_x, strict=True):
        arrow = {"arrowstyle": "-|>", "color": "0.25", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=(end, 1.0), xytext=(start, 0.0), arrowprops=arrow, annotation_clip=False)
    for height, name in ((0.0, "z"), (1.0, "x")):
        axes.plot([_LOW, _HIGH], [height, height], color="black", linewidth=1.2)
        axes.text(_LOW - 0.15, height, name, ha="right", va="center", style="italic")
    axes.set_xlim(_LOW, _HIGH)
    axes.set_ylim(-0.1, 1.1)
    axes.axis("off")


def _plot_criterion(axes: Any, game: Game) -> None:
    axes.axhline(theory.LEAST_CRITERION, color="0.4", linestyle=":", linewidth=1.5, label="−log 4, where p_g = p_data")
    axes.plot(game.updates, game.criteria, color="#1a8f3c", linewidth=2.0, label="C(G) = V(D*, G)")
    axes.plot(game.updates, game.values, "--", color="#1457b8", linewidth=1.3, label="V(D, G)")
    for moment, letter in zip(game.moments, "abcd", strict=False):
        axes.axvline(moment.update, color="0.8", linewidth=0.8, zorder=0)
        axes.annotate(
            f"({letter})", (moment.update, 0.0), xycoords=("data", "axes fraction"), xytext=(2, 3),
            textcoords="offset points", fontsize="small", color="0.35",
        )  # fmt: skip
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(0, game.updates[-1])
    # C(G) is always between -log 4 and 0; V is as low as D is wrong.
    axes.set_ylim(-2.0, 0.1)
    axes.set_xlabel("updates of G")
    axes.set_ylabel("nats")
    axes.legend(frameon=False, loc="upper right")
