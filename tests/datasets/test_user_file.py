import hashlib
import io
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest

from fastgan import datasets
from fastgan.errors import DataError, FastganWarning

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (23, 4, 5), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 23)


def save(path, array, **others):
    """Write ``array`` (under the name "images" where there are names) in the format of the path's ending."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, images=array, **others)
    else:
        with h5py.File(path, "w") as file:
            for name, values in {"images": array, **others}.items():
                file[name] = values
    return path


def rows(loaded):
    return np.concatenate([split.pixels for split in loaded.splits.values()])


@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5", ".hdf5"])
def test_a_file_is_split_in_order(tmp_path, ending):
    path = save(tmp_path / f"mine{ending}", BYTES)
    loaded = datasets.load(path)
    # 80% of 23 is 18.4, 10% is 2.3: rounded down, and the rest for test.
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 18, "valid": 2, "test": 3}
    np.testing.assert_array_equal(rows(loaded), BYTES.reshape(23, 20))
    assert all(split.divisor == 255.0 and split.labels is None for split in loaded.splits.values())
    assert (loaded.name, loaded.image_shape, loaded.source) == ("mine", (1, 4, 5), str(path))
    assert loaded.num_validation == 2
    assert loaded.digests == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    # As a string, too.
    np.testing.assert_array_equal(rows(datasets.load(str(path))), rows(loaded))


@pytest.mark.parametrize("ending", [".npz", ".h5"])
@pytest.mark.parametrize("label_name", ["labels", "y"])
def test_labels_lie_beside_the_images(tmp_path, ending, label_name):
    loaded = datasets.load(save(tmp_path / f"mine{ending}", BYTES, **{label_name: LABELS.astype(np.uint8)}))
    np.testing.assert_array_equal(np.concatenate([s.labels for s in loaded.splits.values()]), LABELS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("ending", [".npy", ".h5"])
def test_floats_become_float32(tmp_path, dtype, ending):
    pixels = RNG.random((10, 4)).astype(dtype)
    pixels[0, 0], pixels[1, 1] = 0, 1
    loaded = datasets.load(save(tmp_path / f"mine{ending}", pixels))
    assert rows(loaded).dtype == np.float32
    np.testing.assert_array_equal(rows(loaded), pixels.astype(np.float32))
    assert loaded.splits["train"].divisor == 1.0


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [((10, 9), (1, 3, 3)), ((10, 10), (1, 1, 10)), ((10, 3, 2), (1, 3, 2))],
)
@pytest.mark.parametrize("ending", [".npy", ".h5"])
def test_image_shapes(tmp_path, shape, image_shape, ending):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    loaded = datasets.load(save(tmp_path / f"mine{ending}", array))
    assert loaded.image_shape == image_shape
    np.testing.assert_array_equal(rows(loaded), array.reshape(10, -1))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((2, 5, 3), 3), ((8, 9, 1), 3), ((3, 8, 3), 3), ((3, 4, 4), 1), ((1, 5, 4), 1), ((1, 28, 28), 1), ((3, 9, 5), 1)],
)
def test_where_the_channels_are(tmp_path, shape, axis):
    array = RNG.integers(0, 256, (10, *shape), dtype=np.uint8)
    loaded = datasets.load(save(tmp_path / "mine.npy", array))
    channels_first = np.moveaxis(array, axis, 1)
    assert loaded.image_shape == channels_first.shape[1:]
    np.testing.assert_array_equal(rows(loaded), channels_first.reshape(10, -1))


def test_the_memory_layout_of_the_file_does_not_matter(tmp_path):
    loaded = datasets.load(save(tmp_path / "mine.npy", np.asfortranarray(BYTES)))
    np.testing.assert_array_equal(rows(loaded), BYTES.reshape(23, 20))
    assert loaded.splits["train"].pixels.flags.c_contiguous


def test_more_rows_than_a_chunk(tmp_path):
    pixels = RNG.random((3000, 2), np.float32)
    loaded = datasets.load(save(tmp_path / "mine.npy", pixels))
    np.testing.assert_array_equal(rows(loaded), pixels)


@pytest.mark.parametrize("name", ["images", "pixels", "samples", "x", "anything"])
def test_which_array_is_the_images(tmp_path, name):
    np.savez(tmp_path / "one.npz", **{name: BYTES})
    assert len(rows(datasets.load(tmp_path / "one.npz"))) == 23
    if name != "anything":
        np.savez(tmp_path / "two.npz", **{name: BYTES}, other=LABELS)
        assert len(rows(datasets.load(tmp_path / "two.npz"))) == 23


@pytest.mark.parametrize("names", [["a", "b"], ["images", "x"], ["labels"], [], ["images", "labels", "y"]])
@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_arrays_that_cannot_be_told_apart(tmp_path, names, ending):
    path = tmp_path / f"mine{ending}"
    if ending == ".npz":
        np.savez(path, **dict.fromkeys(names, BYTES))
    else:
        with h5py.File(path, "w") as file:
            for name in names:
                file[name] = BYTES
            file.create_group("a group is no array")
    message = "holds the arrays .*, so it is not clear .*; name one of them"
    if ending == ".h5" and not names:
        message = "holds no array at its top level; save the images there"
    with pytest.raises(DataError, match=f"mine{ending} {message}"):
        datasets.load(path)


def with_value(value):
    pixels = RNG.random((2500, 3))
    pixels[2222, 1] = value
    return pixels


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (with_value(np.nan), "nan in image 2222; floats must be finite and in"),
        (with_value(np.inf), "inf in image 2222"),
        (with_value(-np.inf), "-inf in image 2222"),
        (with_value(1.00001), "1.00001 in image 2222"),
        (with_value(-1e-5), "-1e-05 in image 2222; .* so bring their whole range there"),
        (np.zeros((10, 4), np.int64), "values of type int64; save the images as uint8 from 0 to 255, or as floats"),
        (np.zeros((10, 4), bool), "values of type bool"),
        (np.zeros((10, 4), complex), "values of type complex128"),
        (np.zeros(10, np.uint8), r"shape \(10,\); images must be saved as \(N, D\)"),
        (np.zeros((10, 1, 2, 2, 1), np.uint8), r"shape \(10, 1, 2, 2, 1\); images must be saved as"),
        (np.uint8(3), r"shape \(\); images must be saved as"),
        (np.full((9, 4), 255, np.uint8), "9 images; at least 10 are needed to split them"),
        (np.zeros((10, 5, 8, 8), np.uint8), ".* would have 8 channels; save images of 1"),
        (np.zeros((10, 8, 8, 4), np.uint8), r".* would have 4 channels; .* without opacity: images\[\.\.\., :3\]"),
    ],
)
@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5"])
def test_arrays_that_are_no_images(tmp_path, array, message, ending):
    path = save(tmp_path / f"mine{ending}", array)
    with pytest.raises(DataError, match=rf"^{path} holds (an array of )?{message}"):
        datasets.load(path)


def test_zeros_and_ones_as_bytes_are_warned_of(tmp_path):
    path = save(tmp_path / "mine.npy", RNG.integers(0, 2, (20, 3), dtype=np.uint8))
    with pytest.warns(FastganWarning, match=f"^{path} holds no number above 1, .* multiply images of 0 and 1 by 255"):
        datasets.load(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_rounding_took_out_of_the_range_is_brought_back(tmp_path, dtype):
    pixels = RNG.random((20, 3)).astype(dtype)
    pixels[3], pixels[17, 0] = (1 + 2e-7, -1e-9, 1.0), 1 + 9e-7
    dataset = datasets.load(save(tmp_path / "mine.npy", pixels))
    found = np.concatenate([dataset.splits[name].as_float32() for name in ("train", "valid", "test")])
    np.testing.assert_array_equal(found, np.clip(pixels, 0, 1).astype(np.float32))
    assert found[3].tolist() == [1, 0, 1]


@pytest.mark.parametrize("shape", [(0, 4), (10, 0), (10, 0, 4)])
@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_arrays_without_pixels(tmp_path, shape, ending):
    with pytest.raises(DataError, match="images of at least one pixel are needed" if shape[0] else "no image at all"):
        datasets.load(save(tmp_path / f"mine{ending}", np.zeros(shape, np.uint8)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:-1], r"23 images but labels of shape \(22,\); save one label an image"),
        (LABELS[:, None], r"labels of shape \(23, 1\)"),
        (LABELS.astype(float), "labels of type float64; save them as integers"),
    ],
)
@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_labels_that_are_wrong(tmp_path, labels, message, ending):
    with pytest.raises(DataError, match=message):
        datasets.load(save(tmp_path / f"mine{ending}", BYTES, labels=labels))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_pickled_objects_are_never_loaded(tmp_path):
    objects = np.array([Bomb()] * 10, dtype=object).reshape(10, 1)
    np.save(tmp_path / "mine.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "mine.npz", images=objects, allow_pickle=True)
    for ending in (".npy", ".npz"):
        with pytest.raises(
            DataError, match=f"mine{ending} holds Python objects, which are not loaded; save the images"
        ):
            datasets.load(tmp_path / f"mine{ending}")
    for ending in (".npy", ".npz", ".h5"):
        (tmp_path / f"bare{ending}").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(DataError, match=rf"bare{ending} (cannot be read as a {ending} file|holds Python objects)"):
            datasets.load(tmp_path / f"bare{ending}")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5"])
def test_a_file_that_is_cut_off(tmp_path, ending):
    path = save(tmp_path / f"mine{ending}", RNG.integers(0, 256, (100, 30), dtype=np.uint8))
    whole = path.read_bytes()
    for num_bytes in (0, 1, 5, 60, 127, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:num_bytes])
        with pytest.raises(
            DataError, match=rf"^{path} (is empty|cannot be read as a {ending} file).*; save the images"
        ):
            datasets.load(path)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5"])
def test_a_file_that_is_something_else(tmp_path, ending):
    path = tmp_path / f"mine{ending}"
    path.write_bytes(b"this is some text, and no array at all\n" * 10)
    with pytest.raises(DataError, match=rf"^{path} cannot be read as a {ending} file .*; save the images"):
        datasets.load(path)


# A header that tells of 4 TB must not make anyone look for 4 TB.
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_a_header_that_tells_of_more_than_there_is(tmp_path, ending):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000, 1000), }"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"12345"
    path = tmp_path / f"mine{ending}"
    if ending == ".npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", content)
    with pytest.raises(DataError, match=rf"^{path} cannot be read as a {ending} file"):
        datasets.load(path)


# NumPy reads the header as Python source, and stumbles over these in three ways.
@pytest.mark.parametrize(
    "header", [b"{'descr': ((('", b"{'descr': 1, b'x': 2}", b"{'descr': '|u1' oops}", b"\xff\x00", b""]
)
def test_a_header_that_makes_no_sense(tmp_path, header):
    header = header.ljust(118) + b"\n"
    (tmp_path / "mine.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100))
    with pytest.raises(DataError, match=r"mine\.npy cannot be read as a \.npy file"):
        datasets.load(tmp_path / "mine.npy")


def test_a_damaged_member_is_found_by_its_checksum(tmp_path):
    path = save(tmp_path / "mine.npz", np.full((100, 30), 255, np.uint8))
    content = bytearray(path.read_bytes())
    content[1500] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        datasets.load(path)


def test_text_in_an_npz_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("images", "hello")
    with pytest.raises(DataError, match=r"mine\.npz holds values of type"):
        datasets.load(tmp_path / "mine.npz")


def test_paths_that_are_no_file_to_load(tmp_path):
    with pytest.raises(DataError, match=r"none\.npy does not exist; check the path"):
        datasets.load(tmp_path / "none.npy")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match=r"folder\.npz is a folder where a .* file is expected"):
        datasets.load(tmp_path / "folder.npz")
    (tmp_path / "images.png").write_bytes(b"png")
    with pytest.raises(DataError, match=r"images\.png does not end in \.npy, \.npz, \.h5, \.hdf5; save the images as"):
        datasets.load(tmp_path / "images.png")


def test_nothing_is_written(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, BYTES)
    (tmp_path / "mine.npy").write_bytes(buffer.getvalue())
    datasets.load(tmp_path / "mine.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npy"]
    assert (tmp_path / "mine.npy").read_bytes() == buffer.getvalue()
