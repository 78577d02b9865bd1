"""A run's whole configuration: plain dataclasses, their JSON form, and what makes one invalid.

``fastgan.presets`` makes them; ``replace`` changes fields by name, as ``--set`` does on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastgan.errors import ConfigError

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """A layer of linear units.

    Attributes
    ----------
    num_units : int, optional
        Outputs; None in an output layer takes the number that the data or the game asks for.
    activation : {"identity", "relu", "sigmoid"}
        The units' nonlinearity. D's output layer gives the logit: "sigmoid" there is part of the loss.
    irange : float
        Weights start uniform in (-irange, irange).
    sparse_init : int, optional
        Takes the place of ``irange``: so many incoming weights of each unit, chosen at random, start as N(0, 1), and
        the others as 0.
    bias : float or "marginals"
        What biases start at; "marginals" is the logit of the pixel's mean over the training set, clipped to
        [1e-7, 1 - 1e-7].
    dropout_keep : float
        Probability that an input is kept, in (0, 1]; 1 is no dropout. Only the discriminator has dropout.
    max_col_norm : float, optional
        Greatest norm of a unit's incoming weights after an update.
    """

    layer: Literal["linear"] = "linear"
    num_units: int | None = None
    activation: Literal["identity", "relu", "sigmoid"] = "identity"
    irange: float = 0.05
    sparse_init: int | None = None
    bias: float | Literal["marginals"] = 0.0
    dropout_keep: float = 1.0
    max_col_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class MaxoutConfig:
    """A layer of maxout units: each the maximum of ``num_pieces`` linear pieces. Fields as in ``LinearConfig``."""

    layer: Literal["maxout"] = "maxout"
    num_units: int = 240
    num_pieces: int = 5
    irange: float = 0.005
    bias: float = 0.0
    dropout_keep: float = 1.0
    max_col_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class ConvMaxoutConfig:
    """A convolution of maxout units with stride 1, then the maximum over windows. Only the discriminator has them.

    Attributes
    ----------
    num_channels : int
        Units: channels of the output.
    num_pieces : int
        Kernels of a unit, whose maximum it is at each place.
    kernel_size : int
        Rows, and columns, of a kernel.
    pad : int
        Rows and columns of zeros round the image, 0 to ``kernel_size`` - 1.
    pool_size, pool_stride : int
        Rows, and columns, of the windows, and the steps between them, 1 to ``pool_size``; the last windows may reach
        over the edge. 1 and 1 is no pooling.
    irange, bias, dropout_keep
        As in ``LinearConfig``; the bias is a kernel's, the same at every place.
    max_col_norm : float, optional
        Greatest norm of a whole kernel after an update.
    """

    layer: Literal["conv-maxout"] = "conv-maxout"
    num_channels: int = 32
    num_pieces: int = 2
    kernel_size: int = 5
    pad: int = 2
    pool_size: int = 2
    pool_stride: int = 2
    irange: float = 0.005
    bias: float = 0.0
    dropout_keep: float = 1.0
    max_col_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class ConvTransposeConfig:
    """A transposed convolution ("deconvolution") to the image, with a bias a pixel. Only the generator's last layer.

    Its inputs are seen as ``input_channels`` square images of side h; the output's side is
    ``stride`` · (h - 1) + ``kernel_size``.

    Attributes
    ----------
    input_channels : int
        Channels of the input; the rest of its units are rows and columns.
    num_channels : int
        Channels of the image.
    kernel_size : int
        Rows, and columns, of a kernel.
    stride : int
        Steps in the image from one input pixel's place to the next one's.
    irange, bias
        As in ``LinearConfig``.
    """

    layer: Literal["conv-transpose"] = "conv-transpose"
    input_channels: int = 80
    num_channels: int = 3
    kernel_size: int = 5
    stride: int = 3
    irange: float = 0.05
    bias: float = 0.0


LayerConfig = LinearConfig | MaxoutConfig | ConvMaxoutConfig | ConvTransposeConfig
_NETWORKS = ("generator", "discriminator")
# Reading annotations takes longer than all checks of a configuration.
_known_hints: dict[type[Any], dict[str, Any]] = {}
_LAYERS: dict[str, type[Any]] = {
    "linear": LinearConfig,
    "maxout": MaxoutConfig,
    "conv-maxout": ConvMaxoutConfig,
    "conv-transpose": ConvTransposeConfig,
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run, besides the data's own content and the machine.

    Attributes
    ----------
    preset : str
        The preset that the rest started from.
    dataset : str
        A data set's name, or the path of a file.
    data_dir : str, optional
        Where the data set's files are looked for.
    fold : int, optional
        Which fold of ``tfd`` validates and tests, 0 to 4; None is 0, and all that other data sets have.
    generator, discriminator : tuple of layer configurations
        The networks, input side first.
    new_layers : int
        Leading layers of G that are put before the whole generator of another run (``init_from``), which goes on
        learning, while D starts afresh: TFD's second stage. 0 builds on no other run.
    noise : {"uniform", "normal"}
        Distribution of z: uniform on (-√3, √3), or standard normal; both have variance 1.
    noise_dim : int
        Z, dimensions of z.
    objective : {"non-saturating", "minimax"}
        What G minimises: -log D(G(z)), or log(1 - D(G(z))).
    update : {"simultaneous", "alternating"}
        D and G together from one batch (the released code), or Algorithm 1.
    d_steps : int
        k of Algorithm 1: updates of D for one of G.
    batch_size : int
        B, the rows of data, and of noise, in a minibatch.
    epochs : int
        How long to train; an epoch is floor(n / (k·B)) iterations.
    steps : int, optional
        How long to train in iterations; takes the place of ``epochs``.
    learning_rate, learning_rate_decay, min_learning_rate : float
        At update t (from 0) the rate is max(learning_rate / learning_rate_decay^t, min_learning_rate).
    momentum, final_momentum : float
        In epoch e (from 1): momentum + (final_momentum - momentum) · min(1, (e - 1) / (momentum_epochs - 1)).
    momentum_epochs : int
        The epoch in which the momentum is final.
    seed : int
        Key of all randomness, 0 to 2^64 - 1.
    backend : str
        ``auto``, ``cupy``, ``numba-cuda``, ``cpu`` or ``reference``.
    device : int
        Number of the GPU.
    precision : {"float32", "tf32"}
        Arithmetic of the matrix products.
    threads : int, optional
        CPU threads; None is the cores that the process may use.
    parzen_every : int, optional
        Score by a Parzen window on validation data every so many epochs.
    checkpoint_every : float, optional
        Seconds between checkpoints; None is 60, or 20 times the last save's duration where that is longer, at most 900.
    on_collapse : {"warn", "stop"}
        What to do where the reports show that the generator no longer learns (``fastgan.watch``).
    """

    preset: str = "custom"
    dataset: str = "digits"
    data_dir: str | None = None
    fold: int | None = None
    generator: tuple[LayerConfig, ...] = ()
    discriminator: tuple[LayerConfig, ...] = ()
    new_layers: int = 0
    noise: Literal["uniform", "normal"] = "uniform"
    noise_dim: int = 100
    objective: Literal["non-saturating", "minimax"] = "non-saturating"
    update: Literal["simultaneous", "alternating"] = "simultaneous"
    d_steps: int = 1
    batch_size: int = 100
    epochs: int = 100
    steps: int | None = None
    learning_rate: float = 0.1
    learning_rate_decay: float = 1.000004
    min_learning_rate: float = 1e-6
    momentum: float = 0.5
    final_momentum: float = 0.7
    momentum_epochs: int = 250
    seed: int = 0
    backend: Literal["auto", "cupy", "numba-cuda", "cpu", "reference"] = "auto"
    device: int = 0
    precision: Literal["float32", "tf32"] = "float32"
    threads: int | None = None
    parzen_every: int | None = None
    checkpoint_every: float | None = None
    on_collapse: Literal["warn", "stop"] = "warn"

    def __post_init__(self) -> None:
        _check(self)

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as JSON's own kinds."""
        result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return result

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Config:
        """Read what ``to_json`` gave; a field that is not there takes its default.

        Raises
        ------
        ConfigError
            A field is unknown, of the wrong kind or out of its range; the sentence names it.
        """
        if not isinstance(fields, Mapping):
            raise ConfigError(f"A configuration must be a JSON object; this is a {type(fields).__name__}")
        converted = dict(fields)
        for network in _NETWORKS:
            if network in converted:
                converted[network] = _layers_from_json(network, converted[network])
        built: Config = _build(cls, "", converted)
        return built

    def replace(self, changes: Mapping[str, Any]) -> Config:
        """Change fields by name; a layer's field is ``generator.0.num_units``.

        Parameters
        ----------
        changes : mapping
            Name to value, the values of JSON's kinds.

        Returns
        -------
        Config

        Raises
        ------
        ConfigError
            A name is unknown (the sentence gives the nearest), or a value does not fit.
        """
        fields = self.to_json()
        for name, value in changes.items():
            _assign(fields, name, value)
        return Config.from_json(fields)


