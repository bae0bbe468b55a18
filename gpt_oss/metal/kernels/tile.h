/* Products of 32 x 32 tiles by four simdgroups, for matrix products with many tokens.
 *
 * A threadgroup of 128 threads fills two tiles in threadgroup memory, 32 tokens and 32 rows of the matrix with 32
 * inputs each, and every simdgroup multiplies one quarter of the result, 16 x 16, out of 8 x 8 fragments. Weights are
 * widened to fp32 while a tile is filled, so that all products and sums are fp32. */
#ifndef GPTOSS_METAL_TILE_H
#define GPTOSS_METAL_TILE_H

#include <metal_stdlib>

enum : uint { TILE = 32, TILE_THREADS = 128 };

/* One simdgroup's quarter of the result. */
struct tile_sums {
    metal::simdgroup_float8x8 top_left;
    metal::simdgroup_float8x8 top_right;
    metal::simdgroup_float8x8 bottom_left;
    metal::simdgroup_float8x8 bottom_right;
};

inline void tile_clear(thread tile_sums &sums) {
    sums.top_left = metal::simdgroup_float8x8(0.0f);
    sums.top_right = metal::simdgroup_float8x8(0.0f);
    sums.bottom_left = metal::simdgroup_float8x8(0.0f);
    sums.bottom_right = metal::simdgroup_float8x8(0.0f);
}

/* sums += tokens [32, 32] · rows [32, 32]ᵀ, for the quarter of this simdgroup. */
inline void tile_multiply(thread tile_sums &sums, const threadgroup float *tokens, const threadgroup float *rows,
                          uint simdgroup) {
    tokens += simdgroup / 2 * 16 * TILE;
    rows += simdgroup % 2 * 16 * TILE;
    for (uint k = 0; k < TILE; k += 8) {
        metal::simdgroup_float8x8 top;
        metal::simdgroup_float8x8 bottom;
        metal::simdgroup_float8x8 left;
        metal::simdgroup_float8x8 right;
        metal::simdgroup_load(top, tokens + k, TILE);
        metal::simdgroup_load(bottom, tokens + 8 * TILE + k, TILE);
        metal::simdgroup_load(left, rows + k, TILE, ulong2(0), true);
        metal::simdgroup_load(right, rows + 8 * TILE + k, TILE, ulong2(0), true);
        metal::simdgroup_multiply_accumulate(sums.top_left, top, left, sums.top_left);
        metal::simdgroup_multiply_accumulate(sums.top_right, top, right, sums.top_right);
        metal::simdgroup_multiply_accumulate(sums.bottom_left, bottom, left, sums.bottom_left);
        metal::simdgroup_multiply_accumulate(sums.bottom_right, bottom, right, sums.bottom_right);
    }
}

/* The quarter of this simdgroup into result [32 tokens, 32 rows]. */
inline void tile_store(thread tile_sums &sums, threadgroup float *result, uint simdgroup) {
    result += simdgroup / 2 * 16 * TILE + simdgroup % 2 * 16;
    metal::simdgroup_store(sums.top_left, result, TILE);
    metal::simdgroup_store(sums.top_right, result + 8, TILE);
    metal::simdgroup_store(sums.bottom_left, result + 8 * TILE, TILE);
    metal::simdgroup_store(sums.bottom_right, result + 8 * TILE + 8, TILE);
}

#endif
