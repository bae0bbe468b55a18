/* The best experts of a token and the softmax over their scores. */
#include <metal_stdlib>

#include "kernel_args.h"

enum : uint { NO_EXPERT = 0xFFFFFFFFu };

/* A simdgroup per token. Each round takes the best score after the one taken before, in the order of score, then
 * index, so nothing has to be marked as taken. No threadgroup memory. */
[[max_total_threads_per_threadgroup(256)]]
kernel void topk(constant topk_args &args [[buffer(0)]],
                 const device float *scores [[buffer(1)]],
                 device uint *chosen [[buffer(2)]],
                 device float *weights [[buffer(3)]],
                 uint3 position [[threadgroup_position_in_grid]],
                 uint lane [[thread_index_in_simdgroup]],
                 uint simdgroup [[simdgroup_index_in_threadgroup]],
                 uint simdgroups [[simdgroups_per_threadgroup]]) {
    const uint token = position.x * simdgroups + simdgroup;
    if (token >= args.num_tokens) {
        return;
    }
    const device float *row = scores + ulong(token) * args.num_experts;
    const ulong target = ulong(token) * args.num_active;
    float taken = INFINITY;
    uint taken_index = 0;
    float largest = 0.0f;
    float sum = 0.0f;
    for (uint round = 0; round < args.num_active; round++) {
        float best = -INFINITY;
        uint best_index = NO_EXPERT;
        for (uint i = lane; i < args.num_experts; i += 32) {
            const float score = row[i];
            const bool left = round == 0 || score < taken || (score == taken && i > taken_index);
            if (left && (score > best || (score == best && i < best_index))) {
                best = score;
                best_index = i;
            }
        }
        taken = metal::simd_max(best);
        taken_index = metal::simd_min(best == taken ? best_index : NO_EXPERT);
        largest = round == 0 ? taken : largest;
        const float weight = metal::precise::exp(taken - largest);
        sum += weight;
        if (lane == 0) {
            chosen[target + round] = taken_index; /* NO_EXPERT where the rest of the scores is NaN */
            weights[target + round] = weight;
        }
    }
    metal::simdgroup_barrier(metal::mem_flags::mem_device);
    for (uint i = lane; i < args.num_active; i += 32) {
        weights[target + i] = weights[target + i] / sum;
    }
}
