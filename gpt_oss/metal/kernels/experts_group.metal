/* Sort assignments (token · num_active + choice) by expert, so that an expert's weights serve all its tokens at once.
 *
 * A thread per expert counts, then a thread per expert writes: no atomics, and tokens keep their order. */
#include <metal_stdlib>

#include "kernel_args.h"
#include "tile.h"

/* counts [num_experts]. No threadgroup memory. */
[[max_total_threads_per_threadgroup(256)]]
kernel void experts_count(constant experts_args &args [[buffer(0)]],
                          const device uint *chosen [[buffer(1)]],
                          device uint *counts [[buffer(2)]],
                          uint3 position [[threadgroup_position_in_grid]],
                          uint thread_index [[thread_index_in_threadgroup]],
                          uint simdgroups [[simdgroups_per_threadgroup]]) {
    const uint expert = position.x * simdgroups * 32 + thread_index;
    if (expert >= args.num_experts) {
        return;
    }
    uint count = 0;
    for (uint i = 0; i < args.num_tokens * args.num_active; i++) {
        count += chosen[i] == expert ? 1 : 0;
    }
    counts[expert] = count;
}

/* order: the assignments, expert by expert. tiles: for every 32 assignments of an expert, or the rest of them, its
 * (expert, begin, end) in order; tiles beyond num_tiles[0] are not written. No threadgroup memory. */
[[max_total_threads_per_threadgroup(256)]]
kernel void experts_order(constant experts_args &args [[buffer(0)]],
                          const device uint *chosen [[buffer(1)]],
                          const device uint *counts [[buffer(2)]],
                          device uint *order [[buffer(3)]],
                          device uint *tiles [[buffer(4)]],
                          device uint *num_tiles [[buffer(5)]],
                          uint3 position [[threadgroup_position_in_grid]],
                          uint thread_index [[thread_index_in_threadgroup]],
                          uint simdgroups [[simdgroups_per_threadgroup]]) {
    const uint expert = position.x * simdgroups * 32 + thread_index;
    if (expert >= args.num_experts) {
        return;
    }
    uint begin = 0;
    uint tile = 0;
    for (uint i = 0; i < expert; i++) {
        begin += counts[i];
        tile += (counts[i] + TILE - 1) / TILE;
    }
    const uint end = begin + counts[expert];
    uint next = begin;
    for (uint i = 0; i < args.num_tokens * args.num_active; i++) {
        if (chosen[i] == expert) {
            order[next] = i;
            next++;
        }
    }
    for (uint first = begin; first < end; first += TILE) {
        tiles[3 * tile] = expert;
        tiles[3 * tile + 1] = first;
        tiles[3 * tile + 2] = metal::min(first + TILE, end);
        tile++;
    }
    if (expert == args.num_experts - 1) {
        num_tiles[0] = tile;
    }
}
