/* Rows of floats times a weight of 8, 16 or 32 bits: how rows and outputs are shared out among threads. */

#include "product.h"
#include "registers.h"

#define UNIT 32         /* outputs that are multiplied together, in any build */
#define PANEL (1 << 18) /* numbers of rows, as the third cache holds, and */
#define BAND (1 << 16)  /* bytes of weights, as the second, that are multiplied with each other */

/* GELU by tanh: x times the logistic of 2 u. */
INLINE __m256 activated(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_mul_ps(x, _mm256_set1_ps(0.044715f)));
    const __m256 twice_u = _mm256_mul_ps(_mm256_add_ps(x, cube), _mm256_set1_ps(1.59576912f));
    const __m256 e = exponential(_mm256_or_ps(sign, twice_u));
    const __m256 part = _mm256_blendv_ps(one, e, twice_u);
    return _mm256_mul_ps(x, _mm256_div_ps(part, _mm256_add_ps(one, e)));
}

/* Rows m to last of outputs j to end, whole registers. */
static void activate(const Product *p, int64_t m, int64_t last, int64_t j, int64_t end)
{
    for (; m < last; m++)
        for (float *y = p->y + m * p->w->out + j, *over = p->y + m * p->w->out + end; y < over; y += LANES)
            _mm256_storeu_ps(y, activated(_mm256_loadu_ps(y)));
}

/* The most that makes up no more than `most`, and one at least. */
static int64_t whole_number_of(int64_t unit, int64_t most)
{
    return most > unit ? most / unit * unit : unit;
}

/* y (rows, out) = x (rows, in) times the weight + bias + residual (rows, out) or NULL, which may be y; with `gelu`,
GELU of all that, and out is whole registers. */
void multiply(const Weight *w, const float *x, int64_t rows, const float *residual, float *y, int gelu, Laid room)
{
    const Product p = {w, residual, y, room};
    const int64_t threads = omp_get_num_threads(), share = (w->out + threads - 1) / threads;
    const int64_t fitting = BAND / row_bytes(w), panel = whole_number_of(ROWS, PANEL / w->in);
    const int64_t band = whole_number_of(w->bits == 8 ? UNIT : LANES, fitting < share ? fitting : share);
#pragma omp for schedule(static)
    for (int64_t m = 0; m < rows; m++) {
        const int64_t first = m / ROWS * ROWS, beside = rows - first < ROWS ? rows - first : ROWS;
        char *laid = (char *)room.numbers + first * laid_bytes(w);
        if (w->bits == 8)
            room.steps[m] = lay_whole(x + m * w->in, w->in, laid, m - first, beside);
        else if (w->brain)
            lay_brains(x + m * w->in, w->in, laid, m - first, beside);
        else
            lay_floats(x + m * w->in, w->in, laid, m - first, beside);
    }
    for (int64_t m = 0; m < rows; m += panel) {
        const int64_t last = m + panel < rows ? m + panel : rows;
#pragma omp for schedule(static) nowait
        for (int64_t j = 0; j < w->out; j += band) {
            const int64_t end = j + band < w->out ? j + band : w->out;
            (w->bits == 8 ? band_of_whole : band_of_floats)(&p, m, last, j, end);
            if (gelu)
                activate(&p, m, last, j, end);
        }
    }
#pragma omp barrier
}

/* The bytes of rows, laid to be multiplied. */
size_t room_for_rows(const Weight *w, int64_t rows)
{
    return (size_t)rows * laid_bytes(w);
}

/* `multiply` by so many threads. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_product(const Weight *w, const float *x, int64_t rows, const float *residual, float *y, int gelu,
                          int threads)
{
    const Laid room = {room_of(room_for_rows(w, rows)), room_of((size_t)rows * sizeof(float))};
    const int lost = !(room.numbers && room.steps);
    if (!lost) {
#pragma omp parallel num_threads(threads)
        multiply(w, x, rows, residual, y, gelu, room);
    }
    free(room.numbers);
    free(room.steps);
    return lost;
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
    return STEP == 32 && __builtin_cpu_supports("avx512bf16");
}
