/* AVX2 with FMA.
 *
 * MXFP4 is multiplied by integers, at twice the speed of floats: a byte shuffle turns codes into twice their values, and
 * each block of an activation becomes 16-bit integers times a power of two. Values within 2^7 of the block's largest
 * keep all their bits; smaller ones err by up to 2^-16 of the largest, which BF16 itself has rounded by up to 2^-9.
 * Sums over a block are exact.
 */
#include "kernels.h"
#include "panels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))

enum { LANES = 8 };

/* Over registers: unless GCC unrolls such a loop early, it keeps the array in memory as well. */
#define EACH(i, count) _Pragma("GCC unroll 12") for (size_t i = 0; i < (count); i++)

static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

/* How far ahead of a row its weights are asked for: the processor reads ahead by itself, but stops at the ends of pages
 * of 4 KB, which are shorter than a row. */
enum { AHEAD = 1536 };

TARGET static inline float sum_of(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}

TARGET static inline __m256i words_at(const uint16_t *values) { return _mm256_loadu_si256((const __m256i *)values); }

/* The floats whose BF16 patterns are the lower and the upper halves of eight 32-bit words. */
TARGET static inline __m256 lower(__m256i words) { return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)); }

TARGET static inline __m256 upper(__m256i words) {
    return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32((int)0xFFFF0000)));
}

TARGET static inline float float_of_bits(uint32_t bits) {
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((int)bits)));
}

/* A block of activations to 16-bit integers, the even ones of each sixteen before the odd ones. Returns their factor. */
TARGET static inline float block_integers(const uint16_t *x, __m256i integers[2]) {
    const __m256i magnitude = _mm256_set1_epi16(0x7FFF);
    __m256i larger = _mm256_max_epu16(_mm256_and_si256(words_at(x), magnitude), /* */
                                      _mm256_and_si256(words_at(x + 16), magnitude));
    __m128i eight = _mm_max_epu16(_mm256_castsi256_si128(larger), _mm256_extracti128_si256(larger, 1));
    /* There is an instruction for the least of eight only. */
    eight = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(0x7FFF)));
    uint32_t largest = ((uint32_t)_mm_cvtsi128_si32(eight) & 0x7FFF) ^ 0x7FFF;
    /* Values are below 2^(exponent - 126). The floor keeps both powers of two within the range of floats. */
    uint32_t exponent = largest >> 7 > 26 ? largest >> 7 : 26;
    __m256 up = _mm256_set1_ps(float_of_bits((268 - exponent) << 23));
    for (size_t half = 0; half < 2; half++) {
        __m256i words = words_at(x + 16 * half);
        __m256i even = _mm256_cvtps_epi32(_mm256_mul_ps(lower(words), up));
        __m256i odd = _mm256_cvtps_epi32(_mm256_mul_ps(upper(words), up));
        integers[half] = _mm256_permute4x64_epi64(_mm256_packs_epi32(even, odd), 0xD8);
    }
    /* Half the inverse, because codes are doubled. An infinity or a NaN makes every product with its block NaN. */
    return exponent == 255 ? NAN : float_of_bits((exponent - 15) << 23);
}

/* Prepared activations of two blocks. Their weights are decoded in one register, a block in each half of it, and so lie
 * the integers: those of the low nibbles of bytes 0 to 7, of bytes 8 to 15, then of the high nibbles. */
struct block_pair {
    int16_t integers[4][2][8];
    float factors[2][4];
};

static size_t prepared_bytes(size_t k) { return (k / BLOCK + 1) / 2 * sizeof(struct block_pair); }

