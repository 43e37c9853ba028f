// Gates from their logarithms, at a scale at which nothing overflows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr double LOG_EMPTY = -1e30;  // m of an empty memory, as in ops/stabilization.py

// Takes the logarithms of the gates, (rows, T). The scale of a step is exp(m), where m is the
// running maximum of the logarithmic weights. Writes i = exp(log i - m),
// f = exp(log f + previous m - m), less 1 where that is above a half, and floor = exp(-m). The last
// m replaces the first.
template <typename scalar>
void stabilize(const scalar *log_i, const scalar *log_f, scalar *m, scalar *i, scalar *f,
               scalar *floor, int64_t rows, int64_t T, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
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

}  // namespace
