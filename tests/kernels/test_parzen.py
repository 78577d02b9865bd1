import sys
import tracemalloc
import types

import numpy as np
import pytest
from scipy.special import logsumexp

from fastgan import datasets
from fastgan.errors import BackendError
from fastgan.kernels import parzen
from fastgan.kernels.common import backends, exchange, launcher, planes_tile
from fastgan.kernels.parzen import cpu, cupy_raw

# Nats. What cpu computes in float32 is within this of the definition; what it computes in float64, within the other.
TOLERANCE = {"reference": 1e-10, "cpu": 0.01, "cupy": 0.01}
EXACT = 1e-8


@pytest.fixture(params=["reference", "cpu", "cupy"])
def either(request):
    """The definition and the fast ones, cupy on the emulator where no GPU answers."""
    if request.param == "cupy" and backends.why_not("cupy") is not None:
        request.getfixturevalue("emulated")
    return request.param


def compute(backend, queries, samples, sigmas, progress=None):
    return parzen.log_density(queries, samples, np.asarray(sigmas), progress=progress, backend=backend)


def written_out(queries, samples, sigmas):
    queries, samples = queries.astype(np.float64), samples.astype(np.float64)
    distances = np.array([((query - samples) ** 2).sum(-1) for query in queries])
    D = queries.shape[1]
    return np.array(
        [
            logsumexp(-distances / (2 * s**2), axis=1) - np.log(len(samples)) - D * np.log(s * np.sqrt(2 * np.pi))
            for s in sigmas
        ]
    )


def digit_like(rng, num_rows, noise=0.05):
    """Images of MNIST's size, share of black and spread: three soft strokes each, at places of a coarse grid."""
    y, x = np.mgrid[:28, :28].astype(np.float32)
    images = np.zeros((num_rows, 28, 28), np.float32)
    places = rng.integers(2, 6, (num_rows, 3, 2)) * 4 + 2
    for stroke in range(3):
        for i in range(num_rows):
            centre_y, centre_x = places[i, stroke]
            images[i] += np.exp(-((y - centre_y) ** 2 / 18 + (x - centre_x) ** 2 / 4))
    images += noise * rng.standard_normal(images.shape, dtype=np.float32) * (images > 0.1)
    return np.where(images > 0.1, np.clip(images, 0, 1), 0).reshape(num_rows, 784)


# The reference has tiles of 64 queries and 4096 samples, cpu of 2048 and 1024: one less, as many and one more of each.
@pytest.mark.parametrize(
    ("M", "N", "D"),
    [(1, 1, 1), (63, 10, 5), (64, 300, 3), (65, 4095, 2), (3, 4097, 7), (2, 9000, 1), (2047, 1023, 2), (2048, 1024, 1),
     (2049, 1025, 3), (5, 2049, 33), (1, 1, 500), (0, 5, 2)],
)  # fmt: skip
def test_the_formula(either, rng, M, N, D):
    queries, samples = rng.random((M, D)).astype(np.float32), rng.random((N, D)).astype(np.float32)
    sigmas = np.geomspace(0.01, 2, 5)
    found = compute(either, queries, samples, sigmas)
    assert found.shape == (5, M)
    assert np.isfinite(found).all()
    wanted = written_out(queries, samples, sigmas) if M else np.empty((5, 0))
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=TOLERANCE[either])


@pytest.mark.parametrize("sample_dtype", [np.float32, np.float64])
@pytest.mark.parametrize("query_dtype", [np.float32, np.float64])
def test_float32_and_float64_are_taken_as_they_are(either, rng, query_dtype, sample_dtype):
    # Around 1 and apart by less than float32's step there: only who keeps the digits sees the differences.
    queries = (1 + 1e-9 * rng.random((7, 3))).astype(query_dtype)
    samples = (1 + 1e-9 * rng.random((9, 3))).astype(sample_dtype)
    sigmas = [1e-11, 3e-10, 1.0]
    found = compute(either, queries, samples, sigmas)
    np.testing.assert_allclose(found, written_out(queries, samples, sigmas), rtol=1e-10, atol=TOLERANCE[either])


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("sigma", [1e-100, 1e-16, 1e-3, 0.1, 1e3, 1e16, 1e100])
def test_values_and_sigmas_of_any_size_stay_finite_and_right(either, rng, scale, sigma):
    queries, samples = rng.random((5, 4)) * scale, rng.random((6, 4)) * scale
    samples[2] = queries[1]
    found = compute(either, queries, samples, [sigma])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, written_out(queries, samples, [sigma]), rtol=1e-10, atol=TOLERANCE[either])


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25, 1e30])
def test_squares_beyond_float32_are_no_matter(either, rng, scale):
    queries, samples = (rng.random((5, 4)) * scale).astype(np.float32), (rng.random((6, 4)) * scale).astype(np.float32)
    sigmas = np.array([0.01, 0.3, 2]) * scale
    found = compute(either, queries, samples, sigmas)
    np.testing.assert_allclose(found, written_out(queries, samples, sigmas), rtol=1e-10, atol=TOLERANCE[either])


