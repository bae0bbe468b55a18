/* Reading a model file: map it, check every number it gives before that number is used, hand its pages to the device.
 *
 * The format is described in gpt_oss/metal/converter.py. All sizes are computed in 64 bits from counts that were
 * checked against the limits below, so no product can overflow.
 */
#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "split.h"
#include "tokenizer.h"

enum {
    MAX_BLOCKS = 1 << 12,
    MAX_EXPERTS = 1 << 12,
    MAX_HEADS = 1 << 12,
    MAX_DIM = 1 << 20,
    MAX_CONTEXT = 1 << 24,
    MAX_TEXT_TOKENS = 1 << 24,
    MAX_SPECIAL_TOKENS = 1 << 16,
    MXFP4_BLOCK = 32,
};

static const uint8_t MAGIC[16] = "GPT-OSS v1.0";
static const uint8_t MODEL_UUID[] = {0xdf, 0x52, 0xdc, 0x86, 0x17, 0x89, 0x4e, 0xd0,
                                     0xa2, 0x95, 0x66, 0xf1, 0x05, 0x08, 0x14, 0x5b};
static const uint8_t LAYOUT_UUID[] = {0x22, 0x91, 0x77, 0xa8, 0x57, 0x75, 0x42, 0x68,
                                      0xbf, 0xd8, 0xd5, 0x88, 0xb3, 0x51, 0xc5, 0x6d};
static const uint8_t TOKENIZER_UUID[] = {0x74, 0x01, 0xad, 0xed, 0x2a, 0x95, 0x40, 0xcb,
                                         0xb7, 0x82, 0x9c, 0xce, 0xba, 0xaf, 0xe7, 0x2b};

/* The part of the file that has been read. */
typedef struct {
    const char *path;
    const uint8_t *bytes;
    uint64_t size, at;
    gptoss_error *error;
} reader;

