/* Matrix-vector kernels for gpt-oss on CPUs: MXFP4 experts and BF16 dense layers, for few tokens at a time.
 *
 * Plain C with a stable interface: no Python, no PyTorch. Weights are read where they lie (a memory map will do),
 * at any address, BF16 at even ones; every function checks its arguments and returns a status. Results do not depend
 * on the number of threads. BF16 values are passed as their bit patterns; all matrices are row-major and contiguous.
 *
 * MXFP4: 32 consecutive values share a scale byte, value = code * 2^(scale - 127); two codes per byte, low nibble
 * first (OCP Microscaling Formats v1.0). A row of k values is k/2 bytes of codes and k/32 bytes of scales.
 */
#ifndef GPTOSS_NATIVE_H
#define GPTOSS_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GPTOSS_NATIVE_VERSION 2

enum gptoss_status {
    GPTOSS_OK = 0,
    GPTOSS_BAD_ARGUMENT = 1,  /* a null pointer, a size of 0, k not a multiple of 32, an expert out of range */
    GPTOSS_OUT_OF_MEMORY = 2, /* scratch space for activations could not be allocated */
    GPTOSS_UNKNOWN_ISA = 3    /* not compiled in, or this processor does not have it */
};

/* The interface's version: GPTOSS_NATIVE_VERSION of the header it was built with. */
int gptoss_native_version(void);

/* The instruction set in use: "avx512bf16", "avx2", "neon" or "portable". The best is chosen at the first call. */
const char *gptoss_native_isa(void);

/* Use another instruction set, by name. Not safe while kernels run; meant for tests. */
int gptoss_native_select(const char *isa);

/* One mixture-of-experts layer in MXFP4. */
struct gptoss_experts {
    size_t experts, hidden, intermediate;
    const uint8_t *mlp1_blocks, *mlp1_scales; /* [experts, 2 * intermediate, hidden]: even rows gate, odd linear */
    const uint16_t *mlp1_bias;                /* BF16 [experts, 2 * intermediate] */
    const uint8_t *mlp2_blocks, *mlp2_scales; /* [experts, hidden, intermediate] */
    const uint16_t *mlp2_bias;                /* BF16 [experts, hidden] */
    float swiglu_limit;
};

/* out[t] = sum over j of weights[t][j] * expert chosen[t][j] of x[t].
 *
 * x: BF16 [tokens, hidden]; chosen, weights: [tokens, per_token]; out: float [tokens, hidden], overwritten.
 * Sums are fp32; as in a BF16 model, each expert's two products and its activation are rounded to BF16 once.
 * Each chosen expert's weights are read once, whatever the number of its tokens.
 */
int gptoss_native_experts(const struct gptoss_experts *layer, size_t tokens, size_t per_token, const uint16_t *x,
                          const int64_t *chosen, const float *weights, float *out, int threads);

/* y = x Wᵀ, BF16. x: [tokens, k]; w: [rows, k], k a multiple of 32; bias: [rows] or null; y: [tokens, rows]. */
int gptoss_native_matmul_bf16(const uint16_t *w, const uint16_t *bias, size_t rows, size_t k, const uint16_t *x,
                              size_t tokens, uint16_t *y, int threads);

/* The same with the fp32 sums as they are: y float [tokens, rows]. */
int gptoss_native_matmul_bf16_unrounded(const uint16_t *w, const uint16_t *bias, size_t rows, size_t k,
                                        const uint16_t *x, size_t tokens, float *y, int threads);

/* Decode `blocks` MXFP4 blocks (16 bytes and one scale each) to BF16, exactly: out [blocks * 32]. */
int gptoss_native_decode(const uint8_t *codes, const uint8_t *scales, size_t blocks, uint16_t *out, int threads);

#ifdef __cplusplus
}
#endif
#endif
