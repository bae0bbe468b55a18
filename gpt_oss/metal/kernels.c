#include "kernels.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert(sizeof(struct embedding_args) == 12, "as in the kernels");
_Static_assert(sizeof(struct rmsnorm_args) == 12, "as in the kernels");
_Static_assert(sizeof(struct dense_args) == 20, "as in the kernels");
_Static_assert(sizeof(struct rotary_args) == 20, "as in the kernels");
_Static_assert(sizeof(struct attention_args) == 24, "as in the kernels");
_Static_assert(sizeof(struct topk_args) == 12, "as in the kernels");
_Static_assert(sizeof(struct experts_args) == 40, "as in the kernels");
_Static_assert(sizeof(struct combine_args) == 16, "as in the kernels");
_Static_assert(sizeof(struct softmax_args) == 12, "as in the kernels");
_Static_assert(sizeof(struct argmax_args) == 8, "as in the kernels");
_Static_assert(sizeof(struct sample_args) == 12, "as in the kernels");

enum { SIMDGROUP = GPU_SIMD_WIDTH, TILE_WIDTH = 32, TILE_THREAD_COUNT = 128, PREFILL_QUERIES = 16 };

/* Beyond some threadgroups per token the device is full, and more only cost their start. */
enum { DENSE_FEW_THREADGROUPS = 1024 };

enum kernel_index {
    EMBEDDING,
    RMSNORM,
    DENSE_FEW,
    DENSE_MANY,
    ROTARY,
    ATTENTION_DECODE,
    ATTENTION_PREFILL,
    TOPK,
    EXPERTS_MLP1_FEW,
    EXPERTS_MLP2_FEW,
    EXPERTS_COUNT,
    EXPERTS_ORDER,
    EXPERTS_MLP1_MANY,
    EXPERTS_MLP2_MANY,
    COMBINE,
    SOFTMAX,
    ARGMAX,
    SAMPLE,
    NUM_KERNELS
};

static const char *const kernel_names[NUM_KERNELS] = {
    "embedding",         "rmsnorm",           "dense_few",        "dense_many",       "rotary",
    "attention_decode",  "attention_prefill", "topk",             "experts_mlp1_few", "experts_mlp2_few",
    "experts_count",     "experts_order",     "experts_mlp1_many", "experts_mlp2_many", "combine",
    "softmax",           "argmax",            "sample",
};

struct kernels {
    gpu_kernel *kernels[NUM_KERNELS];
};

bool kernels_create(gpu_device *device, kernels **all, gpu_error *error) {
    kernels *made = calloc(1, sizeof(*made));
    if (!made) {
        snprintf(error->text, sizeof(error->text), "out of memory");
        return false;
    }
    for (int i = 0; i < NUM_KERNELS; i++) {
        if (!gpu_kernel_create(device, kernel_names[i], &made->kernels[i], error)) {
            kernels_release(made);
            return false;
        }
    }
    *all = made;
    return true;
}

void kernels_release(kernels *all) {
    if (!all) return;
    for (int i = 0; i < NUM_KERNELS; i++) gpu_kernel_release(all->kernels[i]);
    free(all);
}

/* ---- checks ---- */

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static bool fail(gpu_error *error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof(error->text), format, arguments);
    va_end(arguments);
    return false;
}

enum { FP32 = 4, U32 = 4, BF16 = 2, BYTE = 1 };

/* Whether a slice has room for rows · columns elements and starts at a multiple of `alignment`. */
static bool holds(gpu_slice slice, uint64_t rows, uint64_t columns, unsigned element_bytes, unsigned alignment,
                  const char *what, gpu_error *error) {
    if (!slice.buffer) return fail(error, "%s: no buffer", what);
    if (slice.offset % alignment) return fail(error, "%s: offset %zu is not a multiple of %u", what, slice.offset, alignment);
    size_t bytes = gpu_buffer_bytes(slice.buffer);
    uint64_t elements = slice.offset < bytes ? (bytes - slice.offset) / element_bytes : 0;
    if (columns && rows > elements / columns) {
        return fail(error, "%s: %llu x %llu elements do not fit into %llu", what, (unsigned long long)rows,
                    (unsigned long long)columns, (unsigned long long)elements);
    }
    return true;
}

