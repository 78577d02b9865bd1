// The Parzen-window log density of queries under samples, for every sigma in one pass.
//
//   ll[s, m] = logmeanexp_n(-‖q_m - x_n‖² / (2 σ_s²)) - D · log(σ_s √(2π))
//
// queries (M, D), samples (N, D), sigmas (S). Three ways to the distances, all a tile at a time and never stored:
//   product   ‖q‖² + ‖x‖² - 2 q·x of centred, scaled float32 data over the common tile: 2·M·N·D FLOP and S·M·N
//             exponentials; N·D·4 bytes are read once for every TILE_M queries
//   planes    the same of data in halves, a number and what is left of it, three products on tensor cores; or of queries
//             that are whole 255ths, as 8-bit images are, and samples in [0, 1], to 24 bits: three products of bytes, exact;
//             on Hopper by warpgroups.cu
//   direct    Σ (q - x)² in float64, for windows so narrow that float32 cannot have them: 3·M·N·D FLOP in float64
// A row's state is its least distance so far, which serves all sigmas, and a sum a sigma relative to it. Blocks along x
// share the samples; their states are merged in order by a last launch.

#include "distances.cuh"
#include "planes.cuh"
#ifdef SIGMAS
#if ARITHMETIC < HALVES
#include "gemm_tile.cuh"
#else
#include "planes_tile.cuh"
#endif
#endif

// --- preparation ---

// Means of the columns of samples (N, D) in float64: a block has 32 columns, 32 rows at a time, added in a fixed order.
template <class T>
__global__ void __launch_bounds__(1024) parzen_means(const T* __restrict__ rows, long long N, int D,
                                                     double* __restrict__ means) {
    DYNAMIC_SHARED(memory);
    double* sums = (double*)memory;
    int lane = threadIdx.x % 32, part = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    double sum = 0.0;
    if (column < D) {
        // There are few blocks, so that each must have many numbers under way.
#pragma unroll 8
        for (long long n = part; n < N; n += 32) sum += (double)rows[n * D + column];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (part == 0 && column < D) {
        for (int p = 1; p < 32; ++p) sum += sums[p * 32 + lane];
        means[column] = sum / (double)N;
    }
}

// The rows at some places, a block a row.
template <class T>
__global__ void __launch_bounds__(256) parzen_some(const T* __restrict__ rows, int D, const long long* __restrict__ places, T* __restrict__ some) {
    for (int d = threadIdx.x; d < D; d += 256) some[blockIdx.x * (long long)D + d] = rows[places[blockIdx.x] * D + d];
}

// Gives thread 0 what combining the numbers of a block's 128 threads gives; with room for a number of each.
template <class Combine>
__device__ __forceinline__ double block_wide(double number, double* room, const Combine& combine) {
    // The room may be that of the call before.
    __syncthreads();
    room[threadIdx.x] = number;
    for (int half = 64; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) room[threadIdx.x] = combine(room[threadIdx.x], room[threadIdx.x + half]);
    }
    return threadIdx.x == 0 ? room[0] : 0.0;
}

__device__ __forceinline__ double block_sum(double sum, double* room) {
    return block_wide(sum, room, [](double a, double b) { return a + b; });
}

// The first is kept if it is NaN.
__device__ __forceinline__ double greater(double a, double b) { return b <= a || a != a ? a : b; }
__device__ __forceinline__ double less(double a, double b) { return b < a ? b : a; }

// Kinds of rows. A 255th is one however its float was made: what is left of it by rounding does not count.
constexpr double ANY_FLOATS = 0.0, FROM_0_TO_1 = 1.0, WHOLE_255THS = 2.0, NEARLY_WHOLE = 1.0 / 65536;

