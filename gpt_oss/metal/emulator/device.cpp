/* device.h over the executor: one CPU thread runs the committed command buffers in order.
 *
 * Checks what Metal's validation layer would: every buffer bound, argument sizes, alignment, limits of threads and
 * memory. Buffers end at a page that may not be touched, and start out as NaNs. */
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "emulator.h"
#include "executor.hpp"

namespace {

std::atomic<uint32_t> live_objects{0};

/* Counts references, and itself among the live objects. */
struct Object {
    std::atomic<uint32_t> references{1};
    Object() { live_objects++; }
    virtual ~Object() { live_objects--; }
    Object(const Object &) = delete;
    Object &operator=(const Object &) = delete;
};

template <class T>
T *retain(T *object) {
    object->references++;
    return object;
}

void release(Object *object) {
    if (object && --object->references == 0) delete object;
}

__attribute__((format(printf, 2, 3))) bool fail(gpu_error *error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof(error->text), format, arguments);
    va_end(arguments);
    return false;
}

constexpr size_t kPlacement = 16; /* buffers start at a multiple of this, so they end up to 15 bytes before the guard */

}  // namespace

struct gpu_buffer : Object {
    char *contents = nullptr;
    size_t bytes = 0;
    void *mapping = nullptr; /* null when the memory is the caller's */
    size_t mapping_bytes = 0;
    ~gpu_buffer() override {
        if (mapping) munmap(mapping, mapping_bytes);
    }
};

struct gpu_kernel : Object {
    const emu::Kernel *kernel = nullptr;
    gpu_device *device = nullptr;
};

namespace {

struct Dispatch {
    gpu_kernel *kernel;
    emu::Dim3 threadgroups;
    uint32_t threads;
    std::vector<char> args;
    std::vector<gpu_buffer *> buffers;
    std::vector<void *> addresses;
};

enum class Stage { recording, committed, done };

}  // namespace

struct gpu_commands : Object {
    gpu_device *device = nullptr;
    std::vector<Dispatch> dispatches;
    std::mutex mutex;
    std::condition_variable changed;
    Stage stage = Stage::recording;
    std::string error;
    ~gpu_commands() override {
        for (Dispatch &dispatch : dispatches) {
            release(dispatch.kernel);
            for (gpu_buffer *buffer : dispatch.buffers) release(buffer);
        }
    }
};

struct gpu_device : Object {
    std::atomic<uint32_t> max_threads{emu::kMaxThreads};
    std::atomic<int> lanes{EMULATOR_FORWARD};
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<gpu_commands *> queue;
    bool closing = false;
    uint32_t commands_until_failure = 0; /* 0: none is to fail */
    std::string failure;
    std::thread thread;

    void work();
    std::string execute(const gpu_commands &commands);
};

std::string gpu_device::execute(const gpu_commands &commands) {
    {
        std::lock_guard<std::mutex> lock(mutex);
        if (commands_until_failure && --commands_until_failure == 0) return failure;
    }
    const emu::LaneOrder orders[] = {emu::LaneOrder::forward, emu::LaneOrder::reverse, emu::LaneOrder::random};
    for (const Dispatch &dispatch : commands.dispatches) {
        const emu::Kernel &kernel = *dispatch.kernel->kernel;
        emu::Launch launch = {kernel.run, dispatch.args.data(), dispatch.addresses.data(), dispatch.threadgroups,
                              dispatch.threads, kernel.threadgroup_bytes, orders[lanes]};
        std::string error = emu::run(launch);
        if (!error.empty()) return std::string("kernel ") + kernel.name + ": " + error;
    }
    return "";
}

void gpu_device::work() {
    for (;;) {
        gpu_commands *commands;
        {
            std::unique_lock<std::mutex> lock(mutex);
            changed.wait(lock, [this] { return closing || !queue.empty(); });
            if (queue.empty()) return;
            commands = queue.front();
            queue.pop_front();
        }
        std::string error = execute(*commands);
        {
            std::lock_guard<std::mutex> lock(commands->mutex);
            commands->error = error;
            commands->stage = Stage::done;
            commands->changed.notify_all();
        }
        release(commands);
    }
}

