/* Products of matrices from an instruction set's kernels. */
#include "products.h"

void multiply_rows(const struct kernels *use, const struct matrix *w, size_t first, size_t rows, const void *const *x,
                   size_t tokens, float (*sums)[GROUP_ROWS]) {
    for (size_t r = 0; r < rows; r++) {
        size_t index = (first + r) * w->k;
        for (size_t p = 0; p < tokens; p += MAX_TOKENS) {
            size_t n = tokens - p < MAX_TOKENS ? tokens - p : MAX_TOKENS;
            float parts[MAX_TOKENS];
            if (w->values) use->bf16_row(w->values + index, w->k, x + p, n, parts);
            else use->mxfp4_row(w->codes + index / 2, w->scales + index / BLOCK, w->k, x + p, n, parts);
            for (size_t t = 0; t < n; t++) sums[p + t][r] = parts[t];
        }
    }
}

/* Weights of some rows, as many blocks of them as fit the first-level cache, are multiplied by all tokens in turn. */
void multiply_tiles(const struct kernels *use, const struct matrix *w, size_t first, size_t rows, const void *const *x,
                    size_t tokens, float (*sums)[GROUP_ROWS]) {
    const struct tiles *tiles = w->values ? &use->bf16_tiles : &use->mxfp4_tiles;
    _Alignas(64) float step[STEP_FLOATS];
    memset(sums, 0, tokens * sizeof *sums);
    for (size_t begin = 0; begin < w->k / BLOCK; begin += tiles->blocks) {
        size_t left = w->k / BLOCK - begin, blocks = left < tiles->blocks ? left : tiles->blocks;
        size_t offset = w->values ? begin * BLOCK * sizeof(float) : use->prepared_bytes(begin * BLOCK);
        size_t tile = blocks * tiles->block_floats;
        for (size_t from = 0; from < rows; from += STEP_ROWS) {
            size_t to = rows - from < STEP_ROWS ? rows : from + STEP_ROWS;
            for (size_t r = from; r < to; r += TILE_ROWS) {
                size_t n = to - r < TILE_ROWS ? to - r : TILE_ROWS;
                tiles->widen(w, first + r, n, begin, blocks, step + (r - from) / TILE_ROWS * tile);
            }
            for (size_t p = 0; p < tokens; p += TILE_TOKENS) {
                size_t n = tokens - p < TILE_TOKENS ? tokens - p : TILE_TOKENS;
                for (size_t r = from; r < to; r += TILE_ROWS)
                    tiles->multiply(step + (r - from) / TILE_ROWS * tile, blocks, x + p, offset, n, &sums[p][r]);
            }
        }
    }
}