// What is to be known of rows before they are prepared, facts (2, N): their squared norms once they are centred, and their
// kinds. A block a row.
template <class T>
__global__ void __launch_bounds__(128)
    parzen_facts(const T* __restrict__ rows, long long N, int D, const double* __restrict__ means, double* __restrict__ facts) {
    DYNAMIC_SHARED(memory);
    long long n = blockIdx.x;
    double sum = 0.0, kind = WHOLE_255THS;
    for (int d = threadIdx.x; d < D; d += 128) {
        double x = (double)rows[n * D + d], centred = x - means[d], level = x * 255.0;
        sum += centred * centred;
        bool is_whole = fabs(level - rint(level)) <= NEARLY_WHOLE;
        kind = less(kind, !(x >= 0.0 && x <= 1.0) ? ANY_FLOATS : is_whole ? WHOLE_255THS : FROM_0_TO_1);
    }
    sum = block_sum(sum, (double*)memory);
    kind = block_wide(kind, (double*)memory, [](double a, double b) { return less(a, b); });
    if (threadIdx.x == 0) {
        facts[n] = sum;
        facts[N + n] = kind;
    }
}

// Of every `group` rows the first one's place and the longest one's, places (2 · groups), which tell what a product is off
// by; and of all rows the greatest norm and the least kind, summary (2). One block.
__global__ void __launch_bounds__(1024)
    parzen_telling(const double* __restrict__ facts, long long N, long long group, int groups, long long* __restrict__ places,
                   double* __restrict__ summary) {
    DYNAMIC_SHARED(memory);
    double *norms = (double*)memory, *kinds = norms + 1024;
    double greatest = 0.0, kind = WHOLE_255THS;
    for (int g = threadIdx.x; g < groups; g += 1024) {
        long long first = g * group, end = first + group < N ? first + group : N, longest = first;
        for (long long n = first; n < end; ++n) {
            double norm = facts[longest];
            if (!(facts[n] <= norm) && norm == norm) longest = n;
            kind = less(kind, facts[N + n]);
        }
        places[2 * g] = first;
        places[2 * g + 1] = longest;
        greatest = greater(greatest, facts[longest]);
    }
    norms[threadIdx.x] = greatest;
    kinds[threadIdx.x] = kind;
    for (int half = 512; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            norms[threadIdx.x] = greater(norms[threadIdx.x], norms[threadIdx.x + half]);
            kinds[threadIdx.x] = less(kinds[threadIdx.x], kinds[threadIdx.x + half]);
        }
    }
    if (threadIdx.x == 0) {
        summary[0] = norms[0];
        summary[1] = kinds[0];
    }
}

// Centred and scaled rows, and their squared norms; a block a row.
template <class T>
__global__ void __launch_bounds__(128)
    parzen_centre(const T* __restrict__ rows, int D, const double* __restrict__ means, double scale,
                  float* __restrict__ centred, double* __restrict__ norms) {
    DYNAMIC_SHARED(memory);
    long long n = blockIdx.x;
    double sum = 0.0;
    for (int d = threadIdx.x; d < D; d += 128) {
        float x = (float)(((double)rows[n * D + d] - means[d]) * scale);
        centred[n * D + d] = x;
        sum += (double)x * x;
    }
    sum = block_sum(sum, (double*)memory);
    if (threadIdx.x == 0) norms[n] = sum;
}

// The same as two planes of halves: a number, and what rounding it has left over. Rows from N on are 0.
template <class T>
__global__ void __launch_bounds__(128)
    parzen_halves(const T* __restrict__ rows, int N, int D, const double* __restrict__ means, double scale, int padded_rows,
                  int chunks, unsigned* __restrict__ planes, float* __restrict__ norms) {
    DYNAMIC_SHARED(memory);
    int n = blockIdx.x;
    double sum = 0.0;
    for (int w = threadIdx.x; w < chunks * planes::WORDS; w += 128) {
        unsigned high = 0, low = 0;
        for (int i = 0; i < 2; ++i) {
            int d = 2 * w + i;
            if (d >= D || n >= N) continue;
            float x = (float)(((double)rows[n * (long long)D + d] - means[d]) * scale);
            unsigned rounded = to_half(x), rest = to_half(x - of_half(rounded));
            double kept = (double)of_half(rounded) + of_half(rest);
            sum += kept * kept;
            high |= rounded << 16 * i;
            low |= rest << 16 * i;
        }
        planes[planes::place(0, w, n, padded_rows, chunks)] = high;
        planes[planes::place(1, w, n, padded_rows, chunks)] = low;
    }
    sum = block_sum(sum, (double*)memory);
    if (threadIdx.x == 0) norms[n] = (float)sum;
}