extern "C" {

bool gpu_device_create(gpu_device **device, gpu_error *error) {
    uint32_t threads = emu::kMaxThreads;
    if (const char *text = getenv("GPTOSS_EMULATOR_THREADS")) {
        char *end;
        unsigned long value = strtoul(text, &end, 10);
        if (*end || value < 32 || value > emu::kMaxThreads || value % 32) {
            return fail(error, "GPTOSS_EMULATOR_THREADS must be a multiple of 32 up to 1024, not '%s'", text);
        }
        threads = static_cast<uint32_t>(value);
    }
    int lanes = EMULATOR_FORWARD;
    if (const char *text = getenv("GPTOSS_EMULATOR_LANES")) {
        const char *names[] = {"forward", "reverse", "random"};
        for (lanes = 0; lanes < 3 && strcmp(names[lanes], text); lanes++) {}
        if (lanes == 3) return fail(error, "GPTOSS_EMULATOR_LANES must be forward, reverse or random, not '%s'", text);
    }
    gpu_device *made = new gpu_device;
    made->max_threads = threads;
    made->lanes = lanes;
    made->thread = std::thread(&gpu_device::work, made);
    *device = made;
    return true;
}

void gpu_device_release(gpu_device *device) {
    if (!device) return;
    {
        std::lock_guard<std::mutex> lock(device->mutex);
        device->closing = true;
    }
    device->changed.notify_all();
    device->thread.join();
    release(device);
}

gpu_limits gpu_device_limits(const gpu_device *device) {
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t memory = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes);
    return {"emulated Metal device (CPU)", true, device->max_threads, emu::kThreadgroupBytes, memory, memory};
}

bool gpu_kernel_create(gpu_device *device, const char *name, gpu_kernel **kernel, gpu_error *error) {
    for (const emu::Kernel *known = emu::kernels(); known; known = known->next) {
        if (strcmp(known->name, name)) continue;
        if (known->threadgroup_bytes > emu::kThreadgroupBytes) {
            return fail(error, "kernel %s: threadgroup memory of %zu bytes exceeds %zu", name, known->threadgroup_bytes,
                        emu::kThreadgroupBytes);
        }
        gpu_kernel *made = new gpu_kernel;
        made->kernel = known;
        made->device = device;
        *kernel = made;
        return true;
    }
    return fail(error, "the device has no kernel named '%s'", name);
}

void gpu_kernel_release(gpu_kernel *kernel) { release(kernel); }

uint32_t gpu_kernel_max_threads(const gpu_kernel *kernel) {
    uint32_t limit = kernel->device->max_threads, own = kernel->kernel->max_threads;
    return own && own < limit ? own : limit;
}

