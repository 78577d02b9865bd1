// Dropout masks: packed, for the layers' kernels, which read them on the way into a tile: drawn there, every column of
// tiles would draw all of its rows' words again. And by themselves, for whoever wants one.
//
//   bits    out (B, ceil(I / 8)) = the mask, eight columns a byte, the first of them its highest bit, what is beyond I 0
//   mask    out (B, I) = [(word(b, i) >> 8) < threshold]: B·I bytes, about 20 integer operations an element
//   apply   out (B, I) = mask · x · scale: 8·B·I bytes; out may be x
//
// A thread has four neighbouring columns, which share a counter, or eight, of two.

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

__global__ void __launch_bounds__(256) dropout_bits(byte* out, int B, int I, MASK_PARAMETERS) {
    Draw draw(DRAW_ARGUMENTS);
    int bytes = divide_up(I, 8);
    long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= (long long)B * bytes) return;
    int row = (int)(at / bytes), column = (int)(at % bytes) * 8;
    unsigned kept = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        Words words = draw.words(row, column / 4 + half);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (column + half * 4 + j < I && (words.w[j] >> 8) < threshold) kept |= 128u >> (half * 4 + j);
    }
    out[at] = (byte)kept;
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