def test_identical_samples_are_one(either, rng):
    query = rng.random((3, 784), dtype=np.float32)
    sample = rng.random((1, 784), dtype=np.float32)
    for sigmas in ([0.02], [0.3], [5.0]):
        one = compute(either, query, sample, sigmas)
        many = compute(either, query, np.repeat(sample, 1000 if either == "cupy" else 5000, axis=0), sigmas)
        np.testing.assert_allclose(one, written_out(query, sample, sigmas), rtol=1e-10, atol=TOLERANCE[either])
        np.testing.assert_allclose(many, one, rtol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.7])
@pytest.mark.parametrize("sigma", [1e-100, 1e-30, 1e-18, 1.0, 1e100])
def test_all_queries_and_samples_alike(either, value, sigma):
    # Every distance is exactly 0, however narrow the window.
    queries, samples = np.full((5, 7), value), np.full((9, 7), value)
    found = compute(either, queries, samples, [sigma])
    np.testing.assert_allclose(found, written_out(queries, samples, [sigma]), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-155, 1e-140, 1e140, 1e150])
@pytest.mark.parametrize("sigma", [1e-100, 1.0, 1e100])
def test_values_at_the_ends_of_float64(either, rng, scale, sigma):
    queries, samples = rng.random((5, 7)) * scale, rng.random((9, 7)) * scale
    found = compute(either, queries, samples, [sigma])
    np.testing.assert_allclose(found, compute("reference", queries, samples, [sigma]), rtol=1e-10)


def test_a_query_among_its_twins(either, rng):
    # Distance 0 for every query, to many samples for some; and all else far beyond the narrow windows.
    samples = rng.random((40, 50), dtype=np.float32)
    samples[10:20] = samples[0]
    sigmas = [1e-6, 1e-3, 0.05]
    found = compute(either, samples, samples, sigmas)
    twins = np.array([11 if i == 0 or 10 <= i < 20 else 1 for i in range(40)])
    for row, sigma in zip(found, sigmas, strict=True):
        wanted = np.log(twins / 40) - 50 * np.log(sigma * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(row, wanted, rtol=0, atol=TOLERANCE[either] if sigma == 0.05 else EXACT)


def test_a_window_that_sees_the_nearest_sample_alone(either, rng):
    queries, samples = digit_like(rng, 30), digit_like(rng, 2500)
    sigmas = [1e-3, 0.01]
    found = compute(either, queries, samples, sigmas)
    np.testing.assert_allclose(found, written_out(queries, samples, sigmas), rtol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_stated_error_on_images_like_mnist(rng, offset):
    # The offset is float32's to lose, not the kernel's: both see the same numbers.
    queries, samples = digit_like(rng, 150) + np.float32(offset), digit_like(rng, 3000) + np.float32(offset)
    samples[5] = queries[7]
    sigmas = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0])
    error = np.abs(compute("cpu", queries, samples, sigmas) - written_out(queries, samples, sigmas)).max(axis=1)
    assert np.isfinite(error).all()
    assert error[0] <= EXACT
    assert (error[1:3] <= 0.01).all()
    assert (error[3:] <= 0.001).all()


