// Threads of the OpenMP runtime that torch has loaded.
//
// The library does not link to a runtime of its own: a machine without a compiler may have none, and
// the threads of a second one would compete with those of torch.
#pragma once

namespace {

// GOMP_parallel, which the OpenMP runtimes of GCC, LLVM and Intel have.
using ParallelRegion = void (*)(void (*function)(void *), void *data, unsigned threads,
                                unsigned flags);

ParallelRegion parallel_region = nullptr;  // without one, the calling thread does all the work

// Calls work() in up to this many threads. There may be fewer, for example inside another region.
template <typename Work> void in_threads(int threads, const Work &work) {
    const auto call = [](void *data) { (*static_cast<const Work *>(data))(); };
    void *data = const_cast<Work *>(&work);
    if (threads > 1 && parallel_region) parallel_region(call, data, unsigned(threads), 0);
    else call(data);
}

}  // namespace