// Rows as PLANES planes of bytes: whole 255ths as one, numbers from 0 to 1 as three, of (2^24 - 1)ths, among which whole
// 255ths are too, so that an 8-bit image and its twin are 0 apart. Norms are of what is kept, in the unit of products,
// 1 / (255 · (2^24 - 1)). Rows from N on are 0.
template <class T, int PLANES>
__global__ void __launch_bounds__(128)
    parzen_bytes(const T* __restrict__ rows, int N, int D, int padded_rows, int chunks, unsigned* __restrict__ planes,
                 long long* __restrict__ norms) {
    DYNAMIC_SHARED(memory);
    constexpr double LEVELS = PLANES == 1 ? 255.0 : planes::HIGHEST;
    int n = blockIdx.x;
    double sum = 0.0;
    for (int w = threadIdx.x; w < chunks * planes::WORDS; w += 128) {
        unsigned word[PLANES] = {};
        for (int i = 0; i < 4; ++i) {
            int d = 4 * w + i;
            if (d >= D || n >= N) continue;
            double level = rint((double)rows[n * (long long)D + d] * LEVELS);
            sum += level * level;
            for (int p = 0; p < PLANES; ++p) word[p] |= ((unsigned)level >> 8 * (PLANES - 1 - p) & 255u) << 8 * i;
        }
        for (int p = 0; p < PLANES; ++p) planes[planes::place(p, w, n, padded_rows, chunks)] = word[p];
    }
    sum = block_sum(sum, (double*)memory);
    if (threadIdx.x == 0) norms[n] = (long long)rint(sum / (LEVELS * LEVELS) * (255.0 * planes::HIGHEST));
}

// --- distances from a product ---

#ifdef SIGMAS

#if ARITHMETIC < HALVES
namespace core = tile;
#else
namespace core = planes;
#endif

// Eight neighbouring lanes share a row of the tile: their reads of four rows then meet no bank twice.
constexpr int LANES = 8, COLUMNS = TILE_N / LANES, ROWS_AT_ONCE = core::THREADS / LANES;
static_assert(TILE_M % 4 == 0 && TILE_N % LANES == 0, "a warp has four whole rows");
// A tile none of whose terms reaches 2^-40 of the greatest so far is left out: N such terms are N · 1e-12 of the sum.
constexpr float LEAST_EXPONENT = 40.0f;

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

// A block's rows: the least distance so far, and a sum a sigma. rates are log2(e) / (2 σ²) of the distances.
struct State {
    double* sums;
    float* least;
    const double* rates;
    float rate[SIGMAS];

    __device__ __forceinline__ State(char* memory, const double* rates)
        : sums((double*)memory), least((float*)(sums + SIGMAS * TILE_M)), rates(rates) {
        for (int i = threadIdx.x; i < SIGMAS * TILE_M; i += core::THREADS) sums[i] = 0.0;
        for (int i = threadIdx.x; i < TILE_M; i += core::THREADS) least[i] = INFINITE;
#pragma unroll
        for (int s = 0; s < SIGMAS; ++s) rate[s] = (float)rates[s];
    }

