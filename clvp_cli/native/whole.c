/* Rows of floats, rounded to whole numbers, times a weight of 8 bits. */

#include "product.h"

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

/* sums += `count` inputs, whole lines of a block, of rows laid at a, times pieces at w, `apart` bytes from each other.
*/
INLINE void add_lines(const char *a, const char *w, int64_t count, int64_t apart, const int rows, const int pieces,
                      Asked asked, Whole sums[ROWS][DIGITS][PIECES])
{
    for (; count > 0; count -= LINE / BLOCK, w += LINE, asked.far += asked.pace) {
        for (int c = 0; c < STREAMS; c++)
            _mm_prefetch(w + c * apart + asked.ahead, _MM_HINT_T0);
        _mm_prefetch(asked.far, _MM_HINT_T1);
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

/* Rows m to m + rows of as many pieces of outputs from j on. Loops are unrolled so that sums stay in registers. */
INLINE void block(const Product *p, const int rows, const int pieces, Band band, int64_t m, int64_t j, Asked asked)
{
    const Weight *w = p->w;
    const char *a = (const char *)p->rows.numbers + m * laid_bytes(w) + band.k / QUAD * rows * QUAD_BYTES;
    const char *numbers = numbers_at(w, band.k, j) + j % BLOCK * QUAD;
    Whole sums[ROWS][DIGITS][PIECES];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 6
        for (int d = 0; d < DIGITS; d++)
#pragma GCC unroll 6
            for (int c = 0; c < pieces; c++)
                sums[r][d][c] = started(w->starts + band.k / DEPTH * filled(w) + j + c * PIECE);
    add_lines(a, numbers, band.depth, apart(band.depth), rows, pieces, asked, sums);
    float made[ROWS * PIECES * PIECE];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 6
        for (int c = 0; c < pieces; c += TOGETHER)
            store(made + (r * pieces + c) * PIECE, gathered(sums[r][0][c], sums[r][DIGITS - 1][c + TOGETHER - 1]));
    finish(p, m, rows, j, pieces * PIECE, made, band.k == 0);
}

void block_of_whole(const Product *p, int64_t rows, int64_t outputs, Band band, int64_t m, int64_t j, Asked asked)
{
    if (outputs == PIECES * PIECE) {
        BY_ROWS(rows, p, PIECES, band, m, j, asked)
    } else {
        BY_ROWS(rows, p, TOGETHER, band, m, j, asked)
    }
}
