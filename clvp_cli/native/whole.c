/* Rows of floats, rounded to whole numbers, times a weight of 8 bits.

A row has 8 bits, its largest number being 127. Where that is more than CREST times their mean without signs, this is
127, and what is above it an outlier: what it has above 8 bits is multiplied by itself. Rounding then adds at most CREST
/ 127 / √12 of the mean, 2.7 %, and 1 % to numbers as a norm leaves them. Where the largest is more than PEAK times the
mean, or outliers are many, a row has 14 bits, so that the others keep theirs. All that follows from whole numbers, and
so exactly. */

#include "product.h"

#define LONG 8192.0f /* the largest of 14 bits */
#define CREST 12
#define PEAK 32

/* The sum of a row's whole numbers without their signs. */
static int64_t sum_of(const float *x, int64_t in, float step)
{
    const __m256 of_one = _mm256_set1_ps(1.0f / step);
    __m256i sums = _mm256_setzero_si256();
    for (int64_t k = 0; k < in; k += LANES)
        sums = _mm256_add_epi32(sums, _mm256_abs_epi32(rounded(x + k, of_one)));
    return sum_of_eight(sums);
}

/* What eight numbers from input k on have above 8 bits → behind `count` outliers. Returns how many these are then; more
than `most` if there is no room for them. */
static __attribute__((noinline)) int64_t with_outliers(__m256i numbers, int64_t k, Outlier *outliers, int64_t count,
                                                       int64_t most)
{
    int32_t eight[LANES];
    _mm256_storeu_si256((__m256i *)eight, numbers);
    for (int i = 0; i < LANES; i++) {
        const int32_t number = eight[i], kept = number > 127 ? 127 : number < -128 ? -128 : number;
        if (abs(number) <= 127)
            continue;
        if (count >= most)
            return most + 1;
        outliers[count++] = (Outlier){k + i, number - kept};
    }
    return count;
}

/* The row x (in), rounded by `step`, as the r-th of `beside` rows at `laid`; and where it may have outliers, these.
Returns how many these are, and stops where they are too many. */
INLINE int64_t laid_row(const float *x, int64_t in, float step, char *laid, int64_t r, int64_t beside, Outlier *outliers,
                        const int digits)
{
    const __m256 of_one = _mm256_set1_ps(1.0f / step);
    const __m256i most = _mm256_set1_epi32((int)SHORT);
    const int64_t bytes = QUAD_BYTES * digits;
    int64_t count = 0;
    laid += r * bytes;
    for (int64_t k = 0; k < in; k += LANES, laid += 2 * beside * bytes) {
        const __m256i numbers = rounded(x + k, of_one), two = quads(numbers, digits);
        const __m128i halves[2] = {_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1)};
        for (int i = 0; i < 2; i++)
            if (bytes == 4)
                *(int32_t *)(laid + i * beside * bytes) = _mm_cvtsi128_si32(halves[i]);
            else
                _mm_storel_epi64((__m128i *)(laid + i * beside * bytes), halves[i]);
        if (outliers) {
            const __m256i above = _mm256_cmpgt_epi32(_mm256_abs_epi32(numbers), most);
            if (!_mm256_testz_si256(above, above))
                count = with_outliers(numbers, k, outliers, count, outliers_in(in));
            if (count > outliers_in(in))
                break;
        }
    }
    return count;
}

/* Row m of x in this place of those from `first` to last, rounded by `step`; its outliers as above. */
static int64_t laid_in(const float *x, int64_t m, int64_t in, float step, Laid room, int64_t first, int64_t place,
                       int64_t last, Outlier *outliers, const int digits)
{
    const int64_t most = MOST / digits, start = first + (place - first) / most * most;
    const int64_t beside = last - start < most ? last - start : most;
    char *laid = laid_at(room, start, in);
    if (outliers)
        return laid_row(x + m * in, in, step, laid, place - start, beside, outliers, digits);
    return laid_row(x + m * in, in, step, laid, place - start, beside, NULL, digits);
}

/* Rows of 8 bits stand before those of 14, so that few of them are multiplied beside these, in as many digits. */
void lay_whole(const float *x, int64_t m, int64_t last, int64_t in, Laid room)
{
    const int64_t first = m;
    const float most = SHORT * (float)in;
    int64_t coarse = m, fine = last;
    for (; m < last; m++) {
        const float high = largest(x + m * in, in), step = high / SHORT;
        const int64_t sum = sum_of(x + m * in, in, step);
        const float crest = (float)(sum * CREST) / most, peak = (float)(sum * PEAK) / most;
        Outlier *outliers = crest < 1.0f ? room.outliers + coarse * outliers_in(in) : NULL;
        Rounded row = {.step = outliers ? step * crest : step, .fine = peak < 1.0f, .row = m};
        if (!row.fine) {
            row.outliers = laid_in(x, m, in, row.step, room, first, coarse, last, outliers, 1);
            row.fine = row.outliers > outliers_in(in);
        }
        room.rounded[row.fine ? --fine : coarse++] = row.fine ? (Rounded){high / LONG, 1, 0, m} : row;
    }
    if (coarse == last)
        return;
    for (int64_t place = DIGITS > 1 ? first + (coarse - first) / MOST * MOST : coarse; place < last; place++) {
        Rounded *row = room.rounded + place;
        laid_in(x, row->row, in, row->step, room, first, place, last, NULL, DIGITS);
        row->outliers = 0;
    }
}

