import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fastgan import figures


def pixels(image):
    return np.asarray(image)


def test_tiles_are_row_major_at_their_pixels():
    images = np.arange(6 * 6, dtype=np.uint8).reshape(6, 6)  # (1, 2, 3): 2 tall, 3 wide
    drawn = pixels(figures.grid(images, (1, 2, 3), 3, scale=2, gap=1, background=200))
    assert drawn.shape == (1 + 2 * (4 + 1), 1 + 3 * (6 + 1))
    expected = np.full(drawn.shape, 200, np.uint8)
    for n in range(6):
        top, left = 1 + (n // 3) * 5, 1 + (n % 3) * 7
        for h in range(4):
            for w in range(6):
                expected[top + h, left + w] = images[n, (h // 2) * 3 + w // 2]
    np.testing.assert_array_equal(drawn, expected)


def test_a_ragged_row_and_free_columns_are_background():
    white = np.full((4, 1 * 2 * 2), 255, np.uint8)
    drawn = pixels(figures.grid(white, (1, 2, 2), 3, scale=1, gap=0, background=7))
    assert drawn.shape == (4, 6)
    assert (drawn[2:, :2] == 255).all()
    assert (drawn[2:, 2:] == 7).all()
    assert pixels(figures.grid(white[:1], (1, 2, 2), 3, scale=1, gap=0, background=7)).shape == (2, 6)


def test_colour_images_are_read_in_channel_height_width_order():
    images = np.arange(12, dtype=np.uint8).reshape(1, 12)
    image = figures.grid(images, (3, 2, 2), 1, scale=1, gap=1, background=(9, 8, 7))
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == (9, 8, 7)
    assert image.getpixel((1, 1)) == (0, 4, 8)
    assert image.getpixel((2, 1)) == (1, 5, 9)
    assert image.getpixel((1, 2)) == (2, 6, 10)


def test_grey_stays_grey_unless_the_background_is_a_colour():
    image = np.full((1, 4), 50, np.uint8)
    assert figures.grid(image, (1, 2, 2), 1).mode == "L"
    assert figures.grid(image, (1, 2, 2), 1, background=(3, 3, 3)).mode == "L"
    coloured = figures.grid(image, (1, 2, 2), 1, scale=1, gap=1, background=(255, 0, 0))
    assert coloured.mode == "RGB"
    assert coloured.getpixel((1, 1)) == (50, 50, 50)


def test_floats_are_clipped_and_rounded_to_the_nearest_level():
    values = np.array([[-3.0, 0.0, 0.49 / 255, 0.51 / 255, 127.4 / 255, 127.6 / 255, 254.6 / 255, 1.0, 1.0001]])
    drawn = pixels(figures.grid(values, (1, 3, 3), 1, scale=1, gap=0))
    assert drawn.ravel().tolist() == [0, 0, 0, 1, 127, 128, 255, 255, 255]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_level_survives_as_a_float(dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256)
    floats = (levels / 255).astype(dtype)
    np.testing.assert_array_equal(pixels(figures.grid(floats, (1, 16, 16), 1, scale=1, gap=0)).reshape(1, 256), levels)


@pytest.mark.parametrize(("side", "scale"), [(8, 7), (28, 2), (32, 2), (48, 2), (56, 1), (96, 1)])
def test_default_scale(side, scale):
    image = figures.grid(np.zeros((1, side * side), np.uint8), (1, side, side), 1, gap=0)
    assert image.size == (side * scale, side * scale)


@pytest.mark.parametrize(("width", "size"), [(2, (56, 28)), (64, (64, 8)), (784, (784, 8))])
def test_data_without_an_image_shape_are_strips_one_can_see(width, size):
    image = figures.grid(np.linspace(0, 1, width)[None], (1, 1, width), 1, gap=0)
    assert image.size == size
    drawn = pixels(image)
    assert (drawn == drawn[:1]).all()
    assert drawn[0, 0] == 0
    assert drawn[0, -1] == 255


def test_inputs_are_left_as_they_are():
    images = np.array([[-1.0, 2.0, 0.5, 0.5]])
    before = images.copy()
    figures.grid(images, (1, 2, 2), 1)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"images": np.full((2, 4), np.nan)}, ValueError, "images holds NaN or infinity, first in image 0"),
        ({"images": np.array([[0.0] * 4, [0, 0, np.inf, 0]])}, ValueError, "first in image 1"),
        ({"images": np.zeros((2, 5))}, ValueError, r"shape \(2, 5\) and must have shape \(N, 4\)"),
        ({"images": np.zeros(4)}, ValueError, "images has shape"),
        ({"images": np.zeros((0, 4))}, ValueError, "holds no image"),
        ({"images": np.zeros((2, 4), np.int64)}, TypeError, "images holds int64"),
        ({"image_shape": (2, 2)}, ValueError, r"must be \(C, H, W\)"),
        ({"image_shape": (2, 2, 1)}, ValueError, "C must be 1"),
        ({"image_shape": (1, 0, 4)}, ValueError, "at least 1"),
        ({"num_columns": 0}, ValueError, "num_columns is 0 and must be at least 1"),
        ({"num_columns": 2.5}, TypeError, "num_columns is 2.5"),
        ({"scale": 0}, ValueError, "scale is 0"),
        ({"gap": -1}, ValueError, "gap is -1"),
        ({"background": 256}, ValueError, "background is 256"),
        ({"background": (1, 2)}, ValueError, "background is"),
    ],
)
def test_bad_input_is_a_sentence(arguments, error, sentence):
    good = {"images": np.zeros((2, 4)), "image_shape": (1, 2, 2), "num_columns": 2}
    with pytest.raises(error, match=sentence):
        figures.grid(**{**good, **arguments})


