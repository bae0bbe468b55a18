/* Logits to a token: the largest one, or probabilities and a draw from them. One threadgroup per row. */
#include <metal_stdlib>

#include "kernel_args.h"
#include "reduce.h"

enum : uint { NO_TOKEN = 0xFFFFFFFFu };

/* In place or not. Threadgroup memory: 64 bytes. */
[[max_total_threads_per_threadgroup(512)]]
kernel void softmax(constant softmax_args &args [[buffer(0)]],
                    const device float *logits [[buffer(1)]],
                    device float *probabilities [[buffer(2)]],
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
    const ulong row = ulong(position.x) * args.num_tokens;

    float largest = -FLT_MAX;
    for (uint i = thread_index; i < args.num_tokens; i += threads) {
        largest = metal::max(largest, logits[row + i]);
    }
    largest = threadgroup_max(largest, partial, lane, simdgroup, simdgroups);
    float sum = 0.0f;
    for (uint i = thread_index; i < args.num_tokens; i += threads) {
        const float weight = metal::precise::exp((logits[row + i] - largest) / args.temperature);
        probabilities[row + i] = weight;
        sum += weight;
    }
    sum = threadgroup_sum(sum, partial, lane, simdgroup, simdgroups);
    for (uint i = thread_index; i < args.num_tokens; i += threads) {
        probabilities[row + i] = probabilities[row + i] / sum;
    }
}