static bool positive(uint64_t count, const char *what, gpu_error *error) {
    return count ? true : fail(error, "%s must be positive", what);
}

/* ---- dispatch ---- */

static uint32_t divide_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

/* As many threads as wanted and allowed. */
static uint32_t threads_of(const kernels *all, enum kernel_index index, uint32_t wanted) {
    uint32_t most = gpu_kernel_max_threads(all->kernels[index]);
    return (wanted < most ? wanted : most) / SIMDGROUP * SIMDGROUP;
}

#define COUNT(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

static bool dispatch(kernels *all, gpu_commands *commands, enum kernel_index index, const uint32_t grid[3],
                     uint32_t threads, const void *args, size_t args_bytes, const gpu_slice *buffers,
                     uint32_t num_buffers, gpu_error *error) {
    gpu_dispatch launch = {
        .threadgroups = {grid[0], grid[1], grid[2]},
        .threads = threads,
        .args = args,
        .args_bytes = args_bytes,
        .buffers = buffers,
        .num_buffers = num_buffers,
    };
    return gpu_commands_dispatch(commands, all->kernels[index], &launch, error);
}

/* For kernels whose tiles are made for one number of threads. */
static bool dispatch_tiles(kernels *all, gpu_commands *commands, enum kernel_index index, const uint32_t grid[3],
                           const void *args, size_t args_bytes, const gpu_slice *buffers, uint32_t num_buffers,
                           gpu_error *error) {
    uint32_t most = gpu_kernel_max_threads(all->kernels[index]);
    if (most < TILE_THREAD_COUNT) {
        return fail(error, "kernel %s needs %d threads per threadgroup, this device allows %u", kernel_names[index],
                    TILE_THREAD_COUNT, most);
    }
    return dispatch(all, commands, index, grid, TILE_THREAD_COUNT, args, args_bytes, buffers, num_buffers, error);
}

/* ---- launchers ---- */

bool launch_embedding(kernels *all, gpu_commands *commands, struct embedding_args args, gpu_slice tokens,
                      gpu_slice table, gpu_slice output, gpu_error *error) {
    if (!positive(args.num_tokens, "embedding: num_tokens", error) || !positive(args.hidden, "embedding: hidden", error) ||
        !holds(tokens, args.num_tokens, 1, U32, 4, "embedding: tokens", error) ||
        !holds(table, args.num_rows, args.hidden, BF16, 2, "embedding: table", error) ||
        !holds(output, args.num_tokens, args.hidden, FP32, 4, "embedding: output", error)) {
        return false;
    }
    uint32_t threads = threads_of(all, EMBEDDING, 256);
    gpu_slice buffers[] = {tokens, table, output};
    uint32_t grid[] = {divide_up(args.hidden, threads), args.num_tokens, 1};
    return dispatch(all, commands, EMBEDDING, grid, threads, &args, sizeof(args), buffers, COUNT(buffers), error);
}

bool launch_rmsnorm(kernels *all, gpu_commands *commands, struct rmsnorm_args args, gpu_slice input, gpu_slice gain,
                    gpu_slice output, gpu_error *error) {
    if (!positive(args.num_rows, "rmsnorm: num_rows", error) || !positive(args.hidden, "rmsnorm: hidden", error) ||
        !holds(input, args.num_rows, args.hidden, FP32, 4, "rmsnorm: input", error) ||
        !holds(gain, 1, args.hidden, BF16, 2, "rmsnorm: gain", error) ||
        !holds(output, args.num_rows, args.hidden, FP32, 4, "rmsnorm: output", error)) {
        return false;
    }
    gpu_slice buffers[] = {input, gain, output};
    uint32_t grid[] = {args.num_rows, 1, 1};
    return dispatch(all, commands, RMSNORM, grid, threads_of(all, RMSNORM, 512), &args, sizeof(args), buffers,
                    COUNT(buffers), error);
}

