// Products of small matrices, which fit the cache.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "vectors.h"

namespace {

// A matrix whose element (r, c) is data[r row_stride + c column_stride].
template <typename scalar> struct Matrix {
    const scalar *data;
    int64_t row_stride, column_stride;
};

// Calls work(0), work(1), ... with constants, so that what they index stays in registers.
template <typename Work, int... n>
[[gnu::always_inline]] inline void for_each(const Work &work, std::integer_sequence<int, n...>) {
    (work(std::integral_constant<int, n>()), ...);
}

template <int count, typename Work> [[gnu::always_inline]] inline void for_each(const Work &work) {
    for_each(work, std::make_integer_sequence<int, count>());
}

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
        const scalar *a = x.a.data + row * x.a.row_stride;
        const scalar *b = x.b + column;
        vec sums[rows * vectors];
        // The first step sets the sums, since zeros would have to be read from memory.
        for_each<rows * vectors>([&](auto n) {
            sums[n] = a[n / vectors * x.a.row_stride] * vecs(b)[n % vectors];
        });
        for (int64_t k = 1; k < x.K; k++) {
            a += x.a.column_stride, b += x.b_stride;
            for_each<rows * vectors>([&](auto n) {
                sums[n] += a[n / vectors * x.a.row_stride] * vecs(b)[n % vectors];
            });
        }
        if (x.initial) {
            const scalar *initial = x.initial + row * x.initial_stride + column;
            for_each<rows * vectors>([&](auto n) {
                sums[n] += vecs(initial + n / vectors * x.initial_stride)[n % vectors];
            });
        }
        scalar *out = x.out + row * x.out_stride + column;
        for_each<rows * vectors>([&](auto n) {
            vecs(out + n / vectors * x.out_stride)[n % vectors] = sums[n];
        });
    }
};

}  // namespace
