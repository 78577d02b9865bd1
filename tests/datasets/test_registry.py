import pytest

from fastgan import datasets
from fastgan.errors import ConfigError, DataError


def test_names():
    assert datasets.names() == ("digits", "mnist", "fashion-mnist", "tfd", "cifar10")


@pytest.mark.parametrize("name", datasets.names())
def test_what_a_listing_shows(name):
    entry = datasets.entry(name)
    assert entry.name == name
    assert len(entry.image_shape) == 3
    assert list(entry.split_sizes) == (["train", "folds"] if name == "tfd" else ["train", "valid", "test"])
    num_images = {"digits": 1797, "tfd": 102_236, "cifar10": 60_000}
    assert sum(entry.split_sizes.values()) == num_images.get(name, 70_000)


@pytest.mark.parametrize("function", [datasets.entry, datasets.find, datasets.fetch, datasets.verify, datasets.load])
@pytest.mark.parametrize(
    ("name", "nearest"), [("mnits", "mnist"), ("MNIST", "mnist"), ("fashion", "fashion-mnist"), ("digit", "digits")]
)
def test_a_mistyped_name_is_a_fault_of_the_command_line(function, name, nearest):
    known = ", ".join(datasets.names())
    message = f'there is no data set "{name}"; did you mean "{nearest}"\\? The known ones are {known}'
    with pytest.raises(ConfigError, match=message):
        function(name)


def test_a_name_like_no_other():
    with pytest.raises(ConfigError, match='there is no data set "cats"; the known ones are digits'):
        datasets.load("cats")


@pytest.mark.parametrize("path", ["none.npy", "none.H5", "folder/none", "./mnist"])
def test_a_missing_file_is_a_fault_of_the_data(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        datasets.load(path)


@pytest.mark.parametrize("name", ["mnist", "tfd", "cifar10"])
@pytest.mark.parametrize("function", [datasets.load, datasets.fetch, datasets.verify])
def test_a_file_in_place_of_its_folder_is_said_to_be_one(function, name, tmp_path):
    (tmp_path / "TFD_48x48.mat").write_bytes(b"x")
    with pytest.raises(DataError, match=r"48x48\.mat is a file where a folder is asked for; give the folder"):
        function(name, data_dir=tmp_path / "TFD_48x48.mat")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_registered_name_comes_before_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert datasets.load("digits").source == "embedded"
