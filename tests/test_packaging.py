"""What is built and installed: the wheel and the sdist, each in an empty environment away from the checkout."""

import base64
import functools
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fastgan

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (".py", ".cu", ".cuh", ".npz", ".LICENSE.txt", "py.typed")

# Refuses every connection, in C code too: the audit hook is called before the system is.
NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(f"no network here: {event} {arguments}")

sys.addaudithook(refuse)
"""


def run(*command, cwd, **options):
    # Neither the variables of the tests' own environment nor the user's packages may help.
    foreign = ("PYTHON", "PIP_", "VIRTUAL_ENV", "FASTGAN_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environment = kept | {"PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def succeed(*command, cwd):
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def copy_of_the_project(folder):
    """Copy what a build reads, so that no build leaves anything in the checkout, nor finds there what another left."""
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "results")
    for name in ("fastgan", "kernels", "cli", "bench", "tests"):
        if (ROOT / name).is_dir():  # an unpacked sdist has kernels and cli inside of fastgan alone
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, folder)
    return folder


def build(kind, source, out):
    succeed(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, source, cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_of_the_project(tmp_path_factory.mktemp("source") / "fastgan")
    # Whatever kernels there are today: one of each kind of file, in a folder of its own.
    planted = folder / "fastgan" / "kernels" / "planted_by_the_test"
    planted.mkdir()
    for name in ("__init__.py", "planted.cu", "planted.cuh", "planted.npz"):
        (planted / name).touch()
    return folder


@pytest.fixture(scope="module")
def sdist(project, tmp_path_factory):
    return build("sdist", project, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(project, tmp_path_factory):
    return build("wheel", project, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_of_the_sdist(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel-of-the-sdist"))


def package_files(folder):
    """Return the files of the package as the source has them, links followed."""
    found = set()
    for parent, _, names in os.walk(folder / "fastgan", followlinks=True):
        for name in names:
            if name.endswith(SOURCES):
                found.add((Path(parent) / name).relative_to(folder).as_posix())
    return found


def in_wheel(path):
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def in_sdist(path):
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if not member.isdir()}


def test_the_wheel_holds_the_package_and_nothing_else(project, wheel):
    files = in_wheel(wheel)
    information = {name for name in files if ".dist-info/" in name}
    assert files - information == package_files(project)
    assert {name.partition("/")[0] for name in files - information} == {"fastgan"}
    licences = {name.partition("/licenses/")[2] for name in information if "/licenses/" in name}
    assert licences == {"LICENSE", "fastgan/datasets/digits.LICENSE.txt"}
    assert {"fastgan/py.typed", "fastgan/datasets/digits.LICENSE.txt", "fastgan/cli/__init__.py"} <= files
    assert {f"fastgan/kernels/planted_by_the_test/planted.{kind}" for kind in ("cu", "cuh", "npz")} <= files


def test_the_sdist_holds_the_package_and_what_a_reader_needs(project, sdist):
    files = in_sdist(sdist)
    assert package_files(project) <= files
    assert {"Makefile", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "setup.py", "pyproject.toml"} <= files
    assert {"bench/harness.py", "bench/__main__.py", "tests/test_packaging.py"} <= files
    assert not {name for name in files if name.startswith("bench/results/") or name.endswith(".pyc")}
    with tarfile.open(sdist) as archive:
        assert not [member.name for member in archive.getmembers() if member.issym()]


def test_the_wheel_of_the_sdist_is_the_wheel(wheel, wheel_of_the_sdist):
    assert in_wheel(wheel_of_the_sdist) == in_wheel(wheel)
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(wheel_of_the_sdist) as other:
        assert [name for name in in_wheel(wheel) if one.read(name) != other.read(name)] == []


def test_the_wheels_record_is_right(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        for line in archive.read(record).decode().splitlines():
            name, digest, _ = line.rsplit(",", 2)
            if name != record:
                kind, _, expected = digest.partition("=")
                found = hashlib.new(kind, archive.read(name)).digest()
                assert base64.urlsafe_b64encode(found).rstrip(b"=").decode() == expected, name


@pytest.mark.parametrize("part", ["kernels", "cli"])
def test_links_that_were_checked_out_as_text_stop_the_build(tmp_path, part):
    project = copy_of_the_project(tmp_path / "source")
    link = project / "fastgan" / part
    if link.is_symlink():
        link.unlink()
    else:
        shutil.rmtree(link)
    link.write_text(f"../{part}")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "out", cwd=project)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert f"fastgan cannot be built: fastgan/{part}/__init__.py cannot be read (Not a directory)" in said
    assert "git config core.symlinks true && git checkout -- fastgan" in said
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@functools.cache
def runtime_distributions():
    """Return the distributions that the declared dependencies come to, as they lie in the tests' own environment."""
    found = {}
    # Read from the sources: what is installed here may be older than pyproject.toml.
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    queue = [Requirement(text) for text in wanted]
    while queue:
        requirement = queue.pop()
        if requirement.name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[requirement.name] = distribution = importlib.metadata.distribution(requirement.name)
        queue += [Requirement(text) for text in distribution.requires or ()]
    return tuple(found.values())


def empty_environment(folder, package):
    """Make an environment that holds ``package`` and the declared dependencies, and return its Python.

    The dependencies are links to the files that the tests' own environment has: a real installation of them took 12 s
    and a network on a machine where this takes 2 s and none. Nothing else of that environment can be imported, so that
    a dependency which is used and not declared is found here; pip checks that what is declared is met.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (python,) = folder.glob("[Bb]in/python") or folder.glob("Scripts/python.exe")
    site = Path(
        succeed(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    )
    for distribution in runtime_distributions():
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            (site / top).symlink_to(Path(distribution.locate_file(top)).resolve())
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-build-isolation"]
    succeed(*pip, package, cwd=folder)
    (site / "no_network.py").write_text(NO_NETWORK)
    (site / "no_network.pth").write_text("import no_network\n")  # sitecustomize may be the system's own
    return python


def check_an_installation(folder, package):
    """Install, start and train, away from the checkout and without a network."""
    python = empty_environment(folder / "environment", package)
    away = folder / "away"
    away.mkdir()
    command = python.parent / "fastgan"

    done = succeed(python, "-c", "import fastgan.kernels, fastgan.cli; print(fastgan.__file__)", cwd=away)
    assert Path(done.stdout.strip()).is_relative_to(folder / "environment")
    for name in ("kernels", "cli", "bench", "tests", "pytest"):
        done = run(python, "-c", f"import {name}", cwd=away)
        assert f"No module named '{name}'" in done.stderr
    done = run(python, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))", cwd=away)
    assert "no network here" in done.stderr

    assert fastgan.__version__ in succeed(command, "--version", cwd=away).stdout
    assert "Usage" in succeed(command, "--help", cwd=away).stdout

    done = succeed(command, "train", "--dataset", "digits", "--steps", 20, "--run-dir", away / "run", cwd=away)
    assert done.stdout == f"{away / 'run'}\n"
    made = {path.name for path in (away / "run").iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoint.h5", "samples", "report.html"} <= made
    assert list((away / "run" / "samples").iterdir())


def test_the_wheel_trains_in_an_empty_environment(tmp_path, wheel):
    check_an_installation(tmp_path, wheel)


def test_the_sdist_trains_in_an_empty_environment(tmp_path, wheel_of_the_sdist):
    # An installer does nothing else with an sdist than to make a wheel of it and to install that.
    check_an_installation(tmp_path, wheel_of_the_sdist)
