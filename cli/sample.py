"""``fastgan sample``."""

from __future__ import annotations

import click

from fastgan.cli.common import (
    ARRAY_SUFFIXES,
    SEED,
    as_images,
    check_out,
    data_dir_option,
    echo_path,
    open_run,
    run_argument,
    write_arrays,
    write_file,
)  # fmt: skip


@click.command("sample")
@run_argument
@click.option("--rows", type=click.IntRange(min=1), help="Rows of the grid.  [default: 4]")
@click.option("--columns", type=click.IntRange(min=1), help="Columns of the grid.  [default: 6]")
@click.option(
    "--num", type=click.IntRange(min=1), help="How many samples, in place of --rows.  [default: rows · columns]"
)
@click.option(
    "--nearest",
    is_flag=True,
    help="Add the nearest training image (squared L2): in a grid beside the last sample "
    "of each row, as in the paper's figure 2; in a .npz or .h5 file one for each sample.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="The same seed, the same samples.")
@data_dir_option
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help=".png for a grid; .npy, .npz or .h5 for the arrays: images (N, H, W), in colour (N, H, W, 3), float32.",
)
def command(
    run: str | None,
    runs_dir: str,
    checkpoint: str,
    rows: int | None,
    columns: int | None,
    num: int | None,
    nearest: bool,
    seed: int,
    data_dir: str | None,
    out: str,
) -> None:
    """Draw samples from a trained generator: fair random draws, not picked.

    RUN is a run's folder, name or number; by default the newest.

    \b
      fastgan sample --out samples.png
      fastgan sample 3 --rows 8 --columns 8 --nearest --out figure2.png
      fastgan sample --num 10000 --out samples.npy
    """  # noqa: D301
    path = check_out(out, (".png", *ARRAY_SUFFIXES))
    is_grid = path.suffix.lower() == ".png"
    if num is not None and rows is not None:
        raise click.UsageError("--num and --rows exclude each other; give one of them.")
    if nearest and path.suffix.lower() == ".npy":
        raise click.UsageError("--nearest needs room for more than one array; end --out in .png, .npz or .h5.")
    columns = columns or 6
    total = num or (rows or 4) * columns
    if nearest and is_grid and total % columns:
        raise click.UsageError(f"--nearest in a grid needs whole rows; {total} samples do not fill rows of {columns}.")

    loaded = open_run(run, runs_dir, checkpoint)
    dataset = None
    if nearest:
        from fastgan.cli.data import DownloadProgress

        with DownloadProgress() as progress:
            dataset = loaded.load_dataset(data_dir, progress=progress)

    from fastgan import figures, pictures

    if is_grid:
        picture = pictures.samples(loaded, total, columns, seed=seed, nearest_in=dataset)
        write_file(path, figures.to_png(picture))
    else:
        import numpy as np

        samples = loaded.generator.sample(total, seed)
        arrays = {"images": np.ascontiguousarray(as_images(samples, loaded.image_shape))}
        if dataset is not None:
            neighbours = pictures.nearest_images(samples, dataset)
            arrays["nearest"] = np.ascontiguousarray(as_images(neighbours, loaded.image_shape))
        write_arrays(path, arrays)
    echo_path(path)