@pytest.mark.real_data
@pytest.mark.parametrize("blank", [None, 0.75, 1.0])
def test_the_stated_error_on_mnist(real_mnist_folder, blank):
    mnist = datasets.load("mnist", data_dir=real_mnist_folder)
    queries, samples = mnist.splits["test"].as_float32(slice(0, 200)), mnist.splits["train"].as_float32(slice(0, 4000))
    if blank is not None:
        # A few blank pages, which no measurement on every so manyth row meets: long rows, whose roundings agree.
        queries[[8, 101]] = samples[[50, 1234, 2501]] = blank
    sigmas = np.array([0.01, 0.1, 0.2, 0.4, 1.0])
    wanted = compute("reference", queries, samples, sigmas)
    np.testing.assert_allclose(wanted[:, :5], written_out(queries[:5], samples, sigmas), rtol=1e-11)
    error = np.abs(compute("cpu", queries, samples, sigmas) - wanted).max(axis=1)
    assert np.isfinite(error).all()
    assert error[0] <= EXACT
    assert error[1] <= 0.01
    assert (error[2:] <= 0.001).all()


@pytest.fixture(params=["warps", "warpgroups"])
def products(request, monkeypatch):
    """What cupy's products computed in, in the order of their launches, on the emulator where no GPU answers."""
    if request.param == "warps":
        # As on an architecture that has no warpgroups.
        monkeypatch.setattr(planes_tile.WarpgroupTiling, "ARCHITECTURE", 0)
    if backends.why_not("cupy") is not None:
        request.getfixturevalue("emulated")
    launched, by_product, measure = [], cupy_raw.by_product, cupy_raw._product_error

    def noted(queries, samples, sigmas):
        launched.append(samples.arithmetic)
        return by_product(queries, samples, sigmas)

    def without_notes(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(cupy_raw, "by_product", by_product)
            return measure(*arguments)

    monkeypatch.setattr(cupy_raw, "by_product", noted)
    monkeypatch.setattr(cupy_raw, "_product_error", without_notes)
    return launched


@pytest.mark.parametrize(("M", "N", "shape"), [(40, 90, 1), (150, 300, 0)], ids=["small tiles", "large tiles"])
@pytest.mark.parametrize("kind", ["any floats", "8-bit queries", "8-bit queries and samples"])
def test_the_stated_error_on_tensor_cores(rng, monkeypatch, products, M, N, shape, kind):
    shapes = {arithmetic: (of[shape], of[shape]) for arithmetic, of in planes_tile.SHAPES.items()}
    monkeypatch.setattr("fastgan.kernels.common.planes_tile.SHAPES", shapes)
    queries, samples = digit_like(rng, M), digit_like(rng, N)
    if kind != "any floats":
        queries = np.rint(queries * 255).astype(np.uint8) / np.float32(255)
    if kind == "8-bit queries and samples":
        samples = np.rint(samples * 255).astype(np.uint8) / np.float32(255)
    samples[5] = queries[7]
    sigmas = np.array([0.01, 0.1, 0.2, 0.3, 0.5, 1.0])
    error = np.abs(compute("cupy", queries, samples, sigmas) - written_out(queries, samples, sigmas)).max(axis=1)
    assert products == [planes_tile.HALVES if kind == "any floats" else planes_tile.BYTES]
    assert error[0] <= EXACT
    assert error[1] <= (0.01 if kind == "any floats" else 0.0005)
    assert (error[2:] <= (0.001 if kind == "any floats" else 0.0001)).all()


@pytest.mark.parametrize("blocks", [1, 3, 132])
@pytest.mark.parametrize("D", [1, 70, 300])
@pytest.mark.parametrize("kind", ["halves", "bytes"])
def test_any_number_of_blocks_shares_the_tiles(rng, monkeypatch, products, blocks, D, kind):
    # Rows of tiles that begin within a block, blocks that begin within a row, and fewer chunks than the ring has slots.
    runtime = launcher.runtime()
    monkeypatch.setattr(runtime, "num_multiprocessors", blocks)
    queries, samples = (rng.random((rows, D), dtype=np.float32) for rows in (300, 400))
    if kind == "bytes":
        queries = np.rint(queries * 255) / 255
    sigmas = np.geomspace(0.2, 3, 5)
    found = compute("cupy", queries, samples, sigmas)
    np.testing.assert_allclose(found, written_out(queries, samples, sigmas), rtol=0, atol=0.001)
    assert products == [planes_tile.BYTES if kind == "bytes" else planes_tile.HALVES]


def test_what_is_no_byte_takes_the_other_way(rng, monkeypatch, products):
    monkeypatch.setattr("fastgan.kernels.parzen.cupy_raw._QUERIES_A_PASS", 10)
    HALVES, BYTES = planes_tile.HALVES, planes_tile.BYTES
    queries = rng.integers(0, 256, (20, 30)) / 255.0
    samples = rng.random((60, 30), dtype=np.float32)
    samples[:2, :3] = (0.0, 1.0, 2.0**-149), (1.0, 0.5, 1e-9)
    queries[3, 4] += 1e-9  # a rounding
    wanted = written_out(queries, samples, [0.3, 1.0])
    np.testing.assert_allclose(compute("cupy", queries, samples, [0.3, 1.0]), wanted, atol=1e-5)
    assert products == [BYTES, BYTES]
    for arrays, expected in (
        ((np.where(np.arange(20)[:, None] == 15, queries + 1e-6, queries), samples), [HALVES, HALVES]),
        ((queries, np.where(samples == 2.0**-149, -1e-30, samples)), [HALVES, HALVES]),
        ((queries, np.where(samples == 1.0, 1.0 + 1e-6, samples)), [HALVES, HALVES]),
    ):
        products.clear()
        found = compute("cupy", *arrays, [0.3, 1.0])
        np.testing.assert_allclose(found, written_out(*arrays, [0.3, 1.0]), rtol=0, atol=0.001)
        assert products == expected
    products.clear()
    # Sums of so many products of bytes would leave 32 bits.
    wide = np.ones((2, planes_tile.LONGEST_OF_BYTES + 1))
    np.testing.assert_allclose(compute("cupy", wide, 0 * wide, [50.0]), written_out(wide, 0 * wide, [50.0]), atol=0.01)
    assert products == [HALVES]


def test_the_longest_rows_of_bytes_are_exact(products):
    D = planes_tile.LONGEST_OF_BYTES
    ones = np.ones((1, D))
    np.testing.assert_allclose(compute("cupy", ones, ones, [30.0]), written_out(ones, ones, [30.0]), rtol=0, atol=1e-6)
    assert products == [planes_tile.BYTES]


def test_a_query_whose_nearest_distance_is_off_is_computed_anew(rng, monkeypatch):
    # As if the estimate had missed rows whose roundings all agree.
    monkeypatch.setattr("fastgan.kernels.parzen.cpu.product_error", lambda *_: 0.0)
    queries, samples = digit_like(rng, 100), digit_like(rng, 500)
    grey = np.repeat(rng.random((20, 1), dtype=np.float32), 784, axis=1)
    queries[40:60], samples[100:120] = grey, grey + np.float32(0.001)
    anew, tile_by_tile = [], cpu._tile_by_tile

    def noted(some_MD, *arguments, **options):
        if options:
            anew.append(some_MD)
        return tile_by_tile(some_MD, *arguments, **options)

    monkeypatch.setattr(cpu, "_tile_by_tile", noted)
    sigmas = np.array([0.1, 0.2, 0.3])
    found, wanted = compute("cpu", queries, samples, sigmas), written_out(queries, samples, sigmas)
    np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=0.01)
    np.testing.assert_allclose(found[1:], wanted[1:], rtol=0, atol=0.001)
    (some,) = anew
    assert len(some) < 50
    assert (some.std(axis=1) < 1e-6).sum() >= 10


