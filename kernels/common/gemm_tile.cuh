// A tile of a matrix product, C[m][n] = Σ_k A[m][k] · B[k][n], with what comes before and after it as parameters.
//
// A block computes TILE_M x TILE_N of C over a part of K. Operands say how four neighbouring elements come into shared
// memory: by asynchronous copies (Plain), or through registers, transformed (dropped, expanded, times a derivative).
// Each is kept in shared memory as it lies in global memory, K along its rows (K_FAST) or across them; strides are
// padded so that neither kind of fragment meets a bank conflict. The finished tile goes to shared memory, the parts of
// K meet there, and an epilogue takes whole sums from it: so C itself is never written unless it is what is wanted.
//
// Parts of K (SPLITS blocks along z) are summed in the order of k, whichever block ends first:
//   CLUSTERED 1: the blocks are a cluster, each sums its share of the rows over distributed shared memory (sm_90);
//   CLUSTERED 0: they leave their tiles in `partials`, and the last to come sums them.
//
// ARITHMETIC 0: float32 FMA, in chains of TILE_K with PROMOTE. 1: TF32 tensor cores. 2: tensor cores with each operand split in two TF32 numbers, three
// products, and partial sums added up outside the tensor cores every 32 of K, as those truncate: float32's error.
//
// The defines are chosen in gemm_tile.py, which has the sizes' meaning and limits.

#pragma once
#include "device.cuh"

// 1: every matrix of a kernel begins at a multiple of 16 bytes and has rows of whole quads, and so has every tile. 0: each
// matrix is looked at when the kernel runs.
#ifndef ALIGNED
#define ALIGNED 0
#endif

namespace tile {

constexpr int THREADS = WARPS_M * WARPS_N * 32;

// An odd multiple of 4 (TILE_K is a multiple of 8): eight rows' quads then lie in eight different quads of banks.
constexpr int ALONG_STRIDE = TILE_K + 4;
constexpr int C_STRIDE = across_stride(TILE_N);

// --- operands ---

// Where four neighbouring elements of a row are: the tile's first row and column in the matrix, the same for all threads, and
// theirs in the tile, the same for all tiles, so that a thread finds `bytes` once.
struct Quad {
    int row0, column0, row, column;
    // From the tile's first element on in a matrix of so many columns, where that is asked for (gemm_tile.py sees to it that
    // this fits a word).
    unsigned bytes;
    // Along K; across it Slots sees to it, see CLAMPED.
    bool inside;

    // One outside of any loop over tiles.
    __device__ __forceinline__ static Quad of(int row0, int column0, int row, int column, int columns) {
        return {row0, column0, row, column, 4u * (unsigned)(row * columns + column), true};
    }
    __device__ __forceinline__ const float* in(const float* data, int columns) const {
        return (const float*)((const char*)(data + ((long long)row0 * columns + column0)) + bytes);
    }
};

// A matrix in global memory, rows one after the other; `offset` is the least column that quads are taken from.
struct Matrix {
    const float* data;
    int rows, columns;
    bool aligned;

    __device__ __forceinline__ Matrix(const float* data, int rows, int columns, int offset = 0)
        : data(data), rows(rows), columns(columns), aligned((((word64)data) & 15) == 0 && columns % 4 == 0 && offset % 4 == 0) {}

    // Four elements; what lies outside is 0.
    __device__ __forceinline__ float4 load(Quad quad) const {
        float4 q = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        const float* at = quad.in(data, columns);
#if ALIGNED
        if (quad.inside) q = *(const float4*)at;
#else
        if (!quad.inside || quad.row0 + quad.row >= rows) return q;
        int column = quad.column0 + quad.column;
        if (aligned) {
            if (column < columns) q = *(const float4*)at;
        } else {
            if (column < columns) q.x = at[0];
            if (column + 1 < columns) q.y = at[1];
            if (column + 2 < columns) q.z = at[2];
            if (column + 3 < columns) q.w = at[3];
        }
#endif
        return q;
    }

