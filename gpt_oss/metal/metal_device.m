/* device.h over Apple's Metal: the only Objective-C of the project.
 *
 * Retain and release by hand (no ARC), so that the file can also be run over a fake Foundation on Linux. Every function
 * that sends messages has an autorelease pool, because callers from C have none. Dispatches of a command buffer share
 * one serial encoder: Metal runs them in order and each sees what the ones before it wrote. */
#import <Foundation/Foundation.h>
#import <Metal/Metal.h>

#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From embed_kernels.py: MSL text with a NUL behind it or, with GPTOSS_METALLIB, what Xcode's compiler made of it. */
extern const unsigned char gptoss_kernels[];
extern const size_t gptoss_kernels_bytes;

enum { LEAST_THREADGROUP_BYTES = 16384 }; /* what the largest kernel may take */

struct gpu_device {
    id<MTLDevice> device;
    id<MTLCommandQueue> queue;
    id<MTLLibrary> library;
    char name[128];
};

struct gpu_kernel {
    id<MTLComputePipelineState> pipeline;
    char name[64];
};

struct gpu_buffer {
    id<MTLBuffer> buffer;
};

struct gpu_commands {
    id<MTLCommandBuffer> commands;
    id<MTLComputeCommandEncoder> encoder; /* nil before the first dispatch and after the commit */
    bool committed;
};

#define FAIL(error, ...) (snprintf((error)->text, sizeof((error)->text), __VA_ARGS__), false)

/* What Foundation says, in one line; `fallback` when it says nothing. */
static const char *text_of(NSError *failure, const char *fallback) {
    const char *text = failure ? [[failure localizedDescription] UTF8String] : NULL;
    return text ? text : fallback;
}

static void one_line(gpu_error *error) {
    for (char *c = error->text; *c; c++) {
        if (*c == '\n') *c = ' ';
    }
}

/* ---- device ---- */

static id<MTLLibrary> load_library(id<MTLDevice> device, gpu_error *error) {
    NSError *failure = nil;
    id<MTLLibrary> library = nil;
#ifdef GPTOSS_METALLIB
    dispatch_data_t data =
        dispatch_data_create(gptoss_kernels, gptoss_kernels_bytes, NULL, DISPATCH_DATA_DESTRUCTOR_DEFAULT);
    library = [device newLibraryWithData:data error:&failure];
    dispatch_release(data);
#else
    NSString *source = [NSString stringWithUTF8String:(const char *)gptoss_kernels];
    MTLCompileOptions *options = [[MTLCompileOptions alloc] init];
    [options setLanguageVersion:MTLLanguageVersion3_1];
    /* Kernels rely on NaN and on infinities being what IEEE 754 says. */
#ifdef __MAC_15_0
    if (@available(macOS 15.0, *)) {
        [options setMathMode:MTLMathModeSafe];
    } else {
        [options setFastMathEnabled:NO];
    }
#else
    [options setFastMathEnabled:NO];
#endif
    library = [device newLibraryWithSource:source options:options error:&failure];
    [options release];
#endif
    if (!library) {
        (void)FAIL(error, "the Metal kernels do not compile: %s", text_of(failure, "no reason given"));
        one_line(error);
    }
    return library;
}

bool gpu_device_create(gpu_device **device, gpu_error *error) {
    @autoreleasepool {
        id<MTLDevice> metal = MTLCreateSystemDefaultDevice();
        if (!metal) return FAIL(error, "this machine has no Metal device");
        const char *name = [[metal name] UTF8String];
        if (!name) name = "Metal device";
        if (![metal supportsFamily:MTLGPUFamilyApple7] || ![metal supportsFamily:MTLGPUFamilyMetal3]) {
            (void)FAIL(error, "%s lacks what the kernels need (GPU family Apple7 and Metal 3: an Apple M1 or later)", name);
            [metal release];
            return false;
        }
        if ([metal maxThreadgroupMemoryLength] < LEAST_THREADGROUP_BYTES) {
            (void)FAIL(error, "%s has %lu bytes of threadgroup memory, the kernels need %d", name,
                       (unsigned long)[metal maxThreadgroupMemoryLength], LEAST_THREADGROUP_BYTES);
            [metal release];
            return false;
        }
        id<MTLLibrary> library = load_library(metal, error);
        if (!library) {
            [metal release];
            return false;
        }
        id<MTLCommandQueue> queue = [metal newCommandQueue];
        gpu_device *made = queue ? calloc(1, sizeof(*made)) : NULL;
        if (!made) {
            (void)FAIL(error, "%s gave no command queue", name);
            [queue release];
            [library release];
            [metal release];
            return false;
        }
        made->device = metal;
        made->library = library;
        made->queue = queue;
        snprintf(made->name, sizeof(made->name), "%s", name);
        *device = made;
        return true;
    }
}

