"""The long forms of these tests.

    python -m tests.reliability --kills 500 --reproduce 100 --flips 2000 --fuzz 10000 --steps 20000

What is not asked for is not run. Each part prints a JSON line with its counts and its seed; docs/reliability.md has
those of the last run of them all. The first fault ends it with a traceback.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import fastgan
from tests.reliability import commands, disks, fuzz, kills, long_runs
from tests.reliability.server import Server
from tests.runs_for_tests import TINY, arrays_of, assert_same_bits, trained


def part(name, action, **settings):
    started = time.monotonic()
    seen = action()
    print(
        json.dumps({"part": name, **settings, "seen": seen, "seconds": round(time.monotonic() - started)}), flush=True
    )


def fuzz_commands(num_cases, seed, folder):
    os.environ.pop("FASTGAN_DATA", None)
    os.environ.pop("FASTGAN_RUNS", None)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.chdir(folder)
    fastgan.train(TINY, run_dir="runs/00001-digits-seed3")
    put_back = commands.no_network()
    try:
        return commands.many(num_cases, seed)
    finally:
        put_back()


def long_run(num_steps, seed, folder):
    """Digits, and the same beside three busy processes while the clock jumps: the same bits."""
    config = fastgan.preset("digits").replace({"steps": num_steps, "seed": seed})
    seen = long_runs.run(config, folder / "quiet")
    with long_runs.busy_machine(3), long_runs.jumping_clock():
        trained(config, folder / "busy")
    assert_same_bits(arrays_of(fastgan.load_run(folder / "busy")), arrays_of(fastgan.load_run(folder / "quiet")))
    return {**seen, "same bits beside 3 busy processes and a jumping clock": True}


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="of training; a fifth as many of sampling and scoring")
    parser.add_argument("--reproduce", type=int, default=0, help="kills of reproducing")
    parser.add_argument("--flips", type=int, default=0, help="checkpoints with flipped bytes, and 64 cuts")
    parser.add_argument("--fuzz", type=int, default=0, help="inputs in all, over all parsers and the command line")
    parser.add_argument("--steps", type=int, default=0, help="of the long run")
    parser.add_argument("--seed", type=int, default=20140610)
    asked = parser.parse_args()
    seed = asked.seed
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def place(name):
            (folder / name).mkdir()
            return folder / name

        if asked.kills:
            processes = Server()
            for backend, share in (("cpu", 0.8), ("reference", 0.2)):
                num = round(asked.kills * share)
                where = place(f"kills {backend}")
                action = lambda: kills.of_training(processes, num, seed, where, backend)  # noqa: B023, E731
                part(f"kills of training, {backend}", action, seed=seed)
            num_reads, where = max(1, asked.kills // 5), place("reading")
            action = lambda: kills.of_reading(processes, num_reads, seed, where)  # noqa: E731
            part("kills of sampling and scoring", action, seed=seed)
            calls = place("calls")
            action = lambda: kills.at_every_call(processes, calls, range(1, 10_000))  # noqa: E731
            part("a kill at every call to the system", action)
            processes.close()
        if asked.reproduce:
            processes, pages = Server(), place("reproducing")
            action = lambda: kills.of_reproducing(processes, asked.reproduce, seed, pages)  # noqa: E731
            part("kills of reproducing", action, seed=seed)
            processes.close()
        if asked.flips:
            for which in ("latest", "best"):
                where = place(f"power {which}")
                (where / "run").mkdir()
                cuts = disks.survive_power_cuts(where, disks.recorded_save(where / "run", which), which, seed)
                part(f"power cuts of a save, {which}", lambda: cuts, seed=seed)  # noqa: B023
                refused = disks.survive_refusals(place(f"refusals {which}"), which)
                part(f"refused calls and cases, {which}", lambda: refused)  # noqa: B023
            content = (fastgan.train(TINY, run_dir=place("damage") / "run").path / "checkpoint.h5").read_bytes()
            part(
                "damaged checkpoints",
                lambda: disks.survive_damage(place("damaged"), content, asked.flips, seed),
                seed=seed,
            )
        if asked.fuzz:
            each = -(-asked.fuzz // (len(fuzz.PARSERS) + 1))
            for name in fuzz.PARSERS:
                part(f"fuzz {name}", lambda: fuzz.in_a_process(each, seed, (name,))[name], seed=seed)  # noqa: B023
            part("fuzz the command line", lambda: fuzz_commands(each, seed, place("commands")), seed=seed)
        if asked.steps:
            part("a long run", lambda: long_run(asked.steps, seed % 1000, place("long")), seed=seed % 1000)
        os.chdir("/")


if __name__ == "__main__":
    main()
