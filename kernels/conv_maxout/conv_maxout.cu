// A convolution of maxout units, stride 1: forward, and backward to everything.
//
//   forward          y (B, U, H', W') = max_p z, z[b, u·P + p, i, j] = b[u·P + p] + Σ x'[b, c, i + k - pad, j + l - pad] ·
//                    W[c, k, l, u·P + p]; pieces (B, U, H', W') uint8 = the lowest p that attains it
//   backward_input   dx'[b, c, m, n] = row_scale[b] · Σ dz[b, u·P + p, m - k + pad, n - l + pad] · W[c, k, l, u·P + p],
//                    dz[b, u·P + p, i, j] = dy[b, u, i, j] · [p = piece[b, u, i, j]]
//   backward_weights dW[c, k, l, u·P + p] = Σ x'[b, c, i + k - pad, j + l - pad] · row_scale[b] · dz[b, u·P + p, i, j];
//                    or at once v ← momentum · v - rate · dW, W ← W + v
//   biases           db[u·P + p] = Σ row_scale[b] · dz, or the same step of b
//
// Each but the last is one product over the common tile (gemm_tile.cuh), of 2·B·H'·W'·C·K·K·U·P FLOP (backward_input:
// 2·B·H·W·C·K·K·U·P), of which one in P is no product by 0 in backward's. It is an implicit one: patches of x, of
// C·K·K·B·H'·W' elements, and z and dz, P times as large as y, are never in global memory. An element of x is loaded up
// to K·K times for every column of tiles, mostly from the L1 and L2 caches; so its dropout is not drawn here but in one
// pass before (dropout.cu), whose result x' is no larger than x. Bytes, each array once: forward 4 (B·C·H·W + C·K·K·U·P)
// + 5·B·U·H'·W', and the like. All sizes but B are known
// when it is compiled.

#include "maxout.cuh"
#include "patches.cuh"

constexpr int PLACES = PLACES_H * PLACES_W, PIXELS = IMAGE_H * IMAGE_W;
constexpr int PATCH = IMAGE_C * KERNEL * KERNEL;

template <bool K_FAST>
using InputPatches = patches::Patches<K_FAST, IMAGE_C, IMAGE_H, IMAGE_W, KERNEL, 1, PAD, PLACES_H, PLACES_W>;

// Four elements of dz with what decides them.
struct RawGradient {
    float dy[4];
    unsigned pieces;    // a byte each

    __device__ __forceinline__ void load(int e, const float* all, const byte* all_pieces, long long at) {
        dy[e] = all[at];
        pieces |= (unsigned)all_pieces[at] << (8 * e);
    }
    // Chosen, so that a gradient that is NaN goes to the winner alone.
    __device__ __forceinline__ float one(int e, int p) const {
        return (int)(pieces >> (8 * e) & 255u) == p ? dy[e] : 0.0f;
    }
};

// The matrix (U·P, B·H'·W') of dz, K along its rows, times row_scale.
template <int U>
struct Gradient {
    static constexpr bool K_FAST = true, ASYNC = false, CLAMPED = false;
    typedef RawGradient Raw;
    const float* dy;
    const byte* pieces;
    const float* row_scale;
    int num_images;

    __device__ __forceinline__ int columns() const { return 0; }
    __device__ __forceinline__ void copy(float*, tile::Quad) const {}
    __device__ __forceinline__ Raw fetch(tile::Quad quad) const {
        int row = quad.row0 + quad.row, column = quad.column0 + quad.column;
        Raw raw = {{0.0f, 0.0f, 0.0f, 0.0f}, 0u};
        if (row >= U * PIECES) return raw;
        int u = row / PIECES;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            int image = (column + e) / PLACES, place = (column + e) % PLACES;
            if (image < num_images) raw.load(e, dy, pieces, ((long long)image * U + u) * PLACES + place);
        }
        return raw;
    }
    __device__ __forceinline__ float one(const Raw& raw, int e, int p, int column) const {
        float value = raw.one(e, p);
        if (row_scale && value != 0.0f) value *= row_scale[(column + e) / PLACES];
        return value;
    }
    __device__ __forceinline__ float4 finish(const Raw& raw, tile::Quad quad) const {
        int p = (quad.row0 + quad.row) % PIECES, column = quad.column0 + quad.column;
        return make_float4(one(raw, 0, p, column), one(raw, 1, p, column), one(raw, 2, p, column),
                           one(raw, 3, p, column));
    }
};

