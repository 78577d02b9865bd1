"""What the commands share: options, how a run is named, where results may be written, progress on a terminal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fastgan.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastgan.runs import Run

_Command = TypeVar("_Command", bound=Callable[..., Any])
ARRAY_SUFFIXES = (".npy", ".npz", ".h5")
SEED = click.IntRange(0, 2**64 - 1)
BACKENDS = click.Choice(["auto", "cupy", "numba-cuda", "cpu", "reference"])


def echo_path(path: Path) -> None:
    """Print a path, byte for byte: a file's name need not be text in the terminal's encoding."""
    click.echo(os.fsencode(path))


def runs_option(command: _Command) -> _Command:
    """Add ``--runs DIR``."""
    return click.option(
        "--runs",
        "runs_dir",
        default="runs",
        envvar="FASTGAN_RUNS",
        show_default=True,
        show_envvar=True,
        metavar="DIR",
        help="The folder of numbered runs.",
    )(command)


def run_argument(command: _Command) -> _Command:
    """Add ``[RUN]``, ``--runs`` and ``--checkpoint``."""
    command = click.option(
        "--checkpoint",
        type=click.Choice(["latest", "best"]),
        default="latest",
        show_default=True,
        help="Which checkpoint: the latest, or the best by validation score of a run with --parzen-every.",
    )(command)
    return click.argument("run", required=False)(runs_option(command))


def data_dir_option(command: _Command) -> _Command:
    """Add ``--data-dir DIR``."""
    return click.option(
        "--data-dir",
        metavar="DIR",
        help="Where the data set's files are: the folder itself, or the parent of one named after the data set. "
        "Without it: $FASTGAN_DATA, then the user's cache folder.",
    )(command)


def fold_option(command: _Command) -> _Command:
    """Add ``--fold N``."""
    return click.option(
        "--fold",
        type=click.IntRange(0, 4),
        metavar="N",
        help="Which of TFD's folds validates and tests, 0 to 4; other data sets have none.  [default: 0]",
    )(command)


def open_run(name: str | None, runs_dir: str, checkpoint: str, backend: str = "auto") -> Run:
    """Find and read a run by its path, name or number; None is the newest."""
    from fastgan.runs import find_run, load_run

    return load_run(find_run(name, runs_dir), checkpoint, backend=backend)


def check_out(out: str, suffixes: tuple[str, ...], option: str = "--out") -> Path:
    """Check a result's file name before any work is done for it."""
    path = Path(out)
    if path.suffix.lower() not in suffixes:
        raise click.BadParameter(f"{out!r} must end in {', '.join(suffixes)}", param_hint=f"'{option}'")
    if path.is_dir():
        raise RunError(f"{path} is a folder; give the name of a file in it with {option}")
    if not path.parent.is_dir():
        raise RunError(f"The folder {path.parent} of {path.name} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"The folder {path.parent} of {path.name} cannot be written; name another with {option}")
    return path


def write_file(path: Path, content: bytes) -> None:
    """Write a result whole or not at all."""
    from fastgan.files import write_atomically

    try:
        write_atomically(path, content)
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror}") from error


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by the file's ending: .npy holds the first alone, .npz and .h5 all by name."""
    import io

    import numpy as np

    buffer = io.BytesIO()
    suffix = path.suffix.lower()
    if suffix == ".npy":
        np.save(buffer, next(iter(arrays.values())), allow_pickle=False)
    elif suffix == ".npz":
        np.savez(buffer, allow_pickle=False, **arrays)
    else:
        import h5py

        with h5py.File(buffer, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
    write_file(path, buffer.getvalue())


def as_images(pixels_ND: NDArray[np.float32], image_shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Bring (N, D) pixels in C·H·W order into the layout that others read: (N, H, W), or (N, H, W, C) in colour."""
    images = pixels_ND.reshape(-1, *image_shape)
    return images[:, 0] if image_shape[0] == 1 else images.transpose(0, 2, 3, 1)


_stderr_is_gone = False


def tell(text: str, nl: bool = True) -> None:
    """Write to stderr; where its terminal or its pipe's reader is gone, go on without it."""
    global _stderr_is_gone
    if not _stderr_is_gone:
        try:
            click.echo(text, nl=nl, err=True)
        except OSError:
            _stderr_is_gone = True


class StopSignals:
    """Ctrl-C, SIGTERM and a closed terminal ask a command to finish its step and save; a second time they end it.

    Attributes
    ----------
    event : threading.Event
        Set once one has come.
    received : list of int
        Which came.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.received: list[int] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # Under nohup a closed terminal is to be ignored.
            if number is not None and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self.received.append(number)
        self.event.set()
        # A second signal means it: the default action ends the process at once.
        signal.signal(number, signal.SIG_DFL)


class StatusLine:
    """One line on stderr that is written over and over; nothing where stderr is no terminal, or with ``--quiet``."""

    # The one that is on the screen, which a warning must not be written behind.
    _on_screen: StatusLine | None = None

    def __init__(self, quiet: bool = False) -> None:
        self._shown = 0
        # A process may have been started with stderr closed.
        self._active = not quiet and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, text: str) -> None:
        """Show ``text`` in place of what stood there."""
        if self._active:
            tell("\r" + text.ljust(self._shown), nl=False)
            self._shown = len(text)
            StatusLine._on_screen = self

    def clear(self) -> None:
        """Make room for an ordinary line."""
        if self._active and self._shown:
            tell("\r" + " " * self._shown + "\r", nl=False)
            self._shown = 0
            StatusLine._on_screen = None

    @staticmethod
    def clear_any() -> None:
        """Make room for an ordinary line where another part of the program may be showing one of these."""
        if StatusLine._on_screen is not None:
            StatusLine._on_screen.clear()


def duration(seconds: float) -> str:
    """Write a time as a person would: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def epochs_text(number: float) -> str:
    """Write a number of epochs: 100, or 0.87."""
    return f"{round(number, 2):g}"


def report_line(line: Mapping[str, Any]) -> str:
    """Write a report of training, as metrics.jsonl has it, for a person."""
    text = (
        f"epoch {epochs_text(line['epoch'])}  step {line['step']}  D loss {line['discriminator_loss']:.4f}  "
        f"G loss {line['generator_loss']:.4f}  D(x) {line['D_x']:.3f}  D(G(z)) {line['D_G_z']:.3f}  "
        f"{line['images_per_second']:.0f} images/s  {duration(line['seconds'])}"
    )
    if "parzen" in line:
        parzen = line["parzen"]
        text += (
            f"  validation {parzen['log_likelihood']:.1f} ± {parzen['standard_error']:.1f} nats "
            f"at sigma {parzen['sigma']:.3f}"
        )
    return text
