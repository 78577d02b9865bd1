"""``python -m bench plots``: draw how the cost of a step grows, from the CSV files of the scale comparisons."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import COLUMNS, RESULTS, ROOT, BenchError

PLOTS = ROOT / "docs" / "plots"
# Comparison -> title, and what the horizontal axis is.
DRAWN = {
    "scale-batch": ("A step and the batch", "B, rows of data in a batch"),
    "scale-width": ("A step and the width of the networks", "U, maxout units in a layer"),
    "scale-pieces": ("A step and the pieces of maxout", "P, pieces of a unit"),
    "scale-rows": ("Loading, start-up, a step, and the size of the data", "N, images of 64 pixels"),
}
# Okabe and Ito's colours that stand out on white, for eyes of all kinds.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_WIDTH, _HEIGHT, _DOTS_PER_INCH = 7.5, 4.5, 150
# The least distance between two labels, in lines of text.
_LINE = 1.25


def draw_all(results: Path = RESULTS, plots: Path = PLOTS) -> list[Path]:
    """Draw every scale comparison that has results: a panel for each device, a line for each case.

    Parameters
    ----------
    results : path, optional
        The folder that holds a folder for each device.
    plots : path, optional
        Where the PNG files go; made where it does not exist.

    Returns
    -------
    list of paths
        The files.

    Raises
    ------
    BenchError
        matplotlib is not installed, or there is nothing to draw.
    """
    found = {name: sorted(results.glob(f"*/{name}.csv")) for name in DRAWN}
    if not any(found.values()):
        raise BenchError(
            f"There is nothing to draw in {results}: `python -m bench {' '.join(DRAWN)} --full` measures it."
        )
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise BenchError("Plots need matplotlib, which is not installed: pip install matplotlib") from error
    # No window is opened, whatever the user's own settings are.
    matplotlib.use("agg")
    plots.mkdir(parents=True, exist_ok=True)
    made = []
    for name, files in found.items():
        if files:
            made.append(plots / f"{name}.png")
            _draw(files, *DRAWN[name], made[-1])
    return made


def read_lines(path: Path) -> tuple[str, dict[str, list[tuple[float, float, float, float]]]]:
    """Read the lines of one CSV file, whose cases have one parameter, a number.

    Returns
    -------
    hardware : str
    lines : dict
        Case -> (parameter, median, lower and upper quartile in seconds) of every row that was timed, in order.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (parameter,) = (key for key in rows[0] if key not in COLUMNS)
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in rows:
        if not row["missing"]:
            point = (float(row[parameter]), float(row["median_s"]), float(row["q1_s"]), float(row["q3_s"]))
            lines.setdefault(row["case"], []).append(point)
    return rows[0]["hardware"], {case: sorted(points) for case, points in lines.items()}


def _draw(files: Sequence[Path], title: str, x_label: str, target: Path) -> None:
    import matplotlib.pyplot as plt

    # The background is white in the file itself: on a dark page the black text would else be lost.
    size = (_WIDTH, _HEIGHT * len(files))
    figure, panels = plt.subplots(len(files), 1, figsize=size, facecolor="white", squeeze=False, layout="constrained")
    try:
        figure.suptitle(title, fontsize=13)
        for axes, file in zip(panels[:, 0], files, strict=True):
            _draw_panel(axes, file, x_label)
        figure.savefig(target, dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    finally:
        plt.close(figure)


def _draw_panel(axes: Any, file: Path, x_label: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    hardware, lines = read_lines(file)
    ends = []
    for (case, points), colour in zip(lines.items(), _COLOURS * 3, strict=False):
        x = [point[0] for point in points]
        median, q1, q3 = ([1e3 * point[column] for point in points] for column in (1, 2, 3))
        axes.plot(x, median, marker="o", markersize=4, linewidth=1.6, color=colour)
        axes.fill_between(x, q1, q3, color=colour, alpha=0.15, linewidth=0)
        ends.append((x[-1], median[-1], case, colour))
    axes.set_xscale("log")
    axes.set_yscale("log")
    # The measured values are the ticks: powers of ten would leave an axis from 1 to 8 with one.
    ticks = sorted({x for points in lines.values() for x, *_ in points})
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.xaxis.minorticks_off()
    # From one 1, 2 or 5 times a power of ten to another, or times that differ by a tenth would fill the panel's height.
    times = [1e3 * time for points in lines.values() for _, *three in points for time in three]
    axes.set_ylim(_round_down(min(times)), 1 / _round_down(1 / max(times)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.minorticks_off()
    axes.set_xlabel(x_label)
    axes.set_ylabel("milliseconds (median, quartiles)")
    axes.set_title(hardware, fontsize=9, loc="left", color="#444444")
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _label_ends(axes, ends)


def _round_down(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten, a tenth below ``value`` or more."""
    power = 10.0 ** math.floor(math.log10(value / 1.1))
    return max(factor * power for factor in (1, 2, 5) if factor * power * 1.1 <= value * (1 + 1e-9))


def _label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each line's name at its end, as near as the names leave each other room."""
    figure = axes.figure
    figure.canvas.draw()
    height = _LINE * 9 / 72 * figure.dpi
    bottom = -float("inf")
    for x, y, case, colour in sorted(ends, key=lambda end: end[1]):
        place = max(axes.transData.transform((x, y))[1], bottom + height)
        offset = (place - axes.transData.transform((x, y))[1]) * 72 / figure.dpi
        bottom = place
        axes.annotate(
            case, (x, y), xytext=(8, offset), textcoords="offset points", va="center", fontsize=9, color=colour,
            annotation_clip=False,
        )  # fmt: skip
