// The mLSTM's recurrence, step by step, with the memories of a sample's heads in the cache. What it
// computes, and how it is differentiated: docs/maths.md, "The kernel in C++".
//
// For every step and head, with i and f as numbers (not logarithms):
//
//     C = f C + i v kᵀ    n = f n + i k    D = max(|nᵀ q|, e)    h = C q / D
//
// and h times σ(o) where there is an output gate. C and n are the true ones and e is 1; or both are
// kept divided by a scale, as stabilize() chooses it, and e is 1 divided by that.
//
// Where f is above a half, f - 1 is given in its place, with its sign bit set, be it 0: the memory
// of an open gate lasts for 1 / (1 - f) steps, of which f itself would keep few digits.
//
// Letters as elsewhere: B samples, T steps, NH heads, d head size (K and V), d = blocks × lanes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace {

constexpr int64_t CHECKPOINT = 64;  // steps after which the memory is kept for the way back
constexpr double LOG_EMPTY = -1e30;     // m of an empty memory, as in ops/stabilization.py

// A tensor (B, T, width): width is dense, samples and steps lie so many numbers apart.
template <typename scalar> struct Steps {
    scalar *first;
    int64_t of_sample, of_step;
    scalar *at(int64_t b, int64_t t) const { return first + b * of_sample + t * of_step; }
};

// What Python hands over; the fields and their order are those of bindings.py.
template <typename scalar> struct KernelArgs {
    int64_t B, T, NH, d;
    double key_scale;                          // of k, with which i is multiplied
    Steps<const scalar> q, k, v, o;            // (B, T, H), or nothing for o
    Steps<const scalar> i, f, e;               // (B, T, NH)
    Steps<scalar> h;                           // (B, T, H)
    scalar *c, *n;                             // (B, NH, d, d) by value and key, (B, NH, d)
    Steps<const scalar> grad_h;
    Steps<scalar> grad_q, grad_k, grad_v, grad_o, grad_i, grad_f;  // of log i and log f
    scalar *grad_c, *grad_n;                   // of the last state, then of the first
};

// Numbers that begin where a cache line does: a vector across two lines takes twice the time.
template <typename scalar> class Numbers {
    struct alignas(64) Line {
        scalar numbers[64 / sizeof(scalar)];
    };
    std::vector<Line> lines;

  public:
    void resize(int64_t n) { lines.resize(n * sizeof(scalar) / sizeof(Line) + 1); }
    void assign(const scalar *x, int64_t n) {
        resize(n);
        std::memcpy(&(*this)[0], x, n * sizeof(scalar));
    }
    scalar &operator[](int64_t i) { return reinterpret_cast<scalar *>(lines.data())[i]; }
};

// Numbers too small to be normal are taken as 0: they are slow, and add nothing.
struct FlushToZero {
#if defined(__SSE__)
    unsigned before = _mm_getcsr();
    FlushToZero() { _mm_setcsr(before | 0x8040); }
    ~FlushToZero() { _mm_setcsr(before); }
#endif
};

template <typename scalar> struct Number;
template <> struct Number<float> {
    using integer = int32_t;
    static constexpr int terms = 7, mantissa = 23, bias = 127;
    static constexpr float largest = 87.f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};
template <> struct Number<double> {
    using integer = int64_t;
    static constexpr int terms = 13, mantissa = 52, bias = 1023;
    static constexpr double largest = 708., ln2_high = 6.93145751953125e-1,
                            ln2_low = 1.42860682030941723212e-6;
};