/* sums += `count` inputs, whole lines of a block, of rows laid at a, and of those above MOST at b, times pieces at w,
`apart` bytes from each other. */
INLINE void add_lines(const char *a, const char *b, const char *w, int64_t count, int64_t apart, const int rows,
                      const int pieces, Asked asked, Whole sums[JOINED][PIECES])
{
    const int first = rows < MOST ? rows : MOST;
    for (; count > 0; count -= LINE / BLOCK, w += LINE, asked.far += asked.pace) {
        for (int c = 0; c < pieces; c += TOGETHER)
            _mm_prefetch(w + c * apart + asked.ahead, _MM_HINT_T0);
        for (int64_t at = 0; at < asked.pace; at += LINE)
            _mm_prefetch(asked.far + at, _MM_HINT_T1);
#pragma GCC unroll 2
        for (int k = 0; k < LINE; k += QUAD * BLOCK, a += first * QUAD_BYTES, b += (rows - first) * QUAD_BYTES) {
            Whole some[PIECES];
#pragma GCC unroll 3
            for (int c = 0; c < pieces; c++)
                some[c] = piece(w + k + c * apart);
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++)
                add_pieces(sums[r], r < MOST ? a + r * QUAD_BYTES : b + (r - MOST) * QUAD_BYTES, some, pieces);
        }
    }
}

/* A row's sums of some blocks += what its outliers among the band's inputs have above 8 bits, times the weights at w. */
INLINE void add_outliers(const Product *p, Band band, int64_t m, const char *w, const int blocks, Whole sums[PIECES])
{
    const Outlier *one = p->rows.outliers + m * outliers_in(p->w->in), *last = one + p->rows.rounded[m].outliers;
    Whole own[PIECES];
    for (int c = 0; c < blocks; c++)
        own[c] = sums[c];
    for (; one < last; one++) {
        const int64_t k = one->input - band.k;
        if (k < 0 || k >= band.depth)
            continue;
        const char *quads = w + k / QUAD * QUAD * BLOCK;
        for (int c = 0; c < blocks; c++, quads += apart(band.depth))
            own[c] = added(own[c], quads, k % QUAD, one->above);
    }
    for (int c = 0; c < blocks; c++)
        sums[c] = own[c];
}

/* Out of line, so that it takes no registers from what is repeated. */
static __attribute__((noinline)) void finish_all(const Product *p, int rows, int blocks, int digits, Band band,
                                                 int64_t m, int64_t j, const char *w, Whole (*sums)[PIECES])
{
    for (int r = 0; r < rows; r += digits, m++) {
        if (p->rows.rounded[m].outliers && blocks == WHOLE)
            add_outliers(p, band, m, w, WHOLE, sums[r]);
        else if (p->rows.rounded[m].outliers)
            for (int c = 0; c < blocks; c++)
                add_outliers(p, band, m, w + c * apart(band.depth), 1, sums[r] + c);
        for (int c = 0; c < blocks; c++)
            finish(p, m, j + c * BLOCK, gathered(sums + r, c * TOGETHER, digits), band.k == 0);
    }
}

/* As many blocks of outputs from j on, of rows from m on: `rows` times the digits that these have. Loops are unrolled so
that sums stay in registers. */
INLINE void block(const Product *p, const int rows, const int blocks, int digits, Band band, int64_t m, int64_t j,
                  Asked asked)
{
    const Weight *w = p->w;
    const int pieces = blocks * TOGETHER;
    const int first = rows < MOST ? rows : MOST;
    digits = rows % 2 ? 1 : digits; /* which gcc does not know */
    const char *a = laid_at(p->rows, m, w->in) + band.k / QUAD * first * QUAD_BYTES;
    const char *b = laid_at(p->rows, m + MOST, w->in) + band.k / QUAD * (rows - first) * QUAD_BYTES;
    const char *numbers = numbers_at(w, band.k, j) + j % BLOCK * QUAD;
    const int32_t *starts = w->starts + band.k / DEPTH * filled(w) + j;
    Whole sums[JOINED][PIECES];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 3
        for (int c = 0; c < pieces; c++)
            sums[r][c] = started(starts + c * PIECE, digits);
    add_lines(a, b, numbers, band.depth, apart(band.depth), rows, pieces, asked, sums);
    Whole whole[JOINED][PIECES]; /* in memory: sums would be there, too, if they were counted through */
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 3
        for (int c = 0; c < pieces; c++)
            whole[r][c] = sums[r][c];
    finish_all(p, rows, blocks, digits, band, m, j, numbers, whole);
}

void block_of_whole(const Product *p, int64_t rows, int64_t blocks, Band band, int64_t m, int64_t j, Asked asked)
{
    const Rounded *row = p->rows.rounded + m;
    if (rows > MOST && (row[MOST - 1].fine || row[rows - 1].fine)) {
        block_of_whole(p, MOST, blocks, band, m, j, asked);
        block_of_whole(p, rows - MOST, blocks, band, m + MOST, j, asked);
        return;
    }
#if JOINED > MOST
    if (rows > MOST) {
        BY_JOINED_ROWS(blocks, rows, p, 1, band, m, j, asked)
        return;
    }
#endif
    const int digits = row[rows - 1].fine ? DIGITS : 1;
    for (int64_t last = m + rows, most = MOST / digits; m < last; m += most) {
        const int64_t some = (last - m < most ? last - m : most) * digits;
        BY_BLOCKS(blocks, WHOLE, some, p, digits, band, m, j, asked)
    }
}