static bool check_dense(const struct dense_args *args, gpu_slice input, gpu_slice weight, gpu_slice bias,
                        gpu_slice output, gpu_error *error) {
    if (!positive(args->num_tokens, "dense: num_tokens", error) || !positive(args->inputs, "dense: inputs", error) ||
        !positive(args->outputs, "dense: outputs", error)) {
        return false;
    }
    if (args->inputs % 4) return fail(error, "dense: inputs must be a multiple of 4, not %u", args->inputs);
    return holds(input, args->num_tokens, args->inputs, FP32, 16, "dense: input", error) &&
           holds(weight, args->outputs, args->inputs, BF16, 8, "dense: weight", error) &&
           (!args->has_bias || holds(bias, 1, args->outputs, BF16, 2, "dense: bias", error)) &&
           holds(output, args->num_tokens, args->outputs, FP32, 4, "dense: output", error);
}

bool launch_dense_few(kernels *all, gpu_commands *commands, struct dense_args args, gpu_slice input, gpu_slice weight,
                      gpu_slice bias, gpu_slice output, gpu_error *error) {
    if (!check_dense(&args, input, weight, bias, output, error)) return false;
    uint32_t threads = threads_of(all, DENSE_FEW, 256);
    gpu_slice buffers[] = {input, weight, args.has_bias ? bias : weight, output};
    uint32_t threadgroups = divide_up(args.outputs, threads / SIMDGROUP * 4);
    if (threadgroups > DENSE_FEW_THREADGROUPS) threadgroups = DENSE_FEW_THREADGROUPS;
    uint32_t grid[] = {threadgroups, args.num_tokens, 1};
    return dispatch(all, commands, DENSE_FEW, grid, threads, &args, sizeof(args), buffers, COUNT(buffers), error);
}

bool launch_dense_many(kernels *all, gpu_commands *commands, struct dense_args args, gpu_slice input, gpu_slice weight,
                       gpu_slice bias, gpu_slice output, gpu_error *error) {
    if (!check_dense(&args, input, weight, bias, output, error)) return false;
    gpu_slice buffers[] = {input, weight, args.has_bias ? bias : weight, output};
    uint32_t grid[] = {divide_up(args.outputs, TILE_WIDTH), divide_up(args.num_tokens, TILE_WIDTH), 1};
    return dispatch_tiles(all, commands, DENSE_MANY, grid, &args, sizeof(args), buffers, COUNT(buffers), error);
}

bool launch_dense(kernels *all, gpu_commands *commands, struct dense_args args, gpu_slice input, gpu_slice weight,
                  gpu_slice bias, gpu_slice output, gpu_error *error) {
    return (args.num_tokens < KERNELS_MANY_TOKENS ? launch_dense_few : launch_dense_many)(
        all, commands, args, input, weight, bias, output, error);
}

bool launch_rotary(kernels *all, gpu_commands *commands, struct rotary_args args, gpu_slice qkv, gpu_slice table,
                   gpu_slice keys, gpu_slice values, gpu_error *error) {
    if (!positive(args.num_tokens, "rotary: num_tokens", error) ||
        !positive(args.num_q_heads, "rotary: num_q_heads", error) ||
        !positive(args.num_kv_heads, "rotary: num_kv_heads", error)) {
        return false;
    }
    if (args.num_tokens > args.capacity) {
        return fail(error, "rotary: %u tokens exceed the cache of %u positions", args.num_tokens, args.capacity);
    }
    uint64_t heads = (uint64_t)args.num_q_heads + 2 * (uint64_t)args.num_kv_heads;
    uint64_t positions = (uint64_t)args.first_position + args.num_tokens;
    uint64_t row = (uint64_t)args.num_kv_heads * HEAD_DIM;
    if (!holds(qkv, args.num_tokens, heads * HEAD_DIM, FP32, 16, "rotary: qkv", error) ||
        !holds(table, positions, HEAD_DIM, FP32, 16, "rotary: table", error) ||
        !holds(keys, args.capacity, row, BF16, 16, "rotary: keys", error) ||
        !holds(values, args.capacity, row, BF16, 16, "rotary: values", error)) {
        return false;
    }
    uint32_t threads = threads_of(all, ROTARY, 256);
    gpu_slice buffers[] = {qkv, table, keys, values};
    uint32_t grid[] = {divide_up((uint32_t)heads, threads / SIMDGROUP), args.num_tokens, 1};
    return dispatch(all, commands, ROTARY, grid, threads, &args, sizeof(args), buffers, COUNT(buffers), error);
}

