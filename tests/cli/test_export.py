import numpy as np
import pytest

import fastgan
from tests.runs_for_tests import TINY, invoke


def images_in_plain_numpy(path, z):
    """What the command's help says, and nothing of fastgan."""
    with np.load(path, allow_pickle=False) as G:
        f = {"identity": lambda a: a, "relu": lambda a: np.maximum(a, 0), "sigmoid": lambda a: 1 / (1 + np.exp(-a))}
        for i, name in enumerate(G["activations"]):
            z = f[str(name)](z @ G[f"W{i}"] + G[f"b{i}"])
        return z.reshape(-1, *G["image_shape"])


def test_plain_numpy_draws_what_the_run_draws(runs, run, tmp_path):
    out = tmp_path / "G.npz"
    assert invoke("export", "--out", out).stdout == f"{out}\n"
    z = run.generator.sample_noise(20, seed=1)
    images = images_in_plain_numpy(out, z)
    assert images.shape == (20, 1, 8, 8)
    np.testing.assert_allclose(images.reshape(20, 64), run.generator.generate(z), rtol=0, atol=1e-6)


def test_the_layout_is_the_one_that_is_documented(runs, run, tmp_path):
    invoke("export", "2", "--out", tmp_path / "G.npz")
    with np.load(tmp_path / "G.npz", allow_pickle=False) as G:
        assert set(G) == {"W0", "b0", "W1", "b1", "W2", "b2", "activations", "noise", "image_shape"}
        assert [G[f"W{i}"].shape for i in range(3)] == [(5, 12), (12, 10), (10, 64)]
        assert [G[f"b{i}"].shape for i in range(3)] == [(12,), (10,), (64,)]
        assert all(G[f"{kind}{i}"].dtype == np.float32 for i in range(3) for kind in "Wb")
        assert list(G["activations"]) == ["relu", "relu", "sigmoid"]
        assert str(G["noise"]) == "uniform"
        assert list(G["image_shape"]) == [1, 8, 8]
        np.testing.assert_array_equal(G["W1"], run.loaded.arrays["generator/1/W"])


def test_only_npz_will_do(runs, tmp_path):
    assert "must end in .npz" in invoke("export", "--out", tmp_path / "G.h5", code=2).stderr


@pytest.mark.parametrize("place", ["none/G.npz", "folder.npz"])
def test_a_place_that_cannot_be_written_is_said_first(place, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    # Before a run is looked for: there is none.
    stderr = invoke("export", "--out", tmp_path / place, code=1).stderr
    assert "does not exist; make it first" in stderr or "is a folder; give the name of a file in it" in stderr


def test_a_generator_of_maxout_layers_has_no_such_file(tmp_path):
    layers = [{"layer": "maxout", "num_units": 3, "num_pieces": 2}, {"layer": "linear", "activation": "sigmoid"}]
    fastgan.train(TINY.replace({"generator": layers, "steps": 1}), run_dir=tmp_path / "run")
    stderr = invoke("export", tmp_path / "run", "--out", tmp_path / "G.npz", code=1).stderr
    assert "Layer 0 of the generator" in stderr
    assert not (tmp_path / "G.npz").exists()
