import numpy as np
import pytest

import fastgan
from fastgan import checkpoint, pictures, preset
from fastgan.config import Config, LinearConfig
from fastgan.datasets import Dataset, Split
from fastgan.errors import ConfigError, RunError
from fastgan.kernels.common import backends
from fastgan.kernels.common.devices import device
from fastgan.networks import build_generator
from fastgan.presets import NAMES, preset_for
from fastgan.trainer import Trainer
from tests.kernels.differences import assert_gradient
from tests.plain import PlainTraining
from tests.runs_for_tests import invoke

# Every preset at widths that train in a blink, on images of 2 x 2 to 8 x 8: what else they are made of stays.
NARROW = {
    "mnist": {
        "generator.0.num_units": 15, "generator.1.num_units": 12,
        "discriminator.0.num_units": 9, "discriminator.1.num_units": 7,
    },
    "digits": {
        "generator.0.num_units": 13, "generator.1.num_units": 17,
        "discriminator.0.num_units": 7, "discriminator.1.num_units": 9,
    },
    "tfd": {
        "generator.0.num_units": 15, "generator.1.num_units": 12, "generator.2.num_units": 16,
        "generator.2.sparse_init": 4, "discriminator.0.num_units": 9, "discriminator.1.num_units": 7,
    },
    "tfd-stage2": {
        "generator.0.num_units": 11, "generator.1.num_units": 8, "generator.2.num_units": 15,
        "generator.3.num_units": 12, "generator.4.num_units": 16, "generator.4.sparse_init": 4,
        "discriminator.0.num_units": 9, "discriminator.1.num_units": 7,
    },
    "cifar10": {
        "generator.0.num_units": 15, "generator.1.num_units": 12, "generator.2.num_units": 12,
        "discriminator.0.num_units": 9, "discriminator.1.num_units": 7,
    },
    "cifar10-conv": {
        "generator.0.num_units": 12, "generator.1.num_units": 45,
        "generator.2.input_channels": 5, "generator.2.kernel_size": 4, "generator.2.stride": 2,
        "discriminator.0.num_channels": 3, "discriminator.0.kernel_size": 4, "discriminator.0.pad": 2,
        "discriminator.0.pool_size": 3,
        "discriminator.1.num_channels": 4, "discriminator.1.kernel_size": 3, "discriminator.1.pad": 1,
        "discriminator.1.pool_size": 2,
        "discriminator.2.num_channels": 5, "discriminator.2.kernel_size": 2, "discriminator.2.pad": 1,
        "discriminator.3.num_units": 6,
        # A brief step, as the emulator makes the convolutions slowly.
        "batch_size": 10,
    },
}  # fmt: skip
SHAPES = {"cifar10": (3, 2, 2), "cifar10-conv": (3, 8, 8)}


def wider(name):
    """Give weights to D wider than the recipes', through which a few steps, or a difference, would hardly reach G."""
    return {f"discriminator.{i}.irange": 0.4 for i in range(len(preset(name).discriminator))}


def narrow(name, **changes):
    shared = {"noise_dim": 8, "batch_size": 20, "threads": 1, "epochs": 2}
    return preset(name).replace({**shared, **NARROW[name], **changes})


def data(name):
    """Images like those of a preset's data set, but smaller, five batches of them."""
    rng = np.random.default_rng(5)
    shape = SHAPES.get(name, (1, 4, 4))
    contrast = 55.0 if name in SHAPES else None
    pixels = rng.integers(0, 256, (150, int(np.prod(shape))), dtype=np.uint8)
    splits = {split: Split(pixels[rows], 255.0, None, contrast) for split, rows in (
        ("train", slice(0, 5 * narrow(name).batch_size)), ("valid", slice(100, 120)), ("test", slice(120, 150)),
    )}  # fmt: skip
    return Dataset(name.split("-")[0], shape, splits, "made up", {}, 20)


def start(config, dataset, backend, dtype=np.float64):
    return Trainer(config, dataset, device(backend), 20, dtype)


