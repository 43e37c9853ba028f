// Runs every function of the kernel in several threads, for a sanitizer to watch: `make sanitize`.
//
// All tensors are exactly as large as the kernel may read and write. The threads are those of C++,
// since a sanitizer does not know those of an OpenMP runtime that was compiled without it.

#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <thread>
#include <type_traits>
#include <vector>

#include "recurrence.cpp"

namespace {

void run_threads(void (*function)(void *), void *data, unsigned threads, unsigned) {
    std::vector<std::thread> workers;
    for (unsigned j = 1; j < threads; j++) workers.emplace_back(function, data);
    function(data);
    for (auto &worker : workers) worker.join();
}

std::mt19937 generator(0);

template <typename scalar> std::vector<scalar> draw(int64_t n, double scale = 1, double mean = 0) {
    std::normal_distribution<double> normal(mean, scale);
    std::vector<scalar> x(n);
    for (auto &number : x) number = scalar(normal(generator));
    return x;
}

template <typename scalar> void check(const std::vector<scalar> &x, const char *name) {
    for (scalar number : x)
        if (!std::isfinite(number)) {
            std::printf("%s is not finite\n", name);
            std::exit(1);
        }
}


template <typename scalar>
void run_recurrence(int64_t B, int64_t T, int64_t NH, int64_t d, bool gated, int threads) {
    const int64_t H = NH * d, W = 4 * H;
    auto p = draw<scalar>(B * T * W), i = draw<scalar>(B * T * NH), f = i;
    for (auto &gate : i) gate = std::exp(gate);
    for (auto &gate : f) {  // open, closing, and closed ones
        const scalar closing = 1 / (1 + std::exp(std::fabs(gate) * 3));
        gate = gate > 0 ? -closing : gate < -2 ? 0 : closing;
    }
    auto weight = draw<scalar>(W + 2 * NH), bias = draw<scalar>(W + 2 * NH);
    auto moments = draw<scalar>(B * T * 8, 1, 1);
    std::vector<scalar> floor(NH, 1), h(B * T * H), grad_p(B * T * W), grad_i(i), grad_f(f);
    auto c = draw<scalar>(B * H * d), n = draw<scalar>(B * H), first_c = c, first_n = n;
    auto grad_h = draw<scalar>(B * T * H), grad_c = draw<scalar>(B * H * d);
    auto grad_n = draw<scalar>(B * H);
    KernelArgs<scalar> x{};
    x.B = B, x.T = T, x.NH = NH, x.d = d, x.key_scale = 1 / std::sqrt(double(d));
    x.q = {&p[0], T * W, W}, x.k = {&p[H], T * W, W}, x.v = {&p[2 * H], T * W, W};
    if (gated) x.o = {&p[3 * H], T * W, W};
    if (gated && T % 2) x.norms = {&weight[0], &bias[0], {&moments[0], T * 8, 8}};
    x.i = {&i[0], T * NH, NH}, x.f = {&f[0], T * NH, NH}, x.floor = {&floor[0], 0, 0};
    x.h = {&h[0], H, B * H};  // time first
    x.c = &c[0], x.n = &n[0];
    const auto run = [&](int backward) {
        const int64_t heads_per_task = B >= 2 * threads ? NH : 1;
        int status;
        if constexpr (std::is_same_v<scalar, float>)
            status = run_float(&x, backward, heads_per_task, threads);
        else status = run_double(&x, backward, heads_per_task, threads);
        if (status) std::exit(2);
    };
    run(0);
    x.c = &first_c[0], x.n = &first_n[0];
    x.grad_h = {&grad_h[0], T * H, H};
    x.grad_q = {&grad_p[0], T * W, W}, x.grad_k = {&grad_p[H], T * W, W};
    x.grad_v = {&grad_p[2 * H], T * W, W}, x.grad_o = {&grad_p[3 * H], T * W, W};
    x.grad_i = {&grad_i[0], T * NH, NH}, x.grad_f = {&grad_f[0], T * NH, NH};
    x.grad_c = &grad_c[0], x.grad_n = &grad_n[0];
    run(1);
    check(h, "h"), check(c, "c"), check(n, "n"), check(grad_p, "the gradient of p");
    check(grad_i, "the gradient of i"), check(grad_f, "the gradient of f");
    check(grad_c, "the gradient of c"), check(grad_n, "the gradient of n");
}

template <typename scalar>
void run_preactivations(int64_t B, int64_t T, int64_t NH, int64_t H, bool norms, int threads) {
    const int64_t W = 4 * H + 2 * NH;
    auto p = draw<scalar>(B * T * W), grad_p = draw<scalar>(B * T * W);
    auto weight = draw<scalar>(W), bias = draw<scalar>(W);
    std::vector<scalar> moments(B * T * 8), i(B * T * NH), f(B * T * NH);
    const auto padding = std::make_unique<bool[]>(B * T);
    padding[B * T / 2] = true;
    PreactivationArgs<scalar> x{};
    x.B = B, x.T = T, x.NH = NH, x.H = H, x.eps = 1e-5, x.p = {&p[0], T * W, W};
    x.slices = std::min(B * T, int64_t(5));
    std::vector<double> grad_affine(x.slices * 2 * W);
    if (norms) x.norms = {&weight[0], &bias[0], {&moments[0], T * 8, 8}};
    x.padding = padding.get(), x.i = &i[0], x.f = &f[0];
    x.grad_p = {&grad_p[0], T * W, W}, x.grad_affine = &grad_affine[0];
    for (int backward : {0, 1}) {
        int status;
        if constexpr (std::is_same_v<scalar, float>)
            status = preactivations_float(&x, backward, threads);
        else status = preactivations_double(&x, backward, threads);
        if (status) std::exit(4);
    }
    check(i, "the input gate"), check(f, "the forget gate"), check(moments, "the moments");
    check(grad_p, "the gradient of p"), check(grad_affine, "the gradient of weights and biases");
}

template <typename scalar>
void run_cell(int64_t B, int64_t T, int64_t NH, int64_t d, int64_t I, bool norms, int threads) {
    const int64_t H = NH * d, W = 4 * H + 2 * NH, wide = (W + 15) / 16 * 16;
    const int64_t input_wide = (I + 15) / 16 * 16;
    auto input = draw<scalar>(B * T * I), weight = draw<scalar>(W * input_wide);
    auto transposed = draw<scalar>(I * wide), bias = draw<scalar>(wide);
    auto norm_weight = draw<scalar>(W), norm_bias = draw<scalar>(W);
    auto c = draw<scalar>(B * H * d), n = draw<scalar>(B * H), first_c = c, first_n = n;
    auto grad_h = draw<scalar>(B * T * H), grad_c = draw<scalar>(B * H * d);
    auto grad_n = draw<scalar>(B * H);
    std::vector<scalar> h(B * T * H), grad_x(B * T * I);
    CellArgs<scalar> x{};
    x.B = B, x.T = T, x.NH = NH, x.d = d, x.I = I, x.wide = wide, x.input_wide = input_wide;
    x.eps = 1e-5, x.x = {&input[0], T * I, I};
    x.weight = &weight[0], x.transposed = &transposed[0], x.bias = &bias[0];
    if (norms) x.norm_weight = &norm_weight[0], x.norm_bias = &norm_bias[0];
    x.h = {&h[0], H, B * H}, x.c = &c[0], x.n = &n[0];
    std::vector<int16_t> x_bits(B * T * I), h_bits(B * T * H);
    for (auto *bits : {&x_bits, &h_bits})
        for (auto &number : *bits) number = int16_t(generator());
    if (norms) x.x_bits = {&x_bits[0], T * I, I}, x.h_bits = {&h_bits[0], H, B * H};
    x.largest_dropped = 0, x.dropout_scale = 2;
    x.slices = std::min(B, int64_t(3));
    std::vector<double> grad_weight(x.slices * W * input_wide), grad_bias(x.slices * W);
    std::vector<double> grad_affine(x.slices * 2 * W);
    const auto run = [&](int backward) {
        int status;
        if constexpr (std::is_same_v<scalar, float>) status = cell_float(&x, backward, threads);
        else status = cell_double(&x, backward, threads);
        if (status) std::exit(5);
    };
    run(0);
    x.c = &first_c[0], x.n = &first_n[0];
    x.grad_h = {&grad_h[0], T * H, H}, x.grad_x = {&grad_x[0], T * I, I};
    x.grad_c = &grad_c[0], x.grad_n = &grad_n[0], x.grad_weight = &grad_weight[0];
    x.grad_bias = &grad_bias[0], x.grad_affine = &grad_affine[0];
    run(1);
    check(h, "h of a cell"), check(grad_x, "the gradient of x");
    check(grad_weight, "the gradient of the weight"), check(grad_bias, "that of the bias");
}

template <typename scalar> void run_stabilize(int64_t rows, int64_t T, int threads) {
    auto log_i = draw<scalar>(rows * T, 30), log_f = draw<scalar>(rows * T, 3, -3);
    auto m = draw<scalar>(rows);
    log_i[0] = log_f[rows * T - 1] = -INFINITY;
    std::vector<scalar> i(rows * T), f(rows * T), floor(rows * T);
    if constexpr (std::is_same_v<scalar, float>)
        stabilize_float(log_i.data(), log_f.data(), m.data(), i.data(), f.data(), floor.data(),
                        rows, T, threads);
    else
        stabilize_double(log_i.data(), log_f.data(), m.data(), i.data(), f.data(), floor.data(),
                         rows, T, threads);
    check(m, "m"), check(i, "i"), check(f, "f");
}

template <typename scalar> void run_step(int64_t B, int64_t NH, int64_t d, bool norms) {
    const int64_t H = NH * d, G = H + 2 * NH, W = 3 * H + G;
    auto p = draw<scalar>(B * W), c = draw<scalar>(B * H * d), n = draw<scalar>(B * H);
    std::vector<scalar> next_h(B * H), next_c(c), next_n(n), grad_p(p), grad_c(c), grad_n(n);
    auto grad = draw<scalar>(B * H);
    std::vector<std::vector<scalar>> affine;
    StepArgs<scalar> x{};
    x.B = B, x.NH = NH, x.d = d, x.p = &p[0], x.c = &c[0], x.n = &n[0];
    x.next_h = &next_h[0], x.next_c = &next_c[0], x.next_n = &next_n[0];
    if (norms)
        for (int part = NORM_Q; part < NORMS; part++) {
            const int64_t width = part == NORM_GATES ? G : H;
            const auto add = [&] { return affine.emplace_back(draw<scalar>(width)).data(); };
            x.weight[part] = add(), x.grad_weight[part] = add(), x.eps[part] = 1e-5;
            if (part != NORM_HEADS) x.bias[part] = add(), x.grad_bias[part] = add();
        }
    const auto run = [&](int backward) {
        if constexpr (std::is_same_v<scalar, float>) return step_float(&x, backward);
        else return step_double(&x, backward);
    };
    if (run(0) != 1) std::exit(3);
    x.grad_next_h = &grad[0];
    x.grad_p = &grad_p[0], x.grad_c = &grad_c[0], x.grad_n = &grad_n[0];
    run(1);
    check(next_h, "h of a step"), check(next_c, "c of a step"), check(next_n, "n of a step");
    check(grad_p, "the gradient of p of a step");
}

template <typename scalar> void run_all() {
    for (int64_t d : {8, 16, 24, 32, 48, 64})
        for (int64_t T : {1, 31, 32, 65, 100})
            for (bool gated : {false, true}) {
                run_recurrence<scalar>(1, T, 3, d, gated, 3);  // a thread has single heads
                run_recurrence<scalar>(7, T, 2, d, gated, 3);  // or whole samples
            }
    for (int64_t T : {1, 31, 70})
        for (int64_t I : {1, 7, 16, 40})
            for (bool norms : {false, true}) run_cell<scalar>(5, T, 2, I < 8 ? 8 : 16, I, norms, 3);
    for (int64_t T : {1, 31, 100})
        for (int64_t NH : {1, 3, 20})
            for (bool norms : {false, true})
                run_preactivations<scalar>(2, T, NH, 8 * NH, norms, 3);
    for (int64_t rows : {1, 5, 40})
        for (int64_t T : {1, 70}) run_stabilize<scalar>(rows, T, 3);
    for (int64_t d : {1, 2, 5, 16, 37})
        for (int64_t NH : {1, 3, 20})
            for (bool norms : {false, true}) run_step<scalar>(2, NH, d, norms);
}

}  // namespace

int main() {
    set_parallel_region(run_threads);
    run_all<float>();
    run_all<double>();
    std::puts("no fault");
}
