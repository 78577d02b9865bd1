// One mistake a kernel. The emulator must find it on a line that ends with "// here": of two accesses that get in each
// other's way it names the one that comes last, which the order of the threads decides.

#include "device.cuh"

__global__ void reads_past_the_end(const float* x, float* y, int n) {
    int i = threadIdx.x;
    y[i] = x[i + n - 31];  // here
}

__global__ void writes_past_the_end(const float* x, float* y, int n) {
    int i = threadIdx.x;
    y[i + n - 31] = x[i];  // here
}

__global__ void writes_before_the_start(const float* x, float* y, int n) {
    y[(int)threadIdx.x - 1] = x[threadIdx.x];  // here
}

__global__ void goes_far_astray(const float* x, float* y, int n) {
    y[threadIdx.x] = x[threadIdx.x * -100000000ll];  // here
}

__global__ void follows_a_null_pointer(const float* x, float* y, int n) {
    const float* nothing = n > 0 ? (const float*)0 : x;
    y[threadIdx.x] = nothing[threadIdx.x];  // here
}

__global__ void reads_bytes_past_the_end(const byte* x, byte* y, int n) {
    y[threadIdx.x] = x[threadIdx.x + n - 31];  // here
}

// What a compiler likes to turn into a call of memset or memcpy.
__global__ void fills_past_the_end(const float* x, float* y, int n) {
    if (threadIdx.x == 0)
        for (int i = 0; i <= n; ++i) y[i] = 0.0f;  // here
}

__global__ void copies_past_the_end(const float* x, float* y, int n) {
    if (threadIdx.x == 0)
        for (int i = 0; i <= n; ++i) y[i] = x[i];  // here
}

struct Row {
    float values[33];
};
__global__ void copies_a_struct_past_the_end(const float* x, float* y, int n) {
    if (threadIdx.x == 0) ((Row*)y)[1] = ((const Row*)x)[0];  // here
}

__global__ void waits_for_ever(const float* x, float* y, int n) {
    volatile float* flag = y;
    if (threadIdx.x == 0) *flag = 0.0f;
    __syncthreads();
    while (*flag == 0.0f) {  // here
    }
}

__global__ void reads_what_nobody_wrote(const float* x, float* y, int n) {
    float before = y[threadIdx.x];  // here
    y[threadIdx.x] = x[threadIdx.x] + before;
}

__global__ void shared_out_of_bounds(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    s[threadIdx.x + 1] = x[threadIdx.x];  // here
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x + 1];
}

__global__ void shared_unwritten(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    if (threadIdx.x != 5) s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];  // here
}

__global__ void misaligned_vector(const float* x, float* y, int n) {
    float4 v = *(const float4*)(x + 1);  // here
    y[threadIdx.x] = v.x + v.w;
}

__global__ void misaligned_vector_write(const float* x, float* y, int n) {
    if (threadIdx.x < 4) *(float2*)(y + 2 * threadIdx.x + 1) = make_float2(x[0], x[1]);  // here
}

__global__ void misaligned_word(const byte* x, byte* y, int n) {
    *(unsigned*)(y + 4 * (threadIdx.x % 4) + 2) = x[0];  // here
}

__global__ void misaligned_copy(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    if (threadIdx.x < 2) copy_async_16(memory + 16 * threadIdx.x, x + 4 * threadIdx.x + 2, true);  // here
    copy_async_commit();
    copy_async_wait<0>();
}

__global__ void misaligned_block(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    unsigned blocks[4];
    load_blocks(blocks, s + threadIdx.x % 4 * 2);  // here
    y[threadIdx.x] = float_of(blocks[0]);
}

__global__ void race_between_writes(const float* x, float* y, int n) {
    y[threadIdx.x / 2] = x[threadIdx.x];  // here
}

__global__ void race_in_global_memory(float* x, float* y, int n) {
    x[threadIdx.x] = 1.0f;  // here
    y[threadIdx.x] = x[threadIdx.x ^ 1];  // here
}

