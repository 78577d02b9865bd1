"""The frame of the comparisons: register, verify, time, write a CSV file, make tables of it.

A comparison is one file of this folder. It registers a function that yields cases::

    from collections.abc import Iterator
    from bench.harness import Case, comparison

    @comparison("linear", "One linear layer, forward, against the bare product.")
    def linear(full: bool) -> Iterator[Case]:
        for batch in (100, 1000) if full else (100,):
            work = Work(batch)  # holds the arrays; its methods take nothing
            same = {"params": {"B": batch}, "flop": work.flop}
            yield Case("numpy.matmul", run=work.product, verify=work.check_product, **same)
            yield Case("fastgan", run=work.layer, verify=work.check_layer, bound="numpy.matmul", **same)
            if importlib.util.find_spec("torch") is None:
                yield Case("torch", missing="not installed: pip install torch", **same)

Anything heavy (a peer, a device) is imported inside the function: listing the comparisons imports every file.

All cases are made, every case's ``verify`` must pass, and only then the clock runs: warm-up rounds first, then rounds
in each of which every case runs once, in an order shuffled anew, so that a noisy minute of the machine, or a neighbour
that leaves cold caches behind, hits all cases alike.
"""

from __future__ import annotations

import csv
import datetime
import difflib
import gc
import importlib
import importlib.metadata
import io
import math
import os
import pkgutil
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import threadpoolctl

import fastgan
from fastgan.errors import FastganError
from fastgan.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DOCUMENT = ROOT / "docs" / "results.md"


class BenchError(FastganError):
    """A comparison cannot be run, verified or tabulated; ``str(error)`` says which, why, and the way out."""


class CannotRunError(Exception):
    """What a case's ``verify`` raises where a peer cannot run here; ``str(error)`` says why, and the row says so."""


class Timer(Protocol):
    """Runs a callable once and says how many seconds it took; ``name`` goes to the CSV file."""

    @property
    def name(self) -> str:
        """What the time is read from, as in "wall clock" or "device events"."""

    def __call__(self, run: Callable[[], object]) -> float:
        """Return the seconds that ``run()`` took; whatever it started must be over by then."""


@dataclass(frozen=True)
class WallTimer:
    """Wall time of a callable that returns when its work is done (not of one that only starts a device's work)."""

    clock: Callable[[], int] = time.perf_counter_ns
    name: str = "wall clock"

    def __call__(self, run: Callable[[], object]) -> float:
        """Return the seconds that ``run()`` took."""
        clock = self.clock
        start = clock()
        run()
        return (clock() - start) * 1e-9


@dataclass(frozen=True)
class Roof:
    """A bound that comes from the hardware's rates and a case's own ``flop`` and ``bytes``.

    Parameters
    ----------
    name : str
        What it is, as in "H200, FP32 data sheet".
    flop_per_s, bytes_per_s : float, optional
        The rates. The bound of a case is the longer of the two times; a rate that is not given does not bound.
    """

    name: str
    flop_per_s: float = math.inf
    bytes_per_s: float = math.inf

    def seconds(self, flop: float | None, bytes_: float | None) -> float:
        """Return the least time in which so much can be computed and moved."""
        return max((flop or 0.0) / self.flop_per_s, (bytes_ or 0.0) / self.bytes_per_s)


