"""Every mistake that the emulator is to find is planted here and found, and what is right passes."""

import contextlib
import gc
import re
from pathlib import Path

import numpy as np
import pytest

from fastgan.errors import BackendError
from fastgan.kernels.common import arrays, launcher
from fastgan.kernels.common.kernel import Kernel
from tests import requirements
from tests.cuda_emulator import build
from tests.cuda_emulator.runtime import EmulatedRuntime, EmulatorError, emulated

PLANTED = Path(__file__).resolve().parent / "planted"
CORRECT, MISTAKES = str(PLANTED / "correct.cu"), str(PLANTED / "mistakes.cu")
THREADS = 64


@pytest.fixture(autouse=True)
def _machine():
    reason = build.why_not()
    if reason is not None:
        requirements.required(reason)


@pytest.fixture(params=[0, 1, 2], ids=["in order", "shuffled", "shuffled again"])
def seed(request):
    return request.param


def places_of(name):
    """Give the places of a mistake: the lines of the kernel that are marked."""
    lines = Path(MISTAKES).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if re.search(rf"__global__ .*\b{name}\(", line))
    end = lines.index("}", start)
    return [f"{MISTAKES}:{i + 1}" for i in range(start, end) if lines[i].endswith("// here")]


def plant(name, *, seed=0, grid=(1, 1, 1), n=THREADS, elements=THREADS, dtype=np.float32, third=None, **of_kernel):
    """Launch a kernel of mistakes.cu on 64 threads or others, x of 64 elements or more and y of one for each thread."""
    runtime = EmulatedRuntime(seed=seed, bare=False)
    kernel = Kernel(MISTAKES, name, **{"threads": THREADS, **of_kernel})
    x = runtime.upload(np.arange(elements).astype(dtype))
    y = runtime.empty((grid[0] * grid[1] * grid[2] * kernel.threads,), dtype)
    if third is not None:
        third = runtime.upload(third)
    runtime.launch(kernel, grid, (x, y, np.int32(n) if third is None else third))