// The barrier between filling and reading is missing: threads of other warps may not have written yet.
__global__ void barrier_missing_at_the_top(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    s[threadIdx.x] = 0.0f;
    __syncthreads();
    for (int step = 0; step < n; ++step) {
        s[threadIdx.x] = x[threadIdx.x] + step;  // here
        y[threadIdx.x] = s[(threadIdx.x + 32) % blockDim.x];  // here
        __syncthreads();
    }
}

// The barrier at the end of the loop is missing: one thread fills again what another still reads.
__global__ void barrier_missing_at_the_bottom(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    for (int step = 0; step < n; ++step) {
        s[threadIdx.x] = x[threadIdx.x] + step;  // here
        __syncthreads();
        y[threadIdx.x] = s[(threadIdx.x + 32) % blockDim.x];  // here
    }
}

// As above, with two stages of asynchronous copies: the copy into a stage begins while it is still read.
__global__ void barrier_missing_before_a_copy(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    float sum = 0.0f;
    copy_async_4(s + threadIdx.x, x + threadIdx.x, true);
    copy_async_commit();
    for (int step = 0; step < n; ++step) {
        copy_async_4(s + (step + 1) % 2 * blockDim.x + threadIdx.x, x + threadIdx.x, true);  // here
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();
        sum += s[step % 2 * blockDim.x + (threadIdx.x + 32) % blockDim.x];  // here
    }
    y[threadIdx.x] = sum;
}

// Lanes of one warp are not in step either.
__global__ void warp_barrier_missing(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    s[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    float next = s[threadIdx.x ^ 1];  // here
    s[threadIdx.x] = next;  // here
    y[threadIdx.x] = next;
}

__global__ void warp_barrier_for_a_block(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    s[threadIdx.x] = 0.0f;
    __syncthreads();
    s[threadIdx.x] = x[threadIdx.x];  // here
    __syncwarp();
    y[threadIdx.x] = s[threadIdx.x ^ 32];  // here
}

__global__ void divergent_barrier(const float* x, float* y, int n) {
    y[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x < 40) __syncthreads();  // here
}

__global__ void divergent_loop(const float* x, float* y, int n) {
    for (int i = 0; i < (threadIdx.x < 40 ? 2 : 1); ++i) __syncthreads();  // here
    y[threadIdx.x] = x[threadIdx.x];
}

__global__ void two_barriers(const float* x, float* y, int n) {
    if (threadIdx.x < 40) {
        __syncthreads();  // here
        y[threadIdx.x] = x[threadIdx.x];
    } else {
        __syncthreads();  // here
    }
}

__global__ void divergent_shuffle(const float* x, float* y, int n) {
    float v = x[threadIdx.x];
    if (threadIdx.x != 3) v = shuffle_xor(v, 1);  // here
    y[threadIdx.x] = v;
}

__global__ void two_shuffles(const float* x, float* y, int n) {
    float v = x[threadIdx.x];
    if (threadIdx.x < 3)
        v = shuffle_xor(v, 1);  // here
    else
        v = shuffle_xor(v, 2);  // here
    y[threadIdx.x] = v;
}

__global__ void copy_wait_missing(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    copy_async_4(s + threadIdx.x, x + threadIdx.x, true);
    copy_async_commit();
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];  // here
}

__global__ void copy_waits_for_too_few(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    copy_async_4(s + threadIdx.x, x + threadIdx.x, true);
    copy_async_commit();
    copy_async_wait<1>();
    y[threadIdx.x] = s[threadIdx.x];  // here
}

__global__ void copy_barrier_missing(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    s[threadIdx.x] = 0.0f;
    __syncthreads();
    copy_async_4(s + threadIdx.x, x + threadIdx.x, true);  // here
    copy_async_commit();
    copy_async_wait<0>();
    y[threadIdx.x] = s[threadIdx.x ^ 1];  // here
}