def test_equal_terms_that_round_the_same_way_are_noticed(rng):
    # Plain grey images: the products' error is then twenty times that of any other data.
    queries, samples = (np.repeat(rng.random((n, 1), dtype=np.float32), 784, axis=1) for n in (200, 1500))
    sigmas = np.geomspace(0.02, 2, 30)
    found = compute("cpu", queries, samples, sigmas)
    np.testing.assert_allclose(found, written_out(queries, samples, sigmas), rtol=0, atol=0.01)


def test_what_the_products_are_off_by_is_measured_on_the_device(rng, monkeypatch, products):
    queries, samples = (np.repeat(rng.random((n, 1), dtype=np.float32), 784, axis=1) for n in (60, 100))
    sigmas = np.geomspace(0.02, 2, 10)
    found, wanted = compute("cupy", queries, samples, sigmas), written_out(queries, samples, sigmas)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.01)
    assert products == [planes_tile.HALVES]

    def measured(queries, samples):
        runtime, means = launcher.runtime(), samples.mean(axis=0, dtype=np.float64)
        norms = sum(float(np.square(rows - means).sum(axis=1).max()) for rows in (queries, samples))
        scale = 2.0 ** -np.round(0.5 * np.log2(norms))
        arrays = (runtime.upload(array) for array in (queries, samples))
        any_sigma = cupy_raw.Sigmas.of(np.ones(1), 1.0, np.zeros(1), np.zeros(1, np.intp))
        error = cupy_raw._product_error(*arrays, any_sigma, planes_tile.HALVES, runtime.upload(means), scale)
        return error / (norms * np.finfo(np.float32).eps)

    # Some roundings of the greatest norms, of equal terms too: the CPU's float32 product is off by 59 of those.
    for rows in ((queries, samples), (digit_like(rng, 60), digit_like(rng, 100))):
        assert 0.1 < measured(*rows) < 6
    # And it decides, for all queries from the first pass over some of them on.
    products.clear()
    monkeypatch.setattr(cupy_raw, "_product_error", lambda *_: 1e3)
    monkeypatch.setattr(cupy_raw, "_QUERIES_A_PASS", 25)
    np.testing.assert_allclose(compute("cupy", queries, samples, sigmas), wanted, rtol=0, atol=1e-6)
    assert products == [planes_tile.HALVES]


