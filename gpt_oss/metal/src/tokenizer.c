#include "tokenizer.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "split.h"

enum {
    NO_TOKEN = UINT32_MAX, /* also the rank of a pair that is no token: merged last, that is never */
    HARMONY_SPECIAL_TOKENS = 1090, /* ids that o200k_harmony has behind its text tokens */
};

struct gptoss_tokenizer {
    atomic_uint references;
    uint32_t num_text, num_special;
    uint8_t (*special_uuids)[GPTOSS_UUID_BYTES]; /* [num_special] */
    uint8_t *bytes;                              /* all text tokens, one behind the other */
    uint32_t *begins;                            /* [num_text + 1]; token t is bytes[begins[t]] up to begins[t + 1] */
    uint32_t longest;                            /* bytes of the longest token */
    uint32_t *slots; /* [slot_mask + 1], open addressing: a token or NO_TOKEN; at most half are taken */
    uint32_t slot_mask;
};

/* Special tokens that model files mark. tiktoken has no names for the last three, so decoding calls them reserved. */
static const struct {
    const char *name;
    bool has_tiktoken_name;
    uint8_t uuid[GPTOSS_UUID_BYTES];
} SPECIAL_TOKENS[] = {
    {"<|return|>", true, "\xf7\x99\xff\x69\x19\x92\x43\xc4\xa3\xd8\xd8\x31\xf4\x75\xdc\x75"},
    {"<|constrain|>", true, "\xc0\xbb\x14\xc7\x60\x22\x49\xda\xad\x08\x79\x2d\x67\xe8\xb4\x70"},
    {"<|channel|>", true, "\xfd\x3d\xda\x11\xc8\xab\x40\x33\x87\x6e\xd9\x3d\xeb\x17\x2c\x93"},
    {"<|start|>", true, "\x55\xa7\x7c\x2f\x8a\x01\x4c\x54\x8a\xc2\x31\x3b\xfc\x7e\x20\x8d"},
    {"<|end|>", true, "\xfc\xac\x2f\x6d\x47\x05\x4f\x6b\xb2\x28\x64\x2a\xcc\xac\x72\x38"},
    {"<|message|>", true, "\x16\xe4\x04\x31\xf4\x7f\x4b\x22\xb5\x9b\x8b\x27\x8f\xc3\x0a\x54"},
    {"<|call|>", true, "\x12\x20\xf7\x96\xe3\x88\x4d\xe5\xb4\x87\xfe\x2e\xb5\xfe\x03\xc0"},
    {"<|refusal|>", false, "\xe1\x5b\xa7\x02\x28\xc4\x42\x92\xab\x8f\xff\xa4\x34\x70\x91\x28"},
    {"<|untrusted|>", false, "\x07\xd7\xda\x55\xb3\x46\x4c\xff\x8b\x37\x7c\xef\xac\xf8\xa3\xe8"},
    {"<|end_untrusted|>", false, "\xf2\x65\xbd\x9c\xc7\x17\x46\x9e\xa4\x47\x92\x06\x87\xd6\x5d\x90"},
};

/* Special tokens that have a name in tiktoken but no UUID in files, by their distance from the first special id. */
static const struct {
    uint32_t distance;
    const char *name;
} UNMARKED_TOKENS[] = {{0, "<|startoftext|>"}, {1, "<|endoftext|>"}, {20, "<|endofprompt|>"}};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint32_t hash_bytes(const uint8_t *bytes, size_t size) { /* FNV-1a, folded */
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t n = 0; n < size; n++) {
        hash = (hash ^ bytes[n]) * 0x100000001B3u;
    }
    return (uint32_t)(hash ^ hash >> 32);
}

/* The slot of these bytes: the one that holds their token, or the free one where it would go. */
static uint32_t find_slot(const gptoss_tokenizer *tokenizer, const uint8_t *bytes, size_t size) {
    uint32_t slot = hash_bytes(bytes, size) & tokenizer->slot_mask;
    for (;; slot = (slot + 1) & tokenizer->slot_mask) {
        const uint32_t token = tokenizer->slots[slot];
        if (token == NO_TOKEN) {
            return slot;
        }
        const uint32_t begin = tokenizer->begins[token];
        if (tokenizer->begins[token + 1] - begin == size && memcmp(tokenizer->bytes + begin, bytes, size) == 0) {
            return slot;
        }
    }
}

