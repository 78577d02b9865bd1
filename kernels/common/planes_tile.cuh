// A tile of a matrix product of planes (planes.cuh) for tensor cores, sm_80 on.
//
//   C[m][n] = Σ_k A[m][k] · B[n][k], K along the rows of both
//
// An ldmatrix and a tensor core's step take 32 bytes along K, 16 halves or 32 bytes, in the same places, so one loop serves
// both:
//   HALVES  three products, added up outside the tensor cores every 64 of K, as those truncate: float32's error
//   BYTES   three products, each of whose sums is a 32-bit integer and exact where K is at most 33,025
//
// The defines are chosen in planes_tile.py.

#pragma once
#include "planes.cuh"

namespace planes {

constexpr int THREADS = WARPS_M * WARPS_N * 32;
constexpr int WARP_M = TILE_M / WARPS_M, WARP_N = TILE_N / WARPS_N, T_M = WARP_M / 16, T_N = WARP_N / 8;
static_assert(T_M * 16 * WARPS_M == TILE_M && T_N * 8 * WARPS_N == TILE_N, "16 x 8 must divide a warp's tile");
// Of the finished tile in float32.
constexpr int C_STRIDE = across_stride(TILE_N);

// Calls f(i, j, e) for a thread's elements of its warp's part of the tile.
template <class F>
__device__ __forceinline__ void each_element(F f) {
#pragma unroll
    for (int i = 0; i < T_M; ++i)
#pragma unroll
        for (int j = 0; j < T_N; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) f(i, j, e);
}

// A warp's part of the tile in HALVES.
struct Halves {
    // `part` has the sums of at most 64 of K: those are the tensor cores' own, here sums are rounded.
    float c[T_M][T_N][4], part[T_M][T_N][4];

    __device__ __forceinline__ void clear() {
        each_element([&](int i, int j, int e) { c[i][j][e] = part[i][j][e] = 0.0f; });
    }
    __device__ __forceinline__ void multiply(int i, const unsigned (&a)[IN_A][4], const unsigned (&b)[IN_B][T_N][2]) {
        // The small ones first.
#pragma unroll
        for (int j = 0; j < T_N; ++j) mma_half(part[i][j], a[IN_A - 1], b[0][j]);
#pragma unroll
        for (int j = 0; j < T_N; ++j) mma_half(part[i][j], a[0], b[1][j]);
#pragma unroll
        for (int j = 0; j < T_N; ++j) mma_half(part[i][j], a[0], b[0][j]);
    }
    __device__ __forceinline__ void promote() {
        each_element([&](int i, int j, int e) {
            c[i][j][e] += part[i][j][e];
            part[i][j][e] = 0.0f;
        });
    }
    __device__ __forceinline__ float sum(int i, int j, int e) const { return c[i][j][e]; }
};

// The same in BYTES; the sum is a multiple of the least digits' product, exactly.
struct Bytes {
    int c[IN_B][T_M][T_N][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int p = 0; p < IN_B; ++p) each_element([&](int i, int j, int e) { c[p][i][j][e] = 0; });
    }
    __device__ __forceinline__ void multiply(int i, const unsigned (&a)[IN_A][4], const unsigned (&b)[IN_B][T_N][2]) {
#pragma unroll
        for (int p = 0; p < IN_B; ++p)
#pragma unroll
            for (int j = 0; j < T_N; ++j) mma_bytes(c[p][i][j], a[0], b[p][j]);
    }
    __device__ __forceinline__ void promote() {}
    __device__ __forceinline__ long long sum(int i, int j, int e) const {
        return ((long long)c[0][i][j][e] << 16) + ((long long)c[1][i][j][e] << 8) + c[IN_B - 1][i][j][e];
    }
};

template <bool OF_HALVES>
struct Choice {
    typedef Halves Sums;
};
template <>
struct Choice<false> {
    typedef Bytes Sums;
};
typedef Choice<ARITHMETIC == HALVES>::Sums Sums;