TARGET static void prepare(const uint16_t *x, size_t k, void *prepared) {
    memset(prepared, 0, prepared_bytes(k));
    for (size_t block = 0; block < k / BLOCK; block++) {
        struct block_pair *pair = (struct block_pair *)prepared + block / 2;
        __m256i integers[2];
        float factor = block_integers(x + block * BLOCK, integers) * (1.0f / 256); /* for `pair_codes` */
        for (size_t half = 0; half < 2; half++) {
            __m128i even = _mm256_castsi256_si128(integers[half]), odd = _mm256_extracti128_si256(integers[half], 1);
            _mm_storeu_si128((__m128i *)pair->integers[half][block % 2], even);
            _mm_storeu_si128((__m128i *)pair->integers[2 + half][block % 2], odd);
        }
        _mm_storeu_ps(pair->factors[block % 2], _mm_set1_ps(factor));
    }
}

/* The codes of two blocks, or of one and zeros, in the order of `struct block_pair`: 2^9 times their values. */
TARGET static inline void pair_codes(const uint8_t *codes, size_t blocks, __m256i integers[4]) {
    const __m256i doubled = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)FP4_DOUBLED));
    const __m256i nibble = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    __m256i bytes = blocks == 2 ? _mm256_loadu_si256((const __m256i *)codes)
                                : _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)codes));
    __m256i low = _mm256_shuffle_epi8(doubled, _mm256_and_si256(bytes, nibble));
    __m256i high = _mm256_shuffle_epi8(doubled, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
    integers[0] = _mm256_unpacklo_epi8(zero, low);
    integers[1] = _mm256_unpackhi_epi8(zero, low);
    integers[2] = _mm256_unpacklo_epi8(zero, high);
    integers[3] = _mm256_unpackhi_epi8(zero, high);
}

/* Up to eight scale bytes to floats; see scale_to_float. One by one they would cost as much as their blocks. */
TARGET static inline __m256 widen_scales(const uint8_t *scales, size_t count) {
    uint8_t bytes[LANES] = {0};
    memcpy(bytes, scales, count);
    __m256i exponents = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
    __m256i bits = _mm256_max_epu32(_mm256_slli_epi32(exponents, 23), _mm256_set1_epi32(0x00400000));
    __m256i nan = _mm256_cmpeq_epi32(exponents, _mm256_set1_epi32(255));
    return _mm256_castsi256_ps(_mm256_blendv_epi8(bits, _mm256_set1_epi32(0x7FC00000), nan));
}

TARGET static inline __m256i integers_at(const int16_t (*integers)[8]) {
    return _mm256_loadu_si256((const __m256i *)integers);
}

/* Up to LANES blocks of a row times the same of each token. A sum waits four cycles for the one before it: two take
 * turns. */
TARGET static inline void add_blocks(const uint8_t *codes, const uint8_t *scales, size_t blocks,
                                     const struct block_pair *const *x, size_t tokens, __m256 totals[MAX_TOKENS][2]) {
    const __m256i spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    __m256 scale = widen_scales(scales, blocks);
    EACH(p, (blocks + 1) / 2) {
        __m256i w[4];
        pair_codes(codes + 2 * p * BLOCK_BYTES, blocks - 2 * p > 1 ? 2 : 1, w);
        __m256 factor = _mm256_permutevar8x32_ps(scale, _mm256_add_epi32(spread, _mm256_set1_epi32((int)(2 * p))));
        EACH(t, tokens) {
            const struct block_pair *pair = x[t] + p;
            __m256i sum = _mm256_add_epi32(_mm256_add_epi32(_mm256_madd_epi16(w[0], integers_at(pair->integers[0])),
                                                            _mm256_madd_epi16(w[1], integers_at(pair->integers[1]))),
                                           _mm256_add_epi32(_mm256_madd_epi16(w[2], integers_at(pair->integers[2])),
                                                            _mm256_madd_epi16(w[3], integers_at(pair->integers[3]))));
            __m256 part = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps((const float *)pair->factors));
            totals[t][p % 2] = _mm256_fmadd_ps(part, factor, totals[t][p % 2]);
        }
    }
}

