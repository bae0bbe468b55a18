/* The mixture of experts. Tokens are grouped by expert; experts with few tokens are computed together, row by row, as
 * fast as their weights can be read; those with many one after another, as products of matrices.
 */
#include "gptoss_native.h"

#include <stdlib.h>

#include "kernels.h"
#include "panels.h"
#include "threads.h"

enum { ROWS_AT_ONCE = 16 };

/* A pair is "token t's j-th expert", numbered t * per_token + j. Sorted by expert, an expert's pairs are neighbours. */
struct group {
    size_t expert, first, count; /* pairs sorted[first .. first + count) */
};

struct mixture {
    const struct gptoss_experts *layer;
    const struct kernels *use;
    size_t tokens, per_token;
    const uint16_t *x;
    const float *weights;
    float *out;
    struct group *group;
    size_t groups, few_groups, few_pairs; /* experts with few tokens come first */
    size_t *sorted;
    uint16_t *hidden; /* [pairs, intermediate], in the order of `sorted` */
    /* For the experts with few tokens. */
    char *prepared_x, *prepared_hidden;
    size_t x_bytes, hidden_bytes;
    /* For one expert with many tokens: its activations, as panels; of `panel` floats each. */
    const struct group *expert;
    float *panels;
    size_t panel;
};

static size_t token_of(const struct mixture *m, size_t position) { return m->sorted[position] / m->per_token; }

static float swiglu(float gate, float linear, float limit) {
    gate = gate > limit ? limit : gate;
    linear = linear > limit ? limit : linear < -limit ? -limit : linear;
    return gate / (1.0f + expf(-1.702f * gate)) * (linear + 1.0f);
}

/* A product plus bias, rounded as a BF16 linear layer rounds it. */
static float rounded(float sum, uint16_t bias) { return bf16_to_float(float_to_bf16(sum + bf16_to_float(bias))); }

/* The activation of one hidden value from the sums of its two rows; `row` is the gate's. */
static uint16_t activation(const struct gptoss_experts *e, size_t row, float gate, float linear) {
    return float_to_bf16(
        swiglu(rounded(gate, e->mlp1_bias[row]), rounded(linear, e->mlp1_bias[row + 1]), e->swiglu_limit));
}

/* Add the second product's row `index` (counted over all experts) to the output of the pair at `position`. */
static void mix(struct mixture *m, size_t position, size_t index, float sum) {
    size_t hidden = m->layer->hidden;
    m->out[token_of(m, position) * hidden + index % hidden] +=
        m->weights[m->sorted[position]] * rounded(sum, m->layer->mlp2_bias[index]);
}

/* --- Experts with few tokens ------------------------------------------------------------------------------------- */

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
                for (size_t t = 0; t < n; t++) x[t] = m->prepared_x + token_of(m, g.first + p + t) * m->x_bytes;
                for (size_t half = 0; half < 2; half++)
                    m->use->mxfp4_row(e->mlp1_blocks + (row + half) * (e->hidden / 2),
                                      e->mlp1_scales + (row + half) * (e->hidden / BLOCK), e->hidden, x, n, sums[half]);
                for (size_t t = 0; t < n; t++)
                    m->hidden[(g.first + p + t) * e->intermediate + i] = activation(e, row, sums[0][t], sums[1][t]);
            }
        }
    }
}

