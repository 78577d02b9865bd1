import io
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fastgan.cli import main
from fastgan.cli.data import DownloadProgress
from fastgan.datasets import registry
from tests.datasets.made_up import CONTENT, GZ, TRAIN_IMAGES, TRAIN_LABELS, isolate, made_up, server, write_files  # noqa: F401


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path, server):  # noqa: F811
    isolate(monkeypatch, tmp_path)
    monkeypatch.setitem(registry.REGISTRY, "mnist", made_up([server.url]))


def run(*arguments):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def test_list_shows_every_data_set_and_where_it_is(tmp_path):
    result = run("list")
    assert result.exit_code == 0
    header, digits, mnist, fashion, tfd, cifar10 = result.stdout.splitlines()
    assert header.split() == ["NAME", "IMAGES", "SIZE", "SPLITS", "WHERE"]
    assert digits.split()[:6] == ["digits", "1,797", "8x8", "train:1,197", "valid:300", "test:300"]
    assert mnist.split()[:3] == ["mnist", "80", "5x4"]
    assert mnist.endswith("not found; fastgan data fetch mnist")
    assert fashion.split()[:4] == ["fashion-mnist", "70,000", "28x28", "train:50,000"]
    assert tfd.split()[:5] == ["tfd", "102,236", "48x48", "train:98,058", "folds:4,178"]
    assert tfd.endswith("not found; fastgan data fetch tfd says how to get it")
    assert cifar10.split()[:4] == ["cifar10", "60,000", "32x32x3", "train:40,000"]
    folder = write_files(tmp_path / "cache" / "fastgan" / "mnist")
    assert run("list").stdout.splitlines()[2].endswith(str(folder))


def test_list_survives_a_data_set_that_is_half_there(tmp_path):
    write_files(tmp_path / "cache" / "fastgan" / "mnist", {TRAIN_IMAGES: CONTENT[TRAIN_IMAGES]})
    result = run("list")
    assert result.exit_code == 0
    assert f"unusable: {tmp_path}/cache/fastgan/mnist holds {TRAIN_IMAGES} of mnist but lacks" in result.stdout
    assert len(result.stdout.splitlines()) == 7


def test_list_tells_the_same_problem_once(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTGAN_DATA", str(tmp_path / "none"))
    result = run("list")
    assert result.exit_code == 0
    assert result.stdout.count("FASTGAN_DATA names") == 1
    assert result.stdout.count("unusable, see below") == 4


def test_fetch_prints_the_folder_and_shows_progress_on_stderr(tmp_path):
    result = run("fetch", "mnist", "--data-dir", tmp_path)
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'mnist'}\n"
    assert result.stderr.splitlines() == [f"downloading {name}, {len(body):,} bytes" for name, body in GZ.items()]
    again = run("fetch", "mnist", "--data-dir", tmp_path)
    assert (again.exit_code, again.stdout, again.stderr) == (0, result.stdout, "")


def test_fetch_is_quiet_when_asked(tmp_path):
    result = run("fetch", "mnist", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tmp_path / 'cache' / 'fastgan' / 'mnist'}\n", "")


def test_fetch_takes_another_mirror(tmp_path, server):  # noqa: F811
    assert run("fetch", "mnist", "--mirror", f"{server.url}mine/").exit_code == 0
    assert all(name.startswith("mine/") for name, _ in server.requests)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fetch", "mnits"], 2, 'there is no data set "mnits"; did you mean "mnist"?'),
        (["verify", "mnits"], 2, 'did you mean "mnist"?'),
        (["fetch", "mnist", "--mirror", "ftp://127.0.0.1/"], 2, "is no http or https address"),
        (["fetch", "digits", "--data-dir", "x"], 2, "come inside fastgan"),
        (["fetch"], 2, "Missing argument"),
        (["fetch", "mnist", "--mirror", "http://127.0.0.1:1/"], 1, "could not be downloaded"),
        (["verify", "mnist"], 1, "mnist was not found"),
    ],
)
def test_faults_have_a_sentence_and_an_exit_code(arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_verify_of_right_files(tmp_path):
    write_files(tmp_path / "data")
    result = run("verify", "mnist", "--data-dir", tmp_path / "data")
    assert (result.exit_code, result.stderr) == (0, "")
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["FILE", "STATE", "SHA-256", "OF", "CONTENT", "WHERE"]
    expected = [[f.name, "ok", f.sha256, str(tmp_path / "data" / f.name)] for f in made_up().files]
    assert [row.split() for row in rows] == expected


def test_verify_of_wrong_files_exits_with_1(tmp_path):
    files = CONTENT | {TRAIN_IMAGES: CONTENT[TRAIN_IMAGES][:-1]}
    del files[TRAIN_LABELS]
    write_files(tmp_path / "data", files)
    result = run("verify", "mnist", "--data-dir", tmp_path / "data")
    assert result.exit_code == 1
    assert [row.split()[1] for row in result.stdout.splitlines()[1:]] == ["wrong", "missing", "ok", "ok"]
    assert "2 of 4 files of mnist failed:" in result.stderr
    assert "1,215 bytes long" in result.stderr


def test_verify_digits():
    result = run("verify", "digits")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[:2] == ["digits.npz", "ok"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_a_file(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with DownloadProgress() as progress:
        progress("a.gz", 0, 1000)
        progress("a.gz", 700, 1000)
        # The server began anew.
        progress("a.gz", 0, 1000)
        progress("a.gz", 1000, 1000)
        progress("b.gz", 10, None)
        progress("b.gz", 20, None)
    text = sys.stderr.getvalue()
    assert "70%" in text
    assert "100%" in text
    assert text.endswith("downloading b.gz, size unknown\n")


def test_help_needs_no_numpy():
    program = "import sys; from fastgan.cli import main; main(['data', 'fetch', '--help'], standalone_mode=False); "
    program += "sys.exit('numpy' in sys.modules or 'urllib.request' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--mirror" in result.stdout