template <typename scalar, int lanes, int blocks> struct Recurrence {
    static constexpr int d = blocks * lanes, size = d * d;
    using N = Number<scalar>;
    static constexpr int bytes = lanes * sizeof(scalar);
    typedef scalar vec __attribute__((vector_size(bytes), aligned(sizeof(scalar)), may_alias));
    typedef typename N::integer whole __attribute__((vector_size(bytes)));

    static const vec *vecs(const scalar *x) { return reinterpret_cast<const vec *>(x); }
    static vec *vecs(scalar *x) { return reinterpret_cast<vec *>(x); }

    static scalar total(vec x) {
        scalar y[lanes];
        std::memcpy(y, &x, sizeof y);
        for (int w = lanes / 2; w; w /= 2)
            for (int l = 0; l < w; l++) y[l] += y[l + w];
        return y[0];
    }

    static scalar at_least(scalar e, scalar x) { return x <= e ? e : x; }  // a NaN stays one

    // 1 / max(|x|, e), NaN where x has overflowed: a quotient of 0 would hide that.
    static scalar reciprocal(scalar x, scalar e) {
        return 1 / at_least(e, std::fabs(x)) + (x - x);
    }

    // 1 / (1 + exp(-x)): exp by 2^n and a series for what is left, |r| < ln(2) / 2.
    static vec sigmoid(vec x) {
        constexpr scalar round = scalar(1.5) * (typename N::integer(1) << N::mantissa);
        vec z = -x;
        z = z < -N::largest ? vec{} - N::largest : z;
        z = z > N::largest ? vec{} + N::largest : z;
        const vec n = (z * scalar(1.4426950408889634) + round) - round;
        const vec r = (z - n * N::ln2_high) - n * N::ln2_low;
        vec p = vec{} + 1;
        for (int k = N::terms; k; k--) p = 1 + p * r / scalar(k);
        const whole power = (__builtin_convertvector(n, whole) + N::bias) << N::mantissa;
        return 1 / (1 + p * (vec)power);
    }

    // What is left of m after a step with the forget gate f, or f - 1 if the gate is open.
    static vec decayed(vec m, scalar f, bool open) { return open ? m + f * m : f * m; }

    // Row j of a matrix of d rows: m = decayed m + left[j] right, out += reader[j] m.
    template <bool open>
    static void update_and_read(vec *m, scalar f, const scalar *left, const vec *right,
                                const scalar *reader, vec *out) {
        for (int j = 0; j < d; j++)
            for (int l = 0; l < blocks; l++) {
                const vec row = decayed(m[j * blocks + l], f, open) + left[j] * right[l];
                m[j * blocks + l] = row;
                out[l] += reader[j] * row;
            }
    }

    // The same, read before it decays.
    template <bool open>
    static void add_and_read(vec *m, scalar f, const scalar *left, const vec *right,
                             const scalar *reader, vec *out) {
        for (int j = 0; j < d; j++)
            for (int l = 0; l < blocks; l++) {
                const vec row = m[j * blocks + l] + left[j] * right[l];
                m[j * blocks + l] = decayed(row, f, open);
                out[l] += reader[j] * row;
            }
    }

    static void transpose(const scalar *m, scalar *into) {
        for (int r = 0; r < d; r++)
            for (int s = 0; s < d; s++) into[s * d + r] = m[r * d + s];
    }

    // Memory to compute in, of one thread. Matrices have a row for each value, or for each key.
    struct Scratch {
        Numbers<scalar> by_value, by_key, normalizer, grad_by_key, grad_f, kept, of_reads, of_norms;
    };

    static void forward(const KernelArgs<scalar> &x, int64_t b, int64_t first, int64_t end,
                        Scratch &s) {
        const scalar key_scale = scalar(x.key_scale);
        s.by_key.resize((end - first) * size);
        for (int64_t h = first; h < end; h++)
            transpose(x.c + (b * x.NH + h) * size, &s.by_key[(h - first) * size]);

        for (int64_t t = 0; t < x.T; t++) {
            const scalar *q_t = x.q.at(b, t), *k_t = x.k.at(b, t), *v_t = x.v.at(b, t);
            const scalar *o_t = x.o.first ? x.o.at(b, t) : nullptr;
            const scalar *i_t = x.i.at(b, t), *f_t = x.f.at(b, t), *e_t = x.e.at(b, t);
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
                const scalar over = reciprocal(total(nq), e_t[h]);
                for (int l = 0; l < blocks; l++) {
                    vec y = read[l] * over;
                    if (o_t) y *= sigmoid(vecs(o_t + h * d)[l]);
                    vecs(h_t + h * d)[l] = y;
                }
            }
        }
        for (int64_t h = first; h < end; h++)
            transpose(&s.by_key[(h - first) * size], x.c + (b * x.NH + h) * size);
    }

    // First forwards in time, for what reads the memory, then backwards, for what was written into
    // it. The second needs of the first, by step: the gradients of C q and nᵀ q, and q · grad_q.
    static void backward(const KernelArgs<scalar> &x, int64_t b, int64_t first, int64_t end,
                         Scratch &s) {
        const int64_t heads = end - first, start = b * x.NH + first;
        const int64_t checkpoints = (x.T + CHECKPOINT - 1) / CHECKPOINT;
        const scalar key_scale = scalar(x.key_scale);
        scalar *of_values = x.grad_c + start * size, *of_normalizer = x.grad_n + start * d;
        s.by_value.assign(x.c + start * size, heads * size);
        s.normalizer.assign(x.n + start * d, heads * d);
        s.by_key.resize(heads * size);
        s.grad_by_key.resize(heads * size);
        s.grad_f.resize(heads);
        s.kept.resize(checkpoints * heads * (size + d));
        s.of_reads.resize(x.T * heads * d);
        s.of_norms.resize(x.T * heads * 2);
        for (int64_t g = 0; g < heads; g++) {
            transpose(&s.by_value[g * size], &s.by_key[g * size]);
            transpose(of_values + g * size, &s.grad_by_key[g * size]);
        }
        const auto checkpoint = [&](int64_t t, int64_t g) {
            return &s.kept[(t / CHECKPOINT * heads + g) * (size + d)];
        };
        const auto of_read = [&](int64_t t, int64_t g) { return &s.of_reads[(t * heads + g) * d]; };
        const auto of_norm = [&](int64_t t, int64_t g) { return &s.of_norms[(t * heads + g) * 2]; };
        const auto is_last_of_chunk = [&](int64_t t) {
            return t % CHECKPOINT == CHECKPOINT - 1 || t == x.T - 1;
        };

        for (int64_t t = 0; t < x.T; t++) {
            const scalar *q_t = x.q.at(b, t), *k_t = x.k.at(b, t), *v_t = x.v.at(b, t);
            const scalar *o_t = x.o.first ? x.o.at(b, t) : nullptr;
            const scalar *i_t = x.i.at(b, t), *f_t = x.f.at(b, t), *e_t = x.e.at(b, t);
            const scalar *grad_t = x.grad_h.at(b, t);
            scalar *grad_q = x.grad_q.at(b, t), *grad_o = o_t ? x.grad_o.at(b, t) : nullptr;
            for (int64_t g = 0; g < heads; g++) {
                const int64_t h = first + g;
                const scalar *q = q_t + h * d, *k = k_t + h * d, *v = v_t + h * d;
                const scalar i = i_t[h] * key_scale, f = f_t[h];
                const bool open = std::signbit(f);
                scalar *grad_read = of_read(t, g);
                vec *n = vecs(&s.normalizer[g * d]), iv[blocks], ik[blocks];
                vec read[blocks], gq[blocks], nq = {};
                for (int l = 0; l < blocks; l++) {
                    iv[l] = vecs(v)[l] * i;
                    ik[l] = vecs(k)[l] * i;
                    n[l] = decayed(n[l], f, open) + ik[l];
                    nq += n[l] * vecs(q)[l];
                    read[l] = gq[l] = vec{};
                }
                if (open) update_and_read<true>(vecs(&s.by_key[g * size]), f, k, iv, q, read);
                else update_and_read<false>(vecs(&s.by_key[g * size]), f, k, iv, q, read);

                const scalar y = total(nq), over = reciprocal(y, e_t[h]);
                const bool divides = !(std::fabs(y) <= e_t[h]);
                vec product = {};
                for (int l = 0; l < blocks; l++) {
                    vec grad = vecs(grad_t + h * d)[l], through = grad * (read[l] * over);
                    if (o_t) {
                        const vec o = sigmoid(vecs(o_t + h * d)[l]);
                        grad *= o;
                        through *= o;
                        vecs(grad_o + h * d)[l] = through * (1 - o);
                    }
                    product += through;
                    vecs(grad_read)[l] = grad * over;
                }
                const scalar p = total(product), grad_nq = divides ? -p / y : 0;
                vec *by_value = vecs(&s.by_value[g * size]);
                if (open) update_and_read<true>(by_value, f, v, ik, grad_read, gq);
                else update_and_read<false>(by_value, f, v, ik, grad_read, gq);
                for (int l = 0; l < blocks; l++)
                    vecs(grad_q + h * d)[l] = gq[l] + grad_nq * n[l];
                of_norm(t, g)[0] = grad_nq;
                of_norm(t, g)[1] = divides ? 0 : p;

                if (is_last_of_chunk(t)) {
                    std::memcpy(checkpoint(t, g), &s.by_value[g * size], size * sizeof(scalar));
                    std::memcpy(checkpoint(t, g) + size, n, d * sizeof(scalar));
                }
            }
        }

        for (int64_t t = x.T - 1; t >= 0; t--) {
            const scalar *q_t = x.q.at(b, t), *k_t = x.k.at(b, t), *v_t = x.v.at(b, t);
            const scalar *i_t = x.i.at(b, t), *f_t = x.f.at(b, t);
            scalar *grad_k = x.grad_k.at(b, t), *grad_v = x.grad_v.at(b, t);
            scalar *of_i = x.grad_i.at(b, t), *of_f = x.grad_f.at(b, t);
            for (int64_t g = 0; g < heads; g++) {
                const int64_t h = first + g;
                const scalar *q = q_t + h * d, *k = k_t + h * d, *v = v_t + h * d;
                const scalar *grad_read = of_read(t, g), grad_nq = of_norm(t, g)[0];
                const scalar i = i_t[h] * key_scale, f = f_t[h];
                const bool open = std::signbit(f);
                scalar *of_value = of_values + g * size;
                vec *of_n = vecs(of_normalizer + g * d), gk[blocks], gv[blocks], qs[blocks];
                if (is_last_of_chunk(t)) {  // afresh, so that no rounding error goes on for long
                    const vec *c = vecs(checkpoint(t, g));
                    vec sum = {};
                    for (int l = 0; l < d * blocks; l++) sum += vecs(of_value)[l] * c[l];
                    for (int l = 0; l < blocks; l++) sum += of_n[l] * c[d * blocks + l];
                    s.grad_f[g] = total(sum);
                }
                for (int l = 0; l < blocks; l++) {
                    qs[l] = vecs(q)[l];
                    gk[l] = of_n[l] + grad_nq * qs[l];
                    gv[l] = vec{};
                    of_n[l] = decayed(gk[l], f, open);
                }
                if (open) add_and_read<true>(vecs(of_value), f, grad_read, qs, v, gk);
                else add_and_read<false>(vecs(of_value), f, grad_read, qs, v, gk);
                vec *of_key = vecs(&s.grad_by_key[g * size]);
                if (open) add_and_read<true>(of_key, f, q, vecs(grad_read), k, gv);
                else add_and_read<false>(of_key, f, q, vecs(grad_read), k, gv);
                vec product = {};
                for (int l = 0; l < blocks; l++) {
                    gk[l] *= i;
                    product += gk[l] * vecs(k)[l];
                    vecs(grad_k + h * d)[l] = gk[l];
                    vecs(grad_v + h * d)[l] = gv[l] * i;
                }
                of_i[h] = total(product);
                of_f[h] = s.grad_f[g] += of_norm(t, g)[1] - of_i[h];
            }
        }
    }
};

