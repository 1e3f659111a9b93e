/* Keys and values that rows keep: floats of 16 or 32 bits, a position behind the other; or whole numbers of 8, a
position's counting its largest / 127, ABREAST positions together, what one of each counts behind them.

Of keys of whole numbers inputs lie in pairs, of values positions do, so that two products of 8 and 16 bits are summed
at once: queries, and what weighs values, are rounded to 16. Sums of whole numbers are exact. */

#include "kept.h"
#include "registers.h"

#include <string.h>

#define AT_ONCE 4         /* keys of floats, and sums of pairs, that are made side by side */
#define SOON 1024         /* bytes */
#define LARGE 32767.0f    /* of 16 bits */
#define WITHIN (1 << 9)   /* so many products of the largest numbers are below 2 to the 31 */

/* The bytes of a position's key, or value. */
INLINE int64_t position_of(int64_t width, int64_t bits)
{
    return width * bits / 8 + (bits == 8 ? sizeof(float) : 0);
}

/* What a whole number counts, of each position in a block. */
INLINE float *counts_in(const char *block, int64_t width)
{
    return (float *)(block + ABREAST * width);
}

/* Floats x (width) in 8 bits; returns what one of these counts. */
static float in_8_bits(const float *x, int64_t width, char *bytes)
{
    const float step = largest(x, width) / SHORT;
    for (int64_t i = 0; i < width; i += LANES)
        _mm_storel_epi64((__m128i *)(bytes + i), in_bytes(rounded(x + i, _mm256_set1_ps(1.0f / step))));
    return step;
}

/* Floats x (count) in 16 bits, `most` being the largest; they may take the floats' place. Returns as above. */
INLINE float in_16_bits(const float *x, int64_t count, float most, char *shorts)
{
    const float step = largest(x, count) / most;
    for (int64_t i = 0; i < count; i += LANES, shorts += LANES * 2) {
        const __m256i eight = rounded(x + i, _mm256_set1_ps(1.0f / step));
        const __m128i halves[2] = {_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1)};
        _mm_storeu_si128((__m128i *)shorts, _mm_packs_epi32(halves[0], halves[1]));
    }
    return step;
}

INLINE int32_t pair_at(const char *shorts, int64_t n)
{
    int32_t pair;
    memcpy(&pair, shorts + n * sizeof pair, sizeof pair);
    return pair;
}

static void keep_floats(const float *x, int64_t width, int64_t bits, char *numbers)
{
    for (int64_t i = 0; i < width; i += LANES, numbers += bits) {
        const __m256 eight = _mm256_loadu_ps(x + i);
        if (bits == 32)
            _mm256_storeu_ps((float *)numbers, eight);
        else
            _mm_storeu_si128((__m128i *)numbers, _mm256_cvtps_ph(eight, _MM_FROUND_TO_NEAREST_INT));
    }
}

void keep_key(const float *x, int64_t width, int64_t bits, char *keys, int64_t t)
{
    if (bits != 8) {
        keep_floats(x, width, bits, keys + t * position_of(width, bits));
        return;
    }
    char bytes[WIDEST], *block = keys + t / ABREAST * ABREAST * position_of(width, bits);
    counts_in(block, width)[t % ABREAST] = in_8_bits(x, width, bytes);
    for (int64_t i = 0; i < width; i += 2)
        memcpy(block + i * ABREAST + t % ABREAST * 2, bytes + i, 2);
}

void keep_value(const float *x, int64_t width, int64_t bits, char *values, int64_t t)
{
    if (bits != 8) {
        keep_floats(x, width, bits, values + t * position_of(width, bits));
        return;
    }
    char bytes[WIDEST], *block = values + t / ABREAST * ABREAST * position_of(width, bits);
    counts_in(block, width)[t % ABREAST] = in_8_bits(x, width, bytes);
    for (int64_t i = 0; i < width; i++)
        block[t % ABREAST / 2 * 2 * width + 2 * i + t % 2] = bytes[i];
}

/* Ask for what is wanted next, if anything is, while so many bytes from `at` on are read; and, since not all that is
asked for comes where memory is busy, for what is wanted now. */
INLINE void expect(const char *next, const char *at, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += LINE) {
        _mm_prefetch(at + SOON + i, _MM_HINT_T0);
        if (next)
            _mm_prefetch(next + i, _MM_HINT_T1);
    }
}

INLINE void ask_floats(const float *q, const char *keys, int64_t count, const int bits, const int width, float *logits,
                       const char *next)
{
    const int64_t position = position_of(width, bits);
    for (int64_t t = 0; t < count; t += AT_ONCE) {
        const char *key[AT_ONCE];
        __m256 sums[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            key[i] = keys + (t + i < count ? t + i : t) * position;
            sums[i] = _mm256_setzero_ps();
        }
        expect(next ? next + t * position : NULL, key[0], AT_ONCE * position);
        for (int i = 0; i < width / LANES; i++)
            for (int k = 0; k < AT_ONCE; k++)
                sums[k] = _mm256_fmadd_ps(_mm256_loadu_ps(q + i * LANES), floats(key[k] + i * bits, bits), sums[k]);
        _mm_storeu_ps(logits + t, four_sums(sums[0], sums[1], sums[2], sums[3]));
    }
}