    __device__ __forceinline__ void copy_async(float* shared, Quad quad) const {
#if ALIGNED
        // The tile's first element is inside.
        if (!quad.inside) quad.bytes = 0;
        copy_async_16(shared, quad.in(data, columns), quad.inside);
#else
        const float* at = quad.in(data, columns);
        bool in_rows = quad.inside && quad.row0 + quad.row < rows;
        int column = quad.column0 + quad.column;
        if (aligned) {
            bool inside = in_rows && column < columns;
            copy_async_16(shared, inside ? at : data, inside);
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                bool inside = in_rows && column + j < columns;
                copy_async_4(shared + j, inside ? at + j : data, inside);
            }
        }
#endif
    }
};

// What an operand is made of:
//   K_FAST   K runs along its rows in memory;
//   ASYNC    it comes by `copy`, else through registers: `fetch`, and, when that is there, `finish`;
//   CLAMPED  where the tile is beyond the last row, or, unless K_FAST, column, that one is taken again instead of zeros: what
//            comes of it is not written. Else `fetch` and `copy` are to look whether a quad is inside;
//   columns  those for which it wants Quad::bytes.

// The matrix as it is.
template <bool K_FAST_>
struct Plain {
    static constexpr bool K_FAST = K_FAST_, ASYNC = true, CLAMPED = ALIGNED;
    struct Raw {};
    Matrix matrix;

    __device__ __forceinline__ int extent() const { return K_FAST ? matrix.rows : matrix.columns; }
    __device__ __forceinline__ int columns() const { return matrix.columns; }
    __device__ __forceinline__ void copy(float* shared, Quad quad) const { matrix.copy_async(shared, quad); }
    __device__ __forceinline__ Raw fetch(Quad) const { return {}; }
    __device__ __forceinline__ float4 finish(Raw, Quad) const { return {}; }
};

// Tile of an operand in shared memory: X is TILE_M for A and TILE_N for B.
template <class Operand, int X>
struct Slots {
    static constexpr int ROWS = Operand::K_FAST ? X : TILE_K;
    static constexpr int COLUMNS = Operand::K_FAST ? TILE_K : X;
    static constexpr int STRIDE = Operand::K_FAST ? ALONG_STRIDE : across_stride(X);
    static constexpr int QUADS = ROWS * (COLUMNS / 4);
    static constexpr int QUADS_A_THREAD = (QUADS + THREADS - 1) / THREADS;
    static constexpr int COUNT = Operand::ASYNC ? STAGES : 2;
    static constexpr int SIZE = ROWS * STRIDE;

    // Whether all of a thread's quads are in the same columns: places in shared memory then differ by what is known.
    static constexpr bool IN_COLUMNS = THREADS % (COLUMNS / 4) == 0;

    typename Operand::Raw raw[Operand::ASYNC ? 1 : QUADS_A_THREAD];
    // Of this thread's quads from a tile's first element on: in global memory, and in floats in shared memory.
    unsigned bytes[QUADS_A_THREAD], slot_places[IN_COLUMNS ? 1 : QUADS_A_THREAD];

    // Without ALIGNED there is more to be kept, and the compiler decides what is worth a register.
    __device__ __forceinline__ static unsigned once(unsigned word) { return ALIGNED ? kept_word(word) : word; }

    // What is found once; x is the tiles' first row or column.
    __device__ __forceinline__ Slots(const Operand& operand, int x) {
        each([&](int i, int row, int column) {
            Quad quad = clamped(operand, row, column, x);
            bytes[i] = once(4u * (unsigned)(quad.row * operand.columns() + quad.column));
            if (!IN_COLUMNS || i == 0) slot_places[IN_COLUMNS ? 0 : i] = once((unsigned)(row * STRIDE + column));
        });
    }
    __device__ __forceinline__ float* in_slot(float* slots, int number, int i) const {
        float* slot = slots + number % COUNT * SIZE;
        return IN_COLUMNS ? slot + slot_places[0] + i * (THREADS / (COLUMNS / 4)) * STRIDE : slot + slot_places[IN_COLUMNS ? 0 : i];
    }