TARGET static inline void row_for(const uint8_t *codes, const uint8_t *scales, size_t k, const void *const *prepared,
                                  size_t tokens, float *sums) {
    __m256 totals[MAX_TOKENS][2];
    const struct block_pair *x[MAX_TOKENS];
    EACH(t, tokens) {
        totals[t][0] = totals[t][1] = _mm256_setzero_ps();
        x[t] = prepared[t];
    }
    size_t left = k / BLOCK;
    for (; left >= LANES; left -= LANES) {
        fetch(codes, AHEAD, LANES * BLOCK_BYTES);
        fetch(scales, AHEAD, LANES);
        add_blocks(codes, scales, LANES, x, tokens, totals);
        codes += LANES * BLOCK_BYTES;
        scales += LANES;
        EACH(t, tokens) x[t] += LANES / 2;
    }
    /* Constant numbers of blocks, as in mxfp4_row. */
    EACH(step, 3) {
        const size_t blocks = LANES / 2 >> step;
        if (!(left & blocks)) continue;
        add_blocks(codes, scales, blocks, x, tokens, totals);
        codes += blocks * BLOCK_BYTES;
        scales += blocks;
        EACH(t, tokens) x[t] += blocks / 2;
    }
    EACH(t, tokens) sums[t] = sum_of(_mm256_add_ps(totals[t][0], totals[t][1]));
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

TARGET static inline void dense_for(const uint16_t *row, size_t k, const uint16_t *const *x, size_t tokens,
                                    float *sums) {
    __m256 even[MAX_TOKENS], odd[MAX_TOKENS];
    EACH(t, tokens) even[t] = odd[t] = _mm256_setzero_ps();
    for (size_t i = 0; i < k; i += BLOCK) {
        fetch(row + i, AHEAD, BLOCK * sizeof *row);
        for (size_t half = i; half < i + BLOCK; half += 2 * LANES) {
            __m256i w = words_at(row + half);
            EACH(t, tokens) {
                __m256i v = words_at(x[t] + half);
                even[t] = _mm256_fmadd_ps(lower(w), lower(v), even[t]);
                odd[t] = _mm256_fmadd_ps(upper(w), upper(v), odd[t]);
            }
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

/* Tiles of integers. A row of weights is PANEL_K integers, in PANEL_K / 2 floats, then a factor for each block. A block
 * of a panel is BLOCK / 2 neighbouring pairs of values, each for all tokens, then all tokens' factors. */
enum { PAIRS = BLOCK / 2, INTEGER_BLOCK = (PAIRS + 1) * TILE_TOKENS };

/* The weights in the order of `block_integers`. */
TARGET static void widen_mxfp4(const uint8_t *codes, const uint8_t *scales, size_t blocks, float *row) {
    const __m256i shifts = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4), zero = _mm256_setzero_si256();
    const __m256i doubled = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)FP4_DOUBLED));
    for (size_t block = 0; block < blocks; block++) {
        __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(codes + block * BLOCK_BYTES)));
        bytes = _mm256_and_si256(_mm256_srlv_epi32(bytes, shifts), _mm256_set1_epi8(15));
        bytes = _mm256_shuffle_epi8(doubled, bytes);
        __m256i first = _mm256_srai_epi16(_mm256_unpacklo_epi8(zero, bytes), 8);
        __m256i second = _mm256_srai_epi16(_mm256_unpackhi_epi8(zero, bytes), 8);
        _mm256_storeu_si256((__m256i *)row + 2 * block, first);
        _mm256_storeu_si256((__m256i *)row + 2 * block + 1, second);
        row[PANEL_K / 2 + block] = scale_to_float(scales[block]);
    }
}

TARGET static void fill_integer_panel(const uint16_t *const *x, size_t tokens, size_t k, float *panel) {
    memset(panel, 0, k / BLOCK * INTEGER_BLOCK * sizeof *panel);
    for (size_t block = 0; block < k / BLOCK; block++, panel += INTEGER_BLOCK)
        for (size_t t = 0; t < tokens; t++) {
            __m256i integers[2];
            float pairs[PAIRS];
            panel[PAIRS * TILE_TOKENS + t] = block_integers(x[t] + block * BLOCK, integers);
            memcpy(pairs, integers, sizeof pairs);
            for (size_t i = 0; i < PAIRS; i++) panel[i * TILE_TOKENS + t] = pairs[i];
        }
}

