/* SIMD-group functions, barriers (MSL 6.9) and simdgroup matrices (MSL 2.4, 6.7) over the executor's collectives.
 *
 * The last two arguments are the caller's place in the source, filled in by the compiler. */
#pragma once

#include "executor.hpp"
#include "msl_vector.hpp"

#define EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace metal {

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_device_and_threadgroup = 3 };

inline void threadgroup_barrier(mem_flags, EMU_HERE) { emu::threadgroup_barrier({"threadgroup_barrier", file, line}); }

inline bool simd_is_first(EMU_HERE) { return emu::simd_is_first({"simd_is_first", file, line}); }

namespace detail {

template <class T>
inline T &slot(char *slots, int lane) {
    return *reinterpret_cast<T *>(slots + lane * emu::kSlotBytes);
}
template <class T>
inline const T &slot(const char *slots, int lane) {
    return *reinterpret_cast<const T *>(slots + lane * emu::kSlotBytes);
}

/* Results for all lanes from the operands of all lanes, once per simdgroup. */
template <class T>
inline T gather(const emu::Site &site, const T &operand, void (*combine)(const char *, char *)) {
    return *static_cast<const T *>(emu::collective(site, &operand, sizeof(T), combine));
}

/* A tree, as on a GPU: lanes 16 apart first. MSL leaves the order open. */
template <class T, T (*F)(const T &, const T &)>
inline void reduce(const char *operands, char *results) {
    T values[32];
    for (int l = 0; l < 32; l++) values[l] = slot<T>(operands, l);
    for (int distance = 16; distance; distance /= 2) {
        for (int l = 0; l < distance; l++) values[l] = F(values[l], values[l + distance]);
    }
    for (int l = 0; l < 32; l++) slot<T>(results, l) = values[0];
}

template <class T>
inline T add(const T &a, const T &b) {
    return a + b;
}
template <class T>
inline T larger(const T &a, const T &b) {
    return a > b ? a : b;
}
template <class T>
inline T smaller(const T &a, const T &b) {
    return a < b ? a : b;
}
inline float larger_number(const float &a, const float &b) { return ::fmaxf(a, b); }
inline float smaller_number(const float &a, const float &b) { return ::fminf(a, b); }

template <class T>
inline void prefix_inclusive(const char *operands, char *results) {
    T sum = T(0);
    for (int l = 0; l < 32; l++) slot<T>(results, l) = sum = sum + slot<T>(operands, l);
}

template <class T>
struct Shuffle {
    T value;
    ushort source;
};
template <class T>
inline void shuffle(const char *operands, char *results) {
    for (int l = 0; l < 32; l++) {
        int source = slot<Shuffle<T>>(operands, l).source;
        /* MSL: undefined outside the simdgroup; here all bits set, so that a float is NaN */
        Shuffle<T> poison;
        std::memset(static_cast<void *>(&poison), 0xFF, sizeof(poison));
        slot<Shuffle<T>>(results, l) = source < 32 ? slot<Shuffle<T>>(operands, source) : poison;
    }
}

inline void nothing(const char *, char *) {}

}  // namespace detail

inline void simdgroup_barrier(mem_flags, EMU_HERE) {
    detail::gather<int>({"simdgroup_barrier", file, line}, 0, detail::nothing);
}

#define EMU_SUM(T)                                                                                                   \
    inline T simd_sum(T x, EMU_HERE) { return detail::gather<T>({"simd_sum", file, line}, x, detail::reduce<T, detail::add<T>>); }
EMU_SUM(float)
EMU_SUM(float2)
EMU_SUM(float4)
EMU_SUM(int)
EMU_SUM(uint)
#undef EMU_SUM

inline float simd_max(float x, EMU_HERE) {
    return detail::gather<float>({"simd_max", file, line}, x, detail::reduce<float, detail::larger_number>);
}
inline uint simd_max(uint x, EMU_HERE) {
    return detail::gather<uint>({"simd_max", file, line}, x, detail::reduce<uint, detail::larger<uint>>);
}
inline float simd_min(float x, EMU_HERE) {
    return detail::gather<float>({"simd_min", file, line}, x, detail::reduce<float, detail::smaller_number>);
}
inline uint simd_min(uint x, EMU_HERE) {
    return detail::gather<uint>({"simd_min", file, line}, x, detail::reduce<uint, detail::smaller<uint>>);
}

