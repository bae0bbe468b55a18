#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

gptoss_status gptoss_fail(gptoss_error *error, gptoss_status status, const char *format, ...) {
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
    }
    return status;
}

void *gptoss_allocate(size_t count, size_t bytes, gptoss_error *error) {
    void *memory = calloc(count > 0 ? count : 1, bytes);
    if (memory == NULL) {
        gptoss_fail(error, gptoss_status_out_of_memory, "there is no memory for %zu times %zu bytes", count, bytes);
    }
    return memory;
}
