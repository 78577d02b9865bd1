import importlib
import importlib.util
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import fastgan
from fastgan import datasets, scoring
from fastgan.kernels.common import backends
from tests.runs_for_tests import invoke, pixels_of

# The package's own attribute of this name is the command.
parzen_command = importlib.import_module("fastgan.cli.parzen")

FEW = ("--num-samples", "50")


def test_the_score_is_the_librarys(runs, run):
    score = scoring.parzen(run.generator.sample(50, seed=2), "digits")
    result = invoke("parzen", *FEW, "--seed", "2")
    assert result.stdout == (
        f"{score.log_likelihood:.2f} ± {score.standard_error:.2f} nats: digits test data under 50 samples, "
        f"sigma {score.sigma:.4g}\n"
    )
    assert re.fullmatch(rf".*, step \d+: \d+ s with {backends.resolve()}\n", result.stderr)
    assert invoke("parzen", *FEW, "--seed", "2", "--quiet").stderr == ""


def test_the_paper_draws_ten_thousand_and_so_does_the_command(runs, monkeypatch):
    seen = []

    def count(samples, *_, **__):
        seen.append(len(samples))
        return scoring.ParzenScore("digits", "test", len(samples), 0.2, None, None, 1.0, 0.1, "reference", 1.0)

    monkeypatch.setattr(scoring, "parzen", count)
    invoke("parzen")
    assert seen == [10000]


def test_a_run_is_held_to_the_scale_of_the_data(run, runs, monkeypatch):
    digits = datasets.load("digits")
    splits = {name: datasets.Split(split.pixels, 16.0, None, contrast=55.0) for name, split in digits.splits.items()}
    data = datasets.Dataset("normalised", digits.image_shape, splits, "made up", {}, 300)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)
    score = scoring.parzen(datasets.normalise_contrast(run.generator.sample(50), 55.0), data, sigma=20.0)
    result = invoke("parzen", "--dataset", "normalised", "--sigma", "20", *FEW)
    assert result.stdout.startswith(f"{score.log_likelihood:.2f} ± {score.standard_error:.2f} nats: normalised ")
    monkeypatch.setattr("fastgan.runs.Run.contrast", property(lambda _: 55.0))
    monkeypatch.setattr(datasets, "load", lambda *_, **__: digits)
    stderr = invoke("parzen", "--dataset", "digits", *FEW, code=1).stderr
    assert (
        "The run draws images that are normalised in contrast and those of digits are not; score it against" in stderr
    )


@pytest.mark.parametrize(("option", "value"), [("--checkpoint", "best"), ("--runs", "elsewhere")])
def test_options_that_say_nothing_of_a_file_are_refused(tmp_path, option, value):
    np.save(tmp_path / "a.npy", np.zeros((4, 64), np.float32))
    stderr = invoke("parzen", "--samples", str(tmp_path / "a.npy"), "--dataset", "digits", option, value, code=2).stderr
    assert f"{option} and --samples exclude each other" in stderr


@pytest.mark.parametrize("name", ["f2$x^$.npy", "日本.npy", "f\udcff.npy", "a_{b}.npy"])
def test_a_plots_title_takes_any_name(tmp_path, name):
    images = np.random.default_rng(0).random((40, 9), np.float32)
    np.save(tmp_path / name, images)
    invoke(
        "parzen",
        "--samples",
        str(tmp_path / name),
        "--dataset",
        str(tmp_path / name),
        "--plot",
        str(tmp_path / "p.png"),
    )
    assert pixels_of(tmp_path / "p.png").std() > 0


