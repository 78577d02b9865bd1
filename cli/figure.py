"""``fastgan figure``."""

from __future__ import annotations

import click

from fastgan.cli.common import (
    BACKENDS,
    SEED,
    StatusLine,
    check_out,
    data_dir_option,
    echo_path,
    open_run,
    run_argument,
    write_file,
)  # fmt: skip

_OUT = click.option("--out", required=True, metavar="FILE.png", help="Where the picture goes.")


@click.group("figure")
def command() -> None:
    """Draw the paper's figures.

    \b
      fastgan figure 1 --out figure1.png      a game on the line, played live
      fastgan figure 2 --out figure2.png      samples of the newest run, and the nearest training images
      fastgan figure 3 --out figure3.png      its digits along straight lines through noise space
    """  # noqa: D301


@command.command("1")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The same seed, the same game.")
@click.option("--backend", type=BACKENDS, default="auto", show_default=True, help="What computes.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@_OUT
def figure_1(seed: int, backend: str, quiet: bool, out: str) -> None:
    """Play the one-dimensional game and draw it at four moments: p_data, p_g, D and D*, and the arrows from z to x.

    Below them C(G), the value of the game under the optimal D, on its way to -log 4. It takes some twenty seconds, and
    needs matplotlib: pip install matplotlib.
    """
    path = check_out(out, (".png",))
    from fastgan import game
    from fastgan.scoring import check_plots

    check_plots()
    status = StatusLine(quiet)
    played = game.play(seed, backend, lambda done, total: status.show(f"update {done} of {total}"))
    status.clear()
    write_file(path, game.plot(played))
    echo_path(path)


@command.command("2")
@run_argument
@click.option("--seed", type=SEED, default=0, show_default=True, help="The same seed, the same samples.")
@data_dir_option
@_OUT
def figure_2(run: str | None, runs_dir: str, checkpoint: str, seed: int, data_dir: str | None, out: str) -> None:
    """Draw four rows of five samples, each row's last beside the training image nearest to it (squared L2), framed.

    They are fair random draws, not picked. RUN is a run's folder, name or number; by default the newest.
    `fastgan sample --nearest` draws grids of other sizes.
    """
    path = check_out(out, (".png",))
    loaded = open_run(run, runs_dir, checkpoint)
    from fastgan import figures, pictures
    from fastgan.cli.data import DownloadProgress

    with DownloadProgress() as progress:
        dataset = loaded.load_dataset(data_dir, progress=progress)
    write_file(path, figures.to_png(pictures.figure_2(loaded, dataset, seed=seed)))
    echo_path(path)


@command.command("3")
@run_argument
@click.option("--seed", type=SEED, default=0, show_default=True, help="The same seed, the same ends.")
@_OUT
def figure_3(run: str | None, runs_dir: str, checkpoint: str, seed: int, out: str) -> None:
    """Draw images along straight lines through noise space, a line a row; their ends are fair draws of z.

    RUN is a run's folder, name or number; by default the newest. `fastgan interpolate` draws grids of other sizes.
    """
    path = check_out(out, (".png",))
    loaded = open_run(run, runs_dir, checkpoint)
    from fastgan import figures, pictures

    write_file(path, figures.to_png(pictures.figure_3(loaded, seed=seed)))
    echo_path(path)
