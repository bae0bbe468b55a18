/* AVX2 with FMA.
 *
 * MXFP4 is multiplied by integers, at twice the speed of floats: a byte shuffle turns codes into twice their values, and
 * each block of an activation becomes 16-bit integers times a power of two. Values within 2^7 of the block's largest
 * keep all their bits; smaller ones err by up to 2^-16 of the largest, which BF16 itself has rounded by up to 2^-9.
 * Sums over a block are exact.
 */
#include "kernels.h"

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

/* A block of activations to 16-bit integers, the even of each sixteen before the odd ones. Returns their factor. */
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
    float factors[2][4], tile_factors[2]; /* for weights that are 2^9 times their values in rows, twice them in tiles */
};

static size_t prepared_bytes(size_t k) { return (k / BLOCK + 1) / 2 * sizeof(struct block_pair); }

TARGET static void prepare(const uint16_t *x, size_t k, void *prepared) {
    memset(prepared, 0, prepared_bytes(k));
    for (size_t block = 0; block < k / BLOCK; block++) {
        struct block_pair *pair = (struct block_pair *)prepared + block / 2;
        __m256i integers[2];
        float factor = block_integers(x + block * BLOCK, integers);
        for (size_t half = 0; half < 2; half++) {
            __m128i even = _mm256_castsi256_si128(integers[half]), odd = _mm256_extracti128_si256(integers[half], 1);
            _mm_storeu_si128((__m128i *)pair->integers[half][block % 2], even);
            _mm_storeu_si128((__m128i *)pair->integers[2 + half][block % 2], odd);
        }
        _mm_storeu_ps(pair->factors[block % 2], _mm_set1_ps(factor * (1.0f / 256)));
        pair->tile_factors[block % 2] = factor;
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

TARGET static inline void dense_for(const uint16_t *row, size_t k, const void *const *x, size_t tokens,
                                    float *sums) {
    __m256 even[MAX_TOKENS], odd[MAX_TOKENS];
    EACH(t, tokens) even[t] = odd[t] = _mm256_setzero_ps();
    for (size_t i = 0; i < k; i += BLOCK) {
        fetch(row + i, AHEAD, BLOCK * sizeof *row);
        for (size_t half = i; half < i + BLOCK; half += 2 * LANES) {
            __m256i w = words_at(row + half);
            EACH(t, tokens) {
                __m256i v = words_at((const uint16_t *)x[t] + half);
                even[t] = _mm256_fmadd_ps(lower(w), lower(v), even[t]);
                odd[t] = _mm256_fmadd_ps(upper(w), upper(v), odd[t]);
            }
        }
    }
    EACH(t, tokens) sums[t] = sum_of(_mm256_add_ps(even[t], odd[t]));
}

TARGET static void bf16_row(const uint16_t *row, size_t k, const void *const *x, size_t tokens, float *sums) {
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

_Static_assert((int)TILE_ROWS == 2 * LANES, "a value of a tile is two registers");

/* Eight 16-bit units of each of 16 rows, which begin `offset` bytes after rows[r]: to registers of one unit of all. In
 * the lower half of a register are rows 0 to 3 and 8 to 11, in the upper half the others, so that unpacking it to twice
 * the width yields rows 0 to 7 and 8 to 15. */
TARGET static inline void transpose(const uint8_t *const *rows, size_t offset, __m256i units[8]) {
    __m256i row[8], pairs[8], fours[2][2][2];
    EACH(r, 8) {
        const uint8_t *const *of = rows + r + r / 4 * 4;
        row[r] = _mm256_set_m128i(_mm_loadu_si128((const __m128i *)(of[4] + offset)),
                                  _mm_loadu_si128((const __m128i *)(of[0] + offset)));
    }
    EACH(r, 4) {
        pairs[2 * r] = _mm256_unpacklo_epi16(row[2 * r], row[2 * r + 1]);
        pairs[2 * r + 1] = _mm256_unpackhi_epi16(row[2 * r], row[2 * r + 1]);
    }
    EACH(four, 2) EACH(half, 2) {
        __m256i first = pairs[4 * four + half], second = pairs[4 * four + half + 2];
        fours[four][half][0] = _mm256_unpacklo_epi32(first, second);
        fours[four][half][1] = _mm256_unpackhi_epi32(first, second);
    }
    EACH(half, 2) EACH(two, 2) {
        units[4 * half + 2 * two] = _mm256_unpacklo_epi64(fours[0][half][two], fours[1][half][two]);
        units[4 * half + 2 * two + 1] = _mm256_unpackhi_epi64(fours[0][half][two], fours[1][half][two]);
    }
}

/* Tiles of integers. A block is PAIRS pairs of doubled codes in the order of `struct block_pair`, each of all rows,
 * then the rows' scales. */
enum { PAIRS = BLOCK / 2, INTEGER_BLOCK = (PAIRS + 1) * TILE_ROWS, INTEGER_BLOCKS = 10 };

TARGET static void widen_mxfp4(const struct matrix *w, size_t first, size_t rows, size_t begin, size_t blocks,
                               float *tile) {
    const __m256i doubled = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)FP4_DOUBLED));
    const __m256i nibble = _mm256_set1_epi8(15);
    const uint8_t *codes[TILE_ROWS], *scales[TILE_ROWS];
    for (size_t r = 0; r < TILE_ROWS; r++) {
        size_t index = tile_row(w, first, rows, begin, r);
        codes[r] = w->codes + index / 2;
        scales[r] = w->scales + index / BLOCK;
        fetch(codes[r], blocks * BLOCK_BYTES, blocks * BLOCK_BYTES);
    }
    for (size_t block = 0; block < blocks; block++, tile += INTEGER_BLOCK) {
        uint8_t bytes[TILE_ROWS];
        __m256i units[8];
        transpose(codes, block * BLOCK_BYTES, units);
        EACH(u, 8) EACH(high, 2) {
            __m256i nibbles = _mm256_and_si256(high ? _mm256_srli_epi16(units[u], 4) : units[u], nibble);
            __m256i integers = _mm256_shuffle_epi8(doubled, nibbles);
            __m256i signs = _mm256_cmpgt_epi8(_mm256_setzero_si256(), integers);
            __m256i *out = (__m256i *)(tile + (8 * high + u) * TILE_ROWS);
            _mm256_storeu_si256(out, _mm256_unpacklo_epi8(integers, signs));
            _mm256_storeu_si256(out + 1, _mm256_unpackhi_epi8(integers, signs));
        }
        for (size_t r = 0; r < TILE_ROWS; r++) bytes[r] = scales[r][block];
        EACH(half, 2) {
            __m256 factors = widen_scales(bytes + half * LANES, LANES);
            _mm256_storeu_ps(tile + PAIRS * TILE_ROWS + half * LANES, factors);
        }
    }
}

