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
#include "vectors.h"

namespace {

constexpr int64_t CHUNK = 64;  // steps between the memories that are kept for the backward pass

// The buffers of one thread. Matrices have a row for each value, or for each key.
template <typename scalar> struct Scratch {
    AlignedBuffer<scalar> by_value, by_key, normalizer, grad_by_key, grad_f;
    AlignedBuffer<scalar> checkpoints, grad_reads, grad_normalizers;
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
        scalar *grad_normalizer(int64_t t, int64_t g) const {
            return &s.grad_normalizers[(t * heads() + g) * 2];
        }
        bool ends_chunk(int64_t t) const { return t % CHUNK == CHUNK - 1 || t == x.T - 1; }
    };

    // A NaN stays a NaN.
    static scalar clamp_min(scalar x, scalar floor) { return x <= floor ? floor : x; }

    // 1 / max(|x|, floor), or NaN where x has overflowed: a quotient of 0 would hide that.
    static scalar reciprocal(scalar x, scalar floor) {
        return 1 / clamp_min(std::fabs(x), floor) + (x - x);
    }

    // m after a step with the forget gate f, which is f - 1 if the gate is open.
    static vec decayed(vec m, scalar f, bool open) { return open ? m + f * m : f * m; }

    // For each row j of a matrix of d rows: m = decayed m + left[j] right, out += reader[j] m.
    template <bool open>
    static void update_and_read(vec *m, scalar f, const scalar *left, const vec *right,
                                const scalar *reader, vec *out) {
        for (int first = 0; first < blocks; first += tile)
            for (int j = 0; j < d; j++)
                for (int l = first; l < first + tile; l++) {
                    const vec row = decayed(m[j * blocks + l], f, open) + left[j] * right[l];
                    m[j * blocks + l] = row;
                    out[l] += reader[j] * row;
                }
    }

    // The same, but the matrix decays after it is read.
    template <bool open>
    static void add_and_read(vec *m, scalar f, const scalar *left, const vec *right,
                             const scalar *reader, vec *out) {
        for (int first = 0; first < blocks; first += tile)
            for (int j = 0; j < d; j++)
                for (int l = first; l < first + tile; l++) {
                    const vec row = m[j * blocks + l] + left[j] * right[l];
                    m[j * blocks + l] = decayed(row, f, open);
                    out[l] += reader[j] * row;
                }
    }

    static void transpose(const scalar *m, scalar *into) {
        for (int r = 0; r < d; r++)
            for (int s = 0; s < d; s++) into[s * d + r] = m[r * d + s];
    }

    static void forward(const Task &task) {
        const auto &[x, b, first, end, s] = task;
        const scalar key_scale = scalar(x.key_scale);
        s.by_key.resize((end - first) * size);
        for (int64_t h = first; h < end; h++)
            transpose(x.c + (b * x.NH + h) * size, &s.by_key[(h - first) * size]);

        for (int64_t t = 0; t < x.T; t++) {
            const scalar *q_t = x.q.at(b, t), *k_t = x.k.at(b, t), *v_t = x.v.at(b, t);
            const scalar *o_t = x.o.data ? x.o.at(b, t) : nullptr;
            const scalar *i_t = x.i.at(b, t), *f_t = x.f.at(b, t), *floor_t = x.floor.at(b, t);
            scalar *h_t = x.h.at(b, t);
            for (int64_t h = first; h < end; h++) {
                const scalar *q = q_t + h * d, *k = k_t + h * d;
                const scalar i = i_t[h] * key_scale, f = f_t[h];
                const bool open = std::signbit(f);
                vec *n = vecs(x.n + (b * x.NH + h) * d), v[blocks], read[blocks], nq = {};
                for (int l = 0; l < blocks; l++) {
                    v[l] = vecs(v_t + h * d)[l] * i;
                    n[l] = decayed(n[l], f, open) + i * vecs(k)[l];
                    nq += n[l] * vecs(q)[l];
                    read[l] = vec{};
                }
                vec *memory = vecs(&s.by_key[(h - first) * size]);
                if (open) update_and_read<true>(memory, f, k, v, q, read);
                else update_and_read<false>(memory, f, k, v, q, read);
                const scalar inverse = reciprocal(horizontal_sum(nq), floor_t[h]);
                for (int l = 0; l < blocks; l++) {
                    vec y = read[l] * inverse;
                    if (o_t) y *= sigmoid(vecs(o_t + h * d)[l]);
                    vecs(h_t + h * d)[l] = y;
                }
            }
        }
        for (int64_t h = first; h < end; h++)
            transpose(&s.by_key[(h - first) * size], x.c + (b * x.NH + h) * size);
    }