// A barrier before the wait shows others nothing of the copy.
__global__ void copy_barrier_before_the_wait(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    copy_async_4(s + threadIdx.x, x + threadIdx.x, true);
    copy_async_commit();
    __syncthreads();
    copy_async_wait<0>();
    y[threadIdx.x] = s[threadIdx.x ? threadIdx.x - 1 : 0];  // here
}

__global__ void copies_nothing_from_nowhere(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    copy_async_4(memory + 4 * threadIdx.x, x + 1000000, false);  // here
    copy_async_commit();
    copy_async_wait<0>();
}

__global__ void blocks_write_the_same(const float* x, float* y, int n) {
    y[threadIdx.x] = x[threadIdx.x];  // here
}

__global__ void blocks_read_each_other(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[threadIdx.x];  // here
    if (blockIdx.x == 1) y[i] += y[threadIdx.x];  // here
}

// Every block reads x[0]; the last one writes it.
__global__ void blocks_write_what_others_read(float* x, float* y, int n) {
    y[blockIdx.x * blockDim.x + threadIdx.x] = x[0];  // here
    __syncthreads();
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) x[0] = 1.0f;  // here
}

// The ticket is taken before the write that the last block reads.
__global__ void ticket_too_early(const float* x, float* y, unsigned* counter) {
    DYNAMIC_SHARED(memory);
    bool last = take_ticket(counter, gridDim.x, (unsigned*)memory);
    if (threadIdx.x == 0) y[1 + blockIdx.x] = x[0];
    if (last && threadIdx.x == 0)
        for (int i = 0; i < gridDim.x; ++i) y[0] = y[1 + i];  // here
}

__global__ void ticket_for_too_many(const float* x, float* y, unsigned* counter) {
    DYNAMIC_SHARED(memory);
    take_ticket(counter, gridDim.x + 1, (unsigned*)memory);  // here
}

__global__ void atomic_and_plain(const float* x, float* y, unsigned* counter) {
    if (threadIdx.x == 0) atomicInc(counter, 100);  // here
    y[blockIdx.x * blockDim.x + threadIdx.x] = *counter;  // here
}

__global__ void CLUSTER_OF(2) cluster_barrier_missing(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[blockIdx.z * blockDim.x + threadIdx.x] = cluster_peer(s, 1 - cluster_rank())[threadIdx.x];  // here
    cluster_sync();
}

__global__ void CLUSTER_OF(2) cluster_block_ends_early(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    s[threadIdx.x] = x[threadIdx.x];
    cluster_sync();
    y[blockIdx.z * blockDim.x + threadIdx.x] = cluster_peer(s, 1 - cluster_rank())[threadIdx.x];  // here
}

__global__ void CLUSTER_OF(2) cluster_barrier_of_one(const float* x, float* y, int n) {
    y[blockIdx.z * blockDim.x + threadIdx.x] = x[threadIdx.x];
    if (cluster_rank() == 0) cluster_sync();  // here
}

// --- mbarriers and copies that they wait for: thread 0 copies x, 256 bytes, to shared memory, where the second warp reads ---

struct Slot {
    float* data;
    word64 *full, *empty;
};
// Lane by lane the second warp arrives at `empty`.
__device__ __forceinline__ Slot slot_in(char* memory) {
    Slot slot = {(float*)memory, (word64*)(memory + 256), (word64*)(memory + 264)};
    if (threadIdx.x == 0) {
        mbarrier_init(slot.full, 1);
        mbarrier_init(slot.empty, 32);
    }
    __syncthreads();
    return slot;
}
__device__ __forceinline__ void fill_slot(Slot slot, const float* x) {
    mbarrier_arrive_expecting(slot.full, 256);
    copy_bulk(slot.data, x, 256, slot.full);
}

