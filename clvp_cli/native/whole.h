/* Whole numbers as registers hold them: 16 of 16 bits with AVX2, 32 with AVX512-VNNI, and sums of 32 bits. */

#ifndef CLVP_WHOLE_H
#define CLVP_WHOLE_H

#include "kernels.h"

#define HALF_STEP 16 /* of inputs there are only so many left over, at the most, after steps */

#ifdef __AVX512VNNI__

#define STEP 32 /* inputs that are multiplied at once */
#define OUTS 4  /* weights whose sums are held in registers together */
typedef __m512i Whole;

INLINE Whole nothing(void)
{
    return _mm512_setzero_si512();
}

INLINE Whole bytes(const int8_t *w)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)w));
}

INLINE Whole half_of_bytes(const int8_t *w)
{
    return _mm512_cvtepi8_epi16(_mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)w)));
}

/* sums += row (STEP numbers) * w, pairwise; in place, where gcc would hold sums in memory. */
INLINE void add_products(Whole *sums, const int16_t *row, Whole w)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*sums) : "v"(_mm512_loadu_si512(row)), "v"(w));
}

INLINE Whole added(Whole a, Whole b)
{
    return _mm512_add_epi32(a, b);
}

/* Eight sums. */
INLINE __m256i folded(Whole sums)
{
    return _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
}

#else

#define STEP 16
#define OUTS 2
typedef __m256i Whole;

INLINE Whole nothing(void)
{
    return _mm256_setzero_si256();
}

INLINE Whole bytes(const int8_t *w)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w));
}

INLINE Whole half_of_bytes(const int8_t *w)
{
    return bytes(w); /* a step is no more */
}

/* One after another, where gcc would hold all products, and sums in memory. */
INLINE void add_products(Whole *sums, const int16_t *row, Whole w)
{
    Whole products;
    __asm__("vpmaddwd %3, %2, %0\n\tvpaddd %0, %1, %1"
            : "=&x"(products), "+x"(*sums)
            : "x"(w), "m"(*(const __m256i_u *)row));
}

INLINE Whole added(Whole a, Whole b)
{
    return _mm256_add_epi32(a, b);
}

INLINE __m256i folded(Whole sums)
{
    return sums;
}

#endif
#endif
