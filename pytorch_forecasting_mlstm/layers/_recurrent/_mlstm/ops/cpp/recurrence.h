// The mLSTM recurrence, step by step, with the memories of a sample's heads in the processor cache.
// The computation and its derivatives are described in docs/maths.md, "The kernel in C++".
//
// For every step and head, with i and f as numbers (not logarithms):
//
//     C = f C + i v kᵀ    n = f n + i k    D = max(|nᵀ q|, floor)    h = C q / D
//
// and h times σ(o) if there is an output gate. Either C and n are the true ones and floor is 1, or
// both are divided by the scale that stabilize() chooses, and floor is 1 divided by that scale.
//
// Where f is above a half, f - 1 is passed in its place, with its sign bit set even if it is 0. The
// memory of such an open gate lasts for 1 / (1 - f) steps, and f itself would keep few digits of
// that number.
//
// Dimensions: B samples, T steps, NH heads, d head size (K and V), d = blocks × lanes.
#pragma once

#include "kernel_args.h"
#include "two_level_sum.h"
#include "vectors.h"

namespace {

constexpr int64_t CHUNK = 64;  // steps between the memories that are kept for the backward pass
constexpr int64_t SPAN = 32;   // steps between two folds of a TwoLevelSum; divides CHUNK

// The buffers of one thread.
template <typename scalar> struct Scratch {
    SumBuffers<scalar> memory, normalizer, grad_memory, grad_normalizer;
    AlignedBuffer<double> grad_f;
    AlignedBuffer<scalar> checkpoints, grad_reads, grad_nq;
};

template <typename scalar, int d>
struct Recurrence : Vectors<scalar, lanes_for<scalar>(d)> {
    static constexpr int lanes = lanes_for<scalar>(d), blocks = d / lanes, size = d * d;
    // So many sums at a time stay in registers.
    static constexpr int tile = blocks % 4 == 0 ? 4 : blocks % 3 == 0 ? 3 : blocks;
    using Base = Vectors<scalar, lanes>;
    using typename Base::vec;
    using Base::horizontal_sum;
    using Base::sigmoid;
    using Base::vecs;
    using Matrix = TwoLevelSum<scalar, lanes, size>;
    using Vector = TwoLevelSum<scalar, lanes, d>;

    // The heads [first, end) of sample b. Only they are in the buffers, as number 0, 1, ...
    struct Task {
        const KernelArgs<scalar> &x;
        int64_t b, first, end;
        Scratch<scalar> &s;

        int64_t heads() const { return end - first; }
        int64_t start() const { return b * x.NH + first; }
        // The memory after the last step of each chunk: c, then n.
        scalar *checkpoint(int64_t t, int64_t g) const {
            return &s.checkpoints[(t / CHUNK * heads() + g) * (size + d)];
        }
        // The gradient of C q.
        scalar *grad_read(int64_t t, int64_t g) const {
            return &s.grad_reads[(t * heads() + g) * d];
        }
        // The gradient of nᵀ q, and q · grad_q.
        scalar *grad_nq(int64_t t, int64_t g) const { return &s.grad_nq[(t * heads() + g) * 2]; }
        bool ends_chunk(int64_t t) const { return t % CHUNK == CHUNK - 1 || t == x.T - 1; }
        int64_t span_end(int64_t t) const { return std::min(t + SPAN, x.T); }
    };

    // A step of one head.
    struct Step {
        const scalar *q, *k, *v, *o;  // o is null without an output gate
        scalar i, f, floor;
        bool open;  // whether f - 1 takes the place of f

        Step(const KernelArgs<scalar> &x, int64_t b, int64_t t, int64_t h, bool reads_o = true)
            : q(x.q.at(b, t) + h * d), k(x.k.at(b, t) + h * d), v(x.v.at(b, t) + h * d),
              o(reads_o && x.o.data ? x.o.at(b, t) + h * d : nullptr),
              i(x.i.at(b, t)[h] * scalar(x.key_scale)), f(x.f.at(b, t)[h]),
              floor(x.floor.at(b, t)[h]), open(std::signbit(f)) {
            if (!x.norms.weight) return;
            const int64_t H = x.NH * d;
            const scalar *moments = x.norms.moments.at(b, t);
            q = normalize(x.norms, q, moments, h * d, normalized[0]);
            k = normalize(x.norms, k, moments + 2, H + h * d, normalized[1]);
            v = normalize(x.norms, v, moments + 4, 2 * H + h * d, normalized[2]);
            if (o) o = normalize(x.norms, o, moments + 6, 3 * H + 2 * x.NH + h * d, normalized[3]);
        }
        Step(const Step &) = delete;  // it may point into itself

