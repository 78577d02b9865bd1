"""``fastgan parzen``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from fastgan.cli.common import (
    BACKENDS,
    SEED,
    StatusLine,
    check_out,
    data_dir_option,
    duration,
    fold_option,
    open_run,
    run_argument,
    tell,
    write_file,
)
from fastgan.errors import DataError, RunError

if TYPE_CHECKING:
    from fastgan.scoring import ParzenScore


@click.command("parzen")
@run_argument
@click.option(
    "--samples",
    metavar="FILE",
    help="Score the samples in a .npy, .npz or .h5 file, of any model, in place of a "
    "run's: (N, D), (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1].",
)
@click.option(
    "--dataset",
    metavar="NAME|FILE",
    help="What they are scored against.  [default: the run's own; needed with --samples]",
)
@data_dir_option
@fold_option
@click.option("--sigma-grid", is_flag=True, help="Print every sigma of the grid with its validation score.")
@click.option(
    "--sigma-range",
    nargs=3,
    type=(float, float, int),
    metavar="LOW HIGH COUNT",
    help="A grid of your own, evenly spaced in the logarithm, in place of the paper's 0.1 1 10; every row is printed.",
)
@click.option("--sigma", type=float, help="Use this sigma; none is chosen.")
@click.option(
    "--refine", is_flag=True, help="Search on between the neighbours of the grid's best sigma; every row is printed."
)
@click.option(
    "--baselines",
    is_flag=True,
    help="Score real training images and k-means centroids of them too, as many of the first as there are "
    "samples, 1,000 of the second or one for every ten images: what a score is worth shows beside them.",
)
@click.option("--plot", metavar="FILE.png", help="Draw validation log-likelihood over sigma.")
@click.option("--num-samples", type=click.IntRange(min=2), help="How many samples a run draws.  [default: 10000]")
@click.option("--seed", type=SEED, help="Seed of those samples.  [default: 0]")
@click.option("--backend", type=BACKENDS, default="auto", show_default=True, help="What computes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def command(
    run: str | None,
    runs_dir: str,
    checkpoint: str,
    samples: str | None,
    dataset: str | None,
    data_dir: str | None,
    fold: int | None,
    sigma_grid: bool,
    sigma_range: tuple[float, float, int] | None,
    sigma: float | None,
    refine: bool,
    baselines: bool,
    plot: str | None,
    num_samples: int | None,
    seed: int | None,
    backend: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score samples by a Parzen-window log-likelihood, as the paper's Table 1 does.

    A Gaussian window stands on each of 10,000 samples; its sigma is chosen from ten values, .1 to 1, by the mean
    log-likelihood of validation data; the score is the mean over the whole test set, ± its standard error, in nats.
    Higher is better. RUN is a run's folder, name or number; by default the newest. Its folder keeps the score, which
    its report shows, unless --seed, --num-samples, --sigma, --sigma-range, --dataset or --checkpoint made it another
    one.

    \b
      fastgan parzen --sigma-grid
      fastgan parzen 3 --json
      fastgan parzen --samples mine.npy --dataset mnist --baselines
    """  # noqa: D301
    _check_together(run, samples, dataset, sigma_grid, sigma_range, sigma, refine, plot, num_samples, seed)
    plot_path = None if plot is None else check_out(plot, (".png",), "--plot")

    from fastgan import datasets, scoring
    from fastgan.cli.data import DownloadProgress

    try:
        sigmas = None if sigma_range is None else scoring.sigma_grid(*sigma_range)
        if refine and sigmas is not None and len(set(sigmas)) < 2:
            raise ValueError("--refine searches between the neighbours of the best, so it needs a grid of two or more")
        if sigma is not None:
            scoring.check_sigma(sigma)
    except ValueError as error:
        raise click.BadParameter(
            str(error), param_hint="'--sigma'" if sigma_range is None else "'--sigma-range'"
        ) from error
    if plot_path is not None:
        scoring.check_plots()
    if samples is not None:
        assert dataset is not None
        # Read first: what does not fit need not be downloaded for.
        drawn, source = scoring.read_samples(samples), samples
        scoring.check_size(drawn.shape[1], dataset)
        with DownloadProgress() as download:
            data = datasets.load(dataset, data_dir=data_dir, progress=None if quiet else download, fold=fold)
        if data.contrast is not None:
            # A file's images lie in [0, 1], as the data's own did before this was done to them.
            drawn = datasets.normalise_contrast(drawn, data.contrast)
    else:
        loaded = open_run(run, runs_dir, checkpoint, backend)
        source = f"{loaded.path}, step {loaded.step}"
        with DownloadProgress() as download:
            progress = None if quiet else download
            if dataset is not None:
                scoring.check_size(math.prod(loaded.image_shape), dataset)
            if dataset is None:
                data = loaded.load_dataset(data_dir, fold=fold, progress=progress)
            else:
                data = datasets.load(dataset, data_dir=data_dir, progress=progress, fold=fold)
        if loaded.contrast is not None and data.contrast != loaded.contrast:
            raise DataError(
                f"The run draws images that are normalised in contrast and those of {data.name} are not; score it "
                f"against {loaded.config.dataset}, or leave --dataset out"
            )
        drawn = loaded.generator.sample(num_samples or scoring.NUM_SAMPLES, seed or 0)
        if loaded.contrast is None and data.contrast is not None:
            drawn = datasets.normalise_contrast(drawn, data.contrast)

    status = StatusLine(quiet)
    score = scoring.parzen(
        drawn,
        data,
        sigma=sigma,
        sigmas=sigmas,
        backend=backend,
        refine=refine,
        baselines=baselines,
        # A file is held to the data's range; what a run's own generator may draw, it may be scored by.
        any_range=samples is None,
        progress=_progress(status),
    )
    status.clear()
    # A look at other or fewer samples, or at a sigma of one's own, does not take the place of the run's score.
    usual_samples = num_samples in (None, scoring.NUM_SAMPLES) and not seed
    by_the_protocol = usual_samples and sigma is None and sigmas is None
    if samples is None and dataset is None and checkpoint == "latest" and by_the_protocol:
        from fastgan.training import record_score

        try:
            record_score(loaded, score.to_json())
        except RunError as error:
            tell(f"Warning: {error}")
    if as_json:
        click.echo(json.dumps(score.to_json(), indent=2, allow_nan=False))
    else:
        _print(score, sigma_grid or sigma_range is not None or refine)
        if not quiet:
            tell(f"{source}: {duration(score.seconds)} with {score.backend}")
    # Last: a file that cannot be written takes nothing else with it.
    if plot_path is not None:
        write_file(plot_path, scoring.plot_sigmas(score))
        if not quiet:
            tell(f"The curve of sigma is in {plot_path}")


