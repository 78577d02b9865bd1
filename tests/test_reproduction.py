import json
import threading
from html.parser import HTMLParser

import pytest

from fastgan import game, reproduction, runs, training
from fastgan.datasets import registry
from fastgan.errors import ConfigError, DataError, RunError
from fastgan.kernels.common import backends
from fastgan.reproduction import DEFAULTS, NAMES, PARTS, Reproduction, Stopped
from tests.datasets import test_cifar
from tests.datasets.made_up import write_files
from tests.runs_for_tests import StopAt, invoke, small_reproduction


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    small_reproduction(monkeypatch.setattr)
    played = game.play()
    monkeypatch.setattr(game, "play", lambda *_, **__: played)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTGAN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return played


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.identifiers, self.text = 0, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        fields = dict(attributes)
        self.images += tag == "img"
        self.identifiers += [fields["id"]] if "id" in fields else []
        assert not fields.get("src", "data:").startswith("http")

    def handle_data(self, data):
        self.text += data


def test_a_quick_reproduction_has_all_that_can_be_made_and_says_what_cannot(tmp_path):
    pytest.importorskip("matplotlib")
    result = invoke("reproduce", "--out", "paper", "-q")
    assert result.stdout == "paper/report.html\n"
    out = tmp_path / "paper"
    text = (out / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.images == 3
    assert len(set(page.identifiers)) == len(page.identifiers) > 0
    # The paper's rows, ours, and the baselines'.
    for wanted in ("225 ± 2", "2057 ± 26", "fastgan, digits, 2 epochs", "k-means centroids", "training images"):
        assert wanted in page.text
    # The style hides what is of the class "paper".
    assert 'class="paper"' not in text
    assert 'class="of-paper' in text
    assert "mnist: mnist was not found" in page.text
    assert "tfd: not asked for; --only tfd makes it." in page.text
    assert ("Nothing was made on a GPU" in page.text) == (backends.why_not("cupy") is not None)
    assert "Not the whole recipe: epochs 2 in place of 500; batch_size 239 in place of 50" in page.text
    markdown = (out / "report.md").read_text("utf-8")
    for wanted in ("| Adversarial nets | 225 ± 2 | 2057 ± 26 |", "figures/figure1.png", "figures/digits-figure2.png"):
        assert wanted in markdown
    assert {path.name for path in (out / "figures").iterdir()} == {
        "figure1.png", "digits-figure2.png", "digits-figure3.png",
    }  # fmt: skip
    assert '"seed": 0' in markdown


def test_the_convolutional_model_is_a_part_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.REGISTRY, "cifar10", test_cifar.made_up())
    ask = ("reproduce", "--out", "paper", "--only", "cifar10-conv", "--backend", "reference", "--threads", 1, "-q")
    assert "None of the parts" in invoke(*ask, code=1).stderr
    text = (tmp_path / "paper" / "report.md").read_text("utf-8")
    assert "- cifar10-conv: cifar10 was not found" in text
    assert "- cifar10: not asked for; --only cifar10 makes it." in text
    assert "- cifar10-conv: not asked for" not in text
    # The same command, once the files are there.
    write_files(tmp_path / "data", test_cifar.CONTENT)
    assert invoke(*ask, "--data-dir", "data").stdout == "paper/report.html\n"
    page = Page((tmp_path / "paper" / "report.html").read_text("utf-8"))
    markdown = (tmp_path / "paper" / "report.md").read_text("utf-8")
    assert page.images == 2
    for found in (page.text, markdown):
        assert "cifar10-conv: figure 2 d" in found
        assert "discriminator.0.num_channels 2 in place of 32" in found
        assert "steps 2 in place of 100 epochs" in found
        assert "0.67 epochs, 2 updates" in found
        assert "cifar10-conv: cifar10 was not found" not in found
    assert "](figures/cifar10-conv-figure2.png)" in markdown
    # It has no column in Table 1.
    assert "fastgan, cifar10-conv" not in page.text


def test_it_goes_on_where_it_stopped(tmp_path):
    stopper = StopAt(4)
    first = Reproduction(tmp_path / "paper", "quick", callbacks=[stopper], stop=stopper.event)
    with pytest.raises(Stopped):
        first.run(["digits", "tfd"])
    run = training.load_run(tmp_path / "paper" / "runs" / "digits")
    assert 4 <= run.step < 10
    assert "scoring" not in first.state["parts"]["digits"]["seconds"]
    text = (tmp_path / "paper" / "report.md").read_text("utf-8")
    # What was to come after it was asked for, too.
    assert "- digits: not finished; the same command goes on." in text
    assert "- tfd-stage2: not finished; the same command goes on." in text
    assert "tfd: not asked for" not in text
    second = Reproduction(tmp_path / "paper", "quick")
    assert second.run(["digits"])
    assert training.load_run(run.path).step == 10
    # What is done is not done again.
    before = (tmp_path / "paper" / "figures" / "digits-figure2.png").stat().st_mtime_ns
    seconds = second.state["parts"]["digits"]["seconds"]
    third = Reproduction(tmp_path / "paper", "quick")
    assert third.run(["digits"])
    assert third.state["parts"]["digits"]["seconds"] == seconds
    assert (tmp_path / "paper" / "figures" / "digits-figure2.png").stat().st_mtime_ns == before
    # Another part joins the same page.
    said = []
    fourth = Reproduction(tmp_path / "paper", "quick", say=said.append)
    assert not fourth.run(["tfd"])
    assert "given out by its owners on request" in fourth.state["parts"]["tfd"]["why_not"]
    assert fourth.state["parts"]["tfd-stage2"]["why_not"] == "It builds on tfd, which could not be made"
    assert any("tfd could not be made" in line for line in said)
    assert "fastgan, digits, 2 epochs" in (tmp_path / "paper" / "report.html").read_text("utf-8")