    // Runs forward in time once more, for the gradients of what reads the memory, and then backward
    // for those of what is written into it.
    static void backward(const Task &task) {
        const auto &[x, b, first, end, s] = task;
        const int64_t heads = task.heads(), start = task.start();
        const int64_t chunks = (x.T + CHUNK - 1) / CHUNK;
        s.by_value.assign(x.c + start * size, heads * size);
        s.normalizer.assign(x.n + start * d, heads * d);
        s.by_key.resize(heads * size);
        s.grad_by_key.resize(heads * size);
        s.grad_f.resize(heads);
        s.checkpoints.resize(chunks * heads * (size + d));
        s.grad_reads.resize(x.T * heads * d);
        s.grad_normalizers.resize(x.T * heads * 2);
        for (int64_t g = 0; g < heads; g++) {
            transpose(&s.by_value[g * size], &s.by_key[g * size]);
            transpose(x.grad_c + (start + g) * size, &s.grad_by_key[g * size]);
        }
        differentiate_reads(task);
        differentiate_writes(task);
    }

    // Writes the gradients of q and o, and what differentiate_writes needs.
    static void differentiate_reads(const Task &task) {
        const auto &[x, b, first, end, s] = task;
        const scalar key_scale = scalar(x.key_scale);
        for (int64_t t = 0; t < x.T; t++) {
            const scalar *q_t = x.q.at(b, t), *k_t = x.k.at(b, t), *v_t = x.v.at(b, t);
            const scalar *o_t = x.o.data ? x.o.at(b, t) : nullptr;
            const scalar *i_t = x.i.at(b, t), *f_t = x.f.at(b, t), *floor_t = x.floor.at(b, t);
            const scalar *grad_t = x.grad_h.at(b, t);
            scalar *grad_q = x.grad_q.at(b, t), *grad_o = o_t ? x.grad_o.at(b, t) : nullptr;
            for (int64_t g = 0; g < end - first; g++) {
                const int64_t h = first + g;
                const scalar *q = q_t + h * d, *k = k_t + h * d, *v = v_t + h * d;
                const scalar i = i_t[h] * key_scale, f = f_t[h];
                const bool open = std::signbit(f);
                scalar *grad_read = task.grad_read(t, g);
                vec *n = vecs(&s.normalizer[g * d]), iv[blocks], ik[blocks];
                vec read[blocks], gq[blocks], nq = {};
                for (int l = 0; l < blocks; l++) {
                    iv[l] = vecs(v)[l] * i;
                    ik[l] = vecs(k)[l] * i;
                    n[l] = decayed(n[l], f, open) + ik[l];
                    nq += n[l] * vecs(q)[l];
                    read[l] = gq[l] = vec{};
                }
                vec *by_key = vecs(&s.by_key[g * size]);
                if (open) update_and_read<true>(by_key, f, k, iv, q, read);
                else update_and_read<false>(by_key, f, k, iv, q, read);

                const scalar y = horizontal_sum(nq), inverse = reciprocal(y, floor_t[h]);
                const bool divides = !(std::fabs(y) <= floor_t[h]);
                vec products = {};
                for (int l = 0; l < blocks; l++) {
                    vec grad = vecs(grad_t + h * d)[l], product = grad * (read[l] * inverse);
                    if (o_t) {
                        const vec o = sigmoid(vecs(o_t + h * d)[l]);
                        grad *= o;
                        product *= o;
                        vecs(grad_o + h * d)[l] = product * (1 - o);
                    }
                    products += product;
                    vecs(grad_read)[l] = grad * inverse;
                }
                const scalar p = horizontal_sum(products), grad_nq = divides ? -p / y : 0;
                vec *by_value = vecs(&s.by_value[g * size]);
                if (open) update_and_read<true>(by_value, f, v, ik, grad_read, gq);
                else update_and_read<false>(by_value, f, v, ik, grad_read, gq);
                for (int l = 0; l < blocks; l++)
                    vecs(grad_q + h * d)[l] = gq[l] + grad_nq * n[l];
                task.grad_normalizer(t, g)[0] = grad_nq;
                task.grad_normalizer(t, g)[1] = divides ? 0 : p;

                if (task.ends_chunk(t)) {
                    scalar *checkpoint = task.checkpoint(t, g);
                    std::memcpy(checkpoint, &s.by_value[g * size], size * sizeof(scalar));
                    std::memcpy(checkpoint + size, n, d * sizeof(scalar));
                }
            }
        }
    }

