// What the benchmarks ask of a machine: launches that do nothing, and products of a tensor core, one a block.

#include "device.cuh"

__global__ void nothing(unsigned* word) {
    if (word) *word += 1u;
}

#ifdef CLUSTERS  // sm_90 on
__global__ void CLUSTER_OF(8) nothing_in_a_cluster(unsigned* word) {
    cluster_sync();
    if (word) *word += 1u;
}
#endif

#ifdef TENSOR_CORES  // sm_80 on
// d = a · b + c for cases of a (16 x 8), b (8 x 8), c and d (16 x 8), row by row; operands as they are, not rounded.
__global__ void mma_cases(const float* a, const float* b, const float* c, float* d) {
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    a += blockIdx.x * 128, b += blockIdx.x * 64, c += blockIdx.x * 128, d += blockIdx.x * 128;
    unsigned a_lane[4] = {bits_of(a[g * 8 + t]), bits_of(a[(g + 8) * 8 + t]), bits_of(a[g * 8 + t + 4]),
                          bits_of(a[(g + 8) * 8 + t + 4])};
    unsigned b_lane[2] = {bits_of(b[t * 8 + g]), bits_of(b[(t + 4) * 8 + g])};
    float d_lane[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t], c[(g + 8) * 8 + 2 * t + 1]};
    mma_tf32(d_lane, a_lane, b_lane);
    d[g * 8 + 2 * t] = d_lane[0];
    d[g * 8 + 2 * t + 1] = d_lane[1];
    d[(g + 8) * 8 + 2 * t] = d_lane[2];
    d[(g + 8) * 8 + 2 * t + 1] = d_lane[3];
}
#endif
