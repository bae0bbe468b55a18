/* The public functions: argument checks, grouping of tokens by expert, the three passes of a mixture layer. */
#include "gptoss_native.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "kernels.h"
#include "threads.h"

enum { ROWS_AT_ONCE = 16 };

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

static const struct kernels *kernels(void) {
    const struct kernels *current = atomic_load(&chosen_kernels);
    for (int i = 0; !current; i++)
        if (all_kernels[i]->supported()) atomic_store(&chosen_kernels, current = all_kernels[i]);
    return current;
}

int gptoss_native_version(void) { return GPTOSS_NATIVE_VERSION; }

const char *gptoss_native_isa(void) { return kernels()->name; }

int gptoss_native_select(const char *isa) {
    if (!isa) return GPTOSS_BAD_ARGUMENT;
    for (int i = 0; i < KERNELS; i++)
        if (strcmp(isa, all_kernels[i]->name) == 0 && all_kernels[i]->supported()) {
            atomic_store(&chosen_kernels, all_kernels[i]);
            return GPTOSS_OK;
        }
    return GPTOSS_UNKNOWN_ISA;
}

/* --- Mixture of experts ------------------------------------------------------------------------------------------ */

/* A pair is "token t's j-th expert", numbered t * per_token + j. Sorted by expert, an expert's pairs are neighbours. */
struct group {
    size_t expert, first, count; /* pairs sorted[first .. first + count) */
};

struct mixture {
    const struct gptoss_experts *layer;
    const struct kernels *use;
    size_t tokens, per_token, groups;
    const uint16_t *x;
    const float *weights;
    float *out;
    struct group *group;
    size_t *sorted;
    char *prepared_x, *prepared_hidden;
    size_t x_bytes, hidden_bytes;
    uint16_t *hidden; /* [pairs, intermediate] */
};

static float swiglu(float gate, float linear, float limit) {
    gate = gate > limit ? limit : gate;
    linear = linear > limit ? limit : linear < -limit ? -limit : linear;
    return gate / (1.0f + expf(-1.702f * gate)) * (linear + 1.0f);
}

/* A product plus bias, rounded as a BF16 linear layer rounds it. */
static float rounded(float sum, uint16_t bias) { return bf16_to_float(float_to_bf16(sum + bf16_to_float(bias))); }

