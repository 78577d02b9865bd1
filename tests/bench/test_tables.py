import pytest
from click.testing import CliRunner

from bench import __main__ as command
from bench import harness
from bench.harness import BenchError, Budget, Case, Comparison, Device

DOCUMENT = """# Results

Before.

<!-- bench:probe -->
old
<!-- /bench:probe -->

Between.

<!-- bench:other -->
<!-- /bench:other -->
After.
"""


def accept():
    """Verify nothing: these tests are about the tables."""


def write(results, *cases, name="probe", device="A, 2 cores", folder="cpu-a"):
    comparison = Comparison(name, "A title.", lambda full: cases, lambda: Device(device, folder))
    return harness.run_comparison(comparison, Budget("quick", 0, 1, 0.0), results)


def one(name="fastgan", **options):
    return Case(name, run=accept, verify=accept, timer=Steady(), **options)


class Steady:
    """A timer for which everything takes two milliseconds."""

    name = "steady"

    def __call__(self, run):
        return 0.002


def test_filling_keeps_the_text_and_is_stable(tmp_path):
    write(tmp_path, one(params={"B": 3}))
    write(tmp_path, one(params={"B": 4}), device="Z, 8 cores", folder="cpu-z")
    filled = harness.fill_tables(DOCUMENT, tmp_path)
    assert filled.startswith("# Results\n\nBefore.\n\n<!-- bench:probe -->\n")
    assert "old" not in filled
    assert filled.index("**A, 2 cores**") < filled.index("| fastgan | 3 | 2.00 ms |") < filled.index("**Z, 8 cores**")
    assert "| fastgan | 4 | 2.00 ms | 2.00 to 2.00 ms |\n" in filled
    assert "\n\nBetween.\n" in filled
    assert "Not measured yet: `python -m bench other --full` does it." in filled
    assert filled.endswith("<!-- /bench:other -->\nAfter.\n")
    assert harness.fill_tables(filled, tmp_path) == filled


def test_what_all_rows_share_is_said_once_and_the_rest_has_columns(tmp_path):
    path = write(
        tmp_path,
        one("exact", precision="float32", threads=2),
        one("loose", precision="tf32", threads=2, bound="exact", flop=2e9),
        Case("a|b", missing="not installed"),
    )
    caption, _, header, rule, *rows = harness.table_of(path).splitlines()
    assert caption.startswith("**A, 2 cores** · threads: 2 · Python 3.")
    assert "float32" not in caption
    assert header == "| case | precision | median | quartiles | GFLOP/s | of the bound |"
    assert rule == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert rows == [
        "| exact | float32 | 2.00 ms | 2.00 to 2.00 ms |  |  |",
        "| loose | tf32 | 2.00 ms | 2.00 to 2.00 ms | 1,000 | 100% of exact |",
        "| a\\|b |  | not installed |  |  |  |",
    ]


@pytest.mark.parametrize(
    "document",
    [
        "<!-- bench:probe -->\n",
        "<!-- /bench:probe -->\n",
        "<!-- bench:probe -->\n<!-- /bench:prob -->\n",
        "<!-- bench:probe -->\n<!-- bench:probe -->\n<!-- /bench:probe -->\n",
    ],
)
def test_a_marker_without_its_partner_is_a_sentence(tmp_path, document):
    with pytest.raises(BenchError, match=r"The marker bench:probe? has no partner"):
        harness.fill_tables(document, tmp_path)


def bench(*arguments):
    return CliRunner().invoke(command.main, [str(argument) for argument in arguments])


def test_the_command_makes_and_checks_tables(tmp_path):
    page, results = tmp_path / "results.md", tmp_path / "results"
    options = ["--document", page, "--out", results]
    done = bench("tables", *options)
    assert done.exit_code == 1
    assert f"There is no {page}: make it" in done.stderr

    page.write_text(DOCUMENT)
    write(results, one())
    write(results, one(), name="hidden")
    done = bench("tables", "--check", *options)
    assert done.exit_code == 1
    assert "out of date" in done.stderr
    assert page.read_text() == DOCUMENT

    done = bench("tables", *options)
    assert done.exit_code == 0
    assert "no marker <!-- bench:hidden -->" in done.stderr
    assert page.read_text() == harness.fill_tables(DOCUMENT, results)
    assert bench("tables", "--check", *options).exit_code == 0


def test_the_tables_of_the_documentation_are_up_to_date():
    if not harness.DOCUMENT.exists() or not harness.RESULTS.exists():
        pytest.skip("the documentation's tables and their results are not part of this copy")
    done = bench("tables", "--check")
    assert done.exit_code == 0, done.stderr


@pytest.fixture
def probe(monkeypatch):
    registry = harness.Registry()
    registry.comparison("probe", "What is probed.", lambda: Device("A, 2 cores", "cpu-a"))(lambda full: [one()])
    monkeypatch.setattr(harness, "load_comparisons", lambda: registry)


@pytest.mark.usefixtures("probe")
def test_the_command_lists_runs_and_names_the_nearest(tmp_path):
    comparisons, parts = bench().stdout.split("\n\n")
    assert comparisons == "probe            What is probed."
    assert parts.startswith("On a GPU, by `python -m bench.gpu_check --parts NAME`")
    assert "\nlatency          What a launch costs, and every tiling of every product.\n" in parts
    assert bench("latency").stderr == (
        "Error: latency needs a GPU, and a command of its own: `python -m bench.gpu_check --parts latency`.\n"
    )

    done = bench("probe", "--out", tmp_path, "--min-repeats", 2, "--seconds", 0)
    assert done.exit_code == 0
    assert "| fastgan | 2.00 ms |" in done.stdout
    assert str(tmp_path / "cpu-a" / "probe.csv") in done.stdout
    assert "probe: verifying fastgan" in done.stderr

    done = bench("probe", "prope", "--out", tmp_path / "new")
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: There is no comparison called 'prope'. Did you mean probe? `python -m bench` lists them all.\n"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("probe")
def test_all_runs_all(tmp_path):
    assert bench("all", "--out", tmp_path, "--seconds", 0, "--full").exit_code == 0
    assert (tmp_path / "cpu-a" / "probe.csv").exists()


def test_every_file_registers_and_makes_its_cases():
    for comparison in harness.load_comparisons().values():
        assert list(comparison.cases(False)), comparison.name
