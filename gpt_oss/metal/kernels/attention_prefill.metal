/* Attention for many queries: 16 neighbouring queries of a head share each tile of 32 keys.
 *
 * The softmax streams as in attention_decode. In a tile, a lane first is a key (it computes one score per query), then
 * a pair of dimensions (it sums the weighted values). */
#include <metal_stdlib>

#include "kernel_args.h"

enum : uint {
    QUERIES = 16,
    KEYS = 32,
    PREFILL_SIMDGROUPS = 4,
    QUERIES_PER_SIMDGROUP = 4,
    KEY_STRIDE = HEAD_DIM + 2, /* lanes read different rows: an odd number of words between them, so no bank clashes */
};

struct query_state {
    float largest; /* score so far */
    float sum;     /* of exp(score - largest), the sink's included */
    float2 value;  /* this lane's two dimensions, weighted like the sum */
};

/* Take a tile's scores, one per lane, into a query's softmax: weights get exp(score - largest), and what was summed
 * before is scaled to the new largest score. */
inline void take_scores(thread query_state &query, float score, bool seen, threadgroup float *weights, uint lane) {
    const float largest = metal::max(query.largest, metal::simd_max(seen ? score : -FLT_MAX));
    const float weight = seen ? metal::precise::exp(score - largest) : 0.0f;
    const float scale = metal::precise::exp(query.largest - largest);
    query.sum = query.sum * scale + metal::simd_sum(weight);
    query.value = query.value * scale;
    query.largest = largest;
    weights[lane] = weight;
}

inline float score_of(const threadgroup float *query, const threadgroup bfloat *key) {
    float score = 0.0f;
    for (uint d = 0; d < HEAD_DIM; d++) {
        score = metal::fma(query[d], float(key[d]), score);
    }
    return score;
}

inline bool is_seen(constant attention_args &args, uint query_position, uint key) {
    return key <= query_position && (args.window == 0 || query_position - key < args.window);
}

/* A threadgroup per query head (x) and 16 tokens (y). Threadgroup memory: 14464 bytes. */
[[max_total_threads_per_threadgroup(128)]]
kernel void attention_prefill(constant attention_args &args [[buffer(0)]],
                              const device float *qkv [[buffer(1)]],
                              const device bfloat *keys [[buffer(2)]],
                              const device bfloat *values [[buffer(3)]],
                              const device bfloat *sinks [[buffer(4)]],
                              device float2 *output [[buffer(5)]],
                              uint3 position [[threadgroup_position_in_grid]],
                              uint thread_index [[thread_index_in_threadgroup]],
                              uint lane [[thread_index_in_simdgroup]],
                              uint simdgroup [[simdgroup_index_in_threadgroup]]) {
    threadgroup float query_tile[QUERIES * HEAD_DIM];
    threadgroup bfloat key_tile[KEYS * KEY_STRIDE];
    threadgroup bfloat value_tile[KEYS * HEAD_DIM];
    threadgroup float weights[QUERIES * KEYS];
    const uint threads = PREFILL_SIMDGROUPS * 32;
    const uint head = position.x;
    const uint first_token = position.y * QUERIES;
    if (head >= args.num_q_heads || first_token >= args.num_tokens) {
        return;
    }
    const uint kv_head = head / (args.num_q_heads / args.num_kv_heads);
    const uint heads = args.num_q_heads + 2 * args.num_kv_heads;

    for (uint i = thread_index; i < QUERIES * HEAD_DIM; i += threads) {
        const uint token = first_token + i / HEAD_DIM;
        query_tile[i] =
            token < args.num_tokens ? qkv[(ulong(token) * heads + head) * HEAD_DIM + i % HEAD_DIM] : 0.0f;
    }

    const uint first_position = args.first_position + first_token;
    const uint end = args.first_position + metal::min(first_token + QUERIES, args.num_tokens);
    const uint begin = args.window != 0 && first_position + 1 > args.window ? first_position + 1 - args.window : 0;
    query_state query0 = {float(sinks[head]), 1.0f, float2(0.0f)};
    query_state query1 = query0;
    query_state query2 = query0;
    query_state query3 = query0;
    const uint own = simdgroup * QUERIES_PER_SIMDGROUP;
    const threadgroup float *own_queries = query_tile + own * HEAD_DIM;
    threadgroup float *own_weights = weights + own * KEYS;

    for (uint first_key = begin; first_key < end; first_key += KEYS) {
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
        for (uint i = thread_index; i < KEYS * HEAD_DIM; i += threads) {
            const uint key = metal::min(first_key + i / HEAD_DIM, end - 1); /* beyond: repeated, with weight 0 */
            const ulong source =
                (ulong(key % args.capacity) * args.num_kv_heads + kv_head) * HEAD_DIM + i % HEAD_DIM;
            key_tile[i / HEAD_DIM * KEY_STRIDE + i % HEAD_DIM] = keys[source];
            value_tile[i] = values[source];
        }
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

        const uint key = first_key + lane;
        const threadgroup bfloat *own_key = key_tile + lane * KEY_STRIDE;
        const float score0 = score_of(own_queries, own_key);
        const float score1 = score_of(own_queries + HEAD_DIM, own_key);
        const float score2 = score_of(own_queries + 2 * HEAD_DIM, own_key);
        const float score3 = score_of(own_queries + 3 * HEAD_DIM, own_key);
        const uint query_position = first_position + own;
        take_scores(query0, score0, is_seen(args, query_position, key), own_weights, lane);
        take_scores(query1, score1, is_seen(args, query_position + 1, key), own_weights + KEYS, lane);
        take_scores(query2, score2, is_seen(args, query_position + 2, key), own_weights + 2 * KEYS, lane);
        take_scores(query3, score3, is_seen(args, query_position + 3, key), own_weights + 3 * KEYS, lane);
        metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);

        for (uint k = 0; k < KEYS; k++) {
            const threadgroup bfloat *pair = value_tile + k * HEAD_DIM + 2 * lane;
            const float2 value = float2(float(pair[0]), float(pair[1]));
            query0.value += value * own_weights[k];
            query1.value += value * own_weights[KEYS + k];
            query2.value += value * own_weights[2 * KEYS + k];
            query3.value += value * own_weights[3 * KEYS + k];
        }
    }

    const uint token = first_token + own;
    const ulong target = (ulong(token) * args.num_q_heads + head) * (HEAD_DIM / 2) + lane;
    const ulong stride = ulong(args.num_q_heads) * (HEAD_DIM / 2);
    if (token < args.num_tokens) {
        output[target] = query0.value / query0.sum;
    }
    if (token + 1 < args.num_tokens) {
        output[target + stride] = query1.value / query1.sum;
    }
    if (token + 2 < args.num_tokens) {
        output[target + 2 * stride] = query2.value / query2.sum;
    }
    if (token + 3 < args.num_tokens) {
        output[target + 3 * stride] = query3.value / query3.sum;
    }
}
