"""What the parts of gpu-check run on a GPU, here on the emulator and on the CPU, with clocks that only pretend.

No time that is found here means anything: these tests are there so that no slip costs time on a device.
"""

import csv
import importlib.util
import sys
import types
from functools import partial

import numpy as np
import pytest

from bench import recipe
from bench.gpu import clock as clocks
from bench.gpu import (
    compile_kernels,
    device_tests,
    latency,
    machine,
    mnist,
    parzen,
    record,
    sanitizer,
    tensor_cores,
    training_step,
)
from bench.gpu.part import FAILED, NOT_HERE, PASSED, Context
from bench.harness import ROOT, CannotRunError, table_of
from fastgan import datasets
from fastgan.errors import BackendError
from fastgan.kernels.common import cupy_runtime, gemm_tile, launcher
from fastgan.kernels.common.devices import TF32_FROM, device
from fastgan.kernels.common.kernel import Kernel
from fastgan.presets import preset
from fastgan.trainer import Trainer
from tests import requirements
from tests.cuda_emulator import build
from tests.cuda_emulator.runtime import emulated
from tests.kernels import nvrtc, test_cupy_runtime

COMMON = {"hardware": "NVIDIA H200, a probe", "versions": "Python 3", "commit": "0123", "date": "2026-01-01"}
UPDATES = ("alternating", "simultaneous")


class PretendedClock:
    """Runs a sequence once, and says a microsecond a round more each."""

    def __init__(self):
        self.runs = 0

    def times(self, sequence, repeats, rounds, launches=1):
        sequence()
        self.runs += 1
        return [1e-6 * (i + 1) for i in range(rounds)]


@pytest.fixture
def emulator():
    """The CUDA emulator in a GPU's place, without its checks: others check the kernels."""
    if (reason := build.why_not()) is not None:
        requirements.required(reason)
    with emulated(bare=True) as runtime:
        yield runtime


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path, 1000.0, COMMON)


@pytest.fixture(scope="module")
def data():
    return recipe.random_images(100, (1, 8, 8))


def small(update="alternating"):
    widths = {
        "generator.0.num_units": 20, "generator.1.num_units": 16, "noise_dim": 12, "batch_size": 20,
        "discriminator.0.num_units": 12, "discriminator.1.num_units": 8,
    }  # fmt: skip
    iranges = {f"discriminator.{i}.irange": 0.05 for i in range(3)}
    return preset("digits").replace({"update": update, **widths, **iranges})


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- the tensor cores ---


def test_the_questions_have_exact_answers():
    asked = list(tensor_cores.questions())
    assert len({question.name for question in asked}) == len(asked)
    for question in asked:
        exact = question.c + sum(left * right for left, right in question.pairs.values())
        assert exact == question.exact
        assert np.float32(question.c) == question.c


def test_answers_are_read_as_what_they_mean():
    asked = list(tensor_cores.questions())

    def answers(low_bits, up):
        # A machine that keeps so many bits below float32's last.
        got = []
        for question in asked:
            terms = [question.c, *(left * right for left, right in question.pairs.values())]
            unit = 2.0 ** (np.floor(np.log2(max(map(abs, terms)))) - 23 - low_bits)
            total = sum(np.trunc(term / unit) * unit for term in terms)
            got.append(up(total))
        return np.array(got, np.float32)

    def truncate(x):
        near = np.float32(x)
        return np.nextafter(near, np.float32(0)) if abs(float(near)) > abs(x) else near

    found = tensor_cores.meanings(asked, answers(2, truncate))
    assert found[0] == "The sum of a product and c truncates towards zero."
    assert found[1] == "A sum of products in the same half of k keeps 2 bits below float32's last."
    assert found[3] == "A sum of products and c keeps 2 bits below float32's last."
    assert tensor_cores.meanings(asked, answers(40, np.float32))[0].endswith("rounds to nearest.")


