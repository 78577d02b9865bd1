"""All that the paper shows, from one call: trained, scored, drawn and put on one page; gone on with where it stopped.

A reproduction is a folder:

    report.html, report.md    Table 1, figures 1 to 3, curves, options, seeds, times; what could not run, and why
    figures/                  the pictures
    runs/<part>/              a run each, as `fastgan train` leaves it
    state.json                what is done: read when the same is asked for again
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fastgan import checkpoint, datasets, figures, game, pictures, report, table1, training
from fastgan.config import Config
from fastgan.errors import ConfigError, FastganError, RunError
from fastgan.files import is_temporary, remove_temporaries, write_atomically
from fastgan.kernels.common import backends
from fastgan.kernels.common.devices import device
from fastgan.presets import preset
from fastgan.runs import LOCK, Run, load_run, locked, write_json
from fastgan.scoring import check_plots
from fastgan.training import Callback

Mode = Literal["quick", "full"]
GAME = "game"
STATE, REPORT, REPORT_MD, FIGURES, RUNS = "state.json", "report.html", "report.md", "figures", "runs"


@dataclass(frozen=True)
class Part:
    """A run of the reproduction.

    Attributes
    ----------
    name : str
        What it is called, and its folder.
    preset : str
        What it starts from.
    caption : str
        What the paper has of it.
    quick, full : mapping
        What of the preset changes.
    asked_as : str
        The name by which it is asked for, with the others of that name.
    after : str, optional
        The part whose generator it builds on.
    scored : bool
        Whether it has a place in Table 1.
    """

    name: str
    preset: str
    caption: str
    asked_as: str
    quick: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)
    after: str | None = None
    scored: bool = True


def _narrow(generator: Mapping[int, int], discriminator: int) -> dict[str, int]:
    widths = {f"generator.{i}.num_units": units for i, units in generator.items()}
    return {**widths, **{f"discriminator.{i}.num_units": discriminator for i in (0, 1)}}


PARTS = (
    Part("digits", "digits", "the MNIST recipe, scaled down to the digits that come with fastgan", "digits"),
    # How long the authors trained is not recorded; by 2,000 epochs the rate has fallen to a fiftieth.
    Part("mnist", "mnist", "figure 2 a, figure 3, Table 1", "mnist", quick={"epochs": 10}, full={"epochs": 2000}),
    Part(
        "tfd", "tfd", "the first stage", "tfd",
        quick={**_narrow({0: 400, 1: 400}, 120), "steps": 500}, scored=False,
    ),
    Part(
        "tfd-stage2", "tfd-stage2", "figure 2 b, Table 1", "tfd",
        quick={**_narrow({0: 400, 2: 400, 3: 400}, 120), "steps": 500}, after="tfd",
    ),
    Part(
        "cifar10", "cifar10", "figure 2 c", "cifar10",
        quick={**_narrow({0: 800, 1: 800}, 160), "steps": 500}, scored=False,
    ),
    Part(
        "cifar10-conv", "cifar10-conv", "figure 2 d", "cifar10-conv",
        quick={
            "generator.0.num_units": 800, "generator.1.num_units": 800, "generator.2.input_channels": 8,
            "discriminator.0.num_channels": 8, "discriminator.1.num_channels": 8, "discriminator.2.num_channels": 48,
            "discriminator.3.num_units": 125, "steps": 200,
        },
        scored=False,
    ),
)  # fmt: skip
NAMES = (GAME, *dict.fromkeys(part.asked_as for part in PARTS))
# What is made unless parts are named.
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "quick": (GAME, "digits", "mnist"),
    "full": (GAME, "mnist", "tfd", "cifar10", "cifar10-conv"),
}


def check_names(names: Sequence[str]) -> None:
    """Check that there are parts of these names.

    Raises
    ------
    ConfigError
        A name is none of ``NAMES``.
    """
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"There is no part {name!r}; there are {', '.join(NAMES)}")


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A stop was asked for; all that is done is saved."""


