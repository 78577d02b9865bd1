"""Pictures of a run, the paper's figures 2 and 3: samples with their nearest training images, and lines through noise.

All are fair draws: the seed is given, and nothing is looked at before it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastgan import datasets, figures
from fastgan.kernels import nearest as nearest_kernel
from fastgan.runs import Run

if TYPE_CHECKING:
    import PIL.Image

# The released scripts' grid, and the paper's figure 3 made wide enough to be looked at.
FIGURE_2_ROWS, FIGURE_2_COLUMNS = 4, 5
FIGURE_3_ROWS, FIGURE_3_COLUMNS = 6, 10


def nearest_images(samples_MD: NDArray[np.float32], dataset: datasets.Dataset) -> NDArray[np.float32]:
    """Find the training image nearest to each sample by squared L2, both as the networks see them.

    Parameters
    ----------
    samples_MD : (M, D) float32
        The samples.
    dataset : Dataset
        The data; its "train" split is searched.

    Returns
    -------
    (M, D) float32
    """
    training_ND = dataset.splits["train"].as_float32()
    return training_ND[nearest_kernel.indices(np.ascontiguousarray(samples_MD), training_ND)]


def samples(
    run: Run, num: int, num_columns: int, *, seed: int = 0, nearest_in: datasets.Dataset | None = None
) -> PIL.Image.Image:
    """Draw a grid of samples; with the data at hand as figure 2: each row's last sample beside its nearest image.

    Parameters
    ----------
    run : Run
        Whose generator draws.
    num : int
        How many samples, whole rows of them where their neighbours are wanted.
    num_columns : int
        Samples in a row.
    seed : int
        Of the noise.
    nearest_in : Dataset, optional
        What the run was trained on.
    """
    images = run.generator.sample(num, seed)
    shown = figures.display_pixels(images, run.contrast)
    if nearest_in is None:
        return figures.grid(shown, run.image_shape, num_columns)
    neighbours = nearest_images(images[num_columns - 1 :: num_columns], nearest_in)
    neighbours = figures.display_pixels(neighbours, run.contrast, scaled_as=images)
    return figures.grid_with_nearest(shown, neighbours, run.image_shape, num_columns)


def interpolated(run: Run, num_rows: int, num_columns: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Generate along straight lines through noise space, their ends fair draws of z.

    Parameters
    ----------
    run : Run
        Whose generator draws.
    num_rows, num_columns : int
        Lines, and points on each, its ends included.
    seed : int
        Of the ends.

    Returns
    -------
    (num_rows · num_columns, D) float32
        Line by line.
    """
    ends = run.generator.sample_noise(2 * num_rows, seed)
    return run.generator.generate(figures.interpolation(ends[0::2], ends[1::2], num_columns).astype(np.float32))


def interpolation(run: Run, num_rows: int, num_columns: int, *, seed: int = 0) -> PIL.Image.Image:
    """Draw what ``interpolated`` gives, a line a row: figure 3."""
    images = interpolated(run, num_rows, num_columns, seed=seed)
    return figures.grid(figures.display_pixels(images, run.contrast), run.image_shape, num_columns)


def figure_2(run: Run, dataset: datasets.Dataset, *, seed: int = 0) -> PIL.Image.Image:
    """Draw figure 2 as the released scripts do: four rows of five samples, and the last one's nearest image."""
    num = FIGURE_2_ROWS * FIGURE_2_COLUMNS
    return samples(run, num, FIGURE_2_COLUMNS, seed=seed, nearest_in=dataset)


def figure_3(run: Run, *, seed: int = 0) -> PIL.Image.Image:
    """Draw figure 3: six lines of ten images."""
    return interpolation(run, FIGURE_3_ROWS, FIGURE_3_COLUMNS, seed=seed)
