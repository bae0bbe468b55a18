/* Token ids to rows of the embedding table. */
#include <metal_stdlib>

#include "kernel_args.h"

/* One thread per element of a row; y is the token. No threadgroup memory. */
[[max_total_threads_per_threadgroup(256)]]
kernel void embedding(constant embedding_args &args [[buffer(0)]],
                      const device uint *tokens [[buffer(1)]],
                      const device bfloat *table [[buffer(2)]],
                      device float *output [[buffer(3)]],
                      uint3 position [[threadgroup_position_in_grid]],
                      uint thread_index [[thread_index_in_threadgroup]],
                      uint simdgroups [[simdgroups_per_threadgroup]]) {
    const uint column = position.x * simdgroups * 32 + thread_index;
    if (column >= args.hidden || position.y >= args.num_tokens) {
        return;
    }
    const uint row = tokens[position.y];
    const ulong target = ulong(position.y) * args.hidden + column;
    output[target] = row < args.num_rows ? float(table[ulong(row) * args.hidden + column]) : NAN;
}
