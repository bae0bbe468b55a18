/* RMSNorm (Zhang and Sennrich 2019): a row divided by its root mean square, times a gain. */
#include <metal_stdlib>

#include "kernel_args.h"
#include "reduce.h"

/* One threadgroup per row. Threadgroup memory: 64 bytes. */
[[max_total_threads_per_threadgroup(512)]]
kernel void rmsnorm(constant rmsnorm_args &args [[buffer(0)]],
                    const device float *input [[buffer(1)]],
                    const device bfloat *gain [[buffer(2)]],
                    device float *output [[buffer(3)]],
                    uint3 position [[threadgroup_position_in_grid]],
                    uint thread_index [[thread_index_in_threadgroup]],
                    uint lane [[thread_index_in_simdgroup]],
                    uint simdgroup [[simdgroup_index_in_threadgroup]],
                    uint simdgroups [[simdgroups_per_threadgroup]]) {
    threadgroup float partial[REDUCE_SIMDGROUPS];
    if (position.x >= args.num_rows) {
        return;
    }
    const uint threads = simdgroups * 32;
    const ulong row = ulong(position.x) * args.hidden;

    float squares = 0.0f;
    for (uint i = thread_index; i < args.hidden; i += threads) {
        squares = metal::fma(input[row + i], input[row + i], squares);
    }
    squares = threadgroup_sum(squares, partial, lane, simdgroup, simdgroups);
    const float scale = metal::precise::rsqrt(squares / float(args.hidden) + args.epsilon);
    for (uint i = thread_index; i < args.hidden; i += threads) {
        output[row + i] = input[row + i] * scale * float(gain[i]);
    }
}