def test_nearest_is_beside_its_row_in_a_frame():
    samples = np.arange(4, dtype=np.uint8).repeat(4).reshape(4, 4)
    neighbours = np.array([[100] * 4, [101] * 4], np.uint8)
    image = figures.grid_with_nearest(samples, neighbours, (1, 2, 2), 2, scale=1, gap=2, background=50, frame=(9, 8, 7))
    drawn = pixels(image)
    plain = pixels(figures.grid(samples, (1, 2, 2), 2, scale=1, gap=2, background=50))
    height, width = plain.shape
    assert drawn.shape == (height, width + 8 + 2 + 2, 3)
    np.testing.assert_array_equal(drawn[:, :width], plain[:, :, None].repeat(3, axis=2))
    left = width + 8
    assert (drawn[:, width : left - 2] == 50).all()
    column = np.full((height, 6, 3), (9, 8, 7), np.uint8)
    column[2:4, 2:4], column[6:8, 2:4] = 100, 101
    np.testing.assert_array_equal(drawn[:, left - 2 :], column)


def test_nearest_in_colour():
    sample = np.arange(3, dtype=np.uint8)[None]
    image = figures.grid_with_nearest(sample, sample + 100, (3, 1, 1), 1, scale=1, gap=1)
    assert image.getpixel((1, 1)) == (0, 1, 2)
    assert image.getpixel((image.width - 2, 1)) == (100, 101, 102)
    assert image.getpixel((image.width - 1, 1)) == figures.FRAME


def test_nearest_wants_whole_rows_one_neighbour_each_and_room_for_the_frame():
    with pytest.raises(ValueError, match="do not make whole rows of num_columns = 2"):
        figures.grid_with_nearest(np.zeros((3, 4)), np.zeros((2, 4)), (1, 2, 2), 2)
    with pytest.raises(ValueError, match="neighbours holds 4 images and must hold one a row, 2"):
        figures.grid_with_nearest(np.zeros((4, 4)), np.zeros((4, 4)), (1, 2, 2), 2)
    with pytest.raises(ValueError, match="neighbours holds NaN"):
        figures.grid_with_nearest(np.zeros((2, 4)), np.full((1, 4), np.nan), (1, 2, 2), 2)
    with pytest.raises(ValueError, match="gap is 0"):
        figures.grid_with_nearest(np.zeros((2, 4)), np.zeros((1, 4)), (1, 2, 2), 2, gap=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_interpolation_keeps_its_ends_to_the_bit_and_is_even_between(dtype):
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 3, 7)).astype(dtype)
    start[0, 0] = -0.0
    path = figures.interpolation(start, end, 5)
    assert path.dtype == dtype
    assert path.shape == (15, 7)
    steps = path.reshape(3, 5, 7)
    assert steps[:, 0].tobytes() == start.tobytes()
    assert steps[:, -1].tobytes() == end.tobytes()
    exact = start[:, None] + np.linspace(0, 1, 5)[:, None] * (end - start)[:, None].astype(np.float64)
    np.testing.assert_allclose(steps, exact, rtol=0, atol=4 * np.finfo(dtype).eps)


