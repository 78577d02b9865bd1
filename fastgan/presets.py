"""The paper's experiments as configurations: the released code's numbers, to the letter."""

from __future__ import annotations

from fastgan.config import Config, LinearConfig, MaxoutConfig
from fastgan.errors import ConfigError


def _mnist() -> Config:
    return Config(
        preset="mnist",
        dataset="mnist",
        generator=(
            LinearConfig(num_units=1200, activation="relu", irange=0.05),
            LinearConfig(num_units=1200, activation="relu", irange=0.05),
            LinearConfig(activation="sigmoid", irange=0.05, bias="marginals"),
        ),
        discriminator=(
            MaxoutConfig(num_units=240, num_pieces=5, irange=0.005, dropout_keep=0.8),
            MaxoutConfig(num_units=240, num_pieces=5, irange=0.005, dropout_keep=0.5),
            LinearConfig(num_units=1, activation="sigmoid", irange=0.005, dropout_keep=0.5),
        ),
    )


def _digits() -> Config:
    # The MNIST recipe scaled to 64 pixels and 1,197 images. One thread: the products are so small that a second one
    # only costs (19,000 images a second with it, 25,000 without), and the bits no longer depend on the number of cores.
    return Config(
        preset="digits",
        dataset="digits",
        generator=(
            LinearConfig(num_units=200, activation="relu", irange=0.05),
            LinearConfig(num_units=200, activation="relu", irange=0.05),
            LinearConfig(activation="sigmoid", irange=0.05, bias="marginals"),
        ),
        discriminator=(
            MaxoutConfig(num_units=60, num_pieces=5, irange=0.005, dropout_keep=0.8),
            MaxoutConfig(num_units=60, num_pieces=5, irange=0.005, dropout_keep=0.5),
            LinearConfig(num_units=1, activation="sigmoid", irange=0.005, dropout_keep=0.5),
        ),
        noise_dim=50,
        batch_size=50,
        epochs=500,
        threads=1,
    )


_PRESETS = {"digits": _digits, "mnist": _mnist}
NAMES = tuple(_PRESETS)


def preset(name: str) -> Config:
    """Give a preset's configuration.

    Parameters
    ----------
    name : str
        ``digits`` or ``mnist``.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    if name not in _PRESETS:
        raise ConfigError(f"There is no preset {name!r}; there are {', '.join(NAMES)}")
    return _PRESETS[name]()


def preset_for(dataset: str) -> str:
    """Name the preset that a data set takes when none is asked for: its own, or ``mnist`` with the data's sizes."""
    return dataset if dataset in _PRESETS else "mnist"