/* sums[h] += products of neighbouring 16-bit integers of rows[h] and `pair`, added in pairs. In intrinsics GCC would
 * regroup a block's sums to trees, and run out of registers. */
TARGET static inline void add_products(__m256i sums[2], const __m256i rows[2], __m256i pair) {
    __m256i products;
    __asm__("vpmaddwd %4, %2, %3\n\tvpmaddwd %5, %2, %2\n\tvpaddd %3, %0, %0\n\tvpaddd %2, %1, %1"
            : "+x"(sums[0]), "+x"(sums[1]), "+x"(pair), "=&x"(products)
            : "x"(rows[0]), "x"(rows[1]));
}

TARGET static inline void multiply_integers_by(const float *tile, size_t blocks, const void *const *x, size_t offset,
                                               size_t tokens, float *sums) {
    for (size_t block = 0; block < blocks; block++, tile += INTEGER_BLOCK) {
        const size_t odd = block % 2;
        const struct block_pair *v[TILE_TOKENS];
        __m256i parts[TILE_TOKENS][2];
        EACH(t, tokens) {
            v[t] = (const struct block_pair *)((const char *)x[t] + offset) + block / 2;
            EACH(h, 2) parts[t][h] = _mm256_setzero_si256();
        }
        for (size_t quarter = 0; quarter < 4; quarter++)
            EACH(i, PAIRS / 4) {
                const __m256i *values = (const __m256i *)(tile + (quarter * (PAIRS / 4) + i) * TILE_ROWS);
                const __m256i rows[2] = {_mm256_loadu_si256(values), _mm256_loadu_si256(values + 1)};
                EACH(t, tokens) {
                    const float *pair = (const float *)v[t]->integers[quarter][odd] + i;
                    add_products(parts[t], rows, _mm256_castps_si256(_mm256_broadcast_ss(pair)));
                }
            }
        EACH(t, tokens) {
            __m256 factor = _mm256_broadcast_ss(v[t]->tile_factors + odd);
            EACH(h, 2) {
                __m256 part = _mm256_mul_ps(_mm256_cvtepi32_ps(parts[t][h]), factor);
                __m256 scale = _mm256_loadu_ps(tile + PAIRS * TILE_ROWS + h * LANES);
                float *sum = sums + t * GROUP_ROWS + h * LANES;
                _mm256_storeu_ps(sum, _mm256_fmadd_ps(part, scale, _mm256_loadu_ps(sum)));
            }
        }
    }
}

