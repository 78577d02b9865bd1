"""Command lines put together at random, some of them nonsense: each ends in a sentence, with the code 0, 1 or 2."""

import random
import socket
import warnings

import click
from click.testing import CliRunner

from fastgan.cli import COMMANDS, main

# Small enough to be done at once, or too absurd to be begun.
NUMBERS = (
    "0", "1", "2", "3", "7", "-1", "1000000000000000", "18446744073709551615", "1" + "0" * 40,
    "1.5", "nan", "inf", "1e-300", "1e400", "x", "", "0x10", "\N{ARABIC-INDIC DIGIT THREE}",
)  # fmt: skip
TEXTS = (
    "digits", "mnist", "mnits", "nowhere.npy", "a b", "../x", "/", ".", "..", "", "-", "--", "\N{SNOWMAN}",
    "x" * 5000, "run", "1", "99", "out.png", "out.npy", "out.npz", "out.h5", "out.txt", "no/out.png", "config.json",
    "\udcff", "null", "[]", "{}", "auto", "cpu", "cupy", "reference", "warn", "stop", "normal", "minimax",
)  # fmt: skip
FIELDS = (
    "seed", "steps", "epochs", "generator", "generator.0.num_units", "discriminator.9.irange", "noise_dim", "nonsense",
    "momentum_epochs", "learning_rate_decay", "min_learning_rate", "batch_size", "threads", "dataset", "preset",
    "generator.x", "generator.-1.bias", ".",
)  # fmt: skip


def parameters_of(words):
    command = main
    for word in words:
        command = command.get_command(None, word)
    return command.params


def value_for(parameter, rng):
    """Give a value of the right kind, or, one time in eight, any."""
    kind = parameter.type
    if rng.random() < 0.125:
        return rng.choice(NUMBERS + TEXTS)
    if isinstance(kind, click.Choice):
        return rng.choice(list(kind.choices))
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return rng.choice(NUMBERS)
    if parameter.name == "assignments":
        return f"{rng.choice(FIELDS)}={rng.choice(NUMBERS + TEXTS)}"
    return rng.choice(TEXTS)


def arguments(rng):
    """Put one command line together."""
    name = rng.choice([*COMMANDS, "nonsense"])
    if name == "nonsense":
        return [rng.choice(TEXTS), rng.choice(TEXTS)]
    groups = {"data": ["list", "verify", "verify"], "figure": ["2", "3"]}
    words = [name, rng.choice(groups[name])] if name in groups else [name]
    parameters = parameters_of(words)
    # Nothing is trained for real.
    words += ["--dry-run"] if name == "train" else []
    for parameter in parameters:
        if rng.random() < (0.9 if parameter.required else 2 / len(parameters)):
            values = [value_for(parameter, rng) for _ in range(max(parameter.nargs, 0 if is_flag(parameter) else 1))]
            values = [] if is_flag(parameter) else values
            words += values if isinstance(parameter, click.Argument) else [parameter.opts[-1], *values]
    # The last one counts: nothing is reproduced for real either.
    words += ["--only", "nonsense"] if name == "reproduce" else []
    return words


def is_flag(parameter):
    return getattr(parameter, "is_flag", False)


def run(words):
    """Run one command line in this process; say what is wrong by an AssertionError."""
    with warnings.catch_warnings():
        result = CliRunner().invoke(main, words)
    assert isinstance(result.exception, SystemExit | None), (words, repr(result.exception))
    assert result.exit_code in (0, 1, 2), (words, result.exit_code)
    assert "Traceback" not in result.output, words
    if result.exit_code:
        assert "Error: " in result.stderr or "Usage: " in result.stderr, (words, result.stderr)
    return result.exit_code


def many(num_cases, seed):
    """Run so many; give how often each code came."""
    counted = {0: 0, 1: 0, 2: 0}
    for case in range(num_cases):
        counted[run(arguments(random.Random(f"commands {seed} {case}")))] += 1
    return counted


def no_network():
    """Refuse connections; give what puts them back."""
    real = socket.socket.connect

    def refuse(self, address):
        raise OSError(101, "Network is unreachable")

    socket.socket.connect = refuse
    return lambda: setattr(socket.socket, "connect", real)