// Copies X rows, from x on, of a chunk of every plane of an operand.
template <int IN, int X>
__device__ __forceinline__ void copy(const Matrix& matrix, byte* slot, int x, int chunk) {
    constexpr int SIXTEENS = IN * X * (CHUNK / 16);
#pragma unroll
    for (int i = 0; i < (SIXTEENS + THREADS - 1) / THREADS; ++i) {
        int q = (int)threadIdx.x + i * THREADS;
        if (SIXTEENS % THREADS == 0 || q < SIXTEENS) {
            int row = q / (CHUNK / 16), in_plane = x + row % X;
            bool inside = in_plane < matrix.rows;
            const byte* at = matrix.at(row / X, chunk, in_plane) + q % (CHUNK / 16) * 16;
            copy_async_16(slot + q * 16, inside ? at : matrix.data, inside);
        }
    }
}

// The sixteen bytes of a row of a slot, where the copy put them. Rows are those of tiles that begin with a multiple of 8.
__device__ __forceinline__ const float* sixteen(const byte* slot, int row, int number) {
    return (const float*)(slot + row * CHUNK + swizzled_64(row, number) * 16);
}

__device__ __forceinline__ void multiply(Sums& sums, const byte* a_slot, const byte* b_slot) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int m = warp / WARPS_N * WARP_M, n = warp % WARPS_N * WARP_N;
#pragma unroll
    for (int k = 0; k < CHUNK / 16; k += 2) {
        unsigned b[IN_B][T_N][2];
#pragma unroll
        for (int p = 0; p < IN_B; ++p)
#pragma unroll
            for (int j = 0; j < T_N; j += 2) {
                // Eight columns twice where their number is odd.
                unsigned two[4];
                int row = p * TILE_N + n + minimum(j + lane / 16, T_N - 1) * 8 + lane % 8;
                load_blocks(two, sixteen(b_slot, row, k + lane / 8 % 2));
                b[p][j][0] = two[0], b[p][j][1] = two[1];
                if (j + 1 < T_N) b[p][j + 1 < T_N ? j + 1 : j][0] = two[2], b[p][j + 1 < T_N ? j + 1 : j][1] = two[3];
            }
#pragma unroll
        for (int i = 0; i < T_M; ++i) {
            unsigned a[IN_A][4];
#pragma unroll
            for (int p = 0; p < IN_A; ++p)
                load_blocks(a[p], sixteen(a_slot, p * TILE_M + m + i * 16 + lane % 16, k + lane / 16));
            sums.multiply(i, a, b);
        }
    }
}

// Computes the tile at (m, n) and calls f(row, column, sum, sum of the next column) for this thread's elements of it, places
// within the tile. A barrier comes before f, so `memory` may be used again. A barrier before the next tile is the caller's.
template <class F>
__device__ __forceinline__ void product(const Matrix& a, const Matrix& b, int m, int n, byte* memory, F f) {
    constexpr int A_SLOT = IN_A * TILE_M * CHUNK, SLOT = A_SLOT + IN_B * TILE_N * CHUNK;
    static_assert(STAGES >= 2 && STAGES * SLOT <= TILE_BYTES && TILE_M * C_STRIDE * 4 <= TILE_BYTES, "TILE_BYTES is too small");
    int count = a.chunks;
    Sums sums;
    sums.clear();
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < count) {
            copy<IN_A, TILE_M>(a, memory + s * SLOT, m, s);
            copy<IN_B, TILE_N>(b, memory + s * SLOT + A_SLOT, n, s);
        }
        copy_async_commit();
    }
    for (int s = 0; s < count; ++s) {
        copy_async_wait<STAGES - 2>();
        // Slot s is there for all, and nobody reads that of s - 1 any more.
        __syncthreads();
        int next = s + STAGES - 1;
        if (next < count) {
            byte* slot = memory + next % STAGES * SLOT;
            copy<IN_A, TILE_M>(a, slot, m, next);
            copy<IN_B, TILE_N>(b, slot + A_SLOT, n, next);
        }
        copy_async_commit();
        const byte* slot = memory + s % STAGES * SLOT;
        multiply(sums, slot, slot + A_SLOT);
        if (s % 2 == 1 || s + 1 == count) sums.promote();
    }
    copy_async_wait<0>();
    __syncthreads();
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < T_M; ++i)
#pragma unroll
        for (int j = 0; j < T_N; ++j)
#pragma unroll
            for (int e = 0; e < 4; e += 2)
                f(warp / WARPS_N * WARP_M + i * 16 + lane / 4 + e * 4, warp % WARPS_N * WARP_N + j * 8 + lane % 4 * 2,
                  sums.sum(i, j, e), sums.sum(i, j, e + 1));
}

}  // namespace planes