/* Items: rows of the output. Experts add to a row in ascending order, so the sum never depends on the threads. */
static void down_and_mix(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    const struct gptoss_experts *e = m->layer;
    for (size_t row = first; row < last; row++)
        for (size_t k = 0; k < m->few_groups; k++) {
            struct group g = m->group[k];
            size_t index = g.expert * e->hidden + row;
            for (size_t p = 0; p < g.count; p += MAX_TOKENS) {
                size_t n = g.count - p < MAX_TOKENS ? g.count - p : MAX_TOKENS;
                const void *x[MAX_TOKENS];
                float sums[MAX_TOKENS];
                for (size_t t = 0; t < n; t++) x[t] = m->prepared_hidden + (g.first + p + t) * m->hidden_bytes;
                m->use->mxfp4_row(e->mlp2_blocks + index * (e->intermediate / 2),
                                  e->mlp2_scales + index * (e->intermediate / BLOCK), e->intermediate, x, n, sums);
                for (size_t t = 0; t < n; t++) mix(m, g.first + p + t, index, sums[t]);
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

static int few_tokens(struct mixture *m, int threads) {
    const struct gptoss_experts *e = m->layer;
    size_t tiles = (e->intermediate + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    m->x_bytes = m->use->prepared_bytes(e->hidden);
    m->hidden_bytes = m->use->prepared_bytes(e->intermediate);
    m->prepared_x = malloc(m->tokens * m->x_bytes);
    m->prepared_hidden = malloc(m->few_pairs * m->hidden_bytes);
    if (!m->prepared_x || !m->prepared_hidden) return GPTOSS_OUT_OF_MEMORY;
    parallel_for(m->tokens, 8, threads, prepare_x, m);
    parallel_for(m->few_groups * tiles, 4, threads, gate_and_up, m);
    parallel_for(m->few_pairs, 8, threads, prepare_hidden, m);
    parallel_for(e->hidden, 2 * ROWS_AT_ONCE, threads, down_and_mix, m);
    return GPTOSS_OK;
}

/* --- Experts with many tokens ------------------------------------------------------------------------------------ */

/* Items: panels of the expert's tokens, of the layer's input or of its hidden values. */
static void fill_panels(struct mixture *m, size_t first, size_t last, int of_hidden) {
    size_t k = of_hidden ? m->layer->intermediate : m->layer->hidden;
    for (size_t p = first; p < last; p++) {
        size_t begin = p * TILE_TOKENS, left = m->expert->count - begin, n = left < TILE_TOKENS ? left : TILE_TOKENS;
        const uint16_t *x[TILE_TOKENS];
        for (size_t t = 0; t < n; t++) {
            size_t position = m->expert->first + begin + t;
            x[t] = of_hidden ? m->hidden + position * k : m->x + token_of(m, position) * k;
        }
        m->use->mxfp4_tiles.fill_panel(x, n, k, m->panels + p * m->panel);
    }
}

static void fill_x_panels(void *context, size_t first, size_t last) { fill_panels(context, first, last, 0); }

static void fill_hidden_panels(void *context, size_t first, size_t last) { fill_panels(context, first, last, 1); }

/* Items: groups of PANEL_ROWS rows, an even number, so that gate and linear stay together. */
static void gate_and_up_panels(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    const struct gptoss_experts *e = m->layer;
    size_t start = m->expert->expert * e->intermediate * 2, rows = e->intermediate * 2;
    const struct matrix w = {.codes = e->mlp1_blocks, .scales = e->mlp1_scales, .k = e->hidden};
    float sums[PANEL_ROWS][SUMS_STRIDE];
    for (size_t item = first; item < last; item++) {
        size_t begin = item * PANEL_ROWS, count = rows - begin < PANEL_ROWS ? rows - begin : PANEL_ROWS;
        for (size_t p = 0; p < m->expert->count; p += PANEL_TOKENS) {
            size_t n = m->expert->count - p < PANEL_TOKENS ? m->expert->count - p : PANEL_TOKENS;
            multiply_panels(m->use, &w, start + begin, count, m->panels + p / TILE_TOKENS * m->panel, n, sums);
            for (size_t t = 0; t < n; t++) {
                uint16_t *hidden = m->hidden + (m->expert->first + p + t) * e->intermediate + begin / 2;
                for (size_t r = 0; r < count; r += 2)
                    hidden[r / 2] = activation(e, start + begin + r, sums[r][t], sums[r + 1][t]);
            }
        }
    }
}

static void down_and_mix_panels(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    const struct gptoss_experts *e = m->layer;
    size_t start = m->expert->expert * e->hidden;
    const struct matrix w = {.codes = e->mlp2_blocks, .scales = e->mlp2_scales, .k = e->intermediate};
    float sums[PANEL_ROWS][SUMS_STRIDE];
    for (size_t item = first; item < last; item++) {
        size_t begin = item * PANEL_ROWS, count = e->hidden - begin < PANEL_ROWS ? e->hidden - begin : PANEL_ROWS;
        for (size_t p = 0; p < m->expert->count; p += PANEL_TOKENS) {
            size_t n = m->expert->count - p < PANEL_TOKENS ? m->expert->count - p : PANEL_TOKENS;
            multiply_panels(m->use, &w, start + begin, count, m->panels + p / TILE_TOKENS * m->panel, n, sums);
            for (size_t t = 0; t < n; t++) {
                size_t position = m->expert->first + p + t;
                float *out = m->out + token_of(m, position) * e->hidden + begin, share = m->weights[m->sorted[position]];
                for (size_t r = 0; r < count; r++)
                    out[r] += share * rounded(sums[r][t], e->mlp2_bias[start + begin + r]);
            }
        }
    }
}

static int many_tokens(struct mixture *m, int threads) {
    const struct gptoss_experts *e = m->layer;
    const struct tiles *tiles = &m->use->mxfp4_tiles;
    size_t most = 0, widest = e->hidden > e->intermediate ? e->hidden : e->intermediate;
    for (size_t k = m->few_groups; k < m->groups; k++) most = m->group[k].count > most ? m->group[k].count : most;
    m->panels = malloc(panels_of(most) * panel_floats(tiles, widest) * sizeof *m->panels);
    if (!m->panels) return GPTOSS_OUT_OF_MEMORY;
    for (size_t k = m->few_groups; k < m->groups; k++) {
        m->expert = &m->group[k];
        m->panel = panel_floats(tiles, e->hidden);
        parallel_for(panels_of(m->expert->count), 1, threads, fill_x_panels, m);
        parallel_for((2 * e->intermediate + PANEL_ROWS - 1) / PANEL_ROWS, 1, threads, gate_and_up_panels, m);
        m->panel = panel_floats(tiles, e->intermediate);
        parallel_for(panels_of(m->expert->count), 1, threads, fill_hidden_panels, m);
        parallel_for((e->hidden + PANEL_ROWS - 1) / PANEL_ROWS, 1, threads, down_and_mix_panels, m);
    }
    return GPTOSS_OK;
}

/* ----------------------------------------------------------------------------------------------------------------- */

/* Counting sort of the pairs by expert, experts with few tokens first. */
static int sort_pairs(struct mixture *m, const int64_t *chosen) {
    size_t pairs = m->tokens * m->per_token, experts = m->layer->experts, filled = 0;
    for (size_t p = 0; p < pairs; p++)
        if (chosen[p] < 0 || (uint64_t)chosen[p] >= experts) return GPTOSS_BAD_ARGUMENT;
    size_t *counts = calloc(2 * experts, sizeof *counts);
    if (!counts) return GPTOSS_OUT_OF_MEMORY;
    size_t *group_of = counts + experts;
    for (size_t p = 0; p < pairs; p++) counts[chosen[p]]++;
    for (int many = 0; many < 2; many++) {
        for (size_t expert = 0; expert < experts; expert++)
            if (counts[expert] && (counts[expert] > m->use->few) == many) {
                group_of[expert] = m->groups;
                m->group[m->groups++] = (struct group){expert, filled, 0};
                filled += counts[expert];
            }
        if (!many) m->few_groups = m->groups, m->few_pairs = filled;
    }
    for (size_t p = 0; p < pairs; p++) {
        struct group *g = &m->group[group_of[chosen[p]]];
        m->sorted[g->first + g->count++] = p;
    }
    free(counts);
    return GPTOSS_OK;
}

static int valid(const struct gptoss_experts *e) {
    return e && e->mlp1_blocks && e->mlp1_scales && e->mlp1_bias && e->mlp2_blocks && e->mlp2_scales && e->mlp2_bias &&
           e->experts && e->hidden && e->intermediate && e->hidden % BLOCK == 0 && e->intermediate % BLOCK == 0;
}

int gptoss_native_experts(const struct gptoss_experts *layer, size_t tokens, size_t per_token, const uint16_t *x,
                          const int64_t *chosen, const float *weights, float *out, int threads) {
    if (!valid(layer) || !tokens || !per_token || !x || !chosen || !weights || !out) return GPTOSS_BAD_ARGUMENT;
    struct mixture m = {
        .layer = layer, .use = kernels_in_use(), .tokens = tokens, .per_token = per_token, .x = x, .weights = weights,
        .out = out,
    };
    m.group = malloc(layer->experts * sizeof *m.group);
    m.sorted = malloc(tokens * per_token * sizeof *m.sorted);
    m.hidden = malloc(tokens * per_token * layer->intermediate * sizeof *m.hidden);
    int status = m.group && m.sorted && m.hidden ? sort_pairs(&m, chosen) : GPTOSS_OUT_OF_MEMORY;
    if (status == GPTOSS_OK) memset(out, 0, tokens * layer->hidden * sizeof *out);
    if (status == GPTOSS_OK && m.few_groups) status = few_tokens(&m, threads);
    if (status == GPTOSS_OK && m.few_groups < m.groups) status = many_tokens(&m, threads);
    free(m.group);
    free(m.sorted);
    free(m.prepared_x);
    free(m.hidden);
    free(m.prepared_hidden);
    free(m.panels);
    return status;
}
