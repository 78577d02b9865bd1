// Dropout masks alone: for whoever wants one by itself. Layers draw theirs inside their own kernels.
//
//   mask    out (B, I) = [(word(b, i) >> 8) < threshold]: B·I bytes, about 20 integer operations an element
//   apply   out (B, I) = mask · x · scale: 8·B·I bytes; out may be x
//
// A thread has four neighbouring columns, which share a counter.

#include "philox.cuh"

__global__ void __launch_bounds__(256) dropout_mask(byte* out, int B, int I, MASK_PARAMETERS) {
    Draw draw(DRAW_ARGUMENTS);
    int quads = divide_up(I, 4);
    long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= (long long)B * quads) return;
    int row = (int)(at / quads), quad = (int)(at % quads);
    Words words = draw.words(row, quad);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        if (quad * 4 + j < I) out[(long long)row * I + quad * 4 + j] = (words.w[j] >> 8) < threshold;
}

__global__ void __launch_bounds__(256) dropout_apply(const float* x, float* out, int B, int I, MASK_PARAMETERS) {
    Mask mask MASK_ARGUMENTS;
    int quads = divide_up(I, 4);
    long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= (long long)B * quads) return;
    int row = (int)(at / quads), quad = (int)(at % quads);
    Words words = mask.draw.words(row, quad);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        if (quad * 4 + j < I) {
            long long element = (long long)row * I + quad * 4 + j;
            out[element] = mask.one(x[element], words.w[j]);
        }
}
