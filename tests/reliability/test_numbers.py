import numpy as np
import pytest

import fastgan
from fastgan import checkpoint, datasets, training
from fastgan.checkpoint import FROZEN, LATEST, PREVIOUS
from fastgan.errors import DataError, NonFiniteError
from fastgan.kernels.common import backends
from fastgan.training import Callback
from tests.runs_for_tests import TINY, arrays_of, assert_same_bits

ALTERNATING = {"update": "alternating", "d_steps": 2, "batch_size": 119}
UPDATES = pytest.mark.parametrize("fields", [{}, ALTERNATING], ids=["simultaneous", "alternating"])


@pytest.fixture(autouse=True)
def _a_look_after_every_step(monkeypatch):
    # Less than a step of the emulator's takes, and of the host's; a GPU makes some more.
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LOOKS", 1e-4)


class Change(Callback):
    """Does something to the trainer before an update, the first that is seen from one on.

    Attributes
    ----------
    update : int
        That update.
    before : dict
        The trainer's arrays as it met them.
    """

    update = None

    def __init__(self, step, change):
        self.step, self.change = step, change

    def on_begin(self, path, trainer, last_step):
        self.trainer = trainer

    def on_progress(self, step):
        if self.update is None and step >= self.step:
            self.update = step
            self.change(self.trainer)
            self.before = self.trainer.arrays()


def put(trainer, array, value, place=...):
    """Write into an array wherever it lives."""
    changed = trainer.device.download(array)
    changed.reshape(-1)[place] = value
    trainer.device.overwrite(array, changed)


def spoil(network, layer, name, value, place=0):
    """Give a change: one element of a parameter or velocity, or with ``...`` all of them."""
    return lambda trainer: put(trainer, getattr(getattr(trainer, network).layers[layer], name), value, place)


def stopped(tmp_path, change, step=3, **fields):
    """Train until the NaN; give its sentence, the frozen state, and the callback."""
    callback = Change(step, change)
    # The emulator takes its time.
    few = {"batch_size": 20} if fields.get("backend") in backends.ON_A_GPU else {}
    config = TINY.replace({"epochs": 40, **fields, **few})
    with pytest.raises(NonFiniteError) as told:
        fastgan.train(config, run_dir=tmp_path / "run", callbacks=[callback])
    frozen = checkpoint.load(tmp_path / "run", "frozen")
    assert str(told.value).startswith(f"Update {callback.update} met a NaN or an infinity, ")
    assert frozen.arrays["state"][[0, 3]].tolist() == [callback.update, 1]
    return str(told.value), frozen, callback


def non_finite_names(arrays):
    return [name for name, array in arrays.items() if not np.isfinite(array.astype(np.float64)).all()]


@UPDATES
@pytest.mark.parametrize("norm", [None, 2.0], ids=["free", "column norm"])
def test_a_gradient_that_overflows_stops_the_run_at_its_own_update(tmp_path, backend, fields, norm):
    # Finite weights and activations, and so a finite loss, with a step beyond float32: D's last layer gets inputs of
    # 1e38 with weights of 0, so that the logit is its bias, and a rate of 1e9.
    def overflow(trainer):
        hidden, last = trainer.discriminator.layers[1:]
        put(trainer, hidden.b, 1e38)
        put(trainer, last.W, 0)
        put(trainer, trainer.state.learning_rate, 1e9)

    fields = {**fields, "backend": backend, "discriminator.2.max_col_norm": norm}
    message, frozen, _ = stopped(tmp_path, overflow, **fields)
    assert "first in the gradient of discriminator/2/W" in message
    assert "kept in frozen.h5" in message
    # The flag came with the first bad gradient: no other parameter's update was made after it.
    bad = non_finite_names(frozen.arrays)
    assert "discriminator/2/vW" in bad
    # The report's sums go on, and show it.
    assert set(bad) <= {"discriminator/2/vW", "discriminator/2/W", "sums"}


@UPDATES
def test_a_gradient_that_overflows_on_its_way_back_is_named_where_it_began(tmp_path, backend, fields):
    # All of D's activations are 0, and with them its logit; its weights are finite, and no unit gradient survives them.
    def overflow(trainer):
        for layer, W in zip(trainer.discriminator.layers, (0, 3e38, 3e38), strict=True):
            put(trainer, layer.W, W)
            put(trainer, layer.b, 0)

    message, frozen, callback = stopped(tmp_path, overflow, **fields, backend=backend)
    # Steps that a GPU has repeated before the host looked in may hide the way there.
    hidden = ["the gradient of discriminator/1/W"] if backend in backends.ON_A_GPU else []
    assert any(f"first in {where}, " in message for where in ["the gradient that discriminator/2 handed back", *hidden])
    bad = [name for name in non_finite_names(frozen.arrays) if name.endswith(("vW", "vb"))]
    if backend not in backends.ON_A_GPU:
        assert len(bad) == 1
    elif fields:
        # The updates of one backward pass go on beside each other; that of G would come after the next loss.
        assert {name.partition("/")[0] for name in bad} == {"discriminator"}
    # What was spoilt stays, and is told in the order of the gradients.
    with np.errstate(over="ignore", invalid="ignore"):
        callback.trainer.step()
    layer = 1 if backend in backends.ON_A_GPU else 0
    assert callback.trainer.first_non_finite() == f"the gradient of discriminator/{layer}/W"


