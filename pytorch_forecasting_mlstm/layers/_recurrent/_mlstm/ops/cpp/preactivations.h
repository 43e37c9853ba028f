// From pre-activations to what the recurrence reads, and back for the gradients.
//
// Pre-activations p have W = 4 H + 2 NH columns: q, k and v (H each), and the gates i, f (NH each) and
// o (H). Each of q, k and v, and all gates together, may have a layer norm. Forward, this finds the
// moments of the parts, with which the recurrence normalizes q, k, v and o as it reads them, and
// opens the gates i and f. Backward, it turns the gradients of normalized parts into those of p, and
// sums up those of weights and biases. See docs/maths.md, "The kernel in C++".
#pragma once

#include <algorithm>
#include <atomic>
#include <new>

#include "kernel_args.h"
#include "threads.h"
#include "vectors.h"

namespace {

template <typename scalar>
struct Preactivations : Vectors<scalar, VECTOR_BYTES / sizeof(scalar)> {
    static constexpr int lanes = VECTOR_BYTES / sizeof(scalar);
    static constexpr int64_t BLOCK = 32;      // rows whose gates are computed together
    static constexpr scalar SOFT_CAP = 15;    // as in preactivations.py
    using Args = PreactivationArgs<scalar>;
    using Base = Vectors<scalar, lanes>;
    using typename Base::vec;
    using Base::vecs;

    // The buffers of one thread.
    struct Scratch {
        AlignedBuffer<scalar> i, f;  // of the rows of a block, (BLOCK, NH)
        AlignedBuffer<scalar> sums;  // gradients of weight and bias, of the rows of a block, (2, W)
        scalar *gate_i, *gate_f;

        explicit Scratch(const Args &x) {
            // Loops over whole vectors reach beyond the last number.
            for (auto *gates : {&i, &f}) gates->resize(BLOCK * x.NH + lanes);
            sums.resize(2 * (4 * x.H + 2 * x.NH));
            gate_i = &i[0], gate_f = &f[0];
        }
    };

    static scalar sum(const scalar *x, int64_t n) {
        vec sums = {};
        int64_t at = 0;
        for (; at + lanes <= n; at += lanes) sums += *vecs(x + at);
        scalar total = Base::horizontal_sum(sums);
        for (; at < n; at++) total += x[at];
        return total;
    }

    static scalar sum_of_squares(const scalar *x, int64_t n, scalar mean) {
        vec sums = {};
        int64_t at = 0;
        for (; at + lanes <= n; at += lanes) {
            const vec deviation = *vecs(x + at) - mean;
            sums += deviation * deviation;
        }
        scalar total = Base::horizontal_sum(sums);
        for (; at < n; at++) total += (x[at] - mean) * (x[at] - mean);
        return total;
    }

    static void find_moments(const Args &x, const scalar *p, scalar *moments) {
        for (int part = 0; part < 4; part++) {
            const scalar *columns = p + part * x.H;
            const int64_t n = width(x, part);
            const scalar mean = sum(columns, n) / n;
            const scalar variance = sum_of_squares(columns, n, mean) / n;
            moments[2 * part] = mean;
            // NaN where the variance has overflowed: an inverse of 0 would hide that.
            moments[2 * part + 1] = 1 / std::sqrt(variance + scalar(x.eps)) + (variance - variance);
        }
    }

    // Columns of q, k, v, or all gates, which come last.
    static int64_t width(const Args &x, int part) { return part < 3 ? x.H : x.H + 2 * x.NH; }

    // Rows are numbered sample by sample.
    static const scalar *row_of_p(const Args &x, int64_t row) {
        return x.p.at(row / x.T, row % x.T);
    }
    static scalar *moments_of(const Args &x, int64_t row) {
        return x.norms.moments.at(row / x.T, row % x.T);
    }

    // Puts i and f of the rows [first, end) into the buffers: one row after the other, normalized.
    static void read_gates(const Args &x, int64_t first, int64_t end, const Scratch &s) {
        for (int64_t row = first; row < end; row++) {
            const scalar *gates = row_of_p(x, row) + 3 * x.H;
            scalar *i = s.gate_i + (row - first) * x.NH, *f = s.gate_f + (row - first) * x.NH;
            std::memcpy(i, gates, x.NH * sizeof(scalar));
            std::memcpy(f, gates + x.NH, x.NH * sizeof(scalar));
            if (!x.norms.weight) continue;
            const scalar *moments = moments_of(x, row) + 6;
            const scalar *weight = x.norms.weight + 3 * x.H, *bias = x.norms.bias + 3 * x.H;
            for (int64_t h = 0; h < x.NH; h++) {
                i[h] = (i[h] - moments[0]) * moments[1] * weight[h] + bias[h];
                f[h] = (f[h] - moments[0]) * moments[1] * weight[x.NH + h] + bias[x.NH + h];
            }
        }
    }

    static bool is_padding(const Args &x, int64_t row) { return x.padding && x.padding[row]; }

    // Runs a pass over the rows [first, end), block by block.
    static void run(const Args &x, bool is_backward, int64_t first, int64_t end, Scratch &s,
                    double *sums) {
        for (; first < end; first += BLOCK) {
            const int64_t block_end = std::min(first + BLOCK, end);
            if (is_backward) backward(x, first, block_end, s, sums);
            else forward(x, first, block_end, s);
        }
    }

