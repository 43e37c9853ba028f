// One step of a cell, from its pre-activations: layer norms, gates, recurrence and output gate, and
// their derivatives. Heads may have any size.
//
// Pre-activations have four parts, which are normalized first if they have norms: q, k, v (H each),
// and the gates i, f (NH each) and o (H) together. For every head,
//
//     i = exp(15 tanh(i / 15)) / √d    f = σ(f)    o = σ(o)
//     C = f C + i v kᵀ    n = f n + i k    y = C q / max(|nᵀ q|, 1)    h = o norm(y)
//
// Where f is above a half, f - 1 is used in its place, as in recurrence.h. The derivatives are those
// of docs/maths.md, "The kernel in C++", for a sequence of one step.
//
// Dimensions: B samples, NH heads, d head size (K and V), H = NH d.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace {

enum Norm { NORM_Q, NORM_K, NORM_V, NORM_GATES, NORM_HEADS, NORMS };
constexpr double SOFT_CAP = 15;  // as in preactivations.py

// The fields and their order must match step_bindings.py. All tensors are dense.
template <typename scalar> struct StepArgs {
    int64_t B, NH, d;
    const scalar *p, *c, *n;                        // (B, 4 H + 2 NH), (B, NH, d, d), (B, H)
    scalar *next_h, *next_c, *next_n;               // written, or read by the backward pass
    const scalar *weight[NORMS], *bias[NORMS];      // null where there is none
    double eps[NORMS];
    const scalar *grad_next_h, *grad_next_c, *grad_next_n;  // null where they are 0
    scalar *grad_p, *grad_c, *grad_n;
    scalar *grad_weight[NORMS], *grad_bias[NORMS];  // added to, sample by sample
};

// Writes x with mean 0 and variance 1, and returns its inverse standard deviation. Both are NaN
// where the variance has overflowed: zeros would hide that.
template <typename scalar>
scalar standardize(const scalar *x, int64_t width, double eps, scalar *out) {
    scalar sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < width; j++) sum += x[j];
    const scalar mean = sum / width;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < width; j++) {
        out[j] = x[j] - mean;
        squares += out[j] * out[j];
    }
    const scalar inverse = 1 / std::sqrt(squares / width + scalar(eps)) + (squares - squares);
    for (int64_t j = 0; j < width; j++) out[j] *= inverse;
    return inverse;
}

// Replaces the gradient of what standardize() has written by that of x.
template <typename scalar>
void standardize_backward(const scalar *out, int64_t width, scalar inverse, scalar *grad) {
    scalar sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
    for (int64_t j = 0; j < width; j++) {
        sum += grad[j];
        product += grad[j] * out[j];
    }
    const scalar mean = sum / width, slope = product / width;
    for (int64_t j = 0; j < width; j++) grad[j] = inverse * (grad[j] - mean - slope * out[j]);
}

