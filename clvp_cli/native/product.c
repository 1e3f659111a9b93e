/* Rows of floats times a weight of 8, 16 or 32 bits: how rows and outputs are shared out among threads. */

#include "product.h"

#define PANEL (1 << 18) /* numbers of rows, as the third cache holds, and */
#define BAND (1 << 15)  /* bytes of weights, as the first, that are multiplied with each other */
#define LEFT 8          /* one in so many units of outputs is nobody's share, but made by who is first done */

/* GELU by tanh: x times the logistic of 2 u. */
INLINE Sums activated(Sums x)
{
    const Sums one = repeated(1.0f), cube = (x * x) * (x * repeated(0.044715f));
    const Sums twice_u = (x + cube) * repeated(1.59576912f);
    const Sums e = exponential(with_minus(twice_u));
    return x * (where_minus(twice_u, e, one) / (one + e));
}

/* Rows m to last of outputs j to end, whole LANES. */
static void activate(const Product *p, int64_t m, int64_t last, int64_t j, int64_t end)
{
    for (; m < last; m++)
        for (int64_t i = j, some; i < end; i += some) {
            float *y = p->y + m * p->w->out + i;
            some = next_of(end - i);
            store_some(y, activated(loaded_some(y, some)), some);
        }
}

/* Of so many rows those that are multiplied together; and the outputs that are then. */
INLINE int64_t together(const Weight *w, int64_t rows)
{
    return rows <= (w->bits == 8 ? JOINED : MOST) ? rows : MOST;
}

INLINE int64_t unit_of(const Weight *w, int64_t rows)
{
    if (w->bits != 8)
        return BLOCKS * BLOCK;
    return (rows <= MOST ? WHOLE : rows <= JOINED * 3 / 4 ? 2 : 1) * BLOCK;
}

/* A band's sums → y: of the first inputs, with bias and residual; of others, onto these. Rows stay in the first cache
while weights pass, and these in the second. As many weights from `next` on, if it is not NULL, are asked for meanwhile,
and those that pass once, and fast, a second time. */
static void multiply_band(const Product *p, Band band, const char *next)
{
    const Weight *w = p->w;
    const int64_t most = together(w, band.last - band.m), passes = (band.last - band.m + most - 1) / most;
    const int64_t unit = unit_of(w, most);
    for (int64_t m = band.m; m < band.last; m += most) {
        const int64_t rows = band.last - m < most ? band.last - m : most;
        for (int64_t at = band.j, blocks; at < band.end; at += blocks * BLOCK) {
            blocks = ((band.end - at < unit ? band.end - at : unit) + BLOCK - 1) / BLOCK;
            const Asked asked = {passes > 1 ? 0 : next ? NEAR : AHEAD, next ? LINE * blocks / passes : 0, next};
            if (next)
                next += blocks * BLOCK * band.depth * size_of(w) / passes;
            (w->bits == 8 ? block_of_whole : block_of_floats)(p, rows, blocks, band, m, at, asked);
        }
    }
}

/* Rows from m to last are laid as they are multiplied; floats as they are. */
static void lay(const Weight *w, const float *x, int64_t m, int64_t last, Laid room)
{
    if (w->bits == 8)
        lay_whole(x, m, last, w->in, room);
    else if (w->brain)
        lay_brains(x, m, last, w->in, room);
}

/* Rows from m to last of outputs from start to over; `then` is what is asked for behind these. */
static void multiply_panel(const Product *p, int64_t m, int64_t last, int64_t start, int64_t over, const char *then)
{
    const Weight *w = p->w;
    const int64_t unit = unit_of(w, together(w, last - m)), fitting = BAND / (depth_at(w, 0) * size_of(w)) / unit * unit;
    const int64_t wide = fitting > unit ? fitting : unit;
    Band band = {.m = m, .last = last};
    for (band.k = 0; band.k < w->in; band.k += DEPTH) {
        band.depth = depth_at(w, band.k);
        for (band.j = start; band.j < over; band.j = band.end) {
            const char *next = then;
            band.end = band.j + wide < over ? band.j + wide : over;
            if (band.end < over)
                next = numbers_at(w, band.k, band.end);
            else if (band.k + DEPTH < w->in)
                next = numbers_at(w, band.k + DEPTH, start);
            multiply_band(p, band, next);
        }
    }
}

