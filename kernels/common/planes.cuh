// How rows lie in planes of half-precision numbers, or of bytes, as tensor cores are to read them.
//
// (planes, chunks, rows, 64 bytes): K in chunks of 64 bytes, 0 beyond the numbers. The four sixteens of a row are swizzled
// as in shared memory (swizzled_64), where a tile comes as it lies: some rows of a chunk are one piece.
//   HALVES  two planes each, a number and what rounding it to half precision has left over
//   BYTES   digits: one plane of A, and three of B, of numbers with 24 bits, the highest first

#pragma once
#include "device.cuh"

#define HALVES 3
#define BYTES 4

namespace planes {

constexpr int CHUNK = 64, WORDS = CHUNK / 4;
// What products and norms of bytes are multiples of: a 255th of a (2^24 - 1)th.
constexpr double HIGHEST = 16777215.0, UNIT = 1.0 / (255.0 * HIGHEST);

#ifdef ARITHMETIC
// Planes of A and of B, and what a row's norm is kept as.
constexpr int IN_A = ARITHMETIC == HALVES ? 2 : 1, IN_B = ARITHMETIC == HALVES ? 2 : 3;
#if ARITHMETIC == HALVES
typedef float Norm;
#else
typedef long long Norm;
#endif
#endif

struct Matrix {
    const byte* data;
    int rows, chunks;

    __device__ __forceinline__ const byte* at(int plane, int chunk, int row) const {
        return data + (((long long)plane * chunks + chunk) * rows + row) * CHUNK;
    }
};

// Where a row's word w of a plane is, in words.
__device__ __forceinline__ long long place(int plane, int w, int row, int rows, int chunks) {
    int sixteen = swizzled_64(row, w % WORDS / 4);
    return (((long long)plane * chunks + w / WORDS) * rows + row) * WORDS + sixteen * 4 + w % 4;
}

}  // namespace planes
