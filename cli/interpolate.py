"""``fastgan interpolate``."""

from __future__ import annotations

import click

from fastgan.cli.common import (
    ARRAY_SUFFIXES,
    SEED,
    as_images,
    check_out,
    echo_path,
    open_run,
    run_argument,
    write_arrays,
    write_file,
)  # fmt: skip


@click.command("interpolate")
@run_argument
@click.option(
    "--rows", type=click.IntRange(min=1), default=6, show_default=True, help="How many lines through noise space."
)
@click.option(
    "--columns", type=click.IntRange(min=2), default=10, show_default=True, help="Points on each, ends included."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="The same seed, the same ends.")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help=".png for a grid; .npy, .npz or .h5 for the images "
    "(rows · columns, H, W), in colour (rows · columns, H, W, 3), float32.",
)
def command(run: str | None, runs_dir: str, checkpoint: str, rows: int, columns: int, seed: int, out: str) -> None:
    """Walk in straight lines through noise space, as in the paper's figure 3: a line a row, its ends fair draws of z.

    RUN is a run's folder, name or number; by default the newest.

    \b
      fastgan interpolate --out figure3.png
    """  # noqa: D301
    path = check_out(out, (".png", *ARRAY_SUFFIXES))
    loaded = open_run(run, runs_dir, checkpoint)

    from fastgan import figures, pictures
    from fastgan.memory import check_memory

    num_values = loaded.generator.num_inputs + loaded.generator.num_outputs
    check_memory(4 * rows * columns * num_values, f"{rows * columns:,} images of {loaded.generator.num_outputs} pixels")
    if path.suffix.lower() == ".png":
        write_file(path, figures.to_png(pictures.interpolation(loaded, rows, columns, seed=seed)))
    else:
        import numpy as np

        images = as_images(pictures.interpolated(loaded, rows, columns, seed=seed), loaded.image_shape)
        write_arrays(path, {"images": np.ascontiguousarray(images)})
    echo_path(path)