__global__ void mbarrier_wait_missing(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        fill_slot(slot, x);
        mbarrier_wait(slot.full, 0);
    }
    y[threadIdx.x] = slot.data[threadIdx.x];  // here
}

// A wait for the phase before the first is over at once.
__global__ void mbarrier_of_the_wrong_parity(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) fill_slot(slot, x);
    mbarrier_wait(slot.full, 1);
    y[threadIdx.x] = slot.data[threadIdx.x];  // here
}

__global__ void mbarrier_of_another_copy(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slots[2] = {slot_in(memory), slot_in(memory + 512)};
    if (threadIdx.x == 0)
        for (int i = 0; i < 2; ++i) fill_slot(slots[i], x);
    mbarrier_wait(slots[1].full, 0);
    y[threadIdx.x] = slots[0].data[threadIdx.x];  // here
    mbarrier_wait(slots[0].full, 0);
}

__global__ void slot_given_back_too_early(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0)
        for (int i = 0; i < n; ++i) {
            mbarrier_wait(slot.empty, i % 2 ^ 1);
            mbarrier_arrive_expecting(slot.full, 256);
            copy_bulk(slot.data, x, 256, slot.full);  // here
        }
    if (threadIdx.x >= 32)
        for (int i = 0; i < n; ++i) {
            mbarrier_wait(slot.full, i % 2);
            mbarrier_arrive(slot.empty);
            y[threadIdx.x] = slot.data[threadIdx.x];  // here
        }
}

// One lane arrives for all: as everywhere, a shuffle does not say that they have read, and __syncwarp would.
__global__ void slot_given_back_by_one_lane(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0)
        for (int i = 0; i < n; ++i) {
            mbarrier_wait(slot.empty, i % 2 ^ 1);
            mbarrier_arrive_expecting(slot.full, 256);
            copy_bulk(slot.data, x, 256, slot.full);  // here
        }
    if (threadIdx.x >= 32)
        for (int i = 0; i < n; ++i) {
            mbarrier_wait(slot.full, i % 2);
            y[threadIdx.x] = shuffle_xor(slot.data[threadIdx.x], 1);  // here
            if (threadIdx.x == 32)
                for (int lane = 0; lane < 32; ++lane) mbarrier_arrive(slot.empty);
        }
}

// All lanes read the same word, and one of them has arrived before.
__global__ void slot_given_back_by_one_of_many(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0)
        for (int i = 0; i < n; ++i) {
            mbarrier_wait(slot.empty, i % 2 ^ 1);
            mbarrier_arrive_expecting(slot.full, 256);
            copy_bulk(slot.data, x, 256, slot.full);  // here
        }
    if (threadIdx.x >= 32)
        for (int i = 0; i < n; ++i) {
            mbarrier_wait(slot.full, i % 2);
            if (threadIdx.x == 35) mbarrier_arrive(slot.empty);
            y[threadIdx.x] = slot.data[0];  // here
            if (threadIdx.x != 35) mbarrier_arrive(slot.empty);
        }
}

// Two slots, so that the second copy to each comes only after the first has been waited for.
__global__ void slot_not_waited_for(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slots[2] = {slot_in(memory), slot_in(memory + 512)};
    if (threadIdx.x < 32)
        for (int i = 0; i < n; ++i) {
            if (i >= 2) mbarrier_wait(slots[i % 2].full, i / 2 % 2 ^ 1);
            if (threadIdx.x == 0) {
                mbarrier_arrive_expecting(slots[i % 2].full, 256);
                copy_bulk(slots[i % 2].data, x, 256, slots[i % 2].full);  // here
            }
        }
    else
        for (int i = 0; i < n; ++i) {
            mbarrier_wait(slots[i % 2].full, i / 2 % 2);
            y[threadIdx.x] = slots[i % 2].data[threadIdx.x];  // here
        }
}