    // Calls f(i, row, column) for this thread's quads of a tile.
    template <class F>
    __device__ __forceinline__ static void each(F f) {
#pragma unroll
        for (int i = 0; i < QUADS_A_THREAD; ++i) {
            int q = (int)threadIdx.x + i * THREADS;
            if (QUADS % THREADS == 0 || q < QUADS) f(i, q / (COLUMNS / 4), q % (COLUMNS / 4) * 4);
        }
    }

    __device__ __forceinline__ static Quad clamped(const Operand& operand, int row, int column, int x) {
        if constexpr (Operand::CLAMPED) {
            // Of columns the last quad, which is a whole one.
            if constexpr (Operand::K_FAST) row = minimum(row, operand.extent() - 1 - x);
            else column = minimum(column, operand.extent() - 4 - x);
        }
        return {0, 0, row, column, 0u, true};
    }
    // This thread's i-th quad of the tile that begins at x and k, of K.
    __device__ __forceinline__ Quad quad(const Operand& operand, int i, int row, int column, int x, int k, int K) const {
        Quad quad = clamped(operand, row, column, x);
        return {Operand::K_FAST ? x : k, Operand::K_FAST ? k : x, quad.row, quad.column, bytes[i],
                (Operand::K_FAST ? column : row) < K - k};
    }

    __device__ __forceinline__ void copy(const Operand& operand, float* slots, int number, int x, int k, int K) const {
        if constexpr (Operand::ASYNC)
            each([&](int i, int row, int column) {
                operand.copy(in_slot(slots, number, i), quad(operand, i, row, column, x, k, K));
            });
    }
    __device__ __forceinline__ void fetch(const Operand& operand, int x, int k, int K) {
        if constexpr (!Operand::ASYNC)
            each([&](int i, int row, int column) { raw[i] = operand.fetch(quad(operand, i, row, column, x, k, K)); });
    }
    __device__ __forceinline__ void store(const Operand& operand, float* slots, int number, int x, int k, int K) const {
        if constexpr (!Operand::ASYNC)
            each([&](int i, int row, int column) {
                *(float4*)in_slot(slots, number, i) = operand.finish(raw[i], quad(operand, i, row, column, x, k, K));
            });
    }
    __device__ __forceinline__ static const float* at(const float* slots, int number, int x, int k) {
        return slots + number % COUNT * SIZE + (Operand::K_FAST ? x * STRIDE + k : k * STRIDE + x);
    }
};

// --- float32: every lane a grid of elements ---

// Which of a warp's LANES · T places along m or n a lane's j-th element is. Quads where shared memory is read four
// places at a time, else interleaved, so that neighbouring lanes read neighbouring rows.
template <bool K_FAST, int LANES, int T>
__device__ __forceinline__ int place(int lane, int j) {
    return !K_FAST && T % 4 == 0 ? (j / 4 * LANES + lane) * 4 + j % 4 : j * LANES + lane;
}

template <class S, bool K_FAST, int LANES, int T>
__device__ __forceinline__ void read_fragment(float (&f)[4][T], const float* slots, int number, int x, int k, int lane) {
    if constexpr (K_FAST) {
#pragma unroll
        for (int j = 0; j < T; ++j) {
            float4 q = *(const float4*)S::at(slots, number, x + place<K_FAST, LANES, T>(lane, j), k);
            f[0][j] = q.x, f[1][j] = q.y, f[2][j] = q.z, f[3][j] = q.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (T % 4 == 0) {
#pragma unroll
                for (int j = 0; j < T; j += 4) {
                    float4 q = *(const float4*)S::at(slots, number, x + place<K_FAST, LANES, T>(lane, j), k + i);
                    f[i][j] = q.x, f[i][j + 1] = q.y, f[i][j + 2] = q.z, f[i][j + 3] = q.w;
                }
            } else {
#pragma unroll
                for (int j = 0; j < T; ++j)
                    f[i][j] = *S::at(slots, number, x + place<K_FAST, LANES, T>(lane, j), k + i);
            }
        }
    }
}