    // Adds a tile, `count` of whose columns are samples. `distances` says what a row brings, and from that, a column's norm
    // and its place the squared distance. Barriers before and after are the caller's.
    template <class Distances, class Norm>
    __device__ __forceinline__ void add(const Distances& distances, const Norm* norms_from_n, int count) {
        int lane = threadIdx.x % LANES;
        float norms[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j)
            norms[j] = j * LANES + lane < count ? (float)norms_from_n[j * LANES + lane] : INFINITE;
        for (int row = threadIdx.x / LANES; row < TILE_M; row += ROWS_AT_ONCE) {
            float of_row = distances.of_row(row);
            float distance[COLUMNS], near = INFINITE;
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                float d = distances.at(row, j * LANES + lane, of_row, norms[j]);
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
            // Of the warp's four rows, how far the tile is at least behind what each has found.
            float behind = near > now ? near - now : 0.0f;
#pragma unroll
            for (int other = LANES; other < 32; other *= 2) {
                float theirs = shuffle_xor(behind, other);
                behind = theirs < behind ? theirs : behind;
            }
#pragma unroll
            for (int s = 0; s < SIGMAS; ++s) {
                if (behind * rate[s] > LEAST_EXPONENT) continue;
                // The host sees to it that all true distances are finite.
                float total = count >= TILE_N ? terms<false>(distance, norms, now, rate[s]) : terms<true>(distance, norms, now, rate[s]);
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
    }

    // Writes the rows from m on of this block's shard, least (shards, M) float32 and sums (shards, SIGMAS, M) float64.
    __device__ __forceinline__ void write(int m, int M, float* least_out, double* sums_out) const {
        for (int row = threadIdx.x; row < TILE_M && m + row < M; row += core::THREADS) {
            least_out[(long long)blockIdx.x * M + m + row] = least[row];
            for (int s = 0; s < SIGMAS; ++s)
                sums_out[((long long)blockIdx.x * SIGMAS + s) * M + m + row] = sums[s * TILE_M + row];
        }
    }
};

// Distances from a tile of products.
template <class Norm>
struct OfProducts {
    const float* products;
    const Norm* query_norms;
    int count;

    __device__ __forceinline__ float of_row(int row) const { return row < count ? (float)query_norms[row] : 0.0f; }
    __device__ __forceinline__ float at(int row, int column, float query_norm, float norm) const {
        return query_norm + norm - 2.0f * products[row * core::C_STRIDE + column];
    }
};

#if ARITHMETIC < HALVES

// At least one block: otherwise ptxas keeps registers for more, and spills.
__global__ void __launch_bounds__(core::THREADS, 1)
    parzen_product(const float* __restrict__ queries, const double* __restrict__ query_norms,
                   const float* __restrict__ samples, const double* __restrict__ sample_norms,
                   const double* __restrict__ rates, int M, int N, int D, float* __restrict__ least,
                   double* __restrict__ sums) {
    DYNAMIC_SHARED(memory);
    float* shared = (float*)memory;
    static_assert(SHARED_FLOATS % 2 == 0, "the state behind the tile begins with doubles");
    State state((char*)(shared + SHARED_FLOATS), rates);
    int m = blockIdx.y * TILE_M;
    tile::Plain<true> a{tile::Matrix(queries, M, D)}, b{tile::Matrix(samples, N, D)};
    int tiles = divide_up(N, TILE_N);
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
        int n = t * TILE_N;
        tile::NoColumnSums none;
        tile::Product<tile::Plain<true>, tile::Plain<true>>::run(a, b, m, n, D, shared, none);
        __syncthreads();
        state.add(OfProducts<double>{shared, query_norms + m, M - m}, sample_norms + n, N - n);
        // The tile's memory is the operands' again.
        __syncthreads();
    }
    __syncthreads();
    state.write(m, M, least, sums);
}

#else

// Distances that are there already.
struct Ready {
    const float* distances;

