/* Launchers: one C function per step of the model, each of which checks its arguments and appends one or a few kernel
 * launches to a command buffer. Nothing here allocates, waits or knows how steps make a model.
 *
 * Activations are fp32. Weights are read where the model file put them: bf16 matrices [outputs, inputs] with their
 * bias, MXFP4 experts whose scale bytes are 14 larger than the OCP format's, q and k rows in rotary pairs and scaled
 * so that scores need no further factor. Shapes are free but for head_dim 64 and matrix widths of 32 n in MXFP4.
 *
 * All launchers return false with one sentence in *error when a count is 0, a slice is too short for its shape or not
 * aligned (fp32 activations, tables and bf16 matrices at multiples of 16; biases and norms of 2), or the device refuses
 * a launch. What was appended by then must not be committed. Shapes are [rows, columns] of fp32 unless they say bf16
 * or u32.
 */
#ifndef GPTOSS_METAL_KERNELS_H
#define GPTOSS_METAL_KERNELS_H

#include "device.h"
#include "kernels/kernel_args.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kernels kernels;

/* All kernels of the package on a device. Release before the device. */
bool kernels_create(gpu_device *device, kernels **all, gpu_error *error);
void kernels_release(kernels *all);

/* From this many tokens on, matrices are multiplied in tiles that share each weight among tokens. */
enum { KERNELS_MANY_TOKENS = 16 };

/* output [num_tokens, hidden] = table [tokens], table bf16 [num_rows, hidden], tokens u32 [num_tokens].
 * A token that has no row gives a row of NaN: the caller rejects such tokens first. */
bool launch_embedding(kernels *all, gpu_commands *commands, struct embedding_args args, gpu_slice tokens,
                      gpu_slice table, gpu_slice output, gpu_error *error);

/* output [num_rows, hidden] = input / sqrt(mean(input²) + epsilon) · gain, gain bf16 [hidden]. */
bool launch_rmsnorm(kernels *all, gpu_commands *commands, struct rmsnorm_args args, gpu_slice input, gpu_slice gain,
                    gpu_slice output, gpu_error *error);

/* output [num_tokens, outputs] = or += input [num_tokens, inputs] · weightᵀ + bias: QKV, out projection with its
 * residual, router, unembedding. weight bf16 [outputs, inputs], bias bf16 [outputs]; without a bias the slice's buffer
 * may be null. inputs is a multiple of 4. Input and output must not overlap. Takes the tiled path from KERNELS_MANY_TOKENS on; _few and _many
 * name one path and give equal results up to rounding. */
bool launch_dense(kernels *all, gpu_commands *commands, struct dense_args args, gpu_slice input, gpu_slice weight,
                  gpu_slice bias, gpu_slice output, gpu_error *error);
bool launch_dense_few(kernels *all, gpu_commands *commands, struct dense_args args, gpu_slice input, gpu_slice weight,
                      gpu_slice bias, gpu_slice output, gpu_error *error);
bool launch_dense_many(kernels *all, gpu_commands *commands, struct dense_args args, gpu_slice input, gpu_slice weight,
                       gpu_slice bias, gpu_slice output, gpu_error *error);

/* Rotate q and k of qkv [num_tokens, (q + 2 kv heads) · 64] and store keys and values.
 * table [positions, 32, 2]: cos and sin of each rotary pair, already times YaRN's concentration; it must reach
 * first_position + num_tokens. q is rotated in place; k (rotated) and v go to keys and values, bf16
 * [capacity, kv heads, 64], at row position % capacity. num_tokens may not exceed capacity. */
bool launch_rotary(kernels *all, gpu_commands *commands, struct rotary_args args, gpu_slice qkv, gpu_slice table,
                   gpu_slice keys, gpu_slice values, gpu_error *error);

/* output [num_tokens, q heads · 64]: causal attention of the rotated queries in qkv over the cache, which already holds
 * the keys of these tokens. sinks bf16 [q heads] join the softmax denominator. The cache must still hold every key
 * that some query sees: capacity >= first_position + num_tokens, or window - 1 + num_tokens where that is less.
 * Takes the tiled path from KERNELS_MANY_TOKENS on. */
bool launch_attention(kernels *all, gpu_commands *commands, struct attention_args args, gpu_slice qkv, gpu_slice keys,
                      gpu_slice values, gpu_slice sinks, gpu_slice output, gpu_error *error);
