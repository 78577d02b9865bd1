// What the layers of linear and of maxout units share: the dropped input, and what becomes of gradients.

#pragma once
#include "gemm_tile.cuh"
#include "rates.cuh"

namespace layer {

// Tiles begin at the first of a byte's columns.
static_assert(TILE_M % 8 == 0 && TILE_N % 8 == 0 && TILE_K % 8 == 0, "");

// A mask that was drawn before (dropout.cu), eight columns a byte, the first of them its highest bit; rows of whole bytes.
struct Kept {
    const byte* bits;
    float scale;
    int bytes_a_row;

    // The four bits of a quad in the low half of what is given; the first column's is 8.
    __device__ __forceinline__ unsigned four(tile::Quad quad) const {
        const byte* tile = bits + ((long long)quad.row0 * bytes_a_row + (quad.column0 >> 3));
        return (unsigned)tile[quad.row * bytes_a_row + (quad.column >> 3)] >> (~quad.column & 4);
    }
    __device__ __forceinline__ float4 apply(float4 x, unsigned four) const {
        // Chosen, not multiplied by 0, which would keep a NaN.
        return make_float4(four & 8u ? x.x * scale : 0.0f, four & 4u ? x.y * scale : 0.0f,
                           four & 2u ? x.z * scale : 0.0f, four & 1u ? x.w * scale : 0.0f);
    }
};

#define KEPT_PARAMETERS const byte *__restrict__ kept, float scale
#define KEPT_ARGUMENTS(num_columns) \
    { kept, scale, divide_up(num_columns, 8) }

// A layer's input x (B, I), dropped on the way into the tile.
template <bool K_FAST_>
struct Dropped {
    static constexpr bool K_FAST = K_FAST_, ASYNC = false, CLAMPED = ALIGNED;
    struct Raw {
        float4 x;
        unsigned four;
    };
    tile::Matrix x;
    Kept kept;

    __device__ __forceinline__ int extent() const { return K_FAST ? x.rows : x.columns; }
    __device__ __forceinline__ int columns() const { return x.columns; }
    __device__ __forceinline__ void copy(float*, tile::Quad) const {}
    __device__ __forceinline__ Raw fetch(tile::Quad quad) const {
        bool inside = quad.inside;
        if (!CLAMPED) inside &= quad.row0 + quad.row < x.rows && quad.column0 + quad.column < x.columns;
        return {x.load(quad), inside ? kept.four(quad) : 0u};
    }
    __device__ __forceinline__ float4 finish(Raw raw, tile::Quad) const { return kept.apply(raw.x, raw.four); }
};

template <bool DROPOUT, bool K_FAST>
struct InputOf {
    typedef tile::Plain<K_FAST> Type;
    __device__ __forceinline__ static Type make(tile::Matrix x, Kept) { return {x}; }
};
template <bool K_FAST>
struct InputOf<true, K_FAST> {
    typedef Dropped<K_FAST> Type;
    __device__ __forceinline__ static Type make(tile::Matrix x, Kept kept) { return {x, kept}; }
};

// dx = mask(dz Wᵀ) / keep: a product of dz (B, O), K_FAST, and W (I, O), K_FAST; N is I.
template <bool DROPOUT, class Gradient>
__device__ __forceinline__ void backward_input(const Gradient& dz, const float* W, float* dx, int B, int I, int O, Kept kept,
                                               float* partials, unsigned* tickets) {
    DYNAMIC_SHARED(memory);
    float* shared = (float*)memory;
    int m = blockIdx.y * TILE_M, n = blockIdx.x * TILE_N;
    tile::Plain<true> weights{tile::Matrix(W, I, O)};
    tile::NoColumnSums none;
    tile::Product<Gradient, tile::Plain<true>>::run(dz, weights, m, n, O, shared, none);
    tile::Whole whole;
    if (!tile::meet(whole, shared, partials, tickets, (unsigned*)(shared + SHARED_FLOATS))) return;
    bool aligned = tile::is_aligned(dx, I);
    tile::each_quad(whole, B - m, I - n, [&](int row, int column, float4 sum) {
        if (DROPOUT) sum = kept.apply(sum, kept.four(tile::Quad::of(m, n, row, column, I)));
        tile::write_quad(dx, m + row, n + column, I, aligned, sum);
    });
    tile::part();
}

// A tile of W's gradient (I, O); UPDATE: the step of W and its velocity takes its place.
template <bool UPDATE>
__device__ __forceinline__ void write_weights(const tile::Whole& whole, float* W, float* vW, int m, int n, int I, int O,
                                              float rate, float momentum, unsigned* skip) {
    bool aligned = tile::is_aligned(W, O) && (!UPDATE || tile::is_aligned(vW, O));
    if constexpr (UPDATE) {
        bool finite = true;
        tile::Matrix of_W(W, I, O), of_v(vW, I, O);
        of_W.aligned = of_v.aligned = aligned;
        // Some quads at a time: their loads are under way together, where one's stores would hold up the next one's loads.
        constexpr int TOGETHER = 4;
        float4 w[TOGETHER], v[TOGETHER];
        tile::each_quads<TOGETHER>(
            whole, I - m, O - n,
            [&](int i, int row, int column) {
                w[i] = of_W.load(tile::Quad::of(m, n, row, column, O));
                v[i] = of_v.load(tile::Quad::of(m, n, row, column, O));
            },
            [&](int i, int row, int column, float4 g) {
                finite &= move(w[i].x, v[i].x, g.x, rate, momentum);
                finite &= move(w[i].y, v[i].y, g.y, rate, momentum);
                finite &= move(w[i].z, v[i].z, g.z, rate, momentum);
                finite &= move(w[i].w, v[i].w, g.w, rate, momentum);
                tile::write_quad(vW, m + row, n + column, O, aligned, v[i]);
                tile::write_quad(W, m + row, n + column, O, aligned, w[i]);
            });
        mark_unless(finite, skip);
    } else {
        tile::each_quad(whole, I - m, O - n, [&](int row, int column, float4 g) {
            tile::write_quad(W, m + row, n + column, O, aligned, g);
        });
    }
}

// dW = x'ᵀ dz, db = Σ_B dz: a product of x' (B, I) and dz (B, O), both across K; M is I, N is O. UPDATE: the step of W, b
// and their velocities takes the place of dW and db.
template <bool UPDATE, class Input, class Gradient>
__device__ __forceinline__ void backward_weights(const Input& x, const Gradient& dz, float* W, float* b, float* vW,
                                                 float* vb, int B, int I, int O, float rate, float momentum,
                                                 unsigned* skip) {
    DYNAMIC_SHARED(memory);
    float* shared = (float*)memory;
    int m = blockIdx.y * TILE_M, n = blockIdx.x * TILE_N;
    typedef tile::Product<Input, Gradient> Product;
    tile::ColumnSums<typename Product::SlotsB> sums;
    Product::run(x, dz, m, n, B, shared, sums);
    tile::Whole whole;
    static_assert(SPLITS == 1 || sizeof(Input) == 0, "the batch is not split: db is one block's sum");
    tile::meet(whole, shared, nullptr, nullptr, nullptr);
    write_weights<UPDATE>(whole, W, vW, m, n, I, O, rate, momentum, skip);
    int column = n + threadIdx.x;
    if (blockIdx.y == 0 && threadIdx.x < TILE_N && column < O) {
        if constexpr (UPDATE) {
            mark_unless(move(b[column], vb[column], sums.sum, rate, momentum), skip);
        } else {
            b[column] = sums.sum;
        }
    }
}

}  // namespace layer