static bool check_attention(const struct attention_args *args, gpu_slice qkv, gpu_slice keys, gpu_slice values,
                            gpu_slice sinks, gpu_slice output, gpu_error *error) {
    if (!positive(args->num_tokens, "attention: num_tokens", error) ||
        !positive(args->num_q_heads, "attention: num_q_heads", error) ||
        !positive(args->num_kv_heads, "attention: num_kv_heads", error)) {
        return false;
    }
    if (args->num_q_heads % args->num_kv_heads) {
        return fail(error, "attention: %u query heads cannot share %u key-value heads", args->num_q_heads,
                    args->num_kv_heads);
    }
    uint64_t needed = (uint64_t)args->first_position + args->num_tokens;
    if (needed > UINT32_MAX) return fail(error, "attention: position %llu exceeds 32 bits", (unsigned long long)needed);
    uint64_t in_window = (uint64_t)args->window - 1 + args->num_tokens;
    if (args->window && in_window < needed) needed = in_window;
    if (needed > args->capacity) {
        return fail(error, "attention: %llu keys are seen but the cache holds %u", (unsigned long long)needed,
                    args->capacity);
    }
    uint64_t heads = (uint64_t)args->num_q_heads + 2 * (uint64_t)args->num_kv_heads;
    uint64_t row = (uint64_t)args->num_kv_heads * HEAD_DIM;
    return holds(qkv, args->num_tokens, heads * HEAD_DIM, FP32, 16, "attention: qkv", error) &&
           holds(keys, args->capacity, row, BF16, 16, "attention: keys", error) &&
           holds(values, args->capacity, row, BF16, 16, "attention: values", error) &&
           holds(sinks, 1, args->num_q_heads, BF16, 2, "attention: sinks", error) &&
           holds(output, args->num_tokens, (uint64_t)args->num_q_heads * HEAD_DIM, FP32, 16, "attention: output", error);
}

bool launch_attention_decode(kernels *all, gpu_commands *commands, struct attention_args args, gpu_slice qkv,
                             gpu_slice keys, gpu_slice values, gpu_slice sinks, gpu_slice output, gpu_error *error) {
    if (!check_attention(&args, qkv, keys, values, sinks, output, error)) return false;
    gpu_slice buffers[] = {qkv, keys, values, sinks, output};
    uint32_t grid[] = {args.num_q_heads, args.num_tokens, 1};
    return dispatch(all, commands, ATTENTION_DECODE, grid, threads_of(all, ATTENTION_DECODE, 256), &args, sizeof(args),
                    buffers, COUNT(buffers), error);
}

bool launch_attention_prefill(kernels *all, gpu_commands *commands, struct attention_args args, gpu_slice qkv,
                              gpu_slice keys, gpu_slice values, gpu_slice sinks, gpu_slice output, gpu_error *error) {
    if (!check_attention(&args, qkv, keys, values, sinks, output, error)) return false;
    gpu_slice buffers[] = {qkv, keys, values, sinks, output};
    uint32_t grid[] = {args.num_q_heads, divide_up(args.num_tokens, PREFILL_QUERIES), 1};
    return dispatch_tiles(all, commands, ATTENTION_PREFILL, grid, &args, sizeof(args), buffers, COUNT(buffers), error);
}