INLINE void ask_pairs(const float *q, const char *keys, int64_t count, const int width, float *logits, const char *next)
{
    char pairs[WIDEST * 2];
    const int64_t position = position_of(width, 8);
    const Sums step = repeated(in_16_bits(q, width, LARGE, pairs));
    for (int64_t t = 0; t < count; t += ABREAST, keys += ABREAST * position) {
        Whole sums[AT_ONCE][ABREAST / BLOCK];
        for (int k = 0; k < AT_ONCE; k++)
            for (int c = 0; c < ABREAST / BLOCK; c++)
                sums[k][c] = none();
        expect(next ? next + t * position : NULL, keys, ABREAST * position);
        for (int i = 0; i < width / 2; i += AT_ONCE)
            for (int k = 0; k < AT_ONCE; k++)
                for (int c = 0; c < ABREAST / BLOCK; c++)
                    sums[k][c] = added_pairs(sums[k][c], keys + 2 * ((i + k) * ABREAST + c * BLOCK), pair_at(pairs, i + k));
        for (int c = 0; c < ABREAST / BLOCK; c++) {
            const Sums four = counted(both(both(sums[0][c], sums[1][c]), both(sums[2][c], sums[3][c])));
            store(logits + t + c * BLOCK, four * loaded(counts_in(keys, width) + c * BLOCK) * step);
        }
    }
}

void ask(const float *q, const char *keys, int64_t count, int64_t bits, int64_t width, float *logits, const char *next)
{
    if (bits == 8 && width == 64)
        ask_pairs(q, keys, count, 64, logits, next);
    else if (bits == 8)
        ask_pairs(q, keys, count, width, logits, next);
    else if (bits == 16 && width == 64)
        ask_floats(q, keys, count, 16, 64, logits, next);
    else if (bits == 16)
        ask_floats(q, keys, count, 16, width, logits, next);
    else if (width == 64)
        ask_floats(q, keys, count, 32, 64, logits, next);
    else
        ask_floats(q, keys, count, 32, width, logits, next);
}

INLINE void find_floats(const float *weights, const char *values, int64_t count, const int bits, const int width,
                        float *found, const char *next)
{
    const int64_t position = position_of(width, bits);
    __m256 mixed[WIDEST / LANES];
    for (int i = 0; i < width / LANES; i++)
        mixed[i] = _mm256_setzero_ps();
    for (int64_t t = 0; t < count; t++, values += position) {
        const __m256 weight = _mm256_set1_ps(weights[t]);
        expect(next ? next + t * position : NULL, values, position);
        for (int i = 0; i < width / LANES; i++)
            mixed[i] = _mm256_fmadd_ps(weight, floats(values + i * bits, bits), mixed[i]);
    }
    for (int i = 0; i < width / LANES; i++)
        _mm256_storeu_ps(found + i * LANES, mixed[i]);
}

INLINE void find_pairs(float *weights, const char *values, int64_t count, const int width, float *found,
                       const char *next)
{
    const int64_t position = position_of(width, 8), filled = (count + ABREAST - 1) / ABREAST * ABREAST;
    for (int64_t t = 0; t < filled; t += BLOCK) {
        const float *counts = counts_in(values + t / ABREAST * ABREAST * position, width) + t % ABREAST;
        store(weights + t, loaded(weights + t) * loaded(counts));
    }
    for (int64_t t = count; t < filled; t++)
        weights[t] = 0.0f;
    const float step = in_16_bits(weights, filled, LARGE / (float)(1 + count / WITHIN), (char *)weights);
    Whole sums[WIDEST / BLOCK];
    for (int c = 0; c * BLOCK < width; c++)
        sums[c] = none();
    for (int64_t t = 0; t < filled; t += ABREAST, values += ABREAST * position) {
        expect(next ? next + t * position : NULL, values, ABREAST * position);
        for (int i = 0; i < ABREAST; i += 2)
            for (int c = 0; c * BLOCK < width; c++)
                sums[c] = added_pairs(sums[c], values + i * width + 2 * c * BLOCK, pair_at((char *)weights, (t + i) / 2));
    }
    for (int c = 0; c * BLOCK < width; c++)
        store(found + c * BLOCK, counted(sums[c]) * repeated(step));
}

void find(float *weights, const char *values, int64_t count, int64_t bits, int64_t width, float *found,
          const char *next)
{
    if (bits == 8 && width == 64)
        find_pairs(weights, values, count, 64, found, next);
    else if (bits == 8)
        find_pairs(weights, values, count, width, found, next);
    else if (bits == 16 && width == 64)
        find_floats(weights, values, count, 16, 64, found, next);
    else if (bits == 16)
        find_floats(weights, values, count, 16, width, found, next);
    else if (width == 64)
        find_floats(weights, values, count, 32, 64, found, next);
    else
        find_floats(weights, values, count, 32, width, found, next);
}
