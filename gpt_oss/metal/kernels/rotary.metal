/* Rotary position embedding, and new keys and values into the cache. */
#include <metal_stdlib>

#include "kernel_args.h"

/* A simdgroup per head (x: q heads, k heads, v heads), a lane per pair of neighbours; y is the token.
 * No threadgroup memory. */
[[max_total_threads_per_threadgroup(256)]]
kernel void rotary(constant rotary_args &args [[buffer(0)]],
                   device float2 *qkv [[buffer(1)]],
                   const device float2 *table [[buffer(2)]],
                   device bfloat2 *keys [[buffer(3)]],
                   device bfloat2 *values [[buffer(4)]],
                   uint3 position [[threadgroup_position_in_grid]],
                   uint lane [[thread_index_in_simdgroup]],
                   uint simdgroup [[simdgroup_index_in_threadgroup]],
                   uint simdgroups [[simdgroups_per_threadgroup]]) {
    const uint pairs = HEAD_DIM / 2;
    const uint head = position.x * simdgroups + simdgroup;
    const uint heads = args.num_q_heads + 2 * args.num_kv_heads;
    const uint token = position.y;
    if (head >= heads || token >= args.num_tokens) {
        return;
    }
    const ulong source = (ulong(token) * heads + head) * pairs + lane;
    const uint token_position = args.first_position + token;
    const uint slot = token_position % args.capacity;
    const float2 pair = qkv[source];
    if (head >= args.num_q_heads + args.num_kv_heads) {
        const uint kv_head = head - args.num_q_heads - args.num_kv_heads;
        values[(ulong(slot) * args.num_kv_heads + kv_head) * pairs + lane] = bfloat2(pair);
        return;
    }
    const float2 cos_sin = table[ulong(token_position) * pairs + lane];
    const float2 rotated =
        float2(pair.x * cos_sin.x - pair.y * cos_sin.y, pair.y * cos_sin.x + pair.x * cos_sin.y);
    if (head < args.num_q_heads) {
        qkv[source] = rotated;
    } else {
        const uint kv_head = head - args.num_q_heads;
        keys[(ulong(slot) * args.num_kv_heads + kv_head) * pairs + lane] = bfloat2(rotated);
    }
}
