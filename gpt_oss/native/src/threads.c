/* Threads come from the OpenMP runtime that the process has already loaded (PyTorch brings one), so that two pools
 * never fight for the same cores; without one, from plain POSIX threads for the length of the loop. */
#define _GNU_SOURCE
#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

enum { MAX_THREADS = 256 };

struct loop {
    size_t items, grain;
    void (*work)(void *, size_t, size_t);
    void *context;
    atomic_size_t next;
};

static void take_pieces(void *argument) {
    struct loop *loop = argument;
    for (;;) {
        size_t first = atomic_fetch_add_explicit(&loop->next, loop->grain, memory_order_relaxed);
        if (first >= loop->items) return;
        size_t last = first + loop->grain < loop->items ? first + loop->grain : loop->items;
        loop->work(loop->context, first, last);
    }
}

static void *thread_main(void *argument) {
    take_pieces(argument);
    return NULL;
}

/* GNU OpenMP's entry point: run a function on a team of so many threads, the caller among them. */
typedef void (*gomp_parallel)(void (*)(void *), void *, unsigned, unsigned);

static gomp_parallel find_openmp(void) {
    static _Atomic(gomp_parallel) found;
    static atomic_int searched;
    if (!atomic_load(&searched)) {
        atomic_store(&found, (gomp_parallel)dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        atomic_store(&searched, 1);
    }
    return atomic_load(&found);
}

static void with_posix_threads(struct loop *loop, int threads) {
    pthread_t started[MAX_THREADS];
    int count = 0;
    while (count < threads - 1 && pthread_create(&started[count], NULL, thread_main, loop) == 0) count++;
    take_pieces(loop);
    while (count > 0) pthread_join(started[--count], NULL);
}

void parallel_for(size_t items, size_t grain, int threads, void (*work)(void *, size_t, size_t), void *context) {
    struct loop loop = {items, grain, work, context, 0};
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    gomp_parallel openmp = threads > 1 ? find_openmp() : NULL;
    if (threads <= 1 || items <= grain) take_pieces(&loop);
    else if (openmp) openmp(take_pieces, &loop, (unsigned)threads, 0);
    else with_posix_threads(&loop, threads);
}
