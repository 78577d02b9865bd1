import sys

import numpy as np
import pytest
from PIL import Image

from fastgan import game, theory
from fastgan.errors import BackendError
from tests.runs_for_tests import invoke


@pytest.fixture(scope="module")
def played():
    return game.play(seed=0, moments=(0, 10, 60, 200))


def test_the_criterion_falls_towards_minus_log_4(played):
    assert played.updates[0] == 0
    assert played.updates[-1] == 200
    assert played.criteria[0] > -0.5
    assert played.criteria[-1] == pytest.approx(theory.LEAST_CRITERION, abs=0.15)
    # No p_g is below the least, and no D above the optimal one.
    assert min(played.criteria) >= theory.LEAST_CRITERION - 1e-9
    assert all(value <= criterion for value, criterion in zip(played.values, played.criteria, strict=True))


def test_densities_integrate_to_1_and_D_comes_near_D_star(played):
    assert played.p_data.sum() * played.spacing == pytest.approx(1, abs=1e-3)
    assert [moment.update for moment in played.moments] == [0, 10, 60, 200]
    for moment in played.moments:
        assert moment.p_g.sum() * played.spacing == pytest.approx(1, abs=1e-3)
    last = played.moments[-1]
    likely = (played.p_data > 0.3) & (last.p_g > 0.3)
    assert likely.sum() > 50
    optimal = theory.optimal_discriminator(played.p_data, last.p_g)
    assert np.abs(last.D - optimal)[likely].max() < 0.2


def test_a_game_is_a_function_of_its_seed():
    one, same, other = (game.play(seed=seed, moments=(0, 3)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.moments[1].D, same.moments[1].D)
    assert (one.moments[1].D != other.moments[1].D).any()


def test_the_picture(played):
    pytest.importorskip("matplotlib")
    import io

    with Image.open(io.BytesIO(game.plot(played))) as picture:
        assert picture.size[0] > 1200
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


def test_the_command(tmp_path, monkeypatch, played):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(game, "play", lambda *_, **__: played)
    result = invoke("figure", "1", "--out", tmp_path / "figure1.png")
    assert result.stdout == f"{tmp_path / 'figure1.png'}\n"
    assert (tmp_path / "figure1.png").read_bytes() == game.plot(played)
    assert "must end in .png" in invoke("figure", "1", "--out", tmp_path / "f.jpg", code=2).stderr


def test_without_matplotlib_nothing_is_played(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(game, "play", lambda *_, **__: pytest.fail("it was played"))
    said = invoke("figure", "1", "--out", tmp_path / "figure1.png", code=1).stderr
    assert "pip install matplotlib" in said
    with pytest.raises(BackendError):
        game.plot(None)
