// The gradient of the biases of a convolution of maxout units.
//
//   db[u·P + p] = Σ row_scale[b] · dy[b, u, i, j] · [p = piece[b, u, i, j]];  or at once v ← momentum · v - rate · db,
//   b ← b + v
//
// A block has a piece and reads its unit's 5·B·H'·W' bytes: P times as many as there are. Sums are double, as one has
// hundreds of thousands of summands.

#include "rates.cuh"

constexpr int THREADS = 256;

template <bool UPDATE>
__global__ void __launch_bounds__(THREADS)
    conv_maxout_biases(const float* __restrict__ dy, const byte* __restrict__ pieces,
                       const float* __restrict__ row_scale, float* __restrict__ b, float* __restrict__ vb, int B, int U,
                       int P, int num_places, RATE_PARAMETERS) {
    DYNAMIC_SHARED(memory);
    double* sums = (double*)memory;
    if (skip && *skip) return;
    int unit = (int)blockIdx.x / P, piece = (int)blockIdx.x % P;
    double sum = 0.0;
    for (int image = 0; image < B; ++image) {
        long long first = ((long long)image * U + unit) * num_places;
        float scale = row_scale ? row_scale[image] : 1.0f;
        for (int place = threadIdx.x; place < num_places; place += THREADS)
            if (pieces[first + place] == piece) sum += (double)(dy[first + place] * scale);
    }
    sums[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) {
        if constexpr (UPDATE) {
            mark_unless(move(b[blockIdx.x], vb[blockIdx.x], (float)sums[0], RATE, MOMENTUM), skip);
        } else {
            b[blockIdx.x] = (float)sums[0];
        }
    }
}
