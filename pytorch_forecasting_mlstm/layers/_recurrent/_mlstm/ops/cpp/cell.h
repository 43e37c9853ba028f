// A whole cell, sample by sample: projection, layer norms, gates, recurrence, and their gradients.
//
// The pre-activations of a sample are in the buffers of a thread, and the backward pass computes them
// again. They are four times as large as the input and the output, and no other memory is needed for
// them.
#pragma once

#include <algorithm>
#include <atomic>
#include <new>

#include "kernel_args.h"
#include "matrix_product.h"
#include "preactivations.h"
#include "recurrence.h"
#include "threads.h"

namespace {

template <typename scalar, int d> struct Cell {
    using Args = CellArgs<scalar>;
    using Rows = Preactivations<scalar>;
    using Sequence = Recurrence<scalar, d>;
    using Product = MatrixProduct<scalar>;

    // The buffers of one thread, for one sample. All but the input have `wide` columns.
    struct Buffers {
        AlignedBuffer<scalar> x, p, grad_p, grad_x, grad_h, moments, i, f, ones;
        AlignedBuffer<scalar> grad_weight;  // of the steps since the last flush
        AlignedBuffer<scalar> grad_bias;    // of the rows of a block
        int64_t steps = 0;
        bool is_first_flush = true;  // of a slice
        typename Rows::Scratch rows;
        Scratch<scalar> sequence;

        Buffers(const Args &args, const PreactivationArgs<scalar> &rows_args, bool backward)
            : rows(rows_args) {
            x.resize(args.T * args.input_wide);
            std::memset(&x[0], 0, args.T * args.input_wide * sizeof(scalar));
            p.resize(args.T * args.wide);
            grad_p.resize((backward ? args.T : 1) * args.wide);
            if (backward) grad_x.resize(args.T * args.input_wide);
            if (backward && args.h_bits.data) grad_h.resize(args.T * args.NH * d);
            if (backward) grad_weight.resize(width(args) * args.input_wide);
            if (backward) grad_bias.resize(args.wide);
            moments.resize(args.T * 8);
            for (auto *gates : {&i, &f}) gates->resize(args.T * args.NH);
            ones.resize(args.NH);
            std::fill(&ones[0], &ones[0] + args.NH, scalar(1));
        }
    };

    static int64_t width(const Args &x) { return 4 * x.NH * d + 2 * x.NH; }

    // The rows of one sample: of `s` if it is given.
    static PreactivationArgs<scalar> rows_of(const Args &x, int64_t b, Buffers *s) {
        PreactivationArgs<scalar> rows{};
        rows.B = 1, rows.T = x.T, rows.NH = x.NH, rows.H = x.NH * d, rows.eps = x.eps;
        rows.norms.weight = x.norm_weight, rows.norms.bias = x.norm_bias;
        rows.padding = x.padding ? x.padding + b * x.T : nullptr;
        if (!s) return rows;
        rows.p = {&s->p[0], 0, x.wide};
        rows.norms.moments = {&s->moments[0], 0, 8};
        rows.i = &s->i[0], rows.f = &s->f[0];
        rows.grad_p = {&s->grad_p[0], 0, x.wide};
        return rows;
    }

    // The recurrence reads the buffers, where all samples have the same place.
    static KernelArgs<scalar> recurrence_of(const Args &x, Buffers &s) {
        const int64_t H = x.NH * d;
        KernelArgs<scalar> y{};
        y.B = x.B, y.T = x.T, y.NH = x.NH, y.d = d, y.key_scale = 1 / std::sqrt(double(d));
        const auto columns = [&](AlignedBuffer<scalar> &buffer, int64_t first) {
            return StridedTensor<scalar>{&buffer[0] + first, 0, x.wide};
        };
        const auto constant = [](StridedTensor<scalar> z) {
            return StridedTensor<const scalar>{z.data, z.sample_stride, z.step_stride};
        };
        y.q = constant(columns(s.p, 0)), y.k = constant(columns(s.p, H));
        y.v = constant(columns(s.p, 2 * H)), y.o = constant(columns(s.p, 3 * H + 2 * x.NH));
        y.norms = {x.norm_weight, x.norm_bias, {&s.moments[0], 0, 8}};
        y.i = {&s.i[0], 0, x.NH}, y.f = {&s.f[0], 0, x.NH}, y.floor = {&s.ones[0], 0, 0};
        y.h = x.h, y.c = x.c, y.n = x.n;
        y.grad_h = x.grad_h, y.grad_c = x.grad_c, y.grad_n = x.grad_n;
        y.grad_q = columns(s.grad_p, 0), y.grad_k = columns(s.grad_p, H);
        y.grad_v = columns(s.grad_p, 2 * H), y.grad_o = columns(s.grad_p, 3 * H + 2 * x.NH);
        y.grad_i = columns(s.grad_p, 3 * H), y.grad_f = columns(s.grad_p, 3 * H + x.NH);
        return y;
    }

    // Copies n numbers of a step, with dropout if there are random numbers.
    static void copy(const Args &x, const StridedTensor<const int16_t> &bits, int64_t b, int64_t t,
                     int64_t n, const scalar *from, scalar *into) {
        if (!bits.data) {
            std::memcpy(into, from, n * sizeof(scalar));
            return;
        }
        const int16_t *numbers = bits.at(b, t), limit = int16_t(x.largest_dropped);
        const scalar scale = scalar(x.dropout_scale);
        // a product, so that a NaN stays one
        for (int64_t at = 0; at < n; at++)
            into[at] = from[at] * (numbers[at] > limit ? scale : scalar(0));
    }

    static void open(const Args &x, int64_t b, Buffers &s) {
        for (int64_t t = 0; t < x.T; t++)
            copy(x, x.x_bits, b, t, x.I, x.x.at(b, t), &s.x[t * x.input_wide]);
        Product::run({x.T, x.wide, x.I, {&s.x[0], x.input_wide, 1}, x.transposed, x.wide, x.bias, 0,
                      &s.p[0], x.wide});
        Rows::run(rows_of(x, b, &s), false, 0, x.T, s.rows, nullptr);
    }

    static void forward(const Args &x, int64_t b, Buffers &s) {
        open(x, b, s);
        const auto recurrence = recurrence_of(x, s);
        Sequence::forward({recurrence, b, 0, x.NH, s.sequence});
        for (int64_t t = 0; t < x.T && x.h_bits.data; t++)
            copy(x, x.h_bits, b, t, x.NH * d, x.h.at(b, t), x.h.at(b, t));
    }

    // A sum of more steps would lose digits.
    static constexpr int64_t MOST_STEPS = 512;

    static void flush(const Args &x, Buffers &s, int64_t slice) {
        const int64_t numbers = width(x) * x.input_wide;
        double *sums = x.grad_weight + slice * numbers;
        if (s.is_first_flush)
            for (int64_t at = 0; at < numbers; at++) sums[at] = s.steps ? double(s.grad_weight[at]) : 0;
        else if (s.steps)
            for (int64_t at = 0; at < numbers; at++) sums[at] += double(s.grad_weight[at]);
        s.steps = 0, s.is_first_flush = false;
    }

    // Adds the rows of grad_p to the sums of a slice, first in blocks that lose no digits.
    static void sum_rows(const Args &x, Buffers &s, double *sums) {
        constexpr int lanes = Rows::lanes;
        for (int64_t first = 0; first < x.T; first += Rows::BLOCK) {
            const int64_t end = std::min(first + Rows::BLOCK, x.T);
            for (int64_t column = 0; column < x.wide; column += lanes) {
                auto sum = *Rows::vecs(&s.grad_p[first * x.wide + column]);
                for (int64_t t = first + 1; t < end; t++)
                    sum += *Rows::vecs(&s.grad_p[t * x.wide + column]);
                *Rows::vecs(&s.grad_bias[column]) = sum;
            }
            for (int64_t column = 0; column < width(x); column++)
                sums[column] += double(s.grad_bias[column]);
        }
    }

    // Adds the gradients of parameters to those of a slice.
    static void backward(const Args &x, int64_t b, Buffers &s, int64_t slice) {
        const int64_t W = width(x);
        open(x, b, s);
        auto recurrence = recurrence_of(x, s);
        if (x.h_bits.data) {
            const int64_t H = x.NH * d;
            for (int64_t t = 0; t < x.T; t++)
                copy(x, x.h_bits, b, t, H, x.grad_h.at(b, t), &s.grad_h[t * H]);
            recurrence.grad_h = {&s.grad_h[0], 0, H};
        }
        Sequence::backward({recurrence, b, 0, x.NH, s.sequence});
        double *grad_affine = x.norm_weight ? x.grad_affine + slice * 2 * W : nullptr;
        Rows::run(rows_of(x, b, &s), true, 0, x.T, s.rows, grad_affine);
        sum_rows(x, s, x.grad_bias + slice * W);
        for (int64_t t = 0; t < x.T;) {
            const int64_t steps = std::min(x.T - t, MOST_STEPS - s.steps);
            scalar *sums = &s.grad_weight[0];
            Product::run({W, x.input_wide, steps, {&s.grad_p[t * x.wide], 1, x.wide},
                          &s.x[t * x.input_wide], x.input_wide, s.steps ? sums : nullptr,
                          x.input_wide, sums, x.input_wide});
            s.steps += steps, t += steps;
            if (s.steps == MOST_STEPS) flush(x, s, slice);
        }
        if (!x.grad_x.data) return;
        Product::run({x.T, x.input_wide, W, {&s.grad_p[0], x.wide, 1}, x.weight, x.input_wide,
                      nullptr, 0, &s.grad_x[0], x.input_wide});
        for (int64_t t = 0; t < x.T; t++)
            copy(x, x.x_bits, b, t, x.I, &s.grad_x[t * x.input_wide], x.grad_x.at(b, t));
    }

    // Threads take slices of the samples. Their number does not depend on that of the threads, and
    // neither do the sums. Returns 0 on success, 1 if memory runs out.
    static int run(const Args &x, bool is_backward, int threads) {
        const int64_t per_slice = (x.B + x.slices - 1) / x.slices, W = width(x);
        std::atomic<int64_t> next{0};
        std::atomic<bool> out_of_memory{false};
        in_threads(threads, [&] {
            const FlushToZero mode;
            try {
                Buffers buffers(x, rows_of(x, 0, nullptr), is_backward);
                for (int64_t slice; (slice = next++) < x.slices;) {
                    if (is_backward) {
                        buffers.is_first_flush = true;
                        std::fill_n(x.grad_bias + slice * W, W, 0.);
                        if (x.norm_weight) std::fill_n(x.grad_affine + slice * 2 * W, 2 * W, 0.);
                    }
                    const int64_t end = std::min((slice + 1) * per_slice, x.B);
                    for (int64_t b = slice * per_slice; b < end; b++) {
                        if (is_backward) backward(x, b, buffers, slice);
                        else forward(x, b, buffers);
                    }
                    if (is_backward) flush(x, buffers, slice);
                }
            } catch (const std::bad_alloc &) {
                out_of_memory = true;
            }
        });
        return out_of_memory;
    }
};

}  // namespace