COUNTER = np.zeros(1, np.uint32)
SLOT, SLOTS = {"shared_bytes": 272, "n": 3}, {"shared_bytes": 784, "n": 5}
WARPGROUP = {"threads": 160, "elements": 2048, "shared_bytes": 8208, "n": 3, "architecture": "sm_90a"}
# Kernel, how it is launched, what is said of it.
FOUND = [
    ("reads_past_the_end", {}, "thread 31 reads out of bounds: byte 256 of an array of 256 bytes"),
    ("writes_past_the_end", {}, "thread 31 writes out of bounds: byte 256 of an array"),
    ("writes_before_the_start", {}, "thread 0 writes out of bounds"),
    ("goes_far_astray", {}, "thread 1 reads out of bounds: 4 bytes far from any array"),
    ("follows_a_null_pointer", {}, "thread 0 reads through a null pointer"),
    ("reads_bytes_past_the_end", {"dtype": np.uint8}, "thread 31 reads out of bounds: byte 64 of an array of 64 bytes"),
    ("fills_past_the_end", {}, "thread 0 writes out of bounds: byte 256 of an array of 256 bytes"),
    ("copies_past_the_end", {}, "thread 0 reads out of bounds: byte 256 of an array of 256 bytes"),
    ("copies_a_struct_past_the_end", {}, "thread 0 writes out of bounds: byte 256 of an array of 256 bytes"),
    ("waits_for_ever", {}, "2.27 accesses on end: what it waits for will not come"),
    ("reads_what_nobody_wrote", {}, "thread 0 reads byte 0 of an array of 256 bytes, which nobody wrote"),
    ("shared_out_of_bounds", {"shared_bytes": 256}, "byte 256 of shared memory, of which the block has 256 bytes"),
    ("shared_unwritten", {"shared_bytes": 256}, "thread 5 reads byte 20 of shared memory, which nobody wrote"),
    ("misaligned_vector", {}, "a misaligned access: thread 0 reads 16 bytes at byte 4 of an array"),
    ("misaligned_vector_write", {}, "a misaligned access: thread 0 writes 8 bytes at byte 4 of an array"),
    ("misaligned_word", {"dtype": np.uint8}, "a misaligned access: thread 0 writes 4 bytes at byte 2 of an array"),
    ("misaligned_copy", {"shared_bytes": 256}, "a misaligned access: thread 0 copies 16 bytes"),
    ("misaligned_block", {"shared_bytes": 256}, "a misaligned access: thread 1 points to a row of a block"),
    ("race_between_writes", {}, "a race: thread 1 .* writes byte 0 of an array .* that thread 0 wrote"),
    ("race_in_global_memory", {}, "a race: thread 1 .* byte 4 of an array .* that thread 0 read"),
    ("barrier_missing_at_the_top", {"shared_bytes": 256, "n": 3}, "a race: .* shared memory"),
    ("barrier_missing_at_the_bottom", {"shared_bytes": 256, "n": 3}, "a race: .* byte .* of shared memory that"),
    ("barrier_missing_before_a_copy", {"shared_bytes": 512, "n": 3}, "copy is under way: .* a barrier before the copy"),
    ("warp_barrier_missing", {"shared_bytes": 256}, "a race: thread .* byte .* of shared memory that thread"),
    ("warp_barrier_for_a_block", {"shared_bytes": 256}, "a race: .* shared memory"),
    ("divergent_barrier", {}, "a divergent barrier: .*waits at the barrier.*has ended"),
    ("divergent_loop", {}, "a divergent barrier: .*waits at the barrier.*has ended"),
    ("two_barriers", {}, "a divergent barrier: .*waits at the barrier.*waits at the barrier"),
    ("divergent_shuffle", {}, "a divergent barrier: .*waits for its warp.*has ended"),
    ("two_shuffles", {}, "lanes of a warp diverge: lane 3 is here while others are at"),
    ("copy_wait_missing", {"shared_bytes": 256}, "where a copy is under way: copy_async_wait, or"),
    ("copy_waits_for_too_few", {"shared_bytes": 256}, "where a copy is under way: copy_async_wait, or"),
    ("copy_barrier_missing", {"shared_bytes": 256}, "a race: .* shared memory"),
    ("copy_barrier_before_the_wait", {"shared_bytes": 256}, "a race: thread 1 .* reads byte 0 of shared memory that"),
    ("copies_nothing_from_nowhere", {"shared_bytes": 256}, "a copy whose source is not in an array"),
    ("blocks_write_the_same", {"grid": (2, 1, 1)}, "blocks touch each other's data: .* writes byte .* wrote"),
    ("blocks_read_each_other", {"grid": (2, 1, 1)}, "each other's data: .* reads byte .* block 0 .* wrote"),
    ("blocks_write_what_others_read", {"grid": (3, 1, 1)}, r"writes byte 0 .* that other blocks read, and nothing"),
    ("ticket_too_early", {"grid": (3, 1, 1), "shared_bytes": 4, "third": COUNTER}, "blocks touch each other's data"),
    ("ticket_for_too_many", {"grid": (3, 1, 1), "shared_bytes": 4, "third": COUNTER}, "counter at 3: fewer blocks"),
    ("atomic_and_plain", {"grid": (2, 1, 1), "third": COUNTER}, "a race: .* reads byte 0 of an array of 4 bytes"),
    ("cluster_barrier_missing", {"grid": (1, 1, 2), "cluster": 2, "shared_bytes": 256}, "shared memory of block 1"),
    ("cluster_block_ends_early", {"grid": (1, 1, 2), "cluster": 2, "shared_bytes": 256}, "cluster_sync is missing"),
    ("cluster_barrier_of_one", {"grid": (1, 1, 2), "cluster": 2}, "a divergent barrier: .*cluster_sync.*has ended"),
    ("mbarrier_wait_missing", SLOT, "where a copy of copy_bulk is under way: the wait for its mbarrier is missing"),
    ("mbarrier_of_the_wrong_parity", SLOT, "thread 0 reads byte 0 .* where a copy of copy_bulk is under way"),
    ("mbarrier_of_another_copy", SLOTS, "a race: thread .* that copy_bulk for the mbarrier at byte 256 wrote"),
    ("slot_given_back_too_early", SLOT, "a race: .* shared memory that thread .*, nor an mbarrier"),
    ("slot_given_back_by_one_lane", SLOT, "a race: .* shared memory that thread .*, nor an mbarrier"),
    ("slot_given_back_by_one_of_many", SLOT, "a race: .* byte 0 of shared memory that thread"),
    ("slot_not_waited_for", SLOTS, "under way: .* or before it one for those who use the slot"),
    ("copy_before_the_last_has_landed", SLOTS, "thread 0 writes byte 0 .* where a copy of copy_bulk is under way"),
    ("expects_too_few_bytes", SLOT, "byte 256 expects 128 bytes in this phase, and copies of 256 are under way"),
    ("expects_too_many_bytes", SLOT, "a phase that never ends: .* expects 257 bytes and has copies of 256 under way"),
    ("stores_to_a_slot", SLOT, "a race: thread .* byte .* of shared memory"),
    ("copies_over_what_was_stored", SLOT, "where an ordinary store was before: no fence orders the two"),
    ("copies_too_much", SLOT, "thread 0 reads out of bounds: byte 256 of an array of 256 bytes"),
    ("copies_over_mbarriers", SLOT, "thread 0 writes byte 256 of shared memory, which is an mbarrier's"),
    ("misaligned_copy_bulk", SLOT, "a misaligned access: thread 0 calls copy_bulk"),
    ("copy_bulk_of_eight", SLOT, "copy_bulk of 8 bytes, which are no multiple of 16"),
    ("ends_before_a_copy", SLOT, "the block ends while a copy of copy_bulk is under way"),
    ("nobody_initialises_an_mbarrier", SLOT, "uses byte 0 of shared memory as an mbarrier, which nobody has init"),
    ("barrier_missing_after_mbarrier_init", SLOT, "mbarrier at byte 0 that thread 0 initialises, with no barrier"),
    ("mbarrier_initialised_again", SLOT, "initialises the mbarrier at byte 256 again, which was used since"),
    ("mbarrier_read_as_a_word", SLOT, "thread 0 reads byte 256 of shared memory, which is an mbarrier's"),
    ("more_arrivals_than_a_phase_has", SLOT, "byte 264 ends before anybody has waited for the one before: .*the 32"),
    ("one_arrival_too_many", SLOT, "arrives at the mbarrier at byte 256, at which all 1 of this phase are"),
    ("fewer_arrivals_than_a_phase_has", SLOT, "a phase that never ends: .* byte 264, which lacks 1 of 32 arrivals"),
    ("arrives_before_the_store", SLOT, "a race: thread .* byte 0 of shared memory that thread"),
    ("operands_not_waited_for", WARPGROUP, "a race: warpgroup 0 multiplies by byte 0 .* copy_bulk .* not waited for"),
    ("operands_under_way", WARPGROUP, "warpgroup 0 multiplies by byte 0 .* where a copy is under way: the wait"),
    ("operands_given_back_too_early", WARPGROUP, "a race: thread 128 .* that a multiplication of warpgroup 0 read"),
    ("multiplication_waited_for_too_late", WARPGROUP, "warpgroup 0 multiplies by byte 0 of shared memory that copy_b"),
    ("operands_stored", WARPGROUP, "warpgroup 0 multiplies by byte 0 of shared memory, which an ordinary store wrote"),
    ("operands_out_of_bounds", WARPGROUP, "warpgroup 0 multiplies by byte 8192 of shared memory, which is an mbarr"),
    ("misaligned_matrix", WARPGROUP, "matrix at byte 256 of shared memory, which is not 512-byte aligned"),
    ("half_a_step_along_K", WARPGROUP, "multiplies by what shared_matrix did not describe"),
    ("rows_described_otherwise", WARPGROUP, "multiplies by what shared_matrix did not describe"),
    ("commit_missing", WARPGROUP, "waits for multiplications, and the last of them were not committed"),
    ("registers_read_too_early", WARPGROUP, "thread 0 reads registers that a multiplication .* has under way"),
    ("other_registers_named", WARPGROUP, "a warpgroup_wait that names them is missing"),
    ("nobody_waits_for_a_multiplication", WARPGROUP, "ends while a multiplication is under way, which nobody waits"),
    ("three_warps_multiply", WARPGROUP, "a divergent barrier: .* waits for its warpgroup .* has ended"),
    ("one_thread_multiplies_less", WARPGROUP, "diverge: of its 2 multiplications thread 5 has begun 1"),
    ("warps_multiply_other_matrices", WARPGROUP, "thread 64 multiplies other matrices, or into other registers"),
    ("one_warp_gives_registers", WARPGROUP, "a divergent barrier: .* waits for its warpgroup"),
    ("odd_number_of_registers", WARPGROUP, "asks for 100 registers; it may have a multiple of 8 from 24 to 256"),
]  # fmt: skip