@dataclass(frozen=True)
class Case:
    """One row of a comparison.

    Parameters
    ----------
    name : str
        Who computes, as in "fastgan cpu", "numpy.matmul", "torch".
    params : mapping, optional
        What is computed: one column each, as in ``{"B": 100}``; unique together with the name.
    run : callable
        The work that is timed, called as ``run(*setup())``.
    verify : callable
        Runs the work and raises ``AssertionError`` where the result is wrong; called once, before anything is timed.
        Where it raises ``CannotRunError``, the case becomes one that is missing.
    setup : callable, optional
        Returns a tuple of fresh inputs for each run; its time does not count.
    flop, bytes : float, optional
        Floating-point operations of a run, and bytes that it cannot do without moving.
    bound : str or Roof, optional
        What bounds the time: the name of another case, with the same parameters or else the only one of that name,
        timed in the same run; or a `Roof`. The row says what part of it the case reaches: bound's time / its own.
    missing : str, optional
        Why this peer cannot run here and what would mend it. Such a case has no ``run`` and becomes a row that says so.
    measure : str, optional
        Where the point is not, or not only, the time: the title of a column, as in "peak MB". ``run`` then returns a
        number, and the column holds the median of these numbers.
    timer : Timer, optional
        `WallTimer` unless given. A case that starts work on a device needs a timer that waits for its end.
    precision : str, optional
        As in "float32" or "tf32"; "" where it has no meaning.
    threads : str or int, optional
        Threads that the case computes with, where the process's BLAS and Numba settings do not say it.
    packages : sequence of str, optional
        Distributions whose versions the row names, besides Python's, NumPy's, SciPy's, Numba's and fastgan's own.
    """

    name: str
    params: Mapping[str, object] = field(default_factory=dict)
    run: Callable[..., object] | None = None
    verify: Callable[[], object] | None = None
    setup: Callable[[], tuple[Any, ...]] | None = None
    flop: float | None = None
    bytes: float | None = None
    bound: str | Roof | None = None
    missing: str | None = None
    measure: str | None = None
    timer: Timer = field(default_factory=WallTimer)
    precision: str = "float32"
    threads: str | int | None = None
    packages: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.missing is None and (self.run is None or self.verify is None):
            raise ValueError(f"{self.label}: a case needs both run and verify, or else missing")
        if self.missing is not None and self.run is not None:
            raise ValueError(f"{self.label}: a case that is missing cannot have run")
        if taken := set(self.params) & set(COLUMNS):
            raise ValueError(f"{self.label}: the parameter {min(taken)!r} has the name of a column of every row")

    @property
    def label(self) -> str:
        """The name and the parameters, for people."""
        params = ", ".join(f"{key}={value}" for key, value in self.params.items())
        return f"{self.name} ({params})" if params else self.name

    @property
    def key(self) -> tuple[str, tuple[tuple[str, object], ...]]:
        """What makes the case one of its kind."""
        return self.name, tuple(sorted(self.params.items()))


# The columns that every row has; the parameters of the cases stand after "case".
COLUMNS = (
    "comparison",
    "case",
    "median_s",
    "q1_s",
    "q3_s",
    "repeats",
    "timer",
    "flop",
    "bytes",
    "gflop_per_s",
    "gb_per_s",
    "bound",
    "of_bound",
    "measure",
    "measured",
    "missing",
    "precision",
    "threads",
    "hardware",
    "versions",
    "commit",
    "date",
    "budget",
)


@dataclass(frozen=True)
class Device:
    """What a comparison ran on.

    Parameters
    ----------
    name : str
        For people, as in "AMD EPYC 7763, 2 cores".
    folder : str
        The folder under bench/results, as in "cpu-amd-epyc-7763-2-cores".
    """

    name: str
    folder: str


@dataclass(frozen=True)
class Budget:
    """How long to measure: ``warmup`` rounds, then rounds until both ``min_repeats`` and ``seconds`` are reached."""

    name: str
    warmup: int
    min_repeats: int
    seconds: float


QUICK = Budget("quick", warmup=1, min_repeats=5, seconds=2.0)
FULL = Budget("full", warmup=3, min_repeats=30, seconds=20.0)


@dataclass(frozen=True)
class Comparison:
    """A registered comparison; ``cases(full)`` makes its cases and ``device()`` says what they run on."""

    name: str
    title: str
    cases: Callable[[bool], Iterable[Case]]
    device: Callable[[], Device]


