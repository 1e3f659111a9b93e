/* Rows of floats times a weight of 16 or 32 bits. */

#include "product.h"
#include "registers.h"

#define DEEP 4 /* registers of floats at once */

/* A row's half of a step from input k on, of rows whose steps are laid `beside` steps apart. */
void lay_brains(const float *x, int64_t in, char *laid, int64_t r, int64_t beside)
{
    int16_t *row = (int16_t *)laid + r * STEP;
    for (int64_t k = 0; k < in; k += HALF_STEP)
        _mm256_storeu_si256((__m256i *)(row + k / STEP * STEP * beside + k % STEP), shortened(x + k));
}

void lay_floats(const float *x, int64_t in, char *laid, int64_t r, int64_t beside)
{
    float *row = (float *)laid + r * LANES;
    for (int64_t k = 0; k < in; k += LANES)
        _mm256_storeu_ps(row + k * beside, _mm256_loadu_ps(x + k));
}

/* `add_steps` in floats, of weights in so many bits, `row` bytes apart. */
INLINE void add_floats(const float *x, const char *w, int64_t row, const int bits, const int rows, const int outs,
                       const int count, const int64_t ask[OUTS], Both sums[ROWS][OUTS / 2])
{
    for (int c = 0; c < outs; c++)
        for (int at = 0; at < count * bits; at += LINE)
            _mm_prefetch(w + ask[c] + at, _MM_HINT_T0);
    for (int i = 0; i < count; i++) {
        Both some[OUTS / 2];
        for (int c = 0; c < outs; c += 2)
            some[c / 2] = both(w + c * row + i * bits, row, bits, outs); /* LANES of them are `bits` bytes */
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < outs; c += 2)
                add_float_products(&sums[r][c / 2], x + (i * rows + r) * LANES, some[c / 2], outs);
    }
}

/* `dot` in floats: eight sums over the inputs, in their order, whatever rows there are. */
INLINE void dot_floats(const float *x, const char *w, int64_t in, const int bits, const int rows, const int outs,
                       const int64_t ask[OUTS], __m128 sums[ROWS / 2][OUTS / 2])
{
    const int64_t row = in * bits / 8;
    Both acc[ROWS][OUTS / 2];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < OUTS / 2; c++)
            acc[r][c] = (Both){0};
    int64_t k = 0;
    for (; k + DEEP * LANES <= in; k += DEEP * LANES)
        add_floats(x + k * rows, w + k * bits / 8, row, bits, rows, outs, DEEP, ask, acc);
    for (; k < in; k += LANES)
        add_floats(x + k * rows, w + k * bits / 8, row, bits, rows, outs, 1, ask, acc);
    for (int r = 0; r < rows; r += 2)
        for (int c = 0; c < outs; c += 2) {
            const Both one = acc[r][c / 2], two = acc[r + 1][c / 2];
            sums[r / 2][c / 2] = four_sums(of_first(one), of_second(one), of_first(two), of_second(two));
        }
}

/* `dot_floats` in bfloat16, of rows laid as whole numbers are. */
INLINE void dot_brains(const int16_t *x, const int16_t *w, int64_t in, const int rows, const int outs,
                       const int64_t ask[OUTS], __m128 sums[ROWS / 2][OUTS / 2])
{
    Sums acc[ROWS][OUTS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < OUTS; c++)
            acc[r][c] = (Sums){0};
    for (int64_t k = 0; k < in; k += STEP) {
        Short some[OUTS];
        for (int c = 0; c < outs; c++) {
            _mm_prefetch((const char *)(w + k) + ask[c], _MM_HINT_T0);
            some[c] = shorts(w + c * in + k);
        }
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < outs; c++)
                add_brains(&acc[r][c], x + k * rows + r * STEP, some[c]);
    }
    for (int r = 0; r < rows; r += 2)
        for (int c = 0; c < outs; c += 2)
            sums[r / 2][c / 2] = four_sums(folded_floats(acc[r][c]), folded_floats(acc[r][c + 1]),
                                           folded_floats(acc[r + 1][c]), folded_floats(acc[r + 1][c + 1]));
}

/* Two floats, twice. */
INLINE __m128 pair(const float *two)
{
    return _mm_castpd_ps(_mm_load1_pd((const double *)two));
}

/* Rows m and, of two, m + 1 of outputs j and, of two, j + 1. */
INLINE void finish(const Product *p, int64_t m, int64_t j, __m128 sums, const int rows, const int outs)
{
    const Weight *w = p->w;
    const int64_t at = m * w->out + j, below = at + (rows - 1) * w->out;
    if (w->bias)
        sums = _mm_add_ps(sums, outs == 2 ? pair(w->bias + j) : _mm_set1_ps(w->bias[j]));
    if (outs == 2) {
        if (p->residual) {
            const __m128 first = _mm_loadl_pi(_mm_setzero_ps(), (const __m64 *)(p->residual + at));
            sums = _mm_add_ps(sums, _mm_loadh_pi(first, (const __m64 *)(p->residual + below)));
        }
        if (rows == 2)
            _mm_storeh_pi((__m64 *)(p->y + below), sums);
        _mm_storel_pi((__m64 *)(p->y + at), sums);
    } else {
        if (rows == 2)
            p->y[below] = sums[2] + (p->residual ? p->residual[below] : 0.0f);
        p->y[at] = sums[0] + (p->residual ? p->residual[at] : 0.0f);
    }
}

/* Rows m to m + rows of outputs j to j + outs. */
INLINE void block(const Product *p, int64_t m, int64_t j, const int rows, const int outs, const int64_t ask[OUTS])
{
    __m128 sums[ROWS / 2][OUTS / 2];
    const int64_t in = p->w->in;
    const char *w = (const char *)p->w->numbers + j * row_bytes(p->w);
    const char *a = (const char *)p->rows.numbers + m * laid_bytes(p->w);
    if (p->w->brain)
        dot_brains((const int16_t *)a, (const int16_t *)w, in, rows, outs, ask, sums);
    else if (p->w->bits == 16)
        dot_floats((const float *)a, w, in, 16, rows, outs, ask, sums);
    else
        dot_floats((const float *)a, w, in, 32, rows, outs, ask, sums);
    for (int r = 0; r < rows; r += 2)
        for (int c = 0; c < outs; c += 2)
            finish(p, m + r, j + c, sums[r / 2][c / 2], rows - r > 1 ? 2 : 1, outs - c > 1 ? 2 : 1);
}

void band_of_floats(const Product *p, int64_t m, int64_t last, int64_t j, int64_t end)
{
    const int64_t row = row_bytes(p->w), next = end < p->w->out ? (end - j) * row : 0;
    const int once = last - m <= ROWS, lone = last - m == 1;
    for (int64_t pass = 0; m < last; m += ROWS, pass++) {
        const int64_t rows = last - m < ROWS ? last - m : ROWS;
        int64_t ask[OUTS], at = j;
        for (int c = 0; c < OUTS; c++) /* where nothing is wanted, what is at hand */
            ask[c] = lone ? AHEAD : once ? (OUTS + c) * row : next && c / (OUTS / 2) == pass ? next + c * row : 0;
        for (; !lone && at + OUTS <= end; at += OUTS)
            BY_ROWS(p, m, at, rows, OUTS, ask)
        for (; at < end; at++) /* one after the other, a row alone reads memory straight on */
            BY_ROWS(p, m, at, rows, 1, ask)
    }
}
