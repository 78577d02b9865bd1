import errno
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastgan
from fastgan import checkpoint, datasets, runs
from fastgan.checkpoint import LATEST, Checkpoint
from fastgan.errors import BackendError, DataError, FastganWarning, NotEnoughMemoryError, RunError
from fastgan.kernels.common import threads
from fastgan.runs import find_run, load_run, locked, new_run_folder, take_run_folder
from tests.runs_for_tests import TINY, process


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fastgan.train(TINY, runs_dir=tmp_path_factory.mktemp("runs"))


def rewritten(trained, folder, change):
    """Save a run's checkpoint in another folder, its record and arrays changed."""
    record, arrays = json.loads(json.dumps(trained.loaded.record)), dict(trained.loaded.arrays)
    change(record, arrays)
    checkpoint.save(folder, Checkpoint(arrays, record))
    return folder


def test_a_run_is_read_as_it_was_trained(trained):
    run = load_run(trained.path)
    assert run.path == trained.path
    assert run.config == trained.config == TINY.replace({"backend": "cpu"})
    assert (run.step, run.image_shape) == (5, (1, 8, 8))
    assert run.history == trained.history
    assert run.data["rows"] == {"train": 1197, "valid": 300, "test": 300}
    assert run.generator.parameters().keys() == {f"{i}/{name}" for i in range(3) for name in ("W", "b", "vW", "vb")}
    for of in ("generator", "discriminator"):
        for name, array in getattr(run, of).parameters().items():
            np.testing.assert_array_equal(array, run.loaded.arrays[f"{of}/{name}"])
            assert name.endswith("b") or array.any()


def test_samples_are_a_function_of_the_seed(trained):
    run = load_run(trained.path)
    samples = run.generator.sample(30, seed=4)
    assert (samples.shape, samples.dtype) == ((30, 64), np.float32)
    assert np.isfinite(samples).all()
    assert (samples >= 0).all()
    assert (samples <= 1).all()
    np.testing.assert_array_equal(samples, load_run(trained.path).generator.sample(30, seed=4))
    assert not np.array_equal(samples, run.generator.sample(30, seed=5))
    assert len(np.unique(samples, axis=0)) == 30


def test_the_discriminator_gives_probabilities(trained):
    run = load_run(trained.path)
    probabilities = run.discriminator.probability(run.generator.sample(10))
    assert probabilities.shape == (10,)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_a_run_can_be_read_with_another_number_of_threads(trained):
    with threads.limit(2):
        two = load_run(trained.path).generator.sample(8)
    with threads.limit(1):
        one = load_run(trained.path).generator.sample(8)
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


def test_a_backend_that_is_not_here_is_said_when_it_is_needed(trained):
    with pytest.raises(BackendError, match="cupy cannot run here"):
        _ = load_run(trained.path, backend="cupy").generator


def test_the_data_set_is_the_one_of_the_run(trained):
    assert load_run(trained.path).load_dataset().name == "digits"


def test_data_that_changed_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "mine.npy"
    np.save(file, rng.random((300, 4), dtype=np.float32))
    run = fastgan.train(TINY.replace({"dataset": str(file), "steps": 1}), run_dir=tmp_path / "run")
    assert run.load_dataset().num_pixels == 4
    np.save(file, rng.random((300, 4), dtype=np.float32))
    with pytest.raises(DataError, match=r"mine.npy has another SHA-256"):
        run.load_dataset()


def test_data_without_a_digest_are_compared_by_name_shape_and_rows(tmp_path):
    rng = np.random.default_rng(0)
    split = datasets.Split(rng.random((300, 64), dtype=np.float32), 1.0, None)
    own = datasets.Dataset("own", (1, 8, 8), {"train": split, "valid": split}, "memory", {}, 300)
    run = fastgan.train(TINY.replace({"steps": 1}), dataset=own, run_dir=tmp_path / "run")
    assert run.data["name"] == "own"
    with pytest.raises(DataError, match="their name is digits and was own"):
        run.load_dataset()


def test_a_field_that_the_checkpoint_lacks_takes_its_default(trained, tmp_path):
    def older(record, arrays):
        del record["config"]["precision"], record["config"]["generator"][0]["max_col_norm"]

    assert load_run(rewritten(trained, tmp_path, older)).config == trained.config