class Reproduction:
    """A folder in which the paper is reproduced, part by part.

    Parameters
    ----------
    out : path
        The folder; new, empty, or one of the same mode, seed and backend to go on with.
    mode : {"quick", "full"}
        Minutes on two cores, or the recipes as they are.
    data_dir : str, optional
        Where data sets are looked for.
    seed : int
        Of everything.
    backend : str
        What computes.
    threads : int, optional
        CPU threads; by default each preset's.
    callbacks : sequence of Callback
        Told of the training, as ``training.train`` tells them.
    say : callable, optional
        Told, in a line, what is being done.
    stop : threading.Event, optional
        Once it is set, the step in progress is finished and saved, and ``Stopped`` raised.

    Raises
    ------
    ConfigError
        The folder was begun with other options.
    RunError
        The folder holds something else, or cannot be written or read.
    """

    def __init__(
        self,
        out: Path,
        mode: Mode,
        *,
        data_dir: str | None = None,
        seed: int = 0,
        backend: str = "auto",
        threads: int | None = None,
        callbacks: Sequence[Callback] = (),
        say: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.out, self.mode, self.data_dir, self.seed = out, mode, data_dir, seed
        self.backend, self.threads = backends.resolve(backend), threads
        self.callbacks, self.say = callbacks, say or (lambda line: None)
        self.stop = stop or threading.Event()
        options = {"mode": mode, "seed": seed, "backend": self.backend}
        self.state: dict[str, Any] = {"options": options, "parts": {}}
        if (out / STATE).exists():
            self._take_up(options)
            return
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not self._is_empty():
                raise RunError(f"{out} is not empty and holds no reproduction; give a new folder with --out")
            for folder in (FIGURES, RUNS):
                (out / folder).mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"Cannot make the folder {out}: {error.strerror}") from error
        self._save()

    def _is_empty(self) -> bool:
        """Tell whether nothing is there, or only what a process that was killed before it saved anything has left."""
        for entry in self.out.iterdir():
            is_begun = entry.name in (FIGURES, RUNS) and entry.is_dir() and not any(entry.iterdir())
            if not (is_begun or is_temporary(entry) or entry.name == LOCK):
                return False
        return True

    def _take_up(self, options: Mapping[str, Any]) -> None:
        try:
            state = json.loads((self.out / STATE).read_text("utf-8"))
            begun, parts = state["options"], state["parts"]
            known = {GAME, *(part.name for part in PARTS)}
            if not isinstance(begun, dict) or not all(
                name in known and isinstance(record["seconds"], dict) for name, record in parts.items()
            ):
                raise ValueError("it is not of the kind that is written there")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self.out / STATE} cannot be read ({error}); give a new folder with --out") from error
        for name, value in options.items():
            if begun.get(name) != value:
                raise ConfigError(
                    f"{self.out} was begun with {name} {begun.get(name)!r} and {value!r} is asked for; go on as it "
                    "was begun, or give a new folder with --out"
                )
        self.state = state

    def run(self, names: Sequence[str]) -> bool:
        """Make the named parts, and the report anew after each of them.

        Parameters
        ----------
        names : sequence of str
            Of ``NAMES``.

        Returns
        -------
        bool
            Whether any of them could be made.

        Raises
        ------
        ConfigError
            A name is none of them.
        Stopped
            A stop was asked for.
        RunError
            Another process is at work in the folder, or it cannot be written.
        """
        check_names(names)
        with locked(self.out, "reproduced"):
            # Another process may have gone on since this one looked, and one that was killed leaves what it wrote last.
            self._take_up(self.state["options"])
            for folder in (self.out, self.out / FIGURES):
                remove_temporaries(folder)
            return self._run(names)

    def _run(self, names: Sequence[str]) -> bool:
        wanted: list[tuple[str, Callable[[dict[str, Any]], None]]] = [(GAME, self._play)] if GAME in names else []
        wanted += [(part.name, partial(self._make, part)) for part in PARTS if part.asked_as in names]
        # All of them from the start: a report that is written between two of them tells what is still to come.
        records = [self.state["parts"].setdefault(name, {"seconds": {}}) for name, _ in wanted]
        for record in records:
            record.pop("why_not", None)
        made = False
        for (name, make), record in zip(wanted, records, strict=True):
            self._check_stop()
            try:
                make(record)
                made = True
            except FastganError as error:
                record["why_not"] = str(error)
                self.say(f"{name} could not be made: {error}")
            finally:
                self._save()
                self._write_report()
        return made

    def _play(self, record: dict[str, Any]) -> None:
        path = self.out / FIGURES / "figure1.png"
        if "drawing" in record["seconds"] and path.exists():
            return
        check_plots()
        self.say("game: playing")
        started = time.perf_counter()
        played = game.play(self.seed, self.backend)
        record["seconds"]["training"] = time.perf_counter() - started
        record["config"] = played.config.to_json()
        record["criterion"] = played.criteria[-1]
        self._draw(record, {"figure1.png": lambda: game.plot(played)})

    def _make(self, part: Part, record: dict[str, Any]) -> None:
        """Train, score and draw one part, as far as that is not done."""
        seconds = record["seconds"]
        if "drawing" in seconds:
            return
        before = None
        if part.after is not None:
            before = self.out / RUNS / part.after
            if "training" not in self.state["parts"].get(part.after, {}).get("seconds", {}):
                raise RunError(f"It builds on {part.after}, which could not be made")
        config = self._config(part)
        # A data set is downloaded for the whole paper only: a quick look takes what is at hand.
        load = partial(datasets.load, config.dataset, data_dir=config.data_dir, download=self.mode == "full")
        dataset = load()
        run = self._train(part, config, dataset, before)
        seconds["training"] = run.history[-1]["seconds"]
        record["config"] = run.config.to_json()
        self._save()
        if part.scored and "scoring" not in seconds:
            self.say(f"{part.name}: scoring")
            started = time.perf_counter()
            cells = table1.score_run(
                run,
                backend=self.backend,
                load=lambda fold: dataset if fold is None else load(fold=fold),
            )
            record["cells"] = {name: dataclasses.asdict(cell) for name, cell in cells.items()}
            seconds["scoring"] = time.perf_counter() - started
            self._save()
        self._check_stop()
        self.say(f"{part.name}: drawing")
        self._draw(
            record,
            {
                f"{part.name}-figure2.png": lambda: figures.to_png(pictures.figure_2(run, dataset, seed=self.seed)),
                f"{part.name}-figure3.png": lambda: figures.to_png(pictures.figure_3(run, seed=self.seed)),
            },
        )

    def _config(self, part: Part) -> Config:
        changes = {**(part.quick if self.mode == "quick" else part.full), "seed": self.seed, "backend": self.backend}
        if self.threads is not None:
            changes["threads"] = self.threads
        if self.data_dir is not None and part.preset != "digits":
            changes["data_dir"] = self.data_dir
        return preset(part.preset).replace(training.absolute_paths(changes))

    def _train(self, part: Part, config: Config, dataset: datasets.Dataset, before: Path | None) -> Run:
        """Train the part's run to its end, from the start or from where it stopped, which may be the end."""
        path = self.out / RUNS / part.name
        hooks: dict[str, Any] = {"dataset": dataset, "callbacks": self.callbacks, "stop": self.stop}
        self.say(f"{part.name}: training")
        if (path / checkpoint.LATEST).exists() or (path / checkpoint.PREVIOUS).exists():
            run = training.resume(path, {} if self.threads is None else {"threads": self.threads}, **hooks)
        else:
            # A process that was killed before its first checkpoint leaves nothing to go on from.
            if path.exists():
                shutil.rmtree(path)
            run = training.train(config, run_dir=path, init_from=before, **hooks)
        self._check_stop()
        if not run.history:
            raise RunError(f"The run {path} made no step")
        return run

    def _draw(self, record: dict[str, Any], drawings: Mapping[str, Callable[[], bytes]]) -> None:
        """Draw all of a part's pictures, and then call it drawn."""
        started = time.perf_counter()
        for name, draw in drawings.items():
            content = draw()
            try:
                write_atomically(self.out / FIGURES / name, content)
            except OSError as error:
                raise RunError(f"Cannot write {self.out / FIGURES / name}: {error.strerror}") from error
        record["seconds"]["drawing"] = time.perf_counter() - started
        self._save()

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def _save(self) -> None:
        try:
            write_json(self.out / STATE, self.state)
        except OSError as error:
            raise RunError(f"Cannot write {self.out / STATE}: {error.strerror}") from error

    def _write_report(self) -> None:
        content = Content.of(self)
        try:
            write_atomically(self.out / REPORT, content.to_html().encode())
            write_atomically(self.out / REPORT_MD, content.to_markdown().encode())
        except OSError as error:
            raise RunError(f"Cannot write the report in {self.out}: {error.strerror}") from error