@pytest.mark.parametrize("name", NARROW)
def test_each_preset_trains_as_the_plain_implementation_does(backend, name):
    config, dataset = narrow(name, **wider(name)), data(name)
    # A GPU's kernels compute in float32.
    single = backend in backends.ON_A_GPU
    trainer = start(config, dataset, backend, np.float32 if single else np.float64)
    first = trainer.arrays()
    generator, discriminator = (
        [[first[f"{of}/{i}/{name}"] for name in layer.PARAMETERS] for i, layer in enumerate(network.layers)]
        for of, network in (("generator", trainer.generator), ("discriminator", trainer.discriminator))
    )
    plain = PlainTraining(config, dataset, generator, discriminator)
    # Over the end of an epoch of five steps.
    for _ in range(8):
        trainer.step()
        plain.step()
    found = trainer.arrays()
    assert found["state"].view(np.int64)[0] == 8
    np.testing.assert_allclose(found["sums"], plain.sums, rtol=1e-3 if single else 1e-4)
    for of, layers in (("generator", plain.G), ("discriminator", plain.D)):
        for i, expected in enumerate(layers):
            for parameter, wanted in zip(("W", "b", "vW", "vb"), expected, strict=True):
                key = f"{of}/{i}/{parameter}"
                tolerance = {"rtol": 1e-3, "atol": 1e-4} if single else {"rtol": 2e-4, "atol": 2e-6}
                np.testing.assert_allclose(found[key], wanted, **tolerance, err_msg=key)
                assert parameter in ("vW", "vb") or (found[key] != first[key]).any()
    if name.startswith("tfd"):
        num_layers = len(config.generator)
        norms = [np.linalg.norm(found[f"generator/{i}/W"], axis=0) for i in range(num_layers)]
        assert all((norm <= 1.9365 + 1e-6).all() for norm in norms)
        # The sparse weights, of norm 2 on average, start above it: the norm is at work.
        assert (norms[-1] > 1.93).any()


@pytest.mark.parametrize("name", NARROW)
def test_gradients_of_each_preset(rng, name):
    # One step at rate 1 without momentum and column norms moves each parameter by minus its gradient.
    free = {
        f"{network}.{i}.max_col_norm": None
        for network in ("discriminator", "generator")
        for i, layer in enumerate(getattr(preset(name), network))
        if getattr(layer, "max_col_norm", None) is not None
    }
    config, dataset = narrow(name, momentum=0.0, learning_rate=1.0, **wider(name), **free), data(name)
    after = start(config, dataset, "reference")
    before = after.arrays()
    # Where dropout leaves a unit no input, its pieces would tie at biases of 0: a kink.
    for key in before:
        if key.startswith("discriminator") and key.endswith("/b"):
            before[key] = before[key] + rng.normal(0, 0.1, before[key].shape)
    after.load_arrays(before)
    after.step()
    moved = after.arrays()
    for player, loss in (("discriminator", 0), ("generator", 1)):
        names = [key for key in before if key.startswith(player) and key.endswith(("/W", "/b"))]
        changed = [before[key].copy() for key in names]

        def function(names=names, changed=changed, loss=loss):
            trainer = start(config, dataset, "reference")
            trainer.load_arrays({**before, **dict(zip(names, changed, strict=True))})
            trainer.step()
            return float(trainer.sums[loss])

        assert_gradient(
            function, changed, [before[key] - moved[key] for key in names], rng, relative=1e-5, epsilon=1e-7
        )


def test_sparse_weights_are_so_many_normal_ones_a_unit_in_random_places():
    config = Config(
        generator=(LinearConfig(num_units=40, activation="relu", sparse_init=7), LinearConfig(num_units=9)),
        noise_dim=60,
    )
    W = build_generator(config, 9, np.zeros(9), device("reference")).layers[0].W
    nonzero = W != 0
    np.testing.assert_array_equal(nonzero.sum(axis=0), 7)
    assert len({column.tobytes() for column in nonzero.T}) == 40
    # 280 normals in 60 rows.
    assert nonzero.sum(axis=1).max() < 15
    values = W[nonzero]
    assert abs(values.mean()) < 0.2
    assert abs(values.std() - 1) < 0.15
    again = build_generator(config, 9, np.zeros(9), device("reference")).layers[0].W
    np.testing.assert_array_equal(W, again)
    other = build_generator(config.replace({"seed": 1}), 9, np.zeros(9), device("reference")).layers[0].W
    assert ((other != 0) != nonzero).any()
    # A unit of as many weights as inputs has them all.
    full = config.replace({"generator.0.sparse_init": 60})
    assert (build_generator(full, 9, np.zeros(9), device("reference")).layers[0].W != 0).all()
    with pytest.raises(
        ConfigError, match=r"generator\.0\.sparse_init is 61 and the layer has 60 inputs; it must be 60 or less"
    ):
        build_generator(config.replace({"generator.0.sparse_init": 61}), 9, np.zeros(9), device("reference"))


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory):
    return fastgan.train(narrow("tfd", seed=1), dataset=data("tfd"), run_dir=tmp_path_factory.mktemp("tfd") / "first")


