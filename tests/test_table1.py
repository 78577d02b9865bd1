import json

import numpy as np
import pytest

import fastgan
from fastgan import datasets, scoring, table1
from fastgan.datasets import registry
from fastgan.presets import preset
from tests.datasets.made_up import write_files
from tests.datasets.test_tfd import ARRAYS, FILE, made_up, mat
from tests.runs_for_tests import TINY, invoke

NARROW_TFD = {
    "generator.0.num_units": 6, "generator.1.num_units": 6, "generator.2.sparse_init": 3,
    "discriminator.0.num_units": 4, "discriminator.1.num_units": 4, "steps": 2, "batch_size": 5, "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return fastgan.train(TINY, run_dir=tmp_path_factory.mktemp("table1") / "mine")


@pytest.fixture
def tfd(tmp_path, monkeypatch):
    """A run on a TFD of 40 images, the registry's for the length of a test."""
    monkeypatch.setitem(registry.REGISTRY, "tfd", made_up())
    write_files(tmp_path / "tfd", {FILE: mat(ARRAYS)})
    config = preset("tfd").replace({**NARROW_TFD, "data_dir": str(tmp_path)})
    return fastgan.train(config, run_dir=tmp_path / "faces")


def test_the_papers_rows():
    table = table1.make_table([])
    assert table.columns == ("mnist", "tfd")
    assert [table.line(row) for row in table.rows] == [
        ["DBN", "138 ± 2", "1909 ± 66"],
        ["Stacked CAE", "121 ± 1.6", "2110 ± 50"],
        ["Deep GSN", "214 ± 1.1", "1890 ± 29"],
        ["Adversarial nets", "225 ± 2", "2057 ± 26"],
    ]


def test_a_run_and_its_baselines_are_what_parzen_gives(digits, monkeypatch):
    assert scoring.NUM_SAMPLES == 10_000
    monkeypatch.setattr(scoring, "NUM_SAMPLES", 500)
    cells = table1.score_run(digits)
    score = fastgan.parzen(digits.generator.sample(500), "digits", baselines=True)
    assert cells["mine"] == table1.Cell(score.log_likelihood, score.standard_error, (score.sigma,))
    assert [(name, cell.log_likelihood) for name, cell in list(cells.items())[1:]] == [
        (baseline.name, baseline.log_likelihood) for baseline in score.baselines
    ]


@pytest.mark.filterwarnings("ignore:The best sigma:fastgan.errors.FastganWarning")
def test_tfd_is_scored_on_five_folds_each_with_its_own_sigma(tfd, tmp_path, monkeypatch):
    # Fewer, as each of these has 2,304 pixels.
    monkeypatch.setattr(scoring, "NUM_SAMPLES", 200)
    cells = table1.score_run(tfd)
    samples = tfd.generator.sample(200)
    wanted = [
        scoring.parzen(samples, datasets.load("tfd", data_dir=tmp_path, fold=fold), baselines=True) for fold in range(5)
    ]
    own = cells["faces"]
    assert own.folds == tuple(score.log_likelihood for score in wanted)
    assert own.sigmas == tuple(score.sigma for score in wanted)
    assert len(set(own.folds)) == 5
    assert own.log_likelihood == pytest.approx(np.mean(own.folds))
    assert own.standard_error == pytest.approx(np.std(own.folds, ddof=1) / np.sqrt(5))
    assert cells["training images"].folds == tuple(score.baselines[0].log_likelihood for score in wanted)
    assert cells["k-means centroids"].folds == tuple(score.baselines[1].log_likelihood for score in wanted)


@pytest.mark.filterwarnings("ignore:The best sigma:fastgan.errors.FastganWarning")
def test_parzen_takes_a_fold(tfd, tmp_path):
    said = invoke("parzen", tfd.path, "--fold", 3, "--num-samples", 50, "--json", "-q").stdout
    fold = datasets.load("tfd", data_dir=tmp_path, fold=3)
    wanted = scoring.parzen(tfd.generator.sample(50), fold)
    assert json.loads(said[said.index("{") :])["log_likelihood"] == wanted.log_likelihood
    assert wanted.log_likelihood != scoring.parzen(tfd.generator.sample(50), tfd.load_dataset()).log_likelihood


def test_each_data_set_has_its_column_and_each_run_its_row():
    cell, real = table1.Cell(1.25, 0.5, (0.2,)), table1.Cell(9.0, 1.0, (0.1,))
    table = table1.make_table([
        ("tfd", "faces", {"x": cell, "training images": real}),
        ("digits", "mine | yours", {"y": cell}),
        ("tfd", "more", {"z": cell, "training images": real}),
    ])  # fmt: skip
    assert table.columns == ("mnist", "tfd", "digits")
    rows = [table.line(row) for row in table.rows][4:]
    assert rows == [
        ["faces", "–", "1.2 ± 0.5", "–"],
        ["mine | yours", "–", "–", "1.2 ± 0.5"],
        ["more", "–", "1.2 ± 0.5", "–"],
        ["training images", "–", "9.0 ± 1.0", "–"],
    ]
    # A name breaks no table.
    line = next(line for line in table.to_markdown().splitlines() if "mine" in line)
    assert line.count("|") == 5
    assert json.loads(json.dumps(table.to_json()))["rows"][4]["cells"]["tfd"]["sigmas"] == [0.2]


def test_a_file_of_ones_own_takes_no_column_of_the_papers(tmp_path):
    np.save(tmp_path / "mnist.npy", np.random.default_rng(0).random((400, 64), np.float32))
    config = TINY.replace({"dataset": str(tmp_path / "mnist.npy"), "batch_size": 20, "steps": 1})
    run = fastgan.train(config, run_dir=tmp_path / "run")
    assert table1.column_of(run) == "mnist, own file"


def test_the_command(digits, monkeypatch):
    monkeypatch.setattr(scoring, "NUM_SAMPLES", 200)
    text = invoke("table1", digits.path, "--no-baselines", "-q").stdout
    lines = text.splitlines()
    assert lines[0].split("  ")[0] == "Model"
    assert lines[0].rstrip().endswith("digits (not in the paper)")
    assert next(line for line in lines if line.startswith("mine")).count(" ± ") == 1
    assert "k-means" not in text
    markdown = invoke("table1", digits.path, "--markdown", "-q").stdout
    assert "| k-means centroids | – | – |" in markdown
    fields = json.loads(invoke("table1", digits.path, "--json", "--no-baselines", "-q").stdout)
    assert fields["columns"] == ["mnist", "tfd", "digits"]
    assert fields["rows"][-1]["kind"] == "run"


def test_faults_of_the_command(digits):
    assert "exclude each other" in invoke("table1", digits.path, "--json", "--markdown", code=2).stderr
    assert "Missing argument" in invoke("table1", code=2).stderr
    # The second name is looked at before the first run is scored.
    assert "no run 'nine'" in invoke("table1", digits.path, "nine", code=1).stderr
