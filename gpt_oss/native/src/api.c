/* The choice of kernels, dense products and decoding; mixture.c has the experts. */
#include "gptoss_native.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "kernels.h"
#include "products.h"
#include "threads.h"

static const struct kernels *const all_kernels[] = {
#if defined(__x86_64__)
    &kernels_avx512bf16, &kernels_avx2,
#elif defined(__aarch64__)
    &kernels_neon,
#endif
    &kernels_portable,
};
enum { KERNELS = sizeof all_kernels / sizeof *all_kernels };

static _Atomic(const struct kernels *) chosen_kernels;

const struct kernels *kernels_in_use(void) {
    const struct kernels *current = atomic_load(&chosen_kernels);
    for (int i = 0; !current; i++)
        if (all_kernels[i]->supported()) atomic_store(&chosen_kernels, current = all_kernels[i]);
    return current;
}

int gptoss_native_version(void) { return GPTOSS_NATIVE_VERSION; }

const char *gptoss_native_isa(void) { return kernels_in_use()->name; }

int gptoss_native_select(const char *isa) {
    if (!isa) return GPTOSS_BAD_ARGUMENT;
    for (int i = 0; i < KERNELS; i++)
        if (strcmp(isa, all_kernels[i]->name) == 0 && all_kernels[i]->supported()) {
            atomic_store(&chosen_kernels, all_kernels[i]);
            return GPTOSS_OK;
        }
    return GPTOSS_UNKNOWN_ISA;
}

/* --- Dense layers ------------------------------------------------------------------------------------------------- */

struct dense {
    const struct kernels *use;
    multiplication multiply;
    struct matrix w;
    const uint16_t *bias, *values;
    size_t rows, tokens, item_rows;
    float *floats; /* the tokens' values, where tiles want them */
    const void **x; /* [tokens] */
    uint16_t *y; /* [tokens, rows], or null where the sums are wanted as they are: */
    float *unrounded;
};

/* Items: tokens. */
static void dense_floats(void *context, size_t first, size_t last) {
    struct dense *d = context;
    for (size_t i = first * d->w.k; i < last * d->w.k; i++) d->floats[i] = bf16_to_float(d->values[i]);
}

/* Items: `item_rows` rows. */
static void dense_rows(void *context, size_t first, size_t last) {
    struct dense *d = context;
    float sums[GROUP_TOKENS][GROUP_ROWS], bias[GROUP_ROWS] = {0};
    for (size_t item = first; item < last; item++) {
        size_t row = item * d->item_rows, rows = d->rows - row < d->item_rows ? d->rows - row : d->item_rows;
        for (size_t r = 0; d->bias && r < rows; r++) bias[r] = bf16_to_float(d->bias[row + r]);
        for (size_t p = 0; p < d->tokens; p += GROUP_TOKENS) {
            size_t n = d->tokens - p < GROUP_TOKENS ? d->tokens - p : GROUP_TOKENS;
            d->multiply(d->use, &d->w, row, rows, d->x + p, n, sums);
            for (size_t t = 0; t < n; t++) {
                size_t at = (p + t) * d->rows + row;
                for (size_t r = 0; r < rows; r++) {
                    float sum = sums[t][r] + bias[r];
                    if (d->y) d->y[at + r] = float_to_bf16(sum);
                    else d->unrounded[at + r] = sum;
                }
            }
        }
    }
}

/* One of `y` and `unrounded`. */
static int multiply_dense(const uint16_t *w, const uint16_t *bias, size_t rows, size_t k, const uint16_t *x,
                          size_t tokens, uint16_t *y, float *unrounded, int threads) {
    if (!w || !x || !(y || unrounded) || !rows || !tokens || !k || k % BLOCK) return GPTOSS_BAD_ARGUMENT;
    struct dense d = {
        .use = kernels_in_use(), .w = {.values = w, .k = k}, .bias = bias, .values = x, .rows = rows, .tokens = tokens,
        .y = y, .unrounded = unrounded,
    };
    d.multiply = fastest(d.use, tokens);
    d.item_rows = d.multiply == multiply_tiles ? GROUP_ROWS : STEP_ROWS;
    d.x = malloc(tokens * sizeof *d.x);
    if (d.multiply == multiply_tiles) d.floats = malloc(tokens * k * sizeof *d.floats);
    int status = d.x && (d.floats || d.multiply == multiply_rows) ? GPTOSS_OK : GPTOSS_OUT_OF_MEMORY;
    if (status == GPTOSS_OK) {
        if (d.floats) parallel_for(tokens, 8, threads, dense_floats, &d);
        for (size_t t = 0; t < tokens; t++) d.x[t] = d.floats ? (const void *)(d.floats + t * k) : x + t * k;
        parallel_for((rows + d.item_rows - 1) / d.item_rows, 1, threads, dense_rows, &d);
    }
    free(d.x);
    free(d.floats);
    return status;
}

int gptoss_native_matmul_bf16(const uint16_t *w, const uint16_t *bias, size_t rows, size_t k, const uint16_t *x,
                              size_t tokens, uint16_t *y, int threads) {
    return multiply_dense(w, bias, rows, k, x, tokens, y, NULL, threads);
}

int gptoss_native_matmul_bf16_unrounded(const uint16_t *w, const uint16_t *bias, size_t rows, size_t k,
                                        const uint16_t *x, size_t tokens, float *y, int threads) {
    return multiply_dense(w, bias, rows, k, x, tokens, NULL, y, threads);
}

/* --- Decoding ----------------------------------------------------------------------------------------------------- */

struct decoding {
    const struct kernels *use;
    const uint8_t *codes, *scales;
    uint16_t *out;
};

static void decode_blocks(void *context, size_t first, size_t last) {
    struct decoding *d = context;
    d->use->decode(d->codes + first * BLOCK_BYTES, d->scales + first, last - first, d->out + first * BLOCK);
}

int gptoss_native_decode(const uint8_t *codes, const uint8_t *scales, size_t blocks, uint16_t *out, int threads) {
    if (!codes || !scales || !out || !blocks) return GPTOSS_BAD_ARGUMENT;
    struct decoding d = {kernels_in_use(), codes, scales, out};
    parallel_for(blocks, 4096, threads, decode_blocks, &d);
    return GPTOSS_OK;
}
