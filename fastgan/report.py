"""A run's report: one self-contained HTML page of its state, its samples, its curves and its options.

The page is text made from the arguments alone: no script, no font, no address outside itself, no time of day. It opens
from a disk without a network, prints, and is the same bytes for the same run. What a run may hand over when it goes
wrong (no report yet, one report, NaN for a loss, hostile strings in its options) gives a page that says so.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from fastgan.watch import REMEDY, SENTENCES

__all__ = ["MAX_GRIDS", "charts", "definitions", "escape", "evenly", "image", "page", "render", "seconds_text"]

# A line of more points than the plot has pixels draws the same picture at a multiple of the bytes.
_MAX_POINTS = 1000
_MAX_TABLE_ROWS = 1000
MAX_GRIDS = 12
# Up to so many points each is marked, and says its value under the pointer.
_MAX_MARKED = 40

_LOG_2 = math.log(2.0)
# Beyond this a difference of two values overflows; no plot of such values is read to a digit.
_HUGE = 1e300

_WIDTH, _HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 64, 12, 40


def render(
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    grids: Sequence[tuple[float, bytes]],
    *,
    run_name: str,
    score: Mapping[str, Any] | None = None,
) -> str:
    """Render a run as one self-contained HTML page.

    Parameters
    ----------
    config : mapping
        Every option of the run, JSON-like and nested as deep as it is; shown whole in a table. The number of epochs
        asked for is the outermost ``"epochs"`` (else ``"num_epochs"``) in it, where there is one; the data set and the
        backend in the page's head are the outermost ``"dataset"`` and ``"backend"``.
    history : sequence of mappings
        A row a report, in order, with ``"step"``, ``"epoch"``, ``"discriminator_loss"``, ``"generator_loss"``,
        ``"D_x"`` (mean D(x), in [0, 1]), ``"D_G_z"`` (mean D(G(z)), in [0, 1]), ``"images_per_second"``, ``"seconds"``
        (since the start) and, where asked, ``"parzen"``: ``{"sigma", "log_likelihood", "standard_error"}`` on the
        validation data, in nats. A key that is missing or None is shown as not there; a value that is NaN or infinite
        is a gap in its curve, and the page says so. ``"collapse"``, a key of ``watch.SENTENCES``, stands above
        everything else.
    grids : sequence of (float, bytes)
        (epoch, PNG file), the same noise each time; epoch 0 is before the first step. The last of an epoch counts. The
        newest is shown large, at most 12 small: the first, the last, and between them evenly.
    run_name : str
        The page's title.
    score : mapping, optional
        The run's final score, JSON-like; ``"log_likelihood"`` and ``"standard_error"``, in nats, are its headline.

    Returns
    -------
    str
        The page, to be written as UTF-8. Its size is bounded, but for ``config``, ``score`` and the images: curves keep
        at most about 1,000 points (every extreme among them) and the table the last 1,000 reports.

    Raises
    ------
    ValueError
        If a grid is not a PNG file.

    Notes
    -----
    The losses are those of Algorithm 1 of the paper, the discriminator's halved, so that where D says ½ everywhere it
    is log 2, as the non-saturating generator's is; the minimax generator's, always negative, is −log 2 there.
    """
    newest_of = dict(sorted(grids, key=lambda pair: pair[0]))
    samples = [(epoch, _picture(epoch, png)) for epoch, png in newest_of.items()]
    rows = [_Row.read(row) for row in history]
    name = _escape(run_name)
    body = [
        _header(name, rows, config, samples[-1][0] if samples else 0),
        _trouble(rows),
        _collapse(history),
        _overview(rows, samples),
        _growth(samples),
        _score(score),
        _curves(rows),
        _table(rows),
        _options(config),
    ]
    return page(run_name, body)


# What other pages are made of: the same style, charts and tables.


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """Put parts of HTML into a whole page; ``title`` is plain text, and empty parts are left out."""
    parts = "\n".join(part for part in body if part)
    return _PAGE.format(name=escape(title), style=_STYLE + style, body=parts)


def charts(history: Sequence[Mapping[str, Any]], prefix: str) -> str:
    """Draw a run's curves; ``prefix`` keeps the identifiers of several runs on one page apart."""
    return _charts([_Row.read(row) for row in history], prefix)


def image(png: bytes, alternative: str) -> str:
    """Embed a PNG file; ``alternative`` is plain text."""
    return _picture(0, png).tag(escape(alternative))


def definitions(values: Mapping[str, Any]) -> str:
    """Tabulate nested options."""
    return _definitions(values)


def escape(text: object) -> str:
    """Make text safe inside HTML, attributes too."""
    return _escape(text)


def seconds_text(seconds: float) -> str:
    """Write a time as a person would."""
    return _duration(seconds)