def field_names(config: Config) -> list[str]:
    """List every name that ``Config.replace`` takes for one value; a whole network can be given as a list of layers."""
    return _names(config.to_json())


def _names(fields: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    for name in _hints(Config):
        if name not in _NETWORKS:
            names.append(name)
            continue
        # Checked here, since a network can be among the changes that are being made.
        for i, layer in enumerate(_layers_from_json(name, fields[name])):
            names += [f"{name}.{i}.{field}" for field in _hints(type(layer)) if field != "layer"]
    return names


def _assign(fields: dict[str, Any], name: str, value: Any) -> None:
    # The changes are judged together at the end: k of 2 and the alternating update can come in either order.
    known = _names(fields)
    if name not in known and name not in _NETWORKS:
        raise ConfigError(f"There is no field {name!r}; the nearest is {_nearest(name, known)!r}")
    *path, last = name.split(".")
    target: Any = fields
    for part in path:
        target = target[int(part)] if part.isdigit() else target[part]
    target[last] = value


def _layers_from_json(network: str, layers: Any) -> tuple[LayerConfig, ...]:
    if not isinstance(layers, list | tuple):
        raise ConfigError(f"{network} is {layers!r}; it must be a list of layers")
    built: list[LayerConfig] = []
    for i, layer in enumerate(layers):
        kind = layer.get("layer") if isinstance(layer, Mapping) else None
        if not isinstance(kind, str) or kind not in _LAYERS:
            raise ConfigError(
                f"{network}.{i} is {layer!r}; it must be an object whose 'layer' is {' or '.join(_LAYERS)}"
            )
        built.append(_build(_LAYERS[kind], f"{network}.{i}.", layer))
    return tuple(built)


def _build(cls: type[Any], prefix: str, fields: Mapping[str, Any]) -> Any:
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in hints:
            nearest = _nearest(str(name), list(hints))
            raise ConfigError(f"There is no field {prefix + str(name)!r}; the nearest is {prefix + nearest!r}")
        values[name] = _convert(prefix + name, value, hints[name])
    return cls(**values)


def _hints(cls: type[Any]) -> dict[str, Any]:
    """Name a dataclass's fields and their types."""
    if cls not in _known_hints:
        _known_hints[cls] = typing.get_type_hints(cls)
    return _known_hints[cls]


def _nearest(name: str, known: Sequence[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Check a JSON value against a field's type; an int serves where a float is asked for."""
    if name in _NETWORKS:
        return value
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    for option in options:
        if option is type(None) and value is None:
            return None
        if typing.get_origin(option) is Literal and value in typing.get_args(option) and isinstance(value, str):
            return value
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                return math.inf
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if option is str and isinstance(value, str) and "\0" not in value:
            return value
    raise ConfigError(f"{name} is {value!r}; it must be {' or '.join(_describe(option) for option in options)}")


def _describe(option: Any) -> str:
    if option is type(None):
        return "null"
    if typing.get_origin(option) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(option))
    return {int: "a whole number", float: "a number", str: "a text"}[option]


def _require(condition: bool, name: str, value: Any, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}; it must be {wanted}")


def _check(config: Config) -> None:
    """Check every kind and range, and what only fits together in some ways."""
    # Kinds too: a configuration can be made without from_json.
    _check_kinds("", config)
    for network in _NETWORKS:
        layers = getattr(config, network)
        if not isinstance(layers, tuple) or not all(isinstance(layer, LayerConfig) for layer in layers):
            names = ", ".join(layer.__name__ for layer in _LAYERS.values())
            raise ConfigError(f"{network} is {layers!r}; it must be a tuple of {names}")
    for name, low in {
        "noise_dim": 1,
        "d_steps": 1,
        "batch_size": 1,
        "epochs": 1,
        "momentum_epochs": 2,
        "device": 0,
    }.items():
        value = getattr(config, name)
        _require(value >= low, name, value, f"{low} or more")
    for name in ("steps", "threads", "parzen_every"):
        value = getattr(config, name)
        _require(value is None or value >= 1, name, value, "1 or more")
    _require(config.fold is None or 0 <= config.fold <= 4, "fold", config.fold, "0 to 4")
    _require(
        config.new_layers == 0 or 0 < config.new_layers < len(config.generator),
        "new_layers", config.new_layers, "0, or fewer than the generator's layers",
    )  # fmt: skip
    _require(config.d_steps <= 65535, "d_steps", config.d_steps, "at most 65535")
    _require(0 <= config.seed < 2**64, "seed", config.seed, "0 to 2^64 - 1")
    for name in ("learning_rate", "min_learning_rate"):
        value = getattr(config, name)
        _require(0 <= value < math.inf, name, value, "a finite number, 0 or more")
    _require(1 <= config.learning_rate_decay < math.inf, "learning_rate_decay", config.learning_rate_decay, "1 or more")
    for name in ("momentum", "final_momentum"):
        value = getattr(config, name)
        _require(0 <= value < 1, name, value, "in [0, 1)")
    if config.checkpoint_every is not None:
        seconds = config.checkpoint_every
        _require(0 <= seconds < math.inf, "checkpoint_every", seconds, "a finite number of seconds, 0 or more")
    if config.update == "simultaneous" and config.d_steps != 1:
        raise ConfigError(
            f"d_steps is {config.d_steps} with the simultaneous update, which makes one update of each network; "
            "use --update alternating"
        )
    for network in _NETWORKS:
        for i, layer in enumerate(getattr(config, network)):
            _check_layer(f"{network}.{i}.", layer, is_last=i == len(getattr(config, network)) - 1)
    for i, layer in enumerate(config.generator):
        if isinstance(layer, ConvMaxoutConfig):
            raise ConfigError(f"generator.{i} is a convolution of maxout units; only the discriminator can have those")
        if isinstance(layer, ConvTransposeConfig):
            if i < len(config.generator) - 1:
                raise ConfigError(f"generator.{i} is a transposed convolution; only the last layer can be one")
        elif layer.dropout_keep != 1:
            raise ConfigError(
                f"generator.{i}.dropout_keep is {layer.dropout_keep!r}; it must be 1: only the discriminator has it"
            )
    if config.discriminator:
        last = config.discriminator[-1]
        if not isinstance(last, LinearConfig) or last.activation != "sigmoid" or last.num_units not in (None, 1):
            raise ConfigError(
                "The discriminator's last layer must be linear, sigmoid, of one unit: the probability D(x)"
            )
        flat = False
        for i, layer in enumerate(config.discriminator):
            if isinstance(layer, ConvTransposeConfig):
                raise ConfigError(f"discriminator.{i} is a transposed convolution; only the generator can have one")
            if flat and isinstance(layer, ConvMaxoutConfig):
                raise ConfigError(
                    f"discriminator.{i} is a convolution and the layer before it is none; convolutions come first, as "
                    "units have no rows and columns"
                )
            flat = not isinstance(layer, ConvMaxoutConfig)
            if layer.bias == "marginals":
                raise ConfigError(
                    f"discriminator.{i}.bias is 'marginals'; only the generator's output layer can have that"
                )
    for i, layer in enumerate(config.generator[:-1]):
        if layer.bias == "marginals":
            raise ConfigError(f"generator.{i}.bias is 'marginals'; only the generator's output layer can have that")
    if config.generator and not isinstance(config.generator[-1], LinearConfig | ConvTransposeConfig):
        raise ConfigError(
            "The generator's last layer must be linear or a transposed convolution: its units are the pixels"
        )


def _check_kinds(prefix: str, fields: Any) -> None:
    for name, hint in _hints(type(fields)).items():
        _convert(prefix + name, getattr(fields, name), hint)


def _check_layer(prefix: str, layer: LayerConfig, is_last: bool) -> None:
    _check_kinds(prefix, layer)
    _require(0 <= layer.irange < math.inf, prefix + "irange", layer.irange, "a finite number, 0 or more")
    if isinstance(layer, LinearConfig):
        _require(
            layer.sparse_init is None or layer.sparse_init >= 1, prefix + "sparse_init", layer.sparse_init, "1 or more"
        )
    if isinstance(layer, ConvTransposeConfig):
        _require(math.isfinite(layer.bias), prefix + "bias", layer.bias, "finite")
        for name in ("input_channels", "num_channels", "kernel_size", "stride"):
            value = getattr(layer, name)
            _require(value >= 1, prefix + name, value, "1 or more")
        return
    if isinstance(layer, ConvMaxoutConfig):
        _require(layer.num_channels >= 1, prefix + "num_channels", layer.num_channels, "1 or more")
        _require(layer.kernel_size >= 1, prefix + "kernel_size", layer.kernel_size, "1 or more")
        last = layer.kernel_size - 1
        _require(0 <= layer.pad <= last, prefix + "pad", layer.pad, f"0 to {last}, less than the kernel")
        _require(1 <= layer.pool_size <= 16, prefix + "pool_size", layer.pool_size, "1 to 16")
        _require(
            1 <= layer.pool_stride <= layer.pool_size,
            prefix + "pool_stride", layer.pool_stride, f"1 to {layer.pool_size}, the window's size",
        )  # fmt: skip
    else:
        _require(
            is_last or layer.num_units is not None, prefix + "num_units", layer.num_units, "a number in a hidden layer"
        )
        _require(layer.num_units is None or layer.num_units >= 1, prefix + "num_units", layer.num_units, "1 or more")
    _require(0 < layer.dropout_keep <= 1, prefix + "dropout_keep", layer.dropout_keep, "in (0, 1]")
    if isinstance(layer.bias, float):
        _require(math.isfinite(layer.bias), prefix + "bias", layer.bias, "finite")
    if layer.max_col_norm is not None:
        _require(0 < layer.max_col_norm < math.inf, prefix + "max_col_norm", layer.max_col_norm, "above 0")
    if isinstance(layer, MaxoutConfig | ConvMaxoutConfig):
        _require(1 <= layer.num_pieces <= 255, prefix + "num_pieces", layer.num_pieces, "1 to 255")
