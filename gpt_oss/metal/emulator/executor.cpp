#include "executor.hpp"

#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif
#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* ---- fibers ---- */

#if defined(__x86_64__)

/* Push what the System V ABI lets a callee keep, exchange the stack pointer, pop. A switch takes about 2 ns, where
 * swapcontext spends 160 in system calls for signal masks. */
extern "C" void emu_switch(void **save, void *load) __attribute__((visibility("hidden")));
__asm__(
    ".text\n.hidden emu_switch\n.globl emu_switch\n.type emu_switch, @function\nemu_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size emu_switch, .-emu_switch\n");

namespace {
struct Context {
    void *stack_pointer;
};

void switch_context(Context &from, Context &to) { emu_switch(&from.stack_pointer, to.stack_pointer); }

void prepare(Context &context, char *, char *top, void (*entry)()) {
    void **frame = reinterpret_cast<void **>(top);
    *--frame = nullptr; /* the return address of entry, which never returns; also aligns its frame */
    *--frame = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--frame = nullptr;
    context.stack_pointer = frame;
}
}  // namespace

#else

#include <ucontext.h>

namespace {
struct Context {
    ucontext_t context;
};

void switch_context(Context &from, Context &to) { swapcontext(&from.context, &to.context); }

void prepare(Context &context, char *bottom, char *top, void (*entry)()) {
    getcontext(&context.context);
    context.context.uc_stack.ss_sp = bottom;
    context.context.uc_stack.ss_size = static_cast<size_t>(top - bottom);
    context.context.uc_link = nullptr;
    makecontext(&context.context, entry, 0);
}
}  // namespace

#endif

