/* The C interface from C, built with the address and undefined-behaviour sanitizers. Prints one line; exits with 1 and
 * a sentence when something is not as it should be.
 *
 *   core_driver fuzz MODEL SCRATCH SEED COUNT   damaged copies of MODEL, written to SCRATCH, must load or be refused
 *   core_driver faults MODEL                    a device that fails in each command buffer in turn
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emulator/emulator.h"
#include "gpt-oss.h"
#include "model.h"

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("line %d: ", __LINE__);                                                                             \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t state;

static uint32_t below(uint32_t limit) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)(((state * 0x2545F4914F6CDD1Du) >> 32) * limit >> 32);
}

static uint8_t *read_all(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL, "%s cannot be opened", path);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size);
    CHECK(fread(bytes, 1, *size, file) == *size, "%s cannot be read", path);
    fclose(file);
    return bytes;
}

/* Everything up to the tokens, where every byte means something. */
enum { HEADER_BYTES = 16 + 16 + 17 * 4 + 16 + 16 + 4 * 4 + 16 * 16 };

static size_t damage(uint8_t *bytes, size_t size) {
    static const uint32_t extremes[] = {0, 1, 2, 31, 33, 0x7F, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    for (uint32_t times = 1 + below(3); times > 0; times--) {
        /* Mostly in the header, then in the tokens, seldom in the weights. */
        const uint32_t reach = below(4) ? HEADER_BYTES : below(4) ? 16384 : (uint32_t)size - 4;
        const size_t at = below(reach);
        switch (below(4)) {
            case 0:
                bytes[at] ^= (uint8_t)(1u << below(8));
                break;
            case 1:
                bytes[at] = (uint8_t)below(256);
                break;
            case 2: {
                const uint32_t value = extremes[below(sizeof extremes / sizeof *extremes)];
                memcpy(bytes + at / 4 * 4, &value, sizeof value);
                break;
            }
            default:
                memcpy(bytes + at, bytes + below(HEADER_BYTES), 4);
        }
    }
    return below(8) ? size : below(2) ? below((uint32_t)size) : below(HEADER_BYTES + 5000);
}

static int fuzz(const char *path, const char *scratch, uint32_t count) {
    size_t size;
    uint8_t *original = read_all(path, &size);
    uint8_t *damaged = malloc(size);
    uint32_t loaded = 0;
    for (uint32_t n = 0; n < count; n++) {
        memcpy(damaged, original, size);
        const size_t kept = damage(damaged, size);
        FILE *file = fopen(scratch, "wb");
        CHECK(file != NULL && fwrite(damaged, 1, kept, file) == kept && fclose(file) == 0, "%s: not written", scratch);
        gptoss_model *model = NULL;
        gptoss_error error = {""};
        const gptoss_status status = gptoss_model_create_from_file(scratch, &model, &error);
        if (status != gptoss_status_success) {
            CHECK(model == NULL, "case %u: a model was made although it failed", n);
            CHECK(status == gptoss_status_invalid_file, "case %u: status %d: %s", n, status, error.text);
            CHECK(strncmp(error.text, scratch, strlen(scratch)) == 0, "case %u: %s", n, error.text);
            continue;
        }
        /* Whatever was accepted must be usable; weights may be nonsense. */
        loaded++;
        gptoss_context *context = NULL;
        size_t num_tokens = 0;
        CHECK(gptoss_context_create(model, 0, 4, &context, &error) == 0, "case %u: %s", n, error.text);
        CHECK(gptoss_context_append_text(context, "then \xF0\x9F\x98\x80", 9, &num_tokens, &error) == 0 ||
                  gptoss_model_get_max_context_length(model) < 9, "case %u: %s", n, error.text);
        if (loaded % 8 == 0 && num_tokens > 0) {
            CHECK(gptoss_context_process(context, &error) == 0, "case %u: %s", n, error.text);
        }
        gptoss_context_release(context);
        gptoss_model_release(model);
    }
    CHECK(emulator_live_objects() == 0, "%u objects of the device are left", emulator_live_objects());
    unlink(scratch);
    printf("%u of %u damaged files were refused\n", count - loaded, count);
    free(original);
    free(damaged);
    return 0;
}

static int faults(const char *path) {
    enum { TOKENS = 20, BATCH = 8 };
    gptoss_error error = {""};
    gptoss_model *model;
    CHECK(gptoss_model_create_from_file(path, &model, &error) == 0, "%s", error.text);
    const uint32_t vocabulary = gptoss_model_get_vocabulary_size(model);
    float *expected = malloc(vocabulary * sizeof *expected), *found = malloc(vocabulary * sizeof *found);
    uint32_t tokens[TOKENS], output[4];
    for (uint32_t n = 0; n < TOKENS; n++) {
        tokens[n] = n * 7 % vocabulary;
    }
    gptoss_context *context;
    CHECK(gptoss_context_create(model, 0, BATCH, &context, &error) == 0, "%s", error.text);
    CHECK(gptoss_context_append_tokens(context, tokens, TOKENS, &error) == 0, "%s", error.text);
    CHECK(gptoss_context_get_logits(context, expected, &error) == 0, "%s", error.text);
    gptoss_context_release(context);

    for (uint32_t n = 1; n <= 3; n++) { /* the prompt takes three command buffers */
        CHECK(gptoss_context_create(model, 0, BATCH, &context, &error) == 0, "%s", error.text);
        CHECK(gptoss_context_append_tokens(context, tokens, TOKENS, &error) == 0, "%s", error.text);
        emulator_fail_commands(model->device, n, "the watchdog stopped the commands");
        CHECK(gptoss_context_process(context, &error) == gptoss_status_device_error, "fault %u was not reported", n);
        CHECK(strstr(error.text, "watchdog") != NULL, "fault %u: %s", n, error.text);
        CHECK(gptoss_context_get_num_cached_tokens(context) == (n - 1) * BATCH, "fault %u: %u tokens count", n,
              gptoss_context_get_num_cached_tokens(context));
        CHECK(gptoss_context_get_logits(context, found, &error) == 0, "%s", error.text);
        CHECK(memcmp(found, expected, vocabulary * sizeof *found) == 0, "fault %u changed the logits", n);

        const gptoss_sampling greedy = {.temperature = 0, .top_p = 1};
        size_t count;
        emulator_fail_commands(model->device, n, "the watchdog stopped the commands");
        CHECK(gptoss_context_sample(context, &greedy, 4, output, &count, &error) == gptoss_status_device_error,
              "fault %u while sampling was not reported", n);
        CHECK(count == n - 1 && gptoss_context_get_num_tokens(context) == TOKENS + count, "fault %u: %zu tokens", n,
              count);
        CHECK(gptoss_context_sample(context, &greedy, 4 - count, output + count, &count, &error) == 0, "%s",
              error.text);
        CHECK(gptoss_context_get_num_tokens(context) == TOKENS + 4, "fault %u: tokens are missing", n);
        gptoss_context_release(context);
    }
    gptoss_model_release(model);
    CHECK(emulator_live_objects() == 0, "%u objects of the device are left", emulator_live_objects());
    free(expected);
    free(found);
    printf("every fault was reported\n");
    return 0;
}

int main(int count, char **words) {
    if (count == 6 && strcmp(words[1], "fuzz") == 0) {
        state = strtoull(words[4], NULL, 10) * 2 + 1;
        return fuzz(words[2], words[3], (uint32_t)strtoul(words[5], NULL, 10));
    }
    if (count == 3 && strcmp(words[1], "faults") == 0) {
        return faults(words[2]);
    }
    return 2;
}