IDS = [f"{name} {how['grid'][0]}" if "grid" in how else name for name, how, _ in FOUND]


@pytest.mark.parametrize(("name", "how", "message"), FOUND, ids=IDS)
def test_a_planted_mistake_is_found_where_it_is(name, how, message):
    with pytest.raises(EmulatorError) as error:
        plant(name, **how)
    text = str(error.value)
    assert text.split(": ")[0] in places_of(name)
    assert re.search(message, text)
    assert f"(kernel {name} of {MISTAKES}" in text


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("name", "how", "message"), FOUND, ids=IDS)
def test_a_planted_mistake_is_found_in_any_order_of_threads(name, how, message, seed):
    with pytest.raises(EmulatorError) as error:
        plant(name, seed=seed, **how)
    assert str(error.value).split(": ")[0] in places_of(name)


def test_a_mistake_in_a_helper_names_both_places():
    lines = Path(MISTAKES).read_text().splitlines()
    helper = next(i + 1 for i, line in enumerate(lines) if line.endswith("// in a helper"))
    with pytest.raises(EmulatorError, match=rf"^{MISTAKES}:{helper}: thread 0 reads out of bounds") as error:
        plant("reads_past_the_end_in_a_helper")
    assert f"from {places_of('reads_past_the_end_in_a_helper')[0]})" in str(error.value)


def test_launches_go_on_after_a_mistake():
    with pytest.raises(EmulatorError):
        plant("shared_unwritten", shared_bytes=256)
    plant("copies")


# --- what is right ---


def check(found, wanted, **tolerances):
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, wanted, **tolerances)


