/* Split a loop over threads. */
#ifndef GPTOSS_THREADS_H
#define GPTOSS_THREADS_H

#include <stddef.h>

/* Call work(context, first, last) for consecutive pieces of at most `grain` that cover [0, items). Which thread takes
 * which piece is not determined, so pieces must not depend on each other. Returns when all are done. */
void parallel_for(size_t items, size_t grain, int threads, void (*work)(void *context, size_t first, size_t last),
                  void *context);

#endif
