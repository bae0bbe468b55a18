/* AVX-512 with BF16 dot products (Cooper Lake, Sapphire Rapids, Zen 4 and later).
 *
 * 64 bytes hold 128 codes: 32 words of four nibbles. A word permutation looks at the low five bits of its index,
 * so with the 16 values stored twice it decodes the lowest nibble of each word without a mask; three shifts bring
 * the other nibbles down. Lane w of the n-th decoded vector is value 4w + n, so activations are stored in that
 * order once. Four dot products later, each group of four sums belongs to one block and takes that block's scale.
 */
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

enum { CHUNK = 128, CHUNK_BYTES = 64, LANES = 32 };

static int supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bf16");
}

static size_t chunks(size_t k) { return (k + CHUNK - 1) / CHUNK; }

static size_t prepared_bytes(size_t k) { return chunks(k) * CHUNK * sizeof(uint16_t); }

static void prepare(const uint16_t *x, size_t k, void *prepared) {
    uint16_t *out = prepared;
    memset(out, 0, prepared_bytes(k));
    for (size_t i = 0; i < k; i++) out[i / CHUNK * CHUNK + i % 4 * LANES + i % CHUNK / 4] = x[i];
}

/* BF16 bit patterns of the 16 values, twice. */
TARGET static inline __m512i value_table(void) {
    const __m256i once = _mm256_setr_epi16(0, 0x3F00, 0x3F80, 0x3FC0, 0x4000, 0x4040, 0x4080, 0x40C0,
                                           (short)0x8000, (short)0xBF00, (short)0xBF80, (short)0xBFC0,
                                           (short)0xC000, (short)0xC040, (short)0xC080, (short)0xC0C0);
    return _mm512_broadcast_i64x4(once);
}

/* Four scale bytes to 16 floats, four of each; see scale_to_float. */
TARGET static inline __m512 widen_scales(uint32_t bytes) {
    const __m128i spread = _mm_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    __m512i exponents = _mm512_cvtepu8_epi32(_mm_shuffle_epi8(_mm_cvtsi32_si128((int)bytes), spread));
    __mmask16 nan = _mm512_cmpeq_epi32_mask(exponents, _mm512_set1_epi32(255));
    __m512i bits = _mm512_max_epu32(_mm512_slli_epi32(exponents, 23), _mm512_set1_epi32(0x00400000));
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7FC00000)));
}

TARGET static inline __m512 chunk_sums(__m512i words, __m512i table, const uint16_t *x) {
    __m512 sums = _mm512_setzero_ps();
#define STEP(N)                                                                                              \
    sums = _mm512_dpbf16_ps(                                                                                 \
        sums, (__m512bh)_mm512_permutexvar_epi16(N ? _mm512_srli_epi16(words, 4 * N) : words, table),        \
        (__m512bh)_mm512_loadu_si512(x + N * LANES));
    STEP(0) STEP(1) STEP(2) STEP(3)
#undef STEP
    return sums;
}