def test_the_parzen_window_on_the_emulator(emulator, context, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert parzen.run(context, (40, 70, 50), lambda sequence, rounds: [1e-3] * (sequence() is None) * rounds) == PASSED
    assert "off by" in capsys.readouterr().out
    with (context.out / "check" / "parzen.csv").open() as file:
        rows = list(csv.DictReader(file))
    planes = [name + how for how in ("", ", no warpgroups") for name in ("halves", "bytes, 8-bit queries")]
    others = ["cuBLAS", "PyTorch is not installed"]
    assert [row["what"].partition(":")[0] for row in rows] == [*planes, "split TF32", "FMA", "tf32", *others]
    assert all(row["passed"] == "True" for row in rows[:7])
    assert float(rows[0]["worst error in nats"]) < float(rows[6]["worst error in nats"])
    # An error above what the operation promises is a failure.
    monkeypatch.setattr(parzen, "_WORST_NATS", 1e-9)
    assert parzen.run(context, (40, 70, 50), lambda sequence, rounds: [1e-3] * rounds) == FAILED


def test_tensor_cores_on_the_emulator(emulator, context, capsys):
    assert tensor_cores.run(context, ((20, 64, 40),)) == PASSED
    assert capsys.readouterr().out.startswith("The sum of a product and c truncates towards zero.\n")
    found = {row["arithmetic"]: row for row in rows_of(context.out / "check" / "arithmetic.csv")}
    assert set(found) == {"FMA", "split", "tf32"}
    assert float(found["tf32"]["of plain float32's"]) > 100
    assert gemm_tile.ARITHMETIC == {"float32": None, "tf32": gemm_tile.TF32}


def test_an_error_above_its_bar_fails(emulator, context, monkeypatch):
    monkeypatch.setitem(tensor_cores.ARITHMETICS, "split", ("tf32", gemm_tile.TF32, 4.0))
    assert tensor_cores.run(context, ((20, 64, 40),)) == FAILED


def test_an_older_gpu_is_not_asked(emulator, context):
    emulator.architecture = 75
    assert tensor_cores.run(context) == NOT_HERE


@pytest.mark.parametrize("architecture", [75, 80, 90])
def test_the_probes_compile(architecture):
    if (reason := nvrtc.why_not()) is not None:
        requirements.required(reason)
    probes = [latency._NOTHING]
    if architecture >= TF32_FROM:
        probes.append(tensor_cores._MMA)
    if architecture >= latency._CLUSTERS_FROM:
        probes.append(latency._CLUSTER)
    for probe in probes:
        assert nvrtc.compiled(probe, architecture).spills == 0


# --- launches ---


@pytest.mark.parametrize("update", UPDATES)
def test_the_launches_of_a_step(emulator, data, update):
    launches = record.step_launches(small(update), data)
    products = [launch for launch in launches if launch.product]
    expected = recipe.flop_of(recipe.gemms(small(update), data.num_pixels))
    # A launch's product is the one that the recipe lists, but for the rows that a kernel masks.
    assert sum(launch.flop for launch in products) == expected
    assert all(launch.bytes > 0 for launch in launches)
    kernels = record.step_kernels(small(update), data)
    assert {launch.kernel for launch in launches} <= set(kernels)
    assert launcher.launch.__module__ == launcher.__name__
    assert sum(count for _, count in record.distinct(launches)) == len(launches)


def test_a_recorded_launch_can_be_made_again_with_any_tiling(emulator, data):
    launches = [launch for launch in record.step_launches(small(), data) if launch.product]
    forward = next(launch for launch in launches if launch.kernel.name.startswith("linear_maxout_forward"))
    forward.run()
    expected = emulator.download(forward.arguments["y"])
    found = latency.candidates(forward, latency.device_workspace())
    assert found[0].chosen
    assert sum(candidate.chosen for candidate in found) == 1
    kinds = {(c.tiling.splits > 1, c.tiling.clustered) for c in found}
    assert kinds == {(False, False), (True, True), (True, False)}
    for candidate in found[-3:]:
        emulator.overwrite(forward.arguments["y"], np.full_like(expected, np.nan))
        candidate.launch.run()
        np.testing.assert_allclose(emulator.download(forward.arguments["y"]), expected, rtol=1e-5, atol=1e-6)


def test_latencies(emulator, context):
    with context.table("latency", ("what", "median µs", "q1 µs", "q3 µs", "GB/s", "GFLOP/s")) as table:
        latency.latencies(table, PretendedClock())
    rows = rows_of(context.out / "check" / "latency.csv")
    assert len(rows) == 5
    assert {row["median µs"] for row in rows} == {"8.000"}


def test_the_sweep_of_tilings(emulator, context, data, capsys):
    def compile_some(kernels, seconds):
        kernels = list(dict.fromkeys(kernels))
        assert 0 < seconds < 1000
        # Among them a tiling of an update, which must start from the same weights as the chosen one did.
        updates = [k for k in kernels if k.name.startswith("linear_backward_update") and ("TILE_M", 64) in k.defines]
        return {*kernels[::40], *updates[:1]}

    assert latency.sweep(context, PretendedClock(), small(), data, ["fma"], compile_some) == PASSED
    rows = rows_of(context.out / "check" / "tilings.csv")
    timed = [row for row in rows if row["median µs"]]
    assert len(rows) > 100
    assert {row["note"] for row in rows if not row["median µs"]} == {"not compiled, or not in time"}
    launches = {row["launch"] for row in rows}
    assert {row["launch"] for row in timed if row["chosen"] == "True"} == launches
    assert len(timed) > len(launches)
    best = rows_of(context.out / "check" / "tilings-best.csv")
    assert [row["launch"] for row in best] == list(dict.fromkeys(row["launch"] for row in rows))
    assert "all tilings that were timed give the same result" in capsys.readouterr().out


def test_a_tiling_with_another_result_is_told(emulator, context, data, monkeypatch):
    monkeypatch.setattr(latency, "_difference", lambda found, expected: 0.5)
    config = small("simultaneous")
    assert latency.sweep(context, PretendedClock(), config, data, ["fma"], lambda kernels, seconds: set()) == FAILED
    assert {row["note"] for row in rows_of(context.out / "check" / "tilings.csv")} == {
        "ANOTHER RESULT", "not compiled, or not in time",
    }  # fmt: skip


def test_a_nan_is_infinitely_far():
    wanted = {"y": np.ones((2, 3), np.float32)}
    assert latency._difference({"y": np.full((2, 3), np.nan, np.float32)}, wanted) == float("inf")
    assert latency._difference({"y": np.float32([[1, 1, 1], [1, 1, 0]])}, wanted) == 1.0


def test_a_sweep_without_time_leaves_rows_that_say_so(emulator, tmp_path, data):
    late = Context(tmp_path, 0.0, COMMON)
    assert (
        latency.sweep(late, PretendedClock(), small(), data, ["fma"], lambda kernels, seconds: set(kernels)) == PASSED
    )
    notes = {row["note"] for row in rows_of(tmp_path / "check" / "tilings.csv") if row["chosen"] == "False"}
    assert notes == {"no time was left"}


# --- the training step ---


def rows_from(entries, config, data, context):
    params = {"update": config.update, "B": config.batch_size, "data": "random"}
    with context.comparison("gpu-training-step", training_step.STEP_PARAMS, go_on=True) as table:
        for entry in entries:
            row = training_step.make_row(entry, config, data, params, context.harness_common, context.left)
            print(training_step.describe(row))
            table.add(row)
    return rows_of(context.out / "gpu-training-step.csv")


@pytest.mark.parametrize("update", UPDATES)
def test_fastgan_steps_on_the_emulator(emulator, context, data, update):
    config = small(update)
    rows = rows_from(training_step.fastgan_entries(config, data, PretendedClock()), config, data, context)
    assert [row["case"] for row in rows] == ["fastgan cupy, FMA", "fastgan cupy, split", "fastgan cupy, tf32"]
    assert [row["missing"] for row in rows] == [""] * 3
    assert [row["precision"] for row in rows] == ["float32", "float32", "tf32"]
    for row in rows:
        assert float(row["measured"]) == pytest.approx(20 / float(row["median_s"]), rel=0.02)
        assert row["bound"].startswith("H200 data sheet")
        assert row["commit"] == "0123"
    assert "fastgan cupy, tf32" in table_of(context.out / "gpu-training-step.csv")
    assert gemm_tile.ARITHMETIC == {"float32": None, "tf32": gemm_tile.TF32}


def test_launch_by_launch(emulator, context, data, monkeypatch):
    monkeypatch.setattr(recipe, "configuration", lambda update, B: small(update))
    assert training_step.time_kernels(context, data, PretendedClock()) == PASSED
    rows = rows_of(context.out / "gpu-kernels.csv")
    assert {row["case"] for row in rows} == {f"fastgan cupy, {name}" for name in ("FMA", "split", "tf32")}
    assert {row["update"] for row in rows} == set(UPDATES)
    assert all(float(row["of_bound"]) > 0 for row in rows)
    assert "linear_maxout_forward 40x60x64" in table_of(context.out / "gpu-kernels.csv")


def test_a_wrong_step_is_a_row_that_says_so(context, data):
    def verify():
        raise AssertionError("the change of weights 0\nis off")

    def broken():
        raise RuntimeError("the device is lost")

    entries = [
        training_step.Entry("wrong", "float32", verify, lambda: [1e-3], ""),
        training_step.Entry("broken", "float32", broken, lambda: [1e-3], ""),
        training_step.Entry("right", "tf32", lambda: None, lambda: [2e-3] * 3, "a clock"),
    ]
    wrong, broken_, right = rows_from(entries, small(), data, context)
    assert wrong["missing"] == "failed its verification: the change of weights 0 is off"
    assert broken_["missing"] == "ended with RuntimeError: the device is lost"
    assert [training_step.is_failure(row) for row in (wrong, broken_, right)] == [True, False, False]
    assert training_step.is_failure(broken_ | {"case": "fastgan cupy, FMA"})
    assert not training_step.is_failure(broken_ | {"case": "fastgan numba-cuda", "missing": "no kernels yet"})
    assert (right["missing"], right["timer"], right["measured"]) == ("", "a clock", "10000")


def test_no_time_is_a_row(tmp_path, data):
    entry = training_step.Entry("late", "float32", pytest.fail, pytest.fail, "")
    (row,) = rows_from([entry], small(), data, Context(tmp_path, 0.0, COMMON))
    assert row["missing"] == "no time was left"


@pytest.mark.parametrize(("update", "precision"), [("alternating", "tf32"), ("simultaneous", "float32")])
def test_peers_make_the_step_on_the_cpu_too(context, data, update, precision, monkeypatch):
    """PyTorch and JAX by the code that a GPU's rows come from; tf32 means nothing to a CPU."""
    monkeypatch.setattr(training_step, "_ROUNDS", 3)
    config = small(update)
    entries = [
        *training_step.torch_entries(config, data, precision, where="cpu"),
        *training_step.jax_entries(config, data, precision, platform="cpu"),
    ]
    # No CUDA graph without a GPU: its row says so, and the others do not mind.
    rows = {row["case"]: row for row in rows_from(entries, config, data, context)}
    assert list(rows) == ["PyTorch", "PyTorch, CUDA graph", "JAX jit, scan"]
    for name, package in (("PyTorch", "torch"), ("JAX jit, scan", "jax")):
        if importlib.util.find_spec(package) is None:
            assert rows[name]["missing"] == f"not installed: pip install {package}"
        else:
            assert rows[name]["missing"] == ""
            assert float(rows[name]["median_s"]) > 0
    assert rows["PyTorch, CUDA graph"]["missing"]


def test_the_scan_of_jax_makes_its_steps(data):
    pytest.importorskip("jax")
    from bench.peers.jax_training import JaxTraining

    config = small()
    training = JaxTraining(config, Trainer(config, data, device("reference"), 2), generator="rbg")
    before = training.weights()
    training.steps(3)
    once = training.weights()
    training.steps(3)
    for old, new, newer in zip(before, once, training.weights(), strict=True):
        assert np.isfinite(newer).all()
        assert np.abs(new - old).max() > 0
        assert np.abs(newer - new).max() > 0


def test_numpy_in_the_place_of_cupy(context, data, monkeypatch):
    """CuPy's peer is the plain step over another module: here over one that wraps NumPy."""

    class Array(np.ndarray):
        def get(self):
            return np.array(self)

    class Module:
        def __getattr__(self, name):
            value = getattr(np, name)
            if name in ("array", "asarray"):
                return lambda *arguments: value(*arguments).view(Array)
            return value

    from bench.plain_numpy import PlainTraining

    config = small()
    peer = training_step.Peer(config, data, recipe.FLOAT32, lambda c, t: PlainTraining(c, t, Module()))
    peer.verify()


def test_tf32_of_cupy_needs_its_variable(monkeypatch, data):
    monkeypatch.delenv("CUPY_TF32", raising=False)
    with pytest.raises(ValueError, match="set it to 1"):
        next(training_step.cupy_entries(small(), data, "tf32"))
    assert training_step.UNITS["cupy-tf32"] == {"CUPY_TF32": "1"}


def test_every_unit_has_rows(data, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "1")
    monkeypatch.setattr(clocks, "GraphClock", PretendedClock)
    for unit in training_step.UNITS:
        if unit == "kernels":
            continue
        names = [entry.name for entry in training_step.entries(unit, small(), data)]
        assert names
    with pytest.raises(ValueError, match="'torch-bf16-x'"):
        list(training_step.entries("torch-bf16-x", small(), data))


def test_backends_of_the_host_beside_the_gpu(context, data):
    config = small()
    rows = {row["case"]: row for row in rows_from(training_step.other_backends(config, data), config, data, context)}
    assert rows["fastgan cpu"]["missing"] == ""
    assert rows["fastgan reference"]["missing"] == ""
    assert float(rows["fastgan cpu"]["median_s"]) > 0


# --- the others ---


def test_the_recipe_is_scored_until_its_time_is_over(tmp_path):
    """On the embedded digits and the CPU."""
    config = preset("digits").replace({"epochs": 40, "backend": "cpu", "threads": 1})
    context = Context(tmp_path, 60.0, COMMON)
    digits = datasets.load("digits")
    assert mnist.run(context, config=config, dataset=digits, every=10) == PASSED
    rows = rows_of(tmp_path / "check" / "recipe-float32.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "5", "10", "20", "30", "40"]
    assert [bool(row["validation nats"]) for row in rows] == [False] * 3 + [True] * 4


def test_the_recipe_stops(tmp_path):
    config = preset("digits").replace({"epochs": 100_000, "backend": "cpu", "threads": 1})
    context = Context(tmp_path, 11.0, COMMON)
    mnist.run(context, config=config, dataset=datasets.load("digits"), every=10)
    assert 0 < context.left < 10
    assert rows_of(tmp_path / "check" / "recipe-float32.csv")


def test_the_recipe_without_mnist_is_not_here(tmp_path, capsys):
    assert mnist.run(Context(tmp_path, 60.0, COMMON, str(tmp_path))) == NOT_HERE
    assert capsys.readouterr().out.startswith("recipe: MNIST is not at hand (")


def test_images_are_random_where_there_is_no_mnist(tmp_path):
    found, name = training_step.images(Context(tmp_path, 60.0, COMMON, str(tmp_path)))
    assert (name, found.num_pixels) == ("random", 784)


@pytest.mark.parametrize(
    ("status", "output", "expected", "words"),
    [
        (0, "the steps were made\n========= ERROR SUMMARY: 0 errors\n", PASSED, "no errors"),
        (0, "the steps were made\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors)\n", PASSED, "no errors"),
        (9, "= Invalid __global__ read\nthe steps were made\n========= ERROR SUMMARY: 3 errors\n", FAILED, "3 errors"),
        (9, "the steps were made\n========= RACECHECK SUMMARY: 2 hazards displayed\n", FAILED, "2 errors"),
        (1, "========= Error: Device not supported. Please refer to the documentation\n", NOT_HERE, "refuses the tool"),
        (1, "Traceback ...\nValueError: x\n========= ERROR SUMMARY: 0 errors\n", FAILED, "ended with 1"),
        (0, "the steps were made\n", FAILED, "no summary"),
        (0, "========= ERROR SUMMARY: 0 errors\n", FAILED, "ended with 0"),
    ],
)  # fmt: skip
def test_what_the_sanitizer_says(status, output, expected, words):
    found, line = sanitizer.judge("memcheck", status, output)
    assert found == expected
    assert words in line


def test_what_is_compiled_beforehand_is_what_is_launched(emulator, context, monkeypatch):
    asked = []
    monkeypatch.setattr(clocks, "compile_all", lambda kernels, seconds: asked.extend(kernels) or set(kernels))
    assert compile_kernels.run(context) == PASSED
    for precision, config in sanitizer.configurations():
        launches = record.step_launches(config, recipe.random_images(200, (1, 8, 8)), precision)
        assert {launch.kernel for launch in launches} <= set(asked)
    monkeypatch.setattr(clocks, "compile_all", lambda kernels, seconds: set())
    assert compile_kernels.run(context) == FAILED


def test_the_short_run(emulator):
    """What compute-sanitizer watches, on the emulator."""
    sanitizer.train_shortly()


def test_outcomes_of_tests_are_rows_as_they_come(tmp_path):
    test = tmp_path / "test_probe.py"
    test.write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "@pytest.mark.skip(reason='not here')\n"
        "def test_skipped(): pass\n"
    )
    context = Context(tmp_path, 60.0, COMMON)
    with context.table("tests-probe", ("test", "outcome", "seconds", "reason")) as table:
        outcomes = device_tests.Outcomes(table)
        pytest.main(
            [str(test), "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", "/dev/null"],
            plugins=[outcomes],
        )
    rows = {row["test"].rpartition(":")[2]: row for row in rows_of(tmp_path / "check" / "tests-probe.csv")}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "test_good": "passed", "test_bad": "failed", "test_skipped": "skipped",
    }  # fmt: skip
    assert "assert 1 == 2" in rows["test_bad"]["reason"]
    assert "not here" in rows["test_skipped"]["reason"]
    assert outcomes.counts == {"passed": 1, "failed": 1, "skipped": 1}


