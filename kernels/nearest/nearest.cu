// The nearest neighbour: index[m] = the lowest n that minimises ‖q_m - s_n‖², by direct differences in float64.
//
// queries (M, D), samples (N, D): 3·M·N·D FLOP in float64, and each tile of 32 x 32 reads (32 + 32)·D elements. Not by a
// product and norms, which would be faster and could name another of two neighbours that are nearly as near.
//
// A block takes 32 queries through every gridDim.y-th tile of 32 samples; a second launch compares what the blocks found.

#include "distances.cuh"

using distances::SIDE;

struct Found {
    double distance;
    long long index;

    __device__ __forceinline__ void take(double other, long long at) {
        if (other < distance || (other == distance && at < index)) {
            distance = other;
            index = at;
        }
    }
};

// 256 threads: a thread has 2 x 2 of the tile's pairs.
template <class Q, class S>
__global__ void __launch_bounds__(256)
    nearest_of_shard(const Q* __restrict__ queries, const S* __restrict__ samples, int M, long long N, int D,
                     double* __restrict__ distances, long long* __restrict__ indices) {
    DYNAMIC_SHARED(memory);
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    long long first_query = blockIdx.x * (long long)SIDE;
    Found found[2] = {{INFINITE, 0}, {INFINITE, 0}};
    for (long long first = blockIdx.y * (long long)SIDE; first < N; first += gridDim.y * (long long)SIDE) {
        double sums[2][2];
        distances::of_tile(queries, samples, first_query, first, M, N, D, (double*)memory, sums);
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                long long n = first + x + 16 * j;
                if (n < N) found[i].take(sums[i][j], n);
            }
    }
    __syncthreads();
    // Sixteen threads have a query's candidates.
    double* best = (double*)memory;
    long long* at = (long long*)(best + SIDE * 16);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        best[(y + 16 * i) * 16 + x] = found[i].distance;
        at[(y + 16 * i) * 16 + x] = found[i].index;
    }
    __syncthreads();
    if (threadIdx.x < SIDE && first_query + threadIdx.x < M) {
        Found least = {best[threadIdx.x * 16], at[threadIdx.x * 16]};
        for (int i = 1; i < 16; ++i) least.take(best[threadIdx.x * 16 + i], at[threadIdx.x * 16 + i]);
        long long place = blockIdx.y * (long long)M + first_query + threadIdx.x;
        distances[place] = least.distance;
        indices[place] = least.index;
    }
}

__global__ void __launch_bounds__(256) nearest_of_all(const double* __restrict__ distances,
                                                      const long long* __restrict__ indices, int M, int num_shards,
                                                      long long* __restrict__ out) {
    int m = blockIdx.x * 256 + threadIdx.x;
    if (m >= M) return;
    Found least = {distances[m], indices[m]};
    for (int s = 1; s < num_shards; ++s) least.take(distances[(long long)s * M + m], indices[(long long)s * M + m]);
    out[m] = least.index;
}
