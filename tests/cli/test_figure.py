import numpy as np

from fastgan import datasets
from fastgan.figures import grid
from fastgan.kernels import nearest
from tests.runs_for_tests import invoke, pixels_of


def test_figure_2_is_four_rows_of_five_and_the_nearest_of_each_rows_last(runs, run, tmp_path):
    invoke("figure", "2", "--out", tmp_path / "2.png", "--seed", 6)
    invoke("sample", "--nearest", "--rows", 4, "--columns", 5, "--seed", 6, "--out", tmp_path / "same.png")
    assert (tmp_path / "2.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    samples = run.generator.sample(20, 6)
    training = datasets.load("digits").splits["train"].as_float32()
    neighbours = training[nearest.indices(samples[4::5].copy(), training)]
    pixels = pixels_of(tmp_path / "2.png")
    # The last column's tiles, without the frame around them.
    for row in range(4):
        tile = pixels[2 + 58 * row :][:56, -58:-2]
        np.testing.assert_array_equal(
            tile[:, :, 0], np.asarray(grid(neighbours[row : row + 1], (1, 8, 8), 1))[2:-2, 2:-2]
        )


def test_figure_3_is_what_interpolate_draws(runs, tmp_path):
    invoke("figure", "3", "00002-digits-seed4", "--out", tmp_path / "3.png", "--seed", 2)
    invoke("interpolate", "--seed", 2, "--out", tmp_path / "same.png")
    assert (tmp_path / "3.png").read_bytes() == (tmp_path / "same.png").read_bytes()


def test_faults_leave_nothing_behind(runs, run, tmp_path, monkeypatch):
    assert "no run 'nine'" in invoke("figure", "2", "nine", "--out", tmp_path / "f.png", code=1).stderr
    assert "must end in .png" in invoke("figure", "3", "--out", tmp_path / "f.npy", code=2).stderr
    assert "No such command '4'" in invoke("figure", "4", code=2).stderr
    # Data that are not at hand.
    monkeypatch.setattr(datasets, "load", lambda *_, **__: invoke_missing())
    assert "given out by its owners" in invoke("figure", "2", "--out", tmp_path / "f.png", code=1).stderr
    assert not list(tmp_path.iterdir())


def invoke_missing():
    from fastgan.datasets.tfd import TfdDataset

    return TfdDataset().load("/nonexistent")
