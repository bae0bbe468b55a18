/* AVX2 with FMA: two byte shuffles turn codes into BF16 patterns, which are floats but for 16 zero bits. */
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))

enum { LANES = 8 };

/* Over registers: unless GCC unrolls such a loop early, it keeps the array in memory as well. */
#define EACH(i, count) _Pragma("GCC unroll 12") for (size_t i = 0; i < (count); i++)

static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static size_t prepared_bytes(size_t k) { return k * sizeof(float); }

static void prepare(const uint16_t *x, size_t k, void *prepared) {
    float *out = prepared;
    for (size_t i = 0; i < k; i++) out[i] = bf16_to_float(x[i]);
}

TARGET static inline float sum_of(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}

/* The floats whose BF16 patterns are the lower and the upper halves of eight 32-bit words. */
TARGET static inline __m256 lower(__m256i words) { return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)); }

TARGET static inline __m256 upper(__m256i words) {
    return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32((int)0xFFFF0000)));
}

/* The 32 values of a block, unscaled, in memory order.
 *
 * The first shuffle puts the byte of each value where the last step wants it: a word of low nibbles, then one of
 * high nibbles, in which neighbours are values v and v + 8. Bytes of both halves of the BF16 patterns are looked up,
 * and joined by unpacking; the words' lower halves are then values 0..7 (16..23), their upper halves 8..15 (24..31).
 */
TARGET static inline void block_values(const uint8_t *codes, __m256 values[4]) {
    const __m256i places = _mm256_setr_epi8(0, 4, 0, 4, 1, 5, 1, 5, 8, 12, 8, 12, 9, 13, 9, 13, /* */
                                            2, 6, 2, 6, 3, 7, 3, 7, 10, 14, 10, 14, 11, 15, 11, 15);
    const __m256i high_bytes = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0x3F, 0x3F, 0x3F, 0x40, 0x40, 0x40, 0x40, /* */
                      (char)0x80, (char)0xBF, (char)0xBF, (char)0xBF, (char)0xC0, (char)0xC0, (char)0xC0, (char)0xC0));
    const __m256i low_bytes = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, (char)0x80, (char)0xC0, 0, 0x40, (char)0x80, (char)0xC0, /* */
                      0, 0, (char)0x80, (char)0xC0, 0, 0x40, (char)0x80, (char)0xC0));
    __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes));
    bytes = _mm256_shuffle_epi8(bytes, places);
    __m256i nibbles = _mm256_or_si256(_mm256_and_si256(bytes, _mm256_set1_epi32(0x00000F0F)),
                                      _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi32(0x0F0F0000)));
    __m256i high = _mm256_shuffle_epi8(high_bytes, nibbles), low = _mm256_shuffle_epi8(low_bytes, nibbles);
    __m256i first = _mm256_unpacklo_epi8(low, high), second = _mm256_unpackhi_epi8(low, high);
    values[0] = lower(first);
    values[1] = upper(first);
    values[2] = lower(second);
    values[3] = upper(second);
}

/* Up to eight scale bytes to floats; see scale_to_float. One by one they would cost as much as their blocks. */
TARGET static inline void widen_scales(const uint8_t *scales, size_t count, float factors[LANES]) {
    if (count < LANES) {
        for (size_t i = 0; i < count; i++) factors[i] = scale_to_float(scales[i]);
        return;
    }
    __m256i exponents = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)scales));
    __m256i bits = _mm256_max_epu32(_mm256_slli_epi32(exponents, 23), _mm256_set1_epi32(0x00400000));
    __m256i nan = _mm256_cmpeq_epi32(exponents, _mm256_set1_epi32(255));
    bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x7FC00000), nan);
    _mm256_storeu_si256((__m256i *)factors, bits);
}

TARGET static inline void row_for(const uint8_t *codes, const uint8_t *scales, size_t k, const void *const *prepared,
                                  size_t tokens, float *sums) {
    __m256 totals[MAX_TOKENS];
    float factors[LANES];
    EACH(t, tokens) totals[t] = _mm256_setzero_ps();
    for (size_t block = 0; block < k / BLOCK; block++) {
        if (block % LANES == 0) widen_scales(scales + block, k / BLOCK - block, factors);
        __m256 w[4];
        block_values(codes + block * BLOCK_BYTES, w);
        __m256 factor = _mm256_broadcast_ss(&factors[block % LANES]);
        EACH(t, tokens) {
            const float *x = (const float *)prepared[t] + block * BLOCK;
            __m256 part = _mm256_mul_ps(w[0], _mm256_loadu_ps(x));
            for (size_t n = 1; n < 4; n++) part = _mm256_fmadd_ps(w[n], _mm256_loadu_ps(x + n * LANES), part);
            totals[t] = _mm256_fmadd_ps(part, factor, totals[t]);
        }
    }
    EACH(t, tokens) sums[t] = sum_of(totals[t]);
}

