/* gpt-oss on Metal: the C interface.
 *
 * A model is a memory-mapped file, a tokenizer its vocabulary, a context one sequence of tokens with its keys and
 * values. Text goes in as bytes and comes out as token ids; Harmony's message format is the caller's business.
 *
 * Every function that can fail returns a gptoss_status and, through `error`, one sentence that says what was expected,
 * what was found and where. `error` may be null. On failure outputs are left as they were, and an object stays usable
 * as its function says. Other pointers may not be null unless a function says so.
 *
 * Threads: models and tokenizers do not change once created and may be shared. A context may be used by one thread at
 * a time.
 *
 * Lifetime: objects are counted. A create function returns an object with one reference; contexts and tokenizers keep
 * what they are made from alive by themselves.
 */
#ifndef GPT_OSS_H
#define GPT_OSS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    gptoss_status_success = 0,
    gptoss_status_invalid_argument, /* the caller asks for what cannot be: an unknown token, a negative temperature */
    gptoss_status_context_overflow, /* more tokens than the context holds */
    gptoss_status_unreadable_file,  /* the operating system does not let us open, read or map the file */
    gptoss_status_invalid_file,     /* the file is not a gpt-oss model file, is damaged or is cut off */
    gptoss_status_out_of_memory,    /* host or device memory is used up */
    gptoss_status_device_error,     /* there is no usable device, or it reported a failure */
    gptoss_status_interrupted,      /* the interrupt function of gptoss_context_set_interrupt asked to stop */
} gptoss_status;

typedef struct {
    char text[1024]; /* one sentence, NUL-terminated, no newline */
} gptoss_error;

typedef struct gptoss_model gptoss_model;
typedef struct gptoss_tokenizer gptoss_tokenizer;
typedef struct gptoss_context gptoss_context;

/* ---- device ---- */

typedef struct {
    char name[128]; /* "Apple M2", or a name that says that the device is emulated */
    bool emulated;  /* true: kernels run on the CPU in an emulation of Metal's execution model */
    uint64_t memory_bytes;
} gptoss_device;

/* Describe the device that models of this process would run on.
 *
 * device: receives the description.
 * Returns success, or device_error if there is none that can run the kernels. */
gptoss_status gptoss_device_describe(gptoss_device *device, gptoss_error *error);

/* ---- model ---- */

/* Map a model file, check it completely and prepare its device.
 *
 * path: the file, NUL-terminated, in the encoding of the file system.
 * model: receives the model; release it with gptoss_model_release.
 * Returns success; unreadable_file; invalid_file if magic, UUIDs, counts, sizes or alignment are not what the format
 * says, naming the byte; out_of_memory; or device_error. The file may not be changed while the model lives. */
gptoss_status gptoss_model_create_from_file(const char *path, gptoss_model **model, gptoss_error *error);

/* Take one more reference. Returns the model; null is passed through. */
gptoss_model *gptoss_model_retain(gptoss_model *model);

/* Give back one reference; the last one unmaps the file. Null is ignored. */
void gptoss_model_release(gptoss_model *model);

/* The most tokens a context of this model can hold. */
uint32_t gptoss_model_get_max_context_length(const gptoss_model *model);

/* Entries of the model's logits: its text and special tokens. */
uint32_t gptoss_model_get_vocabulary_size(const gptoss_model *model);

/* The model's tokenizer, with one more reference: release it with gptoss_tokenizer_release. */
gptoss_tokenizer *gptoss_model_get_tokenizer(gptoss_model *model);

/* ---- tokenizer ---- */

/* Take one more reference. Returns the tokenizer; null is passed through. */
gptoss_tokenizer *gptoss_tokenizer_retain(gptoss_tokenizer *tokenizer);

/* Give back one reference. Null is ignored. */
void gptoss_tokenizer_release(gptoss_tokenizer *tokenizer);

/* Ids below this number are text; special tokens follow. */
uint32_t gptoss_tokenizer_get_num_text_tokens(const gptoss_tokenizer *tokenizer);

/* Special tokens that the model has logits for. */
uint32_t gptoss_tokenizer_get_num_special_tokens(const gptoss_tokenizer *tokenizer);

/* Text and special tokens together. */
uint32_t gptoss_tokenizer_get_num_tokens(const gptoss_tokenizer *tokenizer);

/* Byte-pair-encode text exactly as tiktoken's o200k_harmony does with `encode_ordinary`: special tokens in the text
 * are text. Bytes that are not UTF-8 are encoded as tiktoken encodes bytes: from the last piece before the first bad
 * byte on, everything is one piece.
 *
 * text: num_bytes bytes; null if num_bytes is 0.
 * tokens: receives the ids; room for num_bytes of them always suffices.
 * num_tokens: receives their number.
 * Returns success or out_of_memory. */
gptoss_status gptoss_tokenizer_encode(const gptoss_tokenizer *tokenizer, const void *text, size_t num_bytes,
                                      uint32_t *tokens, size_t *num_tokens, gptoss_error *error);

/* The bytes of one token; a special token gives its name, such as "<|start|>", as tiktoken does.
 *
 * token: any id below that of o200k_harmony's last special token, whether the model has logits for it or not.
 * buffer: receives at most `capacity` bytes, without a NUL; may be null if capacity is 0.
 * num_bytes: receives the length of all of them, which may exceed `capacity`.
 * Returns success, or invalid_argument for an id that no token has. */
