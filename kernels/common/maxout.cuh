// The maximum over a unit's pieces, from a tile of their product: what layers and convolutions of maxout units share.

#pragma once
#include "layer.cuh"

namespace maxout {

constexpr int UNITS = PIECES <= TILE_N ? TILE_N / PIECES : 1;
constexpr int CHUNKS = (PIECES + TILE_N - 1) / TILE_N;

struct Winner {
    float y;
    int piece;

    // As np.maximum: a NaN wins, the first one; of equals the first stays.
    __device__ __forceinline__ void challenge(float z, int p) {
        if (!(z <= y) && !is_nan(y)) {
            y = z;
            piece = p;
        }
    }
};

// z = input · W (I, U·P) + b for M rows; calls write(row, unit, winner) for each. Where P > TILE_N a tile is a part of
// one unit's pieces, and the block goes through the parts with a running maximum. ROWS_FAST: neighbouring threads have
// neighbouring rows, else neighbouring units: as is contiguous where it is written.
template <bool ROWS_FAST, class Input, class Write>
__device__ __forceinline__ void forward(const Input& input, const float* W, const float* b, int M, int I, int U,
                                        float* partials, unsigned* tickets, Write write) {
    DYNAMIC_SHARED(memory);
    float* shared = (float*)memory;
    int m = blockIdx.y * TILE_M, unit = blockIdx.x * UNITS;
    tile::NoColumnSums none;
    tile::Whole whole;
    // With several chunks a thread has one row and keeps its winner.
    static_assert(CHUNKS == 1 || (TILE_M <= tile::THREADS && SPLITS == 1) || sizeof(Input) == 0, "");
    Winner running = {0.0f, 0};
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
        int n = unit * PIECES + chunk * TILE_N;
        tile::Plain<false> weights{tile::Matrix(W, I, U * PIECES, n)};
        tile::Product<Input, tile::Plain<false>>::run(input, weights, m, n, I, shared, none);
        if (!tile::meet(whole, shared, partials, tickets, (unsigned*)(shared + SHARED_FLOATS))) return;
        int row_end = minimum(whole.row_end, M - m);
        if constexpr (CHUNKS == 1) {
            int num_units = minimum(UNITS, U - unit), num_rows = row_end - whole.row_begin;
            if constexpr (SPLITS > 1) {
                // Four columns at a time from the other blocks, to where this one's own rows are, which nobody else reads:
                // a unit's pieces one by one from every block took a fifth of the kernel's time.
                tile::each_quad(whole, M - m, TILE_N, [&](int row, int column, float4 sums) {
                    *(float4*)(shared + row * tile::C_STRIDE + column) = sums;
                });
                __syncthreads();
            }
            for (int q = (int)threadIdx.x; q < num_rows * UNITS; q += tile::THREADS) {
                int row = whole.row_begin + (ROWS_FAST ? q % num_rows : q / UNITS);
                int u = ROWS_FAST ? q / num_rows : q % UNITS;
                if (u >= num_units) continue;
                const float* z = shared + row * tile::C_STRIDE + u * PIECES;
                Winner winner = {z[0] + b[n + u * PIECES], 0};
#pragma unroll 8
                for (int p = 1; p < PIECES; ++p) winner.challenge(z[p] + b[n + u * PIECES + p], p);
                write(m + row, unit + u, winner);
            }
        } else {
            int row = threadIdx.x;
            if (row < row_end) {
                int first = chunk * TILE_N, count = minimum(TILE_N, PIECES - first);
                for (int p = 0; p < count; ++p) {
                    float z = whole.at(row, p) + b[n + p];
                    if (first + p == 0)
                        running = {z, 0};
                    else
                        running.challenge(z, first + p);
                }
                if (chunk == CHUNKS - 1) write(m + row, unit, running);
            }
        }
        tile::part();
    }
}

}  // namespace maxout
