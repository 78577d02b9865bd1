// A layer of maxout units with dropout: forward, and backward to everything.
//
//   forward            z = x' W + b, x' = dropout(x (B, I)), W (I, U·P), b (U·P);
//                      y (B, U) = max_p z[b, u·P + p], pieces (B, U) uint8 = the lowest p that attains it
//   backward_input     dx (B, I) = mask(dz Wᵀ) / keep,  dz[b, u·P + p] = row_scale[b] · dy[b, u] · [p = piece[b, u]]
//   backward_weights   dW (I, U·P) = x'ᵀ dz, db (U·P) = Σ_B dz; or at once v ← momentum · v - rate · dW, W ← W + v
//
// Each is one product of 2·B·I·U·P FLOP over the common tile (gemm_tile.cuh); of backward's, one in P is no product by 0.
// Bytes, each array once: forward 4 (B·I + I·U·P + U·P) + 5·B·U, backward_input 4 (I·U·P + B·I) + 5·B·U, the update
// 4 (B·I + 4·I·U·P) + 5·B·U; of dropout (drawn before: dropout.cu) B·I / 8 more. Neither z nor dz (B, U·P) is ever in
// global memory: a tile holds whole units, and dy is expanded on the way into the tile. PIECES (P) is a define.

#include "maxout.cuh"

// dz (B, U·P) from dy and pieces (B, U).
template <bool K_FAST_>
struct Expanded {
    static constexpr bool K_FAST = K_FAST_, ASYNC = false, CLAMPED = ALIGNED;
    // Units that four neighbouring columns can belong to.
    static constexpr int SPAN = PIECES >= 3 ? 2 : PIECES == 2 ? 3 : 4;
    struct Raw {
        float dy[SPAN];
        unsigned piece[SPAN];    // as loaded: put together, they would be waited for at once
        float scale;
    };
    const float* dy;
    const byte* pieces;
    const float* row_scale;
    int B, U;

    __device__ __forceinline__ int extent() const { return K_FAST ? B : U * PIECES; }
    __device__ __forceinline__ int columns() const { return 0; }
    __device__ __forceinline__ void copy(float*, tile::Quad) const {}
    __device__ __forceinline__ Raw fetch(tile::Quad quad) const {
        Raw raw;
        raw.scale = 1.0f;
        int row = quad.row0 + quad.row;
        bool inside = quad.inside && (CLAMPED || row < B);
        if (inside && row_scale) raw.scale = row_scale[row];
        int first = (quad.column0 + quad.column) / PIECES;
        // A uniform row, and a place in the tile that fits a word.
        long long tile = (long long)quad.row0 * U;
        int at = quad.row * U + first;
#pragma unroll
        for (int s = 0; s < SPAN; ++s) {
            raw.dy[s] = 0.0f;
            raw.piece[s] = 0;
            if (inside && first + s < U) {
                raw.dy[s] = (dy + tile)[at + s];
                raw.piece[s] = (pieces + tile)[at + s];
            }
        }
        return raw;
    }
    __device__ __forceinline__ float one(const Raw& raw, int place) const {
        float value = 0.0f;
#pragma unroll
        for (int s = 0; s < SPAN; ++s) {
            // Chosen, so that a gradient that is NaN goes to the winner alone.
            if (place == s * PIECES + (int)raw.piece[s]) value = raw.dy[s] * raw.scale;
        }
        return value;
    }
    __device__ __forceinline__ float4 finish(const Raw& raw, tile::Quad quad) const {
        int place = (quad.column0 + quad.column) % PIECES;
        return make_float4(one(raw, place), one(raw, place + 1), one(raw, place + 2), one(raw, place + 3));
    }
};

template <bool DROPOUT>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS)
    linear_maxout_forward(const float* __restrict__ x, const float* __restrict__ W, const float* __restrict__ b,
                          float* __restrict__ y, byte* __restrict__ pieces, int B, int I, int U, KEPT_PARAMETERS,
                          float* partials, unsigned* tickets) {
    auto input = layer::InputOf<DROPOUT, true>::make(tile::Matrix(x, B, I), layer::Kept KEPT_ARGUMENTS(I));
    maxout::forward<false>(input, W, b, B, I, U, partials, tickets, [&](int row, int unit, maxout::Winner winner) {
        long long at = (long long)row * U + unit;
        y[at] = winner.y;
        pieces[at] = (byte)winner.piece;
    });
}

template <bool DROPOUT>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS)
    linear_maxout_backward_input(const float* __restrict__ dy, const byte* __restrict__ pieces,
                                 const float* __restrict__ row_scale, const float* __restrict__ W,
                                 float* __restrict__ dx, int B, int I, int U, KEPT_PARAMETERS, float* partials,
                                 unsigned* tickets) {
    Expanded<true> dz = {dy, pieces, row_scale, B, U};
    layer::backward_input<DROPOUT>(dz, W, dx, B, I, U * PIECES, layer::Kept KEPT_ARGUMENTS(I), partials, tickets);
}

template <bool DROPOUT>
__global__ void __launch_bounds__(tile::THREADS)
    linear_maxout_backward_weights(const float* __restrict__ x, const float* __restrict__ dy,
                                   const byte* __restrict__ pieces, const float* __restrict__ row_scale,
                                   float* __restrict__ dW, float* __restrict__ db, int B, int I, int U,
                                   KEPT_PARAMETERS) {
    auto input = layer::InputOf<DROPOUT, false>::make(tile::Matrix(x, B, I), layer::Kept KEPT_ARGUMENTS(I));
    Expanded<false> dz = {dy, pieces, row_scale, B, U};
    layer::backward_weights<false>(input, dz, dW, db, nullptr, nullptr, B, I, U * PIECES, 0.0f, 0.0f, nullptr);
}

template <bool DROPOUT>
__global__ void __launch_bounds__(tile::THREADS, 1)
    linear_maxout_backward_update(const float* __restrict__ x, const float* __restrict__ dy,
                                  const byte* __restrict__ pieces, const float* __restrict__ row_scale,
                                  float* __restrict__ W, float* __restrict__ b, float* __restrict__ vW,
                                  float* __restrict__ vb, int B, int I, int U, RATE_PARAMETERS, KEPT_PARAMETERS) {
    if (skip && *skip) return;
    auto input = layer::InputOf<DROPOUT, false>::make(tile::Matrix(x, B, I), layer::Kept KEPT_ARGUMENTS(I));
    Expanded<false> dz = {dy, pieces, row_scale, B, U};
    layer::backward_weights<true>(input, dz, W, b, vW, vb, B, I, U * PIECES, RATE, MOMENTUM, skip);
}
