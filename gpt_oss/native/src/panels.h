/* Matrix products for many tokens. */
#ifndef GPTOSS_PANELS_H
#define GPTOSS_PANELS_H

#include "kernels.h"

/* Rows of k weights each, as they lie in memory: MXFP4, or BF16 where `values` is set. */
struct matrix {
    const uint8_t *codes, *scales;
    const uint16_t *values;
    size_t k;
};

/* Activations as a product wants them: floats, TILE_TOKENS tokens side by side. Value i of token t is at
 * panels[panel_index(t, i, k)]; tokens that fill the last panel up are zero. */
static inline size_t panel_index(size_t token, size_t i, size_t k) {
    return (token / TILE_TOKENS * k + i) * TILE_TOKENS + token % TILE_TOKENS;
}

static inline size_t panels_of(size_t tokens) { return (tokens + TILE_TOKENS - 1) / TILE_TOKENS; }

/* One panel from up to TILE_TOKENS BF16 vectors of k values. */
void fill_panel(const uint16_t *const *x, size_t tokens, size_t k, float *panel);

/* sums[r][t] = row first + r of the matrix · token t, for r < rows <= PANEL_ROWS and t < tokens <= PANEL_TOKENS.
 * Every weight becomes a float once, a few rows at a time, and serves all tokens while it is in the cache. */
void multiply_panels(const struct kernels *use, const struct matrix *w, size_t first, size_t rows, const float *panels,
                     size_t tokens, float sums[PANEL_ROWS][PANEL_TOKENS]);

#endif
