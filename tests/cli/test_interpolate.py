import numpy as np
import pytest

from tests.runs_for_tests import invoke, pixels_of


def test_the_ends_of_a_line_are_samples(runs, run, tmp_path):
    out = tmp_path / "a.npy"
    result = invoke("interpolate", "--rows", "3", "--columns", "5", "--seed", "8", "--out", out)
    assert result.stdout == f"{out}\n"
    images = np.load(out, allow_pickle=False).reshape(3, 5, 64)
    samples = run.generator.sample(6, seed=8)
    np.testing.assert_allclose(images[:, 0], samples[0::2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(images[:, -1], samples[1::2], rtol=0, atol=1e-6)


def test_the_points_lie_evenly_on_straight_lines(runs, run, tmp_path):
    invoke("interpolate", "--rows", "1", "--columns", "4", "--out", tmp_path / "a.npy")
    z = run.generator.sample_noise(2, seed=0)
    t = np.linspace(0, 1, 4, dtype=np.float32)[:, None]
    wanted = run.generator.generate((1 - t) * z[0] + t * z[1])
    np.testing.assert_allclose(np.load(tmp_path / "a.npy").reshape(4, 64), wanted, rtol=0, atol=1e-6)


def test_the_picture_has_a_line_a_row(runs, tmp_path):
    sizes = []
    for rows, columns in ((6, 10), (2, 10), (6, 2)):
        invoke("interpolate", "--rows", rows, "--columns", columns, "--out", tmp_path / "a.png")
        sizes.append(pixels_of(tmp_path / "a.png").shape)
    assert sizes[0][1] == sizes[1][1] > sizes[2][1]
    assert sizes[0][0] == sizes[2][0] > sizes[1][0]
    invoke("interpolate", "--out", tmp_path / "b.png")
    assert pixels_of(tmp_path / "b.png").shape == sizes[0]


@pytest.mark.parametrize("arguments", [("--columns", "1"), ("--rows", "0"), ("--seed", "-1"), ("--out", "a.jpg")])
def test_what_the_command_line_alone_shows_to_be_wrong_exits_with_2(runs, arguments):
    assert arguments[0] in invoke("interpolate", "--out", "a.png", *arguments, code=2).stderr


def test_a_folder_that_is_not_there_is_said(runs, tmp_path):
    assert "does not exist; make it first" in invoke("interpolate", "--out", tmp_path / "no" / "a.png", code=1).stderr
