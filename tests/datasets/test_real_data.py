import numpy as np
import pytest

from fastgan import datasets

pytestmark = pytest.mark.real_data


def test_real_mnist(real_mnist_folder):
    mnist = datasets.load("mnist", data_dir=real_mnist_folder)
    assert {name: len(split) for name, split in mnist.splits.items()} == {
        "train": 50_000,
        "valid": 10_000,
        "test": 10_000,
    }
    assert mnist.image_shape == (1, 28, 28)
    assert mnist.num_validation == 1000
    # Known of MNIST: the first labels, and the mean pixel of the 60,000 training images.
    assert mnist.splits["train"].labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.splits["test"].labels[:5].tolist() == [7, 2, 1, 0, 4]
    means = mnist.pixel_means("train").mean() * 5 / 6 + mnist.pixel_means("valid").mean() / 6
    assert round(float(means), 4) == 0.1307
    assert np.bincount(mnist.splits["train"].labels).min() > 4000