// Computes one sample after the other, in buffers for one.
template <typename scalar> class Step : Vectors<scalar, VECTOR_BYTES / sizeof(scalar)> {
    static constexpr int LANES = VECTOR_BYTES / sizeof(scalar);
    using Base = Vectors<scalar, LANES>;
    using typename Base::vec;
    using Base::vecs;

    // The inputs of one head of the current sample, normalized, and its gates.
    struct Head {
        int64_t number, at;  // at: of its first unit in tensors (B, H)
        const scalar *q, *k, *v, *o;
        scalar log_i, i, f;
        bool open;  // whether f - 1 takes the place of f

        scalar decayed(scalar m) const { return open ? m + f * m : f * m; }
    };

    const StepArgs<scalar> &x;
    const int64_t NH, d, H, W;  // W: the width of p
    AlignedBuffer<scalar> standardized, parts, read, standardized_read, grad_read;
    AlignedBuffer<scalar> log_input_gate, input_gate, forget_gate, output_gate, zeros;
    bool has_norms = false;  // of the parts
    int64_t b = 0;
    const scalar *row = nullptr;  // the parts of the current sample
    scalar inverse[NORMS] = {};

    int64_t first(int part) const { return part * H; }
    int64_t width(int part) const { return part == NORM_GATES ? H + 2 * NH : H; }

    void begin(int64_t sample) {
        b = sample;
        row = x.p + b * W;
        if (has_norms) normalize_parts();
        const scalar *gates = row + 3 * H, cap = scalar(SOFT_CAP);
        const scalar key_scale = 1 / std::sqrt(scalar(d));
        std::memcpy(&log_input_gate[0], gates, NH * sizeof(scalar));
        std::memcpy(&forget_gate[0], gates + NH, NH * sizeof(scalar));
        std::memcpy(&output_gate[0], gates + 2 * NH, H * sizeof(scalar));
        for (int64_t j = 0; j < NH; j += LANES) {
            vec &log_i = *vecs(&log_input_gate[j]), &f = *vecs(&forget_gate[j]);
            log_i = cap * Base::tanh(log_i / cap);
            *vecs(&input_gate[j]) = Base::exp(log_i) * key_scale;
            const vec closing = Base::sigmoid(f > 0 ? -f : f);
            f = f > 0 ? -closing : closing;
        }
        for (int64_t j = 0; j < H; j += LANES) {
            vec &o = *vecs(&output_gate[j]);
            o = Base::sigmoid(o);
        }
    }

    void normalize_parts() {
        for (int part = NORM_Q; part <= NORM_GATES; part++) {
            const scalar *weight = x.weight[part], *bias = x.bias[part], *in = row + first(part);
            scalar *hat = &standardized[first(part)], *out = &parts[first(part)];
            if (!weight) {
                std::memcpy(out, in, width(part) * sizeof(scalar));
                continue;
            }
            inverse[part] = standardize(in, width(part), x.eps[part], hat);
            for (int64_t j = 0; j < width(part); j++) out[j] = hat[j] * weight[j] + bias[j];
        }
        row = &parts[0];
    }

    Head head(int64_t number) {
        const int64_t unit = number * d;
        const scalar f = forget_gate[number], *q = row + unit, *k = q + H, *v = k + H;
        return {number, b * H + unit, q, k, v, &output_gate[unit],
                log_input_gate[number], input_gate[number], f, std::signbit(f)};
    }

    void update(const Head &head) {
        const int64_t at = head.at;
        for (int64_t j = 0; j < d; j++)
            x.next_n[at + j] = head.decayed(x.n[at + j]) + head.i * head.k[j];
        for (int64_t r = 0; r < d; r++) {
            const scalar *c = x.c + (at + r) * d, value = head.i * head.v[r];
            scalar *next_c = x.next_c + (at + r) * d;
            for (int64_t j = 0; j < d; j++) next_c[j] = head.decayed(c[j]) + value * head.k[j];
        }
    }

    static scalar dot(const scalar *a, const scalar *b, int64_t length) {
        scalar sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < length; j++) sum += a[j] * b[j];
        return sum;
    }

    // Writes y to the buffer, and returns nᵀ q.
    scalar read_memory(const Head &head) {
        const scalar nq = dot(x.next_n + head.at, head.q, d), size = std::fabs(nq);
        // NaN where nᵀ q overflows: a quotient of 0 would hide that.
        const scalar scale = 1 / (size <= 1 ? 1 : size) + (nq - nq);
        for (int64_t r = 0; r < d; r++)
            read[r] = dot(x.next_c + (head.at + r) * d, head.q, d) * scale;
        return nq;
    }

    // Returns y after the norm of the head, if there is one, but before its weight.
    const scalar *normalize_read() {
        if (!x.weight[NORM_HEADS]) return &read[0];
        inverse[NORM_HEADS] = standardize(&read[0], d, x.eps[NORM_HEADS], &standardized_read[0]);
        return &standardized_read[0];
    }

    // Writes h, and returns 0, or NaN if h or n is not finite. A c that is not finite makes h so.
    scalar write(const Head &head) {
        const scalar *y = normalize_read(), *weight = x.weight[NORM_HEADS];
        scalar check = 0;
        for (int64_t j = 0; j < d; j++) {
            const scalar h = head.o[j] * y[j] * (weight ? weight[head.number * d + j] : 1);
            const scalar n = x.next_n[head.at + j];
            x.next_h[head.at + j] = h;
            check += (h - h) + (n - n);
        }
        return check;
    }

    // Writes the gradients of the normalized parts, and those of c and n.
    void differentiate(const Head &head) {
        const int64_t unit = head.number * d, at = head.at;
        const scalar *next_n = x.next_n + at, *q = head.q, *k = head.k, *v = head.v;
        scalar *grad_q = x.grad_p + b * W + unit, *grad_k = grad_q + H, *grad_v = grad_k + H;
        scalar *gates = x.grad_p + b * W + 3 * H, *grad_n = x.grad_n + at;

        const scalar nq = read_memory(head);
        differentiate_output(head, gates + 2 * NH + unit);
        const bool divides = std::fabs(nq) > 1;
        const scalar scale = divides ? 1 / std::fabs(nq) : 1;
        const scalar grad_nq = divides ? -dot(&grad_read[0], &read[0], d) / nq : 0;
        scalar grad_f = 0;
        for (int64_t j = 0; j < d; j++) {
            const scalar grad = (x.grad_next_n ? x.grad_next_n[at + j] : 0) + grad_nq * q[j];
            grad_q[j] = grad_nq * next_n[j];
            grad_k[j] = grad;
            grad_n[j] = head.decayed(grad);
            grad_f += grad * x.n[at + j];
        }
        for (int64_t r = 0; r < d; r++) {
            const int64_t line = (at + r) * d;
            const scalar *c = x.c + line, *next_c = x.next_c + line, reading = grad_read[r] * scale;
            const scalar *grad_next = x.grad_next_c ? x.grad_next_c + line : nullptr;
            scalar *grad_c = x.grad_c + line, sum_f = 0, sum_v = 0;
#pragma omp simd reduction(+ : sum_f, sum_v)
            for (int64_t j = 0; j < d; j++) {
                const scalar grad = (grad_next ? grad_next[j] : 0) + reading * q[j];
                grad_q[j] += reading * next_c[j];
                grad_k[j] += v[r] * grad;
                grad_c[j] = head.decayed(grad);
                sum_v += grad * k[j];
                sum_f += grad * c[j];
            }
            grad_v[r] = head.i * sum_v;
            grad_f += sum_f;
        }
        for (int64_t j = 0; j < d; j++) grad_k[j] *= head.i;
        const scalar capped = head.log_i / scalar(SOFT_CAP);
        gates[head.number] = dot(grad_k, k, d) * (1 - capped * capped);
        const scalar closing = std::fabs(head.f);
        gates[NH + head.number] = grad_f * closing * (1 - closing);
    }

    // Writes the gradient of o and, to the buffer, that of y.
    void differentiate_output(const Head &head, scalar *grad_o) {
        const scalar *y = normalize_read();
        const int64_t unit = head.number * d;
        for (int64_t j = 0; j < d; j++) {
            const scalar grad = x.grad_next_h ? x.grad_next_h[head.at + j] : 0, o = head.o[j];
            const scalar weight = x.weight[NORM_HEADS] ? x.weight[NORM_HEADS][unit + j] : 1;
            grad_o[j] = grad * y[j] * weight * o * (1 - o);
            if (x.weight[NORM_HEADS]) x.grad_weight[NORM_HEADS][unit + j] += grad * o * y[j];
            grad_read[j] = grad * o * weight;
        }
        if (x.weight[NORM_HEADS])
            standardize_backward(y, d, inverse[NORM_HEADS], &grad_read[0]);
    }

    // Heads of one unit without a norm of their own: loops over all of them are loops over vectors.
    bool has_single_units() const { return d == 1 && !x.weight[NORM_HEADS]; }

    // A memory after a step with the forget gate f, which is f - 1 where its sign bit is set.
    static scalar decayed(scalar m, scalar f) { return (std::signbit(f) ? m : 0) + f * m; }

    // Writes h, c and n of all units, and returns what write() does.
    scalar take_unit_steps() {
        const int64_t at = b * H;
        const scalar *q = row, *k = q + H, *v = k + H, *c = x.c + at, *n = x.n + at;
        const scalar *input = &input_gate[0], *forget = &forget_gate[0], *output = &output_gate[0];
        scalar *next_h = x.next_h + at, *next_c = x.next_c + at, *next_n = x.next_n + at, check = 0;
#pragma omp simd reduction(+ : check)
        for (int64_t j = 0; j < H; j++) {
            const scalar key = input[j] * k[j];
            next_n[j] = decayed(n[j], forget[j]) + key;
            next_c[j] = decayed(c[j], forget[j]) + key * v[j];
            const scalar nq = next_n[j] * q[j], size = std::fabs(nq);
            next_h[j] = output[j] * (next_c[j] * q[j] * (1 / (size <= 1 ? 1 : size) + (nq - nq)));
            check += (next_h[j] - next_h[j]) + (next_n[j] - next_n[j]);
        }
        return check;
    }

    // Writes the gradients of the normalized parts, c and n of all units.
    void differentiate_units() {
        const int64_t at = b * H;
        const scalar *q = row, *k = q + H, *v = k + H, *c = x.c + at, *n = x.n + at;
        const scalar *next_c = x.next_c + at, *next_n = x.next_n + at;
        const scalar *input = &input_gate[0], *forget = &forget_gate[0], *output = &output_gate[0];
        const scalar *log_input = &log_input_gate[0];
        const auto or_zeros = [&](const scalar *grad) { return grad ? grad + at : &zeros[0]; };
        const scalar *grad_h = or_zeros(x.grad_next_h), *grad_next_c = or_zeros(x.grad_next_c);
        const scalar *grad_next_n = or_zeros(x.grad_next_n);
        scalar *grad_q = x.grad_p + b * W, *grad_k = grad_q + H, *grad_v = grad_k + H;
        scalar *grad_i = grad_v + H, *grad_f = grad_i + H, *grad_o = grad_f + H;
        scalar *grad_c = x.grad_c + at, *grad_n = x.grad_n + at;
#pragma omp simd
        for (int64_t j = 0; j < H; j++) {
            const scalar nq = next_n[j] * q[j], size = std::fabs(nq), i = input[j], o = output[j];
            const scalar scale = 1 / (size <= 1 ? 1 : size) + (nq - nq);
            const scalar y = next_c[j] * q[j] * scale, read = grad_h[j] * o;
            const scalar grad_nq = -read * y * (size <= 1 ? 0 : std::copysign(scale, nq));
            const scalar gc = grad_next_c[j] + read * scale * q[j];
            const scalar gn = grad_next_n[j] + grad_nq * q[j];
            const scalar gk = i * (gn + gc * v[j]), capped = log_input[j] / scalar(SOFT_CAP);
            const scalar closing = std::fabs(forget[j]);
            grad_q[j] = grad_nq * next_n[j] + read * scale * next_c[j];
            grad_k[j] = gk;
            grad_v[j] = i * (gc * k[j]);
            grad_i[j] = gk * k[j] * (1 - capped * capped);
            grad_f[j] = (gn * n[j] + gc * c[j]) * closing * (1 - closing);
            grad_o[j] = read * y * (1 - o);
            grad_c[j] = decayed(gc, forget[j]);
            grad_n[j] = decayed(gn, forget[j]);
        }
    }

    // Replaces the gradients of the normalized parts by those of p.
    void differentiate_norms() {
        for (int part = NORM_Q; part <= NORM_GATES; part++) {
            const scalar *weight = x.weight[part], *hat = &standardized[first(part)];
            if (!weight) continue;
            scalar *grad = x.grad_p + b * W + first(part);
            for (int64_t j = 0; j < width(part); j++) {
                x.grad_weight[part][j] += grad[j] * hat[j];
                x.grad_bias[part][j] += grad[j];
                grad[j] *= weight[j];
            }
            standardize_backward(hat, width(part), inverse[part], grad);
        }
    }

  public:
    explicit Step(const StepArgs<scalar> &args)
        : x(args), NH(args.NH), d(args.d), H(NH * d), W(4 * H + 2 * NH) {
        for (auto *buffer : {&read, &standardized_read, &grad_read}) buffer->resize(d);
        for (auto *buffer : {&log_input_gate, &input_gate, &forget_gate, &output_gate})
            buffer->resize(H + LANES);  // a multiple of LANES, at least
        for (int part = NORM_Q; part <= NORM_GATES; part++) has_norms |= x.weight[part] != nullptr;
        if (has_norms) standardized.resize(W), parts.resize(W);
        if (has_single_units()) zeros.resize(H);
    }

    // Returns whether h and n are finite.
    bool forward() {
        scalar check = 0;
        for (int64_t sample = 0; sample < x.B; sample++) {
            begin(sample);
            if (has_single_units()) {
                check += take_unit_steps();
                continue;
            }
            for (int64_t number = 0; number < NH; number++) {
                const Head current = head(number);
                update(current);
                read_memory(current);
                check += write(current);
            }
        }
        return check == 0;
    }

    void backward() {
        for (int64_t sample = 0; sample < x.B; sample++) {
            begin(sample);
            if (has_single_units()) differentiate_units();
            else
                for (int64_t number = 0; number < NH; number++) differentiate(head(number));
            if (has_norms) differentiate_norms();
        }
    }
};

// Returns 1 if the results are finite, 0 if not, and -1 if memory runs out.
template <typename scalar> int take_step(const StepArgs<scalar> &x, bool backward) {
    try {
        const FlushToZero mode;
        Step<scalar> step(x);
        if (!backward) return step.forward();
        step.backward();
        return 1;
    } catch (const std::bad_alloc &) {
        return -1;
    }
}

}  // namespace
