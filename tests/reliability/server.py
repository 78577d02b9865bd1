"""Starts ``fastgan`` commands as processes of their own in a hundredth of a second: all is imported once, then forked.

``python -m tests.reliability.server`` reads a JSON object a line and answers each: {"argv", "folder"} and settings of
``prepare`` start a command and give its process number; {"wait": number} gives how it ended, as ``subprocess`` counts:
an exit code, or minus the number of a signal.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from tests.runs_for_tests import TINY, environment, small_reproduction

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server:
    """The test's end of it."""

    def __init__(self):
        root = Path(__file__).parent.parent.parent
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=environment(),
        )  # fmt: skip
        self._read()

    def close(self):
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def start(self, *argv, folder, **settings):
        """Start a command in ``folder``; its streams go to the files ``out`` and ``err`` there."""
        return Command(
            self, self._ask({"argv": [str(word) for word in argv], "folder": str(folder), **settings}), folder
        )

    def _ask(self, question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self):
        line = self._process.stdout.readline()
        assert line, "the server has ended"
        return json.loads(line)


class Command:
    def __init__(self, server, number, folder):
        self._server, self.number, self._folder = server, number, Path(folder)

    def kill(self, sent=signal.SIGKILL):
        # The server has not waited for it yet, so the number is still its own.
        os.kill(self.number, sent)

    def wait(self):
        return self._server._ask({"wait": self.number})

    @property
    def stdout(self):
        return (self._folder / "out").read_text("utf-8", "replace")

    @property
    def stderr(self):
        return (self._folder / "err").read_text("utf-8", "replace")


_emulated = None


def prepare(settings):
    """Change the process that is about to run a command as its test asks."""
    from fastgan import training
    from tests.reliability import faults

    if settings.get("emulated"):
        from tests.cuda_emulator import runtime

        # Kept for the process's life: a context that is dropped is left.
        global _emulated
        _emulated = runtime.emulated()
        _emulated.__enter__()
    if "looks" in settings:
        # Seconds between two looks at a running device: as often a checkpoint can be saved.
        training._SECONDS_BETWEEN_LOOKS = settings["looks"]
    if "saved" in settings:
        # A line for each save that has returned: what may never be lost again.
        log = os.open(settings["saved"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        save = training._Session._save

        def logged(self, which="latest"):
            save(self, which)
            os.write(log, f"{self.step}\n".encode())

        training._Session._save = logged
    if "reproduction" in settings:
        # Fields of its digits.
        small_reproduction(setattr, **settings["reproduction"])
    if "kill_at" in settings:
        faults.install(faults.Kill(settings["kill_at"]))
    if "file_bytes" in settings:
        resource.setrlimit(resource.RLIMIT_FSIZE, (settings["file_bytes"],) * 2)


def _run(question):
    has_begun = False
    # A shell's background process is started with it ignored, and hands that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.chdir(question["folder"])
        for stream, name in ((1, "out"), (2, "err")):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(file, stream)
            os.close(file)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        prepare(question)
        from fastgan.cli import main

        has_begun = True
        main(question["argv"], prog_name="fastgan")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        # What hits this file rather than the command says nothing about the command.
        if has_begun:
            traceback.print_exc()
        code = 70 if has_begun else -2
    else:
        code = 0
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    if code == -2:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def _serve():
    answers = os.fdopen(os.dup(1), "w")
    # Everything that a command imports, and the compiled loops, before the first fork.
    import fastgan
    from fastgan import training  # noqa: F401
    from fastgan.cli import export, info, interpolate, parzen, reproduce, sample, train  # noqa: F401
    from tests.reliability import faults  # noqa: F401

    with contextlib.suppress(ImportError):
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        run = fastgan.train(TINY.replace({"steps": 1}), run_dir=Path(folder) / "run")
        fastgan.parzen(run.generator.sample(50), "digits")
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        else:
            # What a fork runs by itself, as the seeding of random, would lose a signal.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            answer = os.fork()
            if answer == 0:
                _run(question)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