def test_a_process_that_died_at_once_leaves_nothing_in_the_way(tmp_path):
    out = tmp_path / "paper"
    (out / "figures").mkdir(parents=True)
    (out / ".state.json.abc.tmp").write_text("{")
    (out / ".lock").touch()
    made = Reproduction(out, "quick")
    assert made.run(["digits"])
    assert not list(out.rglob(".*"))


def test_what_was_being_written_at_a_kill_is_removed(tmp_path):
    made = Reproduction(tmp_path / "paper", "quick")
    for folder in ("", "figures/"):
        (tmp_path / "paper" / f"{folder}.x.tmp").write_text("half")
    assert made.run(["digits"])
    assert not list((tmp_path / "paper").rglob(".*"))


def test_a_second_process_is_refused(tmp_path):
    made, second = (Reproduction(tmp_path / "paper", "quick") for _ in range(2))
    with runs.locked(tmp_path / "paper"), pytest.raises(RunError, match="paper is being reproduced by another process"):
        second.run(["digits"])
    # What the first has done meanwhile the second does not do again.
    assert made.run(["digits"])
    said = []
    second.say = said.append
    assert second.run(["digits"])
    assert not said


def test_a_process_that_died_before_its_first_checkpoint_leaves_nothing_in_the_way(tmp_path):
    made = Reproduction(tmp_path / "paper", "quick")
    (tmp_path / "paper" / "runs" / "digits" / "samples").mkdir(parents=True)
    assert made.run(["digits"])


def test_a_part_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    from fastgan import table1

    def fail(*_, **__):
        raise DataError("the samples are gone")

    monkeypatch.setattr(table1, "score_run", fail)
    made = Reproduction(tmp_path / "paper", "quick")
    pytest.importorskip("matplotlib")
    assert made.run(["game", "digits"])
    assert made.state["parts"]["digits"]["why_not"] == "the samples are gone"
    assert "digits: the samples are gone" in (tmp_path / "paper" / "report.md").read_text("utf-8")


def test_what_was_scored_is_not_scored_again(tmp_path, monkeypatch):
    from fastgan import pictures, table1

    def fail(*_, **__):
        raise DataError("no pencil")

    with monkeypatch.context() as without:
        without.setattr(pictures, "figure_2", fail)
        made = Reproduction(tmp_path / "paper", "quick")
        assert not made.run(["digits"])
    cells = made.state["parts"]["digits"]["cells"]
    assert "digits: not finished" not in (tmp_path / "paper" / "report.md").read_text("utf-8")
    monkeypatch.setattr(table1, "score_run", fail)
    again = Reproduction(tmp_path / "paper", "quick")
    assert again.run(["digits"])
    assert again.state["parts"]["digits"]["cells"] == json.loads(json.dumps(cells))
    assert "no pencil" not in (tmp_path / "paper" / "report.md").read_text("utf-8")


def test_bad_input(tmp_path):
    Reproduction(tmp_path / "paper", "quick")
    with pytest.raises(ConfigError, match="was begun with mode 'quick' and 'full' is asked for"):
        Reproduction(tmp_path / "paper", "full")
    with pytest.raises(ConfigError, match="was begun with seed 0 and 1 is asked for"):
        Reproduction(tmp_path / "paper", "quick", seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="is not empty and holds no reproduction"):
        Reproduction(tmp_path / "other", "quick")
    for content in ("{", "[]", '{"options": 1, "parts": {}}', '{"options": {}, "parts": {"a": {"seconds": {}}}}'):
        (tmp_path / "paper" / "state.json").write_text(content)
        with pytest.raises(RunError, match="cannot be read"):
            Reproduction(tmp_path / "paper", "quick")
    assert "There is no part 'mnits'; there are game, digits" in invoke(
        "reproduce", "--out", "new", "--only", "mnits", code=2
    ).stderr  # fmt: skip
    assert "names no part" in invoke("reproduce", "--out", "new", "--only", ",", code=2).stderr
    assert not (tmp_path / "new").exists()
    assert "None of the parts" in invoke("reproduce", "--out", "tfd", "--only", "tfd", "-q", code=1).stderr


def test_the_parts():
    assert NAMES == ("game", "digits", "mnist", "tfd", "cifar10", "cifar10-conv")
    # The whole paper is all of it, and a quick look what takes minutes.
    assert DEFAULTS["full"] == tuple(name for name in NAMES if name != "digits")
    assert DEFAULTS["quick"] == ("game", "digits", "mnist")
    made = Reproduction.__new__(Reproduction)
    made.seed, made.backend, made.data_dir, made.threads = 3, "cpu", None, None
    for mode in ("quick", "full"):
        made.mode = mode
        for part in PARTS:
            config = made._config(part)
            assert (config.preset, config.seed) == (part.preset, 3)
            if mode == "full":
                assert config.generator == reproduction.preset(part.preset).generator
    # The second stage's quick widths are those of the first.
    made.mode = "quick"
    first, second = (made._config(next(part for part in PARTS if part.name == name)) for name in ("tfd", "tfd-stage2"))
    assert first.generator == second.generator[2:]


def test_a_stop_before_anything_makes_nothing(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        Reproduction(tmp_path / "paper", "quick", stop=stop).run(["game", "digits"])
    state = json.loads((tmp_path / "paper" / "state.json").read_text())
    assert state["parts"] == {}
