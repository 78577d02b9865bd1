// Uses what the emulator does not have.

#include "device.cuh"

__global__ void wants_more(float* x) { x[0] = a_function_that_is_missing(x[0]); }
