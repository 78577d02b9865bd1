// Squared distances by direct differences in float64: exact where a product's cancellation would not be.

#pragma once
#include "device.cuh"

namespace distances {

// A block of 256 threads has 32 x 32 pairs, 16 of D's columns at a time; a thread has the pairs (y + 16 i, x + 16 j) with
// x = thread % 16 and y = thread / 16.
constexpr int SIDE = 32, DEPTH = 16, STRIDE = DEPTH + 1;
// Doubles of shared memory that `of_tile` needs.
constexpr int MEMORY = 2 * SIDE * STRIDE;

// The distances of a tile: queries (M, D) from first_query on, samples (N, D) from `first` on; what lies outside counts as
// 0. It begins with a barrier, so `memory` may have been anything before.
template <class Q, class S>
__device__ __forceinline__ void of_tile(const Q* queries, const S* samples, long long first_query, long long first, int M,
                                        long long N, int D, double* memory, double (&pairs)[2][2]) {
    double* of_queries = memory;
    double* of_samples = memory + SIDE * STRIDE;
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j) pairs[i][j] = 0.0;
    for (int d = 0; d < D; d += DEPTH) {
        __syncthreads();
        for (int i = threadIdx.x; i < SIDE * DEPTH; i += 256) {
            int row = i / DEPTH, column = i % DEPTH;
            bool in_D = d + column < D;
            long long m = first_query + row, n = first + row;
            of_queries[row * STRIDE + column] = in_D && m < M ? (double)queries[m * D + d + column] : 0.0;
            of_samples[row * STRIDE + column] = in_D && n < N ? (double)samples[n * D + d + column] : 0.0;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; ++k)
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    double difference = of_queries[(y + 16 * i) * STRIDE + k] - of_samples[(x + 16 * j) * STRIDE + k];
                    pairs[i][j] += difference * difference;
                }
    }
}

}  // namespace distances