bool launch_attention(kernels *all, gpu_commands *commands, struct attention_args args, gpu_slice qkv, gpu_slice keys,
                      gpu_slice values, gpu_slice sinks, gpu_slice output, gpu_error *error) {
    return (args.num_tokens < KERNELS_MANY_TOKENS ? launch_attention_decode : launch_attention_prefill)(
        all, commands, args, qkv, keys, values, sinks, output, error);
}

bool launch_topk(kernels *all, gpu_commands *commands, struct topk_args args, gpu_slice scores, gpu_slice chosen,
                 gpu_slice weights, gpu_error *error) {
    if (!positive(args.num_tokens, "topk: num_tokens", error) || !positive(args.num_active, "topk: num_active", error)) {
        return false;
    }
    if (args.num_active > args.num_experts) {
        return fail(error, "topk: %u of %u experts cannot be chosen", args.num_active, args.num_experts);
    }
    if (!holds(scores, args.num_tokens, args.num_experts, FP32, 4, "topk: scores", error) ||
        !holds(chosen, args.num_tokens, args.num_active, U32, 4, "topk: chosen", error) ||
        !holds(weights, args.num_tokens, args.num_active, FP32, 4, "topk: weights", error)) {
        return false;
    }
    uint32_t threads = threads_of(all, TOPK, 256);
    gpu_slice buffers[] = {scores, chosen, weights};
    uint32_t grid[] = {divide_up(args.num_tokens, threads / SIMDGROUP), 1, 1};
    return dispatch(all, commands, TOPK, grid, threads, &args, sizeof(args), buffers, COUNT(buffers), error);
}

/* ---- experts ---- */

static uint64_t align16(uint64_t bytes) { return (bytes + 15) / 16 * 16; }

bool experts_layout_fill(experts_layout *layout, gpu_error *error) {
    uint64_t hidden = layout->hidden, intermediate = layout->intermediate;
    if (!hidden || hidden % 32 || !intermediate || intermediate % 32) {
        return fail(error, "MXFP4 experts of %u x %u: both must be multiples of 32", layout->hidden, layout->intermediate);
    }
    uint64_t mlp1_rows = 2 * intermediate;
    uint64_t mlp1_scales = mlp1_rows * hidden / 2;
    uint64_t mlp1_bias = align16(mlp1_scales + mlp1_rows * hidden / 32);
    uint64_t mlp2_blocks = align16(mlp1_bias + mlp1_rows * BF16);
    uint64_t mlp2_scales = mlp2_blocks + hidden * intermediate / 2;
    uint64_t mlp2_bias = align16(mlp2_scales + hidden * intermediate / 32);
    uint64_t stride = align16(mlp2_bias + hidden * BF16);
    if (stride > UINT32_MAX || hidden > UINT32_MAX / 64 || intermediate > UINT32_MAX / 64) {
        return fail(error, "an expert of %u x %u exceeds 4 GiB", layout->hidden, layout->intermediate);
    }
    layout->stride = (uint32_t)stride;
    layout->mlp1_blocks = 0;
    layout->mlp1_scales = (uint32_t)mlp1_scales;
    layout->mlp1_bias = (uint32_t)mlp1_bias;
    layout->mlp2_blocks = (uint32_t)mlp2_blocks;
    layout->mlp2_scales = (uint32_t)mlp2_scales;
    layout->mlp2_bias = (uint32_t)mlp2_bias;
    return true;
}

/* Where the parts of the experts' scratch memory start, each a multiple of 16. */
struct experts_scratch {
    uint64_t activations; /* fp32 [assignments, intermediate] */
    uint64_t results;     /* fp32 [assignments, hidden] */
    uint64_t order;       /* u32 [assignments] */
    uint64_t counts;      /* u32 [num_experts] */
    uint64_t tiles;       /* u32 [max_tiles, 3] */
    uint64_t num_tiles;   /* u32 [1] */
    uint64_t bytes;
    uint64_t assignments, max_tiles;
};