@pytest.mark.parametrize("bare", [False, True], ids=["checked", "bare"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (33, 68, 64), (31, 60, 68), (64, 128, 128)], ids=str)
def test_a_tiled_product_with_asynchronous_copies(rng, seed, shape, bare):
    B, I, O = shape
    x, W = rng.normal(size=(B, I)).astype(np.float32), rng.normal(size=(I, O)).astype(np.float32)
    runtime = EmulatedRuntime(seed=seed, bare=bare)
    y = runtime.empty((B, O), np.float32)
    kernel = Kernel(CORRECT, "product<32, 64, 16, 4, 4>", threads=128, shared_bytes=2 * 4 * 16 * (32 + 64))
    grid = (-(-O // 64), -(-B // 32), 1)
    runtime.launch(kernel, grid, (runtime.upload(x), runtime.upload(W), y, *map(np.int32, shape)))
    check(runtime.download(y), x.astype(np.float64) @ W, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", [75, 80, 90])
def test_copies_of_every_architecture(rng, architecture):
    x, W = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(8, 12)).astype(np.float32)
    runtime = EmulatedRuntime(architecture, bare=False)
    y = runtime.empty((5, 12), np.float32)
    kernel = Kernel(CORRECT, "product<32, 64, 16, 4, 4>", threads=128, shared_bytes=2 * 4 * 16 * (32 + 64))
    runtime.launch(kernel, (1, 1, 1), (runtime.upload(x), runtime.upload(W), y, *map(np.int32, (5, 8, 12))))
    check(runtime.download(y), x @ W, rtol=1e-5, atol=1e-5)


def tf32(x):
    return ((x.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)


def test_tensor_cores(rng, seed):
    a, b = rng.normal(size=(16, 24)).astype(np.float32), rng.normal(size=(24, 8)).astype(np.float32)
    runtime = EmulatedRuntime(seed=seed)
    d = runtime.empty((16, 8), np.float32)
    kernel = Kernel(CORRECT, "tensor_product", threads=32)
    runtime.launch(kernel, (1, 1, 1), (runtime.upload(a), runtime.upload(b), d, np.int32(24)))
    check(runtime.download(d), tf32(a).astype(np.float64) @ tf32(b).astype(np.float64), rtol=1e-5, atol=1e-5)


def test_tensor_cores_of_half_precision(rng):
    a, b = rng.normal(size=(16, 16)).astype(np.float32), rng.normal(size=(8, 16)).astype(np.float32)
    runtime = EmulatedRuntime()
    d = runtime.empty((16, 8), np.float32)
    runtime.launch(Kernel(CORRECT, "half_product", threads=32), (1, 1, 1), (runtime.upload(a), runtime.upload(b), d))
    wanted = a.astype(np.float16).astype(np.float64) @ b.astype(np.float16).astype(np.float64).T
    check(runtime.download(d), wanted, rtol=1e-6, atol=1e-6)


def test_tensor_cores_of_bytes(rng):
    a, b = rng.integers(0, 256, (16, 32), dtype=np.uint8), rng.integers(0, 256, (8, 32), dtype=np.uint8)
    runtime = EmulatedRuntime()
    d = runtime.empty((16, 8), np.int32)
    kernel = Kernel(CORRECT, "byte_product", threads=32)
    operands = runtime.upload(a.view(np.uint32)), runtime.upload(b.view(np.uint32))
    runtime.launch(kernel, (1, 1, 1), (*operands, np.int32(-7), d))
    np.testing.assert_array_equal(runtime.download(d), a.astype(np.int32) @ b.astype(np.int32).T - 7)
    with pytest.raises(EmulatorError, match="leaves the range of 32-bit integers"):
        runtime.launch(kernel, (1, 1, 1), (*operands, np.int32(2**31 - 5), d))


def in_chunks(x):
    """Give the bytes of rows as ring_product has them: chunks of 64 along each, swizzled."""
    pieces = x.view(np.uint8).reshape(len(x), -1, 4, 16)
    places = np.arange(4) ^ np.arange(len(x))[:, None, None] // 2 % 4
    return np.ascontiguousarray(np.take_along_axis(pieces, places[..., None], axis=2).swapaxes(0, 1))


def toward_zero(x):
    """Round float64 to float32."""
    y = x.astype(np.float32)
    return np.where(abs(y.astype(np.float64)) > abs(x), np.nextafter(y, np.float32(0)), y)


@pytest.mark.parametrize("bare", [False, True], ids=["checked", "bare"])
@pytest.mark.parametrize("shape", [(1, 7), (3, 2), (7, 1)], ids=str)
@pytest.mark.parametrize("name", ["float", "int"])
@pytest.mark.parametrize("seed", range(4))
def test_warpgroups_multiply_what_comes_round_in_a_ring(rng, seed, name, shape, bare):
    chunks, rounds = shape
    stages, dtype = 3, np.dtype({"float": np.float32, "int": np.int32}[name])
    if name == "float":
        # Products are exact, and sums have more bits than float32.
        a, b = (rng.integers(-2047, 2048, (128, chunks * 32)) / 64 for _ in "ab")
        steps = [a[:, k : k + 16] @ b[:, k : k + 16].T for k in range(0, chunks * 32, 16)]
        wanted = np.zeros((128, 128), np.float32)
        for step in steps:
            wanted = toward_zero(wanted + step)
        assert chunks == 1 or (wanted != sum(steps).astype(np.float32)).any()
        a, b = a.astype(np.float16), b.astype(np.float16)
    else:
        a, b = (rng.integers(0, 256, (128, chunks * 64), dtype=np.uint8) for _ in "ab")
        wanted = a.astype(np.int32) @ b.astype(np.int32).T
    least = np.median(wanted, axis=1).astype(dtype)
    runtime = EmulatedRuntime(seed=seed, bare=bare)
    d = runtime.empty((128, 128), dtype)
    size = stages * 16384 + (stages + 1) * 512 + 16 * stages
    kernel = Kernel(CORRECT, f"ring_product<{name}, {stages}>", (), 384, size, architecture="sm_90a")
    operands = (*(runtime.upload(in_chunks(x)) for x in (a, b)), runtime.upload(least))
    runtime.launch(kernel, (1, 1, 1), (*operands, np.int32(chunks), np.int32(rounds), d))
    np.testing.assert_array_equal(runtime.download(d), np.maximum(wanted, least[:, None]))


def test_warpgroups_are_sm_90as():
    kernel = Kernel(CORRECT, "ring_product<float, 2>", (), 384)
    with pytest.raises(BackendError, match=r"this needs sm_90a"):
        EmulatedRuntime(90).launch(kernel, (1, 1, 1), ())


def test_mbarriers_hand_memory_on(rng, seed):
    x = rng.normal(size=32).astype(np.float32)
    runtime = EmulatedRuntime(seed=seed, bare=False)
    y = runtime.empty((32,), np.float32)
    kernel = Kernel(CORRECT, "handed_to_and_fro", threads=64, shared_bytes=272)
    runtime.launch(kernel, (1, 1, 1), (runtime.upload(x), y, np.int32(5)))
    check(runtime.download(y), x[np.arange(32) ^ 1] + 6, rtol=1e-6)


def test_half_precision_is_numpys(rng):
    edges = [0.0, 65519.9, 65520.0, 2.0**-25, 1.01 * 2.0**-25, 2.0**-14, np.inf, np.nan]
    x = np.concatenate([np.geomspace(1e-9, 1e6, 3000), edges, rng.normal(size=1000)]).astype(np.float32)
    x = np.concatenate([x, -x])
    runtime = EmulatedRuntime()
    back = runtime.empty(x.shape, np.float32)
    runtime.launch(Kernel(CORRECT, "halves", threads=64), (1, 1, 1), (runtime.upload(x), back, np.int32(len(x))))
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(runtime.download(back), wanted)


def test_tensor_cores_drop_low_bits_and_truncate(rng):
    a, b = np.zeros((16, 8), np.float32), np.zeros((8, 8), np.float32)
    # Just below the next float above 1: a sum that rounds to the nearest would give it.
    a[0, 0], b[0, 0] = 1.0, 2.0**-23 * (1 - 2.0**-10)
    a[1, 0] = np.float32(1 + 2.0**-10 + 2.0**-12)
    b[0, 1] = 1.0
    a[2, 0], b[0, 2] = 1.0, -(2.0**-30)
    runtime = EmulatedRuntime()
    d = runtime.empty((16, 8), np.float32)
    kernel = Kernel(CORRECT, "tensor_product_once", threads=32)
    runtime.launch(kernel, (1, 1, 1), (runtime.upload(a), runtime.upload(b), d))
    found = runtime.download(d)
    assert found[0, 0] == 1.0
    assert found[1, 1] == 2 + 2.0**-10
    assert found[2, 2] == np.nextafter(np.float32(1), np.float32(0))


def test_a_sum_over_a_cluster(rng, seed):
    x = rng.normal(size=(8, 150)).astype(np.float32)
    runtime = EmulatedRuntime(seed=seed)
    out = runtime.empty((2, 150), np.float32)
    kernel = Kernel(CORRECT, "cluster_sum<4>", threads=64, shared_bytes=600, cluster=4)
    runtime.launch(kernel, (1, 1, 8), (runtime.upload(x), out, np.int32(150)))
    check(runtime.download(out), x.reshape(2, 4, 150).sum(1), rtol=1e-5, atol=1e-5)


def test_a_sum_by_tickets_twice(rng, seed):
    x = rng.normal(size=1000).astype(np.float32)
    runtime = EmulatedRuntime(seed=seed)
    state, counter = runtime.upload(np.array([7])), runtime.upload(np.zeros(1, np.uint32))
    out, partial = runtime.empty((1,), np.float32), runtime.empty((5,), np.float32)
    kernel = Kernel(CORRECT, "ticket_sum", threads=64, shared_bytes=12)
    for _ in range(2):
        runtime.launch(kernel, (5, 1, 1), (runtime.upload(x), partial, counter, state, out, np.int32(1000)))
    check(runtime.download(out), [x.astype(np.float64).sum()], rtol=1e-5, atol=1e-5)
    assert runtime.download(state)[0] == 9
    assert runtime.download(counter)[0] == 0


def test_blocks_of_rows(seed):
    x = np.arange(128, dtype=np.uint32)
    runtime = EmulatedRuntime(seed=seed)
    y = runtime.empty((128,), np.uint32)
    runtime.launch(Kernel(CORRECT, "blocks_of_rows", threads=32, shared_bytes=512), (1, 1, 1), (runtime.upload(x), y))
    # Row 8i + g of four: lane 4g + t has its element t.
    assert (runtime.download(y) == x).all()


def test_neighbours_in_a_warp(rng, seed):
    x = rng.integers(0, 256, 96).astype(np.uint8)
    runtime = EmulatedRuntime(seed=seed)
    y, z = runtime.empty((96,), np.uint8), runtime.empty((96,), np.float64)
    runtime.launch(Kernel(CORRECT, "neighbours", threads=96, shared_bytes=96), (1, 1, 1), (runtime.upload(x), y, z))
    lanes = x.reshape(3, 32)
    assert (runtime.download(y).reshape(3, 32) == np.roll(lanes, -1, axis=1)).all()
    assert (runtime.download(z).reshape(3, 32) == lanes[:, np.arange(32) ^ 1]).all()


def test_arithmetic_is_the_devices():
    x = np.array([-1.0000001, 1e-30, 1e-10, 4.0], np.float32)
    runtime = EmulatedRuntime()
    out = runtime.empty((8,), np.float32)
    runtime.launch(Kernel(CORRECT, "arithmetic", threads=1), (1, 1, 1), (runtime.upload(x), out))
    found = runtime.download(out)
    v = np.float64(x[0])
    # One rounding only; subnormals are zeros.
    assert found[0] == np.float32(v * v - np.float64(x[0] * x[0])) != 0
    assert found[1] == pytest.approx(2.0**v, rel=3e-7)
    assert found[2] == -1.0
    assert found[3] == 0.0
    assert found[5] == 3.0
    assert found[6] == 0.5
    assert np.isposinf(found[7])


# --- launches and their order ---


def pair_of_arrays(runtime):
    return runtime.upload(np.arange(64, dtype=np.float32)), runtime.empty((64,), np.float32)


COPIES, ADDS = Kernel(MISTAKES, "copies", threads=THREADS), Kernel(MISTAKES, "adds_one", threads=THREADS)
ONE, N = (1, 1, 1), np.int32(64)


def test_branches_that_do_not_meet_pass():
    runtime = EmulatedRuntime()
    x, y = pair_of_arrays(runtime)
    z, w = runtime.empty((64,), np.float32), runtime.empty((64,), np.float32)
    runtime.launch(ADDS, ONE, (x, N))
    with runtime.branch():
        runtime.launch(COPIES, ONE, (x, y, N))
        runtime.launch(ADDS, ONE, (y, N))
    runtime.launch(COPIES, ONE, (x, z, N))
    with runtime.branch():
        runtime.launch(COPIES, ONE, (z, w, N))
    runtime.join()
    runtime.launch(ADDS, ONE, (y, N))
    runtime.launch(ADDS, ONE, (x, N))
    assert (runtime.download(y) == np.arange(64) + 3).all()
    assert (runtime.download(w) == np.arange(64) + 1).all()


# What follows a branch that copies x to y, before it is joined: launches, of which the last one must not be there.
BESIDE = {
    "reads what the branch wrote": [(COPIES, "y", "z")],
    "writes what the branch wrote": [(COPIES, "z", "y")],
    "writes what the branch read": [(ADDS, "x")],
    "writes what both read": [(COPIES, "x", "w"), (ADDS, "x")],
}


@pytest.mark.parametrize("in_a_branch", [False, True], ids=["main line", "second branch"])
@pytest.mark.parametrize("what", BESIDE)
def test_branches_that_meet_are_found(what, in_a_branch):
    runtime = EmulatedRuntime(bare=False)
    x, y = pair_of_arrays(runtime)
    there = {"x": x, "y": y, "z": runtime.upload(np.zeros(64, np.float32)), "w": runtime.empty((64,), np.float32)}
    with runtime.branch():
        runtime.launch(COPIES, ONE, (x, y, N))
    with runtime.branch() if in_a_branch else contextlib.nullcontext():
        for kernel, *names in BESIDE[what][:-1]:
            runtime.launch(kernel, ONE, (*(there[name] for name in names), N))
        kernel, *names = BESIDE[what][-1]
        with pytest.raises(EmulatorError, match=r"launches that run beside each other|that other blocks read") as error:
            runtime.launch(kernel, ONE, (*(there[name] for name in names), N))
    assert str(error.value).startswith(MISTAKES)
    runtime.join()
    runtime.launch(kernel, ONE, (*(there[name] for name in names), N))


def test_open_branches_keep_the_host_away():
    runtime = EmulatedRuntime()
    x, y = pair_of_arrays(runtime)

    def step():
        with runtime.branch():
            runtime.launch(COPIES, ONE, (x, y, N))

    with pytest.raises(EmulatorError, match="the end of a repeated sequence comes while branches are open"):
        runtime.repeat(step, 2, lambda: False)
    with pytest.raises(EmulatorError, match="download comes while branches are open; join them first"):
        runtime.download(y)
    runtime.join()
    runtime.download(y)


def test_a_repeated_sequence_is_recorded_once_and_replayed():
    runtime = EmulatedRuntime()
    x, _ = pair_of_arrays(runtime)
    calls = []

    def step():
        calls.append(len(calls))
        with runtime.branch():
            runtime.launch(ADDS, ONE, (x, N))
        runtime.join()

    runtime.repeat(step, 10, lambda: False)
    assert calls == [0, 1]
    assert (runtime.download(x) == np.arange(64) + 10).all()
    # The record stays, until it is dropped.
    runtime.repeat(step, 5, lambda: False)
    assert calls == [0, 1]
    assert (runtime.download(x) == np.arange(64) + 15).all()
    runtime.forget()
    runtime.repeat(step, 10, lambda: len(calls) >= 4)
    assert calls == [0, 1, 2, 3]
    assert (runtime.download(x) == np.arange(64) + 16).all()


def test_what_the_host_decides_shows_in_a_replay():
    """The first run and the recorded one use n = 1 and 2; the replays then all use 2."""
    found = []
    for replays in (True, False):
        runtime = EmulatedRuntime(replays=replays)
        x = runtime.upload(np.zeros(64, np.float32))
        counts = iter(range(1, 100))
        runtime.repeat(lambda: runtime.launch(ADDS, ONE, (x, np.int32(next(counts)))), 4, lambda: False)  # noqa: B023
        found.append(runtime.download(x)[:5].tolist())
    assert found == [[4, 3, 0, 0, 0], [4, 3, 2, 1, 0]]


def test_a_captured_step_neither_allocates_nor_copies():
    runtime = EmulatedRuntime()
    x, _ = pair_of_arrays(runtime)
    for what, act in {
        "empty": lambda: runtime.empty((1,), np.float32),
        "download": lambda: runtime.download(x),
        "overwrite": lambda: runtime.overwrite(x, np.zeros(64, np.float32)),
    }.items():
        with pytest.raises(EmulatorError, match=f"^{what} in a step that is captured"):
            runtime.repeat(act, 2, lambda: False)
    assert runtime.empty((1,), np.float32).shape == (1,)


def test_launches_that_no_device_takes():
    runtime = EmulatedRuntime(80, max_shared_bytes=1000)
    x, y = pair_of_arrays(runtime)

    def attempt(match, grid=ONE, **changes):
        with pytest.raises(EmulatorError, match=match):
            runtime.launch(Kernel(MISTAKES, "copies", **{"threads": 64, **changes}), grid, (x, y, N))

    attempt("1004 bytes of shared memory a block, and the device has 1000", shared_bytes=1004)
    attempt("1025 threads a block", threads=1025)
    attempt("a cluster on compute capability 8.0", cluster=2)
    attempt("a kernel for sm_90a on compute capability 8.0", architecture="sm_90a")
    attempt(r"a grid of \(1, 0, 1\) blocks", grid=(1, 0, 1))
    attempt(r"a grid of \(1, 65536, 1\) blocks", grid=(1, 65536, 1))
    runtime = EmulatedRuntime(90)
    attempt("3 blocks along z are no multiple of the cluster of 2", grid=(1, 1, 3), cluster=2)


def test_a_warp_that_is_not_whole():
    runtime = EmulatedRuntime()
    x, y = runtime.upload(np.zeros(96, np.uint8)), runtime.empty((96,), np.uint8)
    kernel, z = Kernel(CORRECT, "neighbours", threads=48, shared_bytes=96), runtime.empty((96,), np.float64)
    with pytest.raises(EmulatorError, match="a warp operation in a warp of 16 lanes"):
        runtime.launch(kernel, ONE, (x, y, z))


PAIR = np.dtype([("a", np.float32), ("b", np.int32)])


def arguments(runtime):
    pair = np.array([(0.5, 10)], PAIR)[0]
    return [
        np.float32(1), np.int32(2), np.uint32(3), np.int64(4), np.float64(5), np.bool_(True), pair,
        runtime.upload(np.array([100], np.float32)), runtime.empty((1,), np.float32),
    ]  # fmt: skip


def test_arguments_arrive():
    runtime = EmulatedRuntime()
    kernel = Kernel(MISTAKES, "takes", threads=1)
    given = arguments(runtime)
    runtime.launch(kernel, ONE, tuple(given))
    assert runtime.download(given[-1])[0] == 126.5
    given[-2] = None
    runtime.launch(kernel, ONE, tuple(given))
    assert runtime.download(given[-1])[0] == 26.5


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, np.float64(1), "parameter 1 of takes .* is float32 and is given float64"),
        (0, 1.0, "parameter 1 of takes .* is float32 and is given float"),
        (1, np.int64(2), "parameter 2 of takes .* is int32 and is given int64"),
        (1, np.float32(2), "parameter 2 of takes .* is int32 and is given float32"),
        (2, np.int32(3), "parameter 3 of takes .* is uint32 and is given int32"),
        (5, np.uint8(1), "parameter 6 of takes .* is bool and is given uint8"),
        (6, np.float64(1), "parameter 7 of takes .* is a struct of 8 bytes and is given float64"),
        (7, np.int64(0), "parameter 8 of takes .* is a pointer and is given a int64"),
        (7, np.zeros(1, np.float32), "parameter 8 of takes .* is a pointer and is given a ndarray"),
    ],
)
def test_arguments_that_do_not_fit(at, value, message):
    runtime = EmulatedRuntime()
    given = arguments(runtime)
    given[at] = value
    with pytest.raises(TypeError, match=message):
        runtime.launch(Kernel(MISTAKES, "takes", threads=1), ONE, tuple(given))