void gpu_device_release(gpu_device *device) {
    if (!device) return;
    @autoreleasepool {
        [device->queue release];
        [device->library release];
        [device->device release];
        free(device);
    }
}

gpu_limits gpu_device_limits(const gpu_device *device) {
    @autoreleasepool {
        return (gpu_limits){
            .name = device->name,
            .emulated = false,
            .max_threads_per_threadgroup = (uint32_t)[device->device maxThreadsPerThreadgroup].width,
            .max_threadgroup_bytes = (uint32_t)[device->device maxThreadgroupMemoryLength],
            .max_buffer_bytes = [device->device maxBufferLength],
            .memory_bytes = [device->device recommendedMaxWorkingSetSize],
        };
    }
}

/* ---- kernels ---- */

bool gpu_kernel_create(gpu_device *device, const char *name, gpu_kernel **kernel, gpu_error *error) {
    @autoreleasepool {
        id<MTLFunction> function = [device->library newFunctionWithName:[NSString stringWithUTF8String:name]];
        if (!function) return FAIL(error, "the device has no kernel named '%s'", name);
        NSError *failure = nil;
        id<MTLComputePipelineState> pipeline = [device->device newComputePipelineStateWithFunction:function
                                                                                             error:&failure];
        [function release];
        if (!pipeline) {
            (void)FAIL(error, "kernel %s: %s", name, text_of(failure, "no pipeline and no reason given"));
            one_line(error);
            return false;
        }
        if ([pipeline threadExecutionWidth] != GPU_SIMD_WIDTH) {
            (void)FAIL(error, "kernel %s runs in groups of %lu threads, it is written for %d", name,
                       (unsigned long)[pipeline threadExecutionWidth], GPU_SIMD_WIDTH);
            [pipeline release];
            return false;
        }
        gpu_kernel *made = calloc(1, sizeof(*made));
        if (!made) {
            [pipeline release];
            return FAIL(error, "out of memory");
        }
        made->pipeline = pipeline;
        snprintf(made->name, sizeof(made->name), "%s", name);
        *kernel = made;
        return true;
    }
}

void gpu_kernel_release(gpu_kernel *kernel) {
    if (!kernel) return;
    @autoreleasepool {
        [kernel->pipeline release];
        free(kernel);
    }
}

uint32_t gpu_kernel_max_threads(const gpu_kernel *kernel) {
    @autoreleasepool {
        return (uint32_t)[kernel->pipeline maxTotalThreadsPerThreadgroup];
    }
}

/* ---- buffers ---- */

static bool own_buffer(id<MTLBuffer> metal, size_t bytes, gpu_buffer **buffer, gpu_error *error) {
    gpu_buffer *made = metal ? calloc(1, sizeof(*made)) : NULL;
    if (!made) {
        [metal release];
        return FAIL(error, "a buffer of %zu bytes cannot be allocated", bytes);
    }
    made->buffer = metal;
    *buffer = made;
    return true;
}

bool gpu_buffer_create(gpu_device *device, size_t bytes, gpu_buffer **buffer, gpu_error *error) {
    if (!bytes) return FAIL(error, "a buffer needs at least one byte");
    @autoreleasepool {
        id<MTLBuffer> metal = [device->device newBufferWithLength:bytes options:MTLResourceStorageModeShared];
        return own_buffer(metal, bytes, buffer, error);
    }
}

bool gpu_buffer_wrap(gpu_device *device, void *pages, size_t bytes, gpu_buffer **buffer, gpu_error *error) {
    if (!pages || (uintptr_t)pages % GPU_PAGE_BYTES || !bytes || bytes % GPU_PAGE_BYTES) {
        return FAIL(error, "only whole pages of %d bytes can be wrapped, not %zu bytes at %p", GPU_PAGE_BYTES, bytes,
                    pages);
    }
    @autoreleasepool {
        id<MTLBuffer> metal = [device->device newBufferWithBytesNoCopy:pages
                                                                length:bytes
                                                               options:MTLResourceStorageModeShared
                                                           deallocator:nil];
        return own_buffer(metal, bytes, buffer, error);
    }
}

void gpu_buffer_release(gpu_buffer *buffer) {
    if (!buffer) return;
    @autoreleasepool {
        [buffer->buffer release];
        free(buffer);
    }
}

