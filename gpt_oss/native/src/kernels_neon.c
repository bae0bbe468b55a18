/* NEON (AArch64): all in floats, four at a time. */
#include "kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>

static int supported(void) { return 1; }

static size_t prepared_bytes(size_t k) { return kernels_portable.prepared_bytes(k); }

static void prepare(const uint16_t *x, size_t k, void *prepared) { kernels_portable.prepare(x, k, prepared); }

static inline float32x4_t dot16(int8x16_t values, const float *x, float32x4_t sum) {
    int16x8_t low = vmovl_s8(vget_low_s8(values)), high = vmovl_s8(vget_high_s8(values));
    sum = vfmaq_f32(sum, vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vld1q_f32(x));
    sum = vfmaq_f32(sum, vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))), vld1q_f32(x + 4));
    sum = vfmaq_f32(sum, vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vld1q_f32(x + 8));
    return vfmaq_f32(sum, vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))), vld1q_f32(x + 12));
}

static void mxfp4_row(const uint8_t *codes, const uint8_t *scales, size_t k, const void *const *prepared,
                      size_t tokens, float *sums) {
    const int8x16_t table = vld1q_s8(FP4_DOUBLED);
    float32x4_t totals[MAX_TOKENS];
    for (size_t t = 0; t < tokens; t++) totals[t] = vdupq_n_f32(0);
    for (size_t block = 0; block < k / BLOCK; block++) {
        uint8x16_t bytes = vld1q_u8(codes + block * BLOCK_BYTES);
        int8x16_t even = vqtbl1q_s8(table, vandq_u8(bytes, vdupq_n_u8(15)));
        int8x16_t odd = vqtbl1q_s8(table, vshrq_n_u8(bytes, 4));
        float scale = 0.5f * scale_to_float(scales[block]); /* the table holds doubled values */
        for (size_t t = 0; t < tokens; t++) {
            const float *x = (const float *)prepared[t] + block * BLOCK;
            float32x4_t part = dot16(odd, x + BLOCK_BYTES, dot16(even, x, vdupq_n_f32(0)));
            totals[t] = vfmaq_n_f32(totals[t], part, scale);
        }
    }
    for (size_t t = 0; t < tokens; t++) sums[t] = vaddvq_f32(totals[t]);
}

static inline float32x4_t floats(const uint16_t *bits) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(bits), 16));
}

static void bf16_row(const uint16_t *row, size_t k, const void *const *x, size_t tokens, float *sums) {
    float32x4_t totals[MAX_TOKENS];
    for (size_t t = 0; t < tokens; t++) totals[t] = vdupq_n_f32(0);
    for (size_t i = 0; i < k; i += 4) {
        float32x4_t w = floats(row + i);
        for (size_t t = 0; t < tokens; t++) totals[t] = vfmaq_f32(totals[t], w, floats((const uint16_t *)x[t] + i));
    }
    for (size_t t = 0; t < tokens; t++) sums[t] = vaddvq_f32(totals[t]);
}

static void decode(const uint8_t *codes, const uint8_t *scales, size_t blocks, uint16_t *out) {
    kernels_portable.decode(codes, scales, blocks, out);
}

static void widen_mxfp4(const struct matrix *w, size_t first, size_t rows, size_t begin, size_t blocks, float *tile) {
    kernels_portable.mxfp4_tiles.widen(w, first, rows, begin, blocks, tile);
}

static void widen_bf16(const struct matrix *w, size_t first, size_t rows, size_t begin, size_t blocks, float *tile) {
    kernels_portable.bf16_tiles.widen(w, first, rows, begin, blocks, tile);
}

enum { PARTS = TILE_ROWS / 4 };

static inline void multiply_by(const float *tile, size_t blocks, const void *const *x, size_t offset, size_t tokens,
                               float *sums) {
    const float *values[TILE_TOKENS];
    float32x4_t totals[TILE_TOKENS][PARTS];
    for (size_t t = 0; t < tokens; t++) {
        values[t] = (const float *)((const char *)x[t] + offset);
        for (size_t p = 0; p < PARTS; p++) totals[t][p] = vld1q_f32(sums + t * GROUP_ROWS + 4 * p);
    }
    for (size_t i = 0; i < blocks * BLOCK; i++) {
        float32x4_t rows[PARTS];
        for (size_t p = 0; p < PARTS; p++) rows[p] = vld1q_f32(tile + i * TILE_ROWS + 4 * p);
        for (size_t t = 0; t < tokens; t++)
            for (size_t p = 0; p < PARTS; p++) totals[t][p] = vfmaq_n_f32(totals[t][p], rows[p], values[t][i]);
    }
    for (size_t t = 0; t < tokens; t++)
        for (size_t p = 0; p < PARTS; p++) vst1q_f32(sums + t * GROUP_ROWS + 4 * p, totals[t][p]);
}

/* The usual number of tokens as a constant lets the compiler keep their sums in registers. */
static void multiply(const float *tile, size_t blocks, const void *const *x, size_t offset, size_t tokens,
                     float *sums) {
    if (tokens == TILE_TOKENS) multiply_by(tile, blocks, x, offset, TILE_TOKENS, sums);
    else multiply_by(tile, blocks, x, offset, tokens, sums);
}

const struct kernels kernels_neon = {
    "neon", supported, prepared_bytes, prepare, mxfp4_row, bf16_row, decode, 8,
    {FLOAT_BLOCK, FLOAT_BLOCKS, widen_mxfp4, multiply}, {FLOAT_BLOCK, FLOAT_BLOCKS, widen_bf16, multiply},
};
#endif