bool gpu_buffer_create(gpu_device *, size_t bytes, gpu_buffer **buffer, gpu_error *error) {
    if (!bytes) return fail(error, "a buffer needs at least one byte");
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_t placed = (bytes + kPlacement - 1) / kPlacement * kPlacement;
    size_t usable = (placed + page - 1) / page * page;
    if (placed < bytes || usable < placed || usable + page < usable) {
        return fail(error, "a buffer of %zu bytes cannot be allocated", bytes);
    }
    void *mapping = mmap(nullptr, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return fail(error, "a buffer of %zu bytes cannot be allocated", bytes);
    mprotect(static_cast<char *>(mapping) + usable, page, PROT_NONE);
    gpu_buffer *made = new gpu_buffer;
    made->mapping = mapping;
    made->mapping_bytes = usable + page;
    made->contents = static_cast<char *>(mapping) + usable - placed;
    made->bytes = bytes;
    memset(made->contents, 0xFF, bytes);
    *buffer = made;
    return true;
}

bool gpu_buffer_wrap(gpu_device *, void *pages, size_t bytes, gpu_buffer **buffer, gpu_error *error) {
    if (!pages || reinterpret_cast<uintptr_t>(pages) % static_cast<size_t>(sysconf(_SC_PAGESIZE)) || !bytes ||
        bytes % GPU_PAGE_BYTES) {
        return fail(error, "only whole pages of %d bytes can be wrapped, not %zu bytes at %p", GPU_PAGE_BYTES, bytes,
                    pages);
    }
    gpu_buffer *made = new gpu_buffer;
    made->contents = static_cast<char *>(pages);
    made->bytes = bytes;
    *buffer = made;
    return true;
}

void gpu_buffer_release(gpu_buffer *buffer) { release(buffer); }
void *gpu_buffer_contents(gpu_buffer *buffer) { return buffer->contents; }
size_t gpu_buffer_bytes(const gpu_buffer *buffer) { return buffer->bytes; }

bool gpu_commands_create(gpu_device *device, gpu_commands **commands, gpu_error *) {
    gpu_commands *made = new gpu_commands;
    made->device = device;
    *commands = made;
    return true;
}

bool gpu_commands_dispatch(gpu_commands *commands, gpu_kernel *kernel, const gpu_dispatch *dispatch, gpu_error *error) {
    const emu::Kernel &known = *kernel->kernel;
    const uint32_t *grid = dispatch->threadgroups;
    uint32_t max_threads = gpu_kernel_max_threads(kernel);
    if (commands->stage != Stage::recording) return fail(error, "kernel %s: the commands are committed", known.name);
    if (dispatch->args_bytes != known.args_bytes || dispatch->args_bytes > GPU_MAX_ARGS_BYTES) {
        return fail(error, "kernel %s takes %zu bytes of arguments, not %zu", known.name, known.args_bytes,
                    dispatch->args_bytes);
    }
    if (dispatch->num_buffers != known.num_buffers || dispatch->num_buffers > GPU_MAX_BUFFERS) {
        return fail(error, "kernel %s takes %u buffers, not %u", known.name, known.num_buffers, dispatch->num_buffers);
    }
    if (!dispatch->threads || dispatch->threads % emu::kLanes || dispatch->threads > max_threads) {
        return fail(error, "kernel %s: %u threads per threadgroup, where a multiple of %u up to %u is possible",
                    known.name, dispatch->threads, emu::kLanes, max_threads);
    }
    if (!grid[0] || !grid[1] || !grid[2]) return fail(error, "kernel %s: an empty grid", known.name);
    Dispatch made;
    for (uint32_t i = 0; i < dispatch->num_buffers; i++) {
        const gpu_slice &slice = dispatch->buffers[i];
        if (!slice.buffer) return fail(error, "kernel %s: buffer %u is not bound", known.name, i + 1);
        char *address = slice.buffer->contents + slice.offset;
        if (slice.offset >= slice.buffer->bytes) {
            return fail(error, "kernel %s: buffer %u starts beyond its end", known.name, i + 1);
        }
        if (reinterpret_cast<uintptr_t>(address) % known.alignments[i]) {
            return fail(error, "kernel %s: the offset of buffer %u is not a multiple of %zu", known.name, i + 1,
                        known.alignments[i]);
        }
        made.buffers.push_back(slice.buffer);
        made.addresses.push_back(address);
    }
    const char *args = static_cast<const char *>(dispatch->args);
    made.args.assign(args, args + dispatch->args_bytes);
    made.kernel = retain(kernel);
    for (gpu_buffer *buffer : made.buffers) retain(buffer);
    made.threadgroups = {grid[0], grid[1], grid[2]};
    made.threads = dispatch->threads;
    commands->dispatches.push_back(std::move(made));
    return true;
}

bool gpu_commands_commit(gpu_commands *commands, gpu_error *error) {
    {
        std::lock_guard<std::mutex> lock(commands->mutex);
        if (commands->stage != Stage::recording) return fail(error, "the commands are committed already");
        commands->stage = Stage::committed;
    }
    gpu_device *device = commands->device;
    {
        std::lock_guard<std::mutex> lock(device->mutex);
        device->queue.push_back(retain(commands));
    }
    device->changed.notify_all();
    return true;
}

bool gpu_commands_wait(gpu_commands *commands, gpu_error *error) {
    std::unique_lock<std::mutex> lock(commands->mutex);
    if (commands->stage == Stage::recording) return fail(error, "the commands are not committed yet");
    commands->changed.wait(lock, [commands] { return commands->stage == Stage::done; });
    return commands->error.empty() || fail(error, "%s", commands->error.c_str());
}

void gpu_commands_release(gpu_commands *commands) { release(commands); }

void emulator_set_lanes(gpu_device *device, enum emulator_lanes lanes) { device->lanes = lanes; }
void emulator_set_max_threads(gpu_device *device, uint32_t threads) { device->max_threads = threads; }

void emulator_fail_commands(gpu_device *device, uint32_t n, const char *text) {
    std::lock_guard<std::mutex> lock(device->mutex);
    device->commands_until_failure = n;
    device->failure = text;
}

uint32_t emulator_live_objects(void) { return live_objects; }

bool emulator_kernel_at(uint32_t index, emulator_kernel *kernel) {
    const emu::Kernel *known = emu::kernels();
    while (known && index--) known = known->next;
    if (!known) return false;
    *kernel = {known->name, known->max_threads, static_cast<uint32_t>(known->threadgroup_bytes),
               static_cast<uint32_t>(known->args_bytes), known->num_buffers};
    return true;
}

}  // extern "C"