def test_the_stated_bounds():
    roof = machine.roof("NVIDIA H200, 132 multiprocessors", "float32")
    assert roof.seconds(3.57e9, 0) == pytest.approx(53.4e-6, rel=0.01)
    assert machine.roof("NVIDIA H200", "tf32").seconds(3.57e9, 0) < 10e-6
    assert machine.roof("NVIDIA Probe", "float32") is None


class FakeStream:
    """Stands for CuPy's stream: time passes by one millisecond with every launch of a graph of ten launches."""

    now = 0.0

    is_current = False

    def __enter__(self):
        self.is_current = True
        return self

    def __exit__(self, *error):
        self.is_current = False
        return False

    def synchronize(self):
        self.now = self.now


class FakeEvent:
    def record(self, stream):
        self.at = stream.now

    def synchronize(self):
        """All is done at once."""


@pytest.fixture
def fake_cupy(monkeypatch):
    """A CuPy of which the clock uses no more than is here."""
    cupy = types.SimpleNamespace(
        cuda=types.SimpleNamespace(
            Event=FakeEvent, get_elapsed_time=lambda begin, end: end.at - begin.at, get_current_stream=FakeStream
        )
    )
    monkeypatch.setattr(cupy_runtime, "import_cupy", lambda: cupy)
    runtime = object.__new__(cupy_runtime.CupyRuntime)
    runtime._stream, runtime.number = FakeStream(), 0
    captured = []

    class Graph:
        def __init__(self, steps):
            self.steps = steps

        def launch(self, stream):
            stream.now += 0.1 * self.steps

    def capture(sequence, steps):
        # Launches go to the current stream, and this one is captured.
        assert runtime._stream.is_current
        for _ in range(steps):
            sequence()
        captured.append(steps)
        return Graph(steps)

    runtime._captured = capture
    launcher.set_runtime(runtime)
    yield runtime
    launcher.set_runtime(None)