/* The number of tokens as a constant lets the compiler keep the sums in registers. */
TARGET static void mxfp4_row(const uint8_t *codes, const uint8_t *scales, size_t k, const void *const *prepared,
                             size_t tokens, float *sums) {
    switch (tokens) {
    case 1: row_for(codes, scales, k, prepared, 1, sums); break;
    case 2: row_for(codes, scales, k, prepared, 2, sums); break;
    case 3: row_for(codes, scales, k, prepared, 3, sums); break;
    default: row_for(codes, scales, k, prepared, 4, sums);
    }
}

TARGET static inline __m256i words_at(const uint16_t *values) { return _mm256_loadu_si256((const __m256i *)values); }

TARGET static inline void dense_for(const uint16_t *row, size_t k, const uint16_t *const *x, size_t tokens,
                                    float *sums) {
    __m256 even[MAX_TOKENS], odd[MAX_TOKENS];
    EACH(t, tokens) even[t] = odd[t] = _mm256_setzero_ps();
    for (size_t i = 0; i < k; i += 2 * LANES) {
        __m256i w = words_at(row + i);
        EACH(t, tokens) {
            __m256i v = words_at(x[t] + i);
            even[t] = _mm256_fmadd_ps(lower(w), lower(v), even[t]);
            odd[t] = _mm256_fmadd_ps(upper(w), upper(v), odd[t]);
        }
    }
    EACH(t, tokens) sums[t] = sum_of(_mm256_add_ps(even[t], odd[t]));
}

TARGET static void bf16_row(const uint16_t *row, size_t k, const uint16_t *const *x, size_t tokens, float *sums) {
    switch (tokens) {
    case 1: dense_for(row, k, x, 1, sums); break;
    case 2: dense_for(row, k, x, 2, sums); break;
    case 3: dense_for(row, k, x, 3, sums); break;
    default: dense_for(row, k, x, 4, sums);
    }
}

static void decode(const uint8_t *codes, const uint8_t *scales, size_t blocks, uint16_t *out) {
    kernels_portable.decode(codes, scales, blocks, out);
}

TARGET static void widen_mxfp4(const uint8_t *codes, const uint8_t *scales, size_t blocks, float *out) {
    float factors[LANES];
    for (size_t block = 0; block < blocks; block++) {
        if (block % LANES == 0) widen_scales(scales + block, blocks - block, factors);
        __m256 w[4];
        block_values(codes + block * BLOCK_BYTES, w);
        __m256 factor = _mm256_broadcast_ss(&factors[block % LANES]);
        for (size_t n = 0; n < 4; n++)
            _mm256_storeu_ps(out + block * BLOCK + n * LANES, _mm256_mul_ps(w[n], factor));
    }
}

TARGET static void widen_bf16(const uint16_t *values, size_t n, float *out) {
    for (size_t i = 0; i < n; i += LANES) {
        __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(values + i)));
        _mm256_storeu_ps(out + i, lower(words));
    }
}

_Static_assert((int)TILE_TOKENS == 2 * LANES, "a row of a tile is two registers");

TARGET static void tile(const float *w, const float *x, size_t k, float *sums) {
    __m256 left[TILE_ROWS], right[TILE_ROWS];
    EACH(r, TILE_ROWS) {
        left[r] = _mm256_loadu_ps(sums + r * PANEL_TOKENS);
        right[r] = _mm256_loadu_ps(sums + r * PANEL_TOKENS + LANES);
    }
    for (size_t i = 0; i < k; i++) {
        __m256 first = _mm256_loadu_ps(x + i * TILE_TOKENS), second = _mm256_loadu_ps(x + i * TILE_TOKENS + LANES);
        EACH(r, TILE_ROWS) {
            __m256 weight = _mm256_broadcast_ss(w + r * PANEL_K + i);
            left[r] = _mm256_fmadd_ps(weight, first, left[r]);
            right[r] = _mm256_fmadd_ps(weight, second, right[r]);
        }
    }
    EACH(r, TILE_ROWS) {
        _mm256_storeu_ps(sums + r * PANEL_TOKENS, left[r]);
        _mm256_storeu_ps(sums + r * PANEL_TOKENS + LANES, right[r]);
    }
}

const struct kernels kernels_avx2 = {
    "avx2", supported, prepared_bytes, prepare, mxfp4_row, bf16_row, decode, 8, widen_mxfp4, widen_bf16, tile,
};
#endif