#define EMU_LANES(T)                                                                                            \
    inline T simd_prefix_inclusive_sum(T x, EMU_HERE) {                                                         \
        return detail::gather<T>({"simd_prefix_inclusive_sum", file, line}, x, detail::prefix_inclusive<T>);    \
    }                                                                                                           \
    inline T simd_shuffle(T x, ushort lane, EMU_HERE) {                                                         \
        return detail::gather<detail::Shuffle<T>>({"simd_shuffle", file, line}, {x, lane}, detail::shuffle<T>)  \
            .value;                                                                                             \
    }                                                                                                           \
    inline T simd_broadcast(T x, ushort lane, EMU_HERE) {                                                       \
        return detail::gather<detail::Shuffle<T>>({"simd_broadcast", file, line}, {x, lane}, detail::shuffle<T>) \
            .value;                                                                                             \
    }                                                                                                           \
    inline T simd_shuffle_xor(T x, ushort mask, EMU_HERE) {                                                     \
        ushort lane = ushort(emu::thread_index() % 32 ^ mask);                                                  \
        return detail::gather<detail::Shuffle<T>>({"simd_shuffle_xor", file, line}, {x, lane},                  \
                                                  detail::shuffle<T>)                                           \
            .value;                                                                                             \
    }
EMU_LANES(float)
EMU_LANES(uint)
#undef EMU_LANES

/* ---- 8x8 matrices spread over a simdgroup: two neighbouring elements per lane ---- */

struct simdgroup_float8x8 {
    float elements[2]; /* row lane / 4, columns 2 (lane % 4) and the next; MSL leaves the mapping open */
    simdgroup_float8x8() = default;
    explicit simdgroup_float8x8(float diagonal) {
        uint lane = emu::thread_index() % 32;
        for (uint i = 0; i < 2; i++) elements[i] = lane / 4 == 2 * (lane % 4) + i ? diagonal : 0.0f;
    }
};

/* Loads and stores exchange nothing between lanes, so they do not wait; a multiplication does. */
inline void simdgroup_load(simdgroup_float8x8 &m, const float *source, ulong stride = 8, ulong2 origin = 0,
                           bool transpose = false) {
    source += origin.y * stride + origin.x;
    uint lane = emu::thread_index() % 32;
    for (uint i = 0; i < 2; i++) {
        ulong row = lane / 4, column = 2 * (lane % 4) + i;
        m.elements[i] = transpose ? source[column * stride + row] : source[row * stride + column];
    }
}

inline void simdgroup_store(const simdgroup_float8x8 &m, float *target, ulong stride = 8) {
    uint lane = emu::thread_index() % 32;
    for (uint i = 0; i < 2; i++) target[lane / 4 * stride + 2 * (lane % 4) + i] = m.elements[i];
}

namespace detail {
struct Product {
    float a[2], b[2], c[2];
};
inline void multiply(const char *operands, char *results) {
    float a[8][8], b[8][8], c[8][8];
    for (int l = 0; l < 32; l++) {
        const Product &p = slot<Product>(operands, l);
        for (int i = 0; i < 2; i++) {
            a[l / 4][2 * (l % 4) + i] = p.a[i];
            b[l / 4][2 * (l % 4) + i] = p.b[i];
            c[l / 4][2 * (l % 4) + i] = p.c[i];
        }
    }
    for (int row = 0; row < 8; row++) {
        for (int k = 0; k < 8; k++) {
            for (int column = 0; column < 8; column++) c[row][column] = ::fmaf(a[row][k], b[k][column], c[row][column]);
        }
    }
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < 2; i++) slot<Product>(results, l).c[i] = c[l / 4][2 * (l % 4) + i];
    }
}
}  // namespace detail

/* result = a b + c */
inline void simdgroup_multiply_accumulate(simdgroup_float8x8 &result, const simdgroup_float8x8 &a,
                                          const simdgroup_float8x8 &b, const simdgroup_float8x8 &c, EMU_HERE) {
    detail::Product operand = {
        {a.elements[0], a.elements[1]}, {b.elements[0], b.elements[1]}, {c.elements[0], c.elements[1]}};
    operand = detail::gather<detail::Product>({"simdgroup_multiply_accumulate", file, line}, operand, detail::multiply);
    result.elements[0] = operand.c[0];
    result.elements[1] = operand.c[1];
}

}  // namespace metal