static struct experts_scratch scratch_of(const experts_layout *layout, uint32_t num_tokens) {
    struct experts_scratch s = {0};
    s.assignments = (uint64_t)num_tokens * layout->num_active;
    uint64_t used = s.assignments < layout->num_experts ? s.assignments : layout->num_experts;
    s.max_tiles = used + s.assignments / TILE_WIDTH; /* each expert's last tile may be partly filled */
    s.results = align16(s.assignments * layout->intermediate * FP32);
    s.order = align16(s.results + s.assignments * layout->hidden * FP32);
    s.counts = align16(s.order + s.assignments * U32);
    s.tiles = align16(s.counts + (uint64_t)layout->num_experts * U32);
    s.num_tiles = align16(s.tiles + s.max_tiles * 3 * U32);
    s.bytes = s.num_tiles + U32;
    return s;
}

size_t experts_scratch_bytes(const experts_layout *layout, uint32_t num_tokens) {
    return (size_t)scratch_of(layout, num_tokens).bytes;
}

static gpu_slice part(gpu_slice slice, uint64_t offset) {
    slice.offset += (size_t)offset;
    return slice;
}

static struct experts_args mlp1_args(const experts_layout *layout, uint32_t num_tokens) {
    return (struct experts_args){num_tokens,          layout->num_experts, layout->num_active,  layout->hidden,
                                 2 * layout->intermediate, layout->stride, layout->mlp1_blocks, layout->mlp1_scales,
                                 layout->mlp1_bias,   layout->swiglu_limit};
}

static struct experts_args mlp2_args(const experts_layout *layout, uint32_t num_tokens) {
    return (struct experts_args){num_tokens,     layout->num_experts, layout->num_active,  layout->intermediate,
                                 layout->hidden, layout->stride,      layout->mlp2_blocks, layout->mlp2_scales,
                                 layout->mlp2_bias, layout->swiglu_limit};
}

static bool check_experts(const experts_layout *layout, uint32_t num_tokens, gpu_slice input, gpu_slice weights,
                          gpu_slice chosen, gpu_slice gates, gpu_slice scratch, gpu_slice residual, gpu_error *error) {
    if (!positive(num_tokens, "experts: num_tokens", error) ||
        !positive(layout->num_active, "experts: num_active", error) ||
        !positive(layout->num_experts, "experts: num_experts", error)) {
        return false;
    }
    experts_layout expected = *layout;
    if (!experts_layout_fill(&expected, error)) return false;
    struct experts_scratch s = scratch_of(layout, num_tokens);
    if (s.assignments > INT32_MAX) {
        return fail(error, "experts: %u tokens with %u experts each are too many", num_tokens, layout->num_active);
    }
    return holds(input, num_tokens, layout->hidden, FP32, 16, "experts: input", error) &&
           holds(weights, layout->num_experts, layout->stride, BYTE, 16, "experts: weights", error) &&
           holds(chosen, num_tokens, layout->num_active, U32, 4, "experts: chosen", error) &&
           holds(gates, num_tokens, layout->num_active, FP32, 4, "experts: gates", error) &&
           holds(scratch, s.bytes, 1, BYTE, 16, "experts: scratch", error) &&
           holds(residual, num_tokens, layout->hidden, FP32, 4, "experts: residual", error);
}

static bool launch_combine(kernels *all, gpu_commands *commands, const experts_layout *layout, uint32_t num_tokens,
                           gpu_slice results, gpu_slice chosen, gpu_slice gates, gpu_slice residual, gpu_error *error) {
    struct combine_args args = {num_tokens, layout->num_experts, layout->num_active, layout->hidden};
    uint32_t threads = threads_of(all, COMBINE, 256);
    gpu_slice buffers[] = {results, chosen, gates, residual};
    uint32_t grid[] = {divide_up(args.hidden, threads), num_tokens, 1};
    return dispatch(all, commands, COMBINE, grid, threads, &args, sizeof(args), buffers, COUNT(buffers), error);
}