def test_the_clock_reads_events_around_launches_of_a_graph(fake_cupy):
    ran = []
    found = clocks.GraphClock().times(lambda: ran.append(1), 10, 4, launches=3)
    assert found == pytest.approx([1e-4] * 4)
    assert len(ran) == 10
    # Warm-up, then four rounds of three.
    assert fake_cupy._stream.now == pytest.approx(3 + 12)


def test_the_clock_reads_events_around_what_is_not_captured(fake_cupy):
    def run():
        fake_cupy._stream.now += 2.0

    assert clocks.GraphClock().eager_times(run, 3) == pytest.approx([2e-3] * 3)


def test_the_clock_over_the_real_runtime(monkeypatch):
    """Over a CuPy that only writes down: what the clock reaches into is there, and captures what it is to capture."""
    cupy = test_cupy_runtime.FakeCupy()
    cupy.cuda.Event = FakeEvent
    cupy.cuda.get_elapsed_time = lambda begin, end: 12.0
    monkeypatch.setattr(test_cupy_runtime.FakeStream, "now", 0.0, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    launcher.set_runtime(None)
    try:
        kernel = Kernel("step/step.cu", "advance", threads=1)
        assert clocks._compile(kernel) is None
        assert "cannot be compiled" in clocks._compile(Kernel("step/step.cu", "advance", (("broken", 1),)))

        def sequence():
            launcher.launch(kernel, (1, 1, 1))

        cupy.log.clear()
        found = clocks.GraphClock().times(sequence, 5, 2, launches=3)
    finally:
        launcher.set_runtime(None)
    assert found == pytest.approx([12e-3 / 15] * 2)
    names = [entry[:2] for entry in cupy.log]
    begun, ended = names.index(("stream0", "capture")), names.index(("stream0", "captured"))
    assert ("null", "synchronize") in names[:begun]
    assert names[begun + 1 : ended] == [("stream0", "advance")] * 5
    assert names[ended + 1 :] == [("stream0", "graph")] * (3 + 2 * 3)


def test_only_a_gpu_has_a_clock(emulator):
    with pytest.raises(BackendError, match="only a GPU has a clock"):
        clocks.GraphClock()


@pytest.mark.skipif(cupy_runtime.driver_version() is not None, reason="a GPU answers here")
def test_kernels_that_cannot_be_compiled_are_told():
    """In processes of their own, as on a GPU; here each says that there is none."""
    kernels = [Kernel("step/step.cu", name) for name in ("advance", "set_rates")]
    said = []
    assert clocks.compile_all(kernels, 120.0, said.append) == set()
    assert len(said) == 2
    assert "CuPy" in said[0] or "GPU" in said[0]
    assert clocks.compile_all([], 1.0) == set()


def test_quartiles():
    assert clocks.quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert clocks.quartiles([1.0, 2.0, 3.0]) == (1.5, 2.0, 2.5)


def test_a_peer_that_cannot_run_here_says_so(data):
    def make(config, trainer):
        raise CannotRunError("this PyTorch finds no GPU")

    with pytest.raises(CannotRunError, match="finds no GPU"):
        training_step.Peer(small(), data, recipe.FLOAT32, make).verify()


def test_wall_times_are_of_one_step():
    samples = training_step.wall_times(partial(sum, range(10)), 5, 0.0)
    assert len(samples) == 3
    assert all(sample > 0 for sample in samples)


def test_the_tests_of_a_device_are_chosen_by_the_backends_names():
    class Collected:
        def pytest_collection_finish(self, session):
            self.names = [item.nodeid for item in session.items]

    collected = Collected()
    chosen = device_tests.SELECTIONS["operations"]
    pytest.main([*chosen, "--collect-only", "-qq", "-W", "default", "--rootdir", str(ROOT)], plugins=[collected])
    assert len(collected.names) > 100
    assert all("cupy" in name or "numba-cuda" in name for name in collected.names)
    assert any(name.startswith("tests/test_trainer.py") for name in collected.names)
    assert not any("test_cupy_runtime" in name for name in collected.names)
