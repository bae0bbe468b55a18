/* A model as the context sees it: numbers, tensors on the device, and the kernels to compute with. */
#ifndef GPTOSS_MODEL_H
#define GPTOSS_MODEL_H

#include <stdatomic.h>

#include "gpt-oss.h"
#include "kernels.h"

enum { GPTOSS_TENSOR_ALIGNMENT = 16 };

/* The numbers in the file's header, in its order. */
typedef struct {
    uint32_t context_length, num_blocks, num_experts, num_active_experts, embedding_dim, mlp_dim;
    float swiglu_limit;
    uint32_t head_dim, num_heads, num_kv_heads, attention_window;
    float rope_theta, interpolation_scale, yarn_offset, yarn_scale, yarn_multiplier, rmsnorm_epsilon;
} gptoss_hyperparameters;

/* Offsets in the dense buffer of one block's tensors. */
typedef struct {
    size_t attention_norm, qkv_weight, qkv_bias, sinks, out_weight, out_bias, mlp_norm, gate_weight, gate_bias;
} gptoss_block;

struct gptoss_model {
    atomic_uint references;
    gptoss_hyperparameters numbers;
    gptoss_tokenizer *tokenizer;
    uint32_t vocabulary_size; /* rows of embedding and unembedding */

    void *reserved; /* address space around the mapped file */
    size_t reserved_bytes;

    gpu_device *device;
    kernels *kernels;
    gpu_buffer *dense;    /* everything but experts */
    gpu_buffer **experts; /* [num_blocks] */
    size_t embedding, final_norm, unembedding; /* offsets in `dense` */
    gptoss_block *blocks; /* [num_blocks] */
    experts_layout experts_layout;
};

/* Rows of the fused projection: query heads, key heads, value heads. */
static inline uint32_t gptoss_qkv_rows(const gptoss_hyperparameters *numbers) {
    return (numbers->num_heads + 2 * numbers->num_kv_heads) * numbers->head_dim;
}

/* Windowed layers are the even ones. */
static inline bool gptoss_has_window(uint32_t block) {
    return block % 2 == 0;
}

/* Report a device's error as a status of the public interface. */
gptoss_status gptoss_device_fail(gptoss_error *error, const gpu_error *reason);

#endif