def test_arguments_of_other_kinds_and_numbers():
    runtime = EmulatedRuntime()
    given = arguments(runtime)
    kernel = Kernel(MISTAKES, "takes", threads=1)
    with pytest.raises(TypeError, match="has 9 parameters and is given 8 arguments"):
        runtime.launch(kernel, ONE, tuple(given[1:]))
    given[7] = runtime.upload(np.zeros(1))
    with pytest.raises(TypeError, match=r"parameter 8 of takes .* points to float32 and is given an array of float64"):
        runtime.launch(kernel, ONE, tuple(given))


def test_what_the_emulator_lacks_is_the_compilers_error():
    runtime = EmulatedRuntime()
    with pytest.raises(BackendError, match=r"a_function_that_is_missing.* not declared") as error:
        runtime.launch(Kernel(str(PLANTED / "missing.cu"), "wants_more", threads=1), ONE, (None,))
    assert "missing.cu:5:" in str(error.value)


@pytest.mark.parametrize(
    ("name", "architecture", "needed"), [("tensor_product_once", 75, 80), ("cluster_sum<4>", 80, 90)]
)
def test_what_an_architecture_lacks_is_the_compilers_error(name, architecture, needed):
    x, y = pair_of_arrays(runtime := EmulatedRuntime(architecture))
    with pytest.raises(BackendError, match=f"needs an architecture from sm_{needed} on"):
        runtime.launch(Kernel(CORRECT, name, threads=32), ONE, (x, y, N))