def test_a_plot_that_cannot_be_written_takes_no_score_with_it(runs, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastgan.files.write_atomically", refuse)
    result = invoke("parzen", *FEW, "--plot", str(tmp_path / "p.png"), code=1)
    assert " nats: digits test data" in result.stdout
    assert "No space left on device" in result.stderr
    monkeypatch.setattr("os.access", lambda path, mode: False)
    result = invoke("parzen", *FEW, "--plot", str(tmp_path / "p.png"), code=1)
    assert result.stdout == ""
    assert "cannot be written; name another with --plot" in result.stderr


def test_a_file_of_images_is_normalised_as_the_data_were(tmp_path, monkeypatch):
    pixels = np.random.default_rng(2).integers(0, 256, (60, 3 * 4 * 4), dtype=np.uint8)
    parts = {"train": pixels[:30], "valid": pixels[30:45], "test": pixels[45:]}
    splits = {name: datasets.Split(rows, 255.0, None, contrast=55.0) for name, rows in parts.items()}
    data = datasets.Dataset("cifar10", (3, 4, 4), splits, "made up", {}, 15)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)
    monkeypatch.setattr(scoring, "check_size", lambda *_: None)
    score = scoring.parzen(splits["train"].as_float32(), data, sigma=20.0)
    images = pixels[:30].reshape(30, 3, 4, 4).transpose(0, 2, 3, 1)
    for name, saved in (("bytes.npy", images), ("floats.npy", (images / 255).astype(np.float32))):
        np.save(tmp_path / name, saved)
        result = invoke("parzen", "--samples", str(tmp_path / name), "--dataset", "cifar10", "--sigma", "20")
        assert result.stdout.startswith(f"{score.log_likelihood:.2f} ± {score.standard_error:.2f} nats: cifar10 ")


def rows_of(output):
    header, *rows, result = output.splitlines()
    assert header == "sigma     validation nats ± standard error"
    assert "nats: digits test data under 50 samples" in result
    return [row.split() for row in rows]


def test_every_row_of_the_grid_is_printed(runs, run):
    rows = rows_of(invoke("parzen", "--sigma-grid", *FEW).stdout)
    score = scoring.parzen(run.generator.sample(50), "digits")
    assert [row[0] for row in rows] == [f"{sigma:.4g}" for sigma in scoring.sigma_grid()]
    assert [row[1] for row in rows] == [f"{nats:.2f}" for nats in score.validation_log_likelihood]
    assert [row[2:4] for row in rows] == [["±", f"{error:.2f}"] for error in score.validation_standard_error]
    assert [row[0] for row in rows if row[4:] == ["chosen"]] == [f"{score.sigma:.4g}"]
    assert sum(len(row) == 4 for row in rows) == len(rows) - 1


def test_a_refined_sigma_has_a_row_of_its_own(runs, run):
    result = invoke("parzen", "--refine", *FEW)
    rows = rows_of(result.stdout)
    score = scoring.parzen(run.generator.sample(50), "digits", refine=True)
    assert len(rows) == 11
    assert [row for row in rows if len(row) > 4] == [
        [f"{score.sigma:.4g}", f"{max(score.refined_log_likelihood):.2f}", "±", rows_error(score), "chosen,", "refined"]
    ]
    assert [float(row[0]) for row in rows] == sorted(float(row[0]) for row in rows)
    fields = json.loads(invoke("parzen", "--refine", "--json", *FEW).stdout)
    assert fields["sigma"] == score.sigma
    assert fields["sigma"] in fields["refined_sigmas"]


def rows_error(score):
    return f"{score.refined_standard_error[score.refined_sigmas.index(score.sigma)]:.2f}"


def test_baselines_stand_below_the_score(runs, run):
    lines = invoke("parzen", "--baselines", *FEW).stdout.splitlines()
    score = scoring.parzen(run.generator.sample(50), "digits", baselines=True)
    assert "nats: digits test data under 50 samples" in lines[0]
    assert lines[1] == ""
    assert lines[2].split() == ["samples", "number", "sigma", "test", "nats", "±", "standard", "error"]
    rows = [("these", 50, score), *((row.name, row.num_samples, row) for row in score.baselines)]
    assert [name for name, _, _ in rows] == ["these", "training images", "k-means centroids"]
    for line, (name, number, row) in zip(lines[3:], rows, strict=True):
        assert line.startswith(name)
        assert line[len(name) :].split() == [
            str(number), f"{row.sigma:.4g}", f"{row.log_likelihood:.2f}", "±", f"{row.standard_error:.2f}",
        ]  # fmt: skip
    fields = json.loads(invoke("parzen", "--baselines", "--json", *FEW).stdout)
    assert [row["name"] for row in fields["baselines"]] == ["training images", "k-means centroids"]
    assert fields["baselines"][1]["log_likelihood"] == score.baselines[1].log_likelihood


