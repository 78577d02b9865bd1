import dataclasses
import importlib
import json
import math
import re
from pathlib import Path

import pytest

from fastgan import presets
from fastgan.config import Config, ConvMaxoutConfig, ConvTransposeConfig, LinearConfig, MaxoutConfig, field_names
from fastgan.errors import ConfigError
from fastgan.presets import preset, preset_for
from fastgan.training import RESUMABLE

MNIST = preset("mnist")
DIGITS = preset("digits")

OUT_OF_RANGE = {
    "noise_dim": [0, -1],
    "d_steps": [0, 65536],
    "batch_size": [0, -5],
    "epochs": [0],
    "steps": [0, -1],
    "threads": [0],
    "parzen_every": [0],
    "momentum_epochs": [1, 0],
    "device": [-1],
    "seed": [-1, 2**64],
    "learning_rate": [-0.1, math.nan, math.inf, 10**400],
    "min_learning_rate": [-1.0, math.nan, math.inf],
    "learning_rate_decay": [0.99, math.nan, math.inf],
    "momentum": [-0.1, 1.0, math.nan],
    "final_momentum": [-0.1, 1.0, math.nan, math.inf],
    "checkpoint_every": [-1.0, math.nan, math.inf],
    "generator.0.num_units": [0, None],
    "generator.0.irange": [-1.0, math.nan, math.inf],
    "generator.0.bias": [math.nan, math.inf, "marginals"],
    "generator.0.max_col_norm": [0.0, -1.0, math.nan, math.inf],
    "generator.0.dropout_keep": [0.5],
    "discriminator.0.dropout_keep": [0.0, 1.1, math.nan],
    "discriminator.0.num_units": [0],
    "discriminator.0.num_pieces": [0, 256],
    "discriminator.2.bias": ["marginals"],
}
WRONG_KIND = {
    "preset": [1, None],
    "dataset": [1, None, ["mnist"]],
    "data_dir": [1],
    "noise": ["gaussian", 1, None],
    "objective": ["wasserstein"],
    "update": ["both"],
    "backend": ["cuda", ["cpu"]],
    "precision": ["float16"],
    "epochs": [1.0, "1", True, None],
    "steps": [1.5, "x", False],
    "seed": [0.0, "0", None],
    "learning_rate": ["0.1", None, True, [0.1]],
    "checkpoint_every": ["often"],
    "generator": [3, "mnist", [1], [{"num_units": 3}], [{"layer": "conv"}], [{"layer": ["linear"]}]],
    "generator.0.activation": ["tanh", 1],
    "generator.0.num_units": [2.0, "many"],
    "generator.2.bias": ["mean", None],
    "discriminator.0.bias": ["marginals"],
    "discriminator.1.num_pieces": [None, 2.0],
}


def cases(table):
    return [pytest.param(name, value, id=f"{name}={value!r:.12}") for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), cases(OUT_OF_RANGE))
def test_a_value_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        MNIST.replace({name: value})


@pytest.mark.parametrize(("name", "value"), cases(WRONG_KIND))
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(name, value):
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        MNIST.replace({name: value})


@pytest.mark.parametrize(
    ("field", "value"), [("noise", "gaussian"), ("update", "both"), ("epochs", "5"), ("generator", [1]), ("seed", None)]
)
def test_a_configuration_made_without_json_is_checked_as_well(field, value):
    with pytest.raises(ConfigError, match=field):
        Config(**{field: value})
    with pytest.raises(ConfigError, match=r"generator\.0\.activation"):
        Config(generator=(LinearConfig(activation="tanh"),))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2**64 - 1),
        ("seed", 0),
        ("learning_rate", 0),
        ("momentum", 0.0),
        ("checkpoint_every", 0),
        ("d_steps", 1),
        ("steps", None),
        ("threads", None),
        ("data_dir", "/data"),
        ("generator.2.bias", "marginals"),
        ("generator.2.num_units", 784),
        ("generator.1.max_col_norm", 1.9365),
        ("discriminator.0.dropout_keep", 1),
        ("discriminator.0.num_pieces", 255),
    ],
)
def test_a_value_within_its_range_is_taken(name, value):
    fields = MNIST.replace({name: value}).to_json()
    for part in name.split("."):
        fields = fields[int(part) if part.isdigit() else part]
    assert fields == value


