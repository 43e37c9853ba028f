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

// The layer norms of pre-activations, which are (B, T, W) with W = 4 H + 2 NH: q, k and v (H each), and
// all gates together: i, f (NH each) and o (H).
template <typename scalar> struct Norms {
    const scalar *weight, *bias;    // (W); null without norms
    StridedTensor<scalar> moments;  // mean and inverse standard deviation of each part, (B, T, 4 2)
};

// What preactivations.h reads and writes.
template <typename scalar> struct PreactivationArgs {
    int64_t B, T, NH, H;
    double eps;
    StridedTensor<const scalar> p;  // (B, T, W)
    Norms<scalar> norms;
    const bool *padding;            // (B, T); may be null
    scalar *i, *f;                  // (B, T, NH)
    StridedTensor<scalar> grad_p;   // (B, T, W)
    double *grad_affine;            // of weight and bias, (slices, 2, W)
    int64_t slices;
};

template <typename scalar> struct KernelArgs {
    int64_t B, T, NH, d;
    double key_scale;                           // factor of k
    StridedTensor<const scalar> q, k, v, o;     // (B, T, H); o may be null
    Norms<scalar> norms;                        // still to be applied to q, k, v and o
    StridedTensor<const scalar> i, f, floor;    // (B, T, NH)
    StridedTensor<scalar> h;                    // (B, T, H)
    scalar *c, *n;                              // (B, NH, value, key) and (B, NH, key)
    StridedTensor<const scalar> grad_h;
    StridedTensor<scalar> grad_q, grad_k, grad_v, grad_o;
    StridedTensor<scalar> grad_i, grad_f;       // gradients of log i and log f
    scalar *grad_c, *grad_n;                    // of the last state, replaced by those of the first
};

// What cell.h reads and writes. Some matrices are padded with zeros to whole vectors: W to `wide`
// columns, I to `input_wide`.
template <typename scalar> struct CellArgs {
    int64_t B, T, NH, d, I, wide, input_wide;
    double eps;
    StridedTensor<const scalar> x;          // (B, T, I)
    const scalar *weight, *transposed;      // of the projection, (W, input_wide) and (I, wide)
    const scalar *bias;                     // (wide)
    const scalar *norm_weight, *norm_bias;  // (W); null without norms
    const bool *padding;                    // (B, T); may be null
    StridedTensor<scalar> h;                // (B, T, H)
    scalar *c, *n;                          // as in KernelArgs
    StridedTensor<const scalar> grad_h;
    StridedTensor<scalar> grad_x;
    scalar *grad_c, *grad_n;
    double *grad_weight;                    // (slices, W, input_wide)
    double *grad_bias, *grad_affine;        // (slices, W) and (slices, 2, W)
    int64_t slices;
    // Random numbers of dropout, (B, T, I) and (B, T, H); without it, data is null. Numbers above
    // `largest_dropped` keep an element, and scale it.
    StridedTensor<const int16_t> x_bits, h_bits;
    int64_t largest_dropped;
    double dropout_scale;
};

}  // namespace