@dataclass(frozen=True)
class _Row:
    """One report; None where it has no such value."""

    step: float | None
    epoch: float | None
    discriminator_loss: float | None
    generator_loss: float | None
    D_x: float | None
    D_G_z: float | None
    images_per_second: float | None
    seconds: float | None
    log_likelihood: float | None
    standard_error: float | None
    sigma: float | None

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> _Row:
        parzen = row.get("parzen")
        parzen = parzen if isinstance(parzen, Mapping) else {}
        nested = ("log_likelihood", "standard_error", "sigma")
        return cls(**{key: _number((parzen if key in nested else row).get(key)) for key in cls.__annotations__})


# ---------------------------------------------------------------------------------------------------------------------
# The parts of the page.


def _header(name: str, rows: list[_Row], config: Mapping[str, Any], newest_grid: float) -> str:
    done = next((row.epoch for row in reversed(rows) if _finite(row.epoch)), float(newest_grid)) or 0.0
    step = next((row.step for row in reversed(rows) if _finite(row.step)), 0.0) or 0.0
    seconds = next((row.seconds for row in reversed(rows) if _finite(row.seconds)), None)
    asked = _epochs_asked(config)
    if asked:
        state = [f"{_plain(done)} of {_plain(asked)} epochs"]
        share = 100.0 * min(max(done / asked, 0.0), 1.0)
        bar = f'<div class="progress" aria-hidden="true"><div style="width:{share:.1f}%"></div></div>'
    else:
        state, bar = [f"{_plain(done)} {'epoch' if done == 1 else 'epochs'}"], ""
    state.append(f"step {_plain(step)}")
    for key in ("dataset", "backend"):
        value = _outermost(config, key)
        if isinstance(value, str):
            # Of a path the name: the whole of it is among the options.
            state.insert(0 if key == "dataset" else len(state), _escape(re.split(r"[\\/]", value)[-1]))
    if seconds is not None:
        state.append(_duration(seconds))
    return (
        f'<header><p class="eyebrow">Generative adversarial nets · run</p><h1>{name}</h1>'
        f'<p class="state">{" · ".join(state)}</p>{bar}</header>'
    )


def _trouble(rows: list[_Row]) -> str:
    """A warning above everything else, because a diverged run must not look like a finished one."""
    found = []
    for key, label in _SHOWN.items():
        bad = [row for row in rows if _not_finite(getattr(row, key))]
        if bad:
            reports = f"{len(bad)} of {len(rows)} reports" if len(rows) > 1 else "the only report"
            found.append(f"<li>{label}: {reports}, first at epoch {_text(bad[0].epoch)}</li>")
    if not found:
        return ""
    return (
        '<section class="trouble"><h2>Not finite</h2><p>These values are NaN or infinite; their curves have gaps '
        f"there.</p><ul>{''.join(found)}</ul></section>"
    )


def _collapse(history: Sequence[Mapping[str, Any]]) -> str:
    """The warning that the reports gave, once, where the generator no longer learnt."""
    for row in history:
        if row.get("collapse") in SENTENCES:
            return (
                f'<section class="trouble"><h2>Collapsed</h2><p>At epoch {_text(_number(row.get("epoch")))} '
                f"{_escape(SENTENCES[row['collapse']])}; {_escape(REMEDY)}.</p></section>"
            )
    return ""


def _overview(rows: list[_Row], samples: list[tuple[float, _Picture]]) -> str:
    if samples:
        epoch, picture = samples[-1]
        large = (
            f'<figure class="newest">{picture.tag(f"Grid of samples at epoch {epoch}")}<figcaption>Samples '
            f"{_moment(epoch)}, from noise that stays the same throughout the run.</figcaption></figure>"
        )
    else:
        large = '<p class="none">No samples yet.</p>'
    return f'<section class="overview" aria-label="Overview">{large}{_key_figures(rows)}</section>'


def _key_figures(rows: list[_Row]) -> str:
    if not rows:
        return '<p class="none">No report yet.</p>'
    last = rows[-1]
    minimax = any(_finite(row.generator_loss) and row.generator_loss < 0 for row in rows)  # type: ignore[operator]

    def show(value: float | None) -> str:
        return f'<span class="bad">{_text(value)}</span>' if _not_finite(value) else _text(value)

    figures = [
        ("Discriminator loss", show(last.discriminator_loss), "log 2 = 0.693 where D says ½ everywhere"),
        ("Generator loss", show(last.generator_loss), f"{'−' if minimax else ''}log 2 where D says ½ everywhere"),
        ("D(x)", show(last.D_x), "mean over training images; ½ when it cannot tell"),
        ("D(G(z))", show(last.D_G_z), "mean over samples; ½ when it cannot tell"),
    ]
    best = _best(rows)
    if best is not None:
        figures.append(
            (
                "Parzen log-likelihood",
                _measured(best.log_likelihood, best.standard_error),
                f"nats, validation data; best so far, at epoch {_text(best.epoch)}",
            )
        )
    figures.append(("Speed", show(last.images_per_second), "training images a second"))
    items = "".join(f"<div><dt>{term}</dt><dd>{value}<small>{hint}</small></dd></div>" for term, value, hint in figures)
    return f'<div class="figures"><h2>At epoch {_text(last.epoch)}</h2><dl>{items}</dl></div>'


