/* The narrow interface between the C core and whatever runs its kernels.
 *
 * Two implementations exist: `metal_device.m` (Apple's Metal) and `emulator/` (Metal's execution model on a CPU, for
 * Linux and for tests). Everything above this header is plain C and the same on both. A device knows buffers, kernels
 * by name, and command buffers; it knows nothing of models.
 *
 * Errors: a function that can fail returns false, writes one sentence to *error and leaves its outputs untouched.
 * `error` is never null. A `release` function accepts null. Sizes and offsets are bytes unless they say otherwise.
 *
 * Threads: objects of one device may be used from several threads as long as no object is used by two at a time; a
 * device and its kernels may be shared.
 *
 * Lifetime: a command buffer keeps the kernels and buffers it was given alive until it is released. Release everything
 * made from a device before the device itself.
 */
#ifndef GPTOSS_METAL_DEVICE_H
#define GPTOSS_METAL_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gpu_device gpu_device;
typedef struct gpu_kernel gpu_kernel;
typedef struct gpu_buffer gpu_buffer;
typedef struct gpu_commands gpu_commands;

typedef struct {
    char text[512]; /* one sentence, NUL-terminated, no newline */
} gpu_error;

enum {
    GPU_PAGE_BYTES = 16384,    /* wrapped memory is so many bytes or a multiple, whatever the host's page size is */
    GPU_SIMD_WIDTH = 32,       /* a device with another width is refused */
    GPU_MAX_BUFFERS = 8,       /* buffers of one dispatch, beside its arguments */
    GPU_MAX_ARGS_BYTES = 4096, /* Metal's limit for setBytes */
};

/* ---- device ---- */

typedef struct {
    const char *name; /* "Apple M2", or "emulated Metal device (CPU)"; lives as long as the device */
    bool emulated;
    uint32_t max_threads_per_threadgroup; /* of the device; a kernel's own limit may be lower */
    uint32_t max_threadgroup_bytes;
    uint64_t max_buffer_bytes; /* of one buffer */
    uint64_t memory_bytes;     /* recommended working set, all buffers together */
} gpu_limits;

/* Open the machine's default device and load the kernels of this package into it.
 * Fails without a device, with one that lacks what the kernels need, or when a kernel does not compile. */
bool gpu_device_create(gpu_device **device, gpu_error *error);
void gpu_device_release(gpu_device *device);

gpu_limits gpu_device_limits(const gpu_device *device);

/* ---- kernels ---- */

/* Look up a kernel by its name in the sources and prepare it for dispatch. */
bool gpu_kernel_create(gpu_device *device, const char *name, gpu_kernel **kernel, gpu_error *error);
void gpu_kernel_release(gpu_kernel *kernel);

/* The most threads a threadgroup of this kernel may have; at least 32. */
uint32_t gpu_kernel_max_threads(const gpu_kernel *kernel);

/* ---- buffers: memory that the host and the device share ---- */

/* `bytes` of memory, at least 1. Its contents are undefined (the emulator fills it with 0xFF bytes: NaNs). */
bool gpu_buffer_create(gpu_device *device, size_t bytes, gpu_buffer **buffer, gpu_error *error);

/* The caller's memory as a buffer, without a copy; it must stay mapped until the buffer is released. `pages` starts on
 * a page of the host and `bytes` is a multiple of GPU_PAGE_BYTES: map a file's size rounded up. What lies past the end
 * of a file may not be read, and what is mapped read-only may not be written, by kernels no less than by the host. */
bool gpu_buffer_wrap(gpu_device *device, void *pages, size_t bytes, gpu_buffer **buffer, gpu_error *error);

void gpu_buffer_release(gpu_buffer *buffer);

/* Where the host reads and writes: before the commit of the commands that use it, and after their wait. */
void *gpu_buffer_contents(gpu_buffer *buffer);
size_t gpu_buffer_bytes(const gpu_buffer *buffer);

/* ---- commands ---- */

/* Part of a buffer, from an offset to its end. */
typedef struct {
    gpu_buffer *buffer;
    size_t offset; /* multiple of the element's alignment, at most 16 */
} gpu_slice;

typedef struct {
    uint32_t threadgroups[3];  /* x, y, z; at least 1 each */
    uint32_t threads;          /* per threadgroup, along x: a multiple of 32 */
    const void *args;          /* copied; the kernel's argument structure, [[buffer(0)]] */
    size_t args_bytes;         /* at most GPU_MAX_ARGS_BYTES */
    const gpu_slice *buffers;  /* [num_buffers], [[buffer(1)]] onwards */
    uint32_t num_buffers;      /* at most GPU_MAX_BUFFERS */
} gpu_dispatch;

/* A new, empty command buffer. */
bool gpu_commands_create(gpu_device *device, gpu_commands **commands, gpu_error *error);

/* Append one launch. It sees everything that earlier launches of these and of earlier committed commands wrote.
 * Fails, with nothing appended, when the launch breaks a limit of the device or kernel, or after the commit. */
bool gpu_commands_dispatch(gpu_commands *commands, gpu_kernel *kernel, const gpu_dispatch *dispatch, gpu_error *error);

/* Hand the commands to the device and return; command buffers run in the order of their commits. Only once. */
bool gpu_commands_commit(gpu_commands *commands, gpu_error *error);

/* Block until committed commands are done. False when the device reports that they failed: what they were to write is
 * then undefined. May be called again and gives the same answer. */
bool gpu_commands_wait(gpu_commands *commands, gpu_error *error);

/* Release; committed commands that were not waited for still run to their end. */
void gpu_commands_release(gpu_commands *commands);

#ifdef __cplusplus
}
#endif
#endif