      private:
        alignas(64) scalar normalized[4][d];

        // Normalizes the units of a head, which begin at the column `first` of the pre-activations.
        static const scalar *normalize(const Norms<scalar> &norms, const scalar *x,
                                       const scalar *moments, int64_t first, scalar *into) {
            const vec *weight = vecs(norms.weight + first), *bias = vecs(norms.bias + first);
            for (int l = 0; l < blocks; l++)
                vecs(into)[l] = (vecs(x)[l] - moments[0]) * moments[1] * weight[l] + bias[l];
            return into;
        }
    };

    // A NaN stays a NaN.
    static scalar clamp_min(scalar x, scalar floor) { return x <= floor ? floor : x; }

    // 1 / max(|x|, floor), or NaN where x has overflowed: a quotient of 0 would hide that.
    static scalar reciprocal(scalar x, scalar floor) {
        return 1 / clamp_min(std::fabs(x), floor) + (x - x);
    }

    // m after a step with the forget gate f, which is f - 1 if the gate is open.
    static vec decayed(vec m, scalar f, bool open) { return open ? m + f * m : f * m; }

    // For each row j of a matrix of d rows: m = decayed m + left[j] right, out += reader[j] m. What
    // the sum has in its first level is read at the scale of `decay`.
    template <bool open>
    static void update_and_read(Matrix &m, scalar f, const scalar *left, const vec *right,
                                const scalar *reader, scalar decay, vec *out) {
        vec *const recent = m.recent;  // in registers, which those of m are not
        const vec *const base = m.base;
        for (int first = 0; first < blocks; first += tile) {
            vec recent_read[tile] = {}, base_read[tile] = {};
            for (int j = 0; j < d; j++)
                for (int l = 0; l < tile; l++) {
                    const int at = j * blocks + first + l;
                    const vec row = decayed(recent[at], f, open) + left[j] * right[first + l];
                    recent[at] = row;
                    recent_read[l] += reader[j] * row;
                    base_read[l] += reader[j] * base[at];
                }
            for (int l = 0; l < tile; l++) out[first + l] = decay * base_read[l] + recent_read[l];
        }
    }

    // For each row j of m: m = decayed m + left[j] right, out += reader[j] m, and dots[j] = m · with.
    // If the matrix decays after it is read, `decay` does not include f.
    template <bool open, bool decays_first>
    static void read_both(Matrix &m, scalar f, const scalar *left, const vec *right_in,
                          const scalar *reader, const vec *with_in, scalar decay, vec *out, vec *dots) {
        vec *__restrict const recent = m.recent;
        const vec *__restrict const base = m.base;
        vec sums[blocks] = {}, right[blocks], with[blocks];
        for (int l = 0; l < blocks; l++) right[l] = right_in[l], with[l] = with_in[l];
        for (int group = 0; group < blocks; group++) {
            const int first = group * lanes;
            const auto read_row = [&](int r) __attribute__((always_inline)) {
                const int j = first + r;
                const scalar left_j = left[j], reader_j = reader[j];
                vec product = {};
                for (int l = 0; l < blocks; l++) {
                    const int at = j * blocks + l;
                    vec row = recent[at];
                    if (decays_first) row = decayed(row, f, open);
                    row += left_j * right[l];
                    recent[at] = decays_first ? row : decayed(row, f, open);
                    const vec total = decay * base[at] + row;
                    sums[l] += reader_j * total;
                    product += total * with[l];
                }
                return product;
            };
            dots[group] = Base::horizontal_sums(read_row);
        }
        for (int l = 0; l < blocks; l++) out[l] = sums[l];
    }

    static void transpose(const scalar *m, scalar *into) {
        for (int r = 0; r < d; r++)
            for (int s = 0; s < d; s++) into[s * d + r] = m[r * d + s];
    }

    static void forward(const Task &task) {
        const auto &[x, b, first, end, s] = task;
        const int64_t heads = task.heads(), start = task.start();
        s.memory.resize(heads, size);  // transposed
        s.normalizer.resize(heads, d);
        for (int64_t g = 0; g < heads; g++) {
            transpose(x.c + (start + g) * size, s.memory.base(g));
            std::memcpy(s.normalizer.base(g), x.n + (start + g) * d, d * sizeof(scalar));
        }
        for (int64_t t = 0; t < x.T; t += SPAN)
            for (int64_t g = 0; g < heads; g++) read_span(task, g, t);
        for (int64_t g = 0; g < heads; g++) {
            transpose(s.memory.base(g), x.c + (start + g) * size);
            std::memcpy(x.n + (start + g) * d, s.normalizer.base(g), d * sizeof(scalar));
        }
    }