template <class A, class B>
struct FmaTile {
    static constexpr int LANES_N = 32 / LANES_M;
    static constexpr int WARP_M = TILE_M / WARPS_M, WARP_N = TILE_N / WARPS_N;
    static constexpr int T_M = WARP_M / LANES_M, T_N = WARP_N / LANES_N;
    static_assert(T_M * LANES_M == WARP_M && T_N * LANES_N == WARP_N, "lanes must divide a warp's tile");
    using SlotsA = Slots<A, TILE_M>;
    using SlotsB = Slots<B, TILE_N>;

    float c[T_M][T_N];
    // PROMOTE: a tile's sums by themselves, so that no chain of roundings is longer than TILE_K.
    float part[PROMOTE ? T_M : 1][PROMOTE ? T_N : 1];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < T_M; ++i)
#pragma unroll
            for (int j = 0; j < T_N; ++j) c[i][j] = 0.0f;
    }

    // `meanwhile` is what else is to be done at the time: after the first of the products, which then keep it company.
    template <class F>
    __device__ __forceinline__ void add(const float* slots_a, const float* slots_b, int number, F meanwhile) {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        int lane_m = lane / LANES_N, lane_n = lane % LANES_N;
        int m = warp / WARPS_N * WARP_M, n = warp % WARPS_N * WARP_N;
        if constexpr (PROMOTE) {
#pragma unroll
            for (int i = 0; i < T_M; ++i)
#pragma unroll
                for (int j = 0; j < T_N; ++j) part[i][j] = 0.0f;
        }
#pragma unroll
        for (int k = 0; k < TILE_K; k += 4) {
            float a[4][T_M], b[4][T_N];
            read_fragment<SlotsA, A::K_FAST, LANES_M, T_M>(a, slots_a, number, m, k, lane_m);
            read_fragment<SlotsB, B::K_FAST, LANES_N, T_N>(b, slots_b, number, n, k, lane_n);
#pragma unroll
            for (int q = 0; q < 4; ++q)
#pragma unroll
                for (int i = 0; i < T_M; ++i)
#pragma unroll
                    for (int j = 0; j < T_N; ++j) {
                        float& sum = PROMOTE ? part[PROMOTE ? i : 0][PROMOTE ? j : 0] : c[i][j];
                        sum = fmaf(a[q][i], b[q][j], sum);
                    }
            if (k == 0) meanwhile();
        }
        if constexpr (PROMOTE) {
#pragma unroll
            for (int i = 0; i < T_M; ++i)
#pragma unroll
                for (int j = 0; j < T_N; ++j) c[i][j] += part[i][j];
        }
    }

    __device__ __forceinline__ void store(float* tile) const {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        int lane_m = lane / LANES_N, lane_n = lane % LANES_N;
        int m = warp / WARPS_N * WARP_M, n = warp % WARPS_N * WARP_N;
#pragma unroll
        for (int i = 0; i < T_M; ++i) {
            float* row = tile + (m + place<A::K_FAST, LANES_M, T_M>(lane_m, i)) * C_STRIDE + n;
#pragma unroll
            for (int j = 0; j < T_N; ++j) row[place<B::K_FAST, LANES_N, T_N>(lane_n, j)] = c[i][j];
        }
    }
};

// --- tensor cores: every warp a grid of 16 x 8 ---

