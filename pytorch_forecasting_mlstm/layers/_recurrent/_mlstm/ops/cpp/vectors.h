// Vectors of a fixed number of lanes, and memory that suits them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace {

// The width of the registers. Compilers emulate wider vectors in memory, which takes several times
// as long.
#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

// The number of lanes of the widest vectors whose lanes divide n.
template <typename scalar> constexpr int lanes_for(int n) {
    int lanes = VECTOR_BYTES / sizeof(scalar);
    while (n % lanes) lanes /= 2;
    return lanes;
}

// A buffer that begins at a cache line: a vector that crosses two lines takes twice as long.
template <typename scalar> class AlignedBuffer {
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

// Treats denormal numbers as 0 while it lives: they are slow and do not affect the results.
struct FlushToZero {
#if defined(__SSE__)
    unsigned saved_mode = _mm_getcsr();
    FlushToZero() { _mm_setcsr(saved_mode | 0x8040); }
    ~FlushToZero() { _mm_setcsr(saved_mode); }
#endif
};

template <typename scalar> struct FloatTraits;
template <> struct FloatTraits<float> {
    using integer = int32_t;
    static constexpr int terms = 7, mantissa = 23, bias = 127;
    static constexpr float largest = 87.f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};
template <> struct FloatTraits<double> {
    using integer = int64_t;
    static constexpr int terms = 13, mantissa = 52, bias = 1023;
    static constexpr double largest = 708., ln2_high = 6.93145751953125e-1,
                            ln2_low = 1.42860682030941723212e-6;
};

template <typename scalar, int lanes> struct Vectors {
    using Traits = FloatTraits<scalar>;
    static constexpr int bytes = lanes * sizeof(scalar);
    typedef scalar vec __attribute__((vector_size(bytes), aligned(sizeof(scalar)), may_alias));
    typedef typename Traits::integer int_vec __attribute__((vector_size(bytes)));

    static const vec *vecs(const scalar *x) { return reinterpret_cast<const vec *>(x); }
    static vec *vecs(scalar *x) { return reinterpret_cast<vec *>(x); }

#if defined(__GNUC__) && !defined(__clang__)
    // Shuffles by constant indices, which stay in registers.
    using Lanes = std::make_integer_sequence<int, lanes>;

    // Exchanges lanes whose numbers differ in the bit w.
    template <int w, int... l> static vec exchange(vec x, std::integer_sequence<int, l...>) {
        return __builtin_shuffle(x, int_vec{(l ^ w)...});
    }

    // Lanes of x where the bit w of their number is 0, and of y where it is 1.
    template <int w, int... l> static vec select(vec x, vec y, std::integer_sequence<int, l...>) {
        return __builtin_shuffle(x, y, int_vec{(l & w ? lanes + l : l)...});
    }

    // The same after an exchange.
    template <int w, int... l>
    static vec select_other(vec x, vec y, std::integer_sequence<int, l...>) {
        return __builtin_shuffle(x, y, int_vec{((l & w ? lanes + l : l) ^ w)...});
    }

    template <int w = lanes / 2> static scalar horizontal_sum(vec x) {
        if constexpr (w == 0) return x[0];
        else return horizontal_sum<w / 2>(x + exchange<w>(x, Lanes{}));
    }

    // The sums of the vectors row(0), row(1), ..., as many as there are lanes. At any time, few of
    // them are needed, which stay in registers.
    template <int w = 1, typename Row>
    [[gnu::always_inline]] static inline vec horizontal_sums(const Row &row, int first = 0) {
        if constexpr (w == lanes) {
            return row(first);
        } else {
            const vec x = horizontal_sums<2 * w>(row, first);
            const vec y = horizontal_sums<2 * w>(row, first + w);
            return select<w>(x, y, Lanes{}) + select_other<w>(x, y, Lanes{});
        }
    }
#else
    static scalar horizontal_sum(vec x) {
        scalar y[lanes];
        std::memcpy(y, &x, sizeof y);
        for (int w = lanes / 2; w; w /= 2)
            for (int l = 0; l < w; l++) y[l] += y[l + w];
        return y[0];
    }

    template <typename Row> static vec horizontal_sums(const Row &row) {
        vec sums;
        for (int r = 0; r < lanes; r++) sums[r] = horizontal_sum(row(r));
        return sums;
    }
#endif

    // exp(x) = 2^n (1 + q), with x = n ln 2 + r, |r| < ln(2) / 2 and a series for q = exp(r) - 1.
    struct Exponential {
        vec power, q;

        explicit Exponential(vec x) {
            constexpr scalar round =
                scalar(1.5) * (typename Traits::integer(1) << Traits::mantissa);
            x = x < -Traits::largest ? vec{} - Traits::largest : x;
            x = x > Traits::largest ? vec{} + Traits::largest : x;
            const vec n = (x * scalar(1.4426950408889634) + round) - round;
            const vec r = (x - n * Traits::ln2_high) - n * Traits::ln2_low;
            vec p = vec{} + 1;
            for (int k = Traits::terms; k > 1; k--) p = 1 + p * (r * (1 / scalar(k)));
            q = p * r;
            power = (vec)((__builtin_convertvector(n, int_vec) + Traits::bias) << Traits::mantissa);
        }
    };

    static vec exp(vec x) {
        const Exponential e(x);
        return e.power * (1 + e.q);
    }

    // (exp(2 x) - 1) / (exp(2 x) + 1), with all digits where x is small.
    static vec tanh(vec x) {
        const Exponential e(2 * x);
        const vec less_one = (e.power - 1) + e.power * e.q;
        return less_one / (less_one + 2);
    }

    static vec sigmoid(vec x) { return 1 / (1 + exp(-x)); }
};

}  // namespace
