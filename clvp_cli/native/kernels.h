/* What a decoder's step and an encoder are made of, on x86 with AVX2 or AVX512-VNNI: products with weights of 8, 16 or
32 bits, attention over keys and values of as many, and whole layers of both.

Plain functions on memory that the caller owns, bound by __init__.py; nothing here allocates for longer than a call.
A row's result depends on no other row and on no number of threads: whole sums are exact in any order, and what is
summed in floats is summed within one row in one order. Compiled without contraction of a * b + c. */

#ifndef CLVP_KERNELS_H
#define CLVP_KERNELS_H

#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>

#define LANES 8 /* floats of a register */
#define LINE 64 /* bytes that come from memory at once */
#define EXPORTED __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

#define WIDEST 128 /* numbers of a head */
#define DEPTH 1024 /* inputs of a weight's part */
#define SHORT 127.0f /* the largest whole number of 8 bits */
#define OUTLIERS 32 /* of so many numbers of a row, one may be above it */

/* A weight (out, in) and its bias (out) or NULL. It lies in parts of DEPTH inputs, the last of what is left, each in
blocks (out / b, depth / g, b, g), b being clvp_block, the last block filled up with zeros, and g the inputs that are
multiplied at once.

Of 8 bits it is whole numbers from -127 to 127, g 4; one of output j counts scale[j], and starts (parts, out) are -64
times their sums, both filled up too. Rows are rounded to 8 bits or to 14, as whole.c says; in is a multiple of 16.

Of 16 or 32 bits it is floats, g 1, and in a multiple of 8; with `brain`, of 16, bfloat16, g 2, to which rows are
rounded then: for AVX512-BF16 alone. */
typedef struct {
    const void *numbers;
    const float *scale, *bias;
    const int32_t *starts;
    int64_t bits, brain, in, out;
} Weight;

/* How a row is rounded: what one of its whole numbers counts, whether these have 14 bits and not 8, how many of 8 are
outliers, and which row it is. */
typedef struct {
    float step;
    int32_t fine;
    int64_t outliers, row;
} Rounded;

/* What the number of an input has above 8 bits. */
typedef struct {
    int32_t input, above;
} Outlier;

/* Room for rows as they are multiplied: whole numbers in two bytes, how each is rounded, and outliers_in of each; or
bfloat16. Other floats are multiplied as they are. */
typedef struct {
    void *numbers;
    Rounded *rounded;
    Outlier *outliers;
} Laid;

/* Keys and values of a prompt of so many positions, floats of 16 or 32 bits: of each head, `of_keys` and `of_values`
bytes apart, as weights (positions, width) and (width, positions), these filled up with zeros to a multiple of 8. */
typedef struct {
    const char *keys, *values;
    int64_t length, of_keys, of_values;
} Prompt;

/* Keys and values of rows (rows, heads, chunks, ...), `row`, `head` and `block` bytes apart, a chunk being what kept.h
says: floats of 16 or 32 bits, as those of prompts are; or, where these have 16, whole numbers of 8 bits. Row n continues
prompt number of_row[n]. */
typedef struct {
    char *keys, *values;
    int64_t bits, row, head, block;
    const Prompt *prompts;
    const int64_t *of_row;
} Places;

/* By one thread, which waits for no other: `multiply`, of rows that stay in the second cache; and of logits (count),
with room for LANES more, the largest, and what they are as e to the (logit - largest), and their sum. */
void multiply_alone(const Weight *w, const float *x, int64_t rows, const float *residual, float *y, Laid room);
float highest(float *logits, int64_t count);
float weighed(float *logits, int64_t count);

/* The bytes of so many rows, laid to be multiplied, and their room in so much memory, whole lines. */
size_t room_for_rows(const Weight *w, int64_t rows);
Laid laid_room(char *memory, const Weight *w, int64_t rows);
size_t room_to_attend(const Places *places, const int64_t *lengths, int64_t rows, int64_t heads, int64_t width,
                      int64_t threads);

/* Within a parallel region, by all of its threads, which then wait for each other. */
void multiply(const Weight *w, const float *x, int64_t rows, const float *residual, float *y, int gelu, Laid room,
              const Weight *then);
void attend(const float *qkv, int64_t rows, int64_t heads, int64_t width, const Places *places, const int64_t *lengths,
            float *out, char *memory);

/* Where a thread's share of so many begins, which is whole units but for the last. */
INLINE int64_t share_of(int64_t count, int64_t unit, int64_t thread)
{
    const int64_t start = (count + unit - 1) / unit * thread / omp_get_num_threads() * unit;
    return start < count ? start : count;
}

/* The outliers that a row of 8 bits may have. */
INLINE int64_t outliers_in(int64_t in)
{
    return in / OUTLIERS;
}

/* So many bytes in whole lines, which registers then never straddle; and memory that begins with one, or NULL. */
INLINE size_t lines(size_t bytes)
{
    return (bytes + LINE - 1) / LINE * LINE;
}

INLINE void *room_of(size_t bytes)
{
    return aligned_alloc(LINE, lines(bytes));
}

/* So many floats of `memory`, which then begins behind them; of none, their bytes are counted alone. */
INLINE float *cut(char **memory, size_t *size, int64_t count)
{
    float *start = (float *)*memory;
    *size += lines(count * sizeof(float));
    if (*memory)
        *memory += lines(count * sizeof(float));
    return start;
}

/* The sum of eight: neighbours, pairs of these, then the halves, as four_sums has it. */
INLINE float across(__m256 x)
{
    x = _mm256_hadd_ps(x, x);
    x = _mm256_hadd_ps(x, x);
    return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
}

/* The sums of four times eight, each as it would be alone. */
INLINE __m128 four_sums(__m256 a, __m256 b, __m256 c, __m256 d)
{
    const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1));
}

/* The sum of eight whole numbers. */
INLINE int64_t sum_of_eight(__m256i x)
{
    int32_t eight[LANES];
    int64_t sum = 0;
    _mm256_storeu_si256((__m256i *)eight, x);
    for (int i = 0; i < LANES; i++)
        sum += eight[i];
    return sum;
}

/* The largest of eight. */
INLINE float largest_of(__m256 x)
{
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* The largest number of a row without its sign; none where one of them is none. Without signs, floats are in the order
of their bits, and infinity and what is no number above all others. */
INLINE float largest(const float *x, int64_t in)
{
    const __m256i unsigned_bits = _mm256_set1_epi32(0x7fffffff);
    __m256i high = _mm256_castps_si256(_mm256_set1_ps(1e-30f));
    for (int64_t k = 0; k < in; k += LANES)
        high = _mm256_max_epi32(_mm256_and_si256(_mm256_loadu_si256((const __m256i *)(x + k)), unsigned_bits), high);
    const __m256 eight = _mm256_castsi256_ps(high);
    return largest_of(eight) + across(_mm256_mul_ps(eight, _mm256_setzero_ps()));
}

/* Eight numbers from x on as whole ones, `of_one` being what 1 is; and such ones, from -128 to 127, in bytes. */
INLINE __m256i rounded(const float *x, __m256 of_one)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), of_one));
}

INLINE __m128i in_bytes(__m256i numbers)
{
    const __m128i some = _mm_packs_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
    return _mm_packs_epi16(some, some);
}

/* Eight numbers of so many bits, of 8 whole ones. */
INLINE __m256 floats(const char *numbers, const int bits)
{
    if (bits == 32)
        return _mm256_loadu_ps((const float *)numbers);
    if (bits == 8)
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)numbers)));
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)numbers));
}

#endif