def test_a_field_of_a_newer_version_is_a_fault_of_the_run_not_of_the_options(trained, tmp_path):
    def newer(record, arrays):
        record["config"]["num_critics"] = 3

    folder = rewritten(trained, tmp_path, newer)
    with pytest.raises(RunError, match=r"no field 'num_critics'.*use the version of fastgan that wrote it"):
        load_run(folder)
    with pytest.raises(RunError, match="num_critics"):
        fastgan.resume(folder)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_arrays_that_do_not_fit_the_configuration_are_refused(trained, tmp_path, change):
    def damage(record, arrays):
        W = arrays.pop("generator/1/W")
        if change == "shape":
            arrays["generator/1/W"] = W[:1]

    folder = rewritten(trained, tmp_path, damage)
    with pytest.raises(RunError, match=r"does not fit its own configuration.*generator/1/W"):
        _ = load_run(folder).generator
    with pytest.raises(RunError, match=r"does not fit its own configuration.*generator/1/W"):
        fastgan.resume(folder, {"epochs": 2})


def test_a_folder_that_is_no_run_is_said(tmp_path):
    with pytest.raises(RunError, match="There is no run at"):
        load_run(tmp_path / "none")
    with pytest.raises(RunError, match="holds no checkpoint"):
        load_run(tmp_path)
    (tmp_path / LATEST).write_bytes(b"something else")
    with pytest.raises(RunError, match="is not a fastgan checkpoint"):
        load_run(tmp_path)


def folders(runs_dir, *names):
    for name in names:
        (runs_dir / name).mkdir(parents=True)


def test_a_run_is_found_by_path_name_and_number_and_the_newest_by_nothing(tmp_path, monkeypatch):
    folders(
        tmp_path, "00001-digits-seed0", "00009-mnist-seed0", "00010-mnist-seed1", "mine", "99", "123456-digits-seed0"
    )
    (tmp_path / "00011-a-file").touch()
    assert find_run(None, tmp_path).name == "123456-digits-seed0"
    assert find_run("9", tmp_path).name == find_run("00009", tmp_path).name == "00009-mnist-seed0"
    assert find_run("mine", tmp_path) == tmp_path / "mine"
    assert find_run("00010-mnist-seed1", tmp_path) == tmp_path / "00010-mnist-seed1"
    assert find_run(str(tmp_path / "mine"), "elsewhere") == tmp_path / "mine"
    assert find_run("99", tmp_path) == tmp_path / "99"
    monkeypatch.chdir(tmp_path)
    folders(tmp_path, "1")
    assert find_run("1", tmp_path).name == "00001-digits-seed0"
    assert find_run("./1", tmp_path).name == "1"


@pytest.mark.parametrize("name", ["4", "nothing", "²", "00002-digits-seed0"])
def test_a_run_that_is_not_there_is_said(tmp_path, name):
    folders(tmp_path, "00001-digits-seed0")
    with pytest.raises(RunError, match=f"There is no run '{name}'"):
        find_run(name, tmp_path)


def test_no_run_at_all_is_said(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match="train one with `fastgan train`"):
            find_run(None, place)


def test_folders_are_numbered_on(tmp_path):
    place = tmp_path / "deep" / "runs"
    assert new_run_folder(place, "mnist", 0).name == "00001-mnist-seed0"
    assert new_run_folder(place, "mnist", 0).name == "00002-mnist-seed0"
    folders(place, "00041-digits-seed2")
    assert new_run_folder(place, "my data (1).npy", 2**64 - 1).name == f"00042-my-data-1-npy-seed{2**64 - 1}"
    assert new_run_folder(place, "数", 1).name == "00043-data-seed1"


def test_a_number_is_given_once_however_many_ask(tmp_path):
    start = threading.Barrier(8)

    def ask(seed):
        start.wait()
        return [new_run_folder(tmp_path, "digits", seed) for _ in range(5)]

    with ThreadPoolExecutor(8) as executor:
        made = [path for paths in executor.map(ask, range(8)) for path in paths]
    numbers = [int(path.name[:5]) for path in made]
    assert len(set(numbers)) == 40
    assert all(path.is_dir() for path in made)
    assert len(list(tmp_path.iterdir())) == 40


def test_a_folder_of_ones_own_must_be_empty(tmp_path):
    assert take_run_folder(tmp_path / "a" / "b").is_dir()
    assert take_run_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    with pytest.raises(RunError, match="is not empty; give a new folder, or go on with the run in it by --resume"):
        take_run_folder(tmp_path / "a")


def test_a_place_where_no_folder_can_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Cannot make a run's folder in"):
        new_run_folder(tmp_path / "file" / "runs", "digits", 0)
    with pytest.raises(RunError, match="Cannot make the run's folder"):
        take_run_folder(tmp_path / "file")