static uint32_t find_token(const gptoss_tokenizer *tokenizer, const uint8_t *bytes, size_t size) {
    return size > tokenizer->longest ? NO_TOKEN : tokenizer->slots[find_slot(tokenizer, bytes, size)];
}

/* ---- creation ---- */

static gptoss_status copy_tokens(gptoss_tokenizer *tokenizer, const gptoss_vocabulary *vocabulary, const char *where,
                                 uint64_t tokens_at, gptoss_error *error) {
    size_t at = 0;
    uint32_t begin = 0;
    for (uint32_t token = 0; token < vocabulary->num_text; token++) {
        const size_t left = vocabulary->tokens_bytes - at;
        const size_t length = left < 2 ? 0 : vocabulary->tokens[at] | (size_t)vocabulary->tokens[at + 1] << 8;
        if (left < 2 || length > left - 2) {
            return gptoss_fail(error, gptoss_status_invalid_file,
                               "%sat byte %llu: text token %u ends behind the %zu bytes of all tokens", where,
                               (unsigned long long)(tokens_at + at), token, vocabulary->tokens_bytes);
        }
        if (length == 0) {
            return gptoss_fail(error, gptoss_status_invalid_file, "%sat byte %llu: text token %u is empty", where,
                               (unsigned long long)(tokens_at + at), token);
        }
        const uint8_t *bytes = vocabulary->tokens + at + 2;
        memcpy(tokenizer->bytes + begin, bytes, length);
        tokenizer->begins[token] = begin;
        tokenizer->begins[token + 1] = begin += (uint32_t)length;
        if (length > tokenizer->longest) {
            tokenizer->longest = (uint32_t)length;
        }
        const uint32_t slot = find_slot(tokenizer, bytes, length);
        if (tokenizer->slots[slot] != NO_TOKEN) {
            return gptoss_fail(error, gptoss_status_invalid_file,
                               "%sat byte %llu: text token %u has the same bytes as token %u", where,
                               (unsigned long long)(tokens_at + at), token, tokenizer->slots[slot]);
        }
        tokenizer->slots[slot] = token;
        at += 2 + length;
    }
    if (at != vocabulary->tokens_bytes) {
        return gptoss_fail(error, gptoss_status_invalid_file,
                           "%sat byte %llu: %zu bytes are left behind the last of %u text tokens", where,
                           (unsigned long long)(tokens_at + at), vocabulary->tokens_bytes - at, vocabulary->num_text);
    }
    for (unsigned value = 0; value < 256; value++) {
        const uint8_t byte = (uint8_t)value;
        if (find_token(tokenizer, &byte, 1) == NO_TOKEN) {
            return gptoss_fail(error, gptoss_status_invalid_file,
                               "%sat byte %llu: no text token is the single byte 0x%02X, so not every text has tokens",
                               where, (unsigned long long)tokens_at, value);
        }
    }
    return gptoss_status_success;
}

gptoss_status gptoss_tokenizer_create(const gptoss_vocabulary *vocabulary, const char *where, uint64_t tokens_at,
                                      gptoss_tokenizer **tokenizer, gptoss_error *error) {
    gptoss_tokenizer *made = gptoss_allocate(1, sizeof *made, error);
    if (made == NULL) {
        return gptoss_status_out_of_memory;
    }
    atomic_init(&made->references, 1);
    made->num_text = vocabulary->num_text;
    made->num_special = vocabulary->num_special;
    made->slot_mask = 1;
    while (made->slot_mask < 2u * vocabulary->num_text) {
        made->slot_mask = made->slot_mask << 1 | 1;
    }
    gptoss_status status = gptoss_status_out_of_memory;
    made->special_uuids = gptoss_allocate(vocabulary->num_special, GPTOSS_UUID_BYTES, error);
    made->bytes = gptoss_allocate(vocabulary->tokens_bytes, 1, error);
    made->begins = gptoss_allocate((size_t)vocabulary->num_text + 1, sizeof *made->begins, error);
    made->slots = gptoss_allocate((size_t)made->slot_mask + 1, sizeof *made->slots, error);
    if (made->special_uuids != NULL && made->bytes != NULL && made->begins != NULL && made->slots != NULL) {
        memcpy(made->special_uuids, vocabulary->special_uuids, (size_t)vocabulary->num_special * GPTOSS_UUID_BYTES);
        memset(made->slots, 0xFF, ((size_t)made->slot_mask + 1) * sizeof *made->slots);
        status = copy_tokens(made, vocabulary, where, tokens_at, error);
    }
    if (status != gptoss_status_success) {
        gptoss_tokenizer_release(made);
        return status;
    }
    *tokenizer = made;
    return gptoss_status_success;
}

