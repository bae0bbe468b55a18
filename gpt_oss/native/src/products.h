/* Some rows of a matrix times any number of tokens. */
#ifndef GPTOSS_PRODUCTS_H
#define GPTOSS_PRODUCTS_H

#include "kernels.h"

/* Tokens of one call: their sums stay in the second-level cache. */
enum { GROUP_TOKENS = 256 };

/* sums[t][r] = row first + r of the matrix · x[t], for r < rows <= GROUP_ROWS and t < tokens <= GROUP_TOKENS. */
typedef void (*multiplication)(const struct kernels *use, const struct matrix *w, size_t first, size_t rows,
                               const void *const *x, size_t tokens, float (*sums)[GROUP_ROWS]);

/* Row by row, each read once for MAX_TOKENS tokens, as fast as memory delivers them. Tokens are as `mxfp4_row` or
 * `bf16_row` wants them. */
void multiply_rows(const struct kernels *use, const struct matrix *w, size_t first, size_t rows, const void *const *x,
                   size_t tokens, float (*sums)[GROUP_ROWS]);

/* By tiles: each weight is widened once, and serves all tokens while it is in the cache. Tokens are as the tiles want
 * them. */
void multiply_tiles(const struct kernels *use, const struct matrix *w, size_t first, size_t rows, const void *const *x,
                    size_t tokens, float (*sums)[GROUP_ROWS]);

/* The faster of the two for so many tokens altogether. */
static inline multiplication fastest(const struct kernels *use, size_t tokens) {
    return tokens > use->few ? multiply_tiles : multiply_rows;
}

#endif