def test_json_is_written_for_people(tmp_path):
    runs.write_json(tmp_path / "a.json", {"b": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": [\n    1\n  ]\n}\n'


def test_the_newest_run_that_has_made_a_step_is_taken_and_the_log_says_so(tmp_path):
    stop = threading.Event()
    stop.set()
    fastgan.train(TINY, runs_dir=tmp_path)
    untrained = fastgan.train(TINY, runs_dir=tmp_path, stop=stop)
    (tmp_path / "00003-digits-seed3").mkdir()
    with pytest.warns(FastganWarning, match=r"00003-digits-seed3 has made no step; .*00001-digits-seed3 is used"):
        assert find_run(None, tmp_path).name == "00001-digits-seed3"
    assert find_run("2", tmp_path) == untrained.path
    # What is damaged is not passed over.
    (untrained.path / LATEST).write_bytes(b"")
    with pytest.warns(FastganWarning, match="00003-digits-seed3 has made no step"):
        assert find_run(None, tmp_path) == untrained.path


def test_of_runs_that_have_made_no_step_the_newest_is_taken(tmp_path):
    stop = threading.Event()
    stop.set()
    for _ in range(2):
        fastgan.train(TINY, runs_dir=tmp_path, stop=stop)
    assert find_run(None, tmp_path).name == "00002-digits-seed3"


def test_a_second_process_is_refused_and_a_dead_one_holds_no_lock(trained, tmp_path):
    folder = rewritten(trained, tmp_path, lambda record, arrays: None)
    first = process("train", "--resume", folder, "--epochs", 1_000_000, "--quiet", cwd=tmp_path)
    try:
        for _ in range(600):
            if (folder / "metrics.jsonl").exists():
                break
            time.sleep(0.1)
        second = process("train", "--resume", folder, "--epochs", 2_000_000, cwd=tmp_path)
        stdout, stderr = second.communicate(timeout=60)
        assert (second.returncode, stdout) == (1, "")
        assert stderr == (
            f"Error: {folder} is being trained by another process; wait for it, or stop it with Ctrl-C, which saves\n"
        )
        # Reading is not refused.
        assert load_run(folder).generator.sample(2).shape == (2, 64)
    finally:
        first.kill()
        first.communicate(timeout=60)
    assert (folder / ".lock").exists()
    resumed = fastgan.resume(folder, {"steps": load_run(folder).config.epochs * 5 + 1}, stop=set_event())
    assert resumed.step >= 5
    assert not (folder / ".lock").exists()


def set_event():
    stop = threading.Event()
    stop.set()
    return stop


def test_the_lock_is_refused_within_a_process_too_and_given_back(tmp_path):
    with locked(tmp_path):
        with pytest.raises(RunError, match="is being trained by another process"), locked(tmp_path):
            raise AssertionError("locked twice")
        assert (tmp_path / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_warned_about(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(runs, "try_lock", refuse)
    with pytest.warns(FastganWarning, match="No locks available.*no second process writes"), locked(tmp_path):
        pass


def test_a_new_run_takes_a_folder_that_a_killed_one_left_empty(tmp_path):
    (tmp_path / ".lock").touch()
    assert fastgan.train(TINY, run_dir=tmp_path).step == 5


def test_a_file_that_was_moved_is_found_where_it_is_said_to_be(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (400, 3, 3), dtype=np.uint8)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    np.save(here / "mine.npy", images)
    config = TINY.replace({"dataset": str(here / "mine.npy"), "steps": 2, "batch_size": 50})
    path = fastgan.train(config, run_dir=tmp_path / "run").path
    (here / "mine.npy").rename(there / "mine.npy")
    with pytest.raises(DataError, match=r"mine.npy does not exist"):
        fastgan.resume(path, {"steps": 3})
    for given in (there, there / "mine.npy"):
        assert len(load_run(path).load_dataset(str(given)).splits["train"]) == 320
    assert fastgan.resume(path, {"steps": 3, "data_dir": str(there)}).step == 3
    # From then on it is known where the file is.
    assert fastgan.resume(path, {"steps": 4}).step == 4
    (there / "mine.npy").rename(here / "yours.npy")
    # Renamed too: it is the content that counts.
    assert fastgan.resume(path, {"steps": 5, "dataset": str(here / "yours.npy")}).step == 5
    np.save(here / "yours.npy", images[::-1])
    with pytest.raises(DataError, match="has another SHA-256"):
        fastgan.resume(path, {"steps": 6})


@pytest.mark.parametrize("field", ["config", "data", "history", "seconds", "reported", "state"])
def test_a_checkpoint_that_lacks_something_is_said(trained, tmp_path, field):
    def without(record, arrays):
        (arrays if field == "state" else record).pop(field)

    folder = rewritten(trained, tmp_path, without)
    for read in (load_run, fastgan.resume):
        with pytest.raises(RunError, match=f"lacks its {field}, or has something else there"):
            read(folder)


def test_more_samples_than_memory_holds_are_refused_before_they_are_made(trained):
    with pytest.raises(NotEnoughMemoryError, match=r"^1,000,000,000,000 samples of 64 pixels take 256,000 GB and this"):
        load_run(trained.path).generator.sample(10**12)