#if ARITHMETIC > 0
template <class A, class B>
struct MmaTile {
    static constexpr int WARP_M = TILE_M / WARPS_M, WARP_N = TILE_N / WARPS_N;
    static constexpr int T_M = WARP_M / 16, T_N = WARP_N / 8;
    using SlotsA = Slots<A, TILE_M>;
    using SlotsB = Slots<B, TILE_N>;
    static constexpr bool SPLITTING = ARITHMETIC == 2;

    float c[T_M][T_N][4];

    __device__ __forceinline__ void clear() {
        static_assert(T_M * 16 == WARP_M && T_N * 8 == WARP_N, "16 x 8 must divide a warp's tile");
#pragma unroll
        for (int i = 0; i < T_M; ++i)
#pragma unroll
            for (int j = 0; j < T_N; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) c[i][j][e] = 0.0f;
    }

    // Rounds an element, as tensor cores cut off what TF32 has no bits for; SPLIT: `low` is what that leaves over. Here, though
    // each warp that reads an element does it again: on its way in, it would be read and written once more, and shared memory
    // is what the products wait for.
    __device__ __forceinline__ static void round(unsigned& high, unsigned& low) {
        float x = float_of(high);
        high = to_tf32(x);
        if constexpr (SPLITTING) {
            // An infinity or NaN is all in the high part: infinity less infinity would make a NaN of it.
            float rest = x - float_of(high);
            low = to_tf32(rest == rest ? rest : 0.0f);
        }
    }

    // A's fragment of 16 rows from m on, by ldmatrix where K runs along the rows of shared memory.
    __device__ __forceinline__ static void read_a(unsigned (&a)[4], const float* slots, int number, int m, int k, int lane) {
        if constexpr (A::K_FAST) {
            load_blocks(a, SlotsA::at(slots, number, m + lane % 16, k + lane / 16 * 4));
        } else {
#pragma unroll
            for (int e = 0; e < 4; ++e)
                a[e] = bits_of(*SlotsA::at(slots, number, m + lane / 4 + e % 2 * 8, k + lane % 4 + e / 2 * 4));
        }
    }