// Samples are shared out among threads, each with as many of its heads as go together.
template <typename scalar, int lanes, int blocks>
int run(const KernelArgs<scalar> &x, bool back, int64_t together, int threads) {
    using R = Recurrence<scalar, lanes, blocks>;
    const int64_t parts = (x.NH + together - 1) / together;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(max : failed)
    {
        const FlushToZero mode;
        typename R::Scratch scratch;
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < x.B * parts; unit++) {
            const int64_t b = unit / parts, first = unit % parts * together;
            const int64_t end = std::min(first + together, x.NH);
            try {
                if (back) R::backward(x, b, first, end, scratch);
                else R::forward(x, b, first, end, scratch);
            } catch (const std::bad_alloc &) {
                failed = 1;
            }
        }
    }
    return failed;
}

// 0: done; 1: no memory; 2: a head size that there is nothing for.
template <typename scalar>
int dispatch(const KernelArgs<scalar> &x, bool back, int64_t together, int threads) {
    switch (x.d) {
        case 8: return run<scalar, 8, 1>(x, back, together, threads);
        case 16: return run<scalar, 16, 1>(x, back, together, threads);
        case 24: return run<scalar, 8, 3>(x, back, together, threads);
        case 32: return run<scalar, 16, 2>(x, back, together, threads);
        case 48: return run<scalar, 16, 3>(x, back, together, threads);
        case 64: return run<scalar, 16, 4>(x, back, together, threads);
        default: return 2;
    }
}