void *gpu_buffer_contents(gpu_buffer *buffer) {
    @autoreleasepool {
        return [buffer->buffer contents];
    }
}

size_t gpu_buffer_bytes(const gpu_buffer *buffer) {
    @autoreleasepool {
        return [buffer->buffer length];
    }
}

/* ---- commands ---- */

bool gpu_commands_create(gpu_device *device, gpu_commands **commands, gpu_error *error) {
    @autoreleasepool {
        id<MTLCommandBuffer> metal = [[device->queue commandBuffer] retain];
        gpu_commands *made = metal ? calloc(1, sizeof(*made)) : NULL;
        if (!made) {
            [metal release];
            return FAIL(error, "the device gave no command buffer");
        }
        made->commands = metal;
        *commands = made;
        return true;
    }
}

bool gpu_commands_dispatch(gpu_commands *commands, gpu_kernel *kernel, const gpu_dispatch *dispatch, gpu_error *error) {
    const uint32_t *grid = dispatch->threadgroups;
    if (commands->committed) return FAIL(error, "kernel %s: the commands are committed", kernel->name);
    if (!dispatch->args_bytes || dispatch->args_bytes > GPU_MAX_ARGS_BYTES) {
        return FAIL(error, "kernel %s: %zu bytes of arguments exceed %d", kernel->name, dispatch->args_bytes,
                    GPU_MAX_ARGS_BYTES);
    }
    if (dispatch->num_buffers > GPU_MAX_BUFFERS) {
        return FAIL(error, "kernel %s: %u buffers exceed %d", kernel->name, dispatch->num_buffers, GPU_MAX_BUFFERS);
    }
    uint32_t most = gpu_kernel_max_threads(kernel);
    if (!dispatch->threads || dispatch->threads % GPU_SIMD_WIDTH || dispatch->threads > most) {
        return FAIL(error, "kernel %s: %u threads per threadgroup, where a multiple of %d up to %u is possible",
                    kernel->name, dispatch->threads, GPU_SIMD_WIDTH, most);
    }
    if (!grid[0] || !grid[1] || !grid[2]) return FAIL(error, "kernel %s: an empty grid", kernel->name);
    for (uint32_t i = 0; i < dispatch->num_buffers; i++) {
        const gpu_slice *slice = &dispatch->buffers[i];
        if (!slice->buffer) return FAIL(error, "kernel %s: buffer %u is not bound", kernel->name, i + 1);
        if (slice->offset >= gpu_buffer_bytes(slice->buffer)) {
            return FAIL(error, "kernel %s: buffer %u starts beyond its end", kernel->name, i + 1);
        }
    }
    @autoreleasepool {
        if (!commands->encoder) commands->encoder = [[commands->commands computeCommandEncoder] retain];
        if (!commands->encoder) return FAIL(error, "kernel %s: the device gave no encoder", kernel->name);
        [commands->encoder setComputePipelineState:kernel->pipeline];
        [commands->encoder setBytes:dispatch->args length:dispatch->args_bytes atIndex:0];
        for (uint32_t i = 0; i < dispatch->num_buffers; i++) {
            const gpu_slice *slice = &dispatch->buffers[i];
            [commands->encoder setBuffer:slice->buffer->buffer offset:slice->offset atIndex:i + 1];
        }
        [commands->encoder dispatchThreadgroups:MTLSizeMake(grid[0], grid[1], grid[2])
                          threadsPerThreadgroup:MTLSizeMake(dispatch->threads, 1, 1)];
        return true;
    }
}

static void end_encoding(gpu_commands *commands) {
    [commands->encoder endEncoding];
    [commands->encoder release];
    commands->encoder = nil;
}

bool gpu_commands_commit(gpu_commands *commands, gpu_error *error) {
    if (commands->committed) return FAIL(error, "the commands are committed already");
    @autoreleasepool {
        end_encoding(commands);
        [commands->commands commit];
        commands->committed = true;
        return true;
    }
}

bool gpu_commands_wait(gpu_commands *commands, gpu_error *error) {
    if (!commands->committed) return FAIL(error, "the commands are not committed yet");
    @autoreleasepool {
        [commands->commands waitUntilCompleted];
        if ([commands->commands status] == MTLCommandBufferStatusCompleted) return true;
        (void)FAIL(error, "the device stopped: %s", text_of([commands->commands error], "no reason given"));
        one_line(error);
        return false;
    }
}

void gpu_commands_release(gpu_commands *commands) {
    if (!commands) return;
    @autoreleasepool {
        end_encoding(commands); /* Metal refuses to let go of an open encoder */
        [commands->commands release];
        free(commands);
    }
}
