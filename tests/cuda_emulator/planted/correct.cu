// Programs without a mistake: the emulator must let them pass, and compute what they compute.

#include "device.cuh"

// y (B x O) = x (B x I) · W (I x O): tiles of TB rows and TO columns, TK of I at a time, two stages of asynchronous
// copies; a thread sums RB x RO of a tile. I must be a multiple of 4.
template <int TB, int TO, int TK, int RB, int RO>
__global__ void __launch_bounds__(TB / RB * TO / RO) product(const float* x, const float* W, float* y, int B, int I, int O) {
    DYNAMIC_SHARED(memory);
    float* x_tile = (float*)memory;
    float* W_tile = x_tile + 2 * TB * TK;
    const int threads = TB / RB * TO / RO;
    int thread = threadIdx.x, first_b = blockIdx.y * TB, first_o = blockIdx.x * TO;
    int row = thread / (TO / RO) * RB, column = thread % (TO / RO) * RO;

    auto load = [&](int stage, int k) {
        for (int i = thread; i < TB * TK / 4; i += threads) {
            int b = i / (TK / 4), q = i % (TK / 4) * 4;
            bool valid = first_b + b < B && k + q < I;
            copy_async_16(x_tile + stage * TB * TK + b * TK + q, valid ? x + (first_b + b) * I + k + q : x, valid);
        }
        for (int i = thread; i < TK * TO / 4; i += threads) {
            int q = i / (TO / 4), o = i % (TO / 4) * 4;
            bool valid = k + q < I && first_o + o < O;
            copy_async_16(W_tile + stage * TK * TO + q * TO + o, valid ? W + (k + q) * O + first_o + o : W, valid);
        }
        copy_async_commit();
    };

    float sums[RB][RO] = {};
    int steps = divide_up(I, TK);
    load(0, 0);
    for (int step = 0; step < steps; ++step) {
        if (step + 1 < steps) {
            load((step + 1) % 2, (step + 1) * TK);
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        __syncthreads();
        const float* x_now = x_tile + step % 2 * TB * TK;
        const float* W_now = W_tile + step % 2 * TK * TO;
        for (int k = 0; k < TK; ++k) {
            float a[RB], w[RO];
            for (int i = 0; i < RB; ++i) a[i] = x_now[(row + i) * TK + k];
            for (int j = 0; j < RO; j += 4) *(float4*)(w + j) = *(const float4*)(W_now + k * TO + column + j);
            for (int i = 0; i < RB; ++i)
                for (int j = 0; j < RO; ++j) sums[i][j] = fmaf(a[i], w[j], sums[i][j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < RB; ++i)
        for (int j = 0; j < RO; ++j)
            if (first_b + row + i < B && first_o + column + j < O) y[(first_b + row + i) * O + first_o + column + j] = sums[i][j];
}

// d (16 x 8) = a (16 x K) · b (K x 8) by one warp, K a multiple of 8.
__global__ void tensor_product(const float* a, const float* b, float* d, int K) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    float sums[4] = {};
    for (int k = 0; k < K; k += 8) {
        unsigned fa[4] = {to_tf32(a[g * K + k + t]), to_tf32(a[(g + 8) * K + k + t]), to_tf32(a[g * K + k + t + 4]),
                          to_tf32(a[(g + 8) * K + k + t + 4])};
        unsigned fb[2] = {to_tf32(b[(k + t) * 8 + g]), to_tf32(b[(k + t + 4) * 8 + g])};
        mma_tf32(sums, fa, fb);
    }
    for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// Operands as they come, without rounding them to TF32: the tensor cores do not look at the low bits.
__global__ void tensor_product_once(const float* a, const float* b, float* d) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    float sums[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    unsigned fa[4] = {bits_of(a[g * 8 + t]), bits_of(a[(g + 8) * 8 + t]), bits_of(a[g * 8 + t + 4]), bits_of(a[(g + 8) * 8 + t + 4])};
    unsigned fb[2] = {bits_of(b[t * 8 + g]), bits_of(b[(t + 4) * 8 + g])};
    mma_tf32(sums, fa, fb);
    for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// d (16 x 8) = a (16 x 16) · b (16 x 8) in half precision; b as it comes, K along its rows: (8 x 16).
__global__ void half_product(const float* a, const float* b, float* d) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    auto two = [](const float* at) { return to_half(at[0]) | to_half(at[1]) << 16; };
    float sums[4] = {};
    unsigned fa[4], fb[2];
    for (int e = 0; e < 4; ++e) fa[e] = two(a + (g + e % 2 * 8) * 16 + 2 * t + e / 2 * 8);
    for (int e = 0; e < 2; ++e) fb[e] = two(b + g * 16 + 2 * t + e * 8);
    mma_half(sums, fa, fb);
    for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// d (16 x 8) = begin + a (16 x 32) · b (32 x 8) of bytes, K along b's rows: (8 x 32).
__global__ void byte_product(const unsigned* a, const unsigned* b, int begin, int* d) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    int sums[4] = {begin, begin, begin, begin};
    unsigned fa[4], fb[2];
    for (int e = 0; e < 4; ++e) fa[e] = a[(g + e % 2 * 8) * 8 + t + e / 2 * 4];
    for (int e = 0; e < 2; ++e) fb[e] = b[g * 8 + t + e * 4];
    mma_bytes(sums, fa, fb);
    for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

__global__ void halves(const float* x, float* back, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) back[i] = of_half(to_half(x[i]));
}

// out[j] = sum over the cluster's blocks of x[rank, j]: each block sums its share over distributed shared memory.
template <int SIZE>
__global__ void CLUSTER_OF(SIZE) cluster_sum(const float* x, float* out, int n) {
    DYNAMIC_SHARED(memory);
    float* mine = (float*)memory;
    unsigned rank = cluster_rank();
    for (int j = threadIdx.x; j < n; j += blockDim.x) mine[j] = x[blockIdx.z * n + j];
    cluster_sync();
    int share = divide_up(n, SIZE);
    for (int j = rank * share + threadIdx.x; j < minimum((rank + 1) * share, n); j += blockDim.x) {
        float sum = 0.0f;
        for (int r = 0; r < SIZE; ++r) sum += cluster_peer(mine, r)[j];
        out[blockIdx.z / SIZE * n + j] = sum;
    }
    cluster_sync();
}

// out[0] = sum of x, by blocks that leave partial sums, the last of which adds them up and counts in `state`.
__global__ void ticket_sum(const float* x, float* partial, unsigned* counter, long long* state, float* out, int n) {
    DYNAMIC_SHARED(memory);
    float* lanes = (float*)memory;
    float sum = 0.0f;
    long long before = state[0];
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    for (int lane = 16; lane; lane /= 2) sum += shuffle_xor(sum, lane);
    if (threadIdx.x % 32 == 0) lanes[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        sum = 0.0f;
        for (int i = 0; i < blockDim.x / 32; ++i) sum += lanes[i];
        partial[blockIdx.x] = sum;
    }
    if (!take_ticket(counter, gridDim.x, (unsigned*)(lanes + blockDim.x / 32))) return;
    if (threadIdx.x == 0) {
        sum = 0.0f;
        for (int i = 0; i < gridDim.x; ++i) sum += partial[i];
        out[0] = sum;
        // Every block read it, before its ticket.
        state[0] = before + 1;
    }
}

// y[i, lane] = element (lane / 4, lane % 4) of block i, where block i's rows are x's rows 8i to 8i + 7 of 4.
__global__ void blocks_of_rows(const unsigned* x, unsigned* y) {
    DYNAMIC_SHARED(memory);
    unsigned* rows = (unsigned*)memory;
    for (int j = 0; j < 4; ++j) rows[j * 32 + threadIdx.x] = x[j * 32 + threadIdx.x];
    __syncthreads();
    unsigned blocks[4];
    load_blocks(blocks, (const float*)rows + threadIdx.x * 4);
    for (int i = 0; i < 4; ++i) y[i * 32 + threadIdx.x] = blocks[i];
}

// Each lane's neighbour by a shuffle, by way of shared memory and __syncwarp, and by bytes.
__global__ void neighbours(const byte* x, byte* y, double* z) {
    DYNAMIC_SHARED(memory);
    int i = threadIdx.x;
    double d = shuffle_xor((double)x[i], 1);
    byte* mine = (byte*)memory + i / 32 * 32;
    mine[i % 32] = x[i];
    __syncwarp();
    y[i] = mine[(i + 1) % 32];
    __syncwarp();
    mine[(i + 2) % 32] = 0;
    z[i] = d;
}

// What the arithmetic of device.cuh and CUDA C++ gives.
__global__ void arithmetic(const float* x, float* out) {
    float v = x[0];
    out[0] = fmaf(v, v, -v * v);
    out[1] = exp2_fast(v);
    out[2] = float_of(to_tf32(v));
    out[3] = x[1] * x[2];
    out[4] = add_rounded(multiply_rounded(v, v), 1.0f);
    out[5] = (float)__umulhi(0x80000000u, 6u);
    out[6] = rsqrtf(x[3]);
    out[7] = INFINITE;
}

// d (128 x 128) = a (128 x K) · b (128 x K) transposed, by two warpgroups that multiply and a thread that copies to a ring of
// slots; a and b are in chunks of 64 bytes along K as the tensor cores read them, (chunks, 128, 64 bytes). The least of
// each row comes with the first chunk, once a round: what all threads read with ordinary loads.
template <class Number, int STAGES>
__global__ void __launch_bounds__(384) ring_product(const byte* a, const byte* b, const Number* least, int chunks, int rounds,
                                                    Number* d) {
    constexpr int MATRIX = 128 * 64, SLOT = 2 * MATRIX, NORMS = 128 * sizeof(Number);
    DYNAMIC_SHARED(memory);
    Number* norms = (Number*)(memory + STAGES * SLOT);
    word64* full = (word64*)((char*)norms + (STAGES + 1) * NORMS);
    word64* empty = full + STAGES;
    if (threadIdx.x == 0)
        for (int s = 0; s < STAGES; ++s) {
            mbarrier_init(full + s, 1);
            mbarrier_init(empty + s, 8);
        }
    __syncthreads();
    if (threadIdx.x < 128) {
        give_registers<24>();
        if (threadIdx.x > 0) return;
        for (int n = 0; n < rounds * chunks; ++n) {
            int s = n % STAGES, chunk = n % chunks, round = n / chunks;
            mbarrier_wait(empty + s, n / STAGES % 2 ^ 1);
            mbarrier_arrive_expecting(full + s, SLOT + (chunk == 0 ? NORMS : 0));
            copy_bulk(memory + s * SLOT, a + chunk * MATRIX, MATRIX, full + s);
            copy_bulk(memory + s * SLOT + MATRIX, b + chunk * MATRIX, MATRIX, full + s);
            if (chunk == 0) copy_bulk(norms + round % (STAGES + 1) * 128, least, NORMS, full + s);
        }
        return;
    }
    take_registers<240>();
    int consumer = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int round = 0, n = 0; round < rounds; ++round) {
        Number sums[64];
        for (int chunk = 0; chunk < chunks; ++chunk, ++n) {
            int s = n % STAGES;
            mbarrier_wait(full + s, n / STAGES % 2);
            word64 ours = shared_matrix(memory + s * SLOT + consumer * MATRIX / 2);
            word64 theirs = shared_matrix(memory + s * SLOT + MATRIX);
            warpgroup_fence();
            for (int k = 0; k < 4; k += 2)
                if constexpr (sizeof(Number) == 4 && (Number)0.5f != 0)
                    warpgroup_multiply_half(sums, ours + k, theirs + k, chunk + k > 0);
                else
                    warpgroup_multiply_bytes(sums, ours + k, theirs + k, chunk + k > 0);
            warpgroup_commit();
            warpgroup_wait(sums);
            // For the lanes that read norms, a round ago.
            __syncwarp();
            if (threadIdx.x % 32 == 0) mbarrier_arrive(empty + s);
        }
        for (int i = 0; i < 64; ++i) {
            int row = consumer * 64 + warp * 16 + g + i / 2 % 2 * 8, column = i / 4 * 8 + t * 2 + i % 2;
            Number least_now = norms[round % (STAGES + 1) * 128 + row];
            d[row * 128 + column] = sums[i] < least_now ? least_now : sums[i];
        }
    }
}

// y[i] = x[i ^ 1] + n + 1: two warps hand shared memory, and at last global memory, to and fro by mbarriers.
__global__ void handed_to_and_fro(const float* x, float* y, int n) {
    DYNAMIC_SHARED(memory);
    float* s = (float*)memory;
    word64 *there = (word64*)(s + 64), *back = there + 1;
    int lane = threadIdx.x % 32;
    if (threadIdx.x < 2) mbarrier_init(threadIdx.x ? back : there, 32);
    __syncthreads();
    if (threadIdx.x < 32) {
        for (int i = 0; i < n; ++i) {
            if (i > 0) mbarrier_wait(back, (i - 1) % 2);
            s[lane] = i == 0 ? x[lane] : s[32 + (lane ^ 1)];
            mbarrier_arrive(there);
        }
        mbarrier_wait(back, (n - 1) % 2);
        y[lane] += 1.0f;
    } else
        for (int i = 0; i < n; ++i) {
            mbarrier_wait(there, i % 2);
            s[32 + lane] = s[lane ^ 1] + 1.0f;
            if (i == n - 1) y[lane] = s[32 + lane];
            mbarrier_arrive(back);
        }
}