def test_the_curve_is_drawn(runs, tmp_path):
    pytest.importorskip("matplotlib")
    invoke("parzen", "--plot", tmp_path / "curve.png", "--refine", *FEW)
    assert pixels_of(tmp_path / "curve.png").shape[:2] == (630, 960)


def test_a_plot_that_cannot_be_is_refused_before_any_work(runs, tmp_path, monkeypatch):
    def work(*_, **__):
        raise AssertionError("work was done")

    monkeypatch.setattr(scoring, "parzen", work)
    assert "'curve.pdf' must end in .png" in invoke("parzen", "--plot", "curve.pdf", code=2).stderr
    missing = tmp_path / "none" / "curve.png"
    assert "none of curve.png does not exist" in invoke("parzen", "--plot", missing, code=1).stderr
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in invoke("parzen", "--plot", tmp_path / "folder.png", code=1).stderr
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find_spec(name, *rest)
    )
    stderr = invoke("parzen", "--plot", tmp_path / "curve.png", code=1).stderr
    assert "A plot needs matplotlib, which is not installed: pip install matplotlib" in stderr
    assert not (tmp_path / "curve.png").exists()


def test_a_best_sigma_at_the_edge_is_a_warning_and_not_a_traceback(runs):
    result = invoke("parzen", "--sigma-range", "2", "3", "3", *FEW)
    assert result.stderr.startswith("Warning: The best sigma, 2, is the least of the grid")
    assert "2         " in result.stdout


def test_a_terminal_is_shown_a_bar_and_the_time_left():
    shown, now = [], iter([100.0, 130.0, 160.0])
    show = parzen_command._progress(SimpleNamespace(show=shown.append), clock=lambda: next(now))
    show(0, 600)
    show(300, 600)
    show(600, 600)
    assert shown == [
        "[........................] 0 of 600 images, 0 s left",
        "[############............] 300 of 600 images, 30 s left",
        "[########################] 600 of 600 images, 0 s left",
    ]


def test_a_range_of_ones_own_takes_the_grids_place(runs):
    rows = rows_of(invoke("parzen", "--sigma-range", "0.2", "0.8", "3", *FEW).stdout)
    assert [row[0] for row in rows] == ["0.2", "0.4", "0.8"]


def test_a_sigma_of_ones_own_needs_no_validation(runs, run):
    fields = json.loads(invoke("parzen", "--sigma", "0.3", "--json", *FEW).stdout)
    score = scoring.parzen(run.generator.sample(50), "digits", sigma=0.3)
    assert fields["log_likelihood"] == score.log_likelihood
    assert fields["sigma_grid"] is None
    assert fields["validation_log_likelihood"] is None


def test_json_is_one_object_of_known_fields(runs):
    result = invoke("parzen", "1", "--json", "--sigma-grid", *FEW)
    fields = json.loads(result.stdout)
    assert list(fields) == [
        "dataset", "split", "num_samples", "sigma", "sigma_grid", "validation_log_likelihood",
        "log_likelihood", "standard_error", "backend", "seconds", "validation_standard_error",
    ]  # fmt: skip
    assert (fields["dataset"], fields["split"], fields["num_samples"], fields["backend"]) == (
        "digits",
        "test",
        50,
        backends.resolve(),
    )
    assert len(fields["sigma_grid"]) == len(fields["validation_log_likelihood"]) == 10
    assert fields["sigma"] in fields["sigma_grid"]


def test_samples_of_any_model_are_scored(tmp_path):
    images = datasets.load("digits").splits["train"].as_float32()[:60]
    np.save(tmp_path / "mine.npy", images.reshape(60, 8, 8))
    fields = json.loads(
        invoke("parzen", "--samples", tmp_path / "mine.npy", "--dataset", "digits", "--json", "--sigma", "0.2").stdout
    )
    assert fields["num_samples"] == 60
    assert fields["log_likelihood"] == scoring.parzen(images, "digits", sigma=0.2).log_likelihood