__global__ void copy_before_the_last_has_landed(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slots[2] = {slot_in(memory), slot_in(memory + 512)};
    if (threadIdx.x == 0)
        for (int i = 0; i < 2; ++i) {
            mbarrier_arrive_expecting(slots[i].full, 256);
            copy_bulk(slots[0].data, x, 256, slots[i].full);  // here
        }
    mbarrier_wait(slots[0].full, 0);
    mbarrier_wait(slots[1].full, 0);
}

__global__ void expects_too_few_bytes(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expecting(slot.full, 128);
        copy_bulk(slot.data, x, 128, slot.full);
        copy_bulk(slot.data + 32, x + 32, 128, slot.full);  // here
    }
    mbarrier_wait(slot.full, 0);
    y[threadIdx.x] = slot.data[threadIdx.x];
}

__global__ void expects_too_many_bytes(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expecting(slot.full, 257);
        copy_bulk(slot.data, x, 256, slot.full);
    }
    mbarrier_wait(slot.full, 0);  // here
    y[threadIdx.x] = slot.data[threadIdx.x];
}

__global__ void stores_to_a_slot(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) fill_slot(slot, x);
    mbarrier_wait(slot.full, 0);
    y[threadIdx.x] = slot.data[threadIdx.x ^ 1];  // here
    slot.data[threadIdx.x] = 0.0f;  // here
}

// In order, but the copy goes another way than the stores.
__global__ void copies_over_what_was_stored(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    ((float*)memory)[threadIdx.x] = 0.0f;
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expecting(slot.full, 256);
        copy_bulk(slot.data, x, 256, slot.full);  // here
    }
    mbarrier_wait(slot.full, 0);
}

__global__ void copies_too_much(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expecting(slot.full, 256);
        copy_bulk(slot.data, x + 4, 256, slot.full);  // here
    }
    mbarrier_wait(slot.full, 0);
}

__global__ void copies_over_mbarriers(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expecting(slot.full, 256);
        copy_bulk(slot.data + 4, x, 256, slot.full);  // here
    }
    mbarrier_wait(slot.full, 0);
}

__global__ void misaligned_copy_bulk(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expecting(slot.full, 128);
        copy_bulk(slot.data, x + 2, 128, slot.full);  // here
    }
    mbarrier_wait(slot.full, 0);
}

__global__ void copy_bulk_of_eight(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expecting(slot.full, 8);
        copy_bulk(slot.data, x, 8, slot.full);  // here
    }
    mbarrier_wait(slot.full, 0);
}

__global__ void ends_before_a_copy(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expecting(slot.full, 256);
        copy_bulk(slot.data, x, 256, slot.full);  // here
    }
}

__global__ void nobody_initialises_an_mbarrier(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    mbarrier_arrive((word64*)memory);  // here
}

__global__ void barrier_missing_after_mbarrier_init(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    word64* mbarrier = (word64*)memory;
    if (threadIdx.x == 0) mbarrier_init(mbarrier, 64);
    mbarrier_arrive(mbarrier);  // here
}

__global__ void mbarrier_initialised_again(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive(slot.full);
        mbarrier_init(slot.full, 1);  // here
    }
}

__global__ void mbarrier_read_as_a_word(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    y[threadIdx.x] = *slot.full;  // here
}

__global__ void more_arrivals_than_a_phase_has(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    mbarrier_arrive(slot.empty);  // here
}

// While the bytes are awaited, all have arrived.
__global__ void one_arrival_too_many(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        fill_slot(slot, x);
        mbarrier_arrive(slot.full);  // here
    }
    mbarrier_wait(slot.full, 0);
}

__global__ void fewer_arrivals_than_a_phase_has(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x >= 33) mbarrier_arrive(slot.empty);
    mbarrier_wait(slot.empty, 0);  // here
}

