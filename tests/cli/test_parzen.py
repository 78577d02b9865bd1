import json

import numpy as np
import pytest

from fastgan import datasets, scoring
from tests.runs_for_tests import invoke

FEW = ("--num-samples", "50")


def test_the_score_is_the_librarys(runs, run):
    score = scoring.parzen(run.generator.sample(50, seed=2), "digits")
    result = invoke("parzen", *FEW, "--seed", "2")
    assert result.stdout == (
        f"{score.log_likelihood:.2f} ± {score.standard_error:.2f} nats: digits test data under 50 samples, "
        f"sigma {score.sigma:.4g}\n"
    )
    assert result.stderr == "0 s with cpu\n"
    assert invoke("parzen", *FEW, "--seed", "2", "--quiet").stderr == ""


def test_the_paper_draws_ten_thousand_and_so_does_the_command(runs, monkeypatch):
    seen = []

    def count(samples, *_, **__):
        seen.append(len(samples))
        return scoring.ParzenScore("digits", "test", len(samples), 0.2, None, None, 1.0, 0.1, "reference", 1.0)

    monkeypatch.setattr(scoring, "parzen", count)
    invoke("parzen")
    assert seen == [10000]


def rows_of(output):
    header, *rows, result = output.splitlines()
    assert header.split() == ["sigma", "validation", "nats"]
    assert "nats: digits test data under 50 samples" in result
    return [row.split() for row in rows]


def test_every_row_of_the_grid_is_printed(runs, run):
    rows = rows_of(invoke("parzen", "--sigma-grid", *FEW).stdout)
    score = scoring.parzen(run.generator.sample(50), "digits")
    assert [row[0] for row in rows] == [f"{sigma:.4g}" for sigma in scoring.sigma_grid()]
    assert [row[1] for row in rows] == [f"{nats:.2f}" for nats in score.validation_log_likelihood]
    assert [row[0] for row in rows if row[2:] == ["chosen"]] == [f"{score.sigma:.4g}"]


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
        "log_likelihood", "standard_error", "backend", "seconds",
    ]  # fmt: skip
    assert (fields["dataset"], fields["split"], fields["num_samples"], fields["backend"]) == (
        "digits",
        "test",
        50,
        "cpu",
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


def test_samples_that_are_not_there_are_refused(tmp_path):
    stderr = invoke("parzen", "--samples", tmp_path / "none.npy", "--dataset", "digits", code=1).stderr
    assert "none.npy does not exist" in stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--sigma", "0.2", "--sigma-grid"), "--sigma and --sigma-grid exclude each other"),
        (("--sigma", "0.2", "--sigma-range", "0.1", "1", "3"), "--sigma and --sigma-range exclude each other"),
        (("--sigma", "0"), "'--sigma'"),
        (("--sigma", "-1"), "'--sigma'"),
        (("--sigma", "nan"), "'--sigma'"),
        (("--sigma", "inf"), "'--sigma'"),
        (("--sigma", "1e-200"), "'--sigma': sigma is 1e-200; it must lie between"),
        (("--sigma-range", "1", "0.1", "3"), "'--sigma-range'"),
        (("--sigma-range", "nan", "1", "3"), "'--sigma-range'"),
        (("--sigma-range", "0.1", "1", "0"), "count >= 1"),
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


def test_a_backend_that_is_not_here_exits_with_1(runs):
    assert "no cupy kernels yet; use --backend auto" in invoke("parzen", *FEW, "--backend", "cupy", code=1).stderr
