import base64
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fastgan import figures, report

VOID = {"meta", "link", "img", "br", "hr", "input"}
SVG_LEAVES = {"path", "circle"}
# The stroke beside a name in a legend, which is drawn as the line is.
KEY = "M1 5H27"


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts, self.images = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        self.elements.append((tag, dict(attributes)))
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in SVG_LEAVES
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)

    def all(self, tag, **attributes):
        return [a for t, a in self.elements if t == tag and all(a.get(k) == v for k, v in attributes.items())]


def row(epoch, /, **changes):
    values = {
        "step": int(epoch * 600),
        "epoch": float(epoch),
        "discriminator_loss": 0.6,
        "generator_loss": 0.9,
        "D_x": 0.6,
        "D_G_z": 0.4,
        "images_per_second": 41_000.0,
        "seconds": 1.5 * epoch,
    }
    return values | changes


def parzen(value, error=1.25, sigma=0.2):
    return {"sigma": sigma, "log_likelihood": value, "standard_error": error}


def png(seed):
    return figures.to_png(figures.grid(np.random.default_rng(seed).random((4, 4)), (1, 2, 2), 2, scale=1))


CONFIG = {"epochs": 50, "generator": {"hidden": [1200, 1200]}, "resume": None, "versions": {"numpy": "2.0"}}
HISTORY = [row(epoch, parzen=parzen(100.0 + epoch)) for epoch in range(1, 13)]


def numbers_of(page):
    """Every coordinate that the page draws at."""
    for _, attributes in page.elements:
        for name in ("d", "cx", "cy", "x", "y", "points"):
            for word in re.findall(r"[^\sA-Za-z]+|nan|inf", attributes.get(name) or ""):
                yield float(word)


def lines(page, style):
    return [a["d"] for t, a in page.elements if t == "path" and a["class"].split()[:2] == ["line", style]]


def test_a_run_is_a_whole_page():
    grids = [(epoch, png(epoch)) for epoch in (0, 1, 5, 12)]
    text = report.render(CONFIG, HISTORY, grids, run_name="00007-digits-seed0", score=parzen(225.123, 1.96))
    page = Page(text)
    assert "<title>00007-digits-seed0</title>" in text
    assert "12 of 50 epochs · step 7,200 · 18.0 s" in page.text
    assert [len(page.all(tag)) for tag in ("html", "h1", "main", "table", "details")] == [1, 1, 1, 3, 1]
    assert "225.1 ±\N{NO-BREAK SPACE}2.0" in page.text
    assert "generator.hidden" in page.texts
    assert "[1200, 1200]" in page.texts
    assert "versions.numpy" in page.texts
    assert "Best: 112.0 ±\N{NO-BREAK SPACE}1.2 at epoch 12, σ = 0.2." in page.text
    charts = page.all("svg", role="img")
    assert len(charts) == 4
    names = {a["id"] for _, a in page.elements if "id" in a}
    assert all(set(chart["aria-labelledby"].split()) <= names for chart in charts)
    assert all(math.isfinite(number) for number in numbers_of(page))
    assert page.text.count("log 2") >= 3
    assert "½" in page.texts


def test_the_same_run_is_the_same_page():
    def make():
        return report.render(CONFIG, HISTORY, [(0, png(0)), (12, png(1))], run_name="run", score=parzen(1.0))

    assert make() == make()


def test_grids_are_embedded_with_their_size_and_words():
    grids = [(5, png(2)), (0, png(0)), (1, png(1))]
    page = Page(report.render({}, [], grids, run_name="run"))
    shown = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.images]
    assert shown == [png(2), png(0), png(1), png(2)], "the newest large, then all in order"
    assert all((image["width"], image["height"]) == ("10", "10") for image in page.images)
    assert [image["alt"] for image in page.images][1:] == [f"Samples at epoch {epoch}" for epoch in (0, 1, 5)]
    assert "before the first step" in page.text


@pytest.mark.parametrize("count", [2, 11, 12, 13, 14, 100])
def test_at_most_twelve_grids_with_the_first_and_the_last_evenly(count):
    small = png(0)
    page = Page(report.render({}, [], [(epoch, small) for epoch in range(count)], run_name="run"))
    epochs = [int(image["alt"].rsplit(maxsplit=1)[1]) for image in page.images[1:]]
    assert len(epochs) == min(count, 12)
    assert epochs[0] == 0
    assert epochs[-1] == count - 1
    gaps = np.diff(epochs)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_the_last_grid_of_an_epoch_counts():
    page = Page(report.render({}, [], [(3, png(0)), (3, png(1))], run_name="run"))
    assert [base64.b64decode(image["src"].split(",")[1]) for image in page.images] == [png(1)]