namespace emu {
namespace {

#ifdef EMU_ASAN
constexpr size_t kStackBytes = 256 * 1024;
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
/* Stacks that end at equal page offsets would share cache sets. */
constexpr size_t kStackColour = 1088;

struct Lane {
    Context context;
    Site site;
    bool is_first;
    void *fake_stack; /* AddressSanitizer's */
};

struct Simdgroup {
    uint32_t ready, at_collective, at_is_first, at_barrier, done; /* one bit per lane, one of the five each */
    Site site;                                                    /* of the first lane at the collective */
    bool together;                                                /* every lane there came to the same site */
    unsigned phase;                                               /* collectives completed so far */
    alignas(64) char operands[2][kLanes * kSlotBytes];
    alignas(64) char results[2][kLanes * kSlotBytes];
};

constexpr uint32_t kAll = 0xFFFFFFFFu;

/* The threadgroup in flight. One launch runs at a time in the process, so kernels find it without a thread-local. */
struct Machine {
    const Launch *launch;
    Dim3 position;
    uint32_t threads, simdgroups, current; /* current: the running thread */
    uint32_t barrier_arrivals;
    uint32_t random;
    std::string error;
    Context scheduler;
    void *scheduler_fake_stack;
    const void *scheduler_bottom;
    size_t scheduler_bytes;
    char *stacks;
    Lane lanes[kMaxThreads];
    Simdgroup simd[kMaxThreads / kLanes];
    alignas(64) char threadgroup[kThreadgroupBytes];
};

Machine *machine;
std::mutex machine_mutex;

uint32_t next_random() {
    uint32_t &x = machine->random;
    x ^= x << 13;
    x ^= x >> 17;
    return x ^= x << 5;
}

char *stack_bottom(uint32_t thread) { return machine->stacks + thread * kStackBytes; }

char *stack_top(uint32_t thread) {
    return stack_bottom(thread) + kStackBytes - (thread % 56) * (kStackColour - kStackColour % 16);
}

void to_thread(Context &from, void **from_fake_stack, uint32_t thread) {
    machine->current = thread;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(from_fake_stack, stack_bottom(thread), kStackBytes);
#else
    (void)from_fake_stack;
#endif
    switch_context(from, machine->lanes[thread].context);
}

[[maybe_unused]] void landed(void *fake_stack) {
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    (void)fake_stack;
#endif
}

/* Leave the threadgroup for good: it ended or it failed. */
void to_scheduler(Lane &lane) {
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(nullptr, machine->scheduler_bottom, machine->scheduler_bytes);
#endif
    switch_context(lane.context, machine->scheduler);
}

unsigned pick_bit(uint32_t mask) {
    switch (machine->launch->order) {
        case LaneOrder::forward:
            return static_cast<unsigned>(__builtin_ctz(mask));
        case LaneOrder::reverse:
            return 31u - static_cast<unsigned>(__builtin_clz(mask));
        case LaneOrder::random:
            break;
    }
    unsigned skip = next_random() % static_cast<unsigned>(__builtin_popcount(mask));
    while (skip--) mask &= mask - 1;
    return static_cast<unsigned>(__builtin_ctz(mask));
}

/* A thread that can run, of the same simdgroup if it has one; -1 when all wait or are done. */
int pick_thread() {
    uint32_t mine = machine->current / kLanes;
    if (machine->simd[mine].ready) return static_cast<int>(mine * kLanes + pick_bit(machine->simd[mine].ready));
    uint32_t mask = 0;
    for (uint32_t g = 0; g < machine->simdgroups; g++) mask |= uint32_t(machine->simd[g].ready != 0) << g;
    if (!mask) return -1;
    uint32_t g = pick_bit(mask);
    return static_cast<int>(g * kLanes + pick_bit(machine->simd[g].ready));
}

/* Nobody can run: let the lanes that met at the same simd_is_first go on. */
bool release_is_first() {
    for (uint32_t g = 0; g < machine->simdgroups; g++) {
        Simdgroup &simd = machine->simd[g];
        if (!simd.at_is_first) continue;
        unsigned first = static_cast<unsigned>(__builtin_ctz(simd.at_is_first));
        const Site &site = machine->lanes[g * kLanes + first].site;
        for (unsigned l = first; l < kLanes; l++) {
            Lane &lane = machine->lanes[g * kLanes + l];
            if (!(simd.at_is_first >> l & 1) || lane.site.line != site.line || lane.site.file != site.file) continue;
            lane.is_first = l == first;
            simd.at_is_first &= ~(1u << l);
            simd.ready |= 1u << l;
        }
        return true;
    }
    return false;
}

std::string describe_stall() {
    for (uint32_t g = 0; g < machine->simdgroups; g++) {
        const Simdgroup &simd = machine->simd[g];
        uint32_t waiting = simd.at_collective | simd.at_barrier;
        if (!waiting) continue;
        unsigned l = static_cast<unsigned>(__builtin_ctz(waiting));
        const Site &site = machine->lanes[g * kLanes + l].site;
        unsigned here = 0, done = 0;
        for (uint32_t t = 0; t < machine->threads; t++) {
            const Simdgroup &other = machine->simd[t / kLanes];
            bool same_group = simd.at_barrier >> l & 1 || t / kLanes == g;
            if (!same_group) continue;
            const Lane &lane = machine->lanes[t];
            done += other.done >> (t % kLanes) & 1;
            here += !(other.done >> (t % kLanes) & 1) && lane.site.line == site.line && lane.site.what == site.what;
        }
        unsigned all = simd.at_barrier >> l & 1 ? machine->threads : kLanes;
        return std::string(site.what) + " at " + site.file + ":" + std::to_string(site.line) + " was reached by " +
               std::to_string(here) + " of " + std::to_string(all) + " threads (" + std::to_string(done) +
               " had ended); thread " + std::to_string(g * kLanes + l) + " waits there";
    }
    return "no thread can run";
}

/* Give the CPU to another thread; returns when this one is ready again. */
void yield(Lane &lane) {
    int next = pick_thread();
    if (next < 0 && release_is_first()) next = pick_thread();
    if (next < 0) {
        bool all_done = true;
        for (uint32_t g = 0; g < machine->simdgroups; g++) all_done &= machine->simd[g].done == kAll;
        if (!all_done) machine->error = describe_stall();
        to_scheduler(lane); /* never comes back */
    }
    if (&machine->lanes[next] == &lane) return;
    to_thread(lane.context, &lane.fake_stack, static_cast<uint32_t>(next));
    landed(lane.fake_stack);
}

void thread_main() {
#ifdef EMU_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (!machine->scheduler_bottom) { /* the first fiber of all comes from the scheduler's stack */
        machine->scheduler_bottom = bottom;
        machine->scheduler_bytes = bytes;
    }
#endif
    machine->launch->kernel(*machine->launch);
    uint32_t thread = machine->current;
    Simdgroup &simd = machine->simd[thread / kLanes];
    simd.ready &= ~(1u << thread % kLanes);
    simd.done |= 1u << thread % kLanes;
    Lane &lane = machine->lanes[thread];
    int next = pick_thread();
    if (next >= 0) {
        to_thread(lane.context, nullptr, static_cast<uint32_t>(next));
    } else {
        yield(lane);
    }
    __builtin_unreachable();
}

void run_threadgroup(size_t poisoned_bytes) {
    Machine &m = *machine;
    std::memset(m.threadgroup, 0xFF, poisoned_bytes);
    m.barrier_arrivals = 0;
    for (uint32_t g = 0; g < m.simdgroups; g++) {
        Simdgroup &simd = m.simd[g];
        simd.ready = kAll;
        simd.at_collective = simd.at_is_first = simd.at_barrier = simd.done = 0;
        simd.phase = 0;
    }
    for (uint32_t t = 0; t < m.threads; t++) {
#ifdef EMU_ASAN
        ASAN_UNPOISON_MEMORY_REGION(stack_bottom(t), kStackBytes); /* an abandoned fiber may have left red zones */
#endif
        m.lanes[t].site = {"", "", 0};
        prepare(m.lanes[t].context, stack_bottom(t), stack_top(t), thread_main);
    }
    uint32_t last = (m.simdgroups - 1) * kLanes;
    m.current = m.launch->order == LaneOrder::reverse ? last : 0;
    uint32_t first = static_cast<uint32_t>(pick_thread());
    to_thread(m.scheduler, &m.scheduler_fake_stack, first);
    landed(m.scheduler_fake_stack);
}

Machine *make_machine() {
    void *stacks = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) return nullptr;
    Machine *made = new Machine();
    made->stacks = static_cast<char *>(stacks);
    return made;
}