def test_an_integer_serves_where_a_number_is_asked_for():
    rate = MNIST.replace({"learning_rate": 1}).learning_rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_survives_json(name):
    config = preset(name)
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_the_mnist_preset_is_the_released_recipe():
    assert [layer.num_units for layer in MNIST.generator] == [1200, 1200, None]
    assert [layer.activation for layer in MNIST.generator] == ["relu", "relu", "sigmoid"]
    assert [layer.irange for layer in MNIST.generator] == [0.05] * 3
    assert [layer.bias for layer in MNIST.generator] == [0.0, 0.0, "marginals"]
    *hidden, last = MNIST.discriminator
    assert [(layer.num_units, layer.num_pieces) for layer in hidden] == [(240, 5)] * 2
    assert (last.num_units, last.activation) == (1, "sigmoid")
    assert [layer.dropout_keep for layer in MNIST.discriminator] == [0.8, 0.5, 0.5]
    assert [layer.irange for layer in MNIST.discriminator] == [0.005] * 3
    assert all(layer.max_col_norm is None for layer in (*MNIST.generator, *MNIST.discriminator))
    assert (MNIST.noise, MNIST.noise_dim, MNIST.batch_size, MNIST.epochs) == ("uniform", 100, 100, 100)
    assert (MNIST.learning_rate, MNIST.learning_rate_decay, MNIST.min_learning_rate) == (0.1, 1.000004, 1e-6)
    assert (MNIST.momentum, MNIST.final_momentum, MNIST.momentum_epochs) == (0.5, 0.7, 250)
    assert (MNIST.update, MNIST.objective, MNIST.d_steps) == ("simultaneous", "non-saturating", 1)


def test_presets_by_name_and_by_data_set():
    assert [preset_for(name) for name in ("digits", "mnist", "fashion-mnist", "mine.npy")] == [
        "digits",
        "mnist",
        "mnist",
        "mnist",
    ]
    with pytest.raises(ConfigError, match="no preset 'mnits'; there are digits, mnist"):
        preset("mnits")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("batch-size", "batch_size"),
        ("learningrate", "learning_rate"),
        ("generator.0.units", "generator.0.num_units"),
        ("discriminator.0.pieces", "discriminator.0.num_pieces"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError) as caught:
        MNIST.replace({name: 1})
    assert str(caught.value) == f"There is no field {name!r}; the nearest is {nearest!r}"


def test_a_layer_that_is_not_there_has_no_fields():
    with pytest.raises(
        ConfigError, match=r"no field 'generator\.3\.num_units'; the nearest is 'generator\.\d\.num_units'"
    ):
        MNIST.replace({"generator.3.num_units": 1})


def test_an_unknown_field_in_json_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="'learning_rat'; the nearest is 'learning_rate'"):
        Config.from_json({"learning_rat": 1})
    with pytest.raises(ConfigError, match=r"'generator.0.unit'; the nearest is 'generator.0.num_units'"):
        Config.from_json({"generator": [{"layer": "linear", "unit": 3}]})
    with pytest.raises(ConfigError, match="JSON object"):
        Config.from_json([1])


def test_a_field_that_is_not_there_takes_its_default():
    fields = MNIST.to_json()
    del fields["momentum"], fields["precision"], fields["generator"][0]["max_col_norm"]
    assert Config.from_json(fields) == MNIST


def test_every_name_that_is_listed_can_be_changed_and_the_layers_fields_are_listed():
    names = field_names(MNIST)
    assert "generator.2.bias" in names
    assert "discriminator.1.num_pieces" in names
    assert not any(name.endswith(".layer") for name in names)
    fields = MNIST.to_json()
    for name in names:
        value = fields
        for part in name.split("."):
            value = value[int(part) if part.isdigit() else part]
        assert MNIST.replace({name: value}) == MNIST


