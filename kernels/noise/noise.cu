// The generator's noise z (B, Z).
//
//   uniform   low + (high - low) · u, u = (word >> 8) · 2^-24, the product and the sum rounded one after the other, so
//             that all backends have the same bits: 4·B·Z bytes
//   normal    Box and Muller's pairs of columns, in float64 and rounded once
//
// A thread has four neighbouring columns, which share a counter.

#include "philox.cuh"

__global__ void __launch_bounds__(256) noise_uniform(float* out, int B, int Z, float low, float width, DRAW_PARAMETERS) {
    Draw draw(DRAW_ARGUMENTS);
    int quads = divide_up(Z, 4);
    long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= (long long)B * quads) return;
    int row = (int)(at / quads), quad = (int)(at % quads);
    Words words = draw.words(row, quad);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        if (quad * 4 + j < Z)
            out[(long long)row * Z + quad * 4 + j] = add_rounded(multiply_rounded(uniform01(words.w[j]), width), low);
}

__global__ void __launch_bounds__(256) noise_normal(float* out, int B, int Z, DRAW_PARAMETERS) {
    Draw draw(DRAW_ARGUMENTS);
    int quads = divide_up(Z, 4);
    long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= (long long)B * quads) return;
    int row = (int)(at / quads), quad = (int)(at % quads);
    Words words = draw.words(row, quad);
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
        // From (0, 1], so that the logarithm is finite.
        double u = ((words.w[j] >> 8) + 1) * 5.9604644775390625e-8;
        double angle = 6.283185307179586 * ((words.w[j + 1] >> 8) * 5.9604644775390625e-8);
        double radius = sqrt(-2.0 * log(u));
        long long element = (long long)row * Z + quad * 4 + j;
        if (quad * 4 + j < Z) out[element] = (float)(radius * cos(angle));
        if (quad * 4 + j + 1 < Z) out[element + 1] = (float)(radius * sin(angle));
    }
}
