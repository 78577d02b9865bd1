// A step's end: the struct of eight words moves on. One thread; other kernels read the words when they run.
//
//   words: update, epoch, start, non_finite (the flag in its lower half, the updates' mark in its upper one), then
//   learning rate and momentum as two floats

#include "device.cuh"

__device__ __forceinline__ void read_rates(long long* words, const float* learning_rates, int T, const float* momenta,
                                           int E) {
    float* rates = (float*)(words + 4);
    rates[0] = learning_rates[words[0] < T ? words[0] : T - 1];
    rates[1] = momenta[words[1] - 1 < E ? words[1] - 1 : E - 1];
}

__global__ void set_rates(long long* words, const float* learning_rates, int T, const float* momenta, int E) {
    read_rates(words, learning_rates, T, momenta, E);
}

__global__ void advance(long long* words, const float* learning_rates, int T, const float* momenta, int E,
                        long long rows_per_step, long long rows_per_epoch) {
    if (words[3]) {
        words[3] = 1;
        return;
    }
    words[0] += 1;
    words[2] += rows_per_step;
    if (words[2] == rows_per_epoch) {
        words[2] = 0;
        words[1] += 1;
    }
    read_rates(words, learning_rates, T, momenta, E);
}