def test_a_layers_field_changes_alone():
    changed = MNIST.replace({"generator.1.num_units": 7})
    assert changed.generator[1] == LinearConfig(num_units=7, activation="relu", irange=0.05)
    assert (changed.generator[0], changed.generator[2]) == (MNIST.generator[0], MNIST.generator[2])
    assert changed.discriminator == MNIST.discriminator
    assert MNIST.generator[1].num_units == 1200


def test_a_whole_network_can_be_given_and_then_changed():
    layers = [{"layer": "maxout", "num_units": 3}, {"layer": "linear", "activation": "sigmoid"}]
    changed = MNIST.replace({"generator": layers, "generator.0.num_pieces": 2})
    assert changed.generator == (MaxoutConfig(num_units=3, num_pieces=2), LinearConfig(activation="sigmoid"))


@pytest.mark.parametrize("order", [1, -1])
def test_changes_that_fit_only_together_come_in_any_order(order):
    changes = dict([("d_steps", 2), ("update", "alternating"), ("seed", 1)][::order])
    config = MNIST.replace(changes)
    assert (config.d_steps, config.update) == (2, "alternating")


def test_the_simultaneous_update_makes_one_step_of_the_discriminator():
    with pytest.raises(ConfigError, match="d_steps is 2 with the simultaneous update"):
        MNIST.replace({"d_steps": 2})


def test_the_last_layers_must_be_what_the_game_asks_for():
    for layers, sentence in [
        ([{"layer": "linear", "activation": "relu"}], "discriminator's last layer"),
        ([{"layer": "maxout"}], "discriminator's last layer"),
        ([{"layer": "linear", "activation": "sigmoid", "num_units": 2}], "discriminator's last layer"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            MNIST.replace({"discriminator": layers})
    with pytest.raises(ConfigError, match="generator's last layer"):
        MNIST.replace({"generator": [{"layer": "maxout"}]})


PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"


def rows_of_the_page(heading):
    section = PAGE.read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_page_has_every_field_with_its_default_and_its_option():
    train = importlib.import_module("fastgan.cli.train").command
    options = {option for parameter in train.params for option in parameter.opts}
    found = {}
    for names, default, option, _ in rows_of_the_page("Fields"):
        for name in names.split(", "):
            found[name.strip("`")] = json.loads(default.strip("`"))
            given = f"--{name.strip('`').replace('_', '-')}"
            assert option == (f"`{given}`" if given in options else "")
    assert found == {**Config().to_json(), "generator": [], "discriminator": []}


def test_the_page_has_every_layer_with_its_fields_and_defaults():
    found, layer = {}, None
    for kind, field, default, _ in rows_of_the_page("Layers"):
        layer = kind.strip("`") or layer
        found.setdefault(layer, {})[field.strip("`")] = json.loads(default.strip("`"))
    classes = (LinearConfig, MaxoutConfig, ConvMaxoutConfig, ConvTransposeConfig)
    assert found == {
        cls().layer: {field.name: field.default for field in dataclasses.fields(cls) if field.name != "layer"}
        for cls in classes
    }


def test_the_page_has_every_preset_with_its_numbers():
    rows = rows_of_the_page("Presets")
    assert [row[0].strip("`") for row in rows] == list(presets.NAMES)
    for name, _, _, _, noise, batch, epochs, rate in rows:
        config = preset(name.strip("`"))
        assert noise == f"{config.noise_dim} {config.noise}"
        assert (int(batch), int(epochs), float(rate)) == (config.batch_size, config.epochs, config.learning_rate)


def test_the_pages_resumable_fields_are_those():
    sentence = PAGE.read_text("utf-8").partition("A resumed run may change ")[2].partition(";")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(RESUMABLE)
