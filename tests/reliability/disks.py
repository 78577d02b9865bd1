"""What a disk can do to a checkpoint: stop at any byte, refuse any call, cut or change what it holds."""

import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from fastgan import checkpoint
from fastgan.checkpoint import BEST, FROZEN, LATEST, PREVIOUS, Checkpoint
from fastgan.errors import FastganWarning, RunError
from tests.reliability import faults

FILES = {"latest": LATEST, "best": BEST, "frozen": FROZEN}


def made(number):
    """A small checkpoint that tells its number in all its parts."""
    rng = np.random.default_rng(number)
    arrays = {"generator/0/W": rng.standard_normal((16, 24)).astype(np.float32), "state": np.full(8, number, np.int64)}
    return Checkpoint(arrays, {"number": number})


def number_of(loaded):
    number = loaded.record["number"]
    assert loaded.arrays["state"].tolist() == [number] * 8
    assert loaded.arrays["generator/0/W"].tobytes() == made(number).arrays["generator/0/W"].tobytes()
    return number


def loaded_number(folder, which="latest"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastganWarning)
        return number_of(checkpoint.load(folder, which))


def recorded_save(folder, which="latest"):
    """Save a third checkpoint after two; give the files before, and what was done to the disk."""
    checkpoint.save(folder, made(1), which)
    checkpoint.save(folder, made(2), which)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    record = faults.install(faults.Record())
    try:
        checkpoint.save(folder, made(3), which)
    finally:
        faults.remove()
    return before, record.events


def after_power_cut(before, events, rng, cuts_a_write=64):
    """Give what a disk may hold after a power cut at each moment of ``events``: (whether all was done, files).

    The model is a journalling file system's: names change in order, and any number of the changes since the folder's
    last sync may be missing; of bytes that were not synced any beginning may be there, or as many zeros.
    """
    for done in range(len(events) + 1):
        happened = events[:done]
        partly = [happened]
        if done < len(events) and events[done][0] == "write":
            _, name, content = events[done]
            places = {0, 1, len(content) - 1, *(len(content) * k // cuts_a_write for k in range(cuts_a_write))}
            partly += [[*happened, ("write", name, content[:place])] for place in sorted(places)]
        for happened in partly:
            for files in _outcomes(before, happened, rng):
                yield done == len(events), files


def _outcomes(before, events, rng):
    synced = max((i for i, event in enumerate(events) if event == ("fsync", ".")), default=-1)
    changes = [i for i, event in enumerate(events) if event[0] in ("create", "link", "replace")]
    # How many of the changes of names have reached the disk.
    for reached in range(len([i for i in changes if i < synced]), len(changes) + 1):
        for lost in ("nothing", "all", "half", "some", "zeros"):
            contents = [*before.values()]
            names = {name: i for i, name in enumerate(before)}
            everything, synced_bytes = dict(names), [len(content) for content in contents]
            applied = 0
            for event in events:
                kind = event[0]
                if kind == "create":
                    contents.append(b"")
                    synced_bytes.append(0)
                    everything[event[1]] = len(contents) - 1
                elif kind == "write":
                    contents[everything[event[1]]] += event[2]
                elif kind == "fsync" and event[1] != ".":
                    synced_bytes[everything[event[1]]] = len(contents[everything[event[1]]])
                elif kind == "link":
                    everything[event[2]] = everything[event[1]]
                elif kind == "replace":
                    everything[event[2]] = everything.pop(event[1])
                if kind in ("create", "link", "replace"):
                    applied += 1
                    if applied <= reached:
                        names = dict(everything)
            files = {}
            for name, i in names.items():
                whole, kept = contents[i], synced_bytes[i]
                length = {"nothing": len(whole), "all": kept, "half": (kept + len(whole)) // 2,
                          "some": rng.randint(kept, len(whole)), "zeros": kept}[lost]  # fmt: skip
                files[name] = whole[:length] + (bytes(len(whole) - kept) if lost == "zeros" else b"")
            yield files


def survive_power_cuts(folder, events_of, which="latest", seed=0):
    """Load after every power cut; give how many there were."""
    before, events = events_of
    rng = random.Random(seed)
    seen = set()
    place = folder / "after"
    for is_done, files in after_power_cut(before, events, rng):
        key = (is_done, tuple(sorted((name, hash(content)) for name, content in files.items())))
        if key in seen:
            continue
        seen.add(key)
        place.mkdir(exist_ok=True)
        for file in place.iterdir():
            file.unlink()
        for name, content in files.items():
            (place / name).write_bytes(content)
        number = loaded_number(place, which)
        assert number in ((3,) if is_done else (2, 3)), (number, is_done, sorted(files))
    return len(seen)


def survive_refusals(folder, which="latest"):
    """Refuse each call of a save in turn, by each error, once or for good; give how many cases there were."""
    checkpoint.save(folder, made(1), which)
    checkpoint.save(folder, made(2), which)
    fault = faults.install(faults.Fault())
    checkpoint.save(folder, made(2), which)
    num_calls, num_cases, number = fault.count, 0, 2
    for at in range(1, num_calls + 1):
        for name, error in faults.ERRORS.items():
            for for_good in (False, True):
                faults.install(faults.Refuse(at, error, for_good=for_good))
                told = ""
                try:
                    checkpoint.save(folder, made(number + 1), which)
                except RunError as refused:
                    told = str(refused)
                finally:
                    faults.remove()
                failed = told != ""
                assert not failed or (os.strerror(error) in told and "what was saved before is untouched" in told), told
                held = loaded_number(folder, which)
                assert held in ((number, number + 1) if failed else (number + 1,)), (at, name, held)
                assert not list(folder.glob(".*")), (at, name)
                # Room was made: the next save succeeds.
                number += 2
                checkpoint.save(folder, made(number), which)
                assert loaded_number(folder, which) == number
                num_cases += 1
    return num_calls, num_cases


def damaged(content, num_flips, rng):
    """Cut a file at every 1/64 of its length, and flip bytes of it: one to eight, anywhere."""
    for k in range(64):
        yield "cut", content[: len(content) * k // 64]
    for _ in range(num_flips):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
        if bytes(changed) != content:
            yield "flip", bytes(changed)


def survive_damage(folder, content, num_flips, seed):
    """Damage the latest checkpoint: the one before is used, and said; damage it alone: a sentence. Give the counts."""
    rng = random.Random(seed)
    folder = Path(folder)
    counted = {"cut": 0, "flip": 0}
    for kind, changed in damaged(content, num_flips, rng):
        (folder / LATEST).write_bytes(changed)
        (folder / PREVIOUS).write_bytes(content)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            loaded = checkpoint.load(folder)
        assert loaded.record == checkpoint.decode(content, folder).record
        assert len(told) == 1, (kind, told)
        assert PREVIOUS in str(told[0].message)
        (folder / PREVIOUS).unlink()
        with pytest.raises(RunError, match="train anew") as refused:
            checkpoint.load(folder)
        assert str(folder) in str(refused.value)
        counted[kind] += 1
    return counted
