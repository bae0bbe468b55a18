/* What the model loader needs beyond the public interface: making a tokenizer from the bytes of a file. */
#ifndef GPTOSS_TOKENIZER_H
#define GPTOSS_TOKENIZER_H

#include "gpt-oss.h"

enum { GPTOSS_UUID_BYTES = 16 };

typedef struct {
    uint32_t num_text, num_special;
    const uint8_t *special_uuids; /* [num_special, 16] */
    const uint8_t *tokens;        /* [num_text] of u16 length and bytes */
    size_t tokens_bytes;
} gptoss_vocabulary;

/* Copy and index a vocabulary. `where` opens the sentence of an error, such as "model.bin: "; `tokens_at` is the byte
 * of the file at which the tokens begin. Returns success, invalid_file or out_of_memory. */
gptoss_status gptoss_tokenizer_create(const gptoss_vocabulary *vocabulary, const char *where, uint64_t tokens_at,
                                      gptoss_tokenizer **tokenizer, gptoss_error *error);

#endif