def test_bytes_are_samples_too(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 64), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", samples=pixels)
    arguments = ("--dataset", "digits", "--json", "--sigma", "0.3")
    fields = json.loads(invoke("parzen", "--samples", tmp_path / "mine.npz", *arguments).stdout)
    wanted = scoring.parzen((pixels / np.float32(255)).astype(np.float32), "digits", sigma=0.3)
    assert fields["log_likelihood"] == wanted.log_likelihood


def test_samples_are_scored_against_a_file_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "data.npy", rng.random((100, 9), dtype=np.float32))
    np.save(tmp_path / "mine.npy", rng.random((20, 9), dtype=np.float32))
    result = invoke("parzen", "--samples", tmp_path / "mine.npy", "--dataset", tmp_path / "data.npy")
    assert "nats: data test data under 20 samples" in result.stdout


def test_a_run_is_scored_against_another_data_set_of_its_size(runs, tmp_path):
    np.save(tmp_path / "other.npy", np.random.default_rng(0).random((100, 64), dtype=np.float32))
    assert "nats: other test data" in invoke("parzen", *FEW, "--dataset", tmp_path / "other.npy").stdout
    np.save(tmp_path / "wide.npy", np.random.default_rng(0).random((100, 81), dtype=np.float32))
    stderr = invoke("parzen", *FEW, "--dataset", tmp_path / "wide.npy", code=1).stderr
    assert "A sample has 64 values and an image of wide has 81 pixels" in stderr


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((5, 63), np.float32), "A sample has 63 values and an image of digits has 64 pixels"),
        (np.full((5, 64), np.nan, np.float32), "holds nan in image 0"),
        (np.full((5, 64), 2, np.float32), "holds 2.0 in image 0"),
        (np.zeros((1, 64), np.float32), "at least two rows are needed"),
        (np.zeros((5, 64), np.int64), "holds values of type int64"),
    ],
)
def test_samples_that_do_not_serve_are_refused(tmp_path, array, sentence):
    np.save(tmp_path / "mine.npy", array)
    result = invoke("parzen", "--samples", tmp_path / "mine.npy", "--dataset", "digits", code=1)
    assert sentence in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["mine.npy", "mine.npz", "mine.h5"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n and more that is no array")
    stderr = invoke("parzen", "--samples", tmp_path / name, "--dataset", "digits", code=1).stderr
    assert f"{name} cannot be read as a {(tmp_path / name).suffix} file" in stderr


def test_a_run_may_be_scored_by_what_it_draws(runs, tmp_path, monkeypatch):
    # A generator with a linear output leaves [0, 1]; a file of such samples would be refused.
    seen = []

    def spy(*_, any_range, **__):
        seen.append(any_range)
        return scoring.ParzenScore("digits", "test", 50, 0.2, None, None, 1.0, 0.1, "reference", 1.0)

    monkeypatch.setattr(scoring, "parzen", spy)
    invoke("parzen", *FEW)
    np.save(tmp_path / "mine.npy", np.zeros((5, 64), np.float32))
    invoke("parzen", "--samples", tmp_path / "mine.npy", "--dataset", "digits")
    assert seen == [True, False]


def test_samples_that_are_not_there_are_refused(tmp_path):
    stderr = invoke("parzen", "--samples", tmp_path / "none.npy", "--dataset", "digits", code=1).stderr
    assert "none.npy does not exist" in stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--sigma", "0.2", "--sigma-grid"), "--sigma and --sigma-grid exclude each other"),
        (("--sigma", "0.2", "--sigma-range", "0.1", "1", "3"), "--sigma and --sigma-range exclude each other"),
        (("--sigma", "0.2", "--refine"), "--sigma and --refine exclude each other"),
        (("--sigma", "0.2", "--plot", "a.png"), "--sigma and --plot exclude each other"),
        (("--refine", "--sigma-range", "0.2", "0.2", "1"), "'--sigma-range': --refine searches between the neighbours"),
        (("--sigma", "0"), "'--sigma'"),
        (("--sigma", "-1"), "'--sigma'"),
        (("--sigma", "nan"), "'--sigma'"),
        (("--sigma", "inf"), "'--sigma'"),
        (("--sigma", "1e-200"), "'--sigma': sigma is 1e-200; it must lie between"),
        (("--sigma-range", "1", "0.1", "3"), "'--sigma-range'"),
        (("--sigma-range", "nan", "1", "3"), "'--sigma-range'"),
        (("--sigma-range", "0.1", "1", "0"), "count <= 10000"),
        (("--sigma-range", "0.1", "1"), "requires 3"),
        (("--num-samples", "1"), "--num-samples"),
        (("--samples", "a.npy"), "--samples needs --dataset"),
        (("1", "--samples", "a.npy", "--dataset", "digits"), "RUN and --samples exclude each other"),
        (("--samples", "a.npy", "--dataset", "digits", "--seed", "1"), "--seed and --samples exclude each other"),
        (("--samples", "a.npy", "--dataset", "digits", *FEW), "--num-samples and --samples exclude each other"),
        (("--dataset", "digitz"), 'did you mean "digits"?'),
        (("--backend", "cuda"), "--backend"),
    ],
)
def test_what_the_command_line_alone_shows_to_be_wrong_exits_with_2(runs, arguments, sentence):
    assert sentence in invoke("parzen", *arguments, code=2).stderr


