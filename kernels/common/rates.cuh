// A step of gradient descent with momentum, and its rates as a kernel's parameters.

#pragma once
#include "device.cuh"

// v ← momentum · v - rate · g, W ← W + v. Tells whether the new v is finite.
__device__ __forceinline__ bool move(float& W, float& v, float g, float rate, float momentum) {
    v = momentum * v - rate * g;
    W += v;
    return is_finite(v);
}

// Rates are read from the device when the kernel runs, where they are given there. skip, which may be null, is the step's
// flag, a word of 8 bytes, as its two halves. Where the lower one is not 0 nothing is to change. The upper one is a mark
// that this update met a velocity that is not finite: no update reads it, since blocks that add to one tile must agree on
// whether to go on; gan_loss and step make it the flag.
#define RATE_PARAMETERS \
    const float *learning_rate_at, float learning_rate, const float *momentum_at, float momentum, unsigned *skip
#define RATE (learning_rate_at ? *learning_rate_at : learning_rate)
#define MOMENTUM (momentum_at ? *momentum_at : momentum)

// Called by each thread for what it moved. Updates beside each other, too, may set the same mark.
__device__ __forceinline__ void mark_unless(bool finite, unsigned* skip) {
    if (!finite && skip) atomicOr(skip + 1, 1u);
}