    // B's fragments of all T_N times 8 columns from n on.
    __device__ __forceinline__ static void read_b(unsigned (&b)[T_N][2], const float* slots, int number, int n, int k,
                                                  int lane) {
        if constexpr (B::K_FAST) {
#pragma unroll
            for (int j = 0; j < T_N; j += 2) {
                // Two fragments at a time; of an odd number the last one twice.
                unsigned two[4];
                int column = minimum(j + lane / 16, T_N - 1) * 8 + lane % 8;
                load_blocks(two, SlotsB::at(slots, number, n + column, k + lane / 8 % 2 * 4));
                b[j][0] = two[0], b[j][1] = two[1];
                if (j + 1 < T_N) b[j + 1 < T_N ? j + 1 : j][0] = two[2], b[j + 1 < T_N ? j + 1 : j][1] = two[3];
            }
        } else {
#pragma unroll
            for (int j = 0; j < T_N; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                    b[j][e] = bits_of(*SlotsB::at(slots, number, n + j * 8 + lane / 4, k + lane % 4 + e * 4));
        }
    }

    // `meanwhile` is what else is to be done at the time: after the first of the products, which then keep it company.
    template <class F>
    __device__ __forceinline__ void add(const float* slots_a, const float* slots_b, int number, F meanwhile) {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        int m = warp / WARPS_N * WARP_M, n = warp % WARPS_N * WARP_N;
        // Sums of at most 32 of K are the tensor cores' own: those truncate, here sums are rounded.
        float part[SPLITTING ? T_M : 1][SPLITTING ? T_N : 1][4];
#pragma unroll
        for (int k = 0; k < TILE_K; k += 8) {
            if constexpr (SPLITTING) {
                if (k % 32 == 0) {
#pragma unroll
                    for (int i = 0; i < T_M; ++i)
#pragma unroll
                        for (int j = 0; j < T_N; ++j)
#pragma unroll
                            for (int e = 0; e < 4; ++e) part[i][j][e] = 0.0f;
                }
            }
            unsigned b[T_N][2], b_low[T_N][2];
            read_b(b, slots_b, number, n, k, lane);
#pragma unroll
            for (int j = 0; j < T_N; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) round(b[j][e], b_low[j][e]);
#pragma unroll
            for (int i = 0; i < T_M; ++i) {
                unsigned a[4], a_low[4];
                read_a(a, slots_a, number, m + i * 16, k, lane);
#pragma unroll
                for (int e = 0; e < 4; ++e) round(a[e], a_low[e]);
#pragma unroll
                for (int j = 0; j < T_N; ++j) {
                    if constexpr (SPLITTING) {
                        mma_tf32(part[i][j], a_low, b[j]);
                        mma_tf32(part[i][j], a, b_low[j]);
                        mma_tf32(part[i][j], a, b[j]);
                    } else {
                        mma_tf32(c[i][j], a, b[j]);
                    }
                }
            }
            if (k == 0) meanwhile();
            if constexpr (SPLITTING) {
                if (k % 32 == 24 || k + 8 == TILE_K) {
#pragma unroll
                    for (int i = 0; i < T_M; ++i)
#pragma unroll
                        for (int j = 0; j < T_N; ++j)
#pragma unroll
                            for (int e = 0; e < 4; ++e) c[i][j][e] += part[i][j][e];
                }
            }
        }
    }

    __device__ __forceinline__ void store(float* tile) const {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        int g = lane / 4, t = lane % 4;
        int m = warp / WARPS_N * WARP_M, n = warp % WARPS_N * WARP_N;
#pragma unroll
        for (int i = 0; i < T_M; ++i)
#pragma unroll
            for (int j = 0; j < T_N; ++j) {
                float* at = tile + (m + i * 16 + g) * C_STRIDE + n + j * 8 + 2 * t;
                *(float2*)at = make_float2(c[i][j][0], c[i][j][1]);
                *(float2*)(at + 8 * C_STRIDE) = make_float2(c[i][j][2], c[i][j][3]);
            }
    }
};

template <class A, class B>
using Tile = MmaTile<A, B>;
#else
template <class A, class B>
using Tile = FmaTile<A, B>;
#endif

// --- a block's sums ---

// Sums of B's columns over k in float32, by the block's first TILE_N threads, in the blocks of the first rows alone, as
// all of a column would find the same: db is this of dz.
struct NoColumnSums {
    __device__ __forceinline__ void add(const float*, int) {}
};
template <class SlotsB>
struct ColumnSums {
    float sum = 0.0f;
    __device__ __forceinline__ void add(const float* slots_b, int number) {
        if (blockIdx.y > 0 || threadIdx.x >= TILE_N) return;
        // A tile by itself first: short chains of roundings.
        float part = 0.0f;
#pragma unroll 8
        for (int k = 0; k < TILE_K; ++k) part += *SlotsB::at(slots_b, number, threadIdx.x, k);
        sum += part;
    }
};

template <class A, class B>
struct Product {
    using SlotsA = Slots<A, TILE_M>;
    using SlotsB = Slots<B, TILE_N>;
    static constexpr int OPERANDS = SlotsA::COUNT * SlotsA::SIZE + SlotsB::COUNT * SlotsB::SIZE;
    static constexpr int C_SIZE = TILE_M * C_STRIDE;
    // gemm_tile.py asks for the shared memory; here is what it must not fall short of.
    static_assert(OPERANDS <= SHARED_FLOATS && C_SIZE <= SHARED_FLOATS, "SHARED_FLOATS is too small");
    static_assert(TILE_K % 8 == 0 && STAGES >= 2 && TILE_M % 4 == 0 && TILE_N % 4 == 0, "");