/* Items: (group, tile of hidden values). A hidden value is two rows, gate and linear. */
static void gate_and_up(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    const struct gptoss_experts *e = m->layer;
    size_t tiles = (e->intermediate + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    for (size_t item = first; item < last; item++) {
        struct group g = m->group[item / tiles];
        size_t begin = item % tiles * ROWS_AT_ONCE;
        size_t end = begin + ROWS_AT_ONCE < e->intermediate ? begin + ROWS_AT_ONCE : e->intermediate;
        for (size_t i = begin; i < end; i++) {
            size_t row = (g.expert * e->intermediate + i) * 2;
            for (size_t p = 0; p < g.count; p += MAX_TOKENS) {
                size_t n = g.count - p < MAX_TOKENS ? g.count - p : MAX_TOKENS;
                const void *x[MAX_TOKENS];
                float sums[2][MAX_TOKENS];
                for (size_t t = 0; t < n; t++)
                    x[t] = m->prepared_x + m->sorted[g.first + p + t] / m->per_token * m->x_bytes;
                for (size_t half = 0; half < 2; half++)
                    m->use->mxfp4_row(e->mlp1_blocks + (row + half) * (e->hidden / 2),
                                      e->mlp1_scales + (row + half) * (e->hidden / BLOCK), e->hidden, x, n, sums[half]);
                for (size_t t = 0; t < n; t++)
                    m->hidden[m->sorted[g.first + p + t] * e->intermediate + i] =
                        float_to_bf16(swiglu(rounded(sums[0][t], e->mlp1_bias[row]),
                                             rounded(sums[1][t], e->mlp1_bias[row + 1]), e->swiglu_limit));
            }
        }
    }
}

/* Items: rows of the output. Experts add to a row in ascending order, so the sum never depends on the threads. */
static void down_and_mix(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    const struct gptoss_experts *e = m->layer;
    for (size_t row = first; row < last; row++) {
        for (size_t t = 0; t < m->tokens; t++) m->out[t * e->hidden + row] = 0;
        for (size_t k = 0; k < m->groups; k++) {
            struct group g = m->group[k];
            size_t index = g.expert * e->hidden + row;
            for (size_t p = 0; p < g.count; p += MAX_TOKENS) {
                size_t n = g.count - p < MAX_TOKENS ? g.count - p : MAX_TOKENS;
                const void *x[MAX_TOKENS];
                float sums[MAX_TOKENS];
                for (size_t t = 0; t < n; t++) x[t] = m->prepared_hidden + m->sorted[g.first + p + t] * m->hidden_bytes;
                m->use->mxfp4_row(e->mlp2_blocks + index * (e->intermediate / 2),
                                  e->mlp2_scales + index * (e->intermediate / BLOCK), e->intermediate, x, n, sums);
                for (size_t t = 0; t < n; t++) {
                    size_t pair = m->sorted[g.first + p + t];
                    m->out[pair / m->per_token * e->hidden + row] +=
                        m->weights[pair] * rounded(sums[t], e->mlp2_bias[index]);
                }
            }
        }
    }
}

static void prepare_x(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    for (size_t t = first; t < last; t++)
        m->use->prepare(m->x + t * m->layer->hidden, m->layer->hidden, m->prepared_x + t * m->x_bytes);
}

static void prepare_hidden(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    size_t k = m->layer->intermediate;
    for (size_t p = first; p < last; p++)
        m->use->prepare(m->hidden + p * k, k, m->prepared_hidden + p * m->hidden_bytes);
}

/* Counting sort of the pairs by expert. Returns GPTOSS_BAD_ARGUMENT for an expert that does not exist. */
static int sort_pairs(struct mixture *m, const int64_t *chosen) {
    size_t pairs = m->tokens * m->per_token, filled = 0;
    for (size_t p = 0; p < pairs; p++)
        if (chosen[p] < 0 || (uint64_t)chosen[p] >= m->layer->experts) return GPTOSS_BAD_ARGUMENT;
    for (size_t expert = 0; expert < m->layer->experts; expert++) {
        size_t first = filled;
        for (size_t p = 0; p < pairs; p++)
            if ((size_t)chosen[p] == expert) m->sorted[filled++] = p;
        if (filled > first) m->group[m->groups++] = (struct group){expert, first, filled - first};
    }
    return GPTOSS_OK;
}

static int valid(const struct gptoss_experts *e) {
    return e && e->mlp1_blocks && e->mlp1_scales && e->mlp1_bias && e->mlp2_blocks && e->mlp2_scales && e->mlp2_bias &&
           e->experts && e->hidden && e->intermediate && e->hidden % BLOCK == 0 && e->intermediate % BLOCK == 0;
}

int gptoss_native_experts(const struct gptoss_experts *layer, size_t tokens, size_t per_token, const uint16_t *x,
                          const int64_t *chosen, const float *weights, float *out, int threads) {
    if (!valid(layer) || !tokens || !per_token || !x || !chosen || !weights || !out) return GPTOSS_BAD_ARGUMENT;
    const struct kernels *use = kernels();
    size_t pairs = tokens * per_token;
    struct mixture m = {
        .layer = layer, .use = use, .tokens = tokens, .per_token = per_token, .x = x, .weights = weights, .out = out,
        .x_bytes = use->prepared_bytes(layer->hidden), .hidden_bytes = use->prepared_bytes(layer->intermediate),
    };
    m.group = malloc(layer->experts * sizeof *m.group);
    m.sorted = malloc(pairs * sizeof *m.sorted);
    m.hidden = malloc(pairs * layer->intermediate * sizeof *m.hidden);
    m.prepared_x = malloc(tokens * m.x_bytes);
    m.prepared_hidden = malloc(pairs * m.hidden_bytes);
    int status = m.group && m.sorted && m.hidden && m.prepared_x && m.prepared_hidden ? sort_pairs(&m, chosen)
                                                                                      : GPTOSS_OUT_OF_MEMORY;
    if (status == GPTOSS_OK) {
        size_t tiles = (layer->intermediate + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
        parallel_for(tokens, 8, threads, prepare_x, &m);
        parallel_for(m.groups * tiles, 4, threads, gate_and_up, &m);
        parallel_for(pairs, 8, threads, prepare_hidden, &m);
        parallel_for(layer->hidden, 2 * ROWS_AT_ONCE, threads, down_and_mix, &m);
    }
    free(m.group);
    free(m.sorted);
    free(m.hidden);
    free(m.prepared_x);
    free(m.prepared_hidden);
    return status;
}

/* --- Dense layers and decoding ----------------------------------------------------------------------------------- */

struct dense {
    const struct kernels *use;
    const uint16_t *w, *bias, *x;
    size_t rows, k, tokens;
    uint16_t *y;
};

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

int gptoss_native_matmul_bf16(const uint16_t *w, const uint16_t *bias, size_t rows, size_t k, const uint16_t *x,
                              size_t tokens, uint16_t *y, int threads) {
    if (!w || !x || !y || !rows || !tokens || !k || k % BLOCK) return GPTOSS_BAD_ARGUMENT;
    struct dense d = {kernels(), w, bias, x, rows, k, tokens, y};
    parallel_for(rows, 64, threads, dense_rows, &d);
    return GPTOSS_OK;
}

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
    struct decoding d = {kernels(), codes, scales, out};
    parallel_for(blocks, 4096, threads, decode_blocks, &d);
    return GPTOSS_OK;
}