def evenly(num_grids: int) -> list[int]:
    """Choose the grids that are shown: the first, the last, and between them evenly, at most 12."""
    count = min(num_grids, MAX_GRIDS)
    return [round(k * (num_grids - 1) / max(count - 1, 1)) for k in range(count)]


def _growth(samples: list[tuple[float, _Picture]]) -> str:
    if len(samples) < 2:
        return ""
    chosen = [samples[k] for k in evenly(len(samples))]
    figures = "".join(
        f"<figure>{picture.tag(f'Samples at epoch {epoch}')}<figcaption>"
        f"{f'epoch {epoch}' if epoch else 'before the first step'}</figcaption></figure>"
        for epoch, picture in chosen
    )
    return (
        '<section><h2>How the samples grew</h2><p class="lead">The same noise at every epoch shown, so each tile is '
        f'one image growing.</p><div class="strip">{figures}</div></section>'
    )


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    value, error = _number(score.get("log_likelihood")), _number(score.get("standard_error"))
    shown: set[str] = set()
    headline = ""
    if value is not None:
        shown = {"log_likelihood", "standard_error"}
        headline = f'<p class="headline">{_measured(value, error)} <span>nats</span></p>'
    rest = _definitions({key: entry for key, entry in score.items() if key not in shown})
    return f'<section class="score"><h2>Score</h2>{headline}{rest}</section>'


def _curves(rows: list[_Row]) -> str:
    if not rows:
        return ""
    return f"<section><h2>Curves</h2>{_charts(rows)}</section>"


def _charts(rows: list[_Row], prefix: str = "") -> str:
    # One x axis for all, and to the last report even where a curve stops before it.
    end = max((_within(row.epoch) for row in rows if _finite(row.epoch)), default=0.0)

    def series(label: str, short: str, key: str, style: str) -> _Series:
        return _Series(label, short, style, [_Point.at(row.epoch, getattr(row, key)) for row in rows])

    minimax = any(_finite(row.generator_loss) and row.generator_loss < 0 for row in rows)  # type: ignore[operator]
    losses = [
        series("discriminator", "D", "discriminator_loss", "a"),
        series("generator", "G", "generator_loss", "b"),
    ]
    references = [(_LOG_2, "log 2"), (-_LOG_2, "−log 2")] if minimax else [(_LOG_2, "log 2")]
    caption = "The dotted line is log 2 ≈ 0.693, the value of both losses where D says ½ everywhere."
    if minimax:
        caption = (
            "Where D says ½ everywhere, the discriminator’s loss is log 2 ≈ 0.693 and the generator’s, the minimax "
            "objective’s, −log 2: the dotted lines."
        )
    drawn = [
        _chart(
            f"{prefix}losses",
            "Losses",
            "nats an image",
            losses,
            caption,
            end=end,
            references=references,
            include=(0.0,),
        ),
        _chart(
            f"{prefix}outputs",
            "What D says",
            "mean probability of “training data”",
            [
                series("D(x), training images", "D(x)", "D_x", "a"),
                series("D(G(z)), samples", "D(G(z))", "D_G_z", "b"),
            ],
            "Both tend to ½, the dotted line, as samples and training images become hard to tell apart.",
            end=end,
            references=[(0.5, "½")],
            include=(0.0, 1.0),
        ),
        _chart(
            f"{prefix}speed",
            "Speed",
            "images a second",
            [series("training images", "", "images_per_second", "a")],
            "Training images taken in, a second of wall-clock time.",
            end=end,
            include=(0.0,),
        ),
    ]
    scored = [row for row in rows if row.log_likelihood is not None]
    if scored:
        best = _best(rows)
        where = (
            f" Best: {_measured(best.log_likelihood, best.standard_error)} at epoch {_text(best.epoch)}"
            f"{'' if best.sigma is None else f', σ = {_sigma(best.sigma)}'}."
            if best is not None
            else ""
        )
        points = [_Point.at(row.epoch, row.log_likelihood, row.standard_error) for row in scored]
        drawn.append(
            _chart(
                f"{prefix}parzen",
                "Parzen log-likelihood",
                "nats",
                [_Series("validation data, ± 2 standard errors", "", "a", points, band=True)],
                f"Mean log-likelihood of the validation data under a Parzen window of samples.{where}",
                end=end,
            )
        )
    return f'<div class="charts">{"".join(drawn)}</div>'


