/* Math, common, integer and relational functions (MSL 6.2-6.5). Overloads take concrete types, so that calls which mix
 * types are ambiguous here as they are in MSL. */
#pragma once

#include "msl_vector.hpp"

namespace metal {

inline float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
inline float4 fma(float4 a, float4 b, float4 c) {
    return {::fmaf(a.x, b.x, c.x), ::fmaf(a.y, b.y, c.y), ::fmaf(a.z, b.z, c.z), ::fmaf(a.w, b.w, c.w)};
}

inline float dot(float2 a, float2 b) { return ::fmaf(a.y, b.y, a.x * b.x); }
inline float dot(float4 a, float4 b) { return ::fmaf(a.w, b.w, ::fmaf(a.z, b.z, ::fmaf(a.y, b.y, a.x * b.x))); }

inline float max(float a, float b) { return ::fmaxf(a, b); }
inline int max(int a, int b) { return a > b ? a : b; }
inline uint max(uint a, uint b) { return a > b ? a : b; }
inline float min(float a, float b) { return ::fminf(a, b); }
inline int min(int a, int b) { return a < b ? a : b; }
inline uint min(uint a, uint b) { return a < b ? a : b; }
inline float clamp(float x, float low, float high) { return min(max(x, low), high); }
inline uint clamp(uint x, uint low, uint high) { return min(max(x, low), high); }
inline float ceil(float x) { return ::ceilf(x); }

inline bool isnan(float x) { return x != x; }
inline bool isfinite(float x) { return (as_type<uint>(x) & 0x7F800000u) != 0x7F800000u; }

/* The kernels are compiled with safe math, so metal:: and metal::precise:: are the same; both are spelled out. */
namespace precise {
inline float exp(float x) { return ::expf(x); }
inline float rsqrt(float x) { return 1.0f / ::sqrtf(x); }
}  // namespace precise

}  // namespace metal
