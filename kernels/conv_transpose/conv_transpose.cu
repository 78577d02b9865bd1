// A transposed convolution with a bias a pixel: the products of its forward and backward passes.
//
//   forward          patches (B·H·W, O·K·K) = x (B·H·W places, C) · W (C, O·K·K)
//   backward_input   dx (B, C, H, W) = patches of dy (B·H·W, O·K·K) · Wᵀ
//   backward_weights dW (C, O·K·K) = xᵀ · patches of dy; or at once v ← momentum · v - rate · dW, W ← W + v
//
// Each is one product of 2·B·H·W·C·O·K·K FLOP over the common tile (gemm_tile.cuh), those of backward implicit ones:
// patches of dy are gathered on the way into the tile. Forward's are written and then put together (put.cu): with the 3
// channels of an image as a product's columns most of a tile would stand empty, and patches of 75 numbers are few. All
// sizes but B are known when it is compiled: x is (B, C, PLACES_H, PLACES_W), y (B, IMAGE_C, IMAGE_H, IMAGE_W).

#include "patches.cuh"

constexpr int PLACES = PLACES_H * PLACES_W, PATCH = IMAGE_C * KERNEL * KERNEL;

// The matrix (C, B·H·W) of x.
template <bool K_FAST, int C>
using Pixels = patches::Patches<K_FAST, C, PLACES_H, PLACES_W, 1, 1, 0, PLACES_H, PLACES_W>;
// The matrix (O·K·K, B·H·W) of dy's patches.
template <bool K_FAST>
using ImagePatches = patches::Patches<K_FAST, IMAGE_C, IMAGE_H, IMAGE_W, KERNEL, IMAGE_STRIDE, 0, PLACES_H, PLACES_W>;

template <int C>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS)
    conv_transpose_forward(const float* __restrict__ x, const float* __restrict__ W, float* __restrict__ all_patches,
                           int B, float* partials, unsigned* tickets) {
    DYNAMIC_SHARED(memory);
    float* shared = (float*)memory;
    int m = blockIdx.y * TILE_M, n = blockIdx.x * TILE_N;
    tile::Plain<false> weights{tile::Matrix(W, C, PATCH)};
    tile::NoColumnSums none;
    tile::Product<Pixels<false, C>, tile::Plain<false>>::run(Pixels<false, C>{x, B}, weights, m, n, C, shared, none);
    tile::Whole whole;
    if (!tile::meet(whole, shared, partials, tickets, (unsigned*)(shared + SHARED_FLOATS))) return;
    bool aligned = tile::is_aligned(all_patches, PATCH);
    tile::each_quad(whole, B * PLACES - m, PATCH - n, [&](int row, int column, float4 sum) {
        tile::write_quad(all_patches, m + row, n + column, PATCH, aligned, sum);
    });
    tile::part();
}

template <int C>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS)
    conv_transpose_backward_input(const float* __restrict__ dy, const float* __restrict__ W, float* __restrict__ dx,
                                  int B, float* partials, unsigned* tickets) {
    tile::Plain<true> weights{tile::Matrix(W, C, PATCH)};
    patches::images<C, PLACES>(ImagePatches<false>{dy, B}, weights, dx, nullptr, B, PATCH, partials, tickets);
}

// UPDATE: W is changed by way of vW; else W is where dW goes.
template <int C, bool UPDATE>
__global__ void TILE_CLUSTER __launch_bounds__(tile::THREADS)
    conv_transpose_backward_weights(const float* __restrict__ x, const float* __restrict__ dy, float* __restrict__ W,
                                    float* __restrict__ vW, int B, RATE_PARAMETERS, float* partials, unsigned* tickets) {
    if (skip && *skip) return;
    patches::weights<UPDATE>(Pixels<true, C>{x, B}, ImagePatches<true>{dy, B}, W, vW, C, PATCH, B * PLACES, RATE,
                             MOMENTUM, skip, partials, tickets);
}