    static void read_span(const Task &task, int64_t g, int64_t first_t) {
        const auto &[x, b, first, end, s] = task;
        const int64_t h = first + g;
        Matrix memory(s.memory, g);
        Vector normalizer(s.normalizer, g);
        Decay decay;
        for (int64_t t = first_t; t < task.span_end(first_t); t++) {
            const Step step(x, b, t, h);
            decay.multiply(step.f, step.open);
            const scalar since = scalar(decay.factor);
            vec v[blocks], read[blocks], nq = {};
            for (int l = 0; l < blocks; l++) {
                v[l] = vecs(step.v)[l] * step.i;
                vec &n = normalizer.recent[l];
                n = decayed(n, step.f, step.open) + step.i * vecs(step.k)[l];
                nq += (since * normalizer.base[l] + n) * vecs(step.q)[l];
            }
            if (step.open)
                update_and_read<true>(memory, step.f, step.k, v, step.q, since, read);
            else update_and_read<false>(memory, step.f, step.k, v, step.q, since, read);
            const scalar inverse = reciprocal(horizontal_sum(nq), step.floor);
            vec *out = vecs(x.h.at(b, t) + h * d);
            for (int l = 0; l < blocks; l++) {
                vec y = read[l] * inverse;
                if (step.o) y *= sigmoid(vecs(step.o)[l]);
                out[l] = y;
            }
        }
        memory.fold(decay);
        normalizer.fold(decay);
    }

    // Runs forward in time once more, for the gradients of what reads the memory, and then backward
    // for those of what is written into it.
    static void backward(const Task &task) {
        const auto &[x, b, first, end, s] = task;
        const int64_t heads = task.heads(), start = task.start();
        const int64_t chunks = (x.T + CHUNK - 1) / CHUNK;
        for (auto *matrices : {&s.memory, &s.grad_memory}) matrices->resize(heads, size);
        for (auto *vectors : {&s.normalizer, &s.grad_normalizer}) vectors->resize(heads, d);
        s.grad_f.resize(heads);
        s.checkpoints.resize(chunks * heads * (size + d));
        s.grad_reads.resize(x.T * heads * d);
        s.grad_nq.resize(x.T * heads * 2);
        for (int64_t g = 0; g < heads; g++) {
            std::memcpy(s.memory.base(g), x.c + (start + g) * size, size * sizeof(scalar));
            std::memcpy(s.grad_memory.base(g), x.grad_c + (start + g) * size,
                        size * sizeof(scalar));
            std::memcpy(s.normalizer.base(g), x.n + (start + g) * d, d * sizeof(scalar));
            std::memcpy(s.grad_normalizer.base(g), x.grad_n + (start + g) * d, d * sizeof(scalar));
        }
        for (int64_t t = 0; t < x.T; t += SPAN)
            for (int64_t g = 0; g < heads; g++) differentiate_reads(task, g, t);
        for (int64_t t = (x.T - 1) / SPAN * SPAN; t >= 0; t -= SPAN)
            for (int64_t g = 0; g < heads; g++) differentiate_writes(task, g, t);
        for (int64_t g = 0; g < heads; g++) {
            std::memcpy(x.grad_c + (start + g) * size, s.grad_memory.base(g),
                        size * sizeof(scalar));
            std::memcpy(x.grad_n + (start + g) * d, s.grad_normalizer.base(g), d * sizeof(scalar));
        }
    }