const Kernel *registered = nullptr;

}  // namespace

uint32_t thread_index() { return machine->current; }
uint32_t thread_count() { return machine->threads; }
Dim3 threadgroup_position() { return machine->position; }
Dim3 threadgroup_count() { return machine->launch->threadgroups; }
void *threadgroup_memory() { return machine->threadgroup; }

void threadgroup_barrier(const Site &site) {
    Machine &m = *machine;
    uint32_t thread = m.current;
    Lane &lane = m.lanes[thread];
    lane.site = site;
    m.simd[thread / kLanes].ready &= ~(1u << thread % kLanes);
    m.simd[thread / kLanes].at_barrier |= 1u << thread % kLanes;
    if (++m.barrier_arrivals == m.threads) {
        bool together = true;
        for (uint32_t t = 0; t < m.threads; t++) {
            together &= m.lanes[t].site.line == site.line && m.lanes[t].site.file == site.file;
        }
        if (together) {
            m.barrier_arrivals = 0;
            for (uint32_t g = 0; g < m.simdgroups; g++) {
                m.simd[g].at_barrier = 0;
                m.simd[g].ready = kAll;
            }
        }
    }
    yield(lane);
}

const void *collective(const Site &site, const void *operand, size_t bytes, void (*combine)(const char *, char *)) {
    uint32_t thread = machine->current;
    uint32_t l = thread % kLanes;
    Simdgroup &simd = machine->simd[thread / kLanes];
    unsigned phase = simd.phase & 1;
    if (!simd.at_collective) {
        simd.site = site;
        simd.together = true;
    } else {
        simd.together &= simd.site.line == site.line && simd.site.file == site.file && simd.site.what == site.what;
    }
    std::memcpy(simd.operands[phase] + l * kSlotBytes, operand, bytes);
    simd.at_collective |= 1u << l;
    if (simd.at_collective == kAll && simd.together) {
        combine(simd.operands[phase], simd.results[phase]);
        simd.phase++;
        simd.at_collective = 0;
        simd.ready = kAll;
    } else {
        Lane &lane = machine->lanes[thread];
        lane.site = site;
        simd.ready &= ~(1u << l);
        yield(lane);
    }
    return simd.results[phase] + l * kSlotBytes;
}

bool simd_is_first(const Site &site) {
    uint32_t thread = machine->current;
    Lane &lane = machine->lanes[thread];
    Simdgroup &simd = machine->simd[thread / kLanes];
    lane.site = site;
    simd.ready &= ~(1u << thread % kLanes);
    simd.at_is_first |= 1u << thread % kLanes;
    yield(lane);
    return lane.is_first;
}

std::string run(const Launch &launch) {
    std::lock_guard<std::mutex> lock(machine_mutex);
    if (!machine) machine = make_machine();
    if (!machine) return "the emulated device has no memory for its threads";
    Machine &m = *machine;
    m.launch = &launch;
    m.threads = launch.threads;
    m.simdgroups = launch.threads / kLanes;
    m.random = 0x9E3779B9u;
    m.error.clear();
    m.scheduler_bottom = nullptr; /* launches may come from different threads */
    const Dim3 &grid = launch.threadgroups;
    uint64_t count = uint64_t(grid.x) * grid.y * grid.z;
    std::memset(m.threadgroup, 0xFF, kThreadgroupBytes);
    uint64_t shift = launch.order == LaneOrder::random ? next_random() % count : 0;
    for (uint64_t n = 0; n < count && m.error.empty(); n++) {
        uint64_t index = launch.order == LaneOrder::reverse ? count - 1 - n : (n + shift) % count;
        m.position = {uint32_t(index % grid.x), uint32_t(index / grid.x % grid.y), uint32_t(index / grid.x / grid.y)};
        run_threadgroup(launch.threadgroup_bytes);
    }
    return m.error;
}

const Kernel *kernels() { return registered; }

Registration::Registration(Kernel &kernel) {
    kernel.next = registered;
    registered = &kernel;
}

}  // namespace emu