/* Some rows of a tile and LANES times `columns` of its tokens: the sums of a block, as integers and as floats, must fit
 * the registers. */
TARGET static inline void multiply_part(const float *w, const float *x, size_t k, float *sums, size_t rows,
                                        size_t columns) {
    __m256 totals[TILE_ROWS][2];
    EACH(r, rows) EACH(c, columns) totals[r][c] = _mm256_loadu_ps(sums + r * SUMS_STRIDE + c * LANES);
    for (size_t block = 0; block < k / BLOCK; block++, x += INTEGER_BLOCK) {
        __m256i parts[TILE_ROWS][2];
        EACH(r, rows) EACH(c, columns) parts[r][c] = _mm256_setzero_si256();
        /* Rolled up, GCC spends a copy on every sum; unrolled altogether, it runs out of registers. */
        _Pragma("GCC unroll 8") for (size_t i = 0; i < PAIRS; i++) {
            __m256i pairs[2];
            EACH(c, columns) pairs[c] = _mm256_loadu_si256((const __m256i *)(x + i * TILE_TOKENS + c * LANES));
            EACH(r, rows) {
                __m256i pair = _mm256_castps_si256(_mm256_broadcast_ss(w + r * PANEL_K + block * PAIRS + i));
                EACH(c, columns) parts[r][c] = _mm256_add_epi32(parts[r][c], _mm256_madd_epi16(pair, pairs[c]));
            }
        }
        EACH(r, rows) {
            __m256 factor = _mm256_broadcast_ss(w + r * PANEL_K + PANEL_K / 2 + block);
            EACH(c, columns) {
                __m256 x_factors = _mm256_loadu_ps(x + PAIRS * TILE_TOKENS + c * LANES);
                __m256 part = _mm256_mul_ps(_mm256_cvtepi32_ps(parts[r][c]), x_factors);
                totals[r][c] = _mm256_fmadd_ps(part, factor, totals[r][c]);
            }
        }
    }
    EACH(r, rows) EACH(c, columns) _mm256_storeu_ps(sums + r * SUMS_STRIDE + c * LANES, totals[r][c]);
}

TARGET static void multiply_integers(const float *w, const float *x, size_t k, size_t tokens, float *sums) {
    if (tokens <= LANES) {
        multiply_part(w, x, k, sums, TILE_ROWS, 1);
        return;
    }
    for (size_t row = 0; row < TILE_ROWS; row += TILE_ROWS / 2)
        multiply_part(w + row * PANEL_K, x, k, sums + row * SUMS_STRIDE, TILE_ROWS / 2, 2);
}

TARGET static void widen_bf16(const uint16_t *values, size_t n, float *out) {
    for (size_t i = 0; i < n; i += LANES) {
        __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(values + i)));
        _mm256_storeu_ps(out + i, lower(words));
    }
}

_Static_assert((int)TILE_TOKENS == 2 * LANES, "a row of a tile is two registers");

TARGET static void multiply_floats(const float *w, const float *x, size_t k, size_t tokens, float *sums) {
    (void)tokens;
    __m256 left[TILE_ROWS], right[TILE_ROWS];
    EACH(r, TILE_ROWS) {
        left[r] = _mm256_loadu_ps(sums + r * SUMS_STRIDE);
        right[r] = _mm256_loadu_ps(sums + r * SUMS_STRIDE + LANES);
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
        _mm256_storeu_ps(sums + r * SUMS_STRIDE, left[r]);
        _mm256_storeu_ps(sums + r * SUMS_STRIDE + LANES, right[r]);
    }
}

const struct kernels kernels_avx2 = {
    "avx2", supported, prepared_bytes, prepare, mxfp4_row, bf16_row, decode, 8, widen_mxfp4, widen_bf16,
    {INTEGER_BLOCK, fill_integer_panel, multiply_integers}, {FLOAT_BLOCK, fill_float_panel, multiply_floats},
};
#endif
