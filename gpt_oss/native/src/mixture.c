/* The mixture of experts. Tokens are grouped by expert: its weights are read once for all of its tokens, as rows for
 * few of them and as tiles for many.
 */
#include "gptoss_native.h"

#include <stdlib.h>

#include "kernels.h"
#include "products.h"
#include "threads.h"

/* A pair is "token t's j-th expert", numbered t * per_token + j. Sorted by expert, an expert's pairs are neighbours. */
struct group {
    size_t expert, first, count; /* pairs sorted[first .. first + count) */
};

struct mixture {
    const struct gptoss_experts *layer;
    const struct kernels *use;
    size_t tokens, per_token, pairs;
    const uint16_t *x;
    const float *weights;
    float *out;
    struct group *group;
    size_t groups;
    size_t *sorted, *place; /* sorted[place[p]] = p */
    /* BF16, in the order of `sorted`: hidden values [pairs, intermediate], then the second products [pairs, hidden]. */
    uint16_t *values;
    /* Of every token and of every pair, as the kernels want them. */
    char *prepared_x, *prepared_hidden;
    size_t x_bytes, hidden_bytes;
    const void **inputs; /* of the product at hand, for each pair in the order of `sorted` */
};

static size_t groups_of(size_t rows) { return (rows + GROUP_ROWS - 1) / GROUP_ROWS; }

static size_t token_of(const struct mixture *m, size_t position) { return m->sorted[position] / m->per_token; }

/* e^x by 2^n 2^f, to 2e-6 of its value for |x| < 16, in a form that compilers turn into vectors: a call of expf for
 * each hidden value took 5 % of a long prefill. */
static float exponential(float x) {
    const float rounding = 12582912.0f; /* 1.5 * 2^23: what is added to it becomes an integer, in its lowest bits */
    x *= 1.44269504f;
    x = x < -126 ? -126 : x;
    x = x > 128 ? 128 : x; /* which becomes an infinity */
    float shifted = x + rounding, f = x - (shifted - rounding), power;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    memcpy(&power, &bits, sizeof power);
    /* Taylor's series of e^(f ln 2), |f| <= 1/2. */
    const float terms[] = {1.5403530e-4f, 1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1};
    float series = terms[0];
    for (size_t i = 1; i < sizeof terms / sizeof *terms; i++) series = series * f + terms[i];
    return power * series;
}

static float swiglu(float gate, float linear, float limit) {
    gate = gate > limit ? limit : gate;
    linear = linear > limit ? limit : linear;
    linear = linear < -limit ? -limit : linear;
    return gate / (1.0f + exponential(-1.702f * gate)) * (linear + 1.0f);
}

/* A product plus bias, rounded as a BF16 linear layer rounds it. */
static float rounded(float sum, uint16_t bias) { return bf16_to_float(float_to_bf16(sum + bf16_to_float(bias))); }

/* Hidden values from the sums and biases of two rows each, gate and linear. */
static void activate(const float *restrict sums, const uint16_t *restrict bias, size_t count, float limit,
                     uint16_t *restrict hidden) {
    for (size_t i = 0; i < count; i++)
        hidden[i] = float_to_bf16(
            swiglu(rounded(sums[2 * i], bias[2 * i]), rounded(sums[2 * i + 1], bias[2 * i + 1]), limit));
}

/* Items: tokens. */
static void prepare_x(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    size_t k = m->layer->hidden;
    for (size_t t = first; t < last; t++) m->use->prepare(m->x + t * k, k, m->prepared_x + t * m->x_bytes);
}

/* Items: (group, group of rows). Rows alternate, gate and linear, for one hidden value each two. */
static void gate_and_up(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    const struct gptoss_experts *e = m->layer;
    const struct matrix w = {.codes = e->mlp1_blocks, .scales = e->mlp1_scales, .k = e->hidden};
    size_t rows = 2 * e->intermediate, row_groups = groups_of(rows);
    float sums[GROUP_TOKENS][GROUP_ROWS];
    for (size_t item = first; item < last; item++) {
        const struct group *g = &m->group[item / row_groups];
        size_t begin = item % row_groups * GROUP_ROWS;
        size_t count = rows - begin < GROUP_ROWS ? rows - begin : GROUP_ROWS;
        size_t row = g->expert * rows + begin;
        multiplication multiply = fastest(m->use, g->count);
        for (size_t p = 0; p < g->count; p += GROUP_TOKENS) {
            size_t n = g->count - p < GROUP_TOKENS ? g->count - p : GROUP_TOKENS;
            multiply(m->use, &w, row, count, m->inputs + g->first + p, n, sums);
            for (size_t t = 0; t < n; t++) {
                uint16_t *hidden = m->values + (g->first + p + t) * e->intermediate + begin / 2;
                activate(sums[t], e->mlp1_bias + row, count / 2, e->swiglu_limit, hidden);
            }
        }
    }
}

/* Items: pairs. */
static void prepare_hidden(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    size_t k = m->layer->intermediate;
    for (size_t p = first; p < last; p++)
        m->use->prepare(m->values + p * k, k, m->prepared_hidden + p * m->hidden_bytes);
}

