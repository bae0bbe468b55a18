/* Plain C: the definition in code, and the fallback for processors without a kernel of their own. */
#include "kernels.h"

static const float FP4[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static int supported(void) { return 1; }

static size_t prepared_bytes(size_t k) { return k * sizeof(float); }

/* Within a block: the 16 even values (low nibbles), then the 16 odd ones. */
static void prepare(const uint16_t *x, size_t k, void *prepared) {
    float *out = prepared;
    for (size_t i = 0; i < k; i++) out[i / BLOCK * BLOCK + i % 2 * BLOCK_BYTES + i % BLOCK / 2] = bf16_to_float(x[i]);
}

static void mxfp4_row(const uint8_t *codes, const uint8_t *scales, size_t k, const void *const *prepared,
                      size_t tokens, float *sums) {
    for (size_t t = 0; t < tokens; t++) {
        const float *x = prepared[t];
        float sum = 0;
        for (size_t block = 0; block < k / BLOCK; block++) {
            float part = 0;
            for (size_t i = 0; i < BLOCK_BYTES; i++) {
                uint8_t pair = codes[block * BLOCK_BYTES + i];
                part += FP4[pair & 15] * x[block * BLOCK + i] + FP4[pair >> 4] * x[block * BLOCK + BLOCK_BYTES + i];
            }
            sum += part * scale_to_float(scales[block]);
        }
        sums[t] = sum;
    }
}

static void bf16_row(const uint16_t *row, size_t k, const void *const *x, size_t tokens, float *sums) {
    for (size_t t = 0; t < tokens; t++) {
        const uint16_t *values = x[t];
        float parts[8] = {0};
        for (size_t i = 0; i < k; i += 8)
            for (size_t j = 0; j < 8; j++) parts[j] += bf16_to_float(row[i + j]) * bf16_to_float(values[i + j]);
        float sum = 0;
        for (size_t j = 0; j < 8; j++) sum += parts[j];
        sums[t] = sum;
    }
}

static void decode(const uint8_t *codes, const uint8_t *scales, size_t blocks, uint16_t *out) {
    for (size_t block = 0; block < blocks; block++) {
        float scale = scale_to_float(scales[block]);
        uint16_t values[16];
        for (int code = 0; code < 16; code++) values[code] = float_to_bf16(FP4[code] * scale);
        for (size_t i = 0; i < BLOCK_BYTES; i++) {
            uint8_t pair = codes[block * BLOCK_BYTES + i];
            out[block * BLOCK + 2 * i] = values[pair & 15];
            out[block * BLOCK + 2 * i + 1] = values[pair >> 4];
        }
    }
}

static void widen_mxfp4(const struct matrix *w, size_t first, size_t rows, size_t begin, size_t blocks, float *tile) {
    for (size_t r = 0; r < TILE_ROWS; r++) {
        size_t index = tile_row(w, first, rows, begin, r) / BLOCK;
        for (size_t block = 0; block < blocks; block++) {
            float scale = scale_to_float(w->scales[index + block]), *out = tile + block * BLOCK * TILE_ROWS + r;
            for (size_t i = 0; i < BLOCK_BYTES; i++) {
                uint8_t pair = w->codes[(index + block) * BLOCK_BYTES + i];
                out[i * TILE_ROWS] = FP4[pair & 15] * scale;
                out[(BLOCK_BYTES + i) * TILE_ROWS] = FP4[pair >> 4] * scale;
            }
        }
    }
}

static void widen_bf16(const struct matrix *w, size_t first, size_t rows, size_t begin, size_t blocks, float *tile) {
    for (size_t r = 0; r < TILE_ROWS; r++) {
        const uint16_t *values = w->values + tile_row(w, first, rows, begin, r);
        for (size_t i = 0; i < blocks * BLOCK; i++) tile[i * TILE_ROWS + r] = bf16_to_float(values[i]);
    }
}

static void multiply(const float *tile, size_t blocks, const void *const *x, size_t offset, size_t tokens,
                     float *sums) {
    for (size_t t = 0; t < tokens; t++) {
        const float *values = (const float *)((const char *)x[t] + offset);
        float totals[TILE_ROWS] = {0};
        for (size_t i = 0; i < blocks * BLOCK; i++)
            for (size_t r = 0; r < TILE_ROWS; r++) totals[r] += tile[i * TILE_ROWS + r] * values[i];
        for (size_t r = 0; r < TILE_ROWS; r++) sums[t * GROUP_ROWS + r] += totals[r];
    }
}

const struct kernels kernels_portable = {
    "portable", supported, prepared_bytes, prepare, mxfp4_row, bf16_row, decode, 8,
    {FLOAT_BLOCK, FLOAT_BLOCKS, widen_mxfp4, multiply}, {FLOAT_BLOCK, FLOAT_BLOCKS, widen_bf16, multiply},
};
