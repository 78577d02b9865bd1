// The maximum over windows: forward, and backward to the pixels that were the maxima.
//
//   forward    y, places (B·C, H', W') from x (B·C, H, W): 4·H·W + 5·H'·W' bytes a plane
//   backward   dx (B·C, H, W): each pixel takes from the windows that it is in, row by row: the same bytes
//
// A thread has an element of what is written. WINDOW and STRIDE are defines.

#include "device.cuh"

__global__ void __launch_bounds__(256)
    max_pool_forward(const float* __restrict__ x, float* __restrict__ y, byte* __restrict__ places, long long n, int H,
                     int W, int out_H, int out_W) {
    long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= n) return;
    int j = (int)(at % out_W), i = (int)(at / out_W % out_H);
    const float* plane = x + at / ((long long)out_H * out_W) * H * W;
    int h = i * STRIDE, w = j * STRIDE;
    float best = plane[h * W + w];
    int place = 0;
#pragma unroll
    for (int k = 0; k < WINDOW; ++k) {
#pragma unroll
        for (int l = 0; l < WINDOW; ++l) {
            if (h + k < H && w + l < W) {
                float value = plane[(h + k) * W + w + l];
                // Not (value <= best) is true for a greater one and for NaN on either side; what is NaN stays.
                if (!(value <= best) && !is_nan(best)) {
                    best = value;
                    place = k * WINDOW + l;
                }
            }
        }
    }
    y[at] = best;
    places[at] = (byte)place;
}

__global__ void __launch_bounds__(256)
    max_pool_backward(const float* __restrict__ dy, const byte* __restrict__ places, float* __restrict__ dx,
                      long long n, int H, int W, int out_H, int out_W) {
    long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= n) return;
    int w = (int)(at % W), h = (int)(at / W % H);
    long long first = at / ((long long)H * W) * out_H * out_W;
    // The windows that begin at most WINDOW - 1 before.
    int last_i = minimum(h / STRIDE, out_H - 1), last_j = minimum(w / STRIDE, out_W - 1);
    int first_i = h < WINDOW ? 0 : (h - WINDOW) / STRIDE + 1, first_j = w < WINDOW ? 0 : (w - WINDOW) / STRIDE + 1;
    float sum = 0.0f;
    for (int i = first_i; i <= last_i; ++i)
        for (int j = first_j; j <= last_j; ++j) {
            long long window = first + i * out_W + j;
            // Chosen, so that a gradient that is NaN goes to its pixel alone.
            if (places[window] == (h - i * STRIDE) * WINDOW + w - j * STRIDE) sum += dy[window];
        }
    dx[at] = sum;
}
