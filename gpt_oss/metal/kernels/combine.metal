/* The weighted sum of a token's experts onto the residual stream. */
#include <metal_stdlib>

#include "kernel_args.h"

/* A thread per element of a row (x); y is the token. No threadgroup memory. */
[[max_total_threads_per_threadgroup(256)]]
kernel void combine(constant combine_args &args [[buffer(0)]],
                    const device float *results [[buffer(1)]],
                    const device uint *chosen [[buffer(2)]],
                    const device float *gates [[buffer(3)]],
                    device float *residual [[buffer(4)]],
                    uint3 position [[threadgroup_position_in_grid]],
                    uint thread_index [[thread_index_in_threadgroup]],
                    uint simdgroups [[simdgroups_per_threadgroup]]) {
    const uint column = position.x * simdgroups * 32 + thread_index;
    if (column >= args.hidden || position.y >= args.num_tokens) {
        return;
    }
    float sum = 0.0f;
    for (uint i = 0; i < args.num_active; i++) {
        const ulong assignment = ulong(position.y) * args.num_active + i;
        /* the result of an expert that does not exist was never computed */
        const float result = chosen[assignment] < args.num_experts ? results[assignment * args.hidden + column] : NAN;
        sum = metal::fma(gates[assignment], result, sum);
    }
    residual[ulong(position.y) * args.hidden + column] += sum;
}
