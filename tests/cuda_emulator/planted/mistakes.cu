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

