// A minibatch of the data: the epoch's order as a keyed bijection, and the rows it names.
//
//   order   place → row: a Feistel network of 8 rounds over Philox on 0 … 2^bits - 1, walked until it is below N
//   rows    out (B, D) float32 = data[order(start + b)] / divisor, data (N, D) uint8 or float32: 5·B·D or 8·B·D bytes
//
// A block has one row, and each of its threads finds the row by itself: a dozen counters of arithmetic, no barrier.

#include "philox.cuh"

struct Order {
    unsigned num_rows, right_bits, left_mask, right_mask, k0, k1, stream, epoch;

    __device__ __forceinline__ unsigned feistel(unsigned place) const {
        unsigned left = place >> right_bits, right = place & right_mask;
#pragma unroll
        for (unsigned round = 0; round < 8; round += 2) {
            left ^= philox(right, round, epoch, stream, k0, k1).w[0] & left_mask;
            right ^= philox(left, round + 1, epoch, stream, k0, k1).w[0] & right_mask;
        }
        return left << right_bits | right;
    }
    __device__ __forceinline__ unsigned row(unsigned place) const {
        do place = feistel(place);
        while (place >= num_rows);
        return place;
    }
};

#define ORDER_PARAMETERS                                                                                     \
    unsigned num_rows, unsigned right_bits, unsigned left_mask, unsigned right_mask, unsigned k0, unsigned k1, \
        unsigned stream, const long long *epoch_at, long long epoch
#define ORDER_ARGUMENTS \
    { num_rows, right_bits, left_mask, right_mask, k0, k1, stream, (unsigned)(epoch_at ? *epoch_at : epoch) }

__global__ void __launch_bounds__(256) gather_order(long long* out, int count, long long start, ORDER_PARAMETERS) {
    Order order = ORDER_ARGUMENTS;
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i < count) out[i] = order.row((unsigned)(start + i));
}

struct alignas(4) FourBytes {
    byte x, y, z, w;
};
template <class T>
struct FourOf {
    typedef float4 Type;
};
template <>
struct FourOf<byte> {
    typedef FourBytes Type;
};

template <class T>
__global__ void __launch_bounds__(256)
    gather_rows(const T* __restrict__ data, float* __restrict__ out, int D, float divisor, const long long* start_at,
                long long start, long long start_offset, ORDER_PARAMETERS) {
    Order order = ORDER_ARGUMENTS;
    long long first = (start_at ? *start_at : start) + start_offset;
    const T* from = data + (long long)order.row((unsigned)(first + blockIdx.x)) * D;
    float* to = out + (long long)blockIdx.x * D;
    typedef typename FourOf<T>::Type Four;
    if (D % 4 == 0 && (((word64)data) % sizeof(Four)) == 0 && (((word64)out) & 15) == 0) {
        for (int d = threadIdx.x * 4; d < D; d += 256 * 4) {
            Four four = *(const Four*)(from + d);
            *(float4*)(to + d) = make_float4((float)four.x / divisor, (float)four.y / divisor, (float)four.z / divisor,
                                             (float)four.w / divisor);
        }
    } else {
        for (int d = threadIdx.x; d < D; d += 256) to[d] = (float)from[d] / divisor;
    }
}