class Registry(dict[str, Comparison]):
    """The comparisons by name."""

    def comparison(
        self, name: str, title: str, device: Callable[[], Device] | None = None
    ) -> Callable[[Callable[[bool], Iterable[Case]]], Callable[[bool], Iterable[Case]]]:
        """Register the decorated function, which takes ``full`` and yields the cases, as a comparison.

        Parameters
        ----------
        name : str
            Lower-case letters, digits and hyphens; also the name of the CSV file and of the documentation's markers.
        title : str
            One sentence: what is compared.
        device : callable, optional
            Says what the cases run on; the CPU unless given.

        Returns
        -------
        callable
            A decorator that returns the function as it was.
        """
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name in ("all", "tables", "plots"):
            raise ValueError(
                f"name was {name!r}; it must be lower-case letters, digits, hyphens, not all, tables or plots"
            )
        if name in self:
            raise ValueError(f"there are two comparisons called {name!r}")

        def register(cases: Callable[[bool], Iterable[Case]]) -> Callable[[bool], Iterable[Case]]:
            self[name] = Comparison(name, title, cases, device or cpu_device)
            return cases

        return register

    def find(self, name: str) -> Comparison:
        """Return the comparison of that name.

        Raises
        ------
        BenchError
            There is none; the sentence names the nearest.
        """
        if name in self:
            return self[name]
        near = difflib.get_close_matches(name, self, n=1, cutoff=0.0)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BenchError(f"There is no comparison called {name!r}.{hint} `python -m bench` lists them all.")


REGISTRY = Registry()
comparison = REGISTRY.comparison


def load_comparisons() -> Registry:
    """Import every file of this folder, each of which registers what it compares, and return the registry."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name != "__main__":
            importlib.import_module(f"bench.{module.name}")
    return REGISTRY


def run_comparison(
    chosen: Comparison,
    budget: Budget = QUICK,
    results: Path = RESULTS,
    clock: Callable[[], float] = time.perf_counter,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Verify and time a comparison and write its CSV file anew.

    Parameters
    ----------
    chosen : Comparison
        What to run.
    budget : Budget, optional
        How long to measure; one that is called "full" also has the comparison make all its cases.
    results : path, optional
        The folder that holds a folder for each device; made where it does not exist.
    clock : callable, optional
        Seconds, for the budget.
    say : callable, optional
        Takes lines about progress.

    Returns
    -------
    path
        The CSV file.

    Raises
    ------
    BenchError
        A case failed its verification, or a bound is not there; nothing was timed and nothing was written.
    """
    device = chosen.device()
    cases = list(chosen.cases(budget.name == FULL.name))
    bounds = _resolve_bounds(chosen.name, cases)
    for i, case in enumerate(cases):
        if case.verify is None:
            continue
        say(f"{chosen.name}: verifying {case.label}")
        try:
            case.verify()
        except CannotRunError as error:
            cases[i] = replace(case, run=None, verify=None, missing=" ".join(str(error).split()))
        except AssertionError as error:
            reason = " ".join(str(error).split()) or "it gives no reason"
            raise BenchError(
                f"{chosen.name}: {case.label} failed its verification, so nothing was timed or written: {reason}"
            ) from error
    say(f"{chosen.name}: timing on {device.name}, at least {budget.min_repeats} repeats and {budget.seconds:g} s")
    times, numbers = measure([case for case in cases if case.missing is None], budget, clock)
    medians = {key: statistics.median(seconds) for key, seconds in times.items()}

    # What is asked of the process is asked now, when the libraries that the cases use are loaded.
    common = {
        "hardware": device.name,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "budget": budget.name,
    }
    rows = []
    for case, bound in zip(cases, bounds, strict=True):
        row = result_row(chosen.name, case, times.get(case.key, ()), numbers.get(case.key, ()), common)
        if isinstance(bound, Case):
            row["bound"] = bound.name
            if case.key in medians and bound.key in medians:
                row["of_bound"] = f"{medians[bound.key] / medians[case.key]:.4g}"
        rows.append(row)

    path = results / device.folder / f"{chosen.name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _to_csv(rows).encode())
    return path


