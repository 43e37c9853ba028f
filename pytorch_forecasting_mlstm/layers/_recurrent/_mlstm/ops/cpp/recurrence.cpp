// The functions that Python calls: the recurrence in recurrence.h for every head size, in parallel,
// and the single step in step.h.
//
// This is the only file that is compiled. The headers have unnamed namespaces, because the compiler
// inlines more of what no other file can call.

#include <algorithm>
#include <new>

#include "kernel_args.h"
#include "recurrence.h"
#include "stabilize.h"
#include "step.h"
#include "vectors.h"

namespace {

// Threads take samples, with as many of their heads at a time as a task has.
template <typename scalar, int lanes, int blocks>
int run(const KernelArgs<scalar> &x, bool backward, int64_t heads_per_task, int threads) {
    using R = Recurrence<scalar, lanes, blocks>;
    const int64_t tasks_per_sample = (x.NH + heads_per_task - 1) / heads_per_task;
    int status = 0;
#pragma omp parallel num_threads(threads) reduction(max : status)
    {
        const FlushToZero mode;
        Scratch<scalar> scratch;
#pragma omp for schedule(dynamic)
        for (int64_t number = 0; number < x.B * tasks_per_sample; number++) {
            const int64_t b = number / tasks_per_sample;
            const int64_t first = number % tasks_per_sample * heads_per_task;
            const int64_t end = std::min(first + heads_per_task, x.NH);
            const typename R::Task task{x, b, first, end, scratch};
            try {
                if (backward) R::backward(task);
                else R::forward(task);
            } catch (const std::bad_alloc &) {
                status = 1;
            }
        }
    }
    return status;
}

// Returns 0 on success, 1 if memory runs out, 2 for a head size that is not supported.
template <typename scalar>
int dispatch(const KernelArgs<scalar> &x, bool backward, int64_t heads_per_task, int threads) {
    switch (x.d) {
        case 8: return run<scalar, 8, 1>(x, backward, heads_per_task, threads);
        case 16: return run<scalar, 16, 1>(x, backward, heads_per_task, threads);
        case 24: return run<scalar, 8, 3>(x, backward, heads_per_task, threads);
        case 32: return run<scalar, 16, 2>(x, backward, heads_per_task, threads);
        case 48: return run<scalar, 16, 3>(x, backward, heads_per_task, threads);
        case 64: return run<scalar, 16, 4>(x, backward, heads_per_task, threads);
        default: return 2;
    }
}

}  // namespace

extern "C" void stabilize_float(const float *log_i, const float *log_f, float *m, float *i,
                                float *f, float *floor, int64_t rows, int64_t T, int threads) {
    stabilize(log_i, log_f, m, i, f, floor, rows, T, threads);
}

extern "C" void stabilize_double(const double *log_i, const double *log_f, double *m, double *i,
                                 double *f, double *floor, int64_t rows, int64_t T, int threads) {
    stabilize(log_i, log_f, m, i, f, floor, rows, T, threads);
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