@dataclass(frozen=True)
class _Section:
    """What the report has of one run."""

    part: Part
    record: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    # What was changed to make it quick: field, then what it is and what the whole paper's is.
    differences: Mapping[str, tuple[Any, Any]]

    @property
    def summary(self) -> str:
        """Say how far it was trained, and how it is not what the paper has."""
        last = self.history[-1]
        epochs, trained = round(last["epoch"], 2), report.seconds_text(last["seconds"])
        text = f"{epochs:g} epochs, {last['step']:,} updates, {trained} of training"
        if self.differences:
            changed = "; ".join(
                f"{name} {is_} in place of {wanted}" for name, (is_, wanted) in self.differences.items()
            )
            text += f". Not the whole recipe: {changed}"
        return text + "."


@dataclass(frozen=True)
class Content:
    """The report's content, before it is HTML or Markdown."""

    folder: Path
    options: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    parts: Mapping[str, Mapping[str, Any]]
    missing: Sequence[str]
    table: table1.Table
    sections: Sequence[_Section]

    @classmethod
    def of(cls, made: Reproduction) -> Content:
        """Gather what a reproduction has so far."""
        parts = made.state["parts"]
        missing = [f"{name}: {record['why_not'].rstrip('.')}." for name, record in parts.items() if "why_not" in record]
        missing += [
            f"{name}: not finished; the same command goes on."
            for name, record in parts.items()
            if "why_not" not in record and "drawing" not in record["seconds"]
        ]
        asked = {part.asked_as for part in PARTS if part.name in parts} | ({GAME} & parts.keys())
        missing += [f"{name}: not asked for; --only {name} makes it." for name in NAMES if name not in asked]
        gpu = backends.why_not("cupy")
        if gpu is not None:
            missing.append(f"Nothing was made on a GPU: {gpu}.")
        sections, scored = [], []
        for part in PARTS:
            record = parts.get(part.name, {})
            if "drawing" not in record.get("seconds", {}):
                continue
            run = load_run(made.out / RUNS / part.name, backend="reference")
            sections.append(_Section(part, record, run.history, _differences(part, made.mode)))
            if "cells" in record:
                cells = {name: table1.Cell(**_tuples(cell)) for name, cell in record["cells"].items()}
                epochs = f"{round(run.history[-1]['epoch'], 2):g} epochs"
                scored.append((table1.column_of(run), f"fastgan, {part.name}, {epochs}", cells))
        return cls(
            folder=made.out,
            options=made.state["options"],
            machine=training.describe_machine(device(made.backend)),
            versions=training.versions(),
            parts=parts,
            missing=missing,
            table=table1.make_table(scored),
            sections=sections,
        )

    @property
    def title(self) -> str:
        """The page's title."""
        return "Generative Adversarial Nets, reproduced"

    def times(self) -> list[list[str]]:
        """List each part's times of training, scoring and drawing, and their sums."""
        rows = []
        for name, record in self.parts.items():
            if seconds := record["seconds"]:
                cells = (report.seconds_text(seconds[step]) if step in seconds else "–" for step in _STEPS)
                rows.append([name, *cells, report.seconds_text(sum(seconds.values()))])
        total = sum(sum(record["seconds"].values()) for record in self.parts.values())
        return [*rows, ["all", "", "", "", report.seconds_text(total)]]

    def facts(self) -> str:
        """Say in a line how all this was made."""
        shown = (
            f"--{self.options['mode']}", f"seed {self.options['seed']}", f"backend {self.options['backend']}",
            *([] if self.machine["device"] == "cpu" else [self.machine["device"]]),
            f"{self.machine['processor']}, {self.machine['cores']} cores", f"fastgan {self.versions['fastgan']}",
        )  # fmt: skip
        return " · ".join(map(str, shown))

    def to_html(self) -> str:
        """Write one self-contained page."""
        e = report.escape
        body = [
            f'<header><p class="eyebrow">Reproduction</p><h1>{e(self.title)}</h1>'
            f'<p class="state">{e(self.facts())}</p></header>',
            self._html_missing(),
            self._html_table(),
            self._html_game(),
            *(self._html_section(section) for section in self.sections),
            f"<section><h2>Time</h2>{_html_rows(_TIMES, self.times())}</section>",
            "<section><details><summary><h2>Machine and versions</h2></summary>"
            f"{report.definitions({'machine': self.machine, 'versions': self.versions})}</details></section>",
        ]
        return report.page(self.title, body, _STYLE)

    def _html_missing(self) -> str:
        lines = "".join(f"<li>{report.escape(line)}</li>" for line in self.missing)
        return f'<section class="trouble"><h2>What is not here</h2><ul>{lines}</ul></section>' if lines else ""

    def _html_table(self) -> str:
        lines = [(row.kind, self.table.line(row)) for row in self.table.rows]
        rows = _html_rows(self.table.head(), [line for _, line in lines], [kind for kind, _ in lines])
        notes = "".join(f'<p class="lead">{report.escape(note)}</p>' for note in self.table.notes())
        return f"<section><h2>Table 1</h2>{rows}{notes}</section>"

    def _html_game(self) -> str:
        if "drawing" not in self.parts.get(GAME, {}).get("seconds", {}):
            return ""
        picture = report.image((self.folder / FIGURES / "figure1.png").read_bytes(), "The one-dimensional game")
        return (
            f'<section><h2>Figure 1</h2><figure class="wide"><div tabindex="0" role="region" aria-label="Figure 1">'
            f"{picture}</div><figcaption>{report.escape(_GAME_CAPTION)}"
            f"</figcaption></figure><details><summary>Options</summary>"
            f"{report.definitions(self.parts[GAME]['config'])}</details></section>"
        )

    def _html_section(self, section: _Section) -> str:
        name, e = section.part.name, report.escape
        drawn = "".join(
            f"<figure>{report.image((self.folder / FIGURES / file).read_bytes(), text)}"
            f"<figcaption>{e(text)}</figcaption></figure>"
            for file, text in _pictures(name)
        )
        return (
            f"<section><h2>{e(name)}: {e(section.part.caption)}</h2>"
            f'<p class="lead">{e(section.summary)}</p><div class="pair">{drawn}</div>'
            f"{report.charts(section.history, f'{name}-')}"
            f"<details><summary>Options</summary>{report.definitions(section.record['config'])}</details></section>"
        )

    def to_markdown(self) -> str:
        """Write the same in Markdown, its pictures in the folder beside it."""
        parts = [f"# {self.title}", self.facts()]
        if self.missing:
            parts += ["## What is not here", "\n".join(f"- {line}" for line in self.missing)]
        parts += ["## Table 1", self.table.to_markdown()]
        if "drawing" in self.parts.get(GAME, {}).get("seconds", {}):
            parts += ["## Figure 1", f"![The one-dimensional game]({FIGURES}/figure1.png)", _GAME_CAPTION]
        for section in self.sections:
            parts += [f"## {section.part.name}: {section.part.caption}", section.summary]
            parts += [f"![{text}]({FIGURES}/{file})\n\n*{text}*" for file, text in _pictures(section.part.name)]
        times = [_TIMES, ["---", *["---:"] * (len(_TIMES) - 1)], *self.times()]
        parts += ["## Time", "\n".join(f"| {' | '.join(row)} |" for row in times), "## Options"]
        for name, record in self.parts.items():
            if "config" in record:
                parts.append(f"{name}:\n\n```json\n{json.dumps(record['config'], indent=2)}\n```")
        return "\n\n".join(parts) + "\n"


