/* MSL's number types (MSL 2.1-2.3): bfloat, half and vectors of 2, 3 and 4. */
#pragma once

#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

/* Address spaces mean nothing on a CPU, except that constant memory cannot be written. */
#define device
#define threadgroup
#define thread
#define constant const

using uint = uint32_t;
using ushort = uint16_t;
using uchar = uint8_t;
using ulong = uint64_t;

/* MSL 2.20: reinterpret the bits. */
template <class To, class From>
inline To as_type(const From &from) {
    static_assert(sizeof(To) == sizeof(From), "as_type needs types of one size");
    To to;
    std::memcpy(static_cast<void *>(&to), &from, sizeof(to));
    return to;
}

/* Storage types: they convert to float by themselves and back only where the source says so. */
struct bfloat {
    uint16_t bits;
    bfloat() = default;
    explicit bfloat(float value) {
        uint32_t word = as_type<uint32_t>(value);
        bool is_nan = (word & 0x7FFFFFFFu) > 0x7F800000u;
        /* round to nearest, ties to even; a NaN stays one */
        bits = static_cast<uint16_t>(is_nan ? word >> 16 | 0x40u : (word + 0x7FFFu + (word >> 16 & 1)) >> 16);
    }
    operator float() const { return as_type<float>(uint32_t(bits) << 16); }
};

struct half {
    uint16_t bits;
    half() = default;
    operator float() const {
        uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023u;
        float magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                          : exponent == 0 ? std::ldexp(float(fraction), -24)
                                          : as_type<float>((exponent + 112) << 23 | fraction << 13);
        return bits >> 15 ? -magnitude : magnitude;
    }
};

namespace msl {

template <class T, int N>
struct vec;

template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
    T x, y;
    vec() = default;
    vec(T s) : x(s), y(s) {}
    vec(T x_, T y_) : x(x_), y(y_) {}
    template <class U>
    explicit vec(const vec<U, 2> &v) : x(T(v.x)), y(T(v.y)) {}
    T &operator[](size_t i) { return (&x)[i]; }
    const T &operator[](size_t i) const { return (&x)[i]; }
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
    T x, y, z;
    vec() = default;
    vec(T s) : x(s), y(s), z(s) {}
    vec(T x_, T y_, T z_) : x(x_), y(y_), z(z_) {}
    template <class U>
    explicit vec(const vec<U, 3> &v) : x(T(v.x)), y(T(v.y)), z(T(v.z)) {}
    T &operator[](size_t i) { return (&x)[i]; }
    const T &operator[](size_t i) const { return (&x)[i]; }
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
    T x, y, z, w;
    vec() = default;
    vec(T s) : x(s), y(s), z(s), w(s) {}
    vec(T x_, T y_, T z_, T w_) : x(x_), y(y_), z(z_), w(w_) {}
    template <class U>
    explicit vec(const vec<U, 4> &v) : x(T(v.x)), y(T(v.y)), z(T(v.z)), w(T(v.w)) {}
    T &operator[](size_t i) { return (&x)[i]; }
    const T &operator[](size_t i) const { return (&x)[i]; }
};

/* Element by element; a scalar operand is spread. The scalar overloads take exactly the element type, as in MSL. */
#define EMU_VECTOR_OPERATOR(op)                                                     \
    template <class T, int N>                                                       \
    inline vec<T, N> operator op(const vec<T, N> &a, const vec<T, N> &b) {          \
        vec<T, N> r;                                                                \
        for (int i = 0; i < N; i++) r[i] = T(a[i] op b[i]);                         \
        return r;                                                                   \
    }                                                                               \
    template <class T, int N>                                                       \
    inline vec<T, N> operator op(const vec<T, N> &a, std::common_type_t<T> b) {     \
        return a op vec<T, N>(b);                                                   \
    }                                                                               \
    template <class T, int N>                                                       \
    inline vec<T, N> operator op(std::common_type_t<T> a, const vec<T, N> &b) {     \
        return vec<T, N>(a) op b;                                                   \
    }                                                                               \
    template <class T, int N, class U>                                              \
    inline vec<T, N> &operator op##=(vec<T, N> &a, const U &b) {                    \
        return a = a op b;                                                          \
    }
EMU_VECTOR_OPERATOR(+)
EMU_VECTOR_OPERATOR(-)
EMU_VECTOR_OPERATOR(*)
EMU_VECTOR_OPERATOR(/)
EMU_VECTOR_OPERATOR(&)
EMU_VECTOR_OPERATOR(|)
EMU_VECTOR_OPERATOR(<<)
EMU_VECTOR_OPERATOR(>>)
#undef EMU_VECTOR_OPERATOR

}  // namespace msl

#define EMU_VECTORS(T)           \
    using T##2 = msl::vec<T, 2>; \
    using T##3 = msl::vec<T, 3>; \
    using T##4 = msl::vec<T, 4>;
EMU_VECTORS(float)
EMU_VECTORS(bfloat)
EMU_VECTORS(half)
EMU_VECTORS(int)
EMU_VECTORS(uint)
EMU_VECTORS(uchar)
EMU_VECTORS(ulong)
#undef EMU_VECTORS
