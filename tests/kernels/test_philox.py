import numpy as np
import pytest

from fastgan.kernels.common import philox
from fastgan.kernels.common.philox import Purpose, stream_id

# Random123's published known-answer vectors for philox4x32 with 10 rounds: counter, key, answer.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter, key, answer):
    assert tuple(philox.philox4x32(np.array([counter], np.uint32), key)[0]) == answer


def test_many_counters_are_the_same_as_one_at_a_time(rng):
    counters = rng.integers(0, 2**32, (9000, 4), dtype=np.uint32)
    together = philox.philox4x32(counters, (7, 9))
    for i in (0, 1, 4095, 4096, 8999):
        assert (together[i] == philox.philox4x32(counters[i : i + 1], (7, 9))[0]).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 8), (200, 784), (4100, 2), (2, 20001)])
def test_words_follow_the_layout(shape):
    seed, stream, step, row_offset = 0x1234_5678_9ABC_DEF0, stream_id(Purpose.DROPOUT, 2, 3), 41, 100
    words = philox.words(*shape, seed=seed, stream=stream, step=step, row_offset=row_offset)
    assert words.shape == shape
    for row, column in {(0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 2), (0, shape[1] - 1)}:
        counter = np.array([[column // 4, row_offset + row, step, stream]], np.uint32)
        assert words[row, column] == philox.philox4x32(counter, (0x9ABC_DEF0, 0x1234_5678))[0, column % 4]


def test_a_slice_of_the_rows_draws_what_the_whole_would():
    whole = philox.words(20, 13, seed=5, stream=1, step=2)
    part = philox.words(6, 13, seed=5, stream=1, step=2, row_offset=9)
    assert (whole[9:15] == part).all()


def test_the_step_may_be_an_element_of_an_array():
    step = np.array([17], np.int64)
    assert (philox.words(3, 5, seed=1, stream=1, step=step) == philox.words(3, 5, seed=1, stream=1, step=17)).all()


def test_streams_steps_and_seeds_differ():
    draws = [
        philox.words(4, 4, seed=seed, stream=stream, step=step).tobytes()
        for seed in (0, 1, 2**32, 2**63)
        for stream in (stream_id(Purpose.NOISE), stream_id(Purpose.NOISE, 1), stream_id(Purpose.NOISE, 0, 1))
        for step in (0, 1)
    ]
    assert len(set(draws)) == len(draws)


def test_stream_numbers_are_fixed():
    # Runs that were begun depend on them.
    assert [int(purpose) for purpose in Purpose] == [0, 1, 2, 3, 4, 5]
    assert stream_id(Purpose.SAMPLES, 255, 65535) == 0x05FFFFFF


@pytest.mark.parametrize(("layer", "substep", "name"), [(256, 0, "layer"), (-1, 0, "layer"), (0, 65536, "substep")])
def test_a_stream_number_out_of_range_is_refused(layer, substep, name):
    with pytest.raises(ValueError, match=f"^{name} is"):
        stream_id(Purpose.NOISE, layer, substep)


def test_uniforms_are_the_top_24_bits_exactly():
    words = np.array([0, 255, 256, 2**32 - 1], np.uint32)
    assert philox.uniform01(words).tolist() == [0.0, 0.0, 2.0**-24, 1 - 2.0**-24]
