/* Both matrices of the chosen experts for many tokens: a tile of an expert's weights serves 32 of its assignments.
 *
 * order, tiles and num_tiles come from experts_group.metal. Results go to the row of their assignment, as in
 * experts_few.metal. */
#include <metal_stdlib>

#include "kernel_args.h"
#include "mxfp4.h"
#include "swiglu.h"
#include "tile.h"

/* A block of 32 inputs of 32 neighbouring rows, widened; each thread unpacks one word. Rows past the last are zero. */
inline void fill_rows(threadgroup float *rows, constant experts_args &args, const device uchar *expert, uint first_row,
                      uint block, uint thread_index) {
    const uint row = first_row + thread_index / 4;
    const uint word = thread_index % 4;
    threadgroup float *target = rows + thread_index / 4 * TILE + word * 8;
    const bool inside = row < args.outputs;
    const ulong source = (inside ? ulong(row) : 0) * (args.inputs / 32) + block;
    const device uint *blocks = reinterpret_cast<const device uint *>(expert + args.blocks_offset);
    const uint codes = blocks[source * 4 + word];
    const float scale = inside ? mxfp4_scale(expert[args.scales_offset + source]) : 0.0f;
    for (uint i = 0; i < 4; i++) {
        const float2 pair = mxfp4_pair(codes, i) * scale;
        target[i] = pair.x;
        target[i + 4] = pair.y;
    }
}

/* A block of 32 inputs of up to 32 assignments, in order; the rest is zero. divisor: assignments per row of input. */
inline void fill_tokens(threadgroup float *tokens, const device float *input, const device uint *order, uint begin,
                        uint end, uint divisor, uint inputs, uint block, uint thread_index) {
    for (uint i = thread_index; i < TILE * TILE; i += TILE_THREADS) {
        const uint place = begin + i / TILE;
        tokens[i] = place < end ? input[ulong(order[place] / divisor) * inputs + block * 32 + i % TILE] : 0.0f;
    }
}

/* output [assignments, outputs / 2]: SwiGLU of the first matrix. A threadgroup computes 32 rows (x) of a tile (y).
 * Threadgroup memory: 3 tiles, 12288 bytes. */
[[max_total_threads_per_threadgroup(128)]]
kernel void experts_mlp1_many(constant experts_args &args [[buffer(0)]],
                              const device float *input [[buffer(1)]],
                              const device uint *order [[buffer(2)]],
                              const device uint *tiles [[buffer(3)]],
                              const device uint *num_tiles [[buffer(4)]],
                              const device uchar *weights [[buffer(5)]],
                              device float *output [[buffer(6)]],
                              uint3 position [[threadgroup_position_in_grid]],
                              uint thread_index [[thread_index_in_threadgroup]],
                              uint simdgroup [[simdgroup_index_in_threadgroup]]) {
    threadgroup float tokens[TILE * TILE];
    threadgroup float rows[TILE * TILE];
    threadgroup float result[TILE * TILE];
    if (position.y >= num_tiles[0]) {
        return;
    }
    const uint begin = tiles[3 * position.y + 1];
    const uint end = tiles[3 * position.y + 2];
    const device uchar *expert = weights + ulong(tiles[3 * position.y]) * args.expert_stride;
    const uint first_row = position.x * TILE;

    tile_sums sums;
    tile_clear(sums);
    for (uint block = 0; block < args.inputs / 32; block++) {
        fill_tokens(tokens, input, order, begin, end, args.num_active, args.inputs, block, thread_index);
        fill_rows(rows, args, expert, first_row, block, thread_index);
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
        tile_multiply(sums, tokens, rows, simdgroup);
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    }
    tile_store(sums, result, simdgroup);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    const device bfloat *bias = reinterpret_cast<const device bfloat *>(expert + args.bias_offset);
    for (uint i = thread_index; i < TILE * TILE / 2; i += TILE_THREADS) {
        const uint place = begin + i / (TILE / 2);
        const uint row = first_row + i % (TILE / 2) * 2;
        if (place < end && row < args.outputs) {
            const float gate = result[2 * i] + float(bias[row]);
            const float linear = result[2 * i + 1] + float(bias[row + 1]);
            output[ulong(order[place]) * (args.outputs / 2) + row / 2] = swiglu(gate, linear, args.swiglu_limit);
        }
    }
}

/* output [assignments, outputs]: the second matrix. A threadgroup computes 32 rows (x) of a tile (y).
 * Threadgroup memory: 3 tiles, 12288 bytes. */
[[max_total_threads_per_threadgroup(128)]]
kernel void experts_mlp2_many(constant experts_args &args [[buffer(0)]],
                              const device float *input [[buffer(1)]],
                              const device uint *order [[buffer(2)]],
                              const device uint *tiles [[buffer(3)]],
                              const device uint *num_tiles [[buffer(4)]],
                              const device uchar *weights [[buffer(5)]],
                              device float *output [[buffer(6)]],
                              uint3 position [[threadgroup_position_in_grid]],
                              uint thread_index [[thread_index_in_threadgroup]],
                              uint simdgroup [[simdgroup_index_in_threadgroup]]) {
    threadgroup float tokens[TILE * TILE];
    threadgroup float rows[TILE * TILE];
    threadgroup float result[TILE * TILE];
    if (position.y >= num_tiles[0]) {
        return;
    }
    const uint begin = tiles[3 * position.y + 1];
    const uint end = tiles[3 * position.y + 2];
    const device uchar *expert = weights + ulong(tiles[3 * position.y]) * args.expert_stride;
    const uint first_row = position.x * TILE;

    tile_sums sums;
    tile_clear(sums);
    for (uint block = 0; block < args.inputs / 32; block++) {
        fill_tokens(tokens, input, order, begin, end, 1, args.inputs, block, thread_index);
        fill_rows(rows, args, expert, first_row, block, thread_index);
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
        tile_multiply(sums, tokens, rows, simdgroup);
        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    }
    tile_store(sums, result, simdgroup);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    const device bfloat *bias = reinterpret_cast<const device bfloat *>(expert + args.bias_offset);
    for (uint i = thread_index; i < TILE * TILE; i += TILE_THREADS) {
        const uint place = begin + i / TILE;
        const uint row = first_row + i % TILE;
        if (place < end && row < args.outputs) {
            output[ulong(order[place]) * args.outputs + row] = result[i] + float(bias[row]);
        }
    }
}
