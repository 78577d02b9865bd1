import builtins
import sys

import pytest
from click.testing import CliRunner

from bench import __main__ as command
from bench import harness, plots
from bench.harness import BenchError, Budget, Case, Comparison, Device


def accept():
    """Verify nothing: these tests are about the plots."""


class Steady:
    """A timer for which everything takes as long as is said."""

    name = "steady"

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, run):
        return self.seconds


@pytest.fixture
def results(tmp_path):
    cases = [
        Case(name, params={"B": B}, run=accept, verify=accept, timer=Steady(factor * B * 1e-5))
        for B in (16, 64, 256)
        for name, factor in (("bare sgemm", 1), ("fastgan reference", 2), ("fastgan cpu", 1.02))
    ]
    cases.append(Case("fastgan cupy", params={"B": 16}, missing="no GPU"))
    for device in ("A", "B"):
        comparison = Comparison(
            "scale-batch", "A title.", lambda full: cases, lambda device=device: Device(device, device)
        )
        harness.run_comparison(comparison, Budget("quick", 0, 1, 0.0), tmp_path / "results")
    return tmp_path / "results"


def bench(*arguments):
    return CliRunner().invoke(command.main, [str(argument) for argument in arguments])


def test_lines_are_the_cases_that_were_timed(results):
    hardware, lines = plots.read_lines(results / "A" / "scale-batch.csv")
    assert hardware == "A"
    assert list(lines) == ["bare sgemm", "fastgan reference", "fastgan cpu"]
    assert [x for x, *_ in lines["bare sgemm"]] == [16, 64, 256]
    assert lines["fastgan reference"][0] == pytest.approx((16, 32e-5, 32e-5, 32e-5))


def test_a_plot_is_drawn_of_what_there_is(results, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from PIL import Image

    done = bench("plots", "--out", results, "--plots", tmp_path / "plots")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'plots' / 'scale-batch.png'}\n"
    with Image.open(tmp_path / "plots" / "scale-batch.png") as image:
        # Two devices, two panels; the ground is white and opaque.
        assert image.height > image.width
        assert image.convert("RGBA").getpixel((2, 2)) == (255, 255, 255, 255)
        assert len(image.convert("RGB").getcolors(2**20)) > 50


def test_without_results_or_matplotlib_there_is_a_sentence(results, tmp_path, monkeypatch):
    with pytest.raises(BenchError, match=r"nothing to draw in .*: `python -m bench scale-batch .* --full` measures it"):
        plots.draw_all(tmp_path / "nowhere", tmp_path / "plots")
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return real(name, *arguments, **options)

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    done = bench("plots", "--out", results, "--plots", tmp_path / "plots")
    assert done.exit_code == 1
    assert "pip install matplotlib" in done.stderr
    assert not (tmp_path / "plots").exists()


def test_every_plot_is_of_a_comparison():
    assert set(plots.DRAWN) == {name for name in harness.load_comparisons() if name.startswith("scale-")}