/* Items: (group, group of rows). */
static void down(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    const struct gptoss_experts *e = m->layer;
    const struct matrix w = {.codes = e->mlp2_blocks, .scales = e->mlp2_scales, .k = e->intermediate};
    size_t row_groups = groups_of(e->hidden);
    float sums[GROUP_TOKENS][GROUP_ROWS];
    for (size_t item = first; item < last; item++) {
        const struct group *g = &m->group[item / row_groups];
        size_t begin = item % row_groups * GROUP_ROWS;
        size_t count = e->hidden - begin < GROUP_ROWS ? e->hidden - begin : GROUP_ROWS;
        size_t row = g->expert * e->hidden + begin;
        multiplication multiply = fastest(m->use, g->count);
        for (size_t p = 0; p < g->count; p += GROUP_TOKENS) {
            size_t n = g->count - p < GROUP_TOKENS ? g->count - p : GROUP_TOKENS;
            multiply(m->use, &w, row, count, m->inputs + g->first + p, n, sums);
            for (size_t t = 0; t < n; t++) {
                uint16_t *product = m->values + (g->first + p + t) * e->hidden + begin;
                for (size_t r = 0; r < count; r++)
                    product[r] = float_to_bf16(sums[t][r] + bf16_to_float(e->mlp2_bias[row + r]));
            }
        }
    }
}

/* Items: tokens. A token's experts are added in ascending order, whatever the threads. */
static void mix(void *context, size_t first, size_t last) {
    struct mixture *m = context;
    size_t hidden = m->layer->hidden, k = m->per_token;
    memset(m->out + first * hidden, 0, (last - first) * hidden * sizeof *m->out);
    for (size_t t = first; t < last; t++)
        for (size_t j = 0, least = 0; j < k; j++) {
            size_t next = m->pairs;
            for (size_t i = 0; i < k; i++)
                if (m->place[t * k + i] >= least && m->place[t * k + i] < next) next = m->place[t * k + i];
            const uint16_t *product = m->values + next * hidden;
            float *out = m->out + t * hidden, share = m->weights[m->sorted[next]];
            for (size_t r = 0; r < hidden; r++) out[r] += share * bf16_to_float(product[r]);
            least = next + 1;
        }
}

static int compute(struct mixture *m, int threads) {
    const struct gptoss_experts *e = m->layer;
    m->x_bytes = m->use->prepared_bytes(e->hidden);
    m->hidden_bytes = m->use->prepared_bytes(e->intermediate);
    size_t widest = e->hidden > e->intermediate ? e->hidden : e->intermediate;
    m->values = malloc(m->pairs * widest * sizeof *m->values);
    m->prepared_x = malloc(m->tokens * m->x_bytes);
    m->prepared_hidden = malloc(m->pairs * m->hidden_bytes);
    m->inputs = malloc(m->pairs * sizeof *m->inputs);
    if (!m->values || !m->prepared_x || !m->prepared_hidden || !m->inputs) return GPTOSS_OUT_OF_MEMORY;
    parallel_for(m->tokens, 8, threads, prepare_x, m);
    for (size_t p = 0; p < m->pairs; p++) m->inputs[p] = m->prepared_x + token_of(m, p) * m->x_bytes;
    parallel_for(m->groups * groups_of(2 * e->intermediate), 1, threads, gate_and_up, m);
    parallel_for(m->pairs, 8, threads, prepare_hidden, m);
    for (size_t p = 0; p < m->pairs; p++) m->inputs[p] = m->prepared_hidden + p * m->hidden_bytes;
    parallel_for(m->groups * groups_of(e->hidden), 1, threads, down, m);
    parallel_for(m->tokens, 8, threads, mix, m);
    return GPTOSS_OK;
}

/* Counting sort of the pairs by expert. */
static int sort_pairs(struct mixture *m, const int64_t *chosen) {
    size_t experts = m->layer->experts, filled = 0;
    for (size_t p = 0; p < m->pairs; p++)
        if (chosen[p] < 0 || (uint64_t)chosen[p] >= experts) return GPTOSS_BAD_ARGUMENT;
    m->group = calloc(experts, sizeof *m->group);
    m->sorted = malloc(m->pairs * sizeof *m->sorted);
    m->place = malloc(m->pairs * sizeof *m->place);
    size_t *next = malloc(experts * sizeof *next);
    int status = m->group && m->sorted && m->place && next ? GPTOSS_OK : GPTOSS_OUT_OF_MEMORY;
    if (status == GPTOSS_OK) {
        for (size_t p = 0; p < m->pairs; p++) m->group[chosen[p]].count++;
        for (size_t expert = 0; expert < experts; expert++) {
            size_t count = m->group[expert].count;
            next[expert] = filled;
            if (count) m->group[m->groups++] = (struct group){expert, filled, count};
            filled += count;
        }
        for (size_t p = 0; p < m->pairs; p++) {
            m->place[p] = next[chosen[p]]++;
            m->sorted[m->place[p]] = p;
        }
    }
    free(next);
    return status;
}

static int valid(const struct gptoss_experts *e) {
    return e && e->mlp1_blocks && e->mlp1_scales && e->mlp1_bias && e->mlp2_blocks && e->mlp2_scales && e->mlp2_bias &&
           e->experts && e->hidden && e->intermediate && e->hidden % BLOCK == 0 && e->intermediate % BLOCK == 0;
}

int gptoss_native_experts(const struct gptoss_experts *layer, size_t tokens, size_t per_token, const uint16_t *x,
                          const int64_t *chosen, const float *weights, float *out, int threads) {
    if (!valid(layer) || !tokens || !per_token || !x || !chosen || !weights || !out) return GPTOSS_BAD_ARGUMENT;
    struct mixture m = {
        .layer = layer, .use = kernels_in_use(), .tokens = tokens, .per_token = per_token, .pairs = tokens * per_token,
        .x = x, .weights = weights, .out = out,
    };
    int status = sort_pairs(&m, chosen);
    if (status == GPTOSS_OK) status = compute(&m, threads);
    free(m.group);
    free(m.sorted);
    free(m.place);
    free(m.values);
    free(m.prepared_x);
    free(m.prepared_hidden);
    free(m.inputs);
    return status;
}
