// The Parzen-window log density of queries under samples, for every sigma in one pass.
//
//   ll[s, m] = logmeanexp_n(-‖q_m - x_n‖² / (2 σ_s²)) - D · log(σ_s √(2π))
//
// queries (M, D), samples (N, D), sigmas (S). Two ways to the distances, both a tile at a time and never stored:
//   product   ‖q‖² + ‖x‖² - 2 q·x of centred, scaled float32 data over the common tile: 2·M·N·D FLOP and S·M·N
//             exponentials; N·D·4 bytes are read once for every TILE_M queries
//   direct    Σ (q - x)² in float64, for windows so narrow that float32 cannot have them: 3·M·N·D FLOP in float64
// A row's state is its least distance so far, which serves all sigmas, and a sum a sigma relative to it. Blocks along x
// share the samples; their states are merged in order by a last launch.

#include "distances.cuh"
#ifdef SIGMAS
#include "gemm_tile.cuh"
#endif

// --- preparation ---

// Means of the columns of samples (N, D) in float64: a block has 32 columns, 8 rows at a time, added in a fixed order.
template <class T>
__global__ void __launch_bounds__(256) parzen_means(const T* __restrict__ rows, long long N, int D,
                                                    double* __restrict__ means) {
    DYNAMIC_SHARED(memory);
    double* sums = (double*)memory;
    int lane = threadIdx.x % 32, part = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    double sum = 0.0;
    if (column < D)
        for (long long n = part; n < N; n += 8) sum += (double)rows[n * D + column];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (part == 0 && column < D) {
        for (int p = 1; p < 8; ++p) sum += sums[p * 32 + lane];
        means[column] = sum / (double)N;
    }
}

// Centred and scaled rows, and their squared norms; a block a row. `centred` may be null: norms alone, in float64.
template <class T>
__global__ void __launch_bounds__(128)
    parzen_centre(const T* __restrict__ rows, int D, const double* __restrict__ means, double scale,
                  float* __restrict__ centred, double* __restrict__ norms) {
    DYNAMIC_SHARED(memory);
    double* sums = (double*)memory;
    long long n = blockIdx.x;
    double sum = 0.0;
    for (int d = threadIdx.x; d < D; d += 128) {
        double x = ((double)rows[n * D + d] - means[d]) * scale;
        if (centred) {
            float rounded = (float)x;
            centred[n * D + d] = rounded;
            x = rounded;
        }
        sum += x * x;
    }
    sums[threadIdx.x] = sum;
    for (int half = 64; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) norms[n] = sums[0];
}

// --- distances from a product ---

#ifdef SIGMAS

// Eight neighbouring lanes share a row of the tile: their reads of four rows then meet no bank twice.
constexpr int LANES = 8, COLUMNS = TILE_N / LANES, ROWS_AT_ONCE = tile::THREADS / LANES;

// A lane's terms of one sigma. MASKED: columns beyond the samples, whose norm is infinite, have none; their distance times
// a rate so small that it is 0 would be NaN.
template <bool MASKED>
__device__ __forceinline__ float terms(const float (&distance)[COLUMNS], const float (&norms)[COLUMNS], float now, float rate) {
    float total = 0.0f;
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
        float term = exp2_fast((now - distance[j]) * rate);
        total += !MASKED || norms[j] < INFINITE ? term : 0.0f;
    }
    return total;
}

// least (shards, M) float32 and sums (shards, SIGMAS, M) float64; rates are log2(e) / (2 σ²) of the scaled distances.
__global__ void __launch_bounds__(tile::THREADS)
    parzen_product(const float* __restrict__ queries, const double* __restrict__ query_norms,
                   const float* __restrict__ samples, const double* __restrict__ sample_norms,
                   const double* __restrict__ rates, int M, int N, int D, float* __restrict__ least_out,
                   double* __restrict__ sums_out) {
    DYNAMIC_SHARED(memory);
    float* shared = (float*)memory;
    // Behind the tile: the rows' states.
    double* sums = (double*)(shared + SHARED_FLOATS);
    float* least = (float*)(sums + SIGMAS * TILE_M);
    static_assert(TILE_M % 4 == 0 && TILE_N % LANES == 0 && SHARED_FLOATS % 2 == 0, "a warp has four whole rows");
    int m = blockIdx.y * TILE_M, lane = threadIdx.x % LANES;
    for (int i = threadIdx.x; i < SIGMAS * TILE_M; i += tile::THREADS) sums[i] = 0.0;
    for (int i = threadIdx.x; i < TILE_M; i += tile::THREADS) least[i] = INFINITE;
    float rate[SIGMAS];
#pragma unroll
    for (int s = 0; s < SIGMAS; ++s) rate[s] = (float)rates[s];
    tile::Plain<true> a{tile::Matrix(queries, M, D)}, b{tile::Matrix(samples, N, D)};
    int tiles = divide_up(N, TILE_N);
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
        int n = t * TILE_N;
        tile::NoColumnSums none;
        tile::Product<tile::Plain<true>, tile::Plain<true>>::run(a, b, m, n, D, shared, none);
        __syncthreads();
        bool whole = n + TILE_N <= N;
        float norms[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j)
            norms[j] = n + j * LANES + lane < N ? (float)sample_norms[n + j * LANES + lane] : INFINITE;
        for (int row = threadIdx.x / LANES; row < TILE_M; row += ROWS_AT_ONCE) {
            float query_norm = m + row < M ? (float)query_norms[m + row] : 0.0f;
            float distance[COLUMNS], near = INFINITE;
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                float d = query_norm + norms[j] - 2.0f * shared[row * tile::C_STRIDE + j * LANES + lane];
                // Rounding may take the distance of a twin a little below 0; a NaN stays.
                d = d < 0.0f ? 0.0f : d;
                distance[j] = d;
                near = d < near ? d : near;
            }
#pragma unroll
            for (int other = 1; other < LANES; other *= 2) {
                float theirs = shuffle_xor(near, other);
                near = theirs < near ? theirs : near;
            }
            float before = least[row], now = near < before ? near : before;
#pragma unroll
            for (int s = 0; s < SIGMAS; ++s) {
                // The host sees to it that all true distances are finite.
                float total = whole ? terms<false>(distance, norms, now, rate[s]) : terms<true>(distance, norms, now, rate[s]);
#pragma unroll
                for (int other = 1; other < LANES; other *= 2) total += shuffle_xor(total, other);
                if (lane == 0) {
                    double sum = sums[s * TILE_M + row];
                    // The first tile's fall is infinite, and there is nothing to scale yet.
                    if (sum != 0.0) sum *= exp2((double)(now - before) * rates[s]);
                    sums[s * TILE_M + row] = sum + (double)total;
                }
            }
            // All eight have read it.
            __syncwarp();
            if (lane == 0) least[row] = now;
        }
        // The tile's memory is the operands' again.
        __syncthreads();
    }
    __syncthreads();
    for (int row = threadIdx.x; row < TILE_M && m + row < M; row += tile::THREADS) {
        least_out[(long long)blockIdx.x * M + m + row] = least[row];
        for (int s = 0; s < SIGMAS; ++s)
            sums_out[((long long)blockIdx.x * SIGMAS + s) * M + m + row] = sums[s * TILE_M + row];
    }
}

