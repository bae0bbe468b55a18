/* AVX2 with FMA: codes become small integers by a byte shuffle, then floats; activations are floats. */
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))

static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static size_t prepared_bytes(size_t k) { return k * sizeof(float); }

/* Within a block: the 16 even values (low nibbles), then the 16 odd ones. */
static void prepare(const uint16_t *x, size_t k, void *prepared) {
    float *out = prepared;
    for (size_t i = 0; i < k; i++) out[i / BLOCK * BLOCK + i % 2 * BLOCK_BYTES + i % BLOCK / 2] = bf16_to_float(x[i]);
}

TARGET static inline float sum_of(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}

TARGET static inline __m256 widen(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }

TARGET static void mxfp4_row(const uint8_t *codes, const uint8_t *scales, size_t k, const void *const *prepared,
                             size_t tokens, float *sums) {
    const __m128i table = _mm_loadu_si128((const __m128i *)FP4_DOUBLED), low = _mm_set1_epi8(15);
    __m256 totals[MAX_TOKENS];
    for (size_t t = 0; t < tokens; t++) totals[t] = _mm256_setzero_ps();
    for (size_t block = 0; block < k / BLOCK; block++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(codes + block * BLOCK_BYTES));
        __m128i even = _mm_shuffle_epi8(table, _mm_and_si128(bytes, low));
        __m128i odd = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(bytes, 4), low));
        __m256 w0 = widen(even), w1 = widen(_mm_srli_si128(even, 8));
        __m256 w2 = widen(odd), w3 = widen(_mm_srli_si128(odd, 8));
        /* The table holds doubled values. */
        __m256 factor = _mm256_set1_ps(0.5f * scale_to_float(scales[block]));
        for (size_t t = 0; t < tokens; t++) {
            const float *x = (const float *)prepared[t] + block * BLOCK;
            __m256 part = _mm256_mul_ps(w0, _mm256_loadu_ps(x));
            part = _mm256_fmadd_ps(w1, _mm256_loadu_ps(x + 8), part);
            part = _mm256_fmadd_ps(w2, _mm256_loadu_ps(x + 16), part);
            part = _mm256_fmadd_ps(w3, _mm256_loadu_ps(x + 24), part);
            totals[t] = _mm256_fmadd_ps(part, factor, totals[t]);
        }
    }
    for (size_t t = 0; t < tokens; t++) sums[t] = sum_of(totals[t]);
}

TARGET static inline __m256 floats(const uint16_t *bits) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)bits));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

TARGET static void bf16_row(const uint16_t *row, size_t k, const uint16_t *const *x, size_t tokens, float *sums) {
    __m256 totals[MAX_TOKENS];
    for (size_t t = 0; t < tokens; t++) totals[t] = _mm256_setzero_ps();
    for (size_t i = 0; i < k; i += 8) {
        __m256 w = floats(row + i);
        for (size_t t = 0; t < tokens; t++) totals[t] = _mm256_fmadd_ps(w, floats(x[t] + i), totals[t]);
    }
    for (size_t t = 0; t < tokens; t++) sums[t] = sum_of(totals[t]);
}

static void decode(const uint8_t *codes, const uint8_t *scales, size_t blocks, uint16_t *out) {
    kernels_portable.decode(codes, scales, blocks, out);
}

const struct kernels kernels_avx2 = {
    "avx2", supported, prepared_bytes, prepare, mxfp4_row, bf16_row, decode,
};
#endif