def result_row(
    comparison_name: str,
    case: Case,
    seconds: Sequence[float],
    numbers: Sequence[float],
    common: Mapping[str, str],
) -> dict[str, str]:
    """Make a case's row: what it is, what the clock said, and what part of its roof it reaches, where it has one.

    Parameters
    ----------
    comparison_name : str
        The column "comparison".
    case : Case
        Timed, or missing.
    seconds, numbers : sequences of float
        Of each run; empty where it was not timed or does not measure.
    common : mapping
        The columns that all rows share: hardware, commit, date, budget.
    """
    row = {"comparison": comparison_name, "case": case.name, "missing": case.missing or ""}
    row |= {key: str(value) for key, value in case.params.items()}
    row |= {"precision": case.precision, **common, "threads": threads() if case.threads is None else str(case.threads)}
    row["versions"] = versions(() if case.missing else case.packages)
    if isinstance(case.bound, Roof):
        row["bound"] = case.bound.name
    for column, amount in (("flop", case.flop), ("bytes", case.bytes)):
        row[column] = "" if amount is None else f"{amount:.6g}"
    if seconds:
        row |= _measured(case, list(seconds))
        if case.measure is not None:
            row |= {"measure": case.measure, "measured": f"{statistics.median(numbers):.6g}"}
        if isinstance(case.bound, Roof):
            part = case.bound.seconds(case.flop, case.bytes) / statistics.median(seconds)
            row["of_bound"] = f"{part:.4g}"
    return row


def measure(
    cases: Sequence[Case], budget: Budget, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[Any, list[float]], dict[Any, list[float]]]:
    """Time the cases in turn; return, by the case's key, the seconds of each run and, where it measures, its number."""
    times: dict[Any, list[float]] = {case.key: [] for case in cases}
    numbers: dict[Any, list[float]] = {case.key: [] for case in cases}
    order = list(cases)
    shuffle = random.Random(0).shuffle  # the same orders each time: one cause less for two runs to differ
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection in the middle of a run would count as the case's own
    try:
        for _ in range(budget.warmup):
            for case in order:
                _time_once(case)
        start, repeats = clock(), 0
        while order and (repeats < budget.min_repeats or clock() - start < budget.seconds):
            shuffle(order)
            for case in order:
                seconds, returned = _time_once(case)
                times[case.key].append(seconds)
                if case.measure is not None:
                    numbers[case.key].append(returned)
            repeats += 1
    finally:
        if collecting:
            gc.enable()
    return times, numbers


def _time_once(case: Case) -> tuple[float, Any]:
    run = case.run
    assert run is not None
    inputs = () if case.setup is None else case.setup()
    returned: list[Any] = []
    if case.measure is not None:
        return case.timer(lambda: returned.append(run(*inputs))), returned[0]
    return case.timer(run if case.setup is None else lambda: run(*inputs)), None


def rested() -> tuple[()]:
    """Let the threads of the case before fall asleep: a ``setup`` for cases of more than one library's threads.

    The threads of OpenBLAS and of OpenMP wait for more work in busy loops, OpenBLAS's for some 110 ms: on the cores of
    whoever comes next, whose steps then took up to three times as long.
    """
    time.sleep(0.25)
    return ()


def settled(run: Callable[[], object]) -> Callable[[], tuple[()]]:
    """Make a ``setup`` for a case that in use runs again and again: ``rested``, and then untimed runs for a while.

    A thread that has slept may wake on the core of the one that waits for it, until the system moves it.
    """

    def setup() -> tuple[()]:
        rested()
        until = time.perf_counter() + 0.1
        run()
        while time.perf_counter() < until:
            run()
        return ()

    return setup


def _measured(case: Case, seconds: list[float]) -> dict[str, str]:
    """Return the columns that come from the clock."""
    q1, median, q3 = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    row = {
        "median_s": f"{median:.6g}",
        "q1_s": f"{q1:.6g}",
        "q3_s": f"{q3:.6g}",
        "repeats": str(len(seconds)),
        "timer": case.timer.name,
    }
    for column, amount in (("gflop_per_s", case.flop), ("gb_per_s", case.bytes)):
        row[column] = "" if amount is None else f"{amount / median * 1e-9:.6g}"
    return row