def _table(rows: list[_Row]) -> str:
    if not rows:
        return ""
    columns: list[tuple[str, Callable[[_Row], str]]] = [
        ("step", lambda row: _cell(row.step)),
        ("epoch", lambda row: _cell(row.epoch)),
        ("D loss", lambda row: _cell(row.discriminator_loss)),
        ("G loss", lambda row: _cell(row.generator_loss)),
        ("D(x)", lambda row: _cell(row.D_x)),
        ("D(G(z))", lambda row: _cell(row.D_G_z)),
        ("images/s", lambda row: _cell(row.images_per_second)),
        ("time", lambda row: _cell(row.seconds, _duration)),
    ]
    if any(row.log_likelihood is not None for row in rows):
        columns += [
            ("Parzen, nats", lambda row: _cell(row.log_likelihood)),
            ("± s.e.", lambda row: _cell(row.standard_error)),
            ("σ", lambda row: _cell(row.sigma, _sigma)),
        ]
    shown = rows[-_MAX_TABLE_ROWS:]
    head = "".join(f'<th scope="col">{label}</th>' for label, _ in columns)
    lines = "\n".join(f"<tr>{''.join(show(row) for _, show in columns)}</tr>" for row in reversed(shown))
    if len(shown) < len(rows):
        count = f"the last {_plain(len(shown))} of {_plain(len(rows))}, newest first; metrics.jsonl has all of them"
    else:
        count = "newest first"
    paper = '<span class="paper"> On paper, the newest 40.</span>' if len(rows) > 40 else ""
    return (
        f'<section><h2>Reports</h2><p class="lead">{count[0].upper()}{count[1:]}.{paper}</p><div class="scroll" '
        f'tabindex="0" role="region" aria-label="Reports"><table class="reports">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{lines}"
        "</tbody></table></div></section>"
    )