bool launch_experts_few(kernels *all, gpu_commands *commands, const experts_layout *layout, uint32_t num_tokens,
                        gpu_slice input, gpu_slice weights, gpu_slice chosen, gpu_slice gates, gpu_slice scratch,
                        gpu_slice residual, gpu_error *error) {
    if (!check_experts(layout, num_tokens, input, weights, chosen, gates, scratch, residual, error)) return false;
    struct experts_scratch s = scratch_of(layout, num_tokens);
    gpu_slice activations = part(scratch, s.activations), results = part(scratch, s.results);
    struct experts_args mlp1 = mlp1_args(layout, num_tokens), mlp2 = mlp2_args(layout, num_tokens);

    uint32_t threads = threads_of(all, EXPERTS_MLP1_FEW, 256);
    gpu_slice mlp1_buffers[] = {input, chosen, weights, activations};
    uint32_t mlp1_grid[] = {divide_up(mlp1.outputs, threads / SIMDGROUP * 4), (uint32_t)s.assignments, 1};
    if (!dispatch(all, commands, EXPERTS_MLP1_FEW, mlp1_grid, threads, &mlp1, sizeof(mlp1), mlp1_buffers,
                  COUNT(mlp1_buffers), error)) {
        return false;
    }
    threads = threads_of(all, EXPERTS_MLP2_FEW, 256);
    gpu_slice mlp2_buffers[] = {activations, chosen, weights, results};
    uint32_t mlp2_grid[] = {divide_up(mlp2.outputs, threads / SIMDGROUP * 4), (uint32_t)s.assignments, 1};
    return dispatch(all, commands, EXPERTS_MLP2_FEW, mlp2_grid, threads, &mlp2, sizeof(mlp2), mlp2_buffers,
                    COUNT(mlp2_buffers), error) &&
           launch_combine(all, commands, layout, num_tokens, results, chosen, gates, residual, error);
}

bool launch_experts_many(kernels *all, gpu_commands *commands, const experts_layout *layout, uint32_t num_tokens,
                         gpu_slice input, gpu_slice weights, gpu_slice chosen, gpu_slice gates, gpu_slice scratch,
                         gpu_slice residual, gpu_error *error) {
    if (!check_experts(layout, num_tokens, input, weights, chosen, gates, scratch, residual, error)) return false;
    struct experts_scratch s = scratch_of(layout, num_tokens);
    gpu_slice activations = part(scratch, s.activations), results = part(scratch, s.results);
    gpu_slice order = part(scratch, s.order), counts = part(scratch, s.counts);
    gpu_slice tiles = part(scratch, s.tiles), num_tiles = part(scratch, s.num_tiles);
    struct experts_args mlp1 = mlp1_args(layout, num_tokens), mlp2 = mlp2_args(layout, num_tokens);

    uint32_t threads = threads_of(all, EXPERTS_COUNT, 256);
    gpu_slice count_buffers[] = {chosen, counts};
    uint32_t count_grid[] = {divide_up(layout->num_experts, threads), 1, 1};
    if (!dispatch(all, commands, EXPERTS_COUNT, count_grid, threads, &mlp1, sizeof(mlp1), count_buffers,
                  COUNT(count_buffers), error)) {
        return false;
    }
    threads = threads_of(all, EXPERTS_ORDER, 256);
    gpu_slice order_buffers[] = {chosen, counts, order, tiles, num_tiles};
    uint32_t order_grid[] = {divide_up(layout->num_experts, threads), 1, 1};
    if (!dispatch(all, commands, EXPERTS_ORDER, order_grid, threads, &mlp1, sizeof(mlp1), order_buffers,
                  COUNT(order_buffers), error)) {
        return false;
    }
    gpu_slice mlp1_buffers[] = {input, order, tiles, num_tiles, weights, activations};
    uint32_t mlp1_grid[] = {divide_up(mlp1.outputs, TILE_WIDTH), (uint32_t)s.max_tiles, 1};
    if (!dispatch_tiles(all, commands, EXPERTS_MLP1_MANY, mlp1_grid, &mlp1, sizeof(mlp1), mlp1_buffers,
                        COUNT(mlp1_buffers), error)) {
        return false;
    }
    gpu_slice mlp2_buffers[] = {activations, order, tiles, num_tiles, weights, results};
    uint32_t mlp2_grid[] = {divide_up(mlp2.outputs, TILE_WIDTH), (uint32_t)s.max_tiles, 1};
    return dispatch_tiles(all, commands, EXPERTS_MLP2_MANY, mlp2_grid, &mlp2, sizeof(mlp2), mlp2_buffers,
                          COUNT(mlp2_buffers), error) &&
           launch_combine(all, commands, layout, num_tokens, results, chosen, gates, residual, error);
}