def _resolve_bounds(name: str, cases: Sequence[Case]) -> list[Case | Roof | None]:
    """Check that the cases differ, and find for each the case or the roof that bounds it."""
    if not cases:
        raise BenchError(f"{name}: the comparison has no cases")
    by_key: dict[Any, Case] = {}
    for case in cases:
        if case.key in by_key:
            raise BenchError(f"{name}: there are two cases {case.label}")
        by_key[case.key] = case
    bounds: list[Case | Roof | None] = []
    for case in cases:
        if not isinstance(case.bound, str):
            bounds.append(case.bound)
            continue
        same = by_key.get((case.bound, case.key[1]))
        namesakes = [other for other in cases if other.name == case.bound]
        if same is None and len(namesakes) != 1:
            many = "no case is called so" if not namesakes else "several are called so, none with the same parameters"
            raise BenchError(f"{name}: {case.label} is to be bounded by the case {case.bound!r}, but {many}")
        bounds.append(same or namesakes[0])
    return bounds


def cpu_device() -> Device:
    """Name this machine's processor and the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # What is left out would only make one processor's folder differ from another system's name of it.
    model = re.sub(r"\((R|TM|tm)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*", " ", _cpu_model())
    model = " ".join(model.split())
    if not re.search(r"\d", model):
        # Some virtual machines leave out the number, and with it the generation.
        model = f"{model} ({importlib.import_module('llvmlite.binding').get_host_cpu_name()})"
    count = f"{cores} core" + ("s" if cores != 1 else "")
    return Device(f"{model}, {count}", f"cpu-{slug(model)}-{slug(count)}")


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    if sys.platform == "darwin":
        question = ["sysctl", "-n", "machdep.cpu.brand_string"]
        asked = subprocess.run(question, capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine() or "unknown processor"


def slug(text: str) -> str:
    """Return ``text`` as lower-case words joined by hyphens, for the name of a folder."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def threads() -> str:
    """Say how many threads the loaded BLAS libraries and Numba use, as in "openblas 2, numba 2"."""
    counts: dict[str, int] = {}
    for library in threadpoolctl.threadpool_info():
        counts[library["internal_api"]] = max(library["num_threads"], counts.get(library["internal_api"], 0))
    if "numba" in sys.modules:
        counts["numba"] = sys.modules["numba"].get_num_threads()
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "1"


def versions(packages: Iterable[str] = ()) -> str:
    """Name the versions of Python, of what fastgan computes with, of the loaded BLAS libraries, and of ``packages``."""
    named = {"Python": platform.python_version(), "fastgan": fastgan.__version__}
    for package in ("numpy", "scipy", "numba", *packages):
        named[package] = importlib.metadata.version(package)
    for library in threadpoolctl.threadpool_info():
        if library.get("user_api") == "blas" and library.get("version"):
            named[library["internal_api"]] = f"{library['version']} {library.get('architecture', '')}".strip()
    return ", ".join(f"{name} {version}" for name, version in named.items())


def commit(root: Path = ROOT) -> str:
    """Return the commit that is checked out, with "-dirty" where files differ; results themselves do not count."""
    # Reading the status would else refresh the index, and so be in the way of another git at work.
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str | None:
        try:
            asked = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, env=environment
            )
        except FileNotFoundError:  # there is no git
            return None
        return asked.stdout.strip() if asked.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "not a git checkout"
    changed = git("status", "--porcelain", "--", ".", ":(exclude)bench/results", ":(exclude)docs/results.md")
    return f"{head}-dirty" if changed else head


def _to_csv(rows: Sequence[Mapping[str, str]]) -> str:
    params = dict.fromkeys(key for row in rows for key in row if key not in COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS[:2], *params, *COLUMNS[2:]], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


MARKED = re.compile(r"(<!-- bench:(?P<name>[^ ]+) -->\n).*?(<!-- /bench:(?P=name) -->)", re.DOTALL)
OPENING = re.compile(r"<!-- /?bench:([^ ]+) -->")