def test_stage_2_puts_its_front_before_the_whole_generator_of_stage_1(stage_1, tmp_path):
    config = narrow("tfd-stage2")
    run = fastgan.train(config.replace({"steps": 1, "learning_rate": 0.0, "min_learning_rate": 0.0}),
                        dataset=data("tfd"), run_dir=tmp_path / "second", init_from=stage_1.path)  # fmt: skip
    fresh = start(config, data("tfd"), "reference", np.float32).arrays()
    for layer in range(5):
        for name in "Wb":
            found = run.loaded.arrays[f"generator/{layer}/{name}"]
            new = fresh[f"generator/{layer}/{name}"]
            wanted = new if layer < 2 else stage_1.loaded.arrays[f"generator/{layer - 2}/{name}"]
            # But for the column norm, which an update at rate 0 applies all the same: it divides by 1e-7 more.
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=0)
            assert layer < 2 or name == "b" or not np.allclose(found, new, rtol=1e-3)
    # D, the velocities and the counts start anew.
    np.testing.assert_allclose(run.loaded.arrays["discriminator/0/W"], fresh["discriminator/0/W"], rtol=1e-4)
    assert not run.loaded.arrays["generator/2/vW"].any()
    assert run.step == 1
    assert checkpoint.load(run.path).record["origin"]["init_from"] == str(stage_1.path)


def test_stage_2_learns_and_resumes(stage_1, tmp_path):
    config = narrow("tfd-stage2", epochs=1, learning_rate=2.0, **wider("tfd-stage2"))
    run = fastgan.train(config, dataset=data("tfd"), run_dir=tmp_path / "second", init_from=stage_1.path)
    assert fastgan.training.resume(run.path, {"epochs": 2}, dataset=data("tfd")).step == 10
    for layer in range(2, 5):
        moved = run.loaded.arrays[f"generator/{layer}/W"] - stage_1.loaded.arrays[f"generator/{layer - 2}/W"]
        assert np.abs(moved).max() > 1e-4


def test_a_start_from_what_is_no_stage_1_run_is_refused(stage_1, tmp_path):
    second = fastgan.train(
        narrow("tfd-stage2", steps=1), dataset=data("tfd"), run_dir=tmp_path / "2", init_from=stage_1.path
    )
    digits = fastgan.train(preset("digits").replace({"steps": 1}), run_dir=tmp_path / "digits")
    wanted = r"the layers of tfd-stage2 after the first 2 are 8 → relu 15 → sigmoid 12 → sigmoid 16; name a run of"
    for source, found in ((second, "8 → relu 11 → "), (digits, "50 → relu 200 → relu 200 → sigmoid 64")):
        with pytest.raises(RunError, match=f"no run that this one can build on: its generator is {found}.*{wanted}"):
            fastgan.train(
                narrow("tfd-stage2"), dataset=data("tfd"), run_dir=tmp_path / "none", init_from=source.path
            )  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"tfd-stage2 puts 2 new layers before .* another run; name that run by --init"
    ):
        fastgan.train(narrow("tfd-stage2"), dataset=data("tfd"), run_dir=tmp_path / "none")
    with pytest.raises(RunError):
        fastgan.train(narrow("tfd-stage2"), dataset=data("tfd"), run_dir=tmp_path / "none", init_from=tmp_path)
    assert not (tmp_path / "none").exists()