bool launch_experts(kernels *all, gpu_commands *commands, const experts_layout *layout, uint32_t num_tokens,
                    gpu_slice input, gpu_slice weights, gpu_slice chosen, gpu_slice gates, gpu_slice scratch,
                    gpu_slice residual, gpu_error *error) {
    return (num_tokens < KERNELS_MANY_TOKENS ? launch_experts_few : launch_experts_many)(
        all, commands, layout, num_tokens, input, weights, chosen, gates, scratch, residual, error);
}

/* ---- logits to tokens ---- */

bool launch_softmax(kernels *all, gpu_commands *commands, struct softmax_args args, gpu_slice logits,
                    gpu_slice probabilities, gpu_error *error) {
    if (!positive(args.num_rows, "softmax: num_rows", error) || !positive(args.num_tokens, "softmax: num_tokens", error) ||
        !holds(logits, args.num_rows, args.num_tokens, FP32, 4, "softmax: logits", error) ||
        !holds(probabilities, args.num_rows, args.num_tokens, FP32, 4, "softmax: probabilities", error)) {
        return false;
    }
    if (!(args.temperature > 0)) return fail(error, "softmax: the temperature must be positive");
    gpu_slice buffers[] = {logits, probabilities};
    uint32_t grid[] = {args.num_rows, 1, 1};
    return dispatch(all, commands, SOFTMAX, grid, threads_of(all, SOFTMAX, 512), &args, sizeof(args), buffers,
                    COUNT(buffers), error);
}

bool launch_argmax(kernels *all, gpu_commands *commands, struct argmax_args args, gpu_slice logits, gpu_slice token,
                   gpu_error *error) {
    if (!positive(args.num_rows, "argmax: num_rows", error) || !positive(args.num_tokens, "argmax: num_tokens", error) ||
        !holds(logits, args.num_rows, args.num_tokens, FP32, 4, "argmax: logits", error) ||
        !holds(token, args.num_rows, 1, U32, 4, "argmax: token", error)) {
        return false;
    }
    gpu_slice buffers[] = {logits, token};
    uint32_t grid[] = {args.num_rows, 1, 1};
    return dispatch(all, commands, ARGMAX, grid, threads_of(all, ARGMAX, 512), &args, sizeof(args), buffers,
                    COUNT(buffers), error);
}

bool launch_sample(kernels *all, gpu_commands *commands, struct sample_args args, gpu_slice probabilities,
                   gpu_slice token, gpu_error *error) {
    if (!positive(args.num_tokens, "sample: num_tokens", error) ||
        !holds(probabilities, 1, args.num_tokens, FP32, 4, "sample: probabilities", error) ||
        !holds(token, 1, 1, U32, 4, "sample: token", error)) {
        return false;
    }
    if (!(args.top_p > 0)) return fail(error, "sample: top_p must be positive");
    if (!(args.point >= 0 && args.point < 1)) return fail(error, "sample: the random number must be in [0, 1)");
    gpu_slice buffers[] = {probabilities, token};
    uint32_t grid[] = {1, 1, 1};
    return dispatch(all, commands, SAMPLE, grid, threads_of(all, SAMPLE, 512), &args, sizeof(args), buffers,
                    COUNT(buffers), error);
}

static uint64_t mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

float sample_point(uint64_t seed, uint64_t step) {
    uint64_t bits = mix64(mix64(seed) + (step + 1) * 0x9E3779B97F4A7C15u);
    return (float)(bits >> 40) * 0x1p-24f;
}
