/* 32-bit atomics (MSL 6.15): relaxed only, and none of 64 bits, which Apple's M1 does not have. */
#pragma once

#include "msl_vector.hpp"

namespace metal {

enum memory_order { memory_order_relaxed };

struct atomic_uint {
    uint value;
};

inline uint atomic_load_explicit(const volatile atomic_uint *a, memory_order) { return a->value; }
inline void atomic_store_explicit(volatile atomic_uint *a, uint value, memory_order) { a->value = value; }

/* Threads of the emulated device are never preempted: a plain read and write is atomic. */
template <class F>
inline uint atomic_change(volatile atomic_uint *a, F change) {
    uint old = a->value;
    a->value = change(old);
    return old;
}
inline uint atomic_fetch_add_explicit(volatile atomic_uint *a, uint b, memory_order) {
    return atomic_change(a, [b](uint old) { return old + b; });
}
inline uint atomic_fetch_max_explicit(volatile atomic_uint *a, uint b, memory_order) {
    return atomic_change(a, [b](uint old) { return old > b ? old : b; });
}
inline uint atomic_fetch_min_explicit(volatile atomic_uint *a, uint b, memory_order) {
    return atomic_change(a, [b](uint old) { return old < b ? old : b; });
}
inline uint atomic_exchange_explicit(volatile atomic_uint *a, uint b, memory_order) {
    return atomic_change(a, [b](uint) { return b; });
}

}  // namespace metal
