/* Sums and maxima over a whole threadgroup: each simdgroup reduces, then every thread reads the partial results.
 *
 * All threads of the threadgroup call, and all get the result. `partial` has one entry per simdgroup. */
#ifndef GPTOSS_METAL_REDUCE_H
#define GPTOSS_METAL_REDUCE_H

#include <metal_stdlib>

/* The most simdgroups of a threadgroup that reduces; see max_total_threads_per_threadgroup. */
enum : uint { REDUCE_SIMDGROUPS = 16 };

inline float threadgroup_sum(float value, threadgroup float *partial, uint lane, uint simdgroup, uint simdgroups) {
    value = metal::simd_sum(value);
    if (lane == 0) {
        partial[simdgroup] = value;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    value = 0.0f;
    for (uint i = 0; i < simdgroups; i++) {
        value += partial[i];
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup); /* the caller may reduce again */
    return value;
}

inline float threadgroup_max(float value, threadgroup float *partial, uint lane, uint simdgroup, uint simdgroups) {
    value = metal::simd_max(value);
    if (lane == 0) {
        partial[simdgroup] = value;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    value = partial[0];
    for (uint i = 1; i < simdgroups; i++) {
        value = metal::max(value, partial[i]);
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    return value;
}

#endif