def test_a_backend_that_is_not_here_exits_with_1(runs, no_cupy):
    assert (
        "CuPy is not installed (pip install 'cupy-cuda12x[ctk]'"
        in invoke("parzen", *FEW, "--backend", "cupy", code=1).stderr
    )


def test_a_runs_score_is_kept_beside_it_and_shown_in_its_report(runs, tmp_path):
    path = shutil.copytree(runs / "00002-digits-seed4", tmp_path / "copy")
    printed = json.loads(invoke("parzen", path, "--json").stdout)
    # What is tried beside the paper's protocol does not take its place.
    for trial in (("--num-samples", "50"), ("--seed", "5"), ("--sigma", "0.3"), ("--sigma-range", "0.1", "2", "3")):
        invoke("parzen", path, *trial)
    kept = json.loads((path / "score.json").read_text())
    assert kept["log_likelihood"] == printed["log_likelihood"]
    assert (kept["step"], kept["split"], kept["num_samples"]) == (10, "test", 10000)
    page = (path / "report.html").read_text()
    assert '<section class="score">' in page
    assert f"{printed['log_likelihood']:.2f}".replace("-", "−") in page
    # A run that goes on keeps showing it.
    fastgan.resume(path, {"epochs": 3})
    assert '<section class="score">' in (path / "report.html").read_text()


def test_a_score_that_cannot_be_kept_is_told_all_the_same(runs, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    path = shutil.copytree(runs / "00002-digits-seed4", tmp_path / "copy")
    monkeypatch.setattr("fastgan.runs.write_atomically", refuse)
    result = invoke("parzen", path)
    assert " nats: digits test data" in result.stdout
    assert f"Warning: Cannot write the score to the run's folder {path}: Read-only file system" in result.stderr


@pytest.mark.parametrize("content", ["{", "[1]", "null"])
def test_a_spoilt_score_stops_nothing_and_is_said(runs, tmp_path, content):
    path = shutil.copytree(runs / "00002-digits-seed4", tmp_path / "copy")
    (path / "score.json").write_text(content)
    fastgan.resume(path, {"epochs": 3})
    assert "cannot be read" in (path / "report.html").read_text()


def test_sizes_are_compared_before_anything_is_downloaded(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("fastgan.datasets.load", lambda *_, **__: pytest.fail("downloaded"))
    np.save(tmp_path / "mine.npy", np.zeros((20, 64), np.float32))
    for arguments in (("--samples", tmp_path / "mine.npy"), ("2",)):
        stderr = invoke("parzen", *arguments, "--dataset", "mnist", code=1).stderr
        assert "A sample has 64 values and an image of mnist has 784 pixels" in stderr