/* y (rows, out) = x (rows, in) times the weight + bias + residual (rows, out) or NULL, which may be y; with `gelu`,
GELU of all that, and out is whole registers. `then`, or NULL, is the weight that is wanted after this one. */
void multiply(const Weight *w, const float *x, int64_t rows, const float *residual, float *y, int gelu, Laid room,
              const Weight *then)
{
    const Product p = {w, x, residual, y, room};
    const int64_t thread = omp_get_thread_num(), unit = unit_of(w, together(w, rows));
    const int64_t units = (w->out + unit - 1) / unit, shared = (units - units / LEFT) * unit;
    const int64_t own = shared < w->out ? shared : w->out, turn = omp_get_num_threads() * unit;
    const int64_t start = share_of(own, BLOCK, thread), over = share_of(own, BLOCK, thread + 1);
    const int64_t panel = PANEL / w->in > MOST ? PANEL / w->in / MOST * MOST : MOST;
    const char *after = then ? numbers_at(then, 0, share_of(then->out, BLOCK, thread)) : NULL;
#pragma omp for schedule(static)
    for (int64_t m = 0; m < rows; m += MOST)
        lay(w, x, m, m + MOST < rows ? m + MOST : rows, room);
    for (int64_t m = 0; m < rows; m += panel) {
        const int64_t last = m + panel < rows ? m + panel : rows, mine = own + thread * unit;
        multiply_panel(&p, m, last, start, over, mine < w->out ? numbers_at(w, 0, mine) : after);
        if (gelu)
            activate(&p, m, last, start, over);
#pragma omp for schedule(dynamic) nowait
        for (int64_t j = own; j < w->out; j += unit) {
            const int64_t end = j + unit < w->out ? j + unit : w->out;
            multiply_panel(&p, m, last, j, end, j + turn < w->out ? numbers_at(w, 0, j + turn) : after);
            if (gelu)
                activate(&p, m, last, j, end);
        }
    }
#pragma omp barrier
}

void multiply_alone(const Weight *w, const float *x, int64_t rows, const float *residual, float *y, Laid room)
{
    const Product p = {w, x, residual, y, room};
    lay(w, x, 0, rows, room);
    multiply_panel(&p, 0, rows, 0, w->out, NULL);
}

size_t room_for_rows(const Weight *w, int64_t rows)
{
    return lines(rows * w->in * sizeof(int16_t)) + lines(rows * sizeof(Rounded)) +
           lines(rows * outliers_in(w->in) * sizeof(Outlier));
}

Laid laid_room(char *memory, const Weight *w, int64_t rows)
{
    char *rounded = memory + lines(rows * w->in * sizeof(int16_t));
    return (Laid){memory, (Rounded *)rounded, (Outlier *)(rounded + lines(rows * sizeof(Rounded)))};
}

/* `multiply` by so many threads. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_product(const Weight *w, const float *x, int64_t rows, const float *residual, float *y, int gelu,
                          int threads)
{
    char *memory = room_of(room_for_rows(w, rows));
    if (!memory)
        return 1;
    const Laid room = laid_room(memory, w, rows);
#pragma omp parallel num_threads(threads)
    multiply(w, x, rows, residual, y, gelu, room, NULL);
    free(memory);
    return 0;
}

/* The outputs of a block of whole numbers, which this build multiplies at once. */
EXPORTED int clvp_block(void)
{
    return BLOCK;
}

/* Whether the processor, and the system on it, have what the build for AVX512-VNNI needs. */
EXPORTED int clvp_can_be_wider(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

/* Whether this build multiplies bfloat16 on this processor. */
EXPORTED int clvp_has_brains(void)
{
    return BLOCK == 16 && __builtin_cpu_supports("avx512bf16");
}
