/* Matrix product for bf16 weights and many tokens: a tile of weights serves 32 tokens. */
#include <metal_stdlib>

#include "kernel_args.h"
#include "tile.h"

/* A threadgroup computes 32 outputs (x) of 32 tokens (y). Threadgroup memory: 3 tiles, 12288 bytes. */
[[max_total_threads_per_threadgroup(128)]]
kernel void dense_many(constant dense_args &args [[buffer(0)]],
                       const device float *input [[buffer(1)]],
                       const device bfloat *weight [[buffer(2)]],
                       const device bfloat *bias [[buffer(3)]],
                       device float *output [[buffer(4)]],
                       uint3 position [[threadgroup_position_in_grid]],
                       uint thread_index [[thread_index_in_threadgroup]],
                       uint simdgroup [[simdgroup_index_in_threadgroup]]) {
    threadgroup float tokens[TILE * TILE];
    threadgroup float rows[TILE * TILE];
    threadgroup float result[TILE * TILE];
    const uint first_row = position.x * TILE;
    const uint first_token = position.y * TILE;

    tile_sums sums;
    tile_clear(sums);
    for (uint k = 0; k < args.inputs; k += TILE) {
        for (uint i = thread_index; i < TILE * TILE; i += TILE_THREADS) {
            const uint column = k + i % TILE;
            const uint token = first_token + i / TILE;
            const uint row = first_row + i / TILE;
            const bool inside = column < args.inputs;
            tokens[i] = inside && token < args.num_tokens ? input[ulong(token) * args.inputs + column] : 0.0f;
            rows[i] = inside && row < args.outputs ? float(weight[ulong(row) * args.inputs + column]) : 0.0f;
        }
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
        tile_multiply(sums, tokens, rows, simdgroup);
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    }
    tile_store(sums, result, simdgroup);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    for (uint i = thread_index; i < TILE * TILE; i += TILE_THREADS) {
        const uint token = first_token + i / TILE;
        const uint row = first_row + i % TILE;
        if (token >= args.num_tokens || row >= args.outputs) {
            continue;
        }
        float sum = result[i];
        if (args.has_bias != 0) {
            sum += float(bias[row]);
        }
        const ulong target = ulong(token) * args.outputs + row;
        output[target] = args.add != 0 ? output[target] + sum : sum;
    }
}