    // exp(cap(i)) and σ(f), where f - 1 takes the place of an f above a half: see recurrence.h.
    static void forward(const Args &x, int64_t first, int64_t end, Scratch &s) {
        if (x.norms.weight)
            for (int64_t row = first; row < end; row++)
                find_moments(x, row_of_p(x, row), moments_of(x, row));
        read_gates(x, first, end, s);
        const int64_t numbers = (end - first) * x.NH;
        for (int64_t at = 0; at < numbers; at += lanes) {
            vec &i = *vecs(s.gate_i + at), &f = *vecs(s.gate_f + at);
            i = Base::exp(SOFT_CAP * Base::tanh(i / SOFT_CAP));
            const vec closed = 1 / (1 + Base::exp(f < 0 ? -f : f));  // σ(-|f|)
            f = f < 0 ? closed : -closed;
        }
        std::memcpy(x.i + first * x.NH, s.gate_i, numbers * sizeof(scalar));
        std::memcpy(x.f + first * x.NH, s.gate_f, numbers * sizeof(scalar));
        for (int64_t row = first; row < end; row++)
            for (int64_t h = 0; h < x.NH && is_padding(x, row); h++)
                x.i[row * x.NH + h] = 0, x.f[row * x.NH + h] = -scalar(0);
    }

    // grad_p has the gradients of normalized q, k, v and o, and those of log i and log f.
    static void backward(const Args &x, int64_t first, int64_t end, Scratch &s, double *sums) {
        const int64_t W = 4 * x.H + 2 * x.NH;
        read_gates(x, first, end, s);
        for (int64_t at = 0; at < (end - first) * x.NH; at += lanes) {
            vec &i = *vecs(s.gate_i + at), &f = *vecs(s.gate_f + at);
            const vec capped = Base::tanh(i / SOFT_CAP);
            i = 1 - capped * capped;
            f = Base::sigmoid(-f);
        }
        std::memset(&s.sums[0], 0, 2 * W * sizeof(scalar));
        for (int64_t row = first; row < end; row++) {
            const scalar *i = s.gate_i + (row - first) * x.NH, *f = s.gate_f + (row - first) * x.NH;
            scalar *grad = x.grad_p.at(row / x.T, row % x.T), *gates = grad + 3 * x.H;
            for (int64_t h = 0; h < x.NH; h++) {
                gates[h] *= i[h];
                gates[x.NH + h] = is_padding(x, row) ? 0 : gates[x.NH + h] * f[h];
            }
            for (int part = 0; part < 4 && x.norms.weight; part++)
                differentiate_norm(x, row, part, grad + part * x.H, &s.sums[0]);
        }
        for (int64_t column = 0; column < 2 * W && x.norms.weight; column++)
            sums[column] += double(s.sums[column]);
    }

    // With y the normalized numbers before weight and bias: replaces the gradient g of a part by
    // (w g - mean(w g) - y mean(w g y)) / standard deviation, and adds g y and g to the sums.
    static void differentiate_norm(const Args &x, int64_t row, int part, scalar *grad,
                                   scalar *sums) {
        const int64_t n = width(x, part), W = 4 * x.H + 2 * x.NH, first = part * x.H;
        const scalar *p = row_of_p(x, row) + first, *weight = x.norms.weight + first;
        const scalar *moments = moments_of(x, row) + 2 * part;
        const scalar mean = moments[0], inverse = moments[1];
        scalar *grad_weight = sums + first, *grad_bias = sums + W + first;
        vec totals = {}, products = {};
        int64_t at = 0;
        for (; at + lanes <= n; at += lanes) {
            const vec y = (*vecs(p + at) - mean) * inverse, g = *vecs(grad + at);
            const vec weighted = g * *vecs(weight + at);
            totals += weighted;
            products += weighted * y;
            *vecs(grad_weight + at) += g * y;
            *vecs(grad_bias + at) += g;
        }
        scalar total = Base::horizontal_sum(totals), product = Base::horizontal_sum(products);
        for (; at < n; at++) {
            const scalar y = (p[at] - mean) * inverse, weighted = grad[at] * weight[at];
            total += weighted;
            product += weighted * y;
            grad_weight[at] += grad[at] * y;
            grad_bias[at] += grad[at];
        }
        total /= n, product /= n;
        for (at = 0; at + lanes <= n; at += lanes) {
            const vec y = (*vecs(p + at) - mean) * inverse;
            *vecs(grad + at) = (*vecs(grad + at) * *vecs(weight + at) - total - y * product) * inverse;
        }
        for (; at < n; at++) {
            const scalar y = (p[at] - mean) * inverse;
            grad[at] = (grad[at] * weight[at] - total - y * product) * inverse;
        }
    }
};

// Threads take slices of the rows. Their number does not depend on that of the threads, and neither
// do the sums. Returns 0 on success, 1 if memory runs out.
template <typename scalar>
int run_preactivations(const PreactivationArgs<scalar> &x, bool backward, int threads) {
    using P = Preactivations<scalar>;
    const int64_t rows = x.B * x.T, W = 4 * x.H + 2 * x.NH;
    const int64_t rows_per_slice = (rows + x.slices - 1) / x.slices;
    std::atomic<int64_t> next{0};
    std::atomic<bool> out_of_memory{false};
    in_threads(threads, [&] {
        const FlushToZero mode;
        try {
            typename P::Scratch scratch(x);
            for (int64_t slice; (slice = next++) < x.slices;) {
                double *sums = backward && x.norms.weight ? x.grad_affine + slice * 2 * W : nullptr;
                if (sums) std::fill(sums, sums + 2 * W, 0.);
                const int64_t end = std::min((slice + 1) * rows_per_slice, rows);
                P::run(x, backward, slice * rows_per_slice, end, scratch, sums);
            }
        } catch (const std::bad_alloc &) {
            out_of_memory = true;
        }
    });
    return out_of_memory;
}

}  // namespace