#endif

// --- direct distances ---

using distances::SIDE;

// least (shards, M) and sums (shards, S, M), both float64; precisions are 1 / (2 σ²). 256 threads have a tile of 32 x 32
// pairs, 2 x 2 each, and S sums for each of 32 queries, by 8 threads a query.
template <class Q, class T>
__global__ void __launch_bounds__(256)
    parzen_direct(const Q* __restrict__ queries, const T* __restrict__ samples, const double* __restrict__ precisions,
                  int S, int M, long long N, int D, double* __restrict__ least_out, double* __restrict__ sums_out) {
    DYNAMIC_SHARED(memory);
    double* of_pairs = (double*)memory + distances::MEMORY;
    double* sums = of_pairs + SIDE * (SIDE + 1);
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    int row = threadIdx.x / 8, lane = threadIdx.x % 8;
    long long first_query = blockIdx.y * (long long)SIDE;
    for (int i = threadIdx.x; i < SIDE * S; i += 256) sums[i] = 0.0;
    double least = INFINITE;
    for (long long first = blockIdx.x * (long long)SIDE; first < N; first += gridDim.x * (long long)SIDE) {
        double pairs[2][2];
        distances::of_tile(queries, samples, first_query, first, M, N, D, (double*)memory, pairs);
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 2; ++j) of_pairs[(y + 16 * i) * (SIDE + 1) + x + 16 * j] = pairs[i][j];
        __syncthreads();
        int count = N - first < SIDE ? (int)(N - first) : SIDE;
        const double* of_row = of_pairs + row * (SIDE + 1);
        double near = INFINITE;
        for (int j = lane; j < count; j += 8) near = of_row[j] < near ? of_row[j] : near;
#pragma unroll
        for (int other = 1; other < 8; other *= 2) {
            double theirs = shuffle_xor(near, other);
            near = theirs < near ? theirs : near;
        }
        double new_least = near < least ? near : least;
        for (int s = 0; s < S; ++s) {
            double total = 0.0;
            for (int j = lane; j < count; j += 8) {
                // A distance that overflowed has no density, whatever the least is; a NaN passes on.
                if (!(of_row[j] == INFINITE)) total += exp(precisions[s] * (new_least - of_row[j]));
            }
#pragma unroll
            for (int other = 1; other < 8; other *= 2) total += shuffle_xor(total, other);
            if (lane == 0) {
                double before = sums[row * S + s];
                if (before != 0.0) before *= exp(precisions[s] * (new_least - least));
                sums[row * S + s] = before + total;
            }
        }
        least = new_least;
    }
    __syncthreads();
    long long m = first_query + row;
    if (m < M) {
        if (lane == 0) least_out[blockIdx.x * (long long)M + m] = least;
        for (int s = lane; s < S; s += 8) sums_out[((long long)blockIdx.x * S + s) * M + m] = sums[row * S + s];
    }
}

// --- the shards' states, merged ---

// out (S, M): row places[s] gets log Σ - least · precision - constants[s]; precisions in nats a unit of `least`.
template <class L>
__global__ void __launch_bounds__(256)
    parzen_merge(const L* __restrict__ least, const double* __restrict__ sums, int num_shards, int S, int M,
                 const double* __restrict__ precisions, const double* __restrict__ constants,
                 const int* __restrict__ places, double* __restrict__ out) {
    int m = blockIdx.x * 256 + threadIdx.x, s = blockIdx.y;
    if (m >= M) return;
    double near = INFINITE;
    for (int shard = 0; shard < num_shards; ++shard) {
        double l = least[(long long)shard * M + m];
        near = l < near ? l : near;
    }
    double total = 0.0;
    for (int shard = 0; shard < num_shards; ++shard) {
        double l = least[(long long)shard * M + m], sum = sums[((long long)shard * S + s) * M + m];
        // A shard whose distances all overflowed adds nothing; its sum is 0, or NaN.
        total += l == INFINITE ? sum : sum * exp(precisions[s] * (near - l));
    }
    out[(long long)places[s] * M + m] = log(total) - precisions[s] * (near == INFINITE ? 0.0 : near) - constants[s];
}