gptoss_tokenizer *gptoss_tokenizer_retain(gptoss_tokenizer *tokenizer) {
    if (tokenizer != NULL) {
        atomic_fetch_add(&tokenizer->references, 1);
    }
    return tokenizer;
}

void gptoss_tokenizer_release(gptoss_tokenizer *tokenizer) {
    if (tokenizer != NULL && atomic_fetch_sub(&tokenizer->references, 1) == 1) {
        free(tokenizer->special_uuids);
        free(tokenizer->bytes);
        free(tokenizer->begins);
        free(tokenizer->slots);
        free(tokenizer);
    }
}

uint32_t gptoss_tokenizer_get_num_text_tokens(const gptoss_tokenizer *tokenizer) {
    return tokenizer->num_text;
}

uint32_t gptoss_tokenizer_get_num_special_tokens(const gptoss_tokenizer *tokenizer) {
    return tokenizer->num_special;
}

uint32_t gptoss_tokenizer_get_num_tokens(const gptoss_tokenizer *tokenizer) {
    return tokenizer->num_text + tokenizer->num_special;
}

/* ---- byte-pair encoding ---- */

/* Two neighbouring parts that together are a token. */
typedef struct {
    uint32_t rank; /* the token: lower ones are merged first */
    uint32_t begin, end;
} merge;

/* Scratch for one piece of text: its parts as a linked list over its bytes, and the possible merges as a heap. */
typedef struct {
    uint32_t capacity; /* bytes of a piece */
    uint32_t *next;    /* [capacity + 1] first byte of the part that follows the one beginning here */
    uint32_t *previous;
    merge *heap; /* [3 capacity]: one for each pair at first, and at most two more for each merge done */
    size_t heap_size;
} workspace;

static bool is_before(const merge *a, const merge *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->begin < b->begin;
}

