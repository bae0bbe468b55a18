/* Plain C: the definition in code, and the fallback for processors without a kernel of their own. */
#include "kernels.h"
#include "panels.h"

static const float FP4[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static int supported(void) { return 1; }

static size_t prepared_bytes(size_t k) { return k * sizeof(float); }

static void prepare(const uint16_t *x, size_t k, void *prepared) {
    float *out = prepared;
    for (size_t i = 0; i < k; i++) out[i] = bf16_to_float(x[i]);
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
                part += FP4[pair & 15] * x[block * BLOCK + 2 * i] + FP4[pair >> 4] * x[block * BLOCK + 2 * i + 1];
            }
            sum += part * scale_to_float(scales[block]);
        }
        sums[t] = sum;
    }
}

static void bf16_row(const uint16_t *row, size_t k, const uint16_t *const *x, size_t tokens, float *sums) {
    for (size_t t = 0; t < tokens; t++) {
        float parts[8] = {0};
        for (size_t i = 0; i < k; i += 8)
            for (size_t j = 0; j < 8; j++) parts[j] += bf16_to_float(row[i + j]) * bf16_to_float(x[t][i + j]);
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

static void widen_mxfp4(const uint8_t *codes, const uint8_t *scales, size_t blocks, float *out) {
    for (size_t block = 0; block < blocks; block++) {
        float scale = scale_to_float(scales[block]);
        for (size_t i = 0; i < BLOCK_BYTES; i++) {
            uint8_t pair = codes[block * BLOCK_BYTES + i];
            out[block * BLOCK + 2 * i] = FP4[pair & 15] * scale;
            out[block * BLOCK + 2 * i + 1] = FP4[pair >> 4] * scale;
        }
    }
}

static void widen_bf16(const uint16_t *values, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) out[i] = bf16_to_float(values[i]);
}

static void multiply(const float *w, const float *x, size_t k, size_t tokens, float *sums) {
    (void)tokens;
    for (size_t r = 0; r < TILE_ROWS; r++) {
        float totals[TILE_TOKENS] = {0};
        for (size_t i = 0; i < k; i++)
            for (size_t t = 0; t < TILE_TOKENS; t++) totals[t] += w[r * PANEL_K + i] * x[i * TILE_TOKENS + t];
        for (size_t t = 0; t < TILE_TOKENS; t++) sums[r * SUMS_STRIDE + t] += totals[t];
    }
}

const struct kernels kernels_portable = {
    "portable", supported, prepared_bytes, prepare, mxfp4_row, bf16_row, decode, 8, widen_mxfp4, widen_bf16,
    {FLOAT_BLOCK, fill_float_panel, multiply}, {FLOAT_BLOCK, fill_float_panel, multiply},
};
