/* What rows keep of the codes that they said, ABREAST positions at a time: keys and values in a head, of floats, one
position behind the other; or of whole numbers of 8 bits, of each position's largest, what one of them counts behind all.

Of whole numbers the inputs of keys lie in pairs, and the positions of values, so that two products of 8 and 16 bits are
summed at once: queries, and what weighs values, are rounded to 16. Their sums are exact. */

#ifndef CLVP_KEPT_H
#define CLVP_KEPT_H

#include "registers.h"

#include <string.h>

#define ABREAST 16     /* positions */
#define PARTS (ABREAST / BLOCK)
#define CHAINS 4       /* sums that are made side by side */
#define LARGE 32767.0f /* of 16 bits */
#define WITHIN 512     /* so many products of the largest numbers are below 2 to the 31 */

/* The bytes of ABREAST keys, or values. */
INLINE int64_t chunk_of(int64_t width, int64_t bits)
{
    return ABREAST * (width * bits / 8 + (bits == 8 ? sizeof(float) : 0));
}

/* What a whole number counts, of each position. */
INLINE float *counts_in(const char *chunk, int64_t width)
{
    return (float *)(chunk + ABREAST * width);
}

/* Floats x (count), whole registers, in 16 bits, `most` being the largest; they may take the floats' place. Returns what
one of these counts. */
INLINE float shortened_to(const float *x, int64_t count, float most, char *shorts)
{
    const float step = largest(x, count) / most;
    for (int64_t i = 0; i < count; i += LANES) {
        const __m256i eight = rounded(x + i, _mm256_set1_ps(1.0f / step));
        const __m128i low = _mm256_castsi256_si128(eight), high = _mm256_extracti128_si256(eight, 1);
        _mm_storeu_si128((__m128i *)(shorts + 2 * i), _mm_packs_epi32(low, high));
    }
    return step;
}

/* Two of these. */
INLINE int32_t pair_at(const char *shorts, int64_t n)
{
    int32_t pair;
    memcpy(&pair, shorts + n * sizeof pair, sizeof pair);
    return pair;
}

/* Floats x (width) are the key, or with `value` the value, at place i of a chunk. */
INLINE void keep(const float *x, const int bits, const int width, const int value, char *chunk, int64_t i)
{
    const float step = bits == 8 ? largest(x, width) / SHORT : 1.0f;
    const __m256 of_one = _mm256_set1_ps(1.0f / step);
    if (bits == 8)
        counts_in(chunk, width)[i] = step;
    for (int64_t k = 0; k < width; k += LANES) {
        const __m256 eight = _mm256_loadu_ps(x + k);
        if (bits == 32) {
            _mm256_storeu_ps((float *)chunk + i * width + k, eight);
        } else if (bits == 16) {
            _mm_storeu_si128((__m128i *)(chunk + 2 * (i * width + k)), _mm256_cvtps_ph(eight, _MM_FROUND_TO_NEAREST_INT));
        } else {
            const uint64_t bytes = _mm_cvtsi128_si64(in_bytes(rounded(x + k, of_one)));
            for (int n = 0; value && n < LANES; n++)
                chunk[i / 2 * 2 * width + 2 * (k + n) + i % 2] = (char)(bytes >> 8 * n);
            for (int n = 0; !value && n < LANES; n += 2)
                memcpy(chunk + ABREAST * (k + n) + 2 * i, &(uint16_t){(uint16_t)(bytes >> 8 * n)}, 2);
        }
    }
}

/* A query (width), floats or shorts one of which counts `step`, times each key of a chunk → logits (ABREAST). */
INLINE void ask(const char *query, float step, const char *keys, const int bits, const int width, float *logits)
{
    if (bits != 8) {
        for (int t = 0; t < ABREAST; t += CHAINS) {
            __m256 sums[CHAINS];
            for (int k = 0; k < CHAINS; k++)
                sums[k] = _mm256_setzero_ps();
            for (int i = 0; i < width; i += LANES)
                for (int k = 0; k < CHAINS; k++)
                    sums[k] = _mm256_fmadd_ps(_mm256_loadu_ps((const float *)query + i),
                                              floats(keys + ((t + k) * width + i) * bits / 8, bits), sums[k]);
            _mm_storeu_ps(logits + t, four_sums(sums[0], sums[1], sums[2], sums[3]));
        }
        return;
    }
    Whole sums[CHAINS][PARTS];
    for (int k = 0; k < CHAINS; k++)
        for (int c = 0; c < PARTS; c++)
            sums[k][c] = none();
    for (int i = 0; i < width / 2; i += CHAINS)
        for (int k = 0; k < CHAINS; k++)
            for (int c = 0; c < PARTS; c++)
                sums[k][c] = added_pairs(sums[k][c], keys + 2 * ((i + k) * ABREAST + c * BLOCK), pair_at(query, i + k));
    for (int c = 0; c < PARTS; c++) {
        const Sums four = counted(both(both(sums[0][c], sums[1][c]), both(sums[2][c], sums[3][c])));
        store(logits + c * BLOCK, four * loaded(counts_in(keys, width) + c * BLOCK) * repeated(step));
    }
}

/* What a chunk's values weigh, `count` of them (ABREAST): times what one of their whole numbers counts, none behind. */
INLINE void weigh(float *weights, const char *values, int64_t count, const int width)
{
    for (int64_t t = 0; t < ABREAST; t += BLOCK)
        store(weights + t, loaded(weights + t) * loaded(counts_in(values, width) + t));
    for (int64_t t = count; t < ABREAST; t++)
        weights[t] = 0.0f;
}

/* found (width, filled up to a whole BLOCK) += what weighs the `count` values of a chunk * these; of whole numbers both
are so. */
INLINE void find(const char *weights, const char *values, int64_t count, const int bits, const int width, void *found)
{
    if (bits != 8) {
        for (int i = 0; i < width; i += LANES) {
            __m256 sum = _mm256_loadu_ps((float *)found + i);
            for (int64_t t = 0; t < count; t++) {
                const __m256 weight = _mm256_set1_ps(((const float *)weights)[t]);
                sum = _mm256_fmadd_ps(weight, floats(values + (t * width + i) * bits / 8, bits), sum);
            }
            _mm256_storeu_ps((float *)found + i, sum);
        }
        return;
    }
    for (int c = 0; c < width; c += BLOCK) {
        Whole sum = *(Whole *)((int32_t *)found + c);
        for (int i = 0; i < ABREAST / 2; i++)
            sum = added_pairs(sum, values + 2 * (i * width + c), pair_at(weights, i));
        *(Whole *)((int32_t *)found + c) = sum;
    }
}

#endif
