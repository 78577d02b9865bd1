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

// What decides a (rows, columns) array of words: passed to kernels as it is.
struct Draw {
    unsigned k0, k1, stream, row_offset;
    const long long* step;    // read when the kernel runs; its low 32 bits count

    // Words of the columns 4·quad … 4·quad + 3 of a row.
    __device__ __forceinline__ Words words(unsigned step_now, int row, int quad) const {
        return philox((unsigned)quad, row_offset + (unsigned)row, step_now, stream, k0, k1);
    }
};

__device__ __forceinline__ float uniform01(unsigned word) { return (float)(word >> 8) * 5.9604644775390625e-8f; }
