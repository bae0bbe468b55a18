/* The experts' gated activation. */
#ifndef GPTOSS_METAL_SWIGLU_H
#define GPTOSS_METAL_SWIGLU_H

#include <metal_stdlib>

/* The gate is clamped above only, the linear part on both sides; sigmoid(1.702 gate) approximates a GELU's gate. */
inline float swiglu(float gate, float linear, float limit) {
    gate = metal::min(gate, limit);
    linear = metal::clamp(linear, -limit, limit);
    return gate / (1.0f + metal::precise::exp(-1.702f * gate)) * (linear + 1.0f);
}

#endif