// Logarithms of gates, (rows, T), to numbers at the scale of exp(m), m being the running maximum of
// the weights' logarithms: i = exp(log i - m), f = exp(log f + m before - m), less 1 where it is
// above a half, and e = exp(-m). m becomes the last one.
template <typename scalar>
void stabilize(const scalar *log_i, const scalar *log_f, scalar *m, scalar *i, scalar *f, scalar *e,
               int64_t rows, int64_t T, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        double before = m[row];
        const int64_t last = (row + 1) * T - 1;
        for (int64_t at = row * T; at <= last; at++) {
            const double decayed = log_f[at] + before;
            double now = std::max({decayed, double(log_i[at]), LOG_EMPTY});
            if (at == last) {  // as it will be returned, rounded up
                scalar rounded = scalar(now);
                if (rounded < now) rounded = std::nextafter(rounded, scalar(INFINITY));
                now = rounded;
            }
            const scalar log_decay = scalar(decayed - now);
            i[at] = std::exp(scalar(log_i[at] - now));
            f[at] = log_decay > scalar(-0.69) ? -std::fabs(std::expm1(log_decay))
                                              : std::exp(log_decay);
            e[at] = std::exp(scalar(-now));
            before = now;
        }
        m[row] = scalar(before);
    }
}

}  // namespace

extern "C" void stabilize_float(const float *log_i, const float *log_f, float *m, float *i,
                                float *f, float *e, int64_t rows, int64_t T, int threads) {
    stabilize(log_i, log_f, m, i, f, e, rows, T, threads);
}

extern "C" void stabilize_double(const double *log_i, const double *log_f, double *m, double *i,
                                 double *f, double *e, int64_t rows, int64_t T, int threads) {
    stabilize(log_i, log_f, m, i, f, e, rows, T, threads);
}

extern "C" int run_float(const KernelArgs<float> *x, int back, int64_t together, int threads) {
    return dispatch(*x, back, together, threads);
}

extern "C" int run_double(const KernelArgs<double> *x, int back, int64_t together, int threads) {
    return dispatch(*x, back, together, threads);
}