_STEPS = ("training", "scoring", "drawing")
_TIMES = ("part", *_STEPS, "in all")
_GAME_CAPTION = (
    "A game on the line, played live: the data's density, the generator's, the discriminator D and the optimal one D*; "
    "arrows show where G takes evenly spaced z. Below, C(G), the game's value under D*, falls towards -log 4."
)
_STYLE = """
.reports th:first-child,.reports td:first-child{text-align:left;white-space:normal}
.reports tr.of-run td{font-weight:600}
.reports tr.first td{border-top:1px solid var(--axis)}
.reports th{white-space:normal}
.scroll{max-height:none}
h2+.scroll,h2+.wide{margin-top:.8rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),auto));gap:1.5rem 2rem;
align-items:start;justify-content:start;margin:.8rem 0 1.6rem}
.wide div{overflow-x:auto}
.wide img{border-radius:4px}
section>.lead{margin-top:.8rem}
section>details{margin-top:1.5rem}
@media screen and (max-width:46rem){.wide img{max-width:none;width:44rem}}
@media (max-width:30rem){.reports th,.reports td{padding:.35rem .25rem}.reports{font-size:.8rem}}
"""


def _pictures(name: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"{name}-figure2.png", "Fair draws; on the right the training image nearest to the sample beside it."),
        (f"{name}-figure3.png", "Straight lines through noise space, their ends fair draws of z."),
    )


def _html_rows(head: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """Tabulate text; a rule is drawn where the kind of the rows changes."""
    lines = []
    for i, row in enumerate(rows):
        is_first = bool(kinds) and i > 0 and kinds[i] != kinds[i - 1]
        classes = " ".join([*(f"of-{kind}" for kind in kinds[i : i + 1]), *(["first"] if is_first else [])])
        cells = "".join(f"<td>{report.escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="{classes}">{cells}</tr>')
    heads = "".join(f'<th scope="col">{report.escape(cell)}</th>' for cell in head)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{report.escape(head[0])}"><table class="reports">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _differences(part: Part, mode: Mode) -> dict[str, tuple[Any, Any]]:
    """Compare what a quick part changes with the whole recipe."""
    if mode == "full":
        return {}
    whole = preset(part.preset).replace(part.full)
    found = {}
    for name, value in part.quick.items():
        of: Any = whole
        for key in name.split("."):
            of = of[int(key)] if key.isdigit() else getattr(of, key)
        found[name] = (value, f"{whole.epochs} epochs" if name == "steps" else of)
    return found


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read a cell as JSON has it."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
