import csv
import datetime
import subprocess

import pytest

from bench import harness
from bench.harness import BenchError, Budget, Case, Comparison, Device, Registry, Roof, WallTimer

DEVICE = Device("Test Machine, 2 cores", "cpu-test-machine-2-cores")
BUDGET = Budget("quick", warmup=1, min_repeats=3, seconds=0.0)


class FakeClock:
    """Time that passes only where a case's run says so, in whole nanoseconds."""

    def __init__(self):
        self.now = 0
        self.timer = WallTimer(clock=lambda: self.now)

    def seconds(self):
        return self.now * 1e-9

    def takes(self, *milliseconds):
        """Return a run that takes these times in turn, beginning again where they end."""
        turn = iter(milliseconds * 1000)

        def run():
            self.now += round(next(turn) * 1e6)

        return run


@pytest.fixture
def clock():
    return FakeClock()


def accept():
    """Verify nothing: these tests are about what comes after."""


def case(clock, name, *milliseconds, **options):
    return Case(name, run=clock.takes(*milliseconds), verify=accept, timer=clock.timer, **options)


def compare(*cases, name="probe"):
    return Comparison(name, "A title.", lambda full: cases, lambda: DEVICE)


def run(comparison, results, clock, budget=BUDGET):
    return harness.run_comparison(comparison, budget, results, clock=clock.seconds)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_hold_medians_quartiles_and_rates(tmp_path, clock):
    # The warm-up takes the first time of each: a compilation of 900 ms must not be seen.
    slow = case(clock, "slow", 900, 30, 10, 20, params={"B": 100}, flop=4e6, bytes=2e6)
    fast = case(clock, "fast", 900, 2, 2, 2, params={"B": 100}, bound="slow")
    path = run(compare(slow, fast), tmp_path, clock)
    assert path == tmp_path / "cpu-test-machine-2-cores" / "probe.csv"
    first, second = read(path)
    assert list(first) == ["comparison", "case", "B", *harness.COLUMNS[2:]]
    assert first["case"] == "slow"
    assert first["B"] == "100"
    assert float(first["median_s"]) == pytest.approx(0.020)
    assert float(first["q1_s"]) == pytest.approx(0.015)
    assert float(first["q3_s"]) == pytest.approx(0.025)
    assert first["repeats"] == "3"
    assert float(first["gflop_per_s"]) == pytest.approx(0.2)
    assert float(first["gb_per_s"]) == pytest.approx(0.1)
    assert second["gflop_per_s"] == ""
    assert second["bound"] == "slow"
    assert float(second["of_bound"]) == pytest.approx(10)
    assert first["timer"] == "wall clock"
    assert first["hardware"] == "Test Machine, 2 cores"
    assert first["precision"] == "float32"
    assert first["budget"] == "quick"
    assert first["threads"]
    assert first["commit"]
    assert "Python 3." in first["versions"]
    assert "numpy" in first["versions"]
    datetime.date.fromisoformat(first["date"])


def test_every_case_runs_once_a_round_and_the_order_changes():
    seen = []
    names = "abcdef"
    cases = [Case(name, run=lambda name=name: seen.append(name), verify=accept) for name in names]
    times, _ = harness.measure(cases, Budget("quick", warmup=2, min_repeats=10, seconds=0.0))
    rounds = ["".join(seen[i : i + 6]) for i in range(0, len(seen), 6)]
    assert len(rounds) == 12
    assert all(sorted(one) == list(names) for one in rounds)
    assert len(set(rounds[2:])) > 5
    assert [len(seconds) for seconds in times.values()] == [10] * 6


def test_the_budget_is_both_repeats_and_seconds(clock):
    def repeats(*milliseconds, min_repeats, seconds):
        one = case(clock, "one", *milliseconds)
        budget = Budget("quick", warmup=0, min_repeats=min_repeats, seconds=seconds)
        return len(harness.measure([one], budget, clock.seconds)[0][one.key])

    assert repeats(100, min_repeats=3, seconds=0.95) == 10
    assert repeats(100, min_repeats=30, seconds=0.95) == 30


def test_setup_gives_each_run_fresh_inputs_and_costs_nothing(tmp_path, clock):
    given, made = [], []

    def setup():
        clock.now += 10**9
        made.append(object())
        return made[-1], len(made)

    def work(item, number):
        clock.now += 10**6
        given.append((item, number))

    probe = Case("probe", setup=setup, run=work, verify=accept, timer=clock.timer)
    (row,) = read(run(compare(probe), tmp_path, clock))
    assert float(row["median_s"]) == pytest.approx(1e-3)
    assert given == [(item, number) for number, item in enumerate(made, 1)]
    assert len(given) == 4