static void push_merge(workspace *work, merge added) {
    size_t at = work->heap_size++;
    while (at > 0 && is_before(&added, &work->heap[(at - 1) / 2])) {
        work->heap[at] = work->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    work->heap[at] = added;
}

static merge pop_merge(workspace *work) {
    const merge first = work->heap[0];
    const merge moved = work->heap[--work->heap_size];
    size_t at = 0;
    for (size_t child = 1; child < work->heap_size; child = 2 * at + 1) {
        if (child + 1 < work->heap_size && is_before(&work->heap[child + 1], &work->heap[child])) {
            child++;
        }
        if (!is_before(&work->heap[child], &moved)) {
            break;
        }
        work->heap[at] = work->heap[child];
        at = child;
    }
    work->heap[at] = moved;
    return first;
}

static void consider(const gptoss_tokenizer *tokenizer, workspace *work, const uint8_t *piece, uint32_t begin,
                     uint32_t end) {
    const uint32_t rank = find_token(tokenizer, piece + begin, end - begin);
    if (rank != NO_TOKEN) {
        push_merge(work, (merge){rank, begin, end});
    }
}

static gptoss_status reserve(workspace *work, uint32_t size, gptoss_error *error) {
    if (size <= work->capacity) {
        return gptoss_status_success;
    }
    free(work->next);
    free(work->previous);
    free(work->heap);
    work->next = gptoss_allocate((size_t)size + 1, sizeof *work->next, error);
    work->previous = gptoss_allocate((size_t)size + 1, sizeof *work->previous, error);
    work->heap = gptoss_allocate((size_t)size * 3, sizeof *work->heap, error);
    const bool complete = work->next != NULL && work->previous != NULL && work->heap != NULL;
    work->capacity = complete ? size : 0;
    return complete ? gptoss_status_success : gptoss_status_out_of_memory;
}

/* Append one piece's tokens: again and again the neighbours that make the lowest token, the leftmost of equals. */
static gptoss_status encode_piece(const gptoss_tokenizer *tokenizer, workspace *work, const uint8_t *piece,
                                  uint32_t size, uint32_t *tokens, size_t *num_tokens, gptoss_error *error) {
    const uint32_t whole = find_token(tokenizer, piece, size);
    if (whole != NO_TOKEN) {
        tokens[(*num_tokens)++] = whole;
        return gptoss_status_success;
    }
    const gptoss_status status = reserve(work, size, error);
    if (status != gptoss_status_success) {
        return status;
    }
    work->heap_size = 0;
    for (uint32_t n = 0; n <= size; n++) {
        work->next[n] = n + 1;
        work->previous[n] = n - 1;
    }
    for (uint32_t n = 0; n + 1 < size; n++) {
        consider(tokenizer, work, piece, n, n + 2);
    }
    while (work->heap_size > 0) {
        const merge best = pop_merge(work);
        /* Parts that were merged meanwhile have next 0, or another end. */
        const uint32_t middle = work->next[best.begin];
        if (middle == 0 || middle >= size || work->next[middle] != best.end) {
            continue;
        }
        work->next[best.begin] = best.end;
        work->next[middle] = 0;
        work->previous[best.end] = best.begin;
        if (best.end < size) {
            consider(tokenizer, work, piece, best.begin, work->next[best.end]);
        }
        if (best.begin > 0) {
            consider(tokenizer, work, piece, work->previous[best.begin], best.end);
        }
    }
    for (uint32_t begin = 0; begin < size; begin = work->next[begin]) {
        tokens[(*num_tokens)++] = find_token(tokenizer, piece + begin, work->next[begin] - begin);
    }
    return gptoss_status_success;
}

static uint32_t token_size(const gptoss_tokenizer *tokenizer, uint32_t token) {
    return tokenizer->begins[token + 1] - tokenizer->begins[token];
}

static bool is_blank(const gptoss_tokenizer *tokenizer, uint32_t token) {
    for (uint32_t n = tokenizer->begins[token]; n < tokenizer->begins[token + 1]; n++) {
        if (tokenizer->bytes[n] != ' ' && tokenizer->bytes[n] != '\n' && tokenizer->bytes[n] != '\t') {
            return false;
        }
    }
    return true;
}

/* Take back the last piece, which bytes that follow it might have changed: its tokens, and blank ones before a blank
 * one (as tiktoken does in `_encode_bytes`). Returns how many bytes of text that is. */
static size_t take_back(const gptoss_tokenizer *tokenizer, const uint32_t *tokens, size_t *num_tokens,
                        size_t last_tokens) {
    if (last_tokens > 0 && is_blank(tokenizer, tokens[*num_tokens - last_tokens])) {
        while (last_tokens < *num_tokens && is_blank(tokenizer, tokens[*num_tokens - last_tokens - 1])) {
            last_tokens++;
        }
    }
    size_t bytes = 0;
    for (; last_tokens > 0; last_tokens--) {
        bytes += token_size(tokenizer, tokens[--*num_tokens]);
    }
    return bytes;
}

gptoss_status gptoss_tokenizer_encode(const gptoss_tokenizer *tokenizer, const void *text, size_t num_bytes,
                                      uint32_t *tokens, size_t *num_tokens, gptoss_error *error) {
    if (num_bytes > INT32_MAX) {
        return gptoss_fail(error, gptoss_status_invalid_argument, "%zu bytes of text are more than %d", num_bytes,
                           INT32_MAX);
    }
    const uint8_t *bytes = text;
    const size_t valid = gptoss_valid_utf8(bytes, num_bytes);
    workspace work = {0};
    gptoss_status status = gptoss_status_success;
    size_t count = 0, last_tokens = 0;
    for (size_t at = 0; at < valid && status == gptoss_status_success;) {
        const size_t end = gptoss_split_piece(bytes, at, valid), before = count;
        status = encode_piece(tokenizer, &work, bytes + at, (uint32_t)(end - at), tokens, &count, error);
        last_tokens = count - before;
        at = end;
    }
    if (valid < num_bytes && status == gptoss_status_success) {
        const size_t begin = valid - take_back(tokenizer, tokens, &count, last_tokens);
        status = encode_piece(tokenizer, &work, bytes + begin, (uint32_t)(num_bytes - begin), tokens, &count, error);
    }
    free(work.next);
    free(work.previous);
    free(work.heap);
    if (status == gptoss_status_success) {
        *num_tokens = count;
    }
    return status;
}

/* ---- decoding and names ---- */

static int find_uuid(const uint8_t *uuid) {
    for (size_t n = 0; n < COUNT(SPECIAL_TOKENS); n++) {
        if (memcmp(uuid, SPECIAL_TOKENS[n].uuid, GPTOSS_UUID_BYTES) == 0) {
            return (int)n;
        }
    }
    return -1;
}

/* The name that tiktoken has for the special token at this distance from the first one. */
static void special_name(const gptoss_tokenizer *tokenizer, uint32_t distance, char *name, size_t capacity) {
    const int known = distance < tokenizer->num_special ? find_uuid(tokenizer->special_uuids[distance]) : -1;
    if (known >= 0 && SPECIAL_TOKENS[known].has_tiktoken_name) {
        snprintf(name, capacity, "%s", SPECIAL_TOKENS[known].name);
        return;
    }
    for (size_t n = 0; n < COUNT(UNMARKED_TOKENS); n++) {
        if (known < 0 && UNMARKED_TOKENS[n].distance == distance) {
            snprintf(name, capacity, "%s", UNMARKED_TOKENS[n].name);
            return;
        }
    }
    snprintf(name, capacity, "<|reserved_%u|>", tokenizer->num_text + distance);
}

gptoss_status gptoss_tokenizer_decode(const gptoss_tokenizer *tokenizer, uint32_t token, void *buffer, size_t capacity,
                                      size_t *num_bytes, gptoss_error *error) {
    const uint32_t num_special =
        tokenizer->num_special > HARMONY_SPECIAL_TOKENS ? tokenizer->num_special : HARMONY_SPECIAL_TOKENS;
    char name[32];
    const void *bytes = name;
    size_t size;
    if (token < tokenizer->num_text) {
        bytes = tokenizer->bytes + tokenizer->begins[token];
        size = token_size(tokenizer, token);
    } else if (token - tokenizer->num_text < num_special) {
        special_name(tokenizer, token - tokenizer->num_text, name, sizeof name);
        size = strlen(name);
    } else {
        return gptoss_fail(error, gptoss_status_invalid_argument, "there is no token %u; the last one is %u", token,
                           tokenizer->num_text + num_special - 1);
    }
    if (capacity > 0) {
        memcpy(buffer, bytes, size < capacity ? size : capacity);
    }
    *num_bytes = size;
    return gptoss_status_success;
}

gptoss_status gptoss_tokenizer_get_special_token(const gptoss_tokenizer *tokenizer, const char *name, uint32_t *token,
                                                 gptoss_error *error) {
    for (uint32_t distance = 0; distance < tokenizer->num_special; distance++) {
        const int known = find_uuid(tokenizer->special_uuids[distance]);
        char tiktoken_name[32];
        special_name(tokenizer, distance, tiktoken_name, sizeof tiktoken_name);
        if (strcmp(name, tiktoken_name) == 0 || (known >= 0 && strcmp(name, SPECIAL_TOKENS[known].name) == 0)) {
            *token = tokenizer->num_text + distance;
            return gptoss_status_success;
        }
    }
    return gptoss_fail(error, gptoss_status_invalid_argument, "the model file has no special token %.64s", name);
}