// Thread 0 stores, and arrives before that.
__global__ void arrives_before_the_store(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = slot_in(memory);
    if (threadIdx.x == 0) {
        mbarrier_arrive(slot.full);
        slot.data[0] = x[0];  // here
    }
    mbarrier_wait(slot.full, 0);
    y[threadIdx.x] = slot.data[0];  // here
}

// --- a warpgroup's multiplications: x is 8192 bytes, a matrix of 128 rows, the first 64 of which are A and all of which are B ---

// Thread 128 of 160 copies, the warpgroup multiplies and arrives thread by thread.
__device__ __forceinline__ Slot operands_in(char* memory, const float* x) {
    Slot slot = {(float*)memory, (word64*)(memory + 8192), (word64*)(memory + 8200)};
    if (threadIdx.x == 128) {
        mbarrier_init(slot.full, 1);
        mbarrier_init(slot.empty, 128);
        mbarrier_arrive_expecting(slot.full, 8192);
        copy_bulk(slot.data, x, 8192, slot.full);
    }
    __syncthreads();
    return slot;
}

__global__ void operands_not_waited_for(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x >= 128) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    warpgroup_multiply_half(d, matrix, matrix, false);  // here
    warpgroup_commit();
    mbarrier_wait(slot.full, 0);
    warpgroup_wait(d);
    y[threadIdx.x] = d[0];
}

__global__ void operands_under_way(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x < 128) {
        float d[64];
        word64 matrix = shared_matrix(memory);
        warpgroup_multiply_half(d, matrix, matrix, false);  // here
        warpgroup_commit();
        warpgroup_wait(d);
        y[threadIdx.x] = d[0];
    }
    mbarrier_wait(slot.full, 0);
}

__global__ void operands_given_back_too_early(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x == 128)
        for (int i = 1; i < n; ++i) {
            mbarrier_wait(slot.empty, i % 2 ^ 1);
            mbarrier_arrive_expecting(slot.full, 8192);
            copy_bulk(slot.data, x, 8192, slot.full);  // here
        }
    if (threadIdx.x >= 128) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    for (int i = 0; i < n; ++i) {
        mbarrier_wait(slot.full, i % 2);
        warpgroup_multiply_half(d, matrix, matrix, i > 0);  // here
        warpgroup_commit();
        mbarrier_arrive(slot.empty);
        warpgroup_wait(d);
    }
    y[threadIdx.x] = d[0];
}

// As above, and the next copy lands before the multiplication is waited for.
__global__ void multiplication_waited_for_too_late(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x == 128) {
        mbarrier_wait(slot.empty, 0);
        mbarrier_arrive_expecting(slot.full, 8192);
        copy_bulk(slot.data, x, 8192, slot.full);
    }
    if (threadIdx.x >= 128) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    mbarrier_wait(slot.full, 0);
    warpgroup_multiply_half(d, matrix, matrix, false);  // here
    warpgroup_commit();
    mbarrier_arrive(slot.empty);
    mbarrier_wait(slot.full, 1);
    warpgroup_wait(d);
    y[threadIdx.x] = d[0];
}

__global__ void operands_stored(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    for (int i = threadIdx.x; i < 2048; i += blockDim.x) ((float*)memory)[i] = x[i];
    __syncthreads();
    if (threadIdx.x >= 128) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    warpgroup_multiply_half(d, matrix, matrix, false);  // here
    warpgroup_commit();
    warpgroup_wait(d);
    y[threadIdx.x] = d[0];
}

__global__ void operands_out_of_bounds(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x >= 128) return;
    float d[64];
    mbarrier_wait(slot.full, 0);
    warpgroup_multiply_half(d, shared_matrix(memory), shared_matrix(memory + 512), false);  // here
    warpgroup_commit();
    warpgroup_wait(d);
    y[threadIdx.x] = d[0];
}

__global__ void misaligned_matrix(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    y[threadIdx.x] = shared_matrix(memory + 256);  // here
}

