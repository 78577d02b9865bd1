from fractions import Fraction

import numpy as np
import pytest

from fastgan.datasets import Dataset, Split

RNG = np.random.default_rng(0)


def dataset(pixels, divisor):
    splits = {"train": Split(pixels, divisor, None), "empty": Split(pixels[:0], divisor, None)}
    return Dataset("made up", (1, 1, pixels.shape[1]), splits, "embedded", {}, 0)


@pytest.mark.parametrize("divisor", [16.0, 255.0])
def test_as_float32_is_one_float32_division(divisor):
    pixels = np.arange(int(divisor) + 1, dtype=np.uint8)[:, None]
    split = Split(pixels, divisor, None)
    expected = np.array([[np.float32(pixel) / np.float32(divisor)] for pixel in range(int(divisor) + 1)], np.float32)
    assert split.as_float32().dtype == np.float32
    np.testing.assert_array_equal(split.as_float32(), expected)
    np.testing.assert_array_equal(split.as_float32(slice(3, 5)), expected[3:5])
    np.testing.assert_array_equal(split.as_float32(np.array([4, 0])), expected[[4, 0]])
    assert len(split) == len(pixels)


def test_as_float32_of_float32_is_the_same_values_in_a_new_array():
    pixels = RNG.random((5, 3), np.float32)
    split = Split(pixels, 1.0, None)
    np.testing.assert_array_equal(split.as_float32(), pixels)
    assert not np.shares_memory(split.as_float32(), pixels)


# 2500 rows are two whole chunks and a part of one.
def test_pixel_means_of_uint8_are_the_exact_means_rounded_once():
    pixels = RNG.integers(0, 256, (2500, 3), dtype=np.uint8)
    exact = [Fraction(sum(map(int, column)), 2500 * 255) for column in pixels.T]
    assert dataset(pixels, 255.0).pixel_means().tolist() == [float(mean) for mean in exact]


def test_pixel_means_of_float32_are_summed_in_float64():
    pixels = np.full((2500, 2), 0.1, np.float32)
    np.testing.assert_allclose(dataset(pixels, 1.0).pixel_means(), float(np.float32(0.1)), rtol=1e-13)


def test_pixel_means_names_the_split_that_is_wrong():
    made = dataset(np.zeros((3, 2), np.uint8), 255.0)
    with pytest.raises(ValueError, match='no split "tarin"; it has train, empty'):
        made.pixel_means("tarin")
    with pytest.raises(ValueError, match="no rows"):
        made.pixel_means("empty")


@pytest.mark.parametrize(
    ("pixels", "divisor", "labels", "message"),
    [
        (np.zeros((2, 3), np.int32), 255.0, None, "int32"),
        (np.zeros(3, np.uint8), 255.0, None, r"shape \(3,\)"),
        (np.zeros((3, 2), np.uint8).T, 255.0, None, "C-contiguous"),
        (np.zeros((2, 3), np.float32), 255.0, None, "must be 1.0"),
        (np.zeros((2, 3), np.uint8), 255.0, np.zeros(2, np.uint8), "labels are uint8"),
        (np.zeros((2, 3), np.uint8), 255.0, np.zeros(3, np.int64), r"\(3,\); they must be int64 of shape \(2,\)"),
    ],
)
def test_a_split_refuses_other_arrays(pixels, divisor, labels, message):
    with pytest.raises(ValueError, match=message):
        Split(pixels, divisor, labels)


def test_a_dataset_refuses_rows_of_another_size():
    with pytest.raises(ValueError, match='split "train" has rows of 3 pixels; images of shape'):
        Dataset("x", (1, 2, 2), {"train": Split(np.zeros((2, 3), np.uint8), 255.0, None)}, "embedded", {}, 0)
