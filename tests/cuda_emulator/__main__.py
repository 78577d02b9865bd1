"""Train 300 steps of the digits preset on the emulated GPU and on the reference, and compare their scores.

    python -m tests.cuda_emulator [--steps 300] [--seeds 5]

Rounding tells the runs apart long before the end, so weights are not compared: the emulated runs must end finite, with
scores among those that the reference reaches with other seeds. Some minutes; not a part of the test suite.
"""

import argparse
import sys
import tempfile

import fastgan
from fastgan.kernels.common import backends
from tests.cuda_emulator.runtime import emulated


def score(backend, seed, steps, folder):
    config = fastgan.preset("digits").replace({"backend": backend, "seed": seed, "steps": steps})
    run = fastgan.train(config, runs_dir=folder)
    assert run.step == steps
    return fastgan.parzen(run.generator.sample(2000, seed=0), "digits", backend="cpu").log_likelihood


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.cuda_emulator", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        for backend in ("reference", "cupy"):
            scores[backend] = []
            for seed in range(options.seeds):
                # Nothing is checked while it runs: the test suite does that, on fewer steps.
                with emulated(bare=True):
                    backends.resolve.cache_clear()
                    scores[backend].append(score(backend, seed, options.steps, folder))
                backends.resolve.cache_clear()
                print(f"{backend:10} seed {seed}: {scores[backend][-1]:.2f} nats", flush=True)
    low, high = min(scores["reference"]), max(scores["reference"])
    room = high - low
    inside = all(low - room <= one <= high + room for one in scores["cupy"])
    print(
        f"the reference's seeds span {low:.2f} to {high:.2f}; the emulated runs lie {'within' if inside else 'OUTSIDE'}"
    )
    return 0 if inside else 1


if __name__ == "__main__":
    sys.exit(main())