bool launch_attention_decode(kernels *all, gpu_commands *commands, struct attention_args args, gpu_slice qkv,
                             gpu_slice keys, gpu_slice values, gpu_slice sinks, gpu_slice output, gpu_error *error);
bool launch_attention_prefill(kernels *all, gpu_commands *commands, struct attention_args args, gpu_slice qkv,
                              gpu_slice keys, gpu_slice values, gpu_slice sinks, gpu_slice output, gpu_error *error);

/* The num_active largest of each row of scores [num_tokens, num_experts], largest first, the lower expert first among
 * equals: chosen u32 [num_tokens, num_active], weights [num_tokens, num_active] = softmax over the chosen. */
bool launch_topk(kernels *all, gpu_commands *commands, struct topk_args args, gpu_slice scores, gpu_slice chosen,
                 gpu_slice weights, gpu_error *error);

/* A mixture-of-experts layer as it lies in the model file: expert e starts at e · stride of the weights' slice, and
 * the offsets are bytes from there. All of it is a multiple of 16. */
typedef struct {
    uint32_t num_experts, num_active;
    uint32_t hidden, intermediate; /* multiples of 32 */
    float swiglu_limit;
    uint32_t stride;
    uint32_t mlp1_blocks, mlp1_scales, mlp1_bias; /* u8 [2 I, H/32, 16], u8 [2 I, H/32], bf16 [2 I] */
    uint32_t mlp2_blocks, mlp2_scales, mlp2_bias; /* u8 [H, I/32, 16], u8 [H, I/32], bf16 [H] */
} experts_layout;

/* Fill in stride and offsets from hidden and intermediate, by the rules of the model file. False when they are not
 * multiples of 32 or an expert exceeds 4 GiB. */
bool experts_layout_fill(experts_layout *layout, gpu_error *error);

/* Bytes of scratch that launch_experts needs for this many tokens. */
size_t experts_scratch_bytes(const experts_layout *layout, uint32_t num_tokens);

/* residual [num_tokens, hidden] += weighted sum of the chosen experts of input [num_tokens, hidden].
 * weights: the layer's experts in the model file; chosen, gates: as launch_topk wrote them. A chosen expert that does
 * not exist makes the token's row NaN. scratch may be shared by all layers. */
bool launch_experts(kernels *all, gpu_commands *commands, const experts_layout *layout, uint32_t num_tokens,
                    gpu_slice input, gpu_slice weights, gpu_slice chosen, gpu_slice gates, gpu_slice scratch,
                    gpu_slice residual, gpu_error *error);
bool launch_experts_few(kernels *all, gpu_commands *commands, const experts_layout *layout, uint32_t num_tokens,
                        gpu_slice input, gpu_slice weights, gpu_slice chosen, gpu_slice gates, gpu_slice scratch,
                        gpu_slice residual, gpu_error *error);
bool launch_experts_many(kernels *all, gpu_commands *commands, const experts_layout *layout, uint32_t num_tokens,
                         gpu_slice input, gpu_slice weights, gpu_slice chosen, gpu_slice gates, gpu_slice scratch,
                         gpu_slice residual, gpu_error *error);

/* probabilities [num_rows, num_tokens] = softmax(logits / temperature); may be in place. */
bool launch_softmax(kernels *all, gpu_commands *commands, struct softmax_args args, gpu_slice logits,
                    gpu_slice probabilities, gpu_error *error);

/* token u32 [num_rows]: the lowest index of each row's maximum; GPU_NO_TOKEN where a logit is NaN or the maximum is
 * not finite. */
enum { GPU_NO_TOKEN = -1 };
bool launch_argmax(kernels *all, gpu_commands *commands, struct argmax_args args, gpu_slice logits, gpu_slice token,
                   gpu_error *error);

/* token u32 [1]: drawn from probabilities [num_tokens] by inverting their cumulative sum, in token order, at the random
 * number `sample_point(seed, step)`. top_p keeps the most probable tokens up to the first that brings their sum to
 * top_p (among equals the lowest ids). GPU_NO_TOKEN where the probabilities hold a NaN or no mass. */
bool launch_sample(kernels *all, gpu_commands *commands, struct sample_args args, gpu_slice probabilities,
                   gpu_slice token, gpu_error *error);

/* The random number in [0, 1) of a seed and a step: SplitMix64 as in gpt_oss/sampling.py, rounded down to 24 bits. */
float sample_point(uint64_t seed, uint64_t step);

#ifdef __cplusplus
}
#endif
#endif
