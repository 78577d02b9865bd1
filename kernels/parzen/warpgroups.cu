// The Parzen window's pass over planes on Hopper (sm_90a): what parzen.cu does with a finished tile in shared memory, here
// in the registers that the tensor cores left it in.
//
//   queries (M, D), samples (N, D) in planes, the rows' number rounded up; 3 · 2·M·N·D operations and S·M·N exponentials
//
// A row of the tile is in the four lanes of a quad, 32 columns each, so a row's least distance and sums take two shuffles.
// A block has the tiles from blockIdx.x · tiles_a_block on, row by row of tiles, and so a part of each row of tiles that it
// meets; parts are numbered from the first block that has any of the row.

#include "warpgroup_tile.cuh"

namespace core = warpgroups;
using core::Norm;

// As in parzen.cu: what is below 2^-40 of the greatest term so far is left out, here for eight rows of a tile at once.
constexpr float LEAST_EXPONENT = 40.0f;
// So that infinity times a rate is infinite; finite distances times it are 0, as they are times less.
constexpr float LEAST_RATE = 1e-30f;

// A quad's rows, two of each block of 64: their norms, their least distances so far, and in shared memory a sum a sigma, which
// lane s % 4 of the quad keeps.
struct State {
    int S, first_row;
    double* sums;
    const float* negative_rates;
    Norm norms[core::BLOCKS][2];
    float least[core::BLOCKS][2];

    __device__ __forceinline__ State(int S, int consumer, double* sums, const float* negative_rates)
        : S(S), first_row(consumer * core::BLOCKS * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4), sums(sums),
          negative_rates(negative_rates) {}

    __device__ __forceinline__ int row(int block, int half) const { return first_row + block * 64 + half * 8; }

    // Calls f(row, s) for the sums that this lane keeps.
    template <class F>
    __device__ __forceinline__ void each_sum(F f) const {
        for (int i = 0; i < core::BLOCKS * 2; ++i)
            for (int s = threadIdx.x % 4; s < S; s += 4) f(row(i / 2, i % 2), s);
    }

    // For the row of tiles that begins with row m.
    __device__ __forceinline__ void begin(const Norm* query_norms, int m) {
#pragma unroll
        for (int i = 0; i < core::BLOCKS * 2; ++i) {
            norms[i / 2][i % 2] = query_norms[m + row(i / 2, i % 2)];
            least[i / 2][i % 2] = INFINITE;
        }
        each_sum([&](int row, int s) { sums[s * core::TILE_M + row] = 0.0; });
    }

    // Adds the distances of a block's rows, d[4 j + 2 half + e].
    __device__ __forceinline__ void add(int block, float (&d)[64]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float near = INFINITE;
#pragma unroll
            for (int j = 0; j < 32; ++j) near = fminf(near, d[j / 2 * 4 + half * 2 + j % 2]);
            near = fminf(near, shuffle_xor(near, 1));
            near = fminf(near, shuffle_xor(near, 2));
            float before = least[block][half], now = fminf(near, before);
            least[block][half] = now;
            // Of the warp's eight rows, how far the tile is at least behind what each has found.
            float behind = near - now;
#pragma unroll
            for (int other = 4; other < 32; other *= 2) behind = fminf(behind, shuffle_xor(behind, other));
#pragma unroll
            for (int j = 0; j < 32; ++j) d[j / 2 * 4 + half * 2 + j % 2] -= now;
            // The first tile's fall is infinite.
            float fall = before - now;
#pragma unroll 1
            for (int s = 0; s < S; ++s) {
                float rate = negative_rates[s];
                if (behind * rate < -LEAST_EXPONENT) continue;
                float total[2] = {0.0f, 0.0f};
#pragma unroll
                for (int j = 0; j < 32; ++j) total[j % 2] += exp2_fast(d[j / 2 * 4 + half * 2 + j % 2] * rate);
                total[0] += total[1];
                total[0] += shuffle_xor(total[0], 1);
                total[0] += shuffle_xor(total[0], 2);
                if (threadIdx.x % 4 == s % 4) {
                    double* sum = sums + s * core::TILE_M + row(block, half);
                    *sum = *sum * (double)exp2_fast(fall * rate) + (double)total[0];
                }
            }
        }
    }

    // Writes part `part` of the rows from m on: least (parts, M) and sums (parts, S, M).
    __device__ __forceinline__ void write(int m, int M, int part, float* least_out, double* sums_out) const {
#pragma unroll
        for (int i = 0; i < core::BLOCKS * 2; ++i) {
            int of_query = m + row(i / 2, i % 2);
            float d = least[i / 2][i % 2];
#if ARITHMETIC == HALVES
            d += norms[i / 2][i % 2];
#endif
            // Rounding may take the distance of a twin a little below 0.
            if (threadIdx.x % 4 == 0 && of_query < M) least_out[(long long)part * M + of_query] = fmaxf(d, 0.0f);
        }
        each_sum([&](int row, int s) {
            if (m + row < M) sums_out[((long long)part * S + s) * M + m + row] = sums[s * core::TILE_M + row];
        });
    }
};

