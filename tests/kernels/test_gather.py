import numpy as np
import pytest

from fastgan.kernels import gather


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 100, 1197, 1797, 8192, 8193, 50_000, 98_058])
def test_an_epochs_order_is_a_permutation(backend, num_rows):
    order = gather.order(num_rows, seed=3, epoch=1, start=0, count=num_rows, backend=backend)
    assert (np.sort(order) == np.arange(num_rows)).all()


def test_any_place_of_the_order_by_itself(backend):
    whole = gather.order(20_000, seed=3, epoch=2, start=0, count=20_000, backend=backend)
    for start, count in ((0, 1), (19_999, 1), (8_100, 200), (5, 0), (100, 17_000)):
        part = gather.order(20_000, seed=3, epoch=2, start=start, count=count, backend=backend)
        assert (part == whole[start : start + count]).all()


def test_epochs_and_seeds_have_orders_of_their_own(backend):
    orders = {
        gather.order(1000, seed=seed, epoch=epoch, start=0, count=1000, backend=backend).tobytes()
        for seed in (0, 1, 2**40)
        for epoch in (1, 2, 3)
    }
    assert len(orders) == 9


def test_the_order_is_fixed():
    # Runs that were begun depend on it, and every backend has to give it.
    assert gather.order(10, seed=0, epoch=1, start=0, count=10).tolist() == ORDER_OF_TEN
    assert gather.order(50_000, seed=1, epoch=2, start=49_995, count=5).tolist() == ORDER_OF_MNIST


ORDER_OF_TEN = [3, 2, 9, 0, 4, 1, 5, 6, 8, 7]
ORDER_OF_MNIST = [8204, 49696, 44395, 22162, 8281]


def test_every_row_goes_to_every_place_equally_often(backend):
    n, epochs = 20, 500
    counts = np.zeros((n, n))
    for epoch in range(1, epochs + 1):
        counts[np.arange(n), gather.order(n, seed=5, epoch=epoch, start=0, count=n, backend=backend)] += 1
    expected = epochs / n
    # (n - 1)^2 = 361 degrees of freedom, as rows and columns of the table have fixed sums: mean 361, deviation 27.
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - 361) < 4 * 27


@pytest.mark.parametrize(("dtype", "divisor"), [(np.uint8, 255), (np.uint8, 16), (np.float32, 1)])
def test_rows_are_gathered_and_divided(backend, rng, dtype, divisor):
    data = rng.integers(0, 17, (57, 10)).astype(dtype)
    epoch, start = np.array([4], np.int64), np.array([20], np.int64)
    out = np.empty((8, 10), np.float32)
    gather.rows(data, divisor, out, seed=9, epoch=epoch, start=start, start_offset=6, backend=backend)
    order = gather.order(57, seed=9, epoch=4, start=26, count=8, backend=backend)
    assert (out == data[order].astype(np.float32) / np.float32(divisor)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_rows": 0}, "^num_rows is 0"),
        ({"start": 8, "count": 3}, "^places 8 to 11"),
        ({"start": -1}, "^places -1"),
    ],
)
def test_places_that_there_are_not(changes, message):
    with pytest.raises(ValueError, match=message):
        gather.order(**{"num_rows": 10, "seed": 0, "epoch": 1, "start": 0, "count": 1, **changes})


def test_a_divisor_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"^divisor is 0"):
        gather.rows(np.zeros((3, 2), np.uint8), 0, np.zeros((1, 2), np.float32), seed=0, epoch=1, start=0)
