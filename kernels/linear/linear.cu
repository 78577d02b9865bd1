// A layer of linear units with dropout and activation: forward, and backward to everything.
//
//   forward            y (B, O) = f(x' W + b),  x' = dropout(x (B, I)),  W (I, O), b (O)
//   backward_input     dx (B, I) = mask(dz Wᵀ) / keep,  dz = row_scale · dy · f'(y)
//   backward_weights   dW (I, O) = x'ᵀ dz, db (O) = Σ_B dz; or at once v ← momentum · v - rate · dW, W ← W + v
//
// Each is one product of 2·B·I·O FLOP over the common tile (gemm_tile.cuh). Bytes, each array once: forward
// 4 (B·I + I·O + O + B·O), backward_input 4 (2·B·O + I·O + B·I), the update 4 (B·I + 2·B·O + 4·I·O); of dropout B·I / 8 more.
// Masks (drawn before: dropout.cu) and derivatives are applied on the way into the tile or out of it, nothing between is
// written.

#include "layer.cuh"

constexpr int IDENTITY = 0, RELU = 1, SIGMOID = 2;

template <int ACTIVATION>
__device__ __forceinline__ float activate(float z) {
    if (ACTIVATION == RELU) return z <= 0.0f ? 0.0f : z;    // a NaN is not <= 0 and passes on
    if (ACTIVATION == SIGMOID) return 1.0f / (1.0f + expf(-z));
    return z;
}

// dz = row_scale · dy · f'(y), of shape (B, O).
template <int ACTIVATION, bool K_FAST_>
struct Activated {
    static constexpr bool K_FAST = K_FAST_, ASYNC = false, CLAMPED = ALIGNED;
    struct Raw {
        float4 dy, y;
        float scale;
    };
    tile::Matrix dy, y;
    const float* row_scale;

    __device__ __forceinline__ int extent() const { return K_FAST ? dy.rows : dy.columns; }
    __device__ __forceinline__ int columns() const { return dy.columns; }
    __device__ __forceinline__ void copy(float*, tile::Quad) const {}
    __device__ __forceinline__ Raw fetch(tile::Quad quad) const {
        Raw raw;
        raw.dy = dy.load(quad);
        raw.y = ACTIVATION == IDENTITY ? raw.dy : y.load(quad);
        int row = quad.row0 + quad.row;
        raw.scale = row_scale && row < dy.rows ? row_scale[row] : 1.0f;
        return raw;
    }
    __device__ __forceinline__ static float one(float dy, float y, float scale) {
        // By multiplication, as the formula has it: a gradient that is NaN stays so where f' is 0.
        if (ACTIVATION == RELU) dy *= y > 0.0f ? 1.0f : 0.0f;
        if (ACTIVATION == SIGMOID) dy *= (1.0f - y) * y;
        return dy * scale;
    }
    __device__ __forceinline__ float4 finish(Raw raw, tile::Quad) const {
        return make_float4(one(raw.dy.x, raw.y.x, raw.scale), one(raw.dy.y, raw.y.y, raw.scale),
                           one(raw.dy.z, raw.y.z, raw.scale), one(raw.dy.w, raw.y.w, raw.scale));
    }
};

// PLAIN: no activation and no row scale, dz is dy.
template <bool PLAIN, int ACTIVATION, bool K_FAST>
struct GradientOf {
    typedef Activated<ACTIVATION, K_FAST> Type;
    __device__ __forceinline__ static Type make(tile::Matrix dy, tile::Matrix y, const float* row_scale) {
        return {dy, y, row_scale};
    }
};
template <int ACTIVATION, bool K_FAST>
struct GradientOf<true, ACTIVATION, K_FAST> {
    typedef tile::Plain<K_FAST> Type;
    __device__ __forceinline__ static Type make(tile::Matrix dy, tile::Matrix, const float*) { return {dy}; }
};

