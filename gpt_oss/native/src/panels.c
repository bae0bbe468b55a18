/* Matrix products for many tokens: blocks of weights that fit the second-level cache, times panels of tokens. */
#include "panels.h"

void fill_float_panel(const uint16_t *const *x, size_t tokens, size_t k, float *panel) {
    for (size_t i = 0; i < k; i++)
        for (size_t t = 0; t < TILE_TOKENS; t++) panel[i * TILE_TOKENS + t] = t < tokens ? bf16_to_float(x[t][i]) : 0;
}

/* k weights of a row, from column `begin` on, and a request for those of a later row: the processor does not read ahead
 * by itself where it is shown a few lines of each row. */
static void widen(const struct kernels *use, const struct matrix *w, size_t row, size_t begin, size_t k, float *out) {
    enum { ROWS_AHEAD = 8 };
    size_t index = row * w->k + begin, ahead = ROWS_AHEAD * w->k;
    if (w->values) {
        fetch(w->values + index, ahead * sizeof *w->values, k * sizeof *w->values);
        use->widen_bf16(w->values + index, k, out);
    } else {
        fetch(w->codes + index / 2, ahead / 2, k / 2);
        fetch(w->scales + index / BLOCK, ahead / BLOCK, 1);
        use->widen_mxfp4(w->codes + index / 2, w->scales + index / BLOCK, k / BLOCK, out);
    }
}

void multiply_panels(const struct kernels *use, const struct matrix *w, size_t first, size_t rows, const float *panels,
                     size_t tokens, float sums[PANEL_ROWS][SUMS_STRIDE]) {
    const struct tiles *tiles = w->values ? &use->bf16_tiles : &use->mxfp4_tiles;
    float block[PANEL_ROWS][PANEL_K];
    size_t count = (rows + TILE_ROWS - 1) / TILE_ROWS;
    memset(sums, 0, count * TILE_ROWS * sizeof *sums);
    for (size_t begin = 0; begin < w->k; begin += PANEL_K) {
        size_t k = w->k - begin < PANEL_K ? w->k - begin : PANEL_K;
        for (size_t r = 0; r < rows; r++) widen(use, w, first + r, begin, k, block[r]);
        memset(block[rows], 0, (count * TILE_ROWS - rows) * sizeof *block);
        for (size_t p = 0; p < panels_of(tokens); p++) {
            const float *panel = panels + p * panel_floats(tiles, w->k) + panel_floats(tiles, begin);
            for (size_t row = 0; row < rows; row += TILE_ROWS)
                tiles->multiply(block[row], panel, k, tokens - p * TILE_TOKENS, &sums[row][p * TILE_TOKENS]);
        }
    }
}
