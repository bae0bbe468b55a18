/* Foundation and Metal as far as metal_device.m needs them, over GNU's Objective-C runtime and the emulated device.
 *
 * Counts objects and watches the rules of use: balanced retains, a pool for what is autoreleased, encoders ended before
 * the commit. A breach is kept as a sentence for `fake_complaint`. `fake_set` makes things fail. */
#include "emulated_names.h"

#include <objc/runtime.h>
#import <Metal/Metal.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

/* ---- settings and findings, for the tests ---- */

static struct {
    long apple7, metal3, device, threadgroup_bytes, execution_width, compile, pipeline, queue, buffer, commands;
} works = {1, 1, 1, 32768, 32, 1, 1, 1, 1, 1};

static char complaint[256];
static uint32_t live_objects;

#define COMPLAIN(...) ((void)(complaint[0] ? 0 : snprintf(complaint, sizeof(complaint), __VA_ARGS__)))

const char *fake_complaint(void) { return complaint; }
uint32_t fake_live_objects(void) { return live_objects; }

/* Set a field of `works`; false when there is none of this name. */
bool fake_set(const char *name, long value) {
    const struct {
        const char *name;
        long *field;
    } fields[] = {{"apple7", &works.apple7},
                  {"metal3", &works.metal3},
                  {"device", &works.device},
                  {"threadgroup_bytes", &works.threadgroup_bytes},
                  {"execution_width", &works.execution_width},
                  {"compile", &works.compile},
                  {"pipeline", &works.pipeline},
                  {"queue", &works.queue},
                  {"buffer", &works.buffer},
                  {"commands", &works.commands}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (!strcmp(fields[i].name, name)) {
            *fields[i].field = value;
            return true;
        }
    }
    return false;
}

/* ---- Foundation ---- */

static void add_to_pool(id object);

/* What every object carries. The classes that the stub headers declare have no instance variables, so theirs are here. */
struct state {
    long references;
    void *text; /* char * of a string, NSString * of an error */
    MTLLanguageVersion version;
    bool safe;
};

static struct state *state_of(id object) { return object_getIndexedIvars(object); }

@implementation NSObject
+ (instancetype)alloc {
    id made = class_createInstance(self, sizeof(struct state));
    state_of(made)->references = 1;
    live_objects++;
    return made;
}
+ (instancetype)new {
    return [[self alloc] init];
}
- (instancetype)init {
    return self;
}
- (instancetype)retain {
    state_of(self)->references++;
    return self;
}
- (oneway void)release {
    if (--state_of(self)->references == 0) [self dealloc];
}
- (void)dealloc {
    live_objects--;
    object_dispose(self);
}
- (instancetype)autorelease {
    add_to_pool(self);
    return self;
}
- (BOOL)respondsToSelector:(SEL)selector {
    return class_respondsToSelector(object_getClass(self), selector);
}
@end

static __thread id pools[64][64]; /* autoreleased objects of each open pool */
static __thread int pool_sizes[64], num_pools;

static void add_to_pool(id object) {
    if (!num_pools) {
        COMPLAIN("%s was autoreleased without a pool", class_getName(object_getClass(object)));
    } else if (pool_sizes[num_pools - 1] == 64) {
        COMPLAIN("a pool holds more than 64 objects");
    } else {
        pools[num_pools - 1][pool_sizes[num_pools - 1]++] = object;
    }
}

@implementation NSAutoreleasePool
- (instancetype)init {
    pool_sizes[num_pools++] = 0;
    return self;
}
- (void)drain {
    num_pools--;
    for (int i = 0; i < pool_sizes[num_pools]; i++) [pools[num_pools][i] release];
    [self release];
}
@end

@implementation NSString
+ (instancetype)stringWithUTF8String:(const char *)text {
    NSString *made = [[self alloc] init];
    state_of(made)->text = strdup(text);
    return [made autorelease];
}
- (const char *)UTF8String {
    return state_of(self)->text;
}
- (void)dealloc {
    free(state_of(self)->text);
    [super dealloc];
}
@end

@implementation NSError
+ (instancetype)errorWithText:(const char *)text {
    NSError *made = [[self alloc] init];
    state_of(made)->text = [[NSString stringWithUTF8String:text] retain];
    return [made autorelease];
}
- (NSString *)localizedDescription {
    return [[(NSString *)state_of(self)->text retain] autorelease];
}
- (void)dealloc {
    [(NSString *)state_of(self)->text release];
    [super dealloc];
}
@end

/* ---- Metal ---- */

@implementation MTLCompileOptions
- (void)setLanguageVersion:(MTLLanguageVersion)given {
    state_of(self)->version = given;
}
- (void)setFastMathEnabled:(BOOL)enabled {
    state_of(self)->safe = !enabled;
}
- (void)setMathMode:(MTLMathMode)mode {
    state_of(self)->safe = mode == MTLMathModeSafe;
}
@end

