/* What the emulated device offers beyond device.h: settings for tests, and what is known of the kernels.
 *
 * The same settings come from the environment when a device is created:
 *   GPTOSS_EMULATOR_LANES    forward (default), reverse or random: the order in which ready threads run
 *   GPTOSS_EMULATOR_THREADS  a multiple of 32: no kernel gets more threads per threadgroup (default 1024)
 */
#ifndef GPTOSS_METAL_EMULATOR_H
#define GPTOSS_METAL_EMULATOR_H

#include "../device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum emulator_lanes { EMULATOR_FORWARD, EMULATOR_REVERSE, EMULATOR_RANDOM };

void emulator_set_lanes(gpu_device *device, enum emulator_lanes lanes);
void emulator_set_max_threads(gpu_device *device, uint32_t threads);

/* Let the n-th command buffer committed from now on (1: the next) fail with `text`, as a watchdog would stop it. */
void emulator_fail_commands(gpu_device *device, uint32_t n, const char *text);

/* Devices, kernels, buffers and command buffers that exist in the process. */
uint32_t emulator_live_objects(void);

typedef struct {
    const char *name;
    uint32_t max_threads;      /* as declared; 0 when the kernel declares none */
    uint32_t threadgroup_bytes;
    uint32_t args_bytes;
    uint32_t num_buffers;
} emulator_kernel;

/* The index-th kernel, in no particular order; false beyond the last. */
bool emulator_kernel_at(uint32_t index, emulator_kernel *kernel);

#ifdef __cplusplus
}
#endif
#endif
