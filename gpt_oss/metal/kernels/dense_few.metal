/* Matrix times vector for bf16 weights and few tokens: every weight is read once per token, at the speed of memory. */
#include <metal_stdlib>

#include "kernel_args.h"

enum : uint { ROWS_PER_SIMDGROUP = 4 };

/* A simdgroup computes four outputs of one token at a time, its lanes four inputs at a time; y is the token. The
 * simdgroups of a token's threadgroups (x) go through the outputs together. No threadgroup memory. */
[[max_total_threads_per_threadgroup(256)]]
kernel void dense_few(constant dense_args &args [[buffer(0)]],
                      const device float4 *input [[buffer(1)]],
                      const device bfloat4 *weight [[buffer(2)]],
                      const device bfloat *bias [[buffer(3)]],
                      device float *output [[buffer(4)]],
                      uint3 position [[threadgroup_position_in_grid]],
                      uint3 grid [[threadgroups_per_grid]],
                      uint lane [[thread_index_in_simdgroup]],
                      uint simdgroup [[simdgroup_index_in_threadgroup]],
                      uint simdgroups [[simdgroups_per_threadgroup]]) {
    const uint token = position.y;
    if (token >= args.num_tokens) {
        return;
    }
    const uint quads = args.inputs / 4;
    const uint last = args.outputs - 1;
    const device float4 *x = input + ulong(token) * quads;
    const uint step = grid.x * simdgroups * ROWS_PER_SIMDGROUP;
    for (uint first = (position.x * simdgroups + simdgroup) * ROWS_PER_SIMDGROUP; first <= last; first += step) {
        /* rows beyond the last repeat it and are not stored */
        const device bfloat4 *w0 = weight + ulong(first) * quads;
        const device bfloat4 *w1 = weight + ulong(metal::min(first + 1, last)) * quads;
        const device bfloat4 *w2 = weight + ulong(metal::min(first + 2, last)) * quads;
        const device bfloat4 *w3 = weight + ulong(metal::min(first + 3, last)) * quads;
        float4 sums = float4(0.0f);
        for (uint i = lane; i < quads; i += 32) {
            const float4 xi = x[i];
            sums += float4(metal::dot(xi, float4(w0[i])), metal::dot(xi, float4(w1[i])),
                           metal::dot(xi, float4(w2[i])), metal::dot(xi, float4(w3[i])));
        }
        sums = metal::simd_sum(sums);
        const uint row = first + lane;
        if (lane < ROWS_PER_SIMDGROUP && row <= last) {
            float sum = lane == 0 ? sums.x : lane == 1 ? sums.y : lane == 2 ? sums.z : sums.w;
            if (args.has_bias != 0) {
                sum += float(bias[row]);
            }
            const ulong target = ulong(token) * args.outputs + row;
            output[target] = args.add != 0 ? output[target] + sum : sum;
        }
    }
}