def _options(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    return (
        f"<section><details><summary><h2>Options and versions</h2></summary>{_definitions(config)}</details></section>"
    )


def _definitions(values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    lines = "".join(f'<tr><th scope="row">{_escape(key)}</th><td>{value}</td></tr>' for key, value in _flatten(values))
    return f'<table class="options"><tbody>{lines}</tbody></table>'


# ---------------------------------------------------------------------------------------------------------------------
# Pictures.


@dataclass(frozen=True)
class _Picture:
    width: int
    height: int
    address: str

    def tag(self, alternative: str) -> str:
        return f'<img src="{self.address}" width="{self.width}" height="{self.height}" alt="{alternative}">'


def _picture(epoch: float, png: bytes) -> _Picture:
    # The header's width and height let the browser lay the page out before it has decoded anything.
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ValueError(f"the grid of epoch {epoch} is not a PNG file: it begins with {png[:8]!r}")
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    return _Picture(width, height, f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}")


# ---------------------------------------------------------------------------------------------------------------------
# Charts.


@dataclass(frozen=True)
class _Point:
    """A value with the ends of its error band (both the value where there is none); NaN where there is a gap."""

    x: float
    y: float
    low: float
    high: float

    @classmethod
    def at(cls, x: float | None, y: float | None, error: float | None = None) -> _Point:
        x, y, error = _within(x), _within(y), _within(error)
        spread = 0.0 if math.isnan(error) else 2.0 * abs(error)
        return cls(x, y, _within(y - spread), _within(y + spread))

    @property
    def drawn(self) -> bool:
        return not math.isnan(self.y)


def _within(value: float | None) -> float:
    """The value, of at most the size that can be drawn; NaN where it is not finite, or not there."""
    return math.nan if value is None or not math.isfinite(value) else min(max(value, -_HUGE), _HUGE)


@dataclass(frozen=True)
class _Series:
    label: str
    short: str
    style: str
    points: list[_Point]
    band: bool = False


def _chart(
    identifier: str,
    title: str,
    unit: str,
    all_series: list[_Series],
    caption: str,
    *,
    end: float,
    references: Sequence[tuple[float, str]] = (),
    include: Iterable[float] = (),
) -> str:
    """One figure: heading, legend, SVG, caption. The x axis ends at ``end``; the y axis covers data and references."""
    all_series = [replace(s, points=_thin([p for p in s.points if not math.isnan(p.x)])) for s in all_series]
    drawn = [p for s in all_series for p in s.points if p.drawn]
    heading = f'<h3>{title} <span class="unit">{unit}</span></h3>'
    if not drawn:
        return f'<figure class="chart">{heading}<p class="none">No finite value to draw.</p></figure>'

    first, last = min(0.0, *(p.x for p in drawn)), end
    if _narrow(first, last):
        last = first + max(1.0, 0.1 * abs(first))
    x_ticks = _ticks(first, last)
    levels = [*(p.low for p in drawn), *(p.high for p in drawn), *(value for value, _ in references), *include]
    y_ticks = _ticks(min(levels), max(levels), cover=True)
    bottom, top = y_ticks[0], y_ticks[-1]
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + (x - first) / (last - first) * (right - _LEFT)

    def up(y: float) -> float:
        return floor - (y - bottom) / (top - bottom) * (floor - _TOP)

    parts = []
    for value, label in zip(y_ticks, _tick_labels(y_ticks), strict=True):
        y = up(value)
        kind = "axis" if value == bottom else "rule"
        parts.append(f'<path class="{kind}" d="M{_LEFT} {y:.1f}H{right}"/>')
        # A reference is named in the margin, where no curve runs over its name, and a tick too near gives way to it.
        if all(abs(y - up(reference)) >= 14.0 for reference, _ in references):
            parts.append(f'<text class="y" x="{_LEFT - 8}" y="{y:.1f}">{label}</text>')
    for value, label in references:
        parts.append(f'<path class="reference" d="M{_LEFT} {up(value):.1f}H{right}"/>')
        parts.append(f'<text class="y name" x="{_LEFT - 8}" y="{up(value):.1f}">{label}</text>')
    for value, label in zip(x_ticks, _tick_labels(x_ticks), strict=True):
        x = across(value)
        parts.append(f'<path class="axis" d="M{x:.1f} {floor}v4"/>')
        parts.append(f'<text class="x" x="{x:.1f}" y="{floor + 17}">{label}</text>')
    parts.append(f'<text class="x label" x="{(_LEFT + right) / 2:.1f}" y="{_HEIGHT - 5}">epoch</text>')
    parts += [_line(s, across, up) for s in all_series]
    parts += _end_labels(all_series, right, up)

    legend = "".join(
        '<span><svg class="key" viewBox="0 0 28 10" aria-hidden="true">'
        f'<path class="line {s.style}" d="M1 5H27"/></svg>{s.label}</span>'
        for s in all_series
    )
    description = "; ".join(
        f"{s.label}: {_text(ends[0].y)} at epoch {_text(ends[0].x)}, {_text(ends[-1].y)} at epoch {_text(ends[-1].x)}"
        for s in all_series
        if (ends := [p for p in s.points if p.drawn])
    )
    return (
        f'<figure class="chart">{heading}<p class="legend">{legend}</p>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="{identifier}-title {identifier}-description">'
        f'<title id="{identifier}-title">{title}, {unit}, over epochs</title>'
        f'<desc id="{identifier}-description">{description}</desc>{"".join(parts)}</svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _line(series: _Series, across: Callable[[float], float], up: Callable[[float], float]) -> str:
    """The band, the line and the marks of one series; a gap wherever a point is not drawn."""
    pieces: list[list[_Point]] = [[]]
    for point in series.points:
        if point.drawn:
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    pieces = [piece for piece in pieces if piece]

    def trail(points: Iterable[tuple[float, float]]) -> str:
        return "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)

    parts = []
    if series.band:
        # The outline of the band, and not only its area, so that a lone point shows its error as a bar.
        outline = "".join(
            f"M{trail([(p.x, p.high) for p in piece])}L{trail([(p.x, p.low) for p in reversed(piece)])}Z"
            for piece in pieces
        )
        parts.append(f'<path class="band {series.style}" d="{outline}"/>')
    path = "".join(f"M{trail([(p.x, p.y) for p in piece])}" for piece in pieces if len(piece) > 1)
    if path:
        many = " many" if len(series.points) > _MAX_POINTS // 4 else ""
        parts.append(f'<path class="line {series.style}{many}" d="{path}"/>')
    few = sum(map(len, pieces)) <= _MAX_MARKED
    for piece in pieces:
        # A point between two gaps has no line to be seen by.
        for p in piece if few else piece[: len(piece) == 1]:
            parts.append(
                f'<circle class="{series.style}" cx="{across(p.x):.1f}" cy="{up(p.y):.1f}" r="2.4"><title>'
                f"epoch {_text(p.x)}: {_text(p.y)}</title></circle>"
            )
    return "".join(parts)


def _end_labels(all_series: list[_Series], right: int, up: Callable[[float], float]) -> list[str]:
    """The short name and the last value of each line beside its end, pushed apart where two would overlap."""
    ends = sorted(
        (up(s.points[-1].y), s.points[-1].y, s.short, s.style) for s in all_series if s.points and s.points[-1].drawn
    )
    places = [y for y, *_ in ends]
    if len(places) == 2 and places[1] - places[0] < 34.0:
        # Not beyond the plot's edges either, where the heading and the axis are.
        middle = min(max(sum(places) / 2.0, _TOP + 17.0), _HEIGHT - _BOTTOM - 17.0)
        places = [middle - 17.0, middle + 17.0]
    labels = []
    for place, (_, value, short, style) in zip(places, ends, strict=True):
        text = _compact(value)
        if short:
            text = f'<tspan dy="-.55em">{short}</tspan><tspan class="value" x="{right + 7}" dy="1.15em">{text}</tspan>'
        labels.append(f'<text class="end {style}" x="{right + 7}" y="{place:.1f}">{text}</text>')
    return labels


def _thin(points: list[_Point]) -> list[_Point]:
    """At most about 1,000 of the points, in order of x.

    A page of thousands of reports would otherwise be mostly the coordinates of lines whose points share a pixel. Of
    each bucket of neighbours, the first, the last, the extremes and the first gap stay, so that the drawn line keeps
    every peak and every gap that could be seen.
    """
    points = sorted(points, key=lambda p: p.x)
    if len(points) <= _MAX_POINTS:
        return points
    num_buckets = _MAX_POINTS // 5
    kept: list[_Point] = []
    for bucket in range(num_buckets):
        start, stop = (len(points) * b // num_buckets for b in (bucket, bucket + 1))
        drawn = [n for n in range(start, stop) if points[n].drawn]
        chosen = {start, stop - 1}
        chosen.update(next(([n] for n in range(start, stop) if not points[n].drawn), []))
        if drawn:
            chosen.add(min(drawn, key=lambda n: points[n].low))
            chosen.add(max(drawn, key=lambda n: points[n].high))
        kept += [points[n] for n in sorted(chosen)]
    return kept


def _ticks(low: float, high: float, *, cover: bool = False) -> list[float]:
    """About five multiples of 1, 2 or 5 times a power of ten from ``low`` to ``high``; all around them if ``cover``."""
    if _narrow(low, high):
        pad = max(abs(low) * 0.1, 1e-290) if low else 1.0
        low, high = (low - pad, high + pad) if cover else (low, high + pad)
    rough = (high - low) / 4.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * 0.7)
    # The slack keeps a range that ends on a tick, but for rounding, from getting one tick more, or less.
    down, up = (math.floor, math.ceil) if cover else (math.ceil, math.floor)
    slack = 1e-9 if cover else -1e-9
    start, stop = down(low / step + slack), up(high / step - slack)
    return [k * step for k in range(start, stop + 1)]


def _narrow(low: float, high: float) -> bool:
    """Whether the range holds so few floats that no scale can be laid on it."""
    return high - low <= max(1e-12 * max(abs(low), abs(high)), 1e-290)


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """Labels that share their number of decimals and their unit (k, M, G)."""
    largest = max(map(abs, ticks))
    step = ticks[1] - ticks[0] if len(ticks) > 1 else largest or 1.0
    if largest >= 1e12 or step < 1e-5:
        digits = max(1, math.ceil(math.log10(largest / step) + 1e-9)) + 1
        return [_minus(f"{tick:.{digits}g}") for tick in ticks]
    divisor, suffix = _scale(largest)
    decimals = max(0, -math.floor(math.log10(step / divisor) + 1e-9))
    return [_minus(f"{tick / divisor:,.{decimals}f}") + (suffix if tick else "") for tick in ticks]


# ---------------------------------------------------------------------------------------------------------------------
# Numbers and text.

_SHOWN = {
    "discriminator_loss": "discriminator loss",
    "generator_loss": "generator loss",
    "D_x": "D(x)",
    "D_G_z": "D(G(z))",
    "images_per_second": "images a second",
    "log_likelihood": "Parzen log-likelihood",
    "standard_error": "standard error of the Parzen log-likelihood",
}

# What no HTML text may hold, even as a character reference, and what no UTF-8 file can.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def _escape(text: object) -> str:
    return html.escape(_UNPRINTABLE.sub("�", str(text)), quote=True)


def _number(value: Any) -> float | None:
    """``value`` as a float; NaN where it is there but is no number."""
    if value is None:
        return None
    if not isinstance(value, Real | str):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _not_finite(value: float | None) -> bool:
    return value is not None and not math.isfinite(value)


def _minus(text: str) -> str:
    if text.startswith("-") and not text.strip("-0.,"):
        text = text[1:]
    return text.replace("-", "−")


def _plain(value: float) -> str:
    """A count, to two decimals where it is not whole."""
    if abs(value) >= 1e15:
        return _minus(f"{value:.3g}")
    text = f"{value:,.2f}"
    return _minus(text.rstrip("0").rstrip("."))


def _text(value: float | None) -> str:
    """A number as one reads it: whole as it is, else four digits or three decimals; a dash where there is none."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if value == math.floor(value) and size < 1e9:
        return _minus(f"{value:,.0f}")
    if size >= 1e9 or size < 1e-3:
        return _minus(f"{value:.3g}")
    return _minus(f"{value:,.{3 if size < 10 else 2 if size < 100 else 1 if size < 10_000 else 0}f}")


def _compact(value: float) -> str:
    """A number for the margin of a chart, of at most about six characters."""
    size = abs(value)
    if size >= 1e12 or size < 1e-3:
        return _minus(f"{value:.3g}")
    if size >= 1e4:
        divisor, suffix = _scale(size)
        return _minus(f"{value / divisor:.3g}") + suffix
    return _minus(f"{value:.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}")


def _scale(size: float) -> tuple[float, str]:
    if size >= 1e9:
        return 1e9, "G"
    if size >= 1e6:
        return 1e6, "M"
    return (1e3, "k") if size >= 1e4 else (1.0, "")


def _measured(value: float | None, error: float | None) -> str:
    """A value with its standard error to two digits, and itself to the same place."""
    if value is None or error is None or not (math.isfinite(value) and math.isfinite(error)):
        return _text(value) if error is None else f"{_text(value)} ±\N{NO-BREAK SPACE}{_text(error)}"
    if not 1e-3 <= error < 1e9:
        return f"{_text(value)} ±\N{NO-BREAK SPACE}{_text(error)}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return _minus(f"{value:,.{decimals}f}") + f" ±\N{NO-BREAK SPACE}{error:,.{decimals}f}"


def _sigma(value: float) -> str:
    return _text(value) if not math.isfinite(value) else _minus(f"{value:.3g}")


def _duration(seconds: float) -> str:
    if seconds < 0 or seconds >= 1e9:
        return f"{_text(seconds)} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _moment(epoch: float) -> str:
    return "before the first step" if epoch == 0 else f"at epoch {epoch}"


def _cell(value: float | None, show: Callable[[float], str] = _text) -> str:
    if _not_finite(value):
        return f'<td class="bad">{_text(value)}</td>'
    return f"<td>{'–' if value is None else show(value)}</td>"


def _best(rows: list[_Row]) -> _Row | None:
    scored = [row for row in rows if _finite(row.log_likelihood)]
    return max(scored, key=lambda row: row.log_likelihood or 0.0, default=None)


def _epochs_asked(config: Mapping[str, Any]) -> float | None:
    """The outermost "epochs", else "num_epochs", of nested options."""

    def is_number(value: Any) -> bool:
        number = _number(value) if isinstance(value, Real) and not isinstance(value, bool) else None
        return number is not None and math.isfinite(number) and number > 0

    for key in ("epochs", "num_epochs"):
        value = _outermost(config, key, is_number)
        if value is not None:
            return _number(value)
    return None


def _outermost(config: Mapping[str, Any], key: str, serves: Callable[[Any], bool] = lambda value: True) -> Any:
    """The first value of a key that serves, outer mappings before those in them; None where there is none."""
    layer: list[Mapping[str, Any]] = [config]
    while layer:
        for mapping in layer:
            if key in mapping and serves(mapping[key]):
                return mapping[key]
        layer = [value for mapping in layer for value in mapping.values() if isinstance(value, Mapping)]
    return None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(dotted key, escaped value) of nested mappings, in their order."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            lines.append((f"{prefix}{key}", _escape(value) or '<span class="faint">empty</span>'))
        elif value is None:
            lines.append((f"{prefix}{key}", '<span class="faint">none</span>'))
        else:
            lines.append((f"{prefix}{key}", _escape(json.dumps(value, ensure_ascii=False, default=str))))
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# The page around them. Blue and orange stay apart for every common kind of colour blindness, and the second line is
# dashed besides. Dark colours are for screens alone: paper is white.

_STYLE = """
:root{--paper:#fdfdfb;--ink:#1c1e21;--soft:#5b6167;--rule:#e4e4de;--axis:#9a9e9f;--panel:#f5f5f0;--a:#0b62a4;--b:#b4500a;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--serif:ui-serif,"Iowan Old Style","Palatino Linotype",Palatino,Georgia,"Times New Roman",serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media screen and (prefers-color-scheme:dark){:root{--paper:#15171a;--ink:#e6e5e0;--soft:#a0a5aa;--rule:#2b2f34;
--axis:#6b7278;--panel:#1d2024;--a:#6cb6ee;--b:#f0a253}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 var(--sans)}
main{max-width:68rem;margin:0 auto;padding:clamp(1.5rem,5vw,4rem) clamp(1rem,4vw,2.5rem)}
h1,h2,h3{font-family:var(--serif);font-weight:500;line-height:1.2;margin:0}
h1{font-size:clamp(1.7rem,5vw,2.7rem);overflow-wrap:anywhere;letter-spacing:-.01em}
h2{font-size:1.45rem}
h3{font-size:1.1rem}
p{margin:0}
section{margin-top:clamp(2.5rem,6vw,4rem)}
figure{margin:0}
figcaption,.lead,.none,.unit,small{color:var(--soft);font-size:.875rem;line-height:1.45}
figcaption{margin-top:.5rem}
.lead{margin:.35rem 0 1.1rem;max-width:44rem}
.eyebrow{color:var(--soft);font-size:.8rem;letter-spacing:.06em;text-transform:uppercase;margin-bottom:.5rem}
.state{margin-top:.6rem;color:var(--soft);font-variant-numeric:tabular-nums}
.progress{height:3px;margin-top:1rem;background:var(--rule)}
.progress div{height:100%;background:var(--a)}
.trouble{border-left:3px solid var(--b);padding:.2rem 0 .2rem 1rem}
.trouble h2{font-size:1.1rem;color:var(--b)}
.trouble p,.trouble li{font-size:.925rem}
.trouble ul{margin:.3rem 0 0;padding-left:1.1rem}
img{display:block;max-width:100%;height:auto}
.overview{display:grid;grid-template-columns:minmax(0,1.45fr) minmax(0,1fr);gap:2rem clamp(1.5rem,4vw,3.5rem);
align-items:start}
.newest img{max-height:42rem;width:auto}
.figures dl{margin:.8rem 0 0}
.figures dl div{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:0 1rem;align-items:baseline;
padding:.6rem 0;border-top:1px solid var(--rule)}
dd{margin:0}
.figures dd{display:contents;font-variant-numeric:tabular-nums;font-size:1.1rem}
.figures small{grid-column:1/-1;grid-row:2;font-size:.8rem}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(9.5rem,42%),1fr));gap:1.25rem 1rem}
.strip figcaption{margin-top:.3rem;font-size:.8rem}
.headline{font:500 clamp(1.7rem,5vw,2.4rem)/1.3 var(--serif);margin:.4rem 0 .6rem;font-variant-numeric:tabular-nums}
.headline span{font-size:1rem;color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));
gap:2.5rem clamp(1.5rem,4vw,3.5rem);margin-top:1.3rem}
.chart{max-width:33rem;break-inside:avoid}
.unit{font-family:var(--sans);font-weight:400;margin-left:.3rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;font-size:.85rem;margin:.3rem 0 .5rem}
.legend span{display:inline-flex;align-items:center;gap:.45rem}
.key{width:28px;height:10px;flex:none}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font:12px var(--sans);fill:var(--soft);font-variant-numeric:tabular-nums}
text.y{text-anchor:end;dominant-baseline:central}
text.x{text-anchor:middle}
text.end{dominant-baseline:central;font-weight:600}
text.end.a{fill:var(--a)}
text.end.b{fill:var(--b)}
path.line.many{stroke-width:1.2}
text.name{fill:var(--ink)}
path.rule{stroke:var(--rule)}
path.axis{stroke:var(--axis)}
path.reference{stroke:var(--soft);stroke-dasharray:1 4;stroke-linecap:round;stroke-width:1.4}
path.line{fill:none;stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round}
path.line.a{stroke:var(--a)}
path.line.b{stroke:var(--b);stroke-dasharray:6 4;stroke-linecap:butt}
path.band{fill:var(--a);fill-opacity:.16;stroke:var(--a);stroke-opacity:.5;stroke-width:1}
circle.a{fill:var(--a)}
circle.b{fill:var(--paper);stroke:var(--b);stroke-width:1.5}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
.scroll{overflow:auto;max-height:24rem;border:solid var(--rule);border-width:1px 0}
.reports{width:100%}
.reports th,.reports td{padding:.35rem .7rem;text-align:right;white-space:nowrap}
.reports th{position:sticky;top:0;background:var(--paper);color:var(--soft);font-weight:500;
box-shadow:inset 0 -1px var(--rule)}
.reports tbody tr:nth-child(even){background:var(--panel)}
.bad{color:var(--b);font-weight:600}
details{border-top:1px solid var(--rule);padding-top:1rem}
summary{cursor:pointer}
summary h2{display:inline;font-size:1.2rem}
.options{margin-top:.8rem;width:100%;table-layout:fixed}
.options th,.options td{padding:.3rem .8rem .3rem 0;text-align:left;vertical-align:top;border-top:1px solid var(--rule);
overflow-wrap:anywhere}
.options th{width:38%;font-weight:400;color:var(--soft)}
.options td{font-family:var(--mono);font-size:.82rem;white-space:pre-wrap}
.faint{color:var(--soft);font-style:italic}
.paper{display:none}
@media (max-width:46rem){.overview{grid-template-columns:minmax(0,1fr)}}
@media (max-width:30rem){svg text{font-size:14.5px}}
@media print{main{max-width:none;padding:0}body{font-size:10pt}figure,tr,.figures{break-inside:avoid}
.scroll{max-height:none;overflow:visible}.reports tbody tr:nth-child(n+41){display:none}.paper{display:inline}
.reports{font-size:8pt}.reports th,.reports td{padding:.2rem .4rem}
.charts{grid-template-columns:1fr 1fr}.newest img{max-height:11cm}}
"""

# The policy makes the browser itself keep the promise that the page asks nothing of anyone.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{name}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
