/* Products of matrices for many tokens. */
#ifndef GPTOSS_PANELS_H
#define GPTOSS_PANELS_H

#include "kernels.h"

/* Rows of k weights each, as they lie in memory: MXFP4, or BF16 where `values` is set. */
struct matrix {
    const uint8_t *codes, *scales;
    const uint16_t *values;
    size_t k;
};

static inline size_t panels_of(size_t tokens) { return (tokens + TILE_TOKENS - 1) / TILE_TOKENS; }

/* Floats of one panel of activations of k values. */
static inline size_t panel_floats(const struct tiles *tiles, size_t k) { return k / BLOCK * tiles->block_floats; }

/* The format of panels of floats, which every instruction set can share: value i of token t is at i * TILE_TOKENS + t. */
enum { FLOAT_BLOCK = BLOCK * TILE_TOKENS };
void fill_float_panel(const uint16_t *const *x, size_t tokens, size_t k, float *panel);

/* sums[r][t] = row first + r of the matrix · token t, for r < rows <= PANEL_ROWS and t < tokens <= PANEL_TOKENS.
 * Every weight is widened once, a few rows at a time, and serves all tokens while it is in the cache. */
void multiply_panels(const struct kernels *use, const struct matrix *w, size_t first, size_t rows, const float *panels,
                     size_t tokens, float sums[PANEL_ROWS][SUMS_STRIDE]);

#endif