def test_a_run_on_normalised_images_draws_and_is_scored(tmp_path):
    run = fastgan.train(narrow("cifar10", parzen_every=1), dataset=data("cifar10"), run_dir=tmp_path / "run")
    assert run.contrast == 55.0
    images = run.generator.sample(50)
    assert images.min() < 0
    assert np.isfinite(fastgan.parzen(images, data("cifar10"), sigma=1.0).log_likelihood)
    # Figure 2: the neighbours are those of the normalised images, and by the samples' greatest magnitude like those.
    samples, training = run.generator.sample(20), data("cifar10").splits["train"].as_float32()
    distances = ((samples[4::5, None] - training[None]) ** 2).sum(axis=2)
    tile = training[distances.argmin(axis=1)[0]] / np.abs(samples).max()
    wanted = np.rint(255 * np.clip((tile.astype(np.float64) + 1) / 2, 0, 1)).reshape(3, 2, 2).transpose(1, 2, 0)
    drawn = np.asarray(pictures.figure_2(run, data("cifar10")))
    # A pixel is drawn 28 wide.
    found = drawn[2:58:28, -58:-2:28].astype(float)
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize(
    ("name", "dataset", "message"),
    [
        (
            "mnist",
            "cifar10",
            r"layer \(activation sigmoid, bias marginals\) is made for pixels in \[0, 1\], and those of cifar10 are",
        ),
        ("cifar10", "digits", "output layer has 3072 units and an image of the data 64 pixels; use the data set's own"),
        ("tfd", "digits", "output layer has 2304 units and an image of the data 64 pixels"),
    ],
)
def test_a_preset_that_does_not_fit_the_data(name, dataset, message):
    loaded = data("cifar10") if dataset == "cifar10" else fastgan.datasets.load(dataset)
    with pytest.raises(ConfigError, match=message):
        Trainer(preset(name), loaded, device("reference"), 1)


def test_marginals_are_of_no_use_to_normalised_images():
    config = narrow("cifar10", **{"generator.2.bias": "marginals"})
    with pytest.raises(ConfigError, match=r"\(activation identity, bias marginals\) is made for pixels in \[0, 1\]"):
        Trainer(config, data("cifar10"), device("reference"), 1)


def test_presets_of_data_sets():
    assert set(NARROW) == set(NAMES)
    assert NAMES == ("digits", "mnist", "tfd", "tfd-stage2", "cifar10", "cifar10-conv")
    assert [preset_for(name) for name in ("tfd", "cifar10", "fashion-mnist")] == ["tfd", "cifar10", "mnist"]
    assert [preset(name).dataset for name in NAMES] == ["digits", "mnist", "tfd", "tfd", "cifar10", "cifar10"]
    for name in NAMES:
        assert Config.from_json(preset(name).to_json()) == preset(name)


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("FASTGAN_DATA", "FASTGAN_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    # Before any data are looked for.
    for more in ((), ("--dry-run",)):
        assert "name that run by --init-from" in invoke("train", "--preset", "tfd-stage2", *more, code=2).stderr
    # The second stage's data set is the first's.
    (tmp_path / "first").mkdir()
    said = invoke("train", "--preset", "tfd-stage2", "--init-from", "first", code=1).stderr
    assert "TFD_48x48.mat was not found" in said
    (tmp_path / "first").rmdir()
    said = invoke("train", "--preset", "cifar10", "--dry-run", "--fold", "1", code=2).stderr
    assert "fold is 1 and cifar10 has no folds" in said
    assert "'--fold': 5 is not in the range" in invoke("train", "--fold", "5", code=2).stderr
    assert "output layer has 2304 units" in invoke("train", "--preset", "tfd", "--dataset", "digits", code=2).stderr
    assert "name that run by --init-from" in invoke(
        "train", "--preset", "tfd-stage2", "--dataset", "digits", "--set=generator.4.num_units=64",
        "--set=generator.2.num_units=150", "--dry-run", "--set=generator.3.num_units=150",
        "--set=generator.0.num_units=9", code=2,
    ).stderr  # fmt: skip
    assert not list(tmp_path.iterdir())
