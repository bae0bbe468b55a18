/* Runs one call of the native library in a process of its own: for a sanitised build, or another processor under an
 * emulator. Reads a request from standard input, writes the status and the result to standard output.
 *
 * Request: ten uint64 {operation, isa, threads, a, b, c, d, e, has_bias, limit's bits}, then the arrays in the order
 * of the function's arguments. Each array gets a heap block of exactly its size, bytes at an odd address where the
 * interface allows it, so that a sanitiser sees the first byte read too far.
 */
#include "gptoss_native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const ISAS[] = {"avx512bf16", "avx2", "neon", "portable"};
static void *blocks[16];
static int used;

static void *take(size_t bytes, int odd) {
    unsigned char *block = malloc(bytes + (size_t)odd);
    if (!block || (bytes && fread(block + odd, 1, bytes, stdin) != bytes)) exit(3);
    blocks[used++] = block;
    return block + odd;
}

static void answer(int status, const void *result, size_t bytes) {
    int code = status;
    if (fwrite(&code, sizeof code, 1, stdout) != 1 || (bytes && fwrite(result, 1, bytes, stdout) != bytes)) exit(4);
    fflush(stdout);
}

int main(void) {
    uint64_t f[10];
    if (fread(f, sizeof f, 1, stdin) != 1) return 2;
    if (f[1] >= sizeof ISAS / sizeof *ISAS) return 2;
    int status = gptoss_native_select(ISAS[f[1]]);
    if (f[0] == 0 || status) {
        answer(status, NULL, 0);
        return 0;
    }
    int threads = (int)f[2];
    void *out = NULL;
    size_t bytes = 0;
    if (f[0] == 1) { /* experts: a tokens, b per token, c experts, d hidden, e intermediate */
        size_t n = f[3], k = f[4], e = f[5], h = f[6], i = f[7];
        struct gptoss_experts layer = {.experts = e, .hidden = h, .intermediate = i};
        layer.mlp1_blocks = take(e * 2 * i * h / 2, 1);
        layer.mlp1_scales = take(e * 2 * i * h / 32, 1);
        layer.mlp1_bias = take(e * 2 * i * 2, 0);
        layer.mlp2_blocks = take(e * h * i / 2, 1);
        layer.mlp2_scales = take(e * h * i / 32, 1);
        layer.mlp2_bias = take(e * h * 2, 0);
        uint32_t bits = (uint32_t)f[9];
        memcpy(&layer.swiglu_limit, &bits, sizeof bits);
        const uint16_t *x = take(n * h * 2, 0);
        const int64_t *chosen = take(n * k * 8, 0);
        const float *weights = take(n * k * 4, 0);
        bytes = n * h * 4;
        out = malloc(bytes);
        status = gptoss_native_experts(&layer, n, k, x, chosen, weights, out, threads);
    } else if (f[0] == 2) { /* dense product: a rows, b k, c tokens, d whether rounded */
        size_t rows = f[3], k = f[4], n = f[5], rounded = f[6];
        const uint16_t *w = take(rows * k * 2, 0), *bias = f[8] ? take(rows * 2, 0) : NULL, *x = take(n * k * 2, 0);
        bytes = n * rows * (rounded ? 2 : 4);
        out = malloc(bytes);
        status = rounded ? gptoss_native_matmul_bf16(w, bias, rows, k, x, n, out, threads)
                         : gptoss_native_matmul_bf16_unrounded(w, bias, rows, k, x, n, out, threads);
    } else { /* decode: a blocks */
        const uint8_t *codes = take(f[3] * 16, 1), *scales = take(f[3], 1);
        bytes = f[3] * 32 * 2;
        out = malloc(bytes);
        status = gptoss_native_decode(codes, scales, f[3], out, threads);
    }
    answer(status, out, status ? 0 : bytes);
    free(out);
    while (used) free(blocks[--used]);
    return 0;
}