    __device__ __forceinline__ float of_row(int) const { return 0.0f; }
    __device__ __forceinline__ float at(int row, int column, float, float norm) const {
        return norm < INFINITE ? distances[row * core::C_STRIDE + column] : INFINITE;
    }
};

using planes::Norm;

__global__ void __launch_bounds__(core::THREADS, 1)
    parzen_planes(const byte* __restrict__ queries, const Norm* __restrict__ query_norms,
                  const byte* __restrict__ samples, const Norm* __restrict__ sample_norms,
                  const double* __restrict__ rates, int M, int N, int query_rows, int sample_rows, int chunks,
                  float* __restrict__ least, double* __restrict__ sums) {
    DYNAMIC_SHARED(memory);
    static_assert(TILE_BYTES % 8 == 0, "the state behind the tile begins with doubles");
    State state(memory + TILE_BYTES, rates);
    float* finished = (float*)memory;
    int m = blockIdx.y * TILE_M;
    planes::Matrix a{queries, query_rows, chunks}, b{samples, sample_rows, chunks};
    int tiles = divide_up(N, TILE_N);
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
        int n = t * TILE_N;
#if ARITHMETIC == HALVES
        planes::product(a, b, m, n, (byte*)memory, [&](int row, int column, float sum, float next) {
            *(float2*)(finished + row * core::C_STRIDE + column) = make_float2(sum, next);
        });
        __syncthreads();
        state.add(OfProducts<float>{finished, query_norms + m, M - m}, sample_norms + n, N - n);
#else
        // Products and norms are those of the same bits, in a unit that they are multiples of: a twin is 0 away.
        constexpr float UNIT = (float)planes::UNIT;
        auto norm = [](const Norm* norms, int i, int count) { return i < count ? norms[i] : 0; };
        planes::product(a, b, m, n, (byte*)memory, [&](int row, int column, long long sum, long long next) {
            Norm of_query = norm(query_norms, m + row, M);
            Norm d = of_query + norm(sample_norms, n + column, N) - 2 * sum;
            Norm d_next = of_query + norm(sample_norms, n + column + 1, N) - 2 * next;
            *(float2*)(finished + row * core::C_STRIDE + column) = make_float2((float)d * UNIT, (float)d_next * UNIT);
        });
        __syncthreads();
        state.add(Ready{finished}, sample_norms + n, N - n);
#endif
        // The tile's memory is the operands' again.
        __syncthreads();
    }
    __syncthreads();
    state.write(m, M, least, sums);
}

#endif

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

// --- the parts' states, merged ---

// out (S, M): row place[s] gets log Σ - least · precision[s] - constant[s], precisions in nats a unit of `least`; the sigmas'
// table (4, S) has log2(e) times the precisions, those, the constants and the places. The parts of a row of tiles, `rows`
// queries, are of as many blocks as have any of its `tiles`, the blocks having tiles_a_block each.
template <class L>
__global__ void __launch_bounds__(256)
    parzen_merge(const L* __restrict__ least, const double* __restrict__ sums, int rows, int tiles, int tiles_a_block, int S,
                 int M, const double* __restrict__ sigmas, double* __restrict__ out) {
    int m = blockIdx.x * 256 + threadIdx.x, s = blockIdx.y;
    if (m >= M) return;
    double precision = sigmas[S + s], constant = sigmas[2 * S + s];
    int first_tile = m / rows * tiles;
    int num_parts = (first_tile + tiles - 1) / tiles_a_block - first_tile / tiles_a_block + 1;
    double near = INFINITE;
    for (int part = 0; part < num_parts; ++part) {
        double l = least[(long long)part * M + m];
        near = l < near ? l : near;
    }
    double total = 0.0;
    for (int part = 0; part < num_parts; ++part) {
        double l = least[(long long)part * M + m], sum = sums[((long long)part * S + s) * M + m];
        // A part whose distances all overflowed adds nothing; its sum is 0, or NaN.
        total += l == INFINITE ? sum : sum * exp(precision * (near - l));
    }
    out[(long long)sigmas[3 * S + s] * M + m] = log(total) - precision * (near == INFINITE ? 0.0 : near) - constant;
}