@UPDATES
def test_a_velocity_that_no_loss_shows_stops_the_run_at_its_own_update(tmp_path, backend, fields):
    # The bias of a piece that can win no more: the losses stay finite.
    message, frozen, callback = stopped(tmp_path, spoil("discriminator", 1, "vb", -np.inf), **fields, backend=backend)
    assert "first in the gradient of discriminator/1/b, " in message
    assert non_finite_names(frozen.arrays) == ["discriminator/1/b", "discriminator/1/vb"]
    if fields:
        # G's update comes after the next loss.
        for name, array in frozen.arrays.items():
            assert not name.startswith("generator/") or (array == callback.before[name]).all()
    # However often the step is repeated before the host looks in.
    for _ in range(3):
        callback.trainer.step()
    assert callback.trainer.first_non_finite() == "the gradient of discriminator/1/b"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (spoil("generator", 1, "W", np.nan), "generator/1/W"),
        (spoil("generator", 2, "b", np.nan), "generator/2/b"),
        (spoil("discriminator", 1, "b", np.nan), "discriminator/1/b"),
        (spoil("discriminator", 1, "W", 3e38, ...), "the output of discriminator/1"),
    ],
)
def test_the_first_layer_and_tensor_are_named(tmp_path, backend, change, where):
    message, _, _ = stopped(tmp_path, change, backend=backend)
    assert f"first in {where}, " in message


@pytest.mark.parametrize(
    "change",
    [spoil("generator", 1, "W", np.nan), spoil("discriminator", 2, "vW", np.inf)],
    ids=["a loss", "a gradient"],
)
def test_the_state_stays_frozen_however_many_steps_follow(tmp_path, backend, change):
    _, frozen, callback = stopped(tmp_path, change, backend=backend)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(3):
            callback.trainer.step()
    now = callback.trainer.arrays()
    # The sums of the losses go on to be NaN; nothing that is trained moves.
    assert_same_bits(
        {name: array for name, array in now.items() if name != "sums"},
        {name: array for name, array in frozen.arrays.items() if name != "sums"},
    )


def test_the_frozen_state_lies_beside_and_the_run_goes_on_from_the_last_good_one(tmp_path):
    message, frozen, _ = stopped(tmp_path, spoil("generator", 0, "W", np.inf), step=4)
    path = tmp_path / "run"
    assert (path / FROZEN).read_bytes().startswith(b"fastgan frozen state: it holds a NaN")
    assert "cannot be resumed" in frozen.record["frozen"]
    assert "Updates made earlier in that step stand" in frozen.record["frozen"]
    good = checkpoint.load(path)
    assert checkpoint.check_finite(good.arrays) is None
    assert f"the checkpoint of step {good.arrays['state'][0]} in" in message
    assert not (path / PREVIOUS).exists()
    whole = fastgan.train(TINY.replace({"epochs": 40}), run_dir=tmp_path / "whole")
    assert_same_bits(arrays_of(fastgan.resume(path)), arrays_of(whole))


def test_a_frozen_state_that_cannot_be_written_hides_nothing(tmp_path, monkeypatch):
    real = checkpoint.save

    def save(folder, state, which="latest"):
        if which == "frozen":
            monkeypatch.setattr(checkpoint, "write_atomically", refuse)
        real(folder, state, which)

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", save)
    callback = Change(3, spoil("generator", 0, "W", np.nan))
    with pytest.raises(
        NonFiniteError, match=r"first in generator/0/W.*could not be kept \(Cannot write.*No space left"
    ):
        fastgan.train(TINY, run_dir=tmp_path / "run", callbacks=[callback])
    assert checkpoint.load(tmp_path / "run").arrays["state"][0] == 0


def test_a_real_divergence_names_its_update_whatever_the_looks(tmp_path, monkeypatch):
    # The digits at five times the rate and a momentum of 0.9 diverge by themselves at update 147, before rounding,
    # which differs between backends and machines, decides when.
    config = fastgan.preset("digits").replace(
        {"learning_rate": 0.5, "momentum": 0.9, "final_momentum": 0.9, "epochs": 200}
    )
    sentences = []
    for looks in (0.2, 0.01):
        monkeypatch.setattr(fastgan.training, "_SECONDS_BETWEEN_LOOKS", looks)
        with pytest.raises(NonFiniteError) as told:
            fastgan.train(config, run_dir=tmp_path / str(looks))
        sentences.append(str(told.value).split("; training stopped")[0])
        assert fastgan.load_run(tmp_path / str(looks)).step == 0
        assert (tmp_path / str(looks) / LATEST).exists()
    assert sentences[0] == sentences[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_data_with_a_nan_are_refused_at_load(tmp_path, value):
    images = np.full((20, 4), 0.5, np.float32)
    images[7, 2] = value
    np.save(tmp_path / "bad.npy", images)
    with pytest.raises(DataError, match=rf"bad.npy holds {value} in image 7; floats must be finite"):
        datasets.load(str(tmp_path / "bad.npy"))