# --- memory ---


def test_freed_memory_is_not_to_be_touched():
    runtime = EmulatedRuntime(bare=False)
    x, y = pair_of_arrays(runtime)
    kept = runtime.empty((64,), np.uint64)
    address = x.address
    view = x[3:]
    del x
    gc.collect()
    runtime.launch(COPIES, ONE, (view, y, np.int32(61)))
    del view
    gc.collect()
    stale = kept.view(np.float32)[:64]
    stale.address = address
    with pytest.raises(EmulatorError, match=r"mistakes.cu:\d+: thread 0 reads .*freed"):
        runtime.launch(COPIES, ONE, (stale, y, N))


def test_much_memory_comes_and_goes():
    runtime = EmulatedRuntime()
    addresses = {runtime.empty((30, 1 << 20), np.uint8).address for _ in range(12)}
    # Not the same place at once, and not always another.
    assert 2 <= len(addresses) <= 6
    x, y = pair_of_arrays(runtime)
    runtime.launch(COPIES, ONE, (x, y, N))
    with pytest.raises(EmulatorError, match="no room for 2147483648 more"):
        runtime.empty((1 << 31,), np.uint8)


def test_the_host_does_not_get_what_nobody_wrote():
    runtime = EmulatedRuntime(bare=False)
    x, y = pair_of_arrays(runtime)
    runtime.launch(COPIES, ONE, (x, y, np.int32(40)))
    with pytest.raises(EmulatorError, match=r"download reads element \(2, 8\) of DeviceArray.* nobody wrote"):
        runtime.download(y.reshape(4, 16))
    assert (runtime.download(y[:40]) == np.arange(40)).all()


