// Gates from their logarithms, at a scale at which nothing overflows.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "threads.h"

namespace {

constexpr double LOG_EMPTY = -1e30;  // m of an empty memory, as in ops/stabilization.py

// Takes the logarithms of the gates, (rows, T). The scale of a step is exp(m), where m is the
// running maximum of the logarithmic weights. Writes i = exp(log i - m),
// f = exp(log f + previous m - m), less 1 where that is above a half, and floor = exp(-m). The last
// m replaces the first.
template <typename scalar>
void stabilize_rows(const scalar *log_i, const scalar *log_f, scalar *m, scalar *i, scalar *f,
                    scalar *floor, int64_t first_row, int64_t end, int64_t T) {
    for (int64_t row = first_row; row < end; row++) {
        double previous_m = m[row];
        const int64_t last = (row + 1) * T - 1;
        for (int64_t at = row * T; at <= last; at++) {
            const double decayed = log_f[at] + previous_m;
            double current_m = std::max({decayed, double(log_i[at]), LOG_EMPTY});
            if (at == last) {  // it is returned as a scalar, so round it up to one here
                scalar rounded = scalar(current_m);
                if (rounded < current_m) rounded = std::nextafter(rounded, scalar(INFINITY));
                current_m = rounded;
            }
            const scalar log_decay = scalar(decayed - current_m);
            i[at] = std::exp(scalar(log_i[at] - current_m));
            f[at] = log_decay > scalar(-0.69) ? -std::fabs(std::expm1(log_decay))
                                              : std::exp(log_decay);
            floor[at] = std::exp(scalar(-current_m));
            previous_m = current_m;
        }
        m[row] = scalar(previous_m);
    }
}

template <typename scalar>
void stabilize(const scalar *log_i, const scalar *log_f, scalar *m, scalar *i, scalar *f,
               scalar *floor, int64_t rows, int64_t T, int threads) {
    const int64_t rows_per_task = rows / (4 * int64_t(threads)) + 1;
    std::atomic<int64_t> next{0};
    in_threads(threads, [&] {
        for (int64_t first; (first = next.fetch_add(rows_per_task)) < rows;)
            stabilize_rows(log_i, log_f, m, i, f, floor, first,
                           std::min(first + rows_per_task, rows), T);
    });
}

}  // namespace
