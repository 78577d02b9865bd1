import numpy as np
import pytest

from fastgan.kernels import nearest


@pytest.mark.parametrize(("M", "N", "D"), [(1, 1, 1), (5, 7, 3), (20, 5000, 11), (3, 4097, 2)])
def test_the_nearest_by_direct_differences(backend, rng, M, N, D):
    queries, samples = rng.normal(size=(M, D)).astype(np.float32), rng.normal(size=(N, D)).astype(np.float32)
    distances = ((queries[:, None].astype(np.float64) - samples[None]) ** 2).sum(-1)
    assert (nearest.indices(queries, samples, backend=backend) == distances.argmin(1)).all()


def test_the_lowest_of_equally_near_ones(backend):
    samples = np.zeros((9000, 2), np.float32)
    samples[:3] = 5
    assert nearest.indices(np.zeros((2, 2), np.float32), samples, backend=backend).tolist() == [3, 3]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"^samples has no rows"):
        nearest.indices(np.zeros((1, 2)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"^samples has shape \(1, 3\); it must be \(any, 2\)"):
        nearest.indices(np.zeros((1, 2)), np.zeros((1, 3)))
