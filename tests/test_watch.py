import json

import numpy as np
import pytest

import fastgan
from fastgan import datasets, watch
from fastgan.errors import CollapseError, FastganWarning
from tests.runs_for_tests import TINY, arrays_of, assert_same_bits


def history(*reports):
    return [{"D_x": D_x, "D_G_z": D_G_z, "sample_spread": spread} for D_x, D_G_z, spread in reports]


# What was seen: docs/reliability.md.
MNIST = history((0.716, 0.312, 0.001), (0.948, 0.059, 0.234), (0.930, 0.069, 0.630), (0.879, 0.121, 0.751))
WORST_MNIST = history((0.719, 0.310, 0.001), (0.943, 0.063, 0.2), (0.963, 0.037, 0.5), (0.844, 0.157, 0.7))
DIGITS = history(*[(0.5, 0.5, 0.0001)] * 9, (0.560, 0.461, 0.0001), (0.879, 0.133, 0.0112), (0.884, 0.117, 0.367))
MINIMAX = history(
    (0.5, 0.5, 0.0001), (0.876, 0.13, 0.0004), (0.934, 0.07, 0.0013), (0.953, 0.05, 0.0027), (0.957, 0.045, 0.0115),
    (0.93, 0.08, 0.2),
)  # fmt: skip


@pytest.mark.parametrize("healthy", [MNIST, WORST_MNIST, DIGITS, MINIMAX])
def test_runs_that_went_well_are_not_warned_about(healthy):
    for n in range(len(healthy) + 1):
        assert watch.collapse(healthy[:n]) is None


def test_a_discriminator_that_has_won_is_seen_at_the_second_report():
    lost = [*MNIST, *history((0.9995, 0.0004, 0.5), (0.9999, 0.0001, 0.4))]
    assert watch.collapse(lost[:-1]) is None
    assert watch.collapse(lost) == "discriminator"
    # Both are needed: a D that says 1 to all has not won.
    assert watch.collapse([*MNIST, *history((0.9995, 0.5, 0.5), (0.9995, 0.5, 0.5))]) is None


def test_samples_that_are_all_alike_are_seen():
    alike = (0.6, 0.4, 0.001)
    assert watch.collapse([*MNIST, *history(alike, alike)]) is None
    assert watch.collapse([*MNIST, *history(alike, alike, alike)]) == "samples"
    # D that cannot tell one image from the data's mean is no comfort once there were more.
    assert watch.collapse([*MNIST, *history(*[(0.5, 0.5, 0.001)] * 3)]) == "samples"
    # Before the game begins all samples are alike as well.
    assert watch.collapse(history(*[(0.5, 0.5, 0.0001)] * 50)) is None
    assert watch.collapse(history(*[(0.97, 0.03, 0.0001)] * 7)) is None
    assert watch.collapse(history(*[(0.97, 0.03, 0.0001)] * 8)) == "samples"


def test_lines_without_a_spread_are_of_an_earlier_version():
    lines = [{"D_x": 0.6, "D_G_z": 0.4}] * 20
    assert watch.collapse(lines) is None


def test_the_spread_of_the_data_themselves_is_one():
    split = datasets.load("digits").splits["train"]
    assert watch.variance(split.as_float32()) == pytest.approx(watch.data_variance(split), rel=0.05)
    few = datasets.Split(split.pixels[:900].copy(), split.divisor, None)
    assert watch.variance(few.as_float32()) == pytest.approx(watch.data_variance(few), rel=1e-12)
    assert watch.variance(np.ones((5, 3), np.float32)) == 0


# So narrow a generator sends all noise to one image by the hundredth epoch.
ALIKE = TINY.replace({"epochs": 120})


def test_a_run_whose_samples_are_alike_is_warned_about_once(tmp_path):
    with pytest.warns(FastganWarning, match="all samples are alike") as told:
        run = fastgan.train(ALIKE, run_dir=tmp_path / "run")
    assert len(told) == 1
    marked = [line for line in run.history if "collapse" in line]
    assert [line["collapse"] for line in marked] == ["samples"]
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == run.history
    page = (run.path / "report.html").read_text()
    assert page.count("Collapsed") == 1
    assert "all samples are alike" in page
    # It was told; going on tells nothing new, and changes nothing.
    longer = fastgan.resume(run.path, {"epochs": 130})
    assert len([line for line in longer.history if "collapse" in line]) == 1


def test_a_run_that_is_to_stop_stops_saved_and_goes_on_when_told_to(tmp_path):
    with pytest.raises(CollapseError, match=r"all samples are alike.*the run was saved.*--on-collapse warn goes on"):
        fastgan.train(ALIKE.replace({"on_collapse": "stop"}), run_dir=tmp_path / "stopped")
    stopped = fastgan.load_run(tmp_path / "stopped")
    assert stopped.history[-1]["step"] == stopped.step < 120 * 5
    with pytest.raises(CollapseError, match="all samples are alike"):
        fastgan.resume(stopped.path)
    gone_on = fastgan.resume(stopped.path, {"on_collapse": "warn"})
    assert gone_on.step == 120 * 5
    with pytest.warns(FastganWarning, match="all samples are alike"):
        whole = fastgan.train(ALIKE, run_dir=tmp_path / "whole")
    assert_same_bits(arrays_of(gone_on), arrays_of(whole))


def test_the_check_reads_nothing_but_reports(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(watch, "collapse", lambda history: calls.append(len(history)))
    run = fastgan.train(TINY.replace({"epochs": 5}), run_dir=tmp_path / "run")
    assert calls == [1, 2, 3]
    assert len(run.history) == 3