template <int ACTIVATION, bool DROPOUT>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS)
    linear_forward(const float* __restrict__ x, const float* __restrict__ W, const float* __restrict__ b,
                   float* __restrict__ y, int B, int I, int O, KEPT_PARAMETERS, float* partials, unsigned* tickets) {
    DYNAMIC_SHARED(memory);
    float* shared = (float*)memory;
    int m = blockIdx.y * TILE_M, n = blockIdx.x * TILE_N;
    typedef layer::InputOf<DROPOUT, true> InputOf;
    auto input = InputOf::make(tile::Matrix(x, B, I), layer::Kept KEPT_ARGUMENTS(I));
    tile::Plain<false> weights{tile::Matrix(W, I, O)};
    tile::NoColumnSums none;
    tile::Product<typename InputOf::Type, tile::Plain<false>>::run(input, weights, m, n, I, shared, none);
    tile::Whole whole;
    if (!tile::meet(whole, shared, partials, tickets, (unsigned*)(shared + SHARED_FLOATS))) return;
    bool aligned = tile::is_aligned(y, O);
    tile::Matrix bias(b, 1, O);
    tile::each_quad(whole, B - m, O - n, [&](int row, int column, float4 z) {
        float4 add = bias.load(tile::Quad::of(0, n, 0, column, O));
        z.x = activate<ACTIVATION>(z.x + add.x);
        z.y = activate<ACTIVATION>(z.y + add.y);
        z.z = activate<ACTIVATION>(z.z + add.z);
        z.w = activate<ACTIVATION>(z.w + add.w);
        tile::write_quad(y, m + row, n + column, O, aligned, z);
    });
    tile::part();
}

template <bool PLAIN, int ACTIVATION, bool DROPOUT>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS)
    linear_backward_input(const float* __restrict__ dy, const float* __restrict__ y, const float* __restrict__ row_scale,
                          const float* __restrict__ W, float* __restrict__ dx, int B, int I, int O, KEPT_PARAMETERS,
                          float* partials, unsigned* tickets) {
    auto dz = GradientOf<PLAIN, ACTIVATION, true>::make(tile::Matrix(dy, B, O), tile::Matrix(y, B, O), row_scale);
    layer::backward_input<DROPOUT>(dz, W, dx, B, I, O, layer::Kept KEPT_ARGUMENTS(I), partials, tickets);
}

template <bool PLAIN, int ACTIVATION, bool DROPOUT>
__global__ void __launch_bounds__(tile::THREADS)
    linear_backward_weights(const float* __restrict__ x, const float* __restrict__ dy, const float* __restrict__ y,
                            const float* __restrict__ row_scale, float* __restrict__ dW, float* __restrict__ db, int B,
                            int I, int O, KEPT_PARAMETERS) {
    auto input = layer::InputOf<DROPOUT, false>::make(tile::Matrix(x, B, I), layer::Kept KEPT_ARGUMENTS(I));
    auto dz = GradientOf<PLAIN, ACTIVATION, false>::make(tile::Matrix(dy, B, O), tile::Matrix(y, B, O), row_scale);
    layer::backward_weights<false>(input, dz, dW, db, nullptr, nullptr, B, I, O, 0.0f, 0.0f, nullptr);
}

template <bool PLAIN, int ACTIVATION, bool DROPOUT>
__global__ void __launch_bounds__(tile::THREADS)
    linear_backward_update(const float* __restrict__ x, const float* __restrict__ dy, const float* __restrict__ y,
                           const float* __restrict__ row_scale, float* __restrict__ W, float* __restrict__ b,
                           float* __restrict__ vW, float* __restrict__ vb, int B, int I, int O, RATE_PARAMETERS,
                           KEPT_PARAMETERS) {
    if (skip && *skip) return;
    auto input = layer::InputOf<DROPOUT, false>::make(tile::Matrix(x, B, I), layer::Kept KEPT_ARGUMENTS(I));
    auto dz = GradientOf<PLAIN, ACTIVATION, false>::make(tile::Matrix(dy, B, O), tile::Matrix(y, B, O), row_scale);
    layer::backward_weights<true>(input, dz, W, b, vW, vb, B, I, O, RATE, MOMENTUM, skip);
}