def test_a_grid_that_is_no_png_is_a_sentence():
    with pytest.raises(ValueError, match="grid of epoch 3 is not a PNG file"):
        report.render({}, [], [(3, b"GIF89a")], run_name="run")


def test_hostile_strings_are_text():
    hostile = "<script>alert(1)</script>\"'&</style></title><img src=x onerror=y>\x00\ud800"
    page_text = report.render(
        {hostile: hostile, "list": [hostile], "nested": {hostile: {hostile: hostile}}, "epochs": hostile},
        [row(1, epoch=hostile, D_x=hostile, parzen=hostile)],
        [],
        run_name=hostile,
        score={hostile: hostile, "log_likelihood": hostile},
    )
    page_text.encode("utf-8")
    page = Page(page_text)
    assert not page.all("script")
    assert not page.images
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "<script>alert(1)</script>\"'&</style></title><img src=x onerror=y>��" in "".join(page.texts)


def test_the_page_asks_for_nothing_outside_itself():
    text = report.render(CONFIG, HISTORY, [(0, png(0)), (1, png(1))], run_name="run", score=parzen(1.0))
    page = Page(text)
    assert not re.search(r"https?://|//[a-z]|@import|url\(|<script", text)
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "xlink:href", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")


def test_nothing_yet():
    page = Page(report.render({}, [], [], run_name="run"))
    assert "No samples yet." in page.texts
    assert "No report yet." in page.texts
    assert "0 epochs · step 0" in page.text
    assert not page.all("svg")


def test_one_report_is_points():
    page = Page(report.render({"training": {"num_epochs": 2}}, [row(1, parzen=parzen(-3.0))], [], run_name="run"))
    assert "1 of 2 epochs" in page.text
    assert len(page.all("svg", role="img")) == 4
    assert len(page.all("circle")) == 6
    assert all(math.isfinite(number) for number in numbers_of(page))


def test_a_value_that_is_not_finite_is_a_gap_and_a_note():
    history = [row(epoch) for epoch in range(1, 11)]
    history[3]["generator_loss"] = math.nan
    history[4]["generator_loss"] = math.inf
    history[9]["D_x"] = "NaN"
    page = Page(report.render({}, history, [], run_name="run"))
    assert "generator loss: 2 of 10 reports, first at epoch 4" in page.texts
    assert "D(x): 1 of 10 reports, first at epoch 10" in page.texts
    assert page.texts.count("NaN") == 3, "two in the table, one among the figures of the last report"
    assert page.texts.count("∞") == 1
    generator = next(d for d in lines(page, "b") if d != KEY)
    assert generator.count("M") == 2
    assert generator.count("L") == 2 + 4
    assert all(math.isfinite(number) for number in numbers_of(page))


def test_a_point_between_two_gaps_is_seen_however_many_there_are():
    history = [row(epoch, D_x=0.7 if epoch % 2 else math.nan) for epoch in range(1, 102)]
    page = Page(report.render({}, history, [], run_name="run"))
    assert len(page.all("circle", **{"class": "a"})) == 51


def test_no_finite_value_at_all():
    history = [row(epoch, generator_loss=math.nan, discriminator_loss=-math.inf) for epoch in (1, 2)]
    page = Page(report.render({}, history, [], run_name="run"))
    assert "No finite value to draw." in page.texts
    assert len(page.all("svg", role="img")) == 2


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 5e-324, 1e-12, 1.0, 1e22, -1e22, 1.7e308, -1.7e308, pytest.param(10**400, id="10**400")]
)
def test_extreme_values_still_draw(value):
    history = [row(1, D_x=value, images_per_second=value), row(2, discriminator_loss=value, epoch=value, seconds=value)]
    history += [row(3, step=value, parzen=parzen(value, value, value))]
    for part in (history, history[:1], history[1:2], history[2:]):
        page = Page(report.render({"epochs": value}, part, [], run_name="run"))
        assert all(math.isfinite(number) for number in numbers_of(page))


def test_the_head_names_data_set_and_backend():
    options = {
        "config": {"dataset": "/home/me/my <images>.npy", "backend": "cpu", "epochs": 3},
        "data": {"name": "other"},
    }
    page = Page(report.render(options, [row(1)], [], run_name="run"))
    (state,) = [text for text in page.texts if "step" in text and " · " in text]
    assert state.startswith("my <images>.npy · ")
    assert " · cpu" in state
    for odd in ({}, {"dataset": 5, "backend": None}, {"dataset": ["a"]}):
        assert "step" in Page(report.render(odd, [row(1)], [], run_name="run")).text


