// The two players' losses, their gradients, and the report's sums, from D's logits a; all of it in float64, in one block.
//
//   D:  ½ [mean softplus(-a_real) + mean softplus(a_generated)];  da_real = -½ σ(-a) / B,  da_generated = ½ σ(a) / B
//   G:  -sign · mean softplus(sign · a_generated);  da = -σ(sign · a) / B;  sign is -1 non-saturating, +1 minimax
//
// A few hundred numbers: latency is all there is. A thread adds its rows in order, then halves of the block meet: the
// same order every time.

#include "device.cuh"

constexpr int LOSS_THREADS = 256;

__device__ __forceinline__ double softplus(double a) { return a > 0.0 ? a + log1p(exp(-a)) : log1p(exp(a)); }
// Without losing a small result to cancellation.
__device__ __forceinline__ double sigmoid(double a) { return exp(-softplus(-a)); }

// The block's sums, the same in all threads. `memory` holds LOSS_THREADS of each.
template <int COUNT>
__device__ __forceinline__ void add_up(double (&sums)[COUNT], double* memory) {
    int thread = threadIdx.x;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) memory[i * LOSS_THREADS + thread] = sums[i];
    for (int half = LOSS_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half)
#pragma unroll
            for (int i = 0; i < COUNT; ++i)
                memory[i * LOSS_THREADS + thread] += memory[i * LOSS_THREADS + thread + half];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; ++i) sums[i] = memory[i * LOSS_THREADS];
}

// out_discriminator (num_rows), out_generator (num_generated), sums (4) and non_finite (1) may be null.
__global__ void __launch_bounds__(LOSS_THREADS)
    gan_loss(const float* __restrict__ logits, int num_real, int num_generated, double sign,
             float* __restrict__ out_discriminator, float* __restrict__ out_generator, double* __restrict__ values,
             double* __restrict__ sums, long long* __restrict__ non_finite) {
    DYNAMIC_SHARED(memory);
    // Sums of: D's loss on real rows, on generated ones, D(x), D(G(z)), G's loss.
    double totals[5] = {0.0, 0.0, 0.0, 0.0, 0.0};
    if (out_discriminator)
        for (int b = threadIdx.x; b < num_real; b += LOSS_THREADS) {
            double a = logits[b];
            totals[0] += softplus(-a);
            totals[2] += sigmoid(a);
            out_discriminator[b] = (float)(-0.5 * sigmoid(-a) / num_real);
        }
    for (int b = threadIdx.x; b < num_generated; b += LOSS_THREADS) {
        double a = logits[num_real + b];
        if (out_discriminator) {
            totals[1] += softplus(a);
            totals[3] += sigmoid(a);
            out_discriminator[num_real + b] = (float)(0.5 * sigmoid(a) / num_generated);
        }
        if (out_generator) {
            totals[4] += softplus(sign * a);
            out_generator[b] = (float)(-sigmoid(sign * a) / num_generated);
        }
    }
    add_up(totals, (double*)memory);
    if (threadIdx.x == 0) {
        double four[4] = {0.0, 0.0, 0.0, 0.0};
        if (out_discriminator) {
            four[0] = 0.5 * (totals[0] / num_real + totals[1] / num_generated);
            four[2] = totals[2] / num_real;
            four[3] = totals[3] / num_generated;
        }
        if (out_generator) four[1] = -sign * totals[4] / num_generated;
        for (int i = 0; i < 4; ++i) {
            values[i] = four[i];
            if (sums) sums[i] += four[i];
            if (non_finite && !is_finite(four[i])) *non_finite = 1;
        }
        // Also where an update before this loss has left its mark.
        if (non_finite && *non_finite) *non_finite = 1;
    }
}