    // Writes the gradients of k, v, log i, log f, and of the first state.
    static void differentiate_writes(const Task &task) {
        const auto &[x, b, first, end, s] = task;
        const scalar key_scale = scalar(x.key_scale);
        for (int64_t t = x.T - 1; t >= 0; t--) {
            const scalar *q_t = x.q.at(b, t), *k_t = x.k.at(b, t), *v_t = x.v.at(b, t);
            const scalar *i_t = x.i.at(b, t), *f_t = x.f.at(b, t);
            scalar *grad_k = x.grad_k.at(b, t), *grad_v = x.grad_v.at(b, t);
            scalar *grad_i = x.grad_i.at(b, t), *grad_f = x.grad_f.at(b, t);
            for (int64_t g = 0; g < end - first; g++) {
                const int64_t h = first + g;
                const scalar *q = q_t + h * d, *k = k_t + h * d, *v = v_t + h * d;
                const scalar *grad_read = task.grad_read(t, g);
                const scalar grad_nq = task.grad_normalizer(t, g)[0];
                const scalar i = i_t[h] * key_scale, f = f_t[h];
                const bool open = std::signbit(f);
                scalar *grad_c = x.grad_c + (task.start() + g) * size;
                vec *grad_n = vecs(x.grad_n + (task.start() + g) * d);
                vec gk[blocks], gv[blocks], qs[blocks];
                if (task.ends_chunk(t)) {  // anew, so that rounding errors do not add up for long
                    const vec *c = vecs(task.checkpoint(t, g));
                    vec sum = {};
                    for (int l = 0; l < d * blocks; l++) sum += vecs(grad_c)[l] * c[l];
                    for (int l = 0; l < blocks; l++) sum += grad_n[l] * c[d * blocks + l];
                    s.grad_f[g] = horizontal_sum(sum);
                }
                for (int l = 0; l < blocks; l++) {
                    qs[l] = vecs(q)[l];
                    gk[l] = grad_n[l] + grad_nq * qs[l];
                    gv[l] = vec{};
                    grad_n[l] = decayed(gk[l], f, open);
                }
                if (open) add_and_read<true>(vecs(grad_c), f, grad_read, qs, v, gk);
                else add_and_read<false>(vecs(grad_c), f, grad_read, qs, v, gk);
                vec *grad_by_key = vecs(&s.grad_by_key[g * size]);
                if (open) add_and_read<true>(grad_by_key, f, q, vecs(grad_read), k, gv);
                else add_and_read<false>(grad_by_key, f, q, vecs(grad_read), k, gv);
                vec products = {};
                for (int l = 0; l < blocks; l++) {
                    gk[l] *= i;
                    products += gk[l] * vecs(k)[l];
                    vecs(grad_k + h * d)[l] = gk[l];
                    vecs(grad_v + h * d)[l] = gv[l] * i;
                }
                grad_i[h] = horizontal_sum(products);
                grad_f[h] = s.grad_f[g] += task.grad_normalizer(t, g)[1] - grad_i[h];
            }
        }
    }
};

}  // namespace
