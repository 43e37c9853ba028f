// What Python passes to the kernel. The fields and their order must match bindings.py.
#pragma once

#include <cstdint>

namespace {

// A tensor (B, T, width). Rows are dense; samples and steps are any number of elements apart.
template <typename scalar> struct StridedTensor {
    scalar *data;
    int64_t sample_stride, step_stride;
    scalar *at(int64_t b, int64_t t) const { return data + b * sample_stride + t * step_stride; }
};

template <typename scalar> struct KernelArgs {
    int64_t B, T, NH, d;
    double key_scale;                           // factor of k
    StridedTensor<const scalar> q, k, v, o;     // (B, T, H); o may be null
    StridedTensor<const scalar> i, f, floor;    // (B, T, NH)
    StridedTensor<scalar> h;                    // (B, T, H)
    scalar *c, *n;                              // (B, NH, value, key) and (B, NH, key)
    StridedTensor<const scalar> grad_h;
    StridedTensor<scalar> grad_q, grad_k, grad_v, grad_o;
    StridedTensor<scalar> grad_i, grad_f;       // gradients of log i and log f
    scalar *grad_c, *grad_n;                    // of the last state, replaced by those of the first
};

}  // namespace
