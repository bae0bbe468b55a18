/* How the C core reports failures: a status and one sentence. */
#ifndef GPTOSS_ERROR_H
#define GPTOSS_ERROR_H

#include "gpt-oss.h"

/* Write the sentence, if the caller wants one, and return the status. */
__attribute__((format(printf, 3, 4))) gptoss_status gptoss_fail(gptoss_error *error, gptoss_status status,
                                                                const char *format, ...);

/* Allocate zeroed memory; null, with the sentence written, if there is none. */
void *gptoss_allocate(size_t count, size_t bytes, gptoss_error *error);

#endif
