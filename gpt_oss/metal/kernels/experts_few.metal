/* Both matrices of the chosen experts for few tokens: a threadgroup works for one token and one of its experts. */
#include <metal_stdlib>

#include "kernel_args.h"
#include "mxfp4.h"
#include "swiglu.h"

/* Four neighbouring rows of an expert's matrix times a vector, in every lane; rows past the last repeat it. */
inline float4 four_rows(constant experts_args &args, const device uchar *expert, const device float4 *input, uint first,
                        uint lane) {
    const uint words = args.inputs / 8;
    const uint last = args.outputs - 1;
    const uint4 rows =
        uint4(first, metal::min(first + 1, last), metal::min(first + 2, last), metal::min(first + 3, last));
    const device uint *blocks = reinterpret_cast<const device uint *>(expert + args.blocks_offset);
    const device uchar *scales = expert + args.scales_offset;
    float4 sums = float4(0.0f);
    for (uint i = lane; i < words; i += 32) {
        const float4 low = input[2 * i];
        const float4 high = input[2 * i + 1];
        const uint4 block = rows * words + i;
        const uint4 scale = block / 4u;
        sums += float4(mxfp4_dot(blocks[block.x], scales[scale.x], low, high),
                       mxfp4_dot(blocks[block.y], scales[scale.y], low, high),
                       mxfp4_dot(blocks[block.z], scales[scale.z], low, high),
                       mxfp4_dot(blocks[block.w], scales[scale.w], low, high));
    }
    sums = metal::simd_sum(sums);
    const device bfloat *bias = reinterpret_cast<const device bfloat *>(expert + args.bias_offset);
    return sums + float4(float(bias[rows.x]), float(bias[rows.y]), float(bias[rows.z]), float(bias[rows.w]));
}

/* output [assignments, outputs / 2]: SwiGLU of the first matrix. A simdgroup computes four rows, two activations (x);
 * y is the assignment, token · num_active + choice. No threadgroup memory. */
[[max_total_threads_per_threadgroup(256)]]
kernel void experts_mlp1_few(constant experts_args &args [[buffer(0)]],
                             const device float4 *input [[buffer(1)]],
                             const device uint *chosen [[buffer(2)]],
                             const device uchar *weights [[buffer(3)]],
                             device float *output [[buffer(4)]],
                             uint3 position [[threadgroup_position_in_grid]],
                             uint lane [[thread_index_in_simdgroup]],
                             uint simdgroup [[simdgroup_index_in_threadgroup]],
                             uint simdgroups [[simdgroups_per_threadgroup]]) {
    const uint first = (position.x * simdgroups + simdgroup) * 4;
    const uint assignment = position.y;
    if (first >= args.outputs || assignment >= args.num_tokens * args.num_active) {
        return;
    }
    const uint expert = chosen[assignment];
    if (expert >= args.num_experts) {
        return;
    }
    const ulong token = assignment / args.num_active;
    const float4 sums = four_rows(args, weights + ulong(expert) * args.expert_stride,
                                  input + token * (args.inputs / 4), first, lane);
    const uint unit = first / 2 + lane;
    if (lane < 2 && unit < args.outputs / 2) {
        const float gate = lane == 0 ? sums.x : sums.z;
        const float linear = lane == 0 ? sums.y : sums.w;
        output[ulong(assignment) * (args.outputs / 2) + unit] = swiglu(gate, linear, args.swiglu_limit);
    }
}

/* output [assignments, outputs]: the second matrix. A simdgroup computes four rows (x); y is the assignment.
 * No threadgroup memory. */
[[max_total_threads_per_threadgroup(256)]]
kernel void experts_mlp2_few(constant experts_args &args [[buffer(0)]],
                             const device float4 *input [[buffer(1)]],
                             const device uint *chosen [[buffer(2)]],
                             const device uchar *weights [[buffer(3)]],
                             device float *output [[buffer(4)]],
                             uint3 position [[threadgroup_position_in_grid]],
                             uint lane [[thread_index_in_simdgroup]],
                             uint simdgroup [[simdgroup_index_in_threadgroup]],
                             uint simdgroups [[simdgroups_per_threadgroup]]) {
    const uint first = (position.x * simdgroups + simdgroup) * 4;
    const uint assignment = position.y;
    if (first >= args.outputs || assignment >= args.num_tokens * args.num_active) {
        return;
    }
    const uint expert = chosen[assignment];
    if (expert >= args.num_experts) {
        return;
    }
    const float4 sums = four_rows(args, weights + ulong(expert) * args.expert_stride,
                                  input + ulong(assignment) * (args.inputs / 4), first, lane);
    const uint row = first + lane;
    if (lane < 4 && row < args.outputs) {
        output[ulong(assignment) * args.outputs + row] =
            lane == 0 ? sums.x : lane == 1 ? sums.y : lane == 2 ? sums.z : sums.w;
    }
}