    // Leaves this block's part of the tile at (m, n) in `shared`. Barriers at both ends are the caller's and the
    // epilogue's: see `meet`.
    template <class Sums>
    __device__ __forceinline__ static void run(const A& a, const B& b, int m, int n, int K, float* shared, Sums& sums) {
        int num_tiles = divide_up(K, TILE_K);
        int part = SPLITS > 1 ? (int)blockIdx.z : 0;
        int first = (int)((long long)part * num_tiles / SPLITS);
        int count = (int)((long long)(part + 1) * num_tiles / SPLITS) - first;
        float* slots_a = shared;
        float* slots_b = shared + SlotsA::COUNT * SlotsA::SIZE;
        SlotsA to_a(a, m);
        SlotsB to_b(b, n);
        Tile<A, B> tile;
        tile.clear();
        for (int s = 0; s < STAGES - 1; ++s) {
            if (s < count) {
                to_a.copy(a, slots_a, s, m, (first + s) * TILE_K, K);
                to_b.copy(b, slots_b, s, n, (first + s) * TILE_K, K);
            }
            copy_async_commit();
        }
        if (count > 0) {
            to_a.fetch(a, m, first * TILE_K, K);
            to_b.fetch(b, n, first * TILE_K, K);
            to_a.store(a, slots_a, 0, m, first * TILE_K, K);
            to_b.store(b, slots_b, 0, n, first * TILE_K, K);
        }
        for (int s = 0; s < count; ++s) {
            copy_async_wait<STAGES - 2>();
            // Tile s is there for all, and nobody reads the slots of tile s - 1 any more.
            __syncthreads();
            int next = s + STAGES - 1, k = (first + s + 1) * TILE_K;
            tile.add(slots_a, slots_b, s, [&] {
                if (next < count) {
                    to_a.copy(a, slots_a, next, m, (first + next) * TILE_K, K);
                    to_b.copy(b, slots_b, next, n, (first + next) * TILE_K, K);
                }
                copy_async_commit();
                if (s + 1 < count) {
                    // Under way while the tile is multiplied.
                    to_a.fetch(a, m, k, K);
                    to_b.fetch(b, n, k, K);
                }
            });
            sums.add(slots_b, s);
            if (s + 1 < count) {
                to_a.store(a, slots_a, s + 1, m, k, K);
                to_b.store(b, slots_b, s + 1, n, k, K);
            }
        }
        copy_async_wait<0>();
        // The operands' memory is the tile's now.
        __syncthreads();
        tile.store(shared);
    }
};

// --- where the parts of K meet ---

// What an epilogue reads whole sums from, and the rows that are this block's.
struct Whole {
    const float* parts[SPLITS];
    int row_begin, row_end;

