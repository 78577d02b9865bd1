import importlib
import subprocess
import sys
import warnings

import click
import pytest

import fastgan
from fastgan.cli import COMMANDS, main
from fastgan.errors import FastganWarning
from tests.runs_for_tests import environment, invoke, process


def leaves(command, path=()):
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from leaves(command.get_command(click.Context(command), name), (*path, name))
    else:
        yield path, command


ALL = [pytest.param(path, command, id=" ".join(path)) for path, command in leaves(main)]


def test_help_shows_every_command():
    output = invoke("--help").stdout
    assert output == invoke("-h").stdout
    for name, help_text in COMMANDS.items():
        assert f"  {name} " in output
        assert help_text in output


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_table_of_commands_names_what_there_is(name):
    command = importlib.import_module(f"fastgan.cli.{name}").command
    assert command.name == name
    assert name == "info" or command.help


@pytest.mark.parametrize(("path", "command"), ALL)
def test_every_option_is_in_the_help_and_explained(path, command):
    output = invoke(*path, "--help").stdout
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert all(option in output for option in parameter.opts), parameter.opts
            assert parameter.help, f"{parameter.opts} says nothing"
        else:
            assert parameter.name.upper() in output


@pytest.mark.parametrize("path", [(), *((name,) for name in COMMANDS), ("data", "fetch"), ("data", "verify")])
def test_the_marks_of_paragraphs_do_not_show_in_the_help(path):
    output = invoke(*path, "--help").stdout
    assert "\b" not in output
    assert "\\b" not in output


def test_help_does_not_import_numpy():
    code = (
        "import sys\nfrom fastgan.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('numpy', 'scipy', 'numba', 'h5py', 'PIL') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert "Usage" in done.stdout
    assert done.stderr == "[]\n"


def test_the_version_is_told():
    assert invoke("--version").stdout == f"fastgan, version {fastgan.__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"), [("trian", " Did you mean 'train'?"), ("samples", " Did you mean 'sample'?"), ("xyz", "")]
)
def test_a_command_that_is_none_is_answered_with_the_nearest(word, hint):
    result = invoke(word, code=2)
    assert result.stderr.splitlines()[-1] == f"Error: No such command '{word}'.{hint}"
    assert result.stdout == ""


def test_an_unknown_option_is_a_fault_of_the_command_line():
    assert "No such option" in invoke("train", "--epoch", "3", code=2).stderr
    assert "No such option" in invoke("--nothing", code=2).stderr


@pytest.mark.parametrize("command", ["sample", "interpolate", "export"])
def test_a_place_to_write_is_needed(command):
    assert "Missing option '--out'" in invoke(command, code=2).stderr


@pytest.mark.parametrize("name", ["sample", "interpolate", "export", "parzen"])
def test_commands_on_a_run_say_what_they_do_not_find(name, tmp_path):
    out = () if name == "parzen" else ("--out", tmp_path / "a.npz")
    assert "There is no run in runs; train one" in invoke(name, *out, code=1).stderr
    assert "There is no run '7'" in invoke(name, "7", *out, code=1).stderr
    (tmp_path / "checkpoint.h5").write_bytes(b"nonsense")
    assert "is not a fastgan checkpoint" in invoke(name, tmp_path, *out, code=1).stderr
    assert not (tmp_path / "a.npz").exists()


def test_the_package_is_the_command():
    asked = [sys.executable, "-m", "fastgan", "--version"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, env=environment())
    assert done.stdout == f"fastgan, version {fastgan.__version__}\n"


def test_a_warning_is_one_line_on_stderr(monkeypatch):
    def warn(*_, **__):
        warnings.warn("mind the step", FastganWarning, stacklevel=2)
        return {}

    monkeypatch.setattr("fastgan.training.versions", warn)
    result = invoke("info")
    assert result.stderr == "Warning: mind the step\n"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device"), "Error: [Errno 28] No space left on device"),
        (MemoryError("Unable to allocate 171 GiB"), "Error: There is not enough memory for this: Unable to allocate"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(monkeypatch, error, sentence):
    def refuse():
        raise error

    monkeypatch.setattr("fastgan.training.versions", refuse)
    assert invoke("info", code=1).stderr.startswith(sentence)


def test_other_warnings_are_shown_as_ever(monkeypatch, recwarn):
    warnings.simplefilter("always")
    monkeypatch.setattr("fastgan.training.versions", lambda: warnings.warn("other", RuntimeWarning, stacklevel=2) or {})
    assert invoke("info").stderr == ""
    assert [str(warning.message) for warning in recwarn] == ["other"]


def test_ctrl_c_ends_any_command_with_130(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("fastgan.training.versions", interrupt)
    assert invoke("info", code=130).stderr.splitlines()[-1] == "Interrupted."


def test_a_process_of_its_own_keeps_results_and_failures_apart():
    stdout, stderr = (started := process("sample", "--out", "a.png")).communicate(timeout=60)
    assert (started.returncode, stdout) == (1, "")
    assert stderr.startswith("Error: There is no run in runs")
    assert "Traceback" not in stderr


def test_a_stop_before_click_is_ready_for_one_is_a_sentence(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    # It lies outside of what click itself guards.
    monkeypatch.setattr(click.Group, "_main_shell_completion", interrupt)
    assert "Interrupted." in invoke("info", code=130).stderr


@pytest.mark.parametrize(("name", "code", "says"), [("SIGTERM", 143, ""), ("SIGINT", 130, "\nInterrupted.\n")])
@pytest.mark.parametrize("where", ["a weak reference's callback", "a finaliser"])
def test_a_signal_that_python_would_ignore_comes_again(name, code, says, where):
    # What is raised there Python prints and forgets.
    program = (
        "import os, signal, sys, time, weakref\n"
        "from fastgan import cli, training\n"
        "class Finalised:\n"
        "    def __del__(self): send()\n"
        "def send(*_):\n"
        f"    os.kill(os.getpid(), signal.{name})\n"
        "    time.sleep(0.001)\n"
        "def versions():\n"
        "    if sys.argv[1] == 'a finaliser':\n"
        "        Finalised()\n"
        "    else:\n"
        "        referred = {1, 2}.copy()\n"
        "        reference = weakref.ref(referred, send)\n"
        "        del referred\n"
        "    print('ignored once', flush=True)\n"
        "    time.sleep(20)\n"
        "training.versions = versions\n"
        "cli.main(['info'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, where], capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (code, "ignored once\n", says)