@interface FakeFunction : NSObject <MTLFunction> {
  @public
    NSString *name;
}
@end

@implementation FakeFunction
- (void)dealloc {
    [name release];
    [super dealloc];
}
@end

@interface FakeLibrary : NSObject <MTLLibrary> {
  @public
    NSString *source;
}
@end

@implementation FakeLibrary
- (id<MTLFunction>)newFunctionWithName:(NSString *)name {
    char declaration[128];
    snprintf(declaration, sizeof(declaration), "kernel void %s(", [name UTF8String]);
    if (!strstr([source UTF8String], declaration)) return nil;
    FakeFunction *made = [FakeFunction new];
    made->name = [name retain];
    return made;
}
- (void)dealloc {
    [source release];
    [super dealloc];
}
@end

@interface FakePipeline : NSObject <MTLComputePipelineState> {
  @public
    gpu_kernel *kernel;
}
@end

@implementation FakePipeline
- (NSUInteger)maxTotalThreadsPerThreadgroup {
    return gpu_kernel_max_threads(kernel);
}
- (NSUInteger)threadExecutionWidth {
    return (NSUInteger)works.execution_width;
}
- (void)dealloc {
    gpu_kernel_release(kernel);
    [super dealloc];
}
@end

@interface FakeBuffer : NSObject <MTLBuffer> {
  @public
    gpu_buffer *buffer;
}
@end

@implementation FakeBuffer
- (void *)contents {
    return gpu_buffer_contents(buffer);
}
- (NSUInteger)length {
    return gpu_buffer_bytes(buffer);
}
- (void)dealloc {
    gpu_buffer_release(buffer);
    [super dealloc];
}
@end

enum { FAKE_ARGUMENTS = 31 }; /* Metal's limit of buffers */

@interface FakeEncoder : NSObject <MTLComputeCommandEncoder> {
  @public
    gpu_commands *commands;
    FakePipeline *pipeline;
    char bytes[GPU_MAX_ARGS_BYTES];
    NSUInteger num_bytes;
    gpu_slice slices[FAKE_ARGUMENTS];
    NSUInteger num_slices;
    bool ended;
}
@end

@implementation FakeEncoder
- (void)setComputePipelineState:(id<MTLComputePipelineState>)state {
    if (ended) COMPLAIN("a pipeline was set after the end of encoding");
    pipeline = (FakePipeline *)state;
}
- (void)setBytes:(const void *)given length:(NSUInteger)length atIndex:(NSUInteger)index {
    if (index || length > sizeof(bytes)) COMPLAIN("setBytes of %lu bytes at index %lu", length, index);
    memcpy(bytes, given, length);
    num_bytes = length;
    num_slices = 0;
}
- (void)setBuffer:(id<MTLBuffer>)buffer offset:(NSUInteger)offset atIndex:(NSUInteger)index {
    if (index != num_slices + 1 || index >= FAKE_ARGUMENTS) {
        COMPLAIN("buffer %lu was set after %lu", index, num_slices);
        return;
    }
    slices[num_slices++] = (gpu_slice){((FakeBuffer *)buffer)->buffer, offset};
}
- (void)dispatchThreadgroups:(MTLSize)groups threadsPerThreadgroup:(MTLSize)threads {
    gpu_dispatch dispatch = {
        .threadgroups = {(uint32_t)groups.width, (uint32_t)groups.height, (uint32_t)groups.depth},
        .threads = (uint32_t)(threads.width * threads.height * threads.depth),
        .args = bytes,
        .args_bytes = num_bytes,
        .buffers = slices,
        .num_buffers = (uint32_t)num_slices,
    };
    gpu_error error;
    if (ended || !pipeline) COMPLAIN("a dispatch without a pipeline or after the end of encoding");
    if (!gpu_commands_dispatch(commands, pipeline->kernel, &dispatch, &error)) COMPLAIN("%s", error.text);
}
- (void)endEncoding {
    if (ended) COMPLAIN("an encoder was ended twice");
    ended = true;
}
- (void)dealloc {
    if (!ended) COMPLAIN("an encoder was released before its end");
    [super dealloc];
}
@end

@interface FakeCommandBuffer : NSObject <MTLCommandBuffer> {
  @public
    gpu_commands *commands;
    FakeEncoder *encoder;
    MTLCommandBufferStatus status;
    NSError *failure;
}
@end