def test_the_nearest_sample_is_found_where_the_products_cannot_tell(either, rng):
    # Fifty samples around each query whose distances differ by less than a product's rounding; a window narrower still.
    queries = rng.random((10, 784))
    steps = rng.standard_normal((50, 10, 784))
    steps *= (0.03 + 1e-6 * rng.random((50, 10, 1))) / np.linalg.norm(steps, axis=2, keepdims=True)
    samples = (queries + steps).reshape(500, 784)
    found = compute(either, queries, samples, [1e-6])
    np.testing.assert_allclose(found, written_out(queries, samples, [1e-6]), rtol=1e-11)


def test_images_like_mnist_take_the_fast_way_wherever_they_lie(rng, monkeypatch):
    def slow(*_, size):
        raise AssertionError("the slow way was taken")

    monkeypatch.setattr("fastgan.kernels.parzen.cpu._accumulate_exactly", slow)
    for offset in (0.0, 1000.0):
        images = digit_like(rng, 50) + np.float32(offset)
        compute("cpu", images[:20], images[20:], np.geomspace(0.1, 1, 10))
    with pytest.raises(AssertionError, match="slow way"):
        compute("cpu", images[:20], images[20:], [0.01])


def test_one_sample_far_away_spoils_nothing(either, rng):
    queries, samples = rng.random((20, 30), dtype=np.float32), rng.random((60, 30), dtype=np.float32)
    samples[17] = 1e12
    found = compute(either, queries, samples, [0.1, 1.0])
    np.testing.assert_allclose(found, written_out(queries, samples, [0.1, 1.0]), atol=TOLERANCE[either])


def test_each_sigma_is_what_it_is_alone(either, rng):
    queries, samples, sigmas = rng.random((9, 3)), rng.random((20, 3)), [1e-4, 0.1, 0.5, 1.0]
    together = compute(either, queries, samples, sigmas)
    for s, sigma in enumerate(sigmas):
        np.testing.assert_allclose(together[s], compute(either, queries, samples, [sigma])[0], rtol=1e-12)


def test_the_same_bits_every_time(either, rng):
    queries, samples = rng.random((70, 20), dtype=np.float32), rng.random((1500, 20), dtype=np.float32)
    once = compute(either, queries, samples, [0.001, 0.1, 1.0])
    assert once.tobytes() == compute(either, queries, samples, [0.001, 0.1, 1.0]).tobytes()


def test_a_density_integrates_to_one(either, rng):
    grid = np.linspace(-5, 6, 2001)[:, None]
    density = np.exp(compute(either, grid, rng.random((7, 1)), [0.4])[0])
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("sigmas", [[0.5], [1e-3], [1e-3, 0.5]])
def test_nan_passes_on_and_infinity_is_infinitely_far(either, rng, sigmas):
    queries, samples = rng.random((6, 4)), rng.random((1500, 4))
    clean = compute(either, queries, samples, sigmas)
    queries[2, 1], queries[4, 3] = np.nan, np.inf
    found = compute(either, queries, samples, sigmas)
    assert np.isnan(found[:, 2]).all()
    assert (found[:, 4] == -np.inf).all()
    kept = [0, 1, 3, 5]
    np.testing.assert_allclose(found[:, kept], clean[:, kept], rtol=1e-10, atol=TOLERANCE[either])
    without = compute(either, queries[kept], np.delete(samples, 700, axis=0), sigmas)
    samples[700, 0] = np.inf
    found = compute(either, queries[kept], samples, sigmas)
    np.testing.assert_allclose(found, without + np.log(1499 / 1500), rtol=1e-10, atol=TOLERANCE[either])
    samples[700, 0] = np.nan
    assert np.isnan(compute(either, queries[kept], samples, sigmas)).all()


