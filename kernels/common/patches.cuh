// Images as operands of a product: the patches that a kernel meets, gathered on the way into the tile.
//
// Sizes are template arguments, from a kernel's defines: so a division of an index is a multiplication.

#pragma once
#include "layer.cuh"

namespace patches {

// The place of a column among the places of all images, row by row; `next` is the column after it.
template <int OUT_H, int OUT_W>
struct Place {
    int image, i, j;

    __device__ __forceinline__ explicit Place(int column)
        : image(column / (OUT_H * OUT_W)),
          i(column / OUT_W % OUT_H),
          j(column % OUT_W) {}
    __device__ __forceinline__ void next() {
        if (++j < OUT_W) return;
        j = 0;
        if (++i < OUT_H) return;
        i = 0;
        ++image;
    }
};

// The matrix (C·K·K, B·H'·W') of patches of x (B, C, H, W): row (c, k, l), column (b, i, j) is the pixel
// (i·STEP + k - BORDER, j·STEP + l - BORDER) of channel c of image b, 0 outside of it. A quad is four neighbouring places:
// neighbouring pixels, but where a row of places ends.
template <bool K_FAST_, int C, int H, int W, int K, int STEP, int BORDER, int OUT_H, int OUT_W>
struct Patches {
    static constexpr bool K_FAST = K_FAST_, ASYNC = false, CLAMPED = false;
    static constexpr int ROWS = C * K * K;
    typedef float4 Raw;
    const float* x;
    int num_images;

    __device__ __forceinline__ int columns() const { return 0; }
    __device__ __forceinline__ void copy(float*, tile::Quad) const {}
    __device__ __forceinline__ Raw fetch(tile::Quad quad) const {
        int row = quad.row0 + quad.row, column = quad.column0 + quad.column;
        float q[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (row < ROWS) {
            int c = row / (K * K), k = row / K % K, l = row % K;
            Place<OUT_H, OUT_W> place(column);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                int h = place.i * STEP + k - BORDER, w = place.j * STEP + l - BORDER;
                if (place.image < num_images && h >= 0 && h < H && w >= 0 && w < W)
                    q[e] = x[((long long)place.image * C + c) * (H * W) + h * W + w];
                place.next();
            }
        }
        return make_float4(q[0], q[1], q[2], q[3]);
    }
    __device__ __forceinline__ float4 finish(Raw raw, tile::Quad) const { return raw; }
};

// Calls write(row, column, sum) for every element of this block's part of the tile, neighbouring rows in neighbouring
// threads: rows are places of images, which lie one after the other.
template <class Write>
__device__ __forceinline__ void each_element(const tile::Whole& whole, int num_rows, int num_columns, Write write) {
    int rows = minimum(whole.row_end, num_rows) - whole.row_begin;
    if (rows <= 0) return;
    for (int q = (int)threadIdx.x; q < rows * minimum(TILE_N, num_columns); q += tile::THREADS) {
        int row = whole.row_begin + q % rows, column = q / rows;
        write(row, column, whole.at(row, column));
    }
}

// out (B, C, H·W) = the product of places (rows, M of them) and channels (columns), image by image; times scale[b] where
// it is given.
template <int C, int PLACES, class A, class B>
__device__ __forceinline__ void images(const A& a, const B& b, float* out, const float* scale, int num_images, int K,
                                       float* partials, unsigned* tickets) {
    DYNAMIC_SHARED(memory);
    float* shared = (float*)memory;
    int m = blockIdx.y * TILE_M, n = blockIdx.x * TILE_N;
    tile::NoColumnSums none;
    tile::Product<A, B>::run(a, b, m, n, K, shared, none);
    tile::Whole whole;
    if (!tile::meet(whole, shared, partials, tickets, (unsigned*)(shared + SHARED_FLOATS))) return;
    each_element(whole, num_images * PLACES - m, C - n, [&](int row, int column, float sum) {
        int image = (m + row) / PLACES, place = (m + row) % PLACES;
        out[((long long)image * C + n + column) * PLACES + place] = scale ? sum * scale[image] : sum;
    });
    tile::part();
}

// W's gradient (M, N), a product over K places; UPDATE: the step of W and its velocity takes the gradient's place.
template <bool UPDATE, class A, class B>
__device__ __forceinline__ void weights(const A& a, const B& b, float* W, float* vW, int M, int N, int K, float rate,
                                        float momentum, unsigned* skip, float* partials, unsigned* tickets) {
    DYNAMIC_SHARED(memory);
    float* shared = (float*)memory;
    int m = blockIdx.y * TILE_M, n = blockIdx.x * TILE_N;
    tile::NoColumnSums none;
    tile::Product<A, B>::run(a, b, m, n, K, shared, none);
    tile::Whole whole;
    if (!tile::meet(whole, shared, partials, tickets, (unsigned*)(shared + SHARED_FLOATS))) return;
    layer::write_weights<UPDATE>(whole, W, vW, m, n, M, N, rate, momentum, skip);
    tile::part();
}

}  // namespace patches