__global__ void half_a_step_along_K(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float d[64];
    word64 matrix = shared_matrix(memory);
    if (threadIdx.x < 128) warpgroup_multiply_half(d, matrix + 1, matrix, false);  // here
}

// Groups of eight rows that lie 528 bytes apart.
__global__ void rows_described_otherwise(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float d[64];
    word64 matrix = shared_matrix(memory);
    if (threadIdx.x < 128) warpgroup_multiply_half(d, matrix, matrix + (1ull << 32), false);  // here
}

__global__ void commit_missing(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x >= 128) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    mbarrier_wait(slot.full, 0);
    warpgroup_multiply_half(d, matrix, matrix, false);
    warpgroup_wait(d);  // here
    y[threadIdx.x] = d[0];
}

__global__ void registers_read_too_early(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x >= 128) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    mbarrier_wait(slot.full, 0);
    warpgroup_multiply_half(d, matrix, matrix, false);
    warpgroup_commit();
    y[threadIdx.x] = d[0];  // here
    warpgroup_wait(d);
}

__global__ void other_registers_named(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x >= 128) return;
    int d[2][64];
    word64 matrix = shared_matrix(memory);
    mbarrier_wait(slot.full, 0);
    for (int i = 0; i < 2; ++i) warpgroup_multiply_bytes(d[i], matrix, matrix, false);
    warpgroup_commit();
    warpgroup_wait(d[0]);
    y[threadIdx.x] = d[0][0];
    y[threadIdx.x] = d[1][0];  // here
    warpgroup_wait(d[1]);
}

__global__ void nobody_waits_for_a_multiplication(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x >= 128) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    mbarrier_wait(slot.full, 0);
    warpgroup_multiply_half(d, matrix, matrix, false);  // here
    warpgroup_commit();
}

__global__ void three_warps_multiply(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x >= 96) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    mbarrier_wait(slot.full, 0);
    warpgroup_multiply_half(d, matrix, matrix, false);
    warpgroup_commit();
    warpgroup_wait(d);  // here
    y[threadIdx.x] = d[0];
}

__global__ void one_thread_multiplies_less(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x >= 128) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    mbarrier_wait(slot.full, 0);
    for (int i = 0; i < (threadIdx.x == 5 ? 1 : 2); ++i) warpgroup_multiply_half(d, matrix, matrix, i > 0);
    warpgroup_commit();
    warpgroup_wait(d);  // here
    y[threadIdx.x] = d[0];
}

__global__ void warps_multiply_other_matrices(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    Slot slot = operands_in(memory, x);
    if (threadIdx.x >= 128) return;
    float d[64];
    word64 matrix = shared_matrix(memory);
    mbarrier_wait(slot.full, 0);
    warpgroup_multiply_half(d, matrix + threadIdx.x / 64 * 2, matrix, false);  // here
    warpgroup_commit();
    warpgroup_wait(d);
    y[threadIdx.x] = d[0];
}

__global__ void one_warp_gives_registers(const float* x, float* y, int n) {
    if (threadIdx.x < 32) give_registers<24>();  // here
}

__global__ void odd_number_of_registers(const float* x, float* y, int n) {
    if (threadIdx.x < 128) take_registers<100>();  // here
}

__device__ __forceinline__ float helper(const float* x, int i) {
    return x[i];  // in a helper
}

__global__ void reads_past_the_end_in_a_helper(const float* x, float* y, int n) {
    y[threadIdx.x] = helper(x, threadIdx.x + n);  // here
}

// Nothing wrong with these: the tests launch them beside each other, or with something freed.

__global__ void copies(const float* x, float* y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i];  // copies
}

__global__ void adds_one(float* x, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] += 1.0f;
}

struct Pair {
    float a;
    int b;
};
__global__ void takes(float f, int i, unsigned u, long long l, double d, bool b, Pair pair, const float* p, float* out) {
    out[0] = f + i + u + l + (float)d + b + pair.a + pair.b + (p ? p[0] : 0.0f);
}

