// The functions that Python calls: the recurrence in recurrence.h for every head size, in parallel,
// what comes before and after it in preactivations.h, and the single step in step.h.
//
// This is the only file that is compiled. The headers have unnamed namespaces, because the compiler
// inlines more of what no other file can call.

#include <algorithm>
#include <atomic>
#include <new>
#include <type_traits>

#include "cell.h"
#include "kernel_args.h"
#include "preactivations.h"
#include "recurrence.h"
#include "stabilize.h"
#include "step.h"
#include "threads.h"
#include "vectors.h"

namespace {

// Threads take samples, with as many of their heads at a time as a task has.
template <typename scalar, int d>
int run(const KernelArgs<scalar> &x, bool backward, int64_t heads_per_task, int threads) {
    using R = Recurrence<scalar, d>;
    const int64_t tasks_per_sample = (x.NH + heads_per_task - 1) / heads_per_task;
    std::atomic<int64_t> next{0};
    std::atomic<bool> out_of_memory{false};
    in_threads(threads, [&] {
        const FlushToZero mode;
        Scratch<scalar> scratch;
        for (int64_t number; (number = next++) < x.B * tasks_per_sample;) {
            const int64_t b = number / tasks_per_sample;
            const int64_t first = number % tasks_per_sample * heads_per_task;
            const int64_t end = std::min(first + heads_per_task, x.NH);
            const typename R::Task task{x, b, first, end, scratch};
            try {
                if (backward) R::backward(task);
                else R::forward(task);
            } catch (const std::bad_alloc &) {
                out_of_memory = true;
            }
        }
    });
    return out_of_memory;
}

template <int d> using HeadSize = std::integral_constant<int, d>;

// Calls work(HeadSize<d>). Returns 0 on success, 1 if memory runs out, 2 for a head size that is not
// supported.
template <typename Work> int for_head_size(int64_t d, const Work &work) {
    switch (d) {
        case 8: return work(HeadSize<8>());
        case 16: return work(HeadSize<16>());
        case 24: return work(HeadSize<24>());
        case 32: return work(HeadSize<32>());
        case 48: return work(HeadSize<48>());
        case 64: return work(HeadSize<64>());
        default: return 2;
    }
}

template <typename scalar>
int dispatch(const KernelArgs<scalar> &x, bool backward, int64_t heads_per_task, int threads) {
    return for_head_size(x.d, [&](auto d) {
        return run<scalar, d.value>(x, backward, heads_per_task, threads);
    });
}

template <typename scalar>
int dispatch_cell(const CellArgs<scalar> &x, bool backward, int threads) {
    return for_head_size(x.d, [&](auto d) {
        return Cell<scalar, d.value>::run(x, backward, threads);
    });
}

}  // namespace

extern "C" void set_parallel_region(ParallelRegion function) { parallel_region = function; }

extern "C" void stabilize_float(const float *log_i, const float *log_f, float *m, float *i,
                                float *f, float *floor, int64_t rows, int64_t T, int threads) {
    stabilize(log_i, log_f, m, i, f, floor, rows, T, threads);
}

extern "C" void stabilize_double(const double *log_i, const double *log_f, double *m, double *i,
                                 double *f, double *floor, int64_t rows, int64_t T, int threads) {
    stabilize(log_i, log_f, m, i, f, floor, rows, T, threads);
}

extern "C" int cell_float(const CellArgs<float> *x, int backward, int threads) {
    return dispatch_cell(*x, backward, threads);
}

extern "C" int cell_double(const CellArgs<double> *x, int backward, int threads) {
    return dispatch_cell(*x, backward, threads);
}

extern "C" int preactivations_float(const PreactivationArgs<float> *x, int backward, int threads) {
    return run_preactivations(*x, backward, threads);
}

extern "C" int preactivations_double(const PreactivationArgs<double> *x, int backward,
                                     int threads) {
    return run_preactivations(*x, backward, threads);
}

extern "C" int run_float(const KernelArgs<float> *x, int backward, int64_t heads_per_task,
                         int threads) {
    return dispatch(*x, backward, heads_per_task, threads);
}

extern "C" int run_double(const KernelArgs<double> *x, int backward, int64_t heads_per_task,
                          int threads) {
    return dispatch(*x, backward, heads_per_task, threads);
}

extern "C" int step_float(const StepArgs<float> *x, int backward) { return take_step(*x, backward); }

extern "C" int step_double(const StepArgs<double> *x, int backward) {
    return take_step(*x, backward);
}