    __device__ __forceinline__ float at(int row, int column) const {
        float sum = parts[0][row * C_STRIDE + column];
#pragma unroll
        for (int s = 1; s < SPLITS; ++s) sum += parts[s][row * C_STRIDE + column];
        return sum;
    }
    __device__ __forceinline__ float4 quad(int row, int column) const {
        float4 sum = *(const float4*)(parts[0] + row * C_STRIDE + column);
#pragma unroll
        for (int s = 1; s < SPLITS; ++s) {
            float4 q = *(const float4*)(parts[s] + row * C_STRIDE + column);
            sum.x += q.x, sum.y += q.y, sum.z += q.z, sum.w += q.w;
        }
        return sum;
    }
};

// After `run`: false where this block has nothing more to do with the tile. `word` is a word of shared memory beyond the
// tile. After the epilogue comes `part`.
__device__ __forceinline__ bool meet(Whole& whole, float* shared, float* partials, unsigned* tickets, unsigned* word) {
    whole.row_begin = 0;
    whole.row_end = TILE_M;
    if constexpr (SPLITS == 1) {
        whole.parts[0] = shared;
        __syncthreads();
        return true;
    } else if constexpr (CLUSTERED) {
#if CLUSTERED
#pragma unroll
        for (int s = 0; s < SPLITS; ++s) whole.parts[s] = cluster_peer(shared, s);
        constexpr int ROWS = (TILE_M + SPLITS - 1) / SPLITS;
        whole.row_begin = minimum((int)cluster_rank() * ROWS, TILE_M);
        whole.row_end = minimum(whole.row_begin + ROWS, TILE_M);
        cluster_sync();
#endif
        return true;
    } else {
        constexpr int SIZE = TILE_M * C_STRIDE;
        unsigned number = blockIdx.y * gridDim.x + blockIdx.x;
        float* tiles = partials + (word64)number * SPLITS * SIZE;
        float* own = tiles + (word64)blockIdx.z * SIZE;
        __syncthreads();
        for (int q = threadIdx.x; q < TILE_M * (TILE_N / 4); q += THREADS) {
            int at = q / (TILE_N / 4) * C_STRIDE + q % (TILE_N / 4) * 4;
            *(float4*)(own + at) = *(const float4*)(shared + at);
        }
        if (!take_ticket(tickets + number, SPLITS, word)) return false;
#pragma unroll
        for (int s = 0; s < SPLITS; ++s) whole.parts[s] = tiles + (word64)s * SIZE;
        return true;
    }
}

// Lets go of the tile: its memory may be used again, or the block end.
__device__ __forceinline__ void part() {
#if CLUSTERED
    // A peer may still be reading.
    if constexpr (SPLITS > 1) cluster_leave();
#endif
    __syncthreads();
}

// Calls f(i, row, column) for the quads `first` + i · THREADS of this block's rows, i below TOGETHER; places are within the tile.
template <int TOGETHER, class F>
__device__ __forceinline__ void some_quads(const Whole& whole, int first, int count, int num_columns, F f) {
#pragma unroll
    for (int i = 0; i < TOGETHER; ++i) {
        int q = first + i * THREADS;
        int row = whole.row_begin + q / (TILE_N / 4), column = q % (TILE_N / 4) * 4;
        if (q < count && column < num_columns) f(i, row, column);
    }
}

// Calls before(i, row, column) and then after(i, row, column, sums) for every quad of this block's rows, for TOGETHER quads
// the one and then the other.
template <int TOGETHER, class Before, class After>
__device__ __forceinline__ void each_quads(const Whole& whole, int num_rows, int num_columns, Before before, After after) {
    int row_end = minimum(whole.row_end, num_rows), count = (row_end - whole.row_begin) * (TILE_N / 4);
    for (int first = (int)threadIdx.x; first < count; first += TOGETHER * THREADS) {
        some_quads<TOGETHER>(whole, first, count, num_columns, before);
        some_quads<TOGETHER>(whole, first, count, num_columns, [&](int i, int row, int column) {
            after(i, row, column, whole.quad(row, column));
        });
    }
}

// Calls f(row, column, sums) for every quad of this block's rows.
template <class F>
__device__ __forceinline__ void each_quad(const Whole& whole, int num_rows, int num_columns, F f) {
    each_quads<1>(
        whole, num_rows, num_columns, [](int, int, int) {},
        [&](int, int row, int column, float4 sums) { f(row, column, sums); });
}

// Writes up to four neighbouring elements of a row of `columns`.
__device__ __forceinline__ void write_quad(float* out, int row, int column, int columns, bool aligned, float4 q) {
    float* at = out + (long long)row * columns + column;
    if (aligned) {
        *(float4*)at = q;
    } else {
        at[0] = q.x;
        if (column + 1 < columns) at[1] = q.y;
        if (column + 2 < columns) at[2] = q.z;
        if (column + 3 < columns) at[3] = q.w;
    }
}

__device__ __forceinline__ bool is_aligned(const float* data, int columns) {
    return ALIGNED || ((((word64)data) & 15) == 0 && columns % 4 == 0);
}

}  // namespace tile

#if SPLITS > 1 && CLUSTERED
#define TILE_CLUSTER CLUSTER_OF(SPLITS)
#else
#define TILE_CLUSTER
#endif