// The matrix (K·K·U·P, B·H·W): row (k, l, u·P + p), column (b, m, n) is dz[b, u·P + p, m - k + PAD, n - l + PAD].
template <int U>
struct GradientPatches {
    static constexpr bool K_FAST = false, ASYNC = false, CLAMPED = false;
    typedef RawGradient Raw;
    const float* dy;
    const byte* pieces;
    int num_images;

    __device__ __forceinline__ int columns() const { return 0; }
    __device__ __forceinline__ void copy(float*, tile::Quad) const {}
    __device__ __forceinline__ Raw fetch(tile::Quad quad) const {
        int row = quad.row0 + quad.row, column = quad.column0 + quad.column;
        Raw raw = {{0.0f, 0.0f, 0.0f, 0.0f}, 0u};
        if (row >= KERNEL * KERNEL * U * PIECES) return raw;
        int u = row % (U * PIECES) / PIECES, at = row / (U * PIECES), k = at / KERNEL, l = at % KERNEL;
        patches::Place<IMAGE_H, IMAGE_W> pixel(column);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            int i = pixel.i - k + PAD, j = pixel.j - l + PAD;
            if (pixel.image < num_images && i >= 0 && i < PLACES_H && j >= 0 && j < PLACES_W)
                raw.load(e, dy, pieces, ((long long)pixel.image * U + u) * PLACES + i * PLACES_W + j);
            pixel.next();
        }
        return raw;
    }
    __device__ __forceinline__ float4 finish(const Raw& raw, tile::Quad quad) const {
        int p = (quad.row0 + quad.row) % PIECES;
        return make_float4(raw.one(0, p), raw.one(1, p), raw.one(2, p), raw.one(3, p));
    }
};

// At least one block: otherwise ptxas keeps registers for more, and spills on sm_80.
template <int U>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS, 1)
    conv_maxout_forward(const float* __restrict__ x, const float* __restrict__ W, const float* __restrict__ b,
                        float* __restrict__ y, byte* __restrict__ pieces, int B, float* partials, unsigned* tickets) {
    maxout::forward<true>(InputPatches<false>{x, B}, W, b, B * PLACES, PATCH, U, partials, tickets,
                          [&](int row, int unit, maxout::Winner winner) {
                              long long at = ((long long)(row / PLACES) * U + unit) * PLACES + row % PLACES;
                              y[at] = winner.y;
                              pieces[at] = (byte)winner.piece;
                          });
}

template <int U>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS)
    conv_maxout_backward_input(const float* __restrict__ dy, const byte* __restrict__ pieces,
                               const float* __restrict__ row_scale, const float* __restrict__ W,
                               float* __restrict__ dx, int B, float* partials, unsigned* tickets) {
    constexpr int K = KERNEL * KERNEL * U * PIECES;
    tile::Plain<true> weights{tile::Matrix(W, IMAGE_C, K)};
    patches::images<IMAGE_C, PIXELS>(GradientPatches<U>{dy, pieces, B}, weights, dx, row_scale, B, K, partials, tickets);
}

// UPDATE: W is changed by way of vW; else W is where dW goes.
template <int U, bool UPDATE>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS)
    conv_maxout_backward_weights(const float* __restrict__ x, const float* __restrict__ dy,
                                 const byte* __restrict__ pieces, const float* __restrict__ row_scale,
                                 float* __restrict__ W, float* __restrict__ vW, int B, RATE_PARAMETERS, float* partials,
                                 unsigned* tickets) {
    if (skip && *skip) return;
    patches::weights<UPDATE>(InputPatches<true>{x, B}, Gradient<U>{dy, pieces, row_scale, B}, W, vW, PATCH, U * PIECES,
                             B * PLACES, RATE, MOMENTUM, skip, partials, tickets);
}