def test_a_failing_verify_times_nothing_and_leaves_the_old_file(tmp_path, clock):
    def wrong():
        raise AssertionError("dx is off\n   by 0.5")

    path = run(compare(case(clock, "good", 1)), tmp_path, clock)
    before = path.read_bytes()
    ran = []
    good = Case("good", run=lambda: ran.append(1), verify=accept)
    bad = Case("bad", params={"B": 7}, run=lambda: ran.append(2), verify=wrong)
    with pytest.raises(
        BenchError, match=r"bad \(B=7\) failed its verification, so nothing was timed or written: dx is off by 0\.5"
    ):
        run(compare(good, bad), tmp_path, clock)
    assert ran == []
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["probe.csv"]
    with pytest.raises(BenchError):
        run(compare(good, bad, name="other"), tmp_path / "new", clock)
    assert not (tmp_path / "new").exists()


def test_verify_comes_before_any_timing(tmp_path, clock):
    events = []
    cases = [
        Case(name, run=lambda name=name: events.append(name), verify=lambda name=name: events.append(f"verify {name}"))
        for name in "ab"
    ]
    run(compare(*cases), tmp_path, clock)
    assert events[:2] == ["verify a", "verify b"]
    assert all(event in "ab" for event in events[2:])


def test_a_fault_that_is_no_mismatch_is_not_hidden(tmp_path, clock):
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(compare(Case("broken", run=accept, verify=broken)), tmp_path, clock)


def test_a_missing_peer_is_a_row_that_says_so(tmp_path, clock):
    peer = Case("torch", params={"B": 3}, missing="not installed: pip install torch", packages=["no-such-package"])
    own = case(clock, "fastgan", 5, params={"B": 3}, bound="torch")
    path = run(compare(peer, own), tmp_path, clock)
    first, second = read(path)
    assert first["missing"] == "not installed: pip install torch"
    assert first["median_s"] == first["repeats"] == ""
    assert second["of_bound"] == ""
    table = harness.table_of(path)
    assert "| torch | 3 | not installed: pip install torch |  |\n" in table
    assert "| fastgan | 3 | 5.00 ms | 5.00 to 5.00 ms |\n" in table


def test_a_peer_that_cannot_run_becomes_a_row_that_says_so(tmp_path, clock):
    def cannot():
        raise harness.CannotRunError("no compiler\n  was found")

    peer = Case("torch", run=lambda: clock.takes(1)(), verify=cannot)
    own = case(clock, "fastgan", 5, bound="torch")
    first, second = read(run(compare(peer, own), tmp_path, clock))
    assert (first["missing"], first["median_s"]) == ("no compiler was found", "")
    assert (second["median_s"], second["of_bound"]) == ("0.005", "")


def test_a_case_can_measure_something_else(tmp_path, clock):
    numbers = iter([9.0, 30.0, 10.0, 20.0])  # the first is the warm-up's
    probe = Case("probe", run=lambda: next(numbers), verify=accept, timer=clock.timer, measure="peak MB")
    path = run(compare(probe, case(clock, "other", 1)), tmp_path, clock)
    first, second = read(path)
    assert (first["measure"], first["measured"]) == ("peak MB", "20")
    assert (second["measure"], second["measured"]) == ("", "")
    assert "| case | peak MB | median | quartiles |\n" in harness.table_of(path)
    assert "| probe | 20 | " in harness.table_of(path)


def test_settling_runs_for_a_while_and_at_least_once_and_gives_no_inputs(monkeypatch):
    now, slept = [0.0], []
    monkeypatch.setattr(harness.time, "sleep", slept.append)
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])
    for takes, runs in ((0.011, 10), (1.0, 1)):
        ran = []

        def run(takes=takes, ran=ran):
            now[0] += takes
            ran.append(takes)

        assert harness.settled(run)() == ()
        assert len(ran) == runs
    assert len(slept) == 2


def test_a_roof_bounds_by_the_longer_of_flop_and_bytes(tmp_path, clock):
    roof = Roof("data sheet", flop_per_s=1e9, bytes_per_s=1e8)
    by_flop = case(clock, "by flop", 10, flop=5e6, bytes=1e5, bound=roof)
    by_bytes = case(clock, "by bytes", 10, flop=1e6, bytes=2e5, bound=roof)
    first, second = read(run(compare(by_flop, by_bytes), tmp_path, clock))
    assert float(first["of_bound"]) == pytest.approx(0.5)
    assert float(second["of_bound"]) == pytest.approx(0.2)
    assert first["bound"] == "data sheet"


def test_a_bound_is_the_case_with_the_same_parameters(tmp_path, clock):
    cases = [case(clock, "gemm", 1, params={"B": 1}), case(clock, "gemm", 4, params={"B": 2})]
    cases += [case(clock, "own", 8, params={"B": batch}, bound="gemm") for batch in (1, 2)]
    rows = read(run(compare(*cases), tmp_path, clock))
    assert [row["of_bound"] for row in rows] == ["", "", "0.125", "0.5"]