TARGET static void multiply_integers(const float *tile, size_t blocks, const void *const *x, size_t offset,
                                     size_t tokens, float *sums) {
    switch (tokens) {
    case 1: multiply_integers_by(tile, blocks, x, offset, 1, sums); break;
    case 2: multiply_integers_by(tile, blocks, x, offset, 2, sums); break;
    case 3: multiply_integers_by(tile, blocks, x, offset, 3, sums); break;
    case 4: multiply_integers_by(tile, blocks, x, offset, 4, sums); break;
    case 5: multiply_integers_by(tile, blocks, x, offset, 5, sums); break;
    default: multiply_integers_by(tile, blocks, x, offset, 6, sums);
    }
}

TARGET static void widen_bf16(const struct matrix *w, size_t first, size_t rows, size_t begin, size_t blocks,
                              float *tile) {
    const uint8_t *values[TILE_ROWS];
    for (size_t r = 0; r < TILE_ROWS; r++) {
        values[r] = (const uint8_t *)(w->values + tile_row(w, first, rows, begin, r));
        fetch(values[r], blocks * BLOCK * sizeof *w->values, blocks * BLOCK * sizeof *w->values);
    }
    for (size_t i = 0; i < blocks * BLOCK; i += 8) {
        __m256i units[8];
        transpose(values, i * sizeof *w->values, units);
        EACH(u, 8) {
            float *out = tile + (i + u) * TILE_ROWS;
            _mm256_storeu_ps(out, _mm256_castsi256_ps(_mm256_unpacklo_epi16(_mm256_setzero_si256(), units[u])));
            _mm256_storeu_ps(out + LANES, _mm256_castsi256_ps(_mm256_unpackhi_epi16(_mm256_setzero_si256(), units[u])));
        }
    }
}

TARGET static inline void multiply_floats_by(const float *tile, size_t k, const void *const *x, size_t offset,
                                             size_t tokens, float *sums) {
    __m256 totals[TILE_TOKENS][2];
    const float *values[TILE_TOKENS];
    EACH(t, tokens) {
        values[t] = (const float *)((const char *)x[t] + offset);
        EACH(h, 2) totals[t][h] = _mm256_loadu_ps(sums + t * GROUP_ROWS + h * LANES);
    }
    for (size_t i = 0; i < k; i++) {
        __m256 first = _mm256_loadu_ps(tile + i * TILE_ROWS), second = _mm256_loadu_ps(tile + i * TILE_ROWS + LANES);
        EACH(t, tokens) {
            __m256 value = _mm256_broadcast_ss(values[t] + i);
            totals[t][0] = _mm256_fmadd_ps(first, value, totals[t][0]);
            totals[t][1] = _mm256_fmadd_ps(second, value, totals[t][1]);
        }
    }
    EACH(t, tokens) EACH(h, 2) _mm256_storeu_ps(sums + t * GROUP_ROWS + h * LANES, totals[t][h]);
}

TARGET static void multiply_floats(const float *tile, size_t blocks, const void *const *x, size_t offset, size_t tokens,
                                   float *sums) {
    const size_t k = blocks * BLOCK;
    switch (tokens) {
    case 1: multiply_floats_by(tile, k, x, offset, 1, sums); break;
    case 2: multiply_floats_by(tile, k, x, offset, 2, sums); break;
    case 3: multiply_floats_by(tile, k, x, offset, 3, sums); break;
    case 4: multiply_floats_by(tile, k, x, offset, 4, sums); break;
    case 5: multiply_floats_by(tile, k, x, offset, 5, sums); break;
    default: multiply_floats_by(tile, k, x, offset, 6, sums);
    }
}

const struct kernels kernels_avx2 = {
    "avx2", supported, prepared_bytes, prepare, mxfp4_row, bf16_row, decode, 8,
    {INTEGER_BLOCK, INTEGER_BLOCKS, widen_mxfp4, multiply_integers},
    {FLOAT_BLOCK, FLOAT_BLOCKS, widen_bf16, multiply_floats},
};
#endif