TARGET static inline void row_for(const uint8_t *codes, const uint8_t *scales, size_t k, const void *const *prepared,
                                  size_t tokens, float *sums) {
    const __m512i table = value_table();
    __m512 totals[MAX_TOKENS];
    for (size_t t = 0; t < tokens; t++) totals[t] = _mm512_setzero_ps();
    size_t whole = k / CHUNK, rest = k % CHUNK;
    for (size_t c = 0; c < whole; c++) {
        __m512i words = _mm512_loadu_si512(codes + c * CHUNK_BYTES);
        uint32_t bytes;
        memcpy(&bytes, scales + c * 4, 4);
        __m512 factor = widen_scales(bytes);
        for (size_t t = 0; t < tokens; t++) {
            const uint16_t *x = (const uint16_t *)prepared[t] + c * CHUNK;
            totals[t] = _mm512_fmadd_ps(chunk_sums(words, table, x), factor, totals[t]);
        }
    }
    if (rest) {
        __m512i words = _mm512_maskz_loadu_epi8((1ull << (rest / 2)) - 1, codes + whole * CHUNK_BYTES);
        uint32_t bytes = 0;
        memcpy(&bytes, scales + whole * 4, rest / BLOCK);
        __m512 factor = widen_scales(bytes);
        for (size_t t = 0; t < tokens; t++) {
            const uint16_t *x = (const uint16_t *)prepared[t] + whole * CHUNK;
            totals[t] = _mm512_fmadd_ps(chunk_sums(words, table, x), factor, totals[t]);
        }
    }
    for (size_t t = 0; t < tokens; t++) sums[t] = _mm512_reduce_add_ps(totals[t]);
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

TARGET static inline void dense_for(const uint16_t *row, size_t k, const void *const *x, size_t tokens,
                                    float *sums) {
    __m512 even[MAX_TOKENS], odd[MAX_TOKENS];
    for (size_t t = 0; t < tokens; t++) even[t] = odd[t] = _mm512_setzero_ps();
    size_t i = 0;
    for (; i + 2 * LANES <= k; i += 2 * LANES) {
        __m512bh first = (__m512bh)_mm512_loadu_si512(row + i);
        __m512bh second = (__m512bh)_mm512_loadu_si512(row + i + LANES);
        for (size_t t = 0; t < tokens; t++) {
            even[t] = _mm512_dpbf16_ps(even[t], first, (__m512bh)_mm512_loadu_si512((const uint16_t *)x[t] + i));
            odd[t] = _mm512_dpbf16_ps(odd[t], second, (__m512bh)_mm512_loadu_si512((const uint16_t *)x[t] + i + LANES));
        }
    }
    if (i < k) {
        __m512bh last = (__m512bh)_mm512_loadu_si512(row + i);
        for (size_t t = 0; t < tokens; t++)
            even[t] = _mm512_dpbf16_ps(even[t], last, (__m512bh)_mm512_loadu_si512((const uint16_t *)x[t] + i));
    }
    for (size_t t = 0; t < tokens; t++) sums[t] = _mm512_reduce_add_ps(_mm512_add_ps(even[t], odd[t]));
}

TARGET static void bf16_row(const uint16_t *row, size_t k, const void *const *x, size_t tokens, float *sums) {
    switch (tokens) {
    case 1: dense_for(row, k, x, 1, sums); break;
    case 2: dense_for(row, k, x, 2, sums); break;
    case 3: dense_for(row, k, x, 3, sums); break;
    default: dense_for(row, k, x, 4, sums);
    }
}

/* One block: nibbles to words in memory order, look-up, then the scale as a float product, rounded to BF16. */
TARGET static void decode(const uint8_t *codes, const uint8_t *scales, size_t blocks, uint16_t *out) {
    const __m512i table = value_table();
    for (size_t block = 0; block < blocks; block++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(codes + block * BLOCK_BYTES));
        __m128i high = _mm_srli_epi16(bytes, 4);
        __m256i nibbles = _mm256_set_m128i(_mm_unpackhi_epi8(bytes, high), _mm_unpacklo_epi8(bytes, high));
        __m512i values = _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(nibbles), table);
        uint8_t scale = scales[block];
        __m512i result;
        if (scale > 8 && scale < 250) {
            /* A power of two moves the exponent of all but zero; neither end of the range is near. */
            __mmask32 finite = _mm512_test_epi16_mask(values, _mm512_set1_epi16(0x7FFF));
            result = _mm512_mask_add_epi16(values, finite, values, _mm512_set1_epi16((short)((scale - 127) * 128)));
        } else {
            __m512 factor = _mm512_set1_ps(scale_to_float(scale));
            __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(values)), 16));
            __m512 top =
                _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(values, 1)), 16));
            /* Products of these values by powers of two have at most two significant bits: cutting them is exact. */
            __m256i first = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(_mm512_mul_ps(low, factor)), 16));
            __m256i second = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(_mm512_mul_ps(top, factor)), 16));
            result = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
        }
        _mm512_storeu_si512(out + block * BLOCK, result);
    }
}

const struct kernels kernels_avx512bf16 = {
    "avx512bf16", supported, prepared_bytes, prepare, mxfp4_row, bf16_row, decode, SIZE_MAX,
    {0, 0, NULL, NULL}, {0, 0, NULL, NULL},
};
#endif