def test_views_are_of_the_same_memory():
    runtime = EmulatedRuntime()
    host = np.arange(24, dtype=np.int64).reshape(4, 6)
    there = runtime.upload(host)
    for view in (lambda a: a[1:3], lambda a: a[2], lambda a: a[-1:], lambda a: a.reshape(-1)[5:9], lambda a: a[..., 1]):
        here, same = view(host), view(there)
        assert (same.shape, same.strides, same.ndim, same.size) == (here.shape, here.strides, here.ndim, here.size)
        if same.is_contiguous:
            assert (runtime.download(same) == here).all()
    rates = there.reshape(-1)[4:5].view(np.float32)
    assert rates.shape == (2,)
    runtime.overwrite(rates[1:], np.array([2.5], np.float32))
    assert runtime.download(there).reshape(-1)[4:5].view(np.float32)[1] == 2.5
    assert there.__cuda_array_interface__["data"][0] == there.address
    assert arrays.home_of(there) == "cupy"
    assert not arrays.is_contiguous(there[:, 1:])


@pytest.mark.parametrize(
    "act",
    [
        np.asarray, bool, int, float, list, lambda a: a + 1, lambda a: 1 - a, lambda a: a == a, lambda a: a > 0,
        lambda a: np.ones(3) * a, lambda a: a.item(), lambda a: a.__setitem__(0, 1), lambda a: np.exp(a),
        lambda a: a[np.array([True])], lambda a: range(a[0]),
    ],
)  # fmt: skip
def test_the_host_cannot_touch_the_devices_memory(act):
    array = EmulatedRuntime().upload(np.zeros(3, np.int64))
    with pytest.raises(TypeError):
        act(array)


def test_the_launcher_takes_the_emulator_and_gives_it_back():
    with emulated(architecture=80) as runtime:
        assert launcher.runtime() is runtime
        assert "CUDA emulator" in runtime.describe()
        x, y = pair_of_arrays(runtime)
        launcher.launch(COPIES, ONE, x=x, y=y, n=N)
        with pytest.raises(TypeError, match=r"^x lies on the host"):
            launcher.launch(COPIES, ONE, x=np.zeros(64, np.float32), y=y, n=N)
    assert launcher._runtime is None


def test_a_missing_compiler_skips_or_fails(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert build.why_not() == "the CUDA emulator needs g++, which is not installed"
    monkeypatch.delenv(requirements.VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"^no g\+\+$"):
        requirements.required("no g++")
    monkeypatch.setenv(requirements.VARIABLE, "1")
    with pytest.raises(pytest.fail.Exception, match=r"^no g\+\+; with FASTGAN_CI=1 that is a failure"):
        requirements.required("no g++")
