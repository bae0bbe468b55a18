/* One sequence: its tokens, their keys and values, and the forward pass that makes them.
 *
 * tokens[0 .. num_tokens) is the sequence. tokens[0 .. num_computed) have keys and values; num_computed may exceed
 * num_tokens after a truncation, and what lies beyond is used again if the same tokens are appended. A sampled token
 * is appended without keys and values: the next computation makes them.
 *
 * Full layers hold every position. Windowed layers hold the last `capacity` positions in a ring, and `num_written`
 * says how far the ring was ever written: a computation that would need a key already overwritten starts from the
 * first token again.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "model.h"

enum {
    DEFAULT_BATCH = 256,
    FIRST_CAPACITY = 512, /* positions that memory is taken for at first; doubled when they are full */
    WINDOW_MARGIN = 128,  /* positions that a windowed layer keeps beside its window and a batch */
    PAIRS = HEAD_DIM / 2,
};

typedef struct {
    gpu_buffer *keys, *values; /* bf16 [capacity, kv heads, 64] */
    uint32_t capacity;
} layer_cache;

struct gptoss_context {
    gptoss_model *model;
    uint32_t max_tokens, max_batch;
    bool (*interrupt)(void *data);
    void *interrupt_data;

    uint32_t *tokens; /* [max_tokens] */
    uint32_t num_tokens, num_computed, num_written;
    uint32_t logits_after; /* `logits` are those after so many tokens; 0: of none */

    layer_cache *caches;     /* [num_blocks] */
    gpu_buffer *rotary;      /* fp32 [rotary_positions, 32, 2]: cos and sin, times YaRN's concentration */
    uint32_t rotary_positions;

    /* Of one batch; fp32 unless they say otherwise. */
    gpu_buffer *ids;         /* u32 [max_batch] */
    gpu_buffer *residual;    /* [max_batch, hidden] */
    gpu_buffer *normed;      /* [max_batch, hidden] */
    gpu_buffer *qkv;         /* [max_batch, qkv rows] */
    gpu_buffer *attended;    /* [max_batch, heads * 64] */
    gpu_buffer *scores;      /* [max_batch, experts] */
    gpu_buffer *chosen;      /* u32 [max_batch, active experts] */
    gpu_buffer *gates;       /* [max_batch, active experts] */
    gpu_buffer *scratch;     /* of the experts */
    gpu_buffer *logits;      /* [vocabulary] */
    gpu_buffer *probabilities; /* [vocabulary] */
    gpu_buffer *sampled;     /* u32 [1] */
};

