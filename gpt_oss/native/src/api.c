/* The choice of kernels, dense products and decoding; mixture.c has the experts. */
#include "gptoss_native.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "kernels.h"
#include "panels.h"
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
    const uint16_t *w, *bias, *x;
    size_t rows, k, tokens;
    uint16_t *y;
    size_t panel; /* floats of one */
    float *panels;
};

/* Items: rows of the matrix, each read once for MAX_TOKENS tokens. */
static void dense_rows(void *context, size_t first, size_t last) {
    struct dense *d = context;
    for (size_t row = first; row < last; row++) {
        float bias = d->bias ? bf16_to_float(d->bias[row]) : 0;
        for (size_t p = 0; p < d->tokens; p += MAX_TOKENS) {
            size_t n = d->tokens - p < MAX_TOKENS ? d->tokens - p : MAX_TOKENS;
            const uint16_t *x[MAX_TOKENS];
            float sums[MAX_TOKENS];
            for (size_t t = 0; t < n; t++) x[t] = d->x + (p + t) * d->k;
            d->use->bf16_row(d->w + row * d->k, d->k, x, n, sums);
            for (size_t t = 0; t < n; t++) d->y[(p + t) * d->rows + row] = float_to_bf16(sums[t] + bias);
        }
    }
}

static void dense_panels(void *context, size_t first, size_t last) {
    struct dense *d = context;
    for (size_t p = first; p < last; p++) {
        size_t begin = p * TILE_TOKENS, n = d->tokens - begin < TILE_TOKENS ? d->tokens - begin : TILE_TOKENS;
        const uint16_t *x[TILE_TOKENS];
        for (size_t t = 0; t < n; t++) x[t] = d->x + (begin + t) * d->k;
        d->use->bf16_tiles.fill_panel(x, n, d->k, d->panels + p * d->panel);
    }
}

/* Items: groups of PANEL_ROWS rows. */
static void dense_row_groups(void *context, size_t first, size_t last) {
    struct dense *d = context;
    const struct matrix w = {.values = d->w, .k = d->k};
    float sums[PANEL_ROWS][SUMS_STRIDE];
    for (size_t item = first; item < last; item++) {
        size_t row = item * PANEL_ROWS, rows = d->rows - row < PANEL_ROWS ? d->rows - row : PANEL_ROWS;
        for (size_t p = 0; p < d->tokens; p += PANEL_TOKENS) {
            size_t n = d->tokens - p < PANEL_TOKENS ? d->tokens - p : PANEL_TOKENS;
            multiply_panels(d->use, &w, row, rows, d->panels + p / TILE_TOKENS * d->panel, n, sums);
            for (size_t t = 0; t < n; t++)
                for (size_t r = 0; r < rows; r++) {
                    float bias = d->bias ? bf16_to_float(d->bias[row + r]) : 0;
                    d->y[(p + t) * d->rows + row + r] = float_to_bf16(sums[r][t] + bias);
                }
        }
    }
}

int gptoss_native_matmul_bf16(const uint16_t *w, const uint16_t *bias, size_t rows, size_t k, const uint16_t *x,
                              size_t tokens, uint16_t *y, int threads) {
    if (!w || !x || !y || !rows || !tokens || !k || k % BLOCK) return GPTOSS_BAD_ARGUMENT;
    struct dense d = {
        .use = kernels_in_use(), .w = w, .bias = bias, .x = x, .rows = rows, .k = k, .tokens = tokens, .y = y,
    };
    if (tokens <= d.use->few) {
        parallel_for(rows, 64, threads, dense_rows, &d);
        return GPTOSS_OK;
    }
    d.panel = panel_floats(&d.use->bf16_tiles, k);
    d.panels = malloc(panels_of(tokens) * d.panel * sizeof *d.panels);
    if (!d.panels) return GPTOSS_OUT_OF_MEMORY;
    parallel_for(panels_of(tokens), 1, threads, dense_panels, &d);
    parallel_for((rows + PANEL_ROWS - 1) / PANEL_ROWS, 1, threads, dense_row_groups, &d);
    free(d.panels);
    return GPTOSS_OK;
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
