/* What an instruction set provides, and the arithmetic that all of them share. */
#ifndef GPTOSS_KERNELS_H
#define GPTOSS_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 32, BLOCK_BYTES = 16 };

/* Most tokens that share one pass over a row: their sums live in registers. */
enum { MAX_TOKENS = 4 };

/* Products of matrices (panels.h). A tile's sums fit twelve registers of eight floats. A block of PANEL_ROWS x PANEL_K
 * weights fits the second-level cache, a tile's share of it and of a panel the first. */
enum { TILE_ROWS = 6, TILE_TOKENS = 16, PANEL_ROWS = 16 * TILE_ROWS, PANEL_K = 9 * BLOCK, PANEL_TOKENS = 128 };

/* From one row of sums to the next. A power of two would put a column of them into the same few lines of the cache. */
enum { SUMS_STRIDE = PANEL_TOKENS + TILE_TOKENS };

/* How one type of weights is multiplied by many tokens. The formats are the instruction set's: a row of up to PANEL_K
 * weights takes PANEL_K floats of memory, a panel of TILE_TOKENS activations `block_floats` for each BLOCK of values. */
struct tiles {
    size_t block_floats;
    /* One panel from up to TILE_TOKENS BF16 vectors of k values; the other tokens become zero. */
    void (*fill_panel)(const uint16_t *const *x, size_t tokens, size_t k, float *panel);
    /* sums[r * SUMS_STRIDE + t] += row r · token t over k values, a multiple of BLOCK; rows are PANEL_K floats apart.
     * Of a panel that is not full only the first `tokens` need be right. */
    void (*multiply)(const float *w, const float *x, size_t k, size_t tokens, float *sums);
};

struct kernels {
    const char *name;
    int (*supported)(void);
    /* Bytes of one activation vector of k values in the order and type in which `mxfp4_row` wants it. */
    size_t (*prepared_bytes)(size_t k);
    void (*prepare)(const uint16_t *x, size_t k, void *prepared);
    /* sums[t] = row · prepared[t], t < tokens <= MAX_TOKENS. */
    void (*mxfp4_row)(const uint8_t *codes, const uint8_t *scales, size_t k, const void *const *prepared,
                      size_t tokens, float *sums);
    void (*bf16_row)(const uint16_t *row, size_t k, const uint16_t *const *x, size_t tokens, float *sums);
    void (*decode)(const uint8_t *codes, const uint8_t *scales, size_t blocks, uint16_t *out);
    /* Most tokens for which passes over the rows beat tiles. SIZE_MAX: always, and there are no functions below. */
    size_t few;
    /* Weights to a row of their tiles: MXFP4 blocks; n BF16 values, n a multiple of BLOCK. */
    void (*widen_mxfp4)(const uint8_t *codes, const uint8_t *scales, size_t blocks, float *row);
    void (*widen_bf16)(const uint16_t *values, size_t n, float *row);
    struct tiles mxfp4_tiles, bf16_tiles;
};

extern const struct kernels kernels_portable, kernels_avx2, kernels_avx512bf16, kernels_neon;

/* Those of the instruction set in use. */
const struct kernels *kernels_in_use(void);

/* Ask for the cache lines of `bytes` that begin `ahead` of `address`. Nothing is accessed, so they may lie outside of
 * the array. A call that is not inlined is one without effect to GCC, which removes it. */
__attribute__((always_inline)) static inline void fetch(const void *address, size_t ahead, size_t bytes) {
    enum { LINE = 64 };
    for (size_t i = 0; i < bytes; i += LINE) __builtin_prefetch((const void *)((uintptr_t)address + ahead + i));
}

static inline float bf16_to_float(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t float_to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/* 2^(scale - 127): byte 0 is a subnormal float, byte 255 is NaN. */
static inline float scale_to_float(uint8_t scale) {
    uint32_t bits = scale == 255 ? 0x7FC00000u : scale == 0 ? 0x00400000u : (uint32_t)scale << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Twice the value of each code: small integers. */
static const int8_t FP4_DOUBLED[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

#endif