static uint32_t smaller(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static uint32_t larger(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

/* ---- memory ---- */

static gptoss_status make_buffer(gptoss_context *context, size_t count, size_t bytes, gpu_buffer **buffer,
                                 gptoss_error *error) {
    gpu_error reason;
    if (!gpu_buffer_create(context->model->device, count * bytes, buffer, &reason)) {
        return gptoss_fail(error, gptoss_status_out_of_memory, "%s", reason.text);
    }
    return gptoss_status_success;
}

static gptoss_status make_batch_buffers(gptoss_context *context, gptoss_error *error) {
    const gptoss_hyperparameters *numbers = &context->model->numbers;
    const size_t rows = context->max_batch, vocabulary = context->model->vocabulary_size;
    const size_t scratch = experts_scratch_bytes(&context->model->experts_layout, context->max_batch);
    const struct {
        gpu_buffer **buffer;
        size_t count, bytes;
    } wanted[] = {
        {&context->ids, rows, sizeof(uint32_t)},
        {&context->residual, rows * numbers->embedding_dim, sizeof(float)},
        {&context->normed, rows * numbers->embedding_dim, sizeof(float)},
        {&context->qkv, rows * gptoss_qkv_rows(numbers), sizeof(float)},
        {&context->attended, rows * numbers->num_heads * HEAD_DIM, sizeof(float)},
        {&context->scores, rows * numbers->num_experts, sizeof(float)},
        {&context->chosen, rows * numbers->num_active_experts, sizeof(uint32_t)},
        {&context->gates, rows * numbers->num_active_experts, sizeof(float)},
        {&context->scratch, scratch, 1},
        {&context->logits, vocabulary, sizeof(float)},
        {&context->probabilities, vocabulary, sizeof(float)},
        {&context->sampled, 1, sizeof(uint32_t)},
    };
    gptoss_status status = gptoss_status_success;
    for (size_t n = 0; n < sizeof wanted / sizeof *wanted && status == gptoss_status_success; n++) {
        status = make_buffer(context, wanted[n].count, wanted[n].bytes, wanted[n].buffer, error);
    }
    return status;
}

/* The positions a layer needs to hold for a sequence of num_tokens. */
static uint32_t needed_capacity(const gptoss_context *context, uint32_t block, uint32_t num_tokens) {
    if (!gptoss_has_window(block)) {
        return num_tokens;
    }
    return smaller(num_tokens, context->model->numbers.attention_window - 1 + context->max_batch + WINDOW_MARGIN);
}

static gptoss_status grow_cache(gptoss_context *context, layer_cache *cache, uint32_t capacity, gptoss_error *error) {
    const size_t row = (size_t)context->model->numbers.num_kv_heads * HEAD_DIM * sizeof(uint16_t);
    layer_cache grown = {.capacity = capacity};
    gptoss_status status = make_buffer(context, capacity, row, &grown.keys, error);
    if (status == gptoss_status_success) {
        status = make_buffer(context, capacity, row, &grown.values, error);
    }
    if (status != gptoss_status_success) {
        gpu_buffer_release(grown.keys);
        return status;
    }
    if (cache->capacity > 0) {
        /* A ring grows only until it is as large as it needs to be, so it has not wrapped yet. */
        memcpy(gpu_buffer_contents(grown.keys), gpu_buffer_contents(cache->keys), cache->capacity * row);
        memcpy(gpu_buffer_contents(grown.values), gpu_buffer_contents(cache->values), cache->capacity * row);
    }
    gpu_buffer_release(cache->keys);
    gpu_buffer_release(cache->values);
    *cache = grown;
    return gptoss_status_success;
}

/* cos and sin for the first `positions` positions: YaRN, as in gpt_oss/rope.py and in the same precision. */
static gptoss_status grow_rotary(gptoss_context *context, uint32_t positions, gptoss_error *error) {
    const gptoss_hyperparameters *numbers = &context->model->numbers;
    gpu_buffer *grown;
    const gptoss_status status = make_buffer(context, (size_t)positions * PAIRS, 2 * sizeof(float), &grown, error);
    if (status != gptoss_status_success) {
        return status;
    }
    float *table = gpu_buffer_contents(grown);
    for (uint32_t pair = 0; pair < PAIRS; pair++) {
        const float frequency = 1.0f / (float)pow(numbers->rope_theta, 2.0 * pair / HEAD_DIM);
        const float ramp = fminf(fmaxf((float)pair * numbers->yarn_scale + numbers->yarn_offset, 0.0f), 1.0f);
        const float turn = frequency * (1.0f - ramp) + frequency * numbers->interpolation_scale * ramp;
        for (uint32_t position = 0; position < positions; position++) {
            const float angle = (float)position * turn;
            float *entry = table + ((size_t)position * PAIRS + pair) * 2;
            entry[0] = (float)cos(angle) * numbers->yarn_multiplier;
            entry[1] = (float)sin(angle) * numbers->yarn_multiplier;
        }
    }
    gpu_buffer_release(context->rotary);
    context->rotary = grown;
    context->rotary_positions = positions;
    return gptoss_status_success;
}

/* Take the memory that the sequence needs now. On failure what there was is as it was. */
static gptoss_status reserve_positions(gptoss_context *context, gptoss_error *error) {
    uint32_t roomy = context->rotary_positions;
    if (roomy < context->num_tokens) {
        roomy = smaller(context->max_tokens, larger(larger(2 * roomy, context->num_tokens), FIRST_CAPACITY));
    }
    gptoss_status status = gptoss_status_success;
    for (uint32_t n = 0; n < context->model->numbers.num_blocks && status == gptoss_status_success; n++) {
        layer_cache *cache = &context->caches[n];
        if (cache->capacity < needed_capacity(context, n, context->num_tokens)) {
            status = grow_cache(context, cache, needed_capacity(context, n, roomy), error);
        }
    }
    if (status == gptoss_status_success && context->rotary_positions < roomy) {
        status = grow_rotary(context, roomy, error);
    }
    return status;
}

/* ---- creation ---- */

gptoss_status gptoss_context_create(gptoss_model *model, uint32_t max_tokens, uint32_t max_batch_tokens,
                                    gptoss_context **context, gptoss_error *error) {
    const uint32_t longest = model->numbers.context_length;
    if (max_tokens > longest) {
        return gptoss_fail(error, gptoss_status_invalid_argument,
                           "a context of %u tokens was asked for, the model has at most %u", max_tokens, longest);
    }
    gptoss_context *made = gptoss_allocate(1, sizeof *made, error);
    if (made == NULL) {
        return gptoss_status_out_of_memory;
    }
    made->model = gptoss_model_retain(model);
    made->max_tokens = max_tokens > 0 ? max_tokens : longest;
    made->max_batch = smaller(max_batch_tokens > 0 ? max_batch_tokens : DEFAULT_BATCH, made->max_tokens);
    made->tokens = gptoss_allocate(made->max_tokens, sizeof *made->tokens, error);
    made->caches = gptoss_allocate(model->numbers.num_blocks, sizeof *made->caches, error);
    gptoss_status status = gptoss_status_out_of_memory;
    if (made->tokens != NULL && made->caches != NULL) {
        status = make_batch_buffers(made, error);
    }
    if (status != gptoss_status_success) {
        gptoss_context_release(made);
        return status;
    }
    *context = made;
    return gptoss_status_success;
}

/* Every buffer that is not a layer's. */
#define NUM_SINGLE_BUFFERS 13
static void list_buffers(const gptoss_context *context, gpu_buffer *buffers[NUM_SINGLE_BUFFERS]) {
    gpu_buffer *const all[NUM_SINGLE_BUFFERS] = {
        context->rotary,   context->ids,    context->residual, context->normed,  context->qkv,
        context->attended, context->scores, context->chosen,   context->gates,   context->scratch,
        context->logits,   context->probabilities,             context->sampled,
    };
    memcpy(buffers, all, sizeof all);
}

void gptoss_context_release(gptoss_context *context) {
    if (context == NULL) {
        return;
    }
    gpu_buffer *buffers[NUM_SINGLE_BUFFERS];
    list_buffers(context, buffers);
    for (size_t n = 0; n < NUM_SINGLE_BUFFERS; n++) {
        gpu_buffer_release(buffers[n]);
    }
    for (uint32_t n = 0; context->caches != NULL && n < context->model->numbers.num_blocks; n++) {
        gpu_buffer_release(context->caches[n].keys);
        gpu_buffer_release(context->caches[n].values);
    }
    free(context->caches);
    free(context->tokens);
    gptoss_model_release(context->model);
    free(context);
}

uint32_t gptoss_context_get_max_tokens(const gptoss_context *context) {
    return context->max_tokens;
}

uint32_t gptoss_context_get_num_tokens(const gptoss_context *context) {
    return context->num_tokens;
}

const uint32_t *gptoss_context_get_tokens(const gptoss_context *context) {
    return context->tokens;
}

size_t gptoss_context_get_memory_bytes(const gptoss_context *context) {
    gpu_buffer *buffers[NUM_SINGLE_BUFFERS];
    list_buffers(context, buffers);
    size_t bytes = 0;
    for (size_t n = 0; n < NUM_SINGLE_BUFFERS; n++) {
        bytes += buffers[n] != NULL ? gpu_buffer_bytes(buffers[n]) : 0;
    }
    for (uint32_t n = 0; n < context->model->numbers.num_blocks; n++) {
        const layer_cache *cache = &context->caches[n];
        bytes += cache->capacity > 0 ? gpu_buffer_bytes(cache->keys) + gpu_buffer_bytes(cache->values) : 0;
    }
    return bytes;
}

void gptoss_context_set_interrupt(gptoss_context *context, bool (*interrupt)(void *data), void *data) {
    context->interrupt = interrupt;
    context->interrupt_data = data;
}

/* ---- tokens ---- */

/* Where a computation can begin that is to keep at most the first `wanted` tokens' keys and values: there, or at 0 if a
 * windowed layer has overwritten a key that the next token sees. */
static uint32_t exact_start(const gptoss_context *context, uint32_t wanted) {
    const uint32_t seen_before = context->model->numbers.attention_window - 1;
    const uint32_t first_seen = wanted > seen_before ? wanted - seen_before : 0;
    for (uint32_t n = 0; n < context->model->numbers.num_blocks; n++) {
        if (gptoss_has_window(n) && context->num_written - first_seen > context->caches[n].capacity) {
            return 0;
        }
    }
    return wanted;
}

uint32_t gptoss_context_get_num_cached_tokens(const gptoss_context *context) {
    return exact_start(context, smaller(context->num_computed, context->num_tokens));
}

/* Append one token that is known to fit; where it departs from what was computed, that is forgotten. */
static void append(gptoss_context *context, uint32_t token) {
    const uint32_t position = context->num_tokens++;
    if (position < context->num_computed && context->tokens[position] != token) {
        context->num_computed = position;
        if (context->logits_after > position) {
            context->logits_after = 0;
        }
    }
    context->tokens[position] = token;
}

gptoss_status gptoss_context_append_tokens(gptoss_context *context, const uint32_t *tokens, size_t num_tokens,
                                           gptoss_error *error) {
    for (size_t n = 0; n < num_tokens; n++) {
        if (tokens[n] >= context->model->vocabulary_size) {
            return gptoss_fail(error, gptoss_status_invalid_argument, "token %u is not among the model's %u tokens",
                               tokens[n], context->model->vocabulary_size);
        }
    }
    if (num_tokens > context->max_tokens - context->num_tokens) {
        return gptoss_fail(error, gptoss_status_context_overflow,
                           "%zu more tokens do not fit the context: it holds %u of at most %u", num_tokens,
                           context->num_tokens, context->max_tokens);
    }
    for (size_t n = 0; n < num_tokens; n++) {
        append(context, tokens[n]);
    }
    return gptoss_status_success;
}

gptoss_status gptoss_context_append_text(gptoss_context *context, const void *text, size_t num_bytes,
                                         size_t *num_tokens, gptoss_error *error) {
    uint32_t *tokens = gptoss_allocate(num_bytes, sizeof *tokens, error);
    if (tokens == NULL) {
        return gptoss_status_out_of_memory;
    }
    size_t count;
    gptoss_status status =
        gptoss_tokenizer_encode(context->model->tokenizer, text, num_bytes, tokens, &count, error);
    if (status == gptoss_status_success) {
        status = gptoss_context_append_tokens(context, tokens, count, error);
    }
    free(tokens);
    if (status == gptoss_status_success && num_tokens != NULL) {
        *num_tokens = count;
    }
    return status;
}

gptoss_status gptoss_context_truncate(gptoss_context *context, uint32_t num_tokens, gptoss_error *error) {
    if (num_tokens > context->num_tokens) {
        return gptoss_fail(error, gptoss_status_invalid_argument,
                           "the context cannot be truncated to %u tokens: it holds %u", num_tokens,
                           context->num_tokens);
    }
    context->num_tokens = num_tokens;
    return gptoss_status_success;
}

void gptoss_context_reset(gptoss_context *context) {
    context->num_tokens = 0;
}

/* ---- the forward pass ---- */

static gpu_slice whole(gpu_buffer *buffer) {
    return (gpu_slice){buffer, 0};
}

static gpu_slice dense(const gptoss_context *context, size_t offset) {
    return (gpu_slice){context->model->dense, offset};
}

/* Append one block: residual += attention, residual += experts, for tokens at begin, begin + 1, … */
static bool launch_block(gptoss_context *context, gpu_commands *commands, uint32_t n, uint32_t begin, uint32_t count,
                         gpu_error *error) {
    const gptoss_hyperparameters *numbers = &context->model->numbers;
    const gptoss_block *block = &context->model->blocks[n];
    const layer_cache *cache = &context->caches[n];
    kernels *all = context->model->kernels;
    const uint32_t hidden = numbers->embedding_dim, heads = numbers->num_heads, kv_heads = numbers->num_kv_heads;
    const struct rmsnorm_args norm = {count, hidden, numbers->rmsnorm_epsilon};
    const struct dense_args qkv = {count, hidden, gptoss_qkv_rows(numbers), .has_bias = 1, .add = 0};
    const struct rotary_args rotary = {count, begin, heads, kv_heads, cache->capacity};
    const struct attention_args attention = {
        count, begin, heads, kv_heads, cache->capacity, gptoss_has_window(n) ? numbers->attention_window : 0};
    const struct dense_args out = {count, heads * HEAD_DIM, hidden, .has_bias = 1, .add = 1};
    const struct dense_args gate = {count, hidden, numbers->num_experts, .has_bias = 1, .add = 0};
    const struct topk_args topk = {count, numbers->num_experts, numbers->num_active_experts};
    const gpu_slice residual = whole(context->residual), normed = whole(context->normed);
    const gpu_slice qkv_rows = whole(context->qkv), attended = whole(context->attended);
    const gpu_slice keys = whole(cache->keys), values = whole(cache->values);
    const gpu_slice scores = whole(context->scores), chosen = whole(context->chosen), gates = whole(context->gates);
    return launch_rmsnorm(all, commands, norm, residual, dense(context, block->attention_norm), normed, error) &&
           launch_dense(all, commands, qkv, normed, dense(context, block->qkv_weight), dense(context, block->qkv_bias),
                        qkv_rows, error) &&
           launch_rotary(all, commands, rotary, qkv_rows, whole(context->rotary), keys, values, error) &&
           launch_attention(all, commands, attention, qkv_rows, keys, values, dense(context, block->sinks), attended,
                            error) &&
           launch_dense(all, commands, out, attended, dense(context, block->out_weight),
                        dense(context, block->out_bias), residual, error) &&
           launch_rmsnorm(all, commands, norm, residual, dense(context, block->mlp_norm), normed, error) &&
           launch_dense(all, commands, gate, normed, dense(context, block->gate_weight),
                        dense(context, block->gate_bias), scores, error) &&
           launch_topk(all, commands, topk, scores, chosen, gates, error) &&
           launch_experts(all, commands, &context->model->experts_layout, count, normed,
                          whole(context->model->experts[n]), chosen, gates, whole(context->scratch), residual, error);
}

/* Append the logits after the last of `count` tokens. */
static bool launch_logits(gptoss_context *context, gpu_commands *commands, uint32_t count, gpu_error *error) {
    const gptoss_hyperparameters *numbers = &context->model->numbers;
    const uint32_t hidden = numbers->embedding_dim;
    const gpu_slice last = {context->residual, (size_t)(count - 1) * hidden * sizeof(float)};
    const struct rmsnorm_args norm = {1, hidden, numbers->rmsnorm_epsilon};
    const struct dense_args unembedding = {1, hidden, context->model->vocabulary_size, .has_bias = 0, .add = 0};
    const gpu_slice no_bias = {NULL, 0};
    return launch_rmsnorm(context->model->kernels, commands, norm, last, dense(context, context->model->final_norm),
                          whole(context->normed), error) &&
           launch_dense(context->model->kernels, commands, unembedding, whole(context->normed),
                        dense(context, context->model->unembedding), no_bias, whole(context->logits), error);
}

static bool launch_batch(gptoss_context *context, gpu_commands *commands, uint32_t begin, uint32_t count,
                         gpu_error *error) {
    const gptoss_model *model = context->model;
    const struct embedding_args embedding = {count, model->numbers.embedding_dim, model->vocabulary_size};
    bool done = launch_embedding(model->kernels, commands, embedding, whole(context->ids),
                                 dense(context, model->embedding), whole(context->residual), error);
    for (uint32_t n = 0; done && n < model->numbers.num_blocks; n++) {
        done = launch_block(context, commands, n, begin, count, error);
    }
    return done && (begin + count < context->num_tokens || launch_logits(context, commands, count, error));
}

/* Append the choice of the next token by the logits. */
static bool launch_sampling(gptoss_context *context, gpu_commands *commands, const gptoss_sampling *sampling,
                            gpu_error *error) {
    kernels *all = context->model->kernels;
    const uint32_t entries = context->model->vocabulary_size;
    const gpu_slice logits = whole(context->logits), sampled = whole(context->sampled);
    if (sampling->temperature == 0) {
        return launch_argmax(all, commands, (struct argmax_args){1, entries}, logits, sampled, error);
    }
    const struct softmax_args softmax = {1, entries, sampling->temperature};
    const struct sample_args draw = {entries, sampling->top_p, sample_point(sampling->seed, context->num_tokens)};
    const gpu_slice probabilities = whole(context->probabilities);
    return launch_softmax(all, commands, softmax, logits, probabilities, error) &&
           launch_sample(all, commands, draw, probabilities, sampled, error);
}

/* Run one command buffer: `count` tokens from `begin` on (none if 0), then the choice of a token if `sampling`. */
static gptoss_status run(gptoss_context *context, uint32_t begin, uint32_t count, const gptoss_sampling *sampling,
                         gptoss_error *error) {
    gpu_error reason;
    gpu_commands *commands = NULL;
    bool done = gpu_commands_create(context->model->device, &commands, &reason);
    if (done && count > 0) {
        memcpy(gpu_buffer_contents(context->ids), context->tokens + begin, count * sizeof *context->tokens);
        done = launch_batch(context, commands, begin, count, &reason);
    }
    if (done && sampling != NULL) {
        done = launch_sampling(context, commands, sampling, &reason);
    }
    done = done && gpu_commands_commit(commands, &reason) && gpu_commands_wait(commands, &reason);
    gpu_commands_release(commands);
    return done ? gptoss_status_success : gptoss_device_fail(error, &reason);
}

/* Compute what is missing up to the logits after the last token and, if `sampling`, choose the next one. */
static gptoss_status compute(gptoss_context *context, const gptoss_sampling *sampling, gptoss_error *error) {
    if (context->logits_after == context->num_tokens) {
        return sampling != NULL ? run(context, 0, 0, sampling, error) : gptoss_status_success;
    }
    gptoss_status status = reserve_positions(context, error);
    if (status != gptoss_status_success) {
        return status;
    }
    /* Logits are made with the last token, so that one is computed even if its keys are there. */
    uint32_t begin = exact_start(context, smaller(context->num_computed, context->num_tokens - 1));
    if (begin == 0) {
        context->num_written = 0; /* no key written before will be read */
    }
    while (begin < context->num_tokens) {
        if (context->interrupt != NULL && context->interrupt(context->interrupt_data)) {
            return gptoss_fail(error, gptoss_status_interrupted, "interrupted at token %u of %u", begin,
                               context->num_tokens);
        }
        const uint32_t count = smaller(context->max_batch, context->num_tokens - begin);
        const bool last = begin + count == context->num_tokens;
        /* From here on the device may have overwritten these positions, whether it succeeds or not. */
        context->num_computed = begin;
        context->num_written = larger(context->num_written, begin + count);
        context->logits_after = 0;
        status = run(context, begin, count, last ? sampling : NULL, error);
        if (status != gptoss_status_success) {
            return status;
        }
        begin += count;
        context->num_computed = begin;
    }
    context->logits_after = context->num_tokens;
    return gptoss_status_success;
}

gptoss_status gptoss_context_process(gptoss_context *context, gptoss_error *error) {
    return context->num_tokens == 0 ? gptoss_status_success : compute(context, NULL, error);
}

static gptoss_status refuse_empty(const gptoss_context *context, gptoss_error *error) {
    return context->num_tokens > 0 ? gptoss_status_success
                                   : gptoss_fail(error, gptoss_status_invalid_argument,
                                                 "the context is empty; append at least one token first");
}

gptoss_status gptoss_context_get_logits(gptoss_context *context, float *logits, gptoss_error *error) {
    gptoss_status status = refuse_empty(context, error);
    if (status == gptoss_status_success) {
        status = compute(context, NULL, error);
    }
    if (status == gptoss_status_success) {
        memcpy(logits, gpu_buffer_contents(context->logits), context->model->vocabulary_size * sizeof *logits);
    }
    return status;
}

/* ---- sampling ---- */

static gptoss_status check_sampling(const gptoss_sampling *sampling, gptoss_error *error) {
    if (!(sampling->temperature >= 0 && isfinite(sampling->temperature))) {
        return gptoss_fail(error, gptoss_status_invalid_argument, "the temperature is %g, expected at least 0",
                           (double)sampling->temperature);
    }
    if (!(sampling->top_p > 0 && sampling->top_p <= 1)) {
        return gptoss_fail(error, gptoss_status_invalid_argument,
                           "top_p is %g, expected a number above 0 and at most 1", (double)sampling->top_p);
    }
    return gptoss_status_success;
}

static bool is_stop_token(const gptoss_sampling *sampling, uint32_t token) {
    for (size_t n = 0; n < sampling->num_stop_tokens; n++) {
        if (sampling->stop_tokens[n] == token) {
            return true;
        }
    }
    return false;
}

gptoss_status gptoss_context_sample(gptoss_context *context, const gptoss_sampling *sampling, size_t max_output_tokens,
                                    uint32_t *output, size_t *num_output, gptoss_error *error) {
    *num_output = 0;
    gptoss_status status = refuse_empty(context, error);
    if (status == gptoss_status_success) {
        status = check_sampling(sampling, error);
    }
    while (status == gptoss_status_success && *num_output < max_output_tokens &&
           context->num_tokens < context->max_tokens) {
        status = compute(context, sampling, error);
        if (status != gptoss_status_success) {
            break;
        }
        uint32_t token;
        memcpy(&token, gpu_buffer_contents(context->sampled), sizeof token);
        if (token >= context->model->vocabulary_size) {
            return gptoss_fail(error, gptoss_status_device_error,
                               "the logits after %u tokens hold a NaN or an infinity, so no token can be chosen",
                               context->num_tokens);
        }
        append(context, token);
        output[(*num_output)++] = token;
        if (is_stop_token(sampling, token)) {
            break;
        }
    }
    return status;
}