def test_interpolation_of_integers_and_of_huge_values():
    np.testing.assert_array_equal(figures.interpolation([[0, 4]], [[1, 0]], 3), [[0, 4], [0.5, 2], [1, 0]])
    huge = np.full((1, 1), 1.7e308)
    np.testing.assert_array_equal(figures.interpolation(-huge, huge, 3), [[-1.7e308], [0], [1.7e308]])


@pytest.mark.parametrize(
    ("start", "end", "num_steps", "error", "sentence"),
    [
        (np.zeros((2, 3)), np.zeros((1, 3)), 4, ValueError, "must be the same"),
        (np.zeros(3), np.zeros(3), 4, ValueError, "z_start has shape"),
        (np.zeros((1, 3)), np.full((1, 3), np.inf), 4, ValueError, "z_end holds NaN or infinity"),
        (np.zeros((1, 3)), np.zeros((1, 3)), 1, ValueError, "num_steps is 1 and must be at least 2"),
        (np.zeros((1, 3), complex), np.zeros((1, 3)), 4, TypeError, "z_start holds complex128"),
    ],
)
def test_bad_interpolation_is_a_sentence(start, end, num_steps, error, sentence):
    with pytest.raises(error, match=sentence):
        figures.interpolation(start, end, num_steps)


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 8, 8)])
def test_png_is_the_same_bytes_and_the_same_pixels(image_shape):
    images = np.random.default_rng(0).random((6, np.prod(image_shape)))
    image = figures.grid(images, image_shape, 3)
    png = figures.to_png(image)
    assert png == figures.to_png(figures.grid(images, image_shape, 3))
    np.testing.assert_array_equal(pixels(Image.open(io.BytesIO(png))), pixels(image))


def test_png_carries_no_metadata():
    image = figures.grid(np.zeros((1, 4), np.uint8), (1, 2, 2), 1)
    text = PngImagePlugin.PngInfo()
    text.add_text("Creation Time", "today")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=text, dpi=(300, 300), icc_profile=b"profile")
    loaded = Image.open(io.BytesIO(buffer.getvalue()))
    assert loaded.info
    assert figures.to_png(loaded) == figures.to_png(image)
    assert loaded.info, "the image given is left as it is"
    assert Image.open(io.BytesIO(figures.to_png(loaded))).info == {}


def test_importing_does_not_import_pillow():
    code = "import sys, fastgan.figures, fastgan.report; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pixels_of_a_unit_range_are_shown_as_they_are():
    pixels = np.array([[0.0, 0.25, 1.0, 1.5, -0.5]], np.float32)
    np.testing.assert_array_equal(figures.display_pixels(pixels, None), [[0.0, 0.25, 1.0, 1.0, 0.0]])


def test_pixels_of_both_signs_are_divided_by_the_greatest_sample():
    samples, neighbours = np.array([[-4.0, 2.0, 0.0]], np.float32), np.array([[8.0, 1.0, -1.0]], np.float32)
    np.testing.assert_array_equal(figures.display_pixels(samples, 55.0), [[0.0, 0.75, 0.5]])
    # By the samples' greatest, not by their own; what is beyond it is white.
    shown = figures.display_pixels(neighbours, 55.0, scaled_as=samples)
    np.testing.assert_array_equal(shown, [[1.0, 0.625, 0.375]])
    assert shown.dtype == np.float32
    np.testing.assert_array_equal(figures.display_pixels(np.zeros((1, 2), np.float32), 55.0), 0.5)