def test_progress_counts_every_query(either, rng, monkeypatch):
    monkeypatch.setattr("fastgan.kernels.parzen.cupy_raw._QUERIES_A_PASS", 1000)
    counted = []
    compute(either, rng.random((2200, 2)), rng.random((5, 2)), [1.0], counted.append)
    assert sum(counted) == 2200
    assert len(counted) > 1


@pytest.mark.parametrize("sigmas", [[0.01], [0.5]])
def test_memory_is_the_tiles_and_the_outputs(sigmas):
    # Scaled down from 100,000 x 100,000 x 784, where a second copy of the samples would be 314 MB.
    compute("cpu", np.ones((300, 784), np.float32), np.zeros((10_000, 784), np.float32), sigmas)  # not meant: compiling
    peaks = []
    for num_samples in (2_000, 10_000):
        samples = np.zeros((num_samples, 784), np.float32)
        queries = np.ones((300, 784), np.float32)
        tracemalloc.start()
        compute("cpu", queries, samples, sigmas)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 10e6
    # Eight bytes a sample for its norm, where the samples themselves take 3136.
    assert peaks[1] - peaks[0] < 8_000 * 16


def test_wide_rows_take_smaller_tiles(rng, monkeypatch):
    monkeypatch.setattr("fastgan.kernels.parzen.cpu._NUMBERS_A_TILE", 1 << 17)
    monkeypatch.setattr("fastgan.kernels.parzen.cpu.PROBED_NUMBERS", 1 << 15)
    queries, samples = rng.random((150, 2000), dtype=np.float32), rng.random((300, 2000), dtype=np.float32)
    # What is compiled is loaded before.
    compute("cpu", queries[:5], samples[:5], [1.0, 0.01])
    tracemalloc.start()
    found = compute("cpu", queries, samples, [1.0, 0.01])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found, written_out(queries, samples, [1.0, 0.01]), rtol=1e-10, atol=0.01)
    # Two tiles of 65 rows, half a megabyte each, and one packed; tiles of all rows would be 3.6, and 1.2 packed.
    assert peak < 3e6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_ND": np.zeros((0, 2))}, "^samples has no rows"),
        ({"samples_ND": np.zeros((4, 3))}, r"^samples has shape \(4, 3\); it must be \(any, 2\)"),
        ({"samples_ND": np.zeros((2, 4)).T}, "^samples is not C-contiguous"),
        ({"queries_MD": np.zeros((3, 0)), "samples_ND": np.zeros((4, 0))}, "^queries has no columns"),
        ({"sigmas_S": np.zeros(1)}, r"^sigmas is \[0.0\]; it must hold finite numbers > 0"),
        ({"sigmas_S": np.array([-1.0])}, r"^sigmas is \[-1.0\]; it must hold finite numbers > 0"),
        ({"sigmas_S": np.array([1.0, np.nan])}, "^sigmas is"),
        ({"sigmas_S": np.array([1.0, np.inf])}, "^sigmas is"),
        ({"sigmas_S": np.array([1.0, 1e-101])}, r"^sigmas is .*; each must lie between 1e-100 and 1e\+100"),
        ({"sigmas_S": np.array([1e101])}, "^sigmas is .*; each must lie between"),
        ({"sigmas_S": np.zeros(0)}, "^sigmas is"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    arguments = {"queries_MD": np.zeros((3, 2)), "samples_ND": np.zeros((4, 2)), "sigmas_S": np.ones(1)}
    with pytest.raises(ValueError, match=message):
        parzen.log_density(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([[1.0, 2.0]], "^samples is a list; it must be an array"),
        (np.zeros((4, 2), np.uint8), "^samples has dtype uint8; it must be float32 or float64"),
        (np.zeros((4, 2), np.float16), "^samples has dtype float16"),
    ],
)
def test_only_floats_in_arrays_are_taken(samples, message):
    with pytest.raises(TypeError, match=message):
        parzen.log_density(np.zeros((3, 2)), samples, np.ones(1))


