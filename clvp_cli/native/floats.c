/* Rows of floats times a weight of 16 or 32 bits. */

#include "product.h"

#define TWO 2 /* bfloat16 are multiplied in pairs */

/* Inputs k and k + 1 of a row lie together, those of all rows next to each other. */
void lay_brains(const float *x, int64_t m, int64_t last, int64_t in, Laid room)
{
    for (; m < last; m += MOST) {
        const int64_t beside = last - m < MOST ? last - m : MOST;
        int32_t *laid = (int32_t *)laid_at(room, m, in);
        for (int64_t r = 0; r < beside; r++)
            for (int64_t k = 0; k < in; k += LANES) {
                int32_t pairs[LANES / TWO];
                _mm_storeu_si128((__m128i *)pairs, shortened(x + (m + r) * in + k));
                for (int i = 0; i < LANES / TWO; i++)
                    laid[(k / TWO + i) * beside + r] = pairs[i];
            }
    }
}

/* sums += `count` lines of blocks at w, `apart` bytes from each other, of numbers in so many bits, times rows at a,
numbers of which are `row` bytes from row to row and `on` from one to the next. */
INLINE void add_lines(const char *a, int64_t row, const int64_t on, const char *w, int64_t count, int64_t apart,
                      const int bits, const int brain, const int rows, const int blocks, Asked asked,
                      Sums sums[MOST][BLOCKS])
{
    const int size = BLOCK * (brain ? 32 : bits) / 8; /* of what is multiplied at once */
    for (; count > 0; count--, w += LINE, asked.far += asked.pace) {
        for (int c = 0; c < blocks; c++)
            _mm_prefetch(w + c * apart + asked.ahead, _MM_HINT_T0);
        for (int64_t at = 0; at < asked.pace; at += LINE)
            _mm_prefetch(asked.far + at, _MM_HINT_T1);
#pragma GCC unroll 4
        for (int k = 0; k < LINE; k += size, a += on) {
            Sums some[BLOCKS];
#pragma GCC unroll 4
            for (int c = 0; c < blocks; c++)
                some[c] = widened(w + k + c * apart, brain ? 32 : bits);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
                if (brain)
                    add_pairs(sums[r], a + r * row, some, blocks);
                else
                    add_blocks(sums[r], a + r * row, some, blocks);
        }
    }
}

/* Out of line, so that it takes no registers from what is repeated. */
static __attribute__((noinline)) void finish_all(const Product *p, int rows, int blocks, int64_t m, int64_t j,
                                                 const Sums (*sums)[BLOCKS], int first)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < blocks; c++)
            finish(p, m + r, j + c * BLOCK, sums[r][c], first);
}

/* Rows m to m + rows of as many blocks of outputs from j on. Loops are unrolled so that sums stay in registers. */
INLINE void block(const Product *p, const int rows, const int blocks, Band band, int64_t m, int64_t j, Asked asked)
{
    const Weight *w = p->w;
    const char *laid = laid_at(p->rows, m, w->in) + band.k / TWO * rows * sizeof(float);
    const char *x = (const char *)(p->x + m * w->in + band.k);
    const char *numbers = numbers_at(w, band.k, j);
    const int64_t apart = band.depth * BLOCK * size_of(w), count = apart / LINE;
    Sums sums[MOST][BLOCKS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < blocks; c++)
            sums[r][c] = repeated(0.0f);
    if (w->brain)
        add_lines(laid, sizeof(float), rows * sizeof(float), numbers, count, apart, 16, 1, rows, blocks, asked, sums);
    else if (w->bits == 16)
        add_lines(x, w->in * sizeof(float), sizeof(float), numbers, count, apart, 16, 0, rows, blocks, asked, sums);
    else
        add_lines(x, w->in * sizeof(float), sizeof(float), numbers, count, apart, 32, 0, rows, blocks, asked, sums);
    Sums made[MOST][BLOCKS]; /* in memory: sums would be there, too, if they were counted through */
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < blocks; c++)
            made[r][c] = sums[r][c];
    finish_all(p, rows, blocks, m, j, made, band.k == 0);
}

void block_of_floats(const Product *p, int64_t rows, int64_t blocks, Band band, int64_t m, int64_t j, Asked asked)
{
    BY_BLOCKS(blocks, BLOCKS, rows, p, band, m, j, asked)
}
