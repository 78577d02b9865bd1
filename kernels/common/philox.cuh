// Philox4x32-10 and the layout of its counters, as kernels/common/philox.py has it.
//
// counter = (column / 4, row, step, stream), key = the seed's low and high word, word = column mod 4.

#pragma once
#include "device.cuh"

struct Words {
    unsigned w[4];
};

__device__ __forceinline__ Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// What decides the words of a (rows, columns) array. The step is read when the kernel runs, from the device where
// `step_at` is given.
struct Draw {
    unsigned k0, k1, stream, row_offset, step;

    __device__ __forceinline__ Draw(unsigned k0, unsigned k1, unsigned stream, unsigned row_offset,
                                    const long long* step_at, unsigned step)
        : k0(k0), k1(k1), stream(stream), row_offset(row_offset), step(step_at ? (unsigned)*step_at : step) {}

    // Words of the columns 4·quad … 4·quad + 3 of a row.
    __device__ __forceinline__ Words words(int row, int quad) const {
        return philox((unsigned)quad, row_offset + (unsigned)row, step, stream, k0, k1);
    }
};

// What a Draw is made of, as a kernel's parameters.
#define DRAW_PARAMETERS \
    unsigned k0, unsigned k1, unsigned stream, unsigned row_offset, const long long* step_at, unsigned step
#define DRAW_ARGUMENTS k0, k1, stream, row_offset, step_at, step

// A dropout mask: kept where (word >> 8) < threshold, kept elements times `scale`.
struct Mask {
    Draw draw;
    unsigned threshold;
    float scale;

    __device__ __forceinline__ float one(float x, unsigned word) const {
        // Chosen, not multiplied by 0, which would keep a NaN.
        return (word >> 8) < threshold ? x * scale : 0.0f;
    }
};

#define MASK_PARAMETERS DRAW_PARAMETERS, unsigned threshold, float scale
#define MASK_ARGUMENTS \
    { Draw(DRAW_ARGUMENTS), threshold, scale }

__device__ __forceinline__ float uniform01(unsigned word) { return (float)(word >> 8) * 5.9604644775390625e-8f; }
