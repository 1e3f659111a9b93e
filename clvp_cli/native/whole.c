/* Rows of floats, rounded to whole numbers, times a weight of 8 bits. */

#include "product.h"
#include "registers.h"

#define LARGEST 8192.0f /* of an activation, as a whole number: 14 bits */

/* Where inputs k to k + 3 of row r of `beside` lie. */
INLINE char *quad(char *laid, int64_t k, int64_t r, int64_t beside)
{
    return laid + (k / QUAD * beside + r) * QUAD_BYTES;
}

/* No number where the row has one that is none. */
float lay_whole(const float *x, int64_t in, char *laid, int64_t r, int64_t beside)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 high = _mm256_set1_ps(1e-30f), none = _mm256_setzero_ps();
    for (int64_t k = 0; k < in; k += LANES) {
        const __m256 some = _mm256_loadu_ps(x + k);
        high = _mm256_max_ps(_mm256_andnot_ps(sign, some), high);
        none = _mm256_fmadd_ps(some, _mm256_setzero_ps(), none);
    }
    const float step = largest_of(high) / LARGEST + across(none);
    const __m256 unit = _mm256_set1_ps(step);
    for (int64_t k = 0; k < in; k += LANES) {
        const __m256i two = quads(_mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + k), unit)));
        _mm_storel_epi64((__m128i *)quad(laid, k, r, beside), _mm256_castsi256_si128(two));
        _mm_storel_epi64((__m128i *)quad(laid, k + QUAD, r, beside), _mm256_extracti128_si256(two, 1));
    }
    return step;
}

/* sums += `count` inputs, whole lines of a block, of rows laid at a, times pieces at w, `apart` bytes from each other; a
line is asked for beside each of them. */
INLINE void add_lines(const char *a, const int8_t *w, int64_t count, int64_t apart, const int rows, const int pieces,
                      const int64_t ask[STREAMS], Whole sums[ROWS][DIGITS][PIECES])
{
    for (; count > 0; count -= LINE / BLOCK, w += LINE) {
        for (int c = 0; c < STREAMS; c++)
            _mm_prefetch((const char *)w + ask[c], _MM_HINT_T0);
#pragma GCC unroll 2
        for (int k = 0; k < LINE; k += QUAD * BLOCK, a += rows * QUAD_BYTES) {
            Whole some[PIECES];
#pragma GCC unroll 2
            for (int c = 0; c < pieces; c++)
                some[c] = piece(w + k + c * apart);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
                for (int d = 0; d < DIGITS; d++)
                    add_pieces(sums[r][d], a + r * QUAD_BYTES + d * (QUAD_BYTES / DIGITS), some, pieces);
        }
    }
}

/* Sums of row m and `count` outputs, from j on → floats; behind the last output there may be nothing. */
static void finish(const Product *p, int64_t m, int64_t j, const double *whole, int64_t count)
{
    const Weight *w = p->w;
    const __m256 step = _mm256_set1_ps(p->rows.steps[m]);
    for (const int64_t end = j + count; j < end && j < w->out; j += LANES, whole += LANES) {
        const int64_t at = m * w->out + j, left = w->out - j;
        const __m128 low = _mm256_cvtpd_ps(_mm256_loadu_pd(whole));
        __m256 sums = _mm256_set_m128(_mm256_cvtpd_ps(_mm256_loadu_pd(whole + LANES / 2)), low);
        if (left < LANES) {
            for (int64_t i = 0; i < left; i++) {
                const float sum = sums[i] * w->scale[j + i] * p->rows.steps[m] + (w->bias ? w->bias[j + i] : 0.0f);
                p->y[at + i] = sum + (p->residual ? p->residual[at + i] : 0.0f);
            }
            return;
        }
        sums = _mm256_mul_ps(_mm256_mul_ps(sums, _mm256_loadu_ps(w->scale + j)), step);
        if (w->bias)
            sums = _mm256_add_ps(sums, _mm256_loadu_ps(w->bias + j));
        if (p->residual)
            sums = _mm256_add_ps(sums, _mm256_loadu_ps(p->residual + at));
        _mm256_storeu_ps(p->y + at, sums);
    }
}

/* Rows m to m + rows of as many pieces of outputs from j on. Loops are unrolled so that sums stay in registers. */
INLINE void block(const Product *p, int64_t m, int64_t j, const int rows, const int pieces, const int64_t ask[STREAMS])
{
    const int64_t in = p->w->in;
    const char *a = (const char *)p->rows.numbers + m * laid_bytes(p->w);
    const int8_t *w = (const int8_t *)p->w->numbers + j / BLOCK * BLOCK * in + j % BLOCK * QUAD;
    double whole[ROWS][PIECES * PIECE];
    int64_t k = 0;
    do {
        Whole sums[ROWS][DIGITS][PIECES];
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 6
            for (int d = 0; d < DIGITS; d++)
#pragma GCC unroll 6
                for (int c = 0; c < pieces; c++)
                    sums[r][d][c] = started(p->w->starts + j + c * PIECE);
        const char *quads_of_rows = a + k / QUAD * rows * QUAD_BYTES;
        add_lines(quads_of_rows, w + k * BLOCK, in - k < FEW ? in - k : FEW, apart(in), rows, pieces, ask, sums);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 6
            for (int c = 0; c < pieces; c += TOGETHER)
                gather(sums[r][0][c], sums[r][DIGITS - 1][c + TOGETHER - 1], whole[r] + c * PIECE, k > 0);
    } while ((k += FEW) < in);
    for (int r = 0; r < rows; r++)
        finish(p, m + r, j, whole[r], pieces * PIECE);
}

void band_of_whole(const Product *p, int64_t m, int64_t last, int64_t j, int64_t end)
{
    const int64_t in = p->w->in, passes = (last - m + ROWS - 1) / ROWS, next = end < p->w->out ? (end - j) * in : 0;
    for (int64_t pass = 0; m < last; m += ROWS, pass++) {
        const int64_t rows = last - m < ROWS ? last - m : ROWS;
        for (int64_t at = j; at < end;) {
            const int pieces = at + PIECES * PIECE <= end ? PIECES : TOGETHER;
            int64_t ask[STREAMS];
            for (int c = 0; c < STREAMS; c++) /* where nothing is wanted, what is at hand */
                ask[c] = c * apart(in) + (passes == 1 ? AHEAD : (at / BLOCK + c) % passes == pass ? next : 0);
            if (pieces == PIECES) {
                BY_ROWS(p, m, at, rows, PIECES, ask)
            } else {
                BY_ROWS(p, m, at, rows, TOGETHER, ask)
            }
            at += pieces * PIECE;
        }
    }
}
