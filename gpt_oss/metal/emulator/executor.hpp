/* Metal's execution model on one CPU thread: threadgroups one after another, each GPU thread a fiber.
 *
 * Kernel code (translated from MSL) calls the functions of the first part through the shim in include/; the emulated
 * device calls the second part. Scheduling is cooperative: a fiber runs until it meets a simdgroup function or a
 * barrier, so a missing barrier shows as a wrong result instead of a rare race. A simdgroup runs as far as it can before
 * the next one starts, which lets the first run ahead of the others as far as the barriers permit.
 *
 * Stricter than a GPU: simdgroup functions and barriers must be reached by every thread of their group, at the same
 * place of the source. Only simd_is_first may be called in divergent code.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emu {

constexpr unsigned kLanes = 32;
constexpr size_t kThreadgroupBytes = 32768;
constexpr unsigned kMaxThreads = 1024;

struct Dim3 {
    uint32_t x, y, z;
};

/* ---- for kernel code ---- */

/* Where in the MSL source a thread waits, and at what. */
struct Site {
    const char *what;
    const char *file;
    int line;
};

uint32_t thread_index();    /* in its threadgroup */
uint32_t thread_count();    /* of the threadgroup */
Dim3 threadgroup_position();
Dim3 threadgroup_count();
void *threadgroup_memory(); /* 32 KiB, filled with 0xFF bytes when the threadgroup starts */

/* Wait for the whole threadgroup. */
void threadgroup_barrier(const Site &site);

/* Hand in `operand` and wait for the simdgroup. The last lane to arrive calls combine(operands, results) once, on two
 * arrays of 32 elements of kSlotBytes each; every lane then gets the address of its result, valid until its next call. */
constexpr size_t kSlotBytes = 32;
const void *collective(const Site &site, const void *operand, size_t bytes,
                       void (*combine)(const char *operands, char *results));

/* Whether this lane is the lowest of those that came here together. */
bool simd_is_first(const Site &site);

/* ---- for the device ---- */

enum class LaneOrder { forward, reverse, random };

struct Launch {
    void (*kernel)(const Launch &); /* one thread; reads its arguments from here */
    const void *args;
    void *const *buffers;
    Dim3 threadgroups;
    uint32_t threads;
    size_t threadgroup_bytes; /* used of the 32 KiB */
    LaneOrder order;
};

/* Run all threadgroups. Empty when they ended, else one sentence about who waits where. */
std::string run(const Launch &launch);

/* What translate.py knows of a kernel; translated sources register theirs before main. */
struct Kernel {
    const char *name;
    void (*run)(const Launch &);
    uint32_t max_threads; /* max_total_threads_per_threadgroup; 0 when it has none */
    size_t threadgroup_bytes;
    size_t args_bytes;
    uint32_t num_buffers;
    const size_t *alignments; /* [num_buffers] */
    const Kernel *next;
};

const Kernel *kernels(); /* head of the list */

struct Registration {
    explicit Registration(Kernel &kernel);
};

}  // namespace emu
