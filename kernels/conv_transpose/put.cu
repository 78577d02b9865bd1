// What a transposed convolution does besides its products.
//
//   put      y (B, O, H', W') = b (O, H', W') + what the patches (B·H·W, O·K·K) have of each pixel, in the kernel's order
//   biases   db (O, H', W') = Σ_B dy; or at once v ← momentum · v - rate · db, b ← b + v
//
// A thread has an element of what is written. Bytes: put 4 (B·H·W·O·K·K + B·O·H'·W'), biases 4·B·O·H'·W'.

#include "rates.cuh"

__global__ void __launch_bounds__(256)
    conv_transpose_put(const float* __restrict__ patches, const float* __restrict__ b, float* __restrict__ y, long long n,
                       int O, int K, int stride, int H, int W, int out_H, int out_W) {
    long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= n) return;
    int w = (int)(at % out_W), h = (int)(at / out_W % out_H);
    int pixels = O * out_H * out_W, pixel = (int)(at % pixels), o = pixel / (out_H * out_W);
    long long image = at / pixels;
    float sum = 0.0f;
    for (int k = h % stride; k < K; k += stride) {
        int i = (h - k) / stride;
        if (h < k || i >= H) continue;
        for (int l = w % stride; l < K; l += stride) {
            int j = (w - l) / stride;
            if (w < l || j >= W) continue;
            sum += patches[(((image * H + i) * W + j) * O + o) * K * K + k * K + l];
        }
    }
    y[at] = sum + b[pixel];
}

template <bool UPDATE>
__global__ void __launch_bounds__(256)
    conv_transpose_biases(const float* __restrict__ dy, float* __restrict__ b, float* __restrict__ vb, int B, int pixels,
                          RATE_PARAMETERS) {
    if (skip && *skip) return;
    int pixel = blockIdx.x * 256 + threadIdx.x;
    if (pixel >= pixels) return;
    double sum = 0.0;
    for (int image = 0; image < B; ++image) sum += (double)dy[(long long)image * pixels + pixel];
    if constexpr (UPDATE) {
        mark_unless(move(b[pixel], vb[pixel], (float)sum, RATE, MOMENTUM), skip);
    } else {
        b[pixel] = (float)sum;
    }
}
