/* Argument structures of the kernels, [[buffer(0)]] of each: one text for MSL, C and C++.
 *
 * Every field has four bytes, so the layout is the same everywhere; kernels.c asserts the sizes. Counts are elements,
 * matrices are row-major and contiguous. bf16 and MXFP4 weights lie as in the model file (see ../kernels.h).
 */
#ifndef GPTOSS_METAL_KERNEL_ARGS_H
#define GPTOSS_METAL_KERNEL_ARGS_H

#ifdef __METAL_VERSION__
#include <metal_stdlib>
#else
#include <stdint.h>
#endif

#define HEAD_DIM 64

struct embedding_args {
    uint32_t num_tokens;
    uint32_t hidden;
    uint32_t num_rows; /* of the table */
};

struct rmsnorm_args {
    uint32_t num_rows;
    uint32_t hidden;
    float epsilon;
};

struct dense_args {
    uint32_t num_tokens;
    uint32_t inputs;
    uint32_t outputs;
    uint32_t has_bias; /* 0 or 1 */
    uint32_t add;      /* 0: output = product; 1: output += product */
};

struct rotary_args {
    uint32_t num_tokens;
    uint32_t first_position; /* of the first token; the others follow */
    uint32_t num_q_heads;
    uint32_t num_kv_heads;
    uint32_t capacity; /* positions in the cache; position p lies at p % capacity */
};

struct attention_args {
    uint32_t num_tokens;
    uint32_t first_position;
    uint32_t num_q_heads;
    uint32_t num_kv_heads;
    uint32_t capacity;
    uint32_t window; /* keys a query sees, its own included; 0 for all */
};

struct topk_args {
    uint32_t num_tokens;
    uint32_t num_experts;
    uint32_t num_active;
};

/* One of an expert's two matrices; offsets are bytes from the start of the expert. */
struct experts_args {
    uint32_t num_tokens;
    uint32_t num_experts;
    uint32_t num_active;
    uint32_t inputs;  /* multiple of 32 */
    uint32_t outputs; /* rows of the matrix; gate and linear rows interleaved in the first one */
    uint32_t expert_stride;
    uint32_t blocks_offset;
    uint32_t scales_offset;
    uint32_t bias_offset;
    float swiglu_limit; /* of the first matrix */
};

struct combine_args {
    uint32_t num_tokens;
    uint32_t num_experts;
    uint32_t num_active;
    uint32_t hidden;
};

struct softmax_args {
    uint32_t num_rows;
    uint32_t num_tokens; /* entries of a row */
    float temperature;   /* above 0 */
};

struct argmax_args {
    uint32_t num_rows;
    uint32_t num_tokens;
};

struct sample_args {
    uint32_t num_tokens;
    float top_p; /* above 0; 1 or more keeps everything */
    float point; /* the random number, in [0, 1) */
};

#endif