def _print(score: ParzenScore, with_grid: bool) -> None:
    if with_grid:
        _print_grid(score)
    click.echo(
        f"{score.log_likelihood:.2f} ± {score.standard_error:.2f} nats: {score.dataset} {score.split} data under "
        f"{score.num_samples} samples, sigma {score.sigma:.4g}"
    )
    if score.baselines is not None:
        _print_baselines(score)


def _check_together(
    run: str | None,
    samples: str | None,
    dataset: str | None,
    sigma_grid: bool,
    sigma_range: tuple[float, float, int] | None,
    sigma: float | None,
    refine: bool,
    plot: str | None,
    num_samples: int | None,
    seed: int | None,
) -> None:
    source = click.get_current_context().get_parameter_source
    given = {name: source(name) == ParameterSource.COMMANDLINE for name in ("checkpoint", "runs_dir")}
    for left, right, both in (
        ("RUN", "--samples", run is not None and samples is not None),
        ("--num-samples", "--samples", num_samples is not None and samples is not None),
        ("--seed", "--samples", seed is not None and samples is not None),
        ("--checkpoint", "--samples", given["checkpoint"] and samples is not None),
        ("--runs", "--samples", given["runs_dir"] and samples is not None),
        ("--sigma", "--sigma-grid", sigma is not None and sigma_grid),
        ("--sigma", "--sigma-range", sigma is not None and sigma_range is not None),
        ("--sigma", "--refine", sigma is not None and refine),
        ("--sigma", "--plot", sigma is not None and plot is not None),
    ):
        if both:
            raise click.UsageError(f"{left} and {right} exclude each other; give one of them.")
    if samples is not None and dataset is None:
        raise click.UsageError("--samples needs --dataset: what are the samples to be scored against?")


_BAR = 24


def _progress(status: StatusLine, clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """Show a bar and the time left, judged by the time that what is done has taken."""
    started = clock()

    def show(done: int, total: int) -> None:
        filled = _BAR * done // total
        left = (clock() - started) / done * (total - done) if done else 0.0
        status.show(f"[{'#' * filled}{'.' * (_BAR - filled)}] {done} of {total} images, {duration(left)} left")

    return show


def _print_grid(score: ParzenScore) -> None:
    assert score.sigma_grid is not None
    click.echo("sigma     validation nats ± standard error")
    for sigma, nats, error in score.trials():
        # Of the search's own trials only the one that won says anything.
        if sigma in score.sigma_grid or sigma == score.sigma:
            refined = "" if sigma in score.sigma_grid else ", refined"
            mark = f"  chosen{refined}" if sigma == score.sigma else ""
            click.echo(f"{sigma:<8.4g}  {nats:15.2f} ± {error:.2f}{mark}")


def _print_baselines(score: ParzenScore) -> None:
    from fastgan import scoring

    assert score.baselines is not None
    click.echo(f"\nsamples            number  sigma     {score.split + ' nats':>12} ± standard error")
    these = scoring.Baseline("these", score.num_samples, score.sigma, score.log_likelihood, score.standard_error)
    for row in (these, *score.baselines):
        nats = f"{row.log_likelihood:12.2f} ± {row.standard_error:.2f}"
        click.echo(f"{row.name:<17}  {row.num_samples:6}  {row.sigma:<8.4g}  {nats}")
