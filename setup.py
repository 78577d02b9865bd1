"""Stop a build whose links were not checked out; everything else about the build stands in pyproject.toml."""

from pathlib import Path

from setuptools import setup

# fastgan/kernels and fastgan/cli are links to ../kernels and ../cli. Where they were checked out as text files, or not
# at all, setuptools finds no packages there and builds, without a word, a wheel that lacks half of the project.
for part in ("fastgan/kernels/__init__.py", "fastgan/cli/__init__.py"):
    try:
        (Path(__file__).resolve().parent / part).read_bytes()
    except OSError as error:
        raise SystemExit(
            f"fastgan cannot be built: {part} cannot be read ({error.strerror}), so the links in fastgan/ were not "
            "checked out as links. This mends it: git config core.symlinks true && git checkout -- fastgan"
        ) from None

setup()