def test_a_collapse_stands_above_everything_once():
    history = [row(1), row(2, collapse="discriminator"), row(3, collapse="nonsense"), row(4)]
    page = Page(report.render({}, history, [], run_name="run"))
    assert page.text.count("Collapsed") == 1
    assert "At epoch 2 the discriminator has won" in page.text
    assert "Collapsed" not in Page(report.render({}, [row(1), row(3, collapse="nonsense")], [], run_name="run")).text


def test_missing_keys_are_dashes():
    page = Page(report.render({}, [{"step": 1}, {}, {"epoch": None, "parzen": None}], [], run_name="run"))
    assert "–" in page.texts
    assert "Not finite" not in page.text


def test_a_negative_generator_loss_has_its_own_reference():
    assert "−log 2" not in Page(report.render({}, [row(1)], [], run_name="run")).texts
    assert "−log 2" in Page(report.render({}, [row(1, generator_loss=-0.5)], [], run_name="run")).texts


def test_parzen_is_drawn_where_it_was_asked_for_and_joined_across_the_rest():
    history = [row(e, parzen=parzen(float(e))) if e % 5 == 0 else row(e) for e in range(1, 16)]
    page = Page(report.render({}, history, [], run_name="run"))
    (band,) = [a["d"] for a in page.all("path") if a["class"].startswith("band")]
    assert band.count("M") == 1
    assert band.count("L") == 2 * 3 - 1
    assert Page(report.render({}, [row(1)], [], run_name="run")).text.count("Parzen") == 0


def test_the_band_is_two_standard_errors_each_way():
    page = Page(
        report.render({}, [row(1, parzen=parzen(0.0, 10.0)), row(2, parzen=parzen(40.0, 10.0))], [], run_name="r")
    )
    (band,) = [a["d"] for a in page.all("path") if a["class"].startswith("band")]
    high_1, high_2, low_2, low_1 = (float(pair.split()[1]) for pair in re.findall(r"[\d.]+ [\d.]+", band))
    centre_1, centre_2 = (float(pair.split()[1]) for pair in re.findall(r"[\d.]+ [\d.]+", lines(page, "a")[-1]))
    per_nat = (centre_1 - centre_2) / 40.0
    for centre, high, low in ((centre_1, high_1, low_1), (centre_2, high_2, low_2)):
        assert centre - high == pytest.approx(20 * per_nat, abs=0.11)
        assert low - centre == pytest.approx(20 * per_nat, abs=0.11)


def test_a_long_run_is_a_small_page_that_keeps_its_peaks():
    rng = np.random.default_rng(0)
    history = [
        row(epoch, discriminator_loss=float(loss), parzen=parzen(float(100 * loss)))
        for epoch, loss in enumerate(rng.random(5000) + 1.0, 1)
    ]
    history[1234]["discriminator_loss"] = 19.0
    history[3456]["discriminator_loss"] = math.nan
    text = report.render(CONFIG, history, [], run_name="run")
    assert len(text.encode()) < 500_000
    assert len(report.render(CONFIG, history * 2, [], run_name="run").encode()) < 500_000
    page = Page(text)
    assert "The last 1,000 of 5,000, newest first; metrics.jsonl has all of them." in page.text
    loss = next(d for d in lines(page, "a") if d != KEY)
    points = [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", loss)]
    assert 500 < len(points) <= 1000
    assert loss.count("M") == 2, "the gap is still there"
    top = min(points, key=lambda point: point[1])
    assert top[0] == pytest.approx(50 + 1235 / 5000 * (440 - 64 - 50), abs=0.1)
    assert [x for x, _ in points] == sorted(x for x, _ in points)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.0, 41_235.0, ["0", "10k", "20k", "30k", "40k", "50k"]),
        (-33.0, 31.0, ["−40", "−20", "0", "20", "40"]),
        (0.0, 2_600_000.0, ["0.0", "0.5M", "1.0M", "1.5M", "2.0M", "2.5M", "3.0M"]),
        (0.601, 0.604, ["0.601", "0.602", "0.603", "0.604"]),
        (5.0, 5.0, None),
        (1e12, 1.0001e12, None),
        (1.0, 1.00001, None),
        (0.0, 0.0, None),
    ],
)
def test_ticks_are_nice_and_cover_the_data(low, high, labels):
    ticks = report._ticks(low, high, cover=True)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert 3 <= len(ticks) <= 8
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
    named = report._tick_labels(ticks)
    assert len(set(named)) == len(named), "no two ticks read the same"
    if labels is not None:
        assert named == labels


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [(225.123, 1.96, "225.1 ± 2.0"), (-2.5, 0.034, "−2.500 ± 0.034"), (1.0, None, "1"), (3000.4, 120.0, "3,000 ± 120")],
)
def test_a_value_is_written_to_the_digits_its_error_knows(value, error, words):
    assert report._measured(value, error).replace("\N{NO-BREAK SPACE}", " ") == words
