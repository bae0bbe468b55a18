/* Kernels that show how the emulated device behaves, right and wrong ones; see test_emulator.py. */
#include <metal_stdlib>

struct test_args {
    uint32_t value;
};

enum : uint { ROWS = 8, COLUMNS = 16 };

/* simd_sum reached by lanes below args.value only. */
kernel void partial_sum(constant test_args &args [[buffer(0)]],
                        device float *output [[buffer(1)]],
                        uint lane [[thread_index_in_simdgroup]]) {
    if (lane < args.value) {
        output[lane] = metal::simd_sum(1.0f);
    }
}

/* Two places that reduce, lanes below args.value at the one, the others at the other. */
kernel void two_sums(constant test_args &args [[buffer(0)]],
                     device float *output [[buffer(1)]],
                     uint lane [[thread_index_in_simdgroup]]) {
    if (lane < args.value) {
        output[lane] = metal::simd_sum(1.0f);
    } else {
        output[lane] = metal::simd_sum(2.0f);
    }
}

/* Threads from args.value on end before the barrier. */
kernel void early_end(constant test_args &args [[buffer(0)]],
                      device float *output [[buffer(1)]],
                      uint thread_index [[thread_index_in_threadgroup]]) {
    if (thread_index >= args.value) {
        return;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    output[thread_index] = 1.0f;
}

/* As many barriers as args.value, one more in the first simdgroup when it is odd. */
kernel void uneven_barriers(constant test_args &args [[buffer(0)]],
                            device float *output [[buffer(1)]],
                            uint simdgroup [[simdgroup_index_in_threadgroup]]) {
    const uint rounds = args.value - (simdgroup == 0 ? 0 : args.value % 2);
    for (uint i = 0; i < rounds; i++) {
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    }
    output[0] = float(rounds);
}

/* output[0]: how many lanes of all simdgroups are first; output[1 + i]: which lane is first from lane i on. */
kernel void first_lanes(constant test_args &args [[buffer(0)]],
                        device uint *output [[buffer(1)]],
                        uint lane [[thread_index_in_simdgroup]],
                        uint simdgroup [[simdgroup_index_in_threadgroup]]) {
    if (metal::simd_is_first()) {
        output[0] += 1;
    }
    if (lane >= args.value && simdgroup == 0) {
        if (metal::simd_is_first()) {
            output[1] = lane;
        }
    }
    const uint sum = metal::simd_sum(1u);
    if (metal::simd_is_first()) {
        output[2] += sum;
    }
}

/* Seven rows of 32: shuffle by reversed lane, broadcast of a lane, xor, prefix sum, maximum, minimum, a lane that does
 * not exist. */
kernel void shuffles(constant test_args &args [[buffer(0)]],
                     const device float *input [[buffer(1)]],
                     device float *output [[buffer(2)]],
                     uint lane [[thread_index_in_simdgroup]]) {
    const float value = input[lane];
    output[lane] = metal::simd_shuffle(value, ushort(31 - lane));
    output[32 + lane] = metal::simd_broadcast(value, ushort(args.value));
    output[64 + lane] = metal::simd_shuffle_xor(value, ushort(args.value));
    output[96 + lane] = metal::simd_prefix_inclusive_sum(value);
    output[128 + lane] = metal::simd_max(value);
    output[160 + lane] = metal::simd_min(value);
    output[192 + lane] = metal::simd_shuffle(value, ushort(32 + lane));
}

/* Each thread reads what its neighbour wrote: with the barrier (args.value 1) or without (0). */
kernel void neighbours(constant test_args &args [[buffer(0)]],
                       device float *output [[buffer(1)]],
                       uint3 position [[threadgroup_position_in_grid]],
                       uint thread_index [[thread_index_in_threadgroup]],
                       uint simdgroups [[simdgroups_per_threadgroup]]) {
    threadgroup float shared[ROWS * COLUMNS];
    const uint threads = simdgroups * 32;
    shared[thread_index] = float(thread_index);
    if (args.value != 0) {
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    }
    output[position.x * threads + thread_index] = shared[(thread_index + 32) % threads];
}

/* What a threadgroup finds in its memory before it writes there. */
kernel void unwritten(constant test_args &args [[buffer(0)]],
                      device float *output [[buffer(1)]],
                      uint3 position [[threadgroup_position_in_grid]],
                      uint thread_index [[thread_index_in_threadgroup]]) {
    threadgroup float shared[ROWS][COLUMNS];
    threadgroup float single;
    if (thread_index == 0) {
        output[2 * position.x] = shared[args.value / COLUMNS][args.value % COLUMNS];
        output[2 * position.x + 1] = single;
        shared[args.value / COLUMNS][args.value % COLUMNS] = 1.0f;
        single = 1.0f;
    }
}

/* All threads of all threadgroups count. */
kernel void count(constant test_args &args [[buffer(0)]],
                  device metal::atomic_uint *total [[buffer(1)]],
                  device uint *largest [[buffer(2)]],
                  uint thread_index [[thread_index_in_threadgroup]]) {
    threadgroup metal::atomic_uint local;
    if (thread_index == 0) {
        metal::atomic_store_explicit(&local, 0u, metal::memory_order_relaxed);
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    metal::atomic_fetch_add_explicit(&local, args.value, metal::memory_order_relaxed);
    metal::atomic_fetch_add_explicit(total, 1u, metal::memory_order_relaxed);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    if (thread_index == 0) {
        largest[0] = metal::atomic_load_explicit(&local, metal::memory_order_relaxed);
    }
}

/* output = a b + a bᵀ of 8 x 8 matrices, b inside one of args.value columns. */
kernel void matrices(constant test_args &args [[buffer(0)]],
                     const device float *a [[buffer(1)]],
                     const device float *b [[buffer(2)]],
                     device float *output [[buffer(3)]]) {
    metal::simdgroup_float8x8 left;
    metal::simdgroup_float8x8 right;
    metal::simdgroup_float8x8 transposed;
    metal::simdgroup_float8x8 sum = metal::simdgroup_float8x8(0.0f);
    metal::simdgroup_load(left, a);
    metal::simdgroup_load(right, b, args.value, ulong2(1, 2));
    metal::simdgroup_load(transposed, b, args.value, ulong2(1, 2), true);
    metal::simdgroup_multiply_accumulate(sum, left, right, sum);
    metal::simdgroup_multiply_accumulate(sum, left, transposed, sum);
    metal::simdgroup_store(sum, output);
}

/* Numbers to bfloat, and bits of a half to float. */
kernel void conversions(constant test_args &args [[buffer(0)]],
                        const device float *numbers [[buffer(1)]],
                        device bfloat *rounded [[buffer(2)]],
                        const device half *halves [[buffer(3)]],
                        device float *widened [[buffer(4)]],
                        uint3 position [[threadgroup_position_in_grid]],
                        uint thread_index [[thread_index_in_threadgroup]]) {
    const uint i = position.x * 32 + thread_index;
    if (i < args.value) {
        rounded[i] = bfloat(numbers[i]);
        widened[i] = float(halves[i]);
    }
}

/* Reads element args.value. */
kernel void read_at(constant test_args &args [[buffer(0)]],
                    const device float *input [[buffer(1)]],
                    device float4 *output [[buffer(2)]]) {
    output[0] = float4(input[args.value]);
}

/* Needs more threadgroup memory than there is. */
[[max_total_threads_per_threadgroup(64)]]
kernel void greedy(constant test_args &args [[buffer(0)]],
                   device float *output [[buffer(1)]]) {
    threadgroup float shared[8193];
    output[0] = shared[args.value];
}

/* Allows 64 threads. */
[[max_total_threads_per_threadgroup(64)]]
kernel void modest(constant test_args &args [[buffer(0)]],
                   device float *output [[buffer(1)]],
                   uint thread_index [[thread_index_in_threadgroup]]) {
    output[thread_index] = float(args.value);
}