// Turns a thread's products of a tile, `count` of whose columns are samples, into distances and adds them.
__device__ __forceinline__ void add_products(State& state, core::Sums& products, const Norm* norms, int count) {
#pragma unroll
    for (int block = 0; block < core::BLOCKS; ++block) {
        float distances[64];
#pragma unroll
        for (int i = 0; i < 64; ++i) {
            int column = i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
#if ARITHMETIC == HALVES
            float d = norms[column] - 2.0f * products.c[block][i];
#else
            // Products and norms are those of the same bits, in a unit that they are multiples of.
            Norm sum = state.norms[block][i / 2 % 2] + norms[column];
            sum -= ((long long)products.c[0][i] << 17) + ((long long)products.c[1][i] << 9) + ((long long)products.c[2][i] << 1);
            float d = (float)sum * (float)planes::UNIT;
#endif
            distances[i] = d;
        }
        if (count < core::TILE_N) {
#pragma unroll
            for (int i = 0; i < 64; ++i)
                if (i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2 >= count) distances[i] = INFINITE;
        }
        state.add(block, distances);
    }
}

// rates are log2(e) / (2 σ²) of the distances; query_rows and sample_rows the planes', whole tiles.
__global__ void __launch_bounds__(core::THREADS, 1)
    parzen_warpgroups(const byte* __restrict__ queries, const Norm* __restrict__ query_norms,
                      const byte* __restrict__ samples, const Norm* __restrict__ sample_norms,
                      const double* __restrict__ rates, int S, int M, int N, int query_rows, int sample_rows, int chunks,
                      int tiles_a_block, float* __restrict__ least, double* __restrict__ sums) {
    DYNAMIC_SHARED(memory);
    core::Ring ring(memory);
    double* sums_of_block = (double*)(memory + core::RING_BYTES);
    float* negative_rates = (float*)(sums_of_block + S * core::TILE_M);
    int tiles_n = divide_up(N, core::TILE_N);
    int first = blockIdx.x * tiles_a_block, end = minimum(first + tiles_a_block, divide_up(M, core::TILE_M) * tiles_n);
    if (threadIdx.x == 0) ring.begin();
    for (int s = threadIdx.x; s < S; s += core::THREADS) negative_rates[s] = -fmaxf((float)rates[s], LEAST_RATE);
    __syncthreads();
    core::Turn turn;
    if (threadIdx.x < 128) {
        give_registers<core::OF_PRODUCER>();
        if (threadIdx.x == 0) {
            planes::Matrix a{queries, query_rows, chunks}, b{samples, sample_rows, chunks};
            for (int tile = first; tile < end; ++tile)
                ring.send(a, b, sample_norms, tile / tiles_n * core::TILE_M, tile % tiles_n * core::TILE_N, tile - first, turn);
        }
    } else {
        take_registers<core::OF_CONSUMER>();
        int consumer = threadIdx.x / 128 - 1;
        State state(S, consumer, sums_of_block, negative_rates);
        core::Sums products;
        for (int tile = first; tile < end; ++tile) {
            int y = tile / tiles_n, x = tile % tiles_n;
            if (tile == first || x == 0) state.begin(query_norms, y * core::TILE_M);
            core::receive(products, ring, chunks, consumer, turn);
            add_products(state, products, ring.norms + (tile - first) % core::NORM_SLOTS * core::TILE_N, N - x * core::TILE_N);
            if (tile + 1 == end || x + 1 == tiles_n)
                state.write(y * core::TILE_M, M, (int)blockIdx.x - y * tiles_n / tiles_a_block, least, sums);
        }
    }
}