class Exporter:
    """Hands out a NumPy array's memory by DLPack, as another library would; and says it lies where the test likes."""

    def __init__(self, array, kind=1):
        self.array, self.kind = array, kind

    def __dlpack_device__(self):
        return self.kind, 0

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


class CudaExporter:
    """Says by the CUDA array interface that it lies on a GPU."""

    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (4096, False), "version": 3,
        }  # fmt: skip


def test_what_speaks_dlpack_is_read_where_it_lies(rng, monkeypatch):
    queries, samples = rng.random((5, 3)), rng.random((8, 3), dtype=np.float32)
    seen = []

    def spy(queries_MD, samples_ND, sigmas_S, progress):
        seen.extend([queries_MD, samples_ND])
        return np.zeros((1, 5))

    monkeypatch.setattr("fastgan.kernels.parzen.reference.log_density", spy)
    parzen.log_density(Exporter(queries), Exporter(samples), Exporter(np.ones(1)), backend="reference")
    assert np.shares_memory(seen[0], queries)
    assert np.shares_memory(seen[1], samples)
    monkeypatch.undo()
    found = parzen.log_density(Exporter(queries), Exporter(samples), Exporter(np.ones(1)))
    np.testing.assert_array_equal(found, parzen.log_density(queries, samples, np.ones(1)))


def test_tensors_of_pytorch_are_read_where_they_lie(rng):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(rng.random((8, 3)))
    host = exchange.to_host("samples", tensor)
    host[0, 0] = 7.0
    assert tensor[0, 0] == 7.0
    found = parzen.log_density(tensor, tensor, np.ones(1))
    np.testing.assert_array_equal(found, parzen.log_density(host, host, np.ones(1)))
    with pytest.raises(TypeError, match=r"samples is a Tensor that NumPy cannot share: .*gradient"):
        parzen.log_density(host, tensor.requires_grad_(), np.ones(1))
    with pytest.raises(TypeError, match="samples is a Tensor that NumPy cannot share"):
        parzen.log_density(host, torch.zeros((2, 3), dtype=torch.bfloat16), np.ones(1))


def test_a_memory_map_and_a_read_only_array_will_do(either, rng, tmp_path):
    np.save(tmp_path / "samples.npy", rng.random((8, 3)))
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    host = exchange.to_host("samples", mapped)
    assert type(host) is np.ndarray
    assert np.shares_memory(host, mapped)
    np.testing.assert_array_equal(compute(either, host, host, [0.2]), compute(either, host.copy(), host.copy(), [0.2]))


@pytest.mark.parametrize("array", [CudaExporter(np.zeros((4, 2))), Exporter(np.zeros((4, 2)), kind=2)])
def test_without_cupy_an_array_of_a_gpu_is_refused_by_the_extras_name(monkeypatch, array):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match=r"samples lies on a CUDA device.*pip install 'cupy-cuda12x\[ctk\]'"):
        parzen.log_density(np.zeros((3, 2)), array, np.ones(1))


@pytest.mark.parametrize("exporter", [CudaExporter, lambda array: Exporter(array, kind=2)])
def test_with_cupy_an_array_of_a_gpu_comes_to_the_host(monkeypatch, rng, exporter):
    # CuPy's own three names that are called, over the host's memory.
    def unwrap(exported):
        return exported.array

    cupy = types.SimpleNamespace(asarray=unwrap, from_dlpack=unwrap, asnumpy=np.array)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    queries, samples = rng.random((5, 3)), rng.random((8, 3))
    found = parzen.log_density(queries, exporter(samples), np.ones(1))
    np.testing.assert_array_equal(found, parzen.log_density(queries, samples, np.ones(1)))


def test_another_device_and_an_owner_that_refuses_are_said(monkeypatch):
    with pytest.raises(BackendError, match="samples lies on a device of DLPack's kind 8, which is not read"):
        parzen.log_density(np.zeros((3, 2)), Exporter(np.zeros((4, 2)), kind=8), np.ones(1))

    class Refusing(Exporter):
        def __dlpack__(self, **options):
            raise BufferError("it is in use")

    with pytest.raises(TypeError, match="samples is a Refusing that NumPy cannot share: it is in use"):
        parzen.log_density(np.zeros((3, 2)), Refusing(np.zeros((4, 2))), np.ones(1))
