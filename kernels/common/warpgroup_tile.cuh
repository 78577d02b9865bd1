// A tile of a matrix product of planes (planes.cuh) by warpgroups: Hopper's own way, sm_90a.
//
//   C[m][n] = Σ_k A[m][k] · B[n][k], K along the rows of both
//
// One thread copies, two warpgroups multiply. The copies go round in a ring of slots, a chunk of 64 bytes along K each, from
// tile to tile without a stop; two mbarriers a slot say that it is full, and that it is empty. The tensor cores read both
// operands where the copies put them.
//   HALVES  a warpgroup has 128 x 128 sums: so that as few bytes are read a product as registers allow. Three products, added
//           up outside the tensor cores every 32 of K, as those truncate: float32's error.
//   BYTES   a warpgroup has 64 x 128 times three sums, 32-bit integers, which are exact where K is at most 33,025.
//
// The defines are chosen in planes_tile.py.

#pragma once
#include "planes.cuh"

namespace warpgroups {

using planes::CHUNK;
using planes::IN_A;
using planes::IN_B;
using planes::Norm;

constexpr int CONSUMERS = 2, THREADS = 128 * (1 + CONSUMERS);
// Blocks of 64 rows of one consumer.
constexpr int BLOCKS = ARITHMETIC == HALVES ? 2 : 1;
constexpr int TILE_M = 64 * BLOCKS * CONSUMERS, TILE_N = 128;
constexpr int A_SLOT = IN_A * TILE_M * CHUNK, SLOT = A_SLOT + IN_B * TILE_N * CHUNK;
// Of 65,536 registers the producer's warpgroup keeps few.
constexpr int OF_PRODUCER = 24, OF_CONSUMER = 240;
// Norm: what comes with each column, once a tile. The producer is at most STAGES tiles ahead.
constexpr int NORM_SLOTS = STAGES + 1;
constexpr int RING_BYTES = STAGES * SLOT + NORM_SLOTS * TILE_N * (int)sizeof(Norm) + 2 * STAGES * 8;

// A thread's place in the ring.
struct Turn {
    int slot = 0;
    unsigned parity = 0;

    __device__ __forceinline__ void next() {
        if (++slot == STAGES) slot = 0, parity ^= 1u;
    }
};

struct Ring {
    byte* slots;
    Norm* norms;
    word64 *full, *empty;

    __device__ __forceinline__ Ring(char* memory)
        : slots((byte*)memory), norms((Norm*)(memory + STAGES * SLOT)), full((word64*)(norms + NORM_SLOTS * TILE_N)),
          empty(full + STAGES) {}

    // By one thread, before a barrier.
    __device__ __forceinline__ void begin() {
        for (int s = 0; s < STAGES; ++s) {
            mbarrier_init(full + s, 1);
            mbarrier_init(empty + s, CONSUMERS * 4);
        }
    }

    // By the producing thread: sends the tile at (m, n), the tile-th of the block's.
    __device__ __forceinline__ void send(const planes::Matrix& a, const planes::Matrix& b, const Norm* b_norms, int m, int n,
                                         int tile, Turn& turn) {
        for (int chunk = 0; chunk < a.chunks; ++chunk, turn.next()) {
            word64* is_full = full + turn.slot;
            byte* slot = slots + turn.slot * SLOT;
            mbarrier_wait(empty + turn.slot, turn.parity ^ 1u);
            int more = chunk == 0 ? TILE_N * (int)sizeof(Norm) : 0;
            mbarrier_arrive_expecting(is_full, SLOT + more);
#pragma unroll
            for (int p = 0; p < IN_A; ++p)
                copy_bulk(slot + p * TILE_M * CHUNK, a.at(p, chunk, m), TILE_M * CHUNK, is_full);
#pragma unroll
            for (int p = 0; p < IN_B; ++p)
                copy_bulk(slot + A_SLOT + p * TILE_N * CHUNK, b.at(p, chunk, n), TILE_N * CHUNK, is_full);
            if (more) copy_bulk(norms + tile % NORM_SLOTS * TILE_N, b_norms + n, more, is_full);
        }
    }
};

#if ARITHMETIC == HALVES

// A consumer's sums: c[block][4 j + e] as warpgroup_multiply_half has them.
struct Sums {
    float c[BLOCKS][64];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < BLOCKS * 64; ++i) c[i / 64][i % 64] = 0.0f;
    }
    // Adds a chunk.
    __device__ __forceinline__ void multiply(const byte* slot, int consumer) {
        float part[64];
        const byte* a = slot + consumer * BLOCKS * 64 * CHUNK;
        word64 b_high = shared_matrix(slot + A_SLOT), b_low = shared_matrix(slot + A_SLOT + TILE_N * CHUNK);
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
            word64 a_high = shared_matrix(a + block * 64 * CHUNK), a_low = shared_matrix(a + (TILE_M + block * 64) * CHUNK);
            warpgroup_fence();
            // The small ones first.
#pragma unroll
            for (int k = 0; k < CHUNK / 16; k += 2) {
                warpgroup_multiply_half(part, a_low + k, b_high + k, k > 0);
                warpgroup_multiply_half(part, a_high + k, b_low + k, true);
            }
#pragma unroll
            for (int k = 0; k < CHUNK / 16; k += 2) warpgroup_multiply_half(part, a_high + k, b_high + k, true);
            warpgroup_commit();
            warpgroup_wait(part);
#pragma unroll
            for (int i = 0; i < 64; ++i) c[block][i] += part[i];
        }
    }
};

#else

struct Sums {
    int c[IN_B][64];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < IN_B * 64; ++i) c[i / 64][i % 64] = 0;
    }
    __device__ __forceinline__ void multiply(const byte* slot, int consumer) {
        word64 a = shared_matrix(slot + consumer * 64 * CHUNK);
        warpgroup_fence();
#pragma unroll
        for (int p = 0; p < IN_B; ++p) {
            word64 b = shared_matrix(slot + A_SLOT + p * TILE_N * CHUNK);
#pragma unroll
            for (int k = 0; k < CHUNK / 16; k += 2) warpgroup_multiply_bytes(c[p], a + k, b + k, true);
        }
        warpgroup_commit();
#pragma unroll
        for (int p = 0; p < IN_B; ++p) warpgroup_wait(c[p]);
    }
};

#endif

// Receives a tile of so many chunks.
__device__ __forceinline__ void receive(Sums& sums, const Ring& ring, int chunks, int consumer, Turn& turn) {
    sums.clear();
    for (int chunk = 0; chunk < chunks; ++chunk, turn.next()) {
        mbarrier_wait(ring.full + turn.slot, turn.parity);
        sums.multiply(ring.slots + turn.slot * SLOT, consumer);
        // For all of the warp: what its other lanes have read of an earlier tile's norms is past too.
        __syncwarp();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(ring.empty + turn.slot);
    }
}

}  // namespace warpgroups
