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

/* Rows of k weights each, as they lie in memory: MXFP4, or BF16 where `values` is set. */
struct matrix {
    const uint8_t *codes, *scales;
    const uint16_t *values;
    size_t k;
};

/* Products of matrices (products.h). A tile is TILE_ROWS rows, value by value, so that a register holds neighbouring
 * rows; its sums with TILE_TOKENS tokens fit twelve registers of eight. */
enum { TILE_ROWS = 16, TILE_TOKENS = 6 };

/* Tiles of STEP_ROWS rows stay in the first-level cache while all tokens pass; the tokens' values stay in the second
 * one for GROUP_ROWS rows. */
enum { STEP_ROWS = 2 * TILE_ROWS, GROUP_ROWS = 3 * STEP_ROWS, STEP_FLOATS = 5440 };

/* How one type of weights is multiplied by many tokens. The formats are the instruction set's own. */
struct tiles {
    /* Floats that a tile takes for each BLOCK of values, and as many blocks as keep tiles of STEP_ROWS rows within
     * STEP_FLOATS. */
    size_t block_floats, blocks;
    /* A tile of rows first .. first + rows - 1, the last one again for those that are missing, and of `blocks` blocks
     * from block `begin` on. */
    void (*widen)(const struct matrix *w, size_t first, size_t rows, size_t begin, size_t blocks, float *tile);
    /* sums[t * GROUP_ROWS + r] += row r of the tile · token t over the tile's blocks, t < tokens <= TILE_TOKENS; token
     * t's values of these blocks begin `offset` bytes after x[t]. */
    void (*multiply)(const float *tile, size_t blocks, const void *const *x, size_t offset, size_t tokens, float *sums);
};

/* The sizes of tiles of floats. */
enum { FLOAT_BLOCK = BLOCK * TILE_ROWS, FLOAT_BLOCKS = STEP_FLOATS / (STEP_ROWS * BLOCK) };

struct kernels {
    const char *name;
    int (*supported)(void);
    /* Bytes of one activation vector of k values in the order and type in which MXFP4 is multiplied. In a longer vector
     * the values from k on begin there, if k is as many blocks as a tile has, or a multiple. */
    size_t (*prepared_bytes)(size_t k);
    void (*prepare)(const uint16_t *x, size_t k, void *prepared);
    /* sums[t] = row · prepared[t], t < tokens <= MAX_TOKENS. */
    void (*mxfp4_row)(const uint8_t *codes, const uint8_t *scales, size_t k, const void *const *prepared,
                      size_t tokens, float *sums);
    /* The same for BF16, with activations as they are. */
    void (*bf16_row)(const uint16_t *row, size_t k, const void *const *x, size_t tokens, float *sums);
    void (*decode)(const uint8_t *codes, const uint8_t *scales, size_t blocks, uint16_t *out);
    /* Most tokens for which passes over the rows beat tiles. SIZE_MAX: always, and there are no functions below. */
    size_t few;
    /* For tiles of MXFP4 activations are prepared as above, for those of BF16 they are floats. */
    struct tiles mxfp4_tiles, bf16_tiles;
};

extern const struct kernels kernels_portable, kernels_avx2, kernels_avx512bf16, kernels_neon;

/* Where the rows of a tile begin: in values, from the first of the matrix. */
static inline size_t tile_row(const struct matrix *w, size_t first, size_t rows, size_t begin, size_t r) {
    return (first + (r < rows ? r : rows - 1)) * w->k + begin * BLOCK;
}

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
    uint32_t nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16, nan = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : nearest);
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
