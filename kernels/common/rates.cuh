// A step of gradient descent with momentum, and its rates as a kernel's parameters.

#pragma once
#include "device.cuh"

// v ← momentum · v - rate · g, W ← W + v.
__device__ __forceinline__ void move(float& W, float& v, float g, float rate, float momentum) {
    v = momentum * v - rate * g;
    W += v;
}

// Read from the device when the kernel runs, where they are given there. Where *skip is not 0 nothing is to change.
#define RATE_PARAMETERS \
    const float *learning_rate_at, float learning_rate, const float *momentum_at, float momentum, const long long *skip
#define RATE (learning_rate_at ? *learning_rate_at : learning_rate)
#define MOMENTUM (momentum_at ? *momentum_at : momentum)
