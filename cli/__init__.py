"""The command line: one file a command, each parses, calls the library and prints."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import logging
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from typing import Any

import click

from fastgan import __version__
from fastgan.errors import ConfigError, FastganError, FastganWarning

# Commands are imported when they are named, so that `fastgan --help` never pays for NumPy. The short help stands here
# for the same reason.
COMMANDS = {
    "train": "Train a generator and a discriminator.",
    "sample": "Draw samples from a trained generator.",
    "interpolate": "Walk in straight lines through noise space.",
    "parzen": "Score samples by a Parzen-window log-likelihood.",
    "figure": "Draw the paper's figures.",
    "table1": "Make the paper's Table 1 from runs.",
    "reproduce": "Train, score and draw all that the paper shows.",
    "data": "List, fetch and verify data sets.",
    "export": "Write a trained generator as a plain .npz file.",
    "info": "Show versions, devices and backends.",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of the same name, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of a session's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import ``fastgan.cli.<name>`` and return its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"fastgan.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and suggest the nearest for a name that is none."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            import difflib

            nearest = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {nearest[0]!r}?" if nearest else ""))
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as click does, and end with 130 for a Ctrl-C that comes before click is ready for one."""
        for stream in (sys.stdout, sys.stderr):
            # An encoding without "±" is no reason to lose a score.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            return super().main(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            sys.exit(130)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command, its warnings and the library's errors each a sentence on stderr.

        Exit 2 for the command line's own faults, 130 for Ctrl-C, 143 for SIGTERM, else 1.
        """
        try:
            with _signals_raised(), _compiling_told(), warnings.catch_warnings():
                warnings.simplefilter("always", FastganWarning)
                warnings.showwarning = _warnings_shown_by(warnings.showwarning)
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            ctx.exit(130)
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
        except FastganError as error:
            raise click.ClickException(str(error)) from error
        except MemoryError as error:
            raise click.ClickException(f"There is not enough memory for this: {error}") from error
        except OSError as error:
            # A closed pipe, as after `| head`, is click's to deal with.
            if error.errno == errno.EPIPE:
                raise
            raise click.ClickException(str(error)) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class _Terminated(SystemExit):
    """SIGTERM, as an exception."""


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """Let SIGTERM end the command by way of an exception, so that what was being written is removed; lose no Ctrl-C.

    ``train`` and ``reproduce`` have handlers of their own, which finish the step and save.
    """

    def on_sigterm(number: int, frame: types.FrameType | None) -> None:
        # A second one ends the process at once.
        signal.signal(number, signal.SIG_DFL)
        raise _Terminated(128 + number)

    def unraisable(ignored: sys.UnraisableHookArgs) -> None:
        # A signal's exception comes wherever Python happens to be. In a finaliser, or a weak reference's callback, it
        # is printed and forgotten: there the signal comes again, a little later.
        if isinstance(ignored.exc_value, _Terminated):
            signal.signal(signal.SIGTERM, on_sigterm)
            number = signal.SIGTERM
        elif isinstance(ignored.exc_value, KeyboardInterrupt):
            number = signal.SIGINT
        else:
            usual(ignored)
            return
        again = threading.Timer(0.01, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    # A caller who has other plans for SIGTERM, or ignores it, keeps them.
    is_main = threading.current_thread() is threading.main_thread()
    takes_sigterm = is_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    usual, sys.unraisablehook = sys.unraisablehook, unraisable
    if takes_sigterm:
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        if takes_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.unraisablehook = usual


@contextlib.contextmanager
def _compiling_told() -> Iterator[None]:
    """Show a line where the backend ``cpu`` has to compile its loops, unless the command is to be quiet."""

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            context = click.get_current_context(silent=True)
            if context is None or not context.params.get("quiet"):
                from fastgan.cli.common import StatusLine, tell

                StatusLine.clear_any()
                tell(record.getMessage())

    log, handler = logging.getLogger("fastgan.kernels.common.loops"), Told()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _warnings_shown_by(usual: Any) -> Any:
    """Make a ``warnings.showwarning`` that shows the project's own warnings as a line, and others as usual."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
        if issubclass(category, FastganWarning):
            from fastgan.cli.common import StatusLine, tell

            StatusLine.clear_any()
            tell(f"Warning: {message}")
        else:
            usual(message, category, *rest, **options)

    return show


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fastgan")
def main() -> None:
    """Generative Adversarial Nets (Goodfellow et al., 2014): train, look, score.

    \b
    First steps, on any machine:
      fastgan train                      train on the digits that come with fastgan
      fastgan sample --out samples.png   a grid of what the newest run draws
      fastgan parzen --sigma-grid        its Parzen-window log-likelihood
    """  # noqa: D301
