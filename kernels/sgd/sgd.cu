// Stochastic gradient descent: v ← momentum · v - rate · g, W ← W + v; and the greatest norm of a column.
//
//   update         W, v, g (n): 20·n bytes, 4·n FLOP
//   clip_columns   W (I, O) ← W · clip(‖w_o‖, 0, c) / (1e-7 + ‖w_o‖): 12·I·O bytes (W is read twice), 4·I·O FLOP
//
// A block of clip_columns has 32 columns by 8 rows of threads; rows are added in a fixed order.

#include "rates.cuh"

__global__ void __launch_bounds__(256) sgd_update(float* __restrict__ W, float* __restrict__ v, const float* __restrict__ g,
                                                  long long n, RATE_PARAMETERS) {
    if (skip && *skip) return;
    long long i = blockIdx.x * 256ll + threadIdx.x;
    if (i < n) mark_unless(move(W[i], v[i], g[i], RATE, MOMENTUM), skip);
}

__global__ void __launch_bounds__(256) sgd_clip_columns(float* __restrict__ W, int I, int O, float max_col_norm,
                                                        const unsigned* skip) {
    if (skip && *skip) return;
    DYNAMIC_SHARED(memory);
    float* sums = (float*)memory;
    int lane = threadIdx.x % 32, part = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (column < O)
        for (int i = part; i < I; i += 8) {
            float w = W[(long long)i * O + column];
            sum = fmaf(w, w, sum);
        }
    sums[threadIdx.x] = sum;
    __syncthreads();
    sum = sums[lane];
    for (int p = 1; p < 8; ++p) sum += sums[p * 32 + lane];
    float norm = sqrtf(sum);
    // A NaN passes on, as in np.clip.
    float factor = (norm > max_col_norm ? max_col_norm : norm) / (1e-7f + norm);
    if (column < O)
        for (int i = part; i < I; i += 8) W[(long long)i * O + column] *= factor;
}