def test_a_bound_that_is_not_there_is_a_sentence(tmp_path, clock):
    with pytest.raises(BenchError, match=r"own is to be bounded by the case 'gem', but no case is called so"):
        run(compare(case(clock, "gemm", 1), case(clock, "own", 1, bound="gem")), tmp_path, clock)
    twice = [case(clock, "gemm", 1, params={"B": batch}) for batch in (1, 2)]
    with pytest.raises(BenchError, match="several are called so"):
        run(compare(*twice, case(clock, "own", 1, bound="gemm")), tmp_path, clock)
    with pytest.raises(BenchError, match=r"there are two cases gemm \(B=1\)"):
        run(compare(twice[0], twice[0]), tmp_path, clock)
    with pytest.raises(BenchError, match="has no cases"):
        run(compare(), tmp_path, clock)


def test_a_case_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="needs both run and verify"):
        Case("probe", run=accept)
    with pytest.raises(ValueError, match="missing cannot have run"):
        Case("probe", run=accept, missing="not installed")
    with pytest.raises(ValueError, match="'flop' has the name of a column"):
        Case("probe", params={"flop": 3}, run=accept, verify=accept)


def test_quick_and_full_ask_for_different_cases(tmp_path, clock):
    asked = []

    def cases(full):
        asked.append(full)
        yield case(clock, "probe", 1)

    comparison = Comparison("probe", "A title.", cases, lambda: DEVICE)
    for name in ("quick", "full"):
        run(comparison, tmp_path, clock, Budget(name, warmup=0, min_repeats=1, seconds=0.0))
    assert asked == [False, True]


def test_a_single_repeat_has_no_spread(tmp_path, clock):
    (row,) = read(
        run(compare(case(clock, "probe", 7)), tmp_path, clock, Budget("quick", warmup=0, min_repeats=1, seconds=0.0))
    )
    assert row["median_s"] == row["q1_s"] == row["q3_s"] == "0.007"


def test_registering():
    registry = Registry()

    @registry.comparison("linear-maxout", "A title.")
    def cases(full):
        return []

    assert registry["linear-maxout"].cases is cases
    assert registry["linear-maxout"].device is harness.cpu_device
    with pytest.raises(ValueError, match="two comparisons called"):
        registry.comparison("linear-maxout", "Another.")
    for name in ("all", "tables", "plots", "Linear", "a_b", ""):
        with pytest.raises(ValueError, match="lower-case letters"):
            registry.comparison(name, "A title.")
    with pytest.raises(BenchError, match=r"no comparison called 'linear-maxuot'\. Did you mean linear-maxout\?"):
        registry.find("linear-maxuot")
    with pytest.raises(BenchError, match=r"no comparison called 'x'\. `python"):
        Registry().find("x")


@pytest.mark.parametrize(
    ("model", "cores", "name", "folder"),
    [
        ("AMD EPYC", 2, "AMD EPYC (znver4), 2 cores", "cpu-amd-epyc-znver4-2-cores"),
        ("AMD EPYC 7763 64-Core Processor", 1, "AMD EPYC 7763, 1 core", "cpu-amd-epyc-7763-1-core"),
        (
            "Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz",
            8,
            "Intel Xeon Platinum 8480C, 8 cores",
            "cpu-intel-xeon-platinum-8480c-8-cores",
        ),
        ("Apple M2 Pro", 12, "Apple M2 Pro, 12 cores", "cpu-apple-m2-pro-12-cores"),
    ],
)
def test_the_devices_name(monkeypatch, model, cores, name, folder):
    monkeypatch.setattr(harness, "_cpu_model", lambda: model)
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "znver4")
    monkeypatch.setattr(harness.os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert harness.cpu_device() == Device(name, folder)


def test_this_machine_has_a_name():
    assert harness.cpu_device().folder.startswith("cpu-")


def test_the_commit_says_where_files_differ(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    assert harness.commit(tmp_path) == "not a git checkout"
    git("init")
    (tmp_path / "code.py").write_text("1\n")
    git("add", ".")
    git("commit", "-m", "one")
    clean = harness.commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "results" / "probe.csv").write_text("a\n")
    assert harness.commit(tmp_path) == clean
    (tmp_path / "code.py").write_text("2\n")
    assert harness.commit(tmp_path) == f"{clean}-dirty"


@pytest.mark.parametrize(
    ("seconds", "like", "text"),
    [
        ("2.5", "2.5", "2.50 s"),
        ("0.0123456", "0.0123456", "12.3 ms"),
        ("0.9", "1.1", "0.900 s"),
        ("1.2345e-05", "1.2e-05", "12.3 µs"),
        ("0.000412", "0.000412", "412 µs"),
        ("3e-08", "3e-08", "30.0 ns"),
        ("0.0023", "0.0001", "2300 µs"),
        ("0", "0", "0 ns"),
    ],
)
def test_times_are_written_for_people(seconds, like, text):
    assert harness.in_unit(seconds, like) == text