gptoss_status gptoss_tokenizer_decode(const gptoss_tokenizer *tokenizer, uint32_t token, void *buffer, size_t capacity,
                                      size_t *num_bytes, gptoss_error *error);

/* The id of a special token by its name.
 *
 * name: NUL-terminated, such as "<|channel|>".
 * token: receives the id.
 * Returns success, or invalid_argument if the model file does not have this special token. */
gptoss_status gptoss_tokenizer_get_special_token(const gptoss_tokenizer *tokenizer, const char *name, uint32_t *token,
                                                 gptoss_error *error);

/* ---- context ---- */

/* Make an empty context.
 *
 * model: is kept alive by the context.
 * max_tokens: the most tokens the context can hold; 0 takes the model's context length.
 * max_batch_tokens: the most tokens computed by one command buffer; 0 chooses. Memory grows with it.
 * context: receives the context; release it with gptoss_context_release.
 * Returns success, invalid_argument if max_tokens exceeds the model's, out_of_memory or device_error. Memory for keys
 * and values is taken as the context grows. */
gptoss_status gptoss_context_create(gptoss_model *model, uint32_t max_tokens, uint32_t max_batch_tokens,
                                    gptoss_context **context, gptoss_error *error);

/* Free a context. Null is ignored. */
void gptoss_context_release(gptoss_context *context);

/* The most tokens the context can hold. */
uint32_t gptoss_context_get_max_tokens(const gptoss_context *context);

/* Tokens in the context, computed or not. */
uint32_t gptoss_context_get_num_tokens(const gptoss_context *context);

/* Of these tokens, how many from the first on have keys and values that the next computation will use. */
uint32_t gptoss_context_get_num_cached_tokens(const gptoss_context *context);

/* The tokens, gptoss_context_get_num_tokens of them; valid until the context is changed. */
const uint32_t *gptoss_context_get_tokens(const gptoss_context *context);

/* Bytes of device memory that the context holds now. */
size_t gptoss_context_get_memory_bytes(const gptoss_context *context);

/* Have a function called between command buffers, on the thread that computes.
 *
 * interrupt: returns true to stop; null removes it. data: is passed to it.
 * A computation that is stopped returns interrupted; the context then keeps what was computed and can go on. */
void gptoss_context_set_interrupt(gptoss_context *context, bool (*interrupt)(void *data), void *data);

/* Append tokens; they are computed by process, logits or sample.
 *
 * Where they repeat tokens that were dropped by reset or truncate, the keys and values of those are used again.
 * Returns success; invalid_argument if the model has no such token; context_overflow if they do not fit. On failure
 * nothing is appended. */
gptoss_status gptoss_context_append_tokens(gptoss_context *context, const uint32_t *tokens, size_t num_tokens,
                                           gptoss_error *error);

/* Append text, encoded by gptoss_tokenizer_encode.
 *
 * num_tokens: receives the number of tokens; may be null.
 * Returns what those two functions return. */
gptoss_status gptoss_context_append_text(gptoss_context *context, const void *text, size_t num_bytes,
                                         size_t *num_tokens, gptoss_error *error);

/* Compute the keys and values of all tokens, and the logits after the last one.
 *
 * An empty context is left as it is. Returns success, out_of_memory, device_error or interrupted; tokens whose batch
 * was completed stay computed, and another call goes on. */
gptoss_status gptoss_context_process(gptoss_context *context, gptoss_error *error);

/* The logits after the last token; computes what process would.
 *
 * logits: receives gptoss_model_get_vocabulary_size values.
 * Returns what process returns, or invalid_argument if the context is empty. */
gptoss_status gptoss_context_get_logits(gptoss_context *context, float *logits, gptoss_error *error);

typedef struct {
    float temperature; /* 0 takes the most probable token, the lowest id among equals; 1 the model's distribution */
    float top_p;       /* above 0; 1 samples among all tokens, less among the fewest tokens that hold this share */
    uint64_t seed;     /* the same context, settings and seed give the same tokens, in one call or in many */
    const uint32_t *stop_tokens; /* [num_stop_tokens]; sampling ends after the first of them */
    size_t num_stop_tokens;
} gptoss_sampling;

/* Sample and append tokens until a stop token, max_output_tokens of them, or the context's end.
 *
 * sampling: how.
 * output: receives the tokens, a stop token included; room for max_output_tokens.
 * num_output: receives their number, also on failure: those tokens are in the context.
 * Returns what process returns, or invalid_argument if the context is empty or a setting is out of range. */
gptoss_status gptoss_context_sample(gptoss_context *context, const gptoss_sampling *sampling, size_t max_output_tokens,
                                    uint32_t *output, size_t *num_output, gptoss_error *error);

/* Drop all but the first num_tokens tokens. Their keys and values stay, for an equal continuation.
 *
 * Returns success, or invalid_argument if the context holds fewer. */
gptoss_status gptoss_context_truncate(gptoss_context *context, uint32_t num_tokens, gptoss_error *error);

/* Drop all tokens; as gptoss_context_truncate to 0. */
void gptoss_context_reset(gptoss_context *context);

#ifdef __cplusplus
}
#endif
#endif