/* The first of the largest logits. Threadgroup memory: 192 bytes. */
[[max_total_threads_per_threadgroup(512)]]
kernel void argmax(constant argmax_args &args [[buffer(0)]],
                   const device float *logits [[buffer(1)]],
                   device uint *token [[buffer(2)]],
                   uint3 position [[threadgroup_position_in_grid]],
                   uint thread_index [[thread_index_in_threadgroup]],
                   uint lane [[thread_index_in_simdgroup]],
                   uint simdgroup [[simdgroup_index_in_threadgroup]],
                   uint simdgroups [[simdgroups_per_threadgroup]]) {
    threadgroup float part_largest[REDUCE_SIMDGROUPS];
    threadgroup uint part_index[REDUCE_SIMDGROUPS];
    threadgroup uint part_nan[REDUCE_SIMDGROUPS];
    if (position.x >= args.num_rows) {
        return;
    }
    const ulong row = ulong(position.x) * args.num_tokens;

    float largest = -INFINITY;
    uint index = NO_TOKEN;
    uint nan = 0;
    for (uint i = thread_index; i < args.num_tokens; i += simdgroups * 32) {
        const float logit = logits[row + i];
        nan |= metal::isnan(logit) ? 1 : 0;
        if (logit > largest) {
            largest = logit;
            index = i;
        }
    }
    const float simd_largest = metal::simd_max(largest);
    index = metal::simd_min(largest == simd_largest ? index : NO_TOKEN);
    nan = metal::simd_max(nan);
    if (lane == 0) {
        part_largest[simdgroup] = simd_largest;
        part_index[simdgroup] = index;
        part_nan[simdgroup] = nan;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    if (thread_index != 0) {
        return;
    }
    largest = part_largest[0];
    index = part_index[0];
    nan = part_nan[0];
    for (uint i = 1; i < simdgroups; i++) {
        if (part_largest[i] > largest || (part_largest[i] == largest && part_index[i] < index)) {
            largest = part_largest[i];
            index = part_index[i];
        }
        nan |= part_nan[i];
    }
    token[position.x] = nan == 0 && metal::isfinite(largest) ? index : NO_TOKEN;
}

/* The sum of the probabilities of at least `floor`. */
inline float mass_from(const device float *probabilities, uint count, float floor, uint thread_index, uint threads) {
    float sum = 0.0f;
    for (uint i = thread_index; i < count; i += threads) {
        sum += probabilities[i] >= floor ? probabilities[i] : 0.0f;
    }
    return sum;
}

/* One token by inverting the cumulative sum of what top_p keeps, in token order.
 *
 * The smallest kept probability is found by bisection over the bits of a float, which are ordered like the
 * non-negative numbers they stand for; of the tokens that have exactly this probability only the first so many are
 * kept. Then every thread sums a range of tokens, and the one in whose range the point falls walks through it.
 * Threadgroup memory: 4160 bytes. */
[[max_total_threads_per_threadgroup(512)]]
kernel void sample(constant sample_args &args [[buffer(0)]],
                   const device float *probabilities [[buffer(1)]],
                   device uint *token [[buffer(2)]],
                   uint thread_index [[thread_index_in_threadgroup]],
                   uint lane [[thread_index_in_simdgroup]],
                   uint simdgroup [[simdgroup_index_in_threadgroup]],
                   uint simdgroups [[simdgroups_per_threadgroup]]) {
    threadgroup float partial[REDUCE_SIMDGROUPS];
    threadgroup float range_mass[REDUCE_SIMDGROUPS * 32];
    threadgroup uint range_ties[REDUCE_SIMDGROUPS * 32];
    const uint threads = simdgroups * 32;
    const float total = threadgroup_sum(mass_from(probabilities, args.num_tokens, 0.0f, thread_index, threads), partial,
                                        lane, simdgroup, simdgroups);
    uint floor_bits = 1; /* the smallest number above 0: everything that has mass */
    if (args.top_p < 1.0f) {
        /* the mass from floor_bits on reaches top_p, from beyond on it does not */
        uint beyond = as_type<uint>(1.0f) + 1;
        for (uint step = 0; step < 30; step++) {
            const uint middle = floor_bits + (beyond - floor_bits) / 2;
            const float mass = mass_from(probabilities, args.num_tokens, as_type<float>(middle), thread_index, threads);
            const bool enough =
                threadgroup_sum(mass, partial, lane, simdgroup, simdgroups) >= args.top_p * total;
            floor_bits = enough ? middle : floor_bits;
            beyond = enough ? beyond : middle;
        }
    }
    /* Kept: everything above the floor, and of those equal to it the first max_ties. */
    const float floor = as_type<float>(floor_bits);
    uint max_ties = args.num_tokens;
    if (args.top_p < 1.0f) {
        const float next_floor = as_type<float>(floor_bits + 1);
        const float mass = mass_from(probabilities, args.num_tokens, next_floor, thread_index, threads);
        const float above = threadgroup_sum(mass, partial, lane, simdgroup, simdgroups);
        const float missing = (args.top_p * total - above) / floor;
        max_ties = uint(metal::clamp(metal::ceil(missing), 1.0f, float(args.num_tokens)));
    }

    const uint range = (args.num_tokens + threads - 1) / threads;
    const uint begin = metal::min(thread_index * range, args.num_tokens);
    const uint end = metal::min(begin + range, args.num_tokens);
    uint ties = 0;
    for (uint i = begin; i < end; i++) {
        ties += probabilities[i] == floor ? 1 : 0;
    }
    range_ties[thread_index] = ties;
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    uint first_tie = 0;
    for (uint i = 0; i < thread_index; i++) {
        first_tie += range_ties[i];
    }
    float mass = 0.0f;
    uint tie = first_tie;
    for (uint i = begin; i < end; i++) {
        const float p = probabilities[i];
        const bool is_tie = p == floor;
        mass += p > floor || (is_tie && tie < max_ties) ? p : 0.0f;
        tie += is_tie ? 1 : 0;
    }
    range_mass[thread_index] = mass;
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    float before = 0.0f;
    float kept = 0.0f;
    uint last_range = 0; /* the last that holds anything */
    for (uint i = 0; i < threads; i++) {
        before = i == thread_index ? kept : before;
        kept += range_mass[i];
        last_range = range_mass[i] > 0.0f ? i : last_range;
    }
    if (thread_index == 0 && !(kept > 0.0f && metal::isfinite(kept))) {
        token[0] = NO_TOKEN;
    }
    const float point = args.point * kept;
    const bool is_last = thread_index == last_range;
    /* Rounding may put the point at the very end: the last range takes it. */
    if (!(mass > 0.0f) || !metal::isfinite(kept) || point < before || (!is_last && point >= before + mass)) {
        return;
    }
    uint found = NO_TOKEN;
    float sum = before;
    tie = first_tie;
    for (uint i = begin; i < end; i++) {
        const float p = probabilities[i];
        const bool is_tie = p == floor;
        if (p > floor || (is_tie && tie < max_ties)) {
            found = sum <= point ? i : found; /* the last kept token that starts at or before the point */
            sum += p;
        }
        tie += is_tie ? 1 : 0;
    }
    token[0] = found;
}