@implementation FakeCommandBuffer
- (id<MTLComputeCommandEncoder>)computeCommandEncoder {
    if (encoder && !encoder->ended) COMPLAIN("a second encoder while the first is open");
    [encoder release];
    encoder = [FakeEncoder new];
    encoder->commands = commands;
    return [[encoder retain] autorelease];
}
- (void)commit {
    gpu_error error;
    if (encoder && !encoder->ended) COMPLAIN("a commit with an open encoder");
    if (!gpu_commands_commit(commands, &error)) COMPLAIN("%s", error.text);
    status = MTLCommandBufferStatusCommitted;
}
- (void)waitUntilCompleted {
    gpu_error error;
    if (status == MTLCommandBufferStatusNotEnqueued) COMPLAIN("a wait before the commit");
    if (gpu_commands_wait(commands, &error) && works.commands) {
        status = MTLCommandBufferStatusCompleted;
        return;
    }
    status = MTLCommandBufferStatusError;
    [failure release];
    failure = [[NSError errorWithText:works.commands ? error.text : "impacting interactivity\n(00000003)"] retain];
}
- (MTLCommandBufferStatus)status {
    return status;
}
- (NSError *)error {
    return [[failure retain] autorelease];
}
- (void)dealloc {
    [encoder release];
    [failure release];
    gpu_commands_release(commands);
    [super dealloc];
}
@end

@interface FakeQueue : NSObject <MTLCommandQueue> {
  @public
    gpu_device *device;
}
@end

@implementation FakeQueue
- (id<MTLCommandBuffer>)commandBuffer {
    gpu_error error;
    FakeCommandBuffer *made = [[FakeCommandBuffer new] autorelease];
    return gpu_commands_create(device, &made->commands, &error) ? made : nil;
}
@end

@interface FakeDevice : NSObject <MTLDevice> {
  @public
    gpu_device *device;
}
@end

@implementation FakeDevice
- (NSString *)name {
    return [NSString stringWithUTF8String:"Fake M1"];
}
- (BOOL)supportsFamily:(MTLGPUFamily)family {
    return family == MTLGPUFamilyApple7 ? works.apple7 != 0 : family == MTLGPUFamilyMetal3 && works.metal3;
}
- (MTLSize)maxThreadsPerThreadgroup {
    return MTLSizeMake(1024, 1024, 1024);
}
- (NSUInteger)maxThreadgroupMemoryLength {
    return (NSUInteger)works.threadgroup_bytes;
}
- (NSUInteger)maxBufferLength {
    return 1ul << 40;
}
- (uint64_t)recommendedMaxWorkingSetSize {
    return 1ul << 40;
}
- (id<MTLCommandQueue>)newCommandQueue {
    if (!works.queue) return nil;
    FakeQueue *made = [FakeQueue new];
    made->device = device;
    return made;
}
- (id<MTLLibrary>)newLibraryWithSource:(NSString *)source
                               options:(MTLCompileOptions *)options
                                 error:(NSError **)error {
    if (!works.compile) {
        *error = [NSError errorWithText:"program_source:7:1: error: unknown type name 'flaot'\nflaot x;"];
        return nil;
    }
    if (state_of(options)->version != MTLLanguageVersion3_1 || !state_of(options)->safe) COMPLAIN("not compiled as safe MSL 3.1");
    FakeLibrary *made = [FakeLibrary new];
    made->source = [source retain];
    return made;
}
- (id<MTLLibrary>)newLibraryWithData:(dispatch_data_t)data error:(NSError **)error {
    (void)data;
    *error = [NSError errorWithText:"the fake has no metallib"];
    return nil;
}
- (id<MTLComputePipelineState>)newComputePipelineStateWithFunction:(id<MTLFunction>)function error:(NSError **)error {
    gpu_error text;
    FakePipeline *made = [FakePipeline new];
    if (works.pipeline && gpu_kernel_create(device, [((FakeFunction *)function)->name UTF8String], &made->kernel, &text)) {
        return made;
    }
    [made release];
    *error = [NSError errorWithText:"Compiler encountered an internal error"];
    return nil;
}
- (id<MTLBuffer>)newBufferWithLength:(NSUInteger)length options:(MTLResourceOptions)options {
    (void)options;
    gpu_error error;
    FakeBuffer *made = [FakeBuffer new];
    if (works.buffer && gpu_buffer_create(device, length, &made->buffer, &error)) return made;
    [made release];
    return nil;
}
- (id<MTLBuffer>)newBufferWithBytesNoCopy:(void *)pages
                                   length:(NSUInteger)length
                                  options:(MTLResourceOptions)options
                              deallocator:(void (^)(void *, NSUInteger))deallocator {
    (void)options, (void)deallocator;
    gpu_error error;
    FakeBuffer *made = [FakeBuffer new];
    if (works.buffer && gpu_buffer_wrap(device, pages, length, &made->buffer, &error)) return made;
    [made release];
    return nil;
}
- (void)dealloc {
    gpu_device_release(device);
    [super dealloc];
}
@end

id<MTLDevice> MTLCreateSystemDefaultDevice(void) {
    if (!works.device) return nil;
    gpu_error error;
    FakeDevice *made = [FakeDevice new];
    if (!gpu_device_create(&made->device, &error)) COMPLAIN("%s", error.text);
    return made;
}
