"""The paper's experiments as configurations: the released code's numbers, to the letter."""

from __future__ import annotations

import dataclasses

from fastgan.config import Config, ConvMaxoutConfig, ConvTransposeConfig, LinearConfig, MaxoutConfig
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


# Greatest norm of every unit's incoming weights in the TFD recipe.
_TFD_NORM = 1.9365


def _tfd() -> Config:
    return Config(
        preset="tfd",
        dataset="tfd",
        generator=_tfd_generator(),
        discriminator=(
            MaxoutConfig(num_units=1200, num_pieces=5, irange=0.005, dropout_keep=0.8, max_col_norm=_TFD_NORM),
            MaxoutConfig(num_units=1200, num_pieces=5, irange=0.005, dropout_keep=0.5, max_col_norm=_TFD_NORM),
            LinearConfig(num_units=1, activation="sigmoid", irange=0.005, dropout_keep=0.5, max_col_norm=_TFD_NORM),
        ),
        noise="normal",
        batch_size=100,
        epochs=50,
        learning_rate=0.05,
    )


def _tfd_generator() -> tuple[LinearConfig, ...]:
    return (
        LinearConfig(num_units=8000, activation="relu", irange=0.05, max_col_norm=_TFD_NORM),
        LinearConfig(num_units=8000, activation="sigmoid", irange=0.05, bias=-2.0, max_col_norm=_TFD_NORM),
        LinearConfig(num_units=2304, activation="sigmoid", sparse_init=100, bias="marginals", max_col_norm=_TFD_NORM),
    )


def _tfd_stage2() -> Config:
    # A new front end before stage 1's whole generator, whose 100 inputs it makes; D, counts and velocities start anew.
    return dataclasses.replace(
        _tfd(),
        preset="tfd-stage2",
        generator=(
            LinearConfig(num_units=8000, activation="relu", irange=0.05, max_col_norm=_TFD_NORM),
            LinearConfig(num_units=100, activation="sigmoid", irange=0.05, bias=-2.0, max_col_norm=_TFD_NORM),
            *_tfd_generator(),
        ),
        new_layers=2,
        epochs=22,
    )


def _cifar10() -> Config:
    return Config(
        preset="cifar10",
        dataset="cifar10",
        generator=(
            LinearConfig(num_units=8000, activation="relu", irange=0.05),
            LinearConfig(num_units=8000, activation="sigmoid", irange=0.05),
            LinearConfig(num_units=3072, activation="identity", irange=0.5),
        ),
        discriminator=(
            MaxoutConfig(num_units=1600, num_pieces=5, irange=0.005, dropout_keep=0.8),
            MaxoutConfig(num_units=1600, num_pieces=5, irange=0.005, dropout_keep=0.5),
            LinearConfig(num_units=1, activation="sigmoid", irange=0.005, dropout_keep=0.5),
        ),
        noise="normal",
        batch_size=100,
        learning_rate=0.025,
    )


def _cifar10_conv() -> Config:
    return Config(
        preset="cifar10-conv",
        dataset="cifar10",
        generator=(
            LinearConfig(num_units=8000, activation="relu", irange=0.05),
            LinearConfig(num_units=8000, activation="sigmoid", irange=0.05),
            # 80 x 10 x 10 to 3 x 32 x 32.
            ConvTransposeConfig(input_channels=80, num_channels=3, kernel_size=5, stride=3, irange=0.05),
        ),
        discriminator=(
            # 32 → 33 → 16, 16 → 15 → 7, 7 → 9 → 5: 4,800 features.
            ConvMaxoutConfig(kernel_size=8, pad=4, pool_size=4, dropout_keep=0.8),
            ConvMaxoutConfig(kernel_size=8, pad=3, pool_size=4, dropout_keep=0.5),
            ConvMaxoutConfig(num_channels=192, kernel_size=5, pad=3, dropout_keep=0.5),
            MaxoutConfig(num_units=500, num_pieces=5, irange=0.005, dropout_keep=0.5),
            LinearConfig(num_units=1, activation="sigmoid", irange=0.005, dropout_keep=0.5),
        ),
        noise="normal",
        batch_size=128,
        learning_rate=0.004,
    )


_PRESETS = {
    "digits": _digits,
    "mnist": _mnist,
    "tfd": _tfd,
    "tfd-stage2": _tfd_stage2,
    "cifar10": _cifar10,
    "cifar10-conv": _cifar10_conv,
}
NAMES = tuple(_PRESETS)


def preset(name: str) -> Config:
    """Give a preset's configuration.

    Parameters
    ----------
    name : str
        ``digits``, ``mnist``, ``tfd`` (stage 1), ``tfd-stage2``, ``cifar10`` (fully connected) or ``cifar10-conv``.

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
