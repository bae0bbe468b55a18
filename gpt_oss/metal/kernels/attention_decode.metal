/* Attention for few queries: the simdgroups of a threadgroup share one query's keys.
 *
 * Softmax is computed while the keys stream by (Milakov and Gimelshein 2018): each simdgroup keeps the largest score so
 * far, the sum of exponentials relative to it and the weighted sum of values, and the parts are joined at the end. The
 * head's sink is one more score, without a value. */
#include <metal_stdlib>

#include "kernel_args.h"

enum : uint { ATTENTION_SIMDGROUPS = 8 };

/* A threadgroup per query head (x) and token (y); a lane holds two of the 64 dimensions.
 * Threadgroup memory: 2112 bytes. */
[[max_total_threads_per_threadgroup(256)]]
kernel void attention_decode(constant attention_args &args [[buffer(0)]],
                             const device float2 *qkv [[buffer(1)]],
                             const device bfloat2 *keys [[buffer(2)]],
                             const device bfloat2 *values [[buffer(3)]],
                             const device bfloat *sinks [[buffer(4)]],
                             device float2 *output [[buffer(5)]],
                             uint3 position [[threadgroup_position_in_grid]],
                             uint lane [[thread_index_in_simdgroup]],
                             uint simdgroup [[simdgroup_index_in_threadgroup]],
                             uint simdgroups [[simdgroups_per_threadgroup]]) {
    threadgroup float2 part_value[ATTENTION_SIMDGROUPS * HEAD_DIM / 2];
    threadgroup float part_max[ATTENTION_SIMDGROUPS];
    threadgroup float part_sum[ATTENTION_SIMDGROUPS];
    const uint pairs = HEAD_DIM / 2;
    const uint head = position.x;
    const uint token = position.y;
    if (head >= args.num_q_heads || token >= args.num_tokens) {
        return;
    }
    const uint kv_head = head / (args.num_q_heads / args.num_kv_heads);
    const uint end = args.first_position + token + 1;
    const uint begin = args.window != 0 && end > args.window ? end - args.window : 0;
    const ulong row = ulong(token) * (args.num_q_heads + 2 * args.num_kv_heads);
    const float2 query = qkv[(row + head) * pairs + lane];

    float largest = -FLT_MAX;
    float sum = 0.0f;
    float2 value = float2(0.0f);
    for (uint key = begin + simdgroup; key < end; key += simdgroups) {
        const ulong offset = (ulong(key % args.capacity) * args.num_kv_heads + kv_head) * pairs + lane;
        const float score = metal::simd_sum(metal::dot(query, float2(keys[offset])));
        const float new_largest = metal::max(largest, score);
        const float old_scale = metal::precise::exp(largest - new_largest);
        const float weight = metal::precise::exp(score - new_largest);
        sum = sum * old_scale + weight;
        value = value * old_scale + float2(values[offset]) * weight;
        largest = new_largest;
    }
    part_value[simdgroup * pairs + lane] = value;
    if (lane == 0) {
        part_max[simdgroup] = largest;
        part_sum[simdgroup] = sum;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    if (simdgroup != 0) {
        return;
    }
    const float sink = float(sinks[head]);
    largest = sink;
    for (uint i = 0; i < simdgroups; i++) {
        largest = metal::max(largest, part_max[i]);
    }
    sum = metal::precise::exp(sink - largest);
    value = float2(0.0f);
    for (uint i = 0; i < simdgroups; i++) {
        const float scale = metal::precise::exp(part_max[i] - largest);
        sum += part_sum[i] * scale;
        value += part_value[i * pairs + lane] * scale;
    }
    output[(ulong(token) * args.num_q_heads + head) * pairs + lane] = value / sum;
}
