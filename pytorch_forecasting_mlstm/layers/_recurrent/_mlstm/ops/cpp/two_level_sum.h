// Sums over many steps that lose no more digits than a sum over a few.
//
// Adding to a memory step by step rounds all of it at every step. Here the last steps are summed on
// their own, which rounds what is small, and are added to the rest once per span.
#pragma once

#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace {

// The product of forget gates since the last fold.
struct Decay {
    double factor = 1, less_one = 0;  // less_one has the digits of a factor near 1

    // f - 1 takes the place of f if the gate is open.
    void multiply(double f, bool open) {
        const double gate_less_one = open ? f : f - 1;
        less_one += gate_less_one + less_one * gate_less_one;
        factor *= open ? 1 + f : f;
    }
};

// The sums of several heads. The last steps have one buffer, since it is empty after every span.
template <typename scalar> struct SumBuffers {
    AlignedBuffer<scalar> bases, carries, recent;
    int64_t width = 0;

    void resize(int64_t heads, int64_t numbers) {
        width = numbers;
        bases.resize(heads * width);
        carries.resize(heads * width);
        recent.resize(width);
        std::memset(&carries[0], 0, heads * width * sizeof(scalar));
    }
    scalar *base(int64_t head) { return &bases[head * width]; }
};

// One sum during a span: its value is decay × base + recent, and after a fold it is base.
template <typename scalar, int lanes, int width> struct TwoLevelSum : Vectors<scalar, lanes> {
    using Base = Vectors<scalar, lanes>;
    using typename Base::vec;
    vec *const base, *const carry, *const recent;

    TwoLevelSum(SumBuffers<scalar> &buffers, int64_t head)
        : base(Base::vecs(buffers.base(head))),
          carry(Base::vecs(&buffers.carries[head * width])),
          recent(Base::vecs(&buffers.recent[0])) {
        std::memset(recent, 0, width * sizeof(scalar));
    }

    // Adds both levels. What rounding cuts off is carried to the next fold.
    void fold(const Decay &decay) {
        const bool open = decay.factor > 0.5;
        const scalar factor = scalar(decay.factor), less_one = scalar(decay.less_one);
        for (int at = 0; at < width / lanes; at++) {
            const vec old = open ? base[at] : factor * base[at];
            vec change = recent[at] + factor * carry[at];
            if (open) change += less_one * base[at];
            const vec sum = old + change, added = sum - old;
            base[at] = sum;
            carry[at] = (old - (sum - added)) + (change - added);
        }
    }
};

}  // namespace
