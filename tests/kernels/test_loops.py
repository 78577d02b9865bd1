"""The compiled loops of the backend cpu: their cache, their threads."""

import os
import subprocess
import sys
import threading
import warnings

import numba
import numpy as np
import pytest
from numba.core import caching

from fastgan.errors import FastganWarning
from fastgan.kernels import dropout, gather, linear, linear_maxout, noise, sgd
from fastgan.kernels.common import loops, products, threads
from fastgan.kernels.dropout import Dropout

prange = loops.prange


def doubled(x):
    for i in prange(x.shape[0]):
        x[i] *= 2


def run(size=0):
    compiled, x = loops.loop(doubled), np.arange(3.0)
    compiled(x, size=size)
    assert x.tolist() == [0, 2, 4]
    return compiled._serial.stats


@pytest.fixture
def cache_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(loops, "_has_warned", False)
    return tmp_path / "cache"


def test_a_second_start_compiles_nothing(cache_folder):
    assert not run().cache_hits
    assert run().cache_hits
    assert any(cache_folder.rglob("*.nbc"))


def test_that_something_is_compiled_is_said_once(cache_folder, monkeypatch, caplog):
    caplog.set_level("INFO", loops.LOG.name)
    for is_cold in (True, False):
        monkeypatch.setattr(loops, "_has_told", False)
        caplog.clear()
        run()
        run()
        assert caplog.messages == ["Compiling for this processor, which takes up to a minute the first time."] * is_cold


def test_a_change_of_a_shared_file_compiles_anew(cache_folder, monkeypatch):
    run()
    monkeypatch.setattr(loops, "_SHARED_STAMP", ((0.0, 0), (0.0, 0)))
    assert not run().cache_hits
    assert run().cache_hits


def test_no_folder_for_the_cache_is_said_once_and_all_works(cache_folder, monkeypatch):
    # Called _CacheImpl before Numba 0.61.
    monkeypatch.setattr(getattr(caching, "CacheImpl", None) or caching._CacheImpl, "_locator_classes", [])
    with pytest.warns(FastganWarning, match="compiled kernels cannot be kept on disk .* set NUMBA_CACHE_DIR"):
        run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()


def test_a_folder_that_is_lost_after_the_start(cache_folder, monkeypatch):
    compiled, x = loops.loop(doubled), np.arange(3.0)
    for path in sorted(cache_folder.rglob("*"), reverse=True):
        path.rmdir()
    cache_folder.rmdir()
    cache_folder.write_text("a file where the folder was")
    with pytest.warns(FastganWarning, match="compiled kernels cannot be kept on disk"):
        compiled(x, size=0)
    assert x.tolist() == [0, 2, 4]


def work(rng):
    """Give results of every loop that runs in parallel, at sizes at which it does."""
    B, I, U, P = 64, 300, 90, 5
    x, dy = rng.normal(size=(B, I)).astype(np.float32), rng.normal(size=(B, U)).astype(np.float32)
    W = rng.normal(size=(I, U * P)).astype(np.float32)
    v, b, vb = np.ones_like(W), np.zeros(U * P, np.float32), np.zeros(U * P, np.float32)
    pieces = rng.integers(0, P, (B, U)).astype(np.uint8)
    settings = Dropout(0.8, seed=1, stream=2)
    results = [
        dropout.apply(np.ones((200, 300), np.float32), settings, backend="cpu"),
        noise.uniform(np.empty((200, 300), np.float32), low=-1, high=2, seed=1, stream=3, backend="cpu"),
        noise.normal(np.empty((50, 33), np.float32), seed=1, stream=3, backend="cpu"),
        gather.order(5000, seed=1, epoch=2, start=0, count=5000, backend="cpu"),
        linear_maxout.backward_input(dy, pieces, W, P, dropout=settings, backend="cpu"),
        *linear_maxout.backward_weights(x, dy, pieces, P, dropout=settings, backend="cpu"),
        *linear_maxout.forward(x, W, np.zeros(U * P, np.float32), P, dropout=settings, backend="cpu"),
        linear.forward(x, W, np.zeros(U * P, np.float32), "sigmoid", backend="cpu"),
        linear.backward_weights(x[:, :1].copy(), W[:B].copy(), W[B : 2 * B].copy(), "relu", backend="cpu")[1],
    ]
    rates = {"learning_rate": 0.1, "momentum": 0.5, "backend": "cpu"}
    linear_maxout.backward_update(x, dy, pieces, P, W, b, v, vb, max_col_norm=3.0, **rates)
    sgd.update(W, v, np.ones_like(W), **rates)
    return [*results, W, v, b, vb]


@pytest.fixture
def in_parallel(monkeypatch):
    """Let small loops run in parallel."""
    monkeypatch.setattr(loops, "PARALLEL_SIZE", 1 << 12)
    products._plan.cache_clear()
    yield
    products._plan.cache_clear()


@pytest.mark.usefixtures("in_parallel")
def test_loops_give_the_same_bits_with_any_number_of_threads():
    results = []
    for number in (1, 2, 3):
        with threads.limit(number):
            results.append([array.copy() for array in work(np.random.default_rng(0))])
    for several in results[1:]:
        assert all((a == b).all() for a, b in zip(several, results[0], strict=True))


@pytest.mark.usefixtures("in_parallel")
def test_loops_may_be_called_from_several_threads():
    expected = [array.copy() for array in work(np.random.default_rng(0))]
    found = {}

    def target(number):
        found[number] = work(np.random.default_rng(0))

    workers = [threading.Thread(target=target, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for results in found.values():
        assert all((a == b).all() for a, b in zip(results, expected, strict=True))
    assert len(found) == 3


@pytest.mark.parametrize(
    ("given", "seen"),
    [({}, "3000 None"), ({"GOMP_SPINCOUNT": "7"}, "7 7"), ({"OMP_WAIT_POLICY": "active"}, "None None")],
    ids=["by default", "asked for", "another policy"],
)
def test_threads_that_wait_look_out_for_a_short_while_only(given, seen):
    # GNU's OpenMP reads the variable as it is loaded, and other libraries' must not be changed by it.
    program = (
        "import importlib, os\n"
        "real, name = importlib.import_module, 'GOMP_SPINCOUNT'\n"
        "def watched(module):\n"
        "    if module.endswith('omppool'):\n"
        "        print(os.environ.get(name), end=' ')\n"
        "    return real(module)\n"
        "importlib.import_module = watched\n"
        "from fastgan.kernels.common import loops\n"
        "print(os.environ.get(name))\n"
    )
    others = {name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**others, **given}
    )
    assert done.stdout.strip() == seen
