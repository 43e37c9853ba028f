// Products of small matrices, which fit the cache.
#pragma once

#include <cstdint>

#include "vectors.h"

namespace {

// A matrix whose element (r, c) is data[r row_stride + c column_stride].
template <typename scalar> struct Matrix {
    const scalar *data;
    int64_t row_stride, column_stride;
};

template <typename scalar>
struct MatrixProduct : Vectors<scalar, VECTOR_BYTES / sizeof(scalar)> {
    static constexpr int lanes = VECTOR_BYTES / sizeof(scalar);
    // The sums of a tile stay in registers, of which there are 32 with AVX-512, and 16 without.
    static constexpr int tile_rows = 6, tile_vectors = VECTOR_BYTES == 64 ? 4 : 2;
    using Base = Vectors<scalar, lanes>;
    using typename Base::vec;
    using Base::vecs;

    // out (M, N) = initial + a (M, K) b (K, N). Rows of b, out and initial are dense, and N is a
    // multiple of `lanes`. `initial` may be null, `out` itself, or one row, with a stride of 0.
    struct Problem {
        int64_t M, N, K;
        Matrix<scalar> a;
        const scalar *b;
        int64_t b_stride;
        const scalar *initial;
        int64_t initial_stride;
        scalar *out;
        int64_t out_stride;
    };

    static void run(const Problem &x) {
        int64_t column = 0;
        for (; column + tile_vectors * lanes <= x.N; column += tile_vectors * lanes)
            run_columns<tile_vectors>(x, column);
        for (; column < x.N; column += lanes) run_columns<1>(x, column);
    }

    template <int vectors> static void run_columns(const Problem &x, int64_t column) {
        int64_t row = 0;
        for (; row + tile_rows <= x.M; row += tile_rows) run_tile<tile_rows, vectors>(x, row, column);
        for (; row + 2 <= x.M; row += 2) run_tile<2, vectors>(x, row, column);
        if (row < x.M) run_tile<1, vectors>(x, row, column);
    }

    template <int rows, int vectors>
    static void run_tile(const Problem &x, int64_t row, int64_t column) {
        vec sums[rows][vectors] = {};
        if (x.initial)
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < vectors; v++)
                    sums[r][v] = vecs(x.initial + (row + r) * x.initial_stride + column)[v];
        const scalar *a = x.a.data + row * x.a.row_stride;
        const scalar *b = x.b + column;
        for (int64_t k = 0; k < x.K; k++, a += x.a.column_stride, b += x.b_stride)
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < vectors; v++)
                    sums[r][v] += a[r * x.a.row_stride] * vecs(b)[v];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++)
                vecs(x.out + (row + r) * x.out_stride + column)[v] = sums[r][v];
    }
};

}  // namespace
