/* Eight MXFP4 values: a word of four bytes, two codes per byte, low nibble first.
 *
 * A code is sign, two bits of exponent and one of fraction. The same bits at the top of a half's exponent and fraction
 * make the value times 2^-14, subnormal codes included, which is why the model file stores scale bytes 14 larger than
 * the OCP format does: their power of two makes up for it. */
#ifndef GPTOSS_METAL_MXFP4_H
#define GPTOSS_METAL_MXFP4_H

#include <metal_stdlib>

/* Values i and i + 4 of the word, times 2^-14. */
inline float2 mxfp4_pair(uint word, uint i) {
    const uint codes = word >> (4 * i);
    return float2(as_type<half2>((codes & 0x00070007u) << 9 | (codes & 0x00080008u) << 12));
}

/* The power of two of a stored scale byte, times 2^14. */
inline float mxfp4_scale(uchar stored) {
    return as_type<float>(uint(stored) << 23);
}

/* Sum of the word's values times inputs 0-3 (low) and 4-7 (high), scaled. */
inline float mxfp4_dot(uint word, uchar scale, float4 low, float4 high) {
    const float2 a = mxfp4_pair(word, 0);
    const float2 b = mxfp4_pair(word, 1);
    const float2 c = mxfp4_pair(word, 2);
    const float2 d = mxfp4_pair(word, 3);
    return (metal::dot(float4(a.x, b.x, c.x, d.x), low) + metal::dot(float4(a.y, b.y, c.y, d.y), high)) *
           mxfp4_scale(scale);
}

#endif