def fill_tables(document: str, results: Path = RESULTS) -> str:
    """Return ``document`` with the text between each pair of markers replaced by the tables of that comparison.

    The markers are ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``, each on a line of its own.

    Raises
    ------
    BenchError
        A marker has no partner.
    """
    paired = [match["name"] for match in MARKED.finditer(document)]
    found = OPENING.findall(document)
    if len(found) != 2 * len(paired):
        alone = sorted({name for name in found if found.count(name) != 2 * paired.count(name)})
        raise BenchError(
            f"The marker bench:{alone[0]} has no partner: it takes a line <!-- bench:{alone[0]} --> and, below, "
            f"a line <!-- /bench:{alone[0]} -->."
        )
    return MARKED.sub(lambda match: f"{match[1]}{tables_of(match['name'], results)}{match[3]}", document)


def tables_of(name: str, results: Path = RESULTS) -> str:
    """Return a comparison's results as Markdown: for each device a caption and a table."""
    files = sorted(results.glob(f"*/{name}.csv"))
    if not files:
        if name.startswith("gpu-"):
            return "\nNot measured on a device yet: `make gpu-check` does it.\n\n"
        return f"\nNot measured yet: `python -m bench {name} --full` does it.\n\n"
    return "\n" + "\n".join(table_of(file) for file in files) + "\n"


def table_of(path: Path) -> str:
    """Return one CSV file as a caption, which says what all rows share, and a Markdown table."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    params = [key for key in rows[0] if key not in COLUMNS]
    measured = [row for row in rows if not row["missing"]] or rows

    # What differs from row to row is a column; what does not is said once, above.
    columns = {"case": [row["case"] for row in rows]} | {key: [row[key] for row in rows] for key in params}
    caption = [f"**{rows[0]['hardware']}**"]
    for key in ("precision", "threads"):
        values = {row[key] for row in measured}
        if len(values) > 1:
            columns[key] = ["" if row["missing"] else row[key] for row in rows]
        elif value := values.pop():
            caption.append(value if key == "precision" else f"threads: {value}")
    caption.append(", ".join(dict.fromkeys(part for row in measured for part in row["versions"].split(", "))))
    caption += [f"commit {rows[0]['commit']}", f"{rows[0]['date']} ({rows[0]['budget']})"]

    for title in dict.fromkeys(row["measure"] for row in rows if row["measure"]):
        columns[title] = [in_four_digits(row["measured"]) if row["measure"] == title else "" for row in rows]
    columns["median"] = [row["missing"] or in_unit(row["median_s"], row["median_s"]) for row in rows]
    columns["quartiles"] = [_quartiles(row) for row in rows]
    for key, title in (("gflop_per_s", "GFLOP/s"), ("gb_per_s", "GB/s")):
        columns[title] = [in_four_digits(row[key]) if row[key] else "" for row in rows]
    columns["of the bound"] = [
        f"{float(row['of_bound']):.0%} of {row['bound']}" if row["of_bound"] else "" for row in rows
    ]
    columns = {title: cells for title, cells in columns.items() if any(cells)}

    rule = ["---" if title in ("case", *params) else "---:" for title in columns]
    lines = [_line(columns), _line(rule), *(_line(cells) for cells in zip(*columns.values(), strict=True))]
    return "\n".join([" · ".join(caption), "", *lines, ""])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _quartiles(row: dict[str, str]) -> str:
    if row["missing"]:
        return ""
    low, high = (in_unit(row[key], row["median_s"]) for key in ("q1_s", "q3_s"))
    return f"{low.split()[0]} to {high}"


def in_four_digits(number: str) -> str:
    """Return a number with four digits that say something, and never with an exponent: 269,000 or 0.01234."""
    value = float(f"{float(number):.4g}")
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def in_unit(seconds: str, like: str) -> str:
    """Return ``seconds`` with three digits in the unit (s, ms, µs or ns) that suits ``like``."""
    scale, unit = next((scale, unit) for scale, unit in UNITS if float(like) >= scale or unit == "ns")
    value = float(seconds) / scale
    # Three digits, but never in the form 1.2e+03.
    return f"{value:.{max(0, 2 - math.floor(math.log10(value))) if 0 < value < 100 else 0}f} {unit}"


UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