    // Writes the gradients of q and o, and what differentiate_writes needs.
    static void differentiate_reads(const Task &task, int64_t g, int64_t first_t) {
        const auto &[x, b, first, end, s] = task;
        const int64_t h = first + g, end_t = task.span_end(first_t);
        Matrix memory(s.memory, g);
        Vector normalizer(s.normalizer, g);
        Decay decay;
        for (int64_t t = first_t; t < end_t; t++) {
            const Step step(x, b, t, h);
            decay.multiply(step.f, step.open);
            const scalar since = scalar(decay.factor);
            scalar *grad_read = task.grad_read(t, g);
            vec n[blocks], ik[blocks], o[blocks], read[blocks], gq[blocks], nq = {};
            for (int l = 0; l < blocks; l++) {
                ik[l] = vecs(step.k)[l] * step.i;
                vec &recent = normalizer.recent[l];
                recent = decayed(recent, step.f, step.open) + ik[l];
                n[l] = since * normalizer.base[l] + recent;
                nq += n[l] * vecs(step.q)[l];
            }
            const scalar y = horizontal_sum(nq), inverse = reciprocal(y, step.floor);
            const bool divides = !(std::fabs(y) <= step.floor);
            const vec *grad_h = vecs(x.grad_h.at(b, t) + h * d);
            for (int l = 0; l < blocks; l++) {
                o[l] = step.o ? sigmoid(vecs(step.o)[l]) : vec{} + 1;
                vecs(grad_read)[l] = grad_h[l] * o[l] * inverse;
            }
            const vec *q = vecs(step.q);
            if (step.open) read_both<true, true>(memory, step.f, step.v, ik, grad_read, q, since, gq, read);
            else read_both<false, true>(memory, step.f, step.v, ik, grad_read, q, since, gq, read);
            vec products = {};
            for (int l = 0; l < blocks; l++) {
                const vec product = vecs(grad_read)[l] * read[l];
                if (step.o) vecs(x.grad_o.at(b, t) + h * d)[l] = product * (1 - o[l]);
                products += product;
            }
            const scalar p = horizontal_sum(products);
            const scalar grad_nq = -p * (divides ? std::copysign(inverse, y) : 0);
            vec *grad_q = vecs(x.grad_q.at(b, t) + h * d);
            for (int l = 0; l < blocks; l++) grad_q[l] = gq[l] + grad_nq * n[l];
            task.grad_nq(t, g)[0] = grad_nq;
            task.grad_nq(t, g)[1] = divides ? 0 : p;
        }
        memory.fold(decay);
        normalizer.fold(decay);
        if (task.ends_chunk(end_t - 1)) {
            scalar *checkpoint = task.checkpoint(end_t - 1, g);
            std::memcpy(checkpoint, s.memory.base(g), size * sizeof(scalar));
            std::memcpy(checkpoint + size, s.normalizer.base(g), d * sizeof(scalar));
        }
    }

    // Writes the gradients of k, v, log i, log f, and of the first state.
    static void differentiate_writes(const Task &task, int64_t g, int64_t first_t) {
        const auto &[x, b, first, end, s] = task;
        const int64_t h = first + g, last_t = task.span_end(first_t) - 1;
        Matrix memory(s.grad_memory, g);
        Vector normalizer(s.grad_normalizer, g);
        Decay decay;
        double &grad_f = s.grad_f[g];
        if (task.ends_chunk(last_t)) {  // anew, so that rounding errors do not add up for long
            const vec *c = vecs(task.checkpoint(last_t, g)), *n = c + d * blocks;
            vec sum = {};
            for (int l = 0; l < d * blocks; l++) sum += memory.base[l] * c[l];
            for (int l = 0; l < blocks; l++) sum += normalizer.base[l] * n[l];
            grad_f = horizontal_sum(sum);
        }
        for (int64_t t = last_t; t >= first_t; t--) {
            const Step step(x, b, t, h, false);
            const scalar *grad_read = task.grad_read(t, g), *grad_nq = task.grad_nq(t, g);
            const scalar since = scalar(decay.factor);
            vec gk[blocks], gv[blocks], gn[blocks], qs[blocks];
            for (int l = 0; l < blocks; l++) {
                qs[l] = vecs(step.q)[l];
                vec &recent = normalizer.recent[l];
                recent += grad_nq[0] * qs[l];
                gn[l] = since * normalizer.base[l] + recent;
                recent = decayed(recent, step.f, step.open);
            }
            const vec *k = vecs(step.k);
            if (step.open) read_both<true, false>(memory, step.f, grad_read, qs, step.v, k, since, gk, gv);
            else read_both<false, false>(memory, step.f, grad_read, qs, step.v, k, since, gk, gv);
            decay.multiply(step.f, step.open);
            vec products = {}, *grad_k = vecs(x.grad_k.at(b, t) + h * d);
            vec *grad_v = vecs(x.grad_v.at(b, t) + h * d);
            for (int l = 0; l < blocks; l++) {
                gk[l] = (gk[l] + gn[l]) * step.i;
                products += gk[l] * vecs(step.k)[l];
                grad_k[l] = gk[l];
                grad_v[l] = gv[l] * step.i;
            }
            const scalar grad_i = horizontal_sum(products);
            x.grad_i.at(b, t)[h] = grad_i;
            grad_f += double(grad_nq[1]) - double(grad_i);
            x.grad_f.at(b, t)[h] = scalar(grad_f);
        }
        memory.fold(decay);
        normalizer.fold(decay);
    }
};

}  // namespace