static uint64_t round_up(uint64_t value, uint64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/* ---- header ---- */

/* The next `count` bytes; null, with the sentence written, if the file ends before. */
static const uint8_t *take(reader *file, uint64_t count, const char *what) {
    if (count > file->size - file->at) {
        gptoss_fail(file->error, gptoss_status_invalid_file,
                    "%s: is cut off: %s at byte %llu needs %llu bytes but the file has %llu", file->path, what,
                    (unsigned long long)file->at, (unsigned long long)count, (unsigned long long)file->size);
        return NULL;
    }
    const uint8_t *taken = file->bytes + file->at;
    file->at += count;
    return taken;
}

static bool take_mark(reader *file, const uint8_t *expected, const char *what) {
    const uint64_t at = file->at;
    const uint8_t *found = take(file, 16, what);
    if (found == NULL) {
        return false;
    }
    if (memcmp(found, expected, 16) != 0) {
        gptoss_fail(file->error, gptoss_status_invalid_file, "%s: at byte %llu: expected %s, found other bytes",
                    file->path, (unsigned long long)at, what);
        return false;
    }
    return true;
}

static bool take_count(reader *file, uint32_t *value, const char *what, uint32_t lowest, uint32_t highest) {
    const uint64_t at = file->at;
    const uint8_t *found = take(file, 4, what);
    if (found == NULL) {
        return false;
    }
    const uint32_t count =
        found[0] | (uint32_t)found[1] << 8 | (uint32_t)found[2] << 16 | (uint32_t)found[3] << 24;
    if (count < lowest || count > highest) {
        gptoss_fail(file->error, gptoss_status_invalid_file,
                    "%s: at byte %llu: %s is %u, expected a number from %u to %u", file->path, (unsigned long long)at,
                    what, count, lowest, highest);
        return false;
    }
    *value = count;
    return true;
}

static bool take_float(reader *file, float *value, const char *what, float lowest, float highest) {
    const uint64_t at = file->at;
    uint32_t bits;
    if (!take_count(file, &bits, what, 0, UINT32_MAX)) {
        return false;
    }
    float number;
    memcpy(&number, &bits, sizeof number);
    if (!(number >= lowest && number <= highest)) { /* also refuses NaN */
        gptoss_fail(file->error, gptoss_status_invalid_file,
                    "%s: at byte %llu: %s is %g, expected a number from %g to %g", file->path, (unsigned long long)at,
                    what, (double)number, (double)lowest, (double)highest);
        return false;
    }
    *value = number;
    return true;
}

static bool take_numbers(reader *file, gptoss_hyperparameters *numbers) {
    const float huge = 1e30f;
    return take_count(file, &numbers->context_length, "context_length", 1, MAX_CONTEXT) &&
           take_count(file, &numbers->num_blocks, "num_blocks", 1, MAX_BLOCKS) &&
           take_count(file, &numbers->num_experts, "num_experts", 1, MAX_EXPERTS) &&
           take_count(file, &numbers->num_active_experts, "num_active_experts", 1, numbers->num_experts) &&
           take_count(file, &numbers->embedding_dim, "embedding_dim", MXFP4_BLOCK, MAX_DIM) &&
           take_count(file, &numbers->mlp_dim, "mlp_dim", MXFP4_BLOCK, MAX_DIM) &&
           take_float(file, &numbers->swiglu_limit, "swiglu_limit", 0, huge) &&
           take_count(file, &numbers->head_dim, "head_dim", HEAD_DIM, HEAD_DIM) &&
           take_count(file, &numbers->num_heads, "num_heads", 1, MAX_HEADS) &&
           take_count(file, &numbers->num_kv_heads, "num_kv_heads", 1, numbers->num_heads) &&
           take_count(file, &numbers->attention_window, "attention_window", 1, MAX_CONTEXT) &&
           take_float(file, &numbers->rope_theta, "rope_theta", 1, huge) &&
           take_float(file, &numbers->interpolation_scale, "interpolation_scale", 0, 1) &&
           take_float(file, &numbers->yarn_offset, "yarn_offset", -huge, huge) &&
           take_float(file, &numbers->yarn_scale, "yarn_scale", -huge, huge) &&
           take_float(file, &numbers->yarn_multiplier, "yarn_multiplier", 0, huge) &&
           take_float(file, &numbers->rmsnorm_epsilon, "rmsnorm_epsilon", 0, 1);
}

static bool check_relations(const reader *file, const gptoss_hyperparameters *numbers) {
    if (numbers->embedding_dim % MXFP4_BLOCK != 0 || numbers->mlp_dim % MXFP4_BLOCK != 0) {
        gptoss_fail(file->error, gptoss_status_invalid_file,
                    "%s: embedding_dim %u and mlp_dim %u must be multiples of %d, the MXFP4 block", file->path,
                    numbers->embedding_dim, numbers->mlp_dim, MXFP4_BLOCK);
        return false;
    }
    if (numbers->num_heads % numbers->num_kv_heads != 0) {
        gptoss_fail(file->error, gptoss_status_invalid_file, "%s: num_heads %u must be a multiple of num_kv_heads %u",
                    file->path, numbers->num_heads, numbers->num_kv_heads);
        return false;
    }
    return true;
}

/* ---- tokenizer ---- */

static gptoss_status read_tokenizer(reader *file, gptoss_model *model) {
    gptoss_vocabulary vocabulary;
    uint32_t pattern_bytes, tokens_bytes;
    if (!take_mark(file, TOKENIZER_UUID, "the tokenizer's UUID") ||
        !take_count(file, &vocabulary.num_special, "num_special_tokens", 0, MAX_SPECIAL_TOKENS) ||
        !take_count(file, &vocabulary.num_text, "num_text_tokens", 256, MAX_TEXT_TOKENS) ||
        !take_count(file, &pattern_bytes, "regex_size", 1, UINT32_MAX) ||
        /* A token has at least three bytes, its length included. */
        !take_count(file, &tokens_bytes, "tokens_size", 3 * vocabulary.num_text, UINT32_MAX)) {
        return gptoss_status_invalid_file;
    }
    vocabulary.special_uuids =
        take(file, (uint64_t)vocabulary.num_special * GPTOSS_UUID_BYTES, "the table of special tokens");
    const uint64_t pattern_at = file->at;
    const uint8_t *pattern =
        vocabulary.special_uuids == NULL ? NULL : take(file, pattern_bytes, "the tokenizer's regex");
    if (pattern == NULL) {
        return gptoss_status_invalid_file;
    }
    if (pattern_bytes != sizeof GPTOSS_SPLIT_PATTERN || memcmp(pattern, GPTOSS_SPLIT_PATTERN, pattern_bytes) != 0) {
        return gptoss_fail(file->error, gptoss_status_invalid_file,
                           "%s: at byte %llu: the tokenizer's regex is not that of o200k_base, the only one known here",
                           file->path, (unsigned long long)pattern_at);
    }
    const uint64_t tokens_at = file->at;
    vocabulary.tokens_bytes = tokens_bytes;
    vocabulary.tokens = take(file, tokens_bytes, "the text tokens");
    if (vocabulary.tokens == NULL) {
        return gptoss_status_invalid_file;
    }
    char where[sizeof file->error->text / 2];
    snprintf(where, sizeof where, "%s: ", file->path);
    model->vocabulary_size = vocabulary.num_text + vocabulary.num_special;
    return gptoss_tokenizer_create(&vocabulary, where, tokens_at, &model->tokenizer, file->error);
}

/* ---- tensors ---- */

typedef struct {
    uint64_t begin, end; /* of the file */
} extent;

/* Where everything lies. The dense tensors and each block's experts begin on a page. */
typedef struct {
    extent dense;
    uint64_t experts_bytes; /* of one block */
} file_plan;

/* Reserve a tensor of `elements` bf16 values behind the last one and return its offset among the dense tensors. */
static size_t place(file_plan *plan, uint64_t elements, bool aligned) {
    const uint64_t begin = aligned ? round_up(plan->dense.end, GPTOSS_TENSOR_ALIGNMENT) : plan->dense.end;
    plan->dense.end = begin + 2 * elements;
    return (size_t)(begin - plan->dense.begin);
}

static gptoss_status plan_tensors(reader *file, gptoss_model *model, file_plan *plan) {
    const gptoss_hyperparameters *numbers = &model->numbers;
    const uint64_t hidden = numbers->embedding_dim, qkv = gptoss_qkv_rows(numbers);
    const uint64_t heads_width = (uint64_t)numbers->num_heads * numbers->head_dim;
    plan->dense.begin = plan->dense.end = round_up(file->at, GPU_PAGE_BYTES);
    model->embedding = place(plan, model->vocabulary_size * hidden, true);
    for (uint32_t n = 0; n < numbers->num_blocks; n++) {
        gptoss_block *block = &model->blocks[n];
        block->attention_norm = place(plan, hidden, true);
        block->qkv_weight = place(plan, qkv * hidden, true);
        block->qkv_bias = place(plan, qkv, false);
        block->sinks = place(plan, numbers->num_heads, true);
        block->out_weight = place(plan, hidden * heads_width, true);
        block->out_bias = place(plan, hidden, false);
        block->mlp_norm = place(plan, hidden, true);
        block->gate_weight = place(plan, numbers->num_experts * hidden, true);
        block->gate_bias = place(plan, numbers->num_experts, false);
    }
    model->final_norm = place(plan, hidden, true);
    model->unembedding = place(plan, model->vocabulary_size * hidden, true);

    experts_layout *layout = &model->experts_layout;
    *layout = (experts_layout){.num_experts = numbers->num_experts,
                               .num_active = numbers->num_active_experts,
                               .hidden = numbers->embedding_dim,
                               .intermediate = numbers->mlp_dim,
                               .swiglu_limit = numbers->swiglu_limit};
    gpu_error reason;
    if (!experts_layout_fill(layout, &reason)) {
        return gptoss_fail(file->error, gptoss_status_invalid_file, "%s: %s", file->path, reason.text);
    }
    const uint64_t last_expert = (uint64_t)(numbers->num_experts - 1) * layout->stride;
    plan->experts_bytes = last_expert + layout->mlp2_bias + 2 * hidden;

    const uint64_t experts_begin = round_up(plan->dense.end, GPU_PAGE_BYTES);
    const uint64_t block_pages = round_up(plan->experts_bytes, GPU_PAGE_BYTES);
    const uint64_t expected = experts_begin + (numbers->num_blocks - 1) * block_pages + plan->experts_bytes;
    if (file->size < expected) {
        return gptoss_fail(file->error, gptoss_status_invalid_file,
                           "%s: is cut off: it has %llu bytes, its header describes %llu", file->path,
                           (unsigned long long)file->size, (unsigned long long)expected);
    }
    if (file->size > round_up(expected, GPU_PAGE_BYTES)) { /* a last page may be filled up */
        return gptoss_fail(file->error, gptoss_status_invalid_file,
                           "%s: has %llu bytes behind its last tensor, which ends at byte %llu", file->path,
                           (unsigned long long)(file->size - expected), (unsigned long long)expected);
    }
    return gptoss_status_success;
}

static gptoss_status wrap_tensors(const reader *file, gptoss_model *model, const file_plan *plan) {
    uint8_t *bytes = (uint8_t *)file->bytes;
    const uint64_t dense_end = round_up(plan->dense.end, GPU_PAGE_BYTES);
    const uint64_t block_pages = round_up(plan->experts_bytes, GPU_PAGE_BYTES);
    gpu_error reason;
    if (!gpu_buffer_wrap(model->device, bytes + plan->dense.begin, (size_t)(dense_end - plan->dense.begin),
                         &model->dense, &reason)) {
        return gptoss_device_fail(file->error, &reason);
    }
    for (uint32_t n = 0; n < model->numbers.num_blocks; n++) {
        if (!gpu_buffer_wrap(model->device, bytes + dense_end + n * block_pages, (size_t)block_pages,
                             &model->experts[n], &reason)) {
            return gptoss_device_fail(file->error, &reason);
        }
    }
    return gptoss_status_success;
}

/* ---- file and model ---- */

static gptoss_status read_model(reader *file, gptoss_model *model) {
    if (!take_mark(file, MAGIC, "the magic \"GPT-OSS v1.0\" of a gpt-oss model file") ||
        !take_mark(file, MODEL_UUID, "the UUID of a gpt-oss model") || !take_numbers(file, &model->numbers) ||
        !check_relations(file, &model->numbers) ||
        !take_mark(file, LAYOUT_UUID, "the UUID of the Apple GPU weight layout")) {
        return gptoss_status_invalid_file;
    }
    model->blocks = gptoss_allocate(model->numbers.num_blocks, sizeof *model->blocks, file->error);
    model->experts = gptoss_allocate(model->numbers.num_blocks, sizeof *model->experts, file->error);
    if (model->blocks == NULL || model->experts == NULL) {
        return gptoss_status_out_of_memory;
    }
    file_plan plan = {0};
    gptoss_status status = read_tokenizer(file, model);
    if (status == gptoss_status_success) {
        status = plan_tensors(file, model, &plan);
    }
    if (status != gptoss_status_success) {
        return status;
    }
    gpu_error reason;
    if (!gpu_device_create(&model->device, &reason) ||
        !kernels_create(model->device, &model->kernels, &reason)) {
        return gptoss_device_fail(file->error, &reason);
    }
    return wrap_tensors(file, model, &plan);
}

/* Map the file at a multiple of the device's page size, with zeros up to the end of its last page, whatever the size
 * of the host's pages is. */
static gptoss_status map_file(int descriptor, const char *path, gptoss_model *model, reader *file) {
    struct stat state;
    if (fstat(descriptor, &state) != 0) {
        return gptoss_fail(file->error, gptoss_status_unreadable_file, "%s: cannot be read (%s)", path,
                           strerror(errno));
    }
    if (!S_ISREG(state.st_mode)) {
        return gptoss_fail(file->error, gptoss_status_unreadable_file, "%s: is not a file", path);
    }
    if ((uint64_t)state.st_size < sizeof MAGIC) {
        return gptoss_fail(file->error, gptoss_status_invalid_file,
                           "%s: has %llu bytes, too few for a gpt-oss model file", path,
                           (unsigned long long)state.st_size);
    }
    const size_t bytes = (size_t)state.st_size;
    const size_t reserved_bytes = (size_t)round_up(bytes, GPU_PAGE_BYTES) + GPU_PAGE_BYTES;
    void *reserved = mmap(NULL, reserved_bytes, PROT_READ, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (reserved == MAP_FAILED) {
        return gptoss_fail(file->error, gptoss_status_out_of_memory, "%s: there is no address space for %zu bytes", path,
                           bytes);
    }
    model->reserved = reserved;
    model->reserved_bytes = reserved_bytes;
    void *aligned = (void *)(uintptr_t)round_up((uintptr_t)reserved, GPU_PAGE_BYTES);
    if (mmap(aligned, bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, descriptor, 0) == MAP_FAILED) {
        return gptoss_fail(file->error, gptoss_status_unreadable_file, "%s: cannot be mapped into memory (%s)", path,
                           strerror(errno));
    }
    *file = (reader){path, aligned, bytes, 0, file->error};
    return gptoss_status_success;
}

gptoss_status gptoss_model_create_from_file(const char *path, gptoss_model **model, gptoss_error *error) {
    /* The readers below always have somewhere to write. */
    gptoss_error unread;
    reader file = {.path = path, .error = error != NULL ? error : &unread};
    gptoss_model *made = gptoss_allocate(1, sizeof *made, error);
    if (made == NULL) {
        return gptoss_status_out_of_memory;
    }
    atomic_init(&made->references, 1);
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    gptoss_status status;
    if (descriptor < 0) {
        status = gptoss_fail(error, gptoss_status_unreadable_file, "%s: cannot be opened (%s)", path, strerror(errno));
    } else {
        status = map_file(descriptor, path, made, &file);
        close(descriptor); /* the mapping stays */
    }
    if (status == gptoss_status_success) {
        status = read_model(&file, made);
    }
    if (status != gptoss_status_success) {
        gptoss_model_release(made);
        return status;
    }
    *model = made;
    return gptoss_status_success;
}

gptoss_model *gptoss_model_retain(gptoss_model *model) {
    if (model != NULL) {
        atomic_fetch_add(&model->references, 1);
    }
    return model;
}

void gptoss_model_release(gptoss_model *model) {
    if (model == NULL || atomic_fetch_sub(&model->references, 1) != 1) {
        return;
    }
    gpu_buffer_release(model->dense);
    if (model->experts != NULL) {
        for (uint32_t n = 0; n < model->numbers.num_blocks; n++) {
            gpu_buffer_release(model->experts[n]);
        }
    }
    kernels_release(model->kernels);
    gpu_device_release(model->device);
    gptoss_tokenizer_release(model->tokenizer);
    if (model->reserved != NULL) {
        munmap(model->reserved, model->reserved_bytes);
    }
    free(model->experts);
    free(model->blocks);
    free(model);
}

uint32_t gptoss_model_get_max_context_length(const gptoss_model *model) {
    return model->numbers.context_length;
}

uint32_t gptoss_model_get_vocabulary_size(const gptoss_model *model) {
    return model->vocabulary_size;
}

gptoss_tokenizer *gptoss_model_get_tokenizer(gptoss_model *model) {
    return gptoss_tokenizer_retain(model->tokenizer);
}

/* ---- device ---- */

gptoss_status gptoss_device_fail(gptoss_error *error, const gpu_error *reason) {
    return gptoss_fail(error, gptoss_status_device_error, "%s", reason->text);
}

gptoss_status gptoss_device_describe(gptoss_device *device, gptoss_error *error) {
    gpu_device *opened;
    gpu_error reason;
    if (!gpu_device_create(&opened, &reason)) {
        return gptoss_device_fail(error, &reason);
    }
    const gpu_limits limits = gpu_device_limits(opened);
    *device = (gptoss_device){.emulated = limits.emulated, .memory_bytes = limits.memory_bytes};
    snprintf(device->name, sizeof device->name, "%s", limits.name);
    gpu_device_release(opened);
    return gptoss_status_success;
}
