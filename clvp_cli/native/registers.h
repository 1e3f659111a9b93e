/* Numbers as registers hold them, with AVX2 or, twice as many, with AVX512: whole ones with sums of 32 bits, by VNNI of
8 bits, else of 16; bfloat16 with sums in float32, by AVX512-BF16; and floats, eight of each of two outputs, whose sums are the same
in both. */

#ifndef CLVP_REGISTERS_H
#define CLVP_REGISTERS_H

#include "kernels.h"

#define HALF_STEP 16 /* inputs */

/* Whole numbers of 8 bits: a weight is blocks of outputs, each four inputs (a quad) of them all, then the next four. */
#define QUAD 4
#define QUAD_BYTES 8 /* of a row, as it is laid */

#ifdef __AVX512VNNI__

#define STEP 32 /* inputs in bfloat16 that are multiplied at once */
#define OUTS 4  /* weights, of floats, whose sums are held in registers together */

#define BLOCK 16   /* outputs */
#define PIECE 16   /* of these, that one register takes */
#define PIECES 2   /* whose sums are held in registers together */
#define STREAMS 2  /* blocks that these are of */
#define DIGITS 2   /* of a row's number, of 7 bits, each with sums of its own */
#define TOGETHER 1 /* pieces whose sums are gathered together */
#define FEW 8192   /* inputs whose sums fit into 32 bits: all */
typedef __m512i Short;
typedef __m512i Whole;
typedef __m512 Sums;
typedef __m512 Both; /* LANES floats of each of two outputs */

/* Eight numbers from -8192 to 8192 → two quads, of four higher and four lower digits each, 64 being added to each digit;
in the lower half of either half. */
INLINE __m256i quads(__m256i numbers)
{
    const __m256i half = _mm256_set1_epi32(64);
    const __m256i high = _mm256_srai_epi32(_mm256_add_epi32(numbers, half), 7);
    const __m256i low = _mm256_sub_epi32(numbers, _mm256_slli_epi32(high, 7));
    const __m256i both = _mm256_packs_epi32(_mm256_add_epi32(high, half), _mm256_add_epi32(low, half));
    return _mm256_packus_epi16(both, both);
}

/* Bytes from piece to piece of a weight with so many inputs. */
INLINE int64_t apart(int64_t in)
{
    return in * BLOCK;
}

INLINE Whole piece(const int8_t *w)
{
    return _mm512_loadu_si512(w);
}

/* sums += a row's digits of a quad (not below 0) * pieces; in place, where gcc would hold sums in memory. */
INLINE void add_pieces(Whole sums[PIECES], const char *four, const Whole some[PIECES], const int pieces)
{
    const Whole digits = _mm512_set1_epi32(*(const int32_t *)four);
    for (int c = 0; c < pieces; c++)
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sums[c]) : "v"(digits), "v"(some[c]));
}

/* What sums start from: what the 64 add to them, less than nothing. */
INLINE Whole started(const int32_t *starts)
{
    return _mm512_loadu_si512(starts);
}

/* The sums of a piece, of the higher and the lower digits → `whole`, or more of them onto it. */
INLINE void gather(Whole high, Whole low, double *whole, int more)
{
    for (int half = 0; half < 2; half++) {
        const __m256i one = half ? _mm512_extracti64x4_epi64(high, 1) : _mm512_castsi512_si256(high);
        const __m256i two = half ? _mm512_extracti64x4_epi64(low, 1) : _mm512_castsi512_si256(low);
        __m512d sums = _mm512_mul_pd(_mm512_cvtepi32_pd(one), _mm512_set1_pd(128.0));
        sums = _mm512_add_pd(sums, _mm512_cvtepi32_pd(two));
        double *at = whole + half * LANES;
        _mm512_storeu_pd(at, more ? _mm512_add_pd(_mm512_loadu_pd(at), sums) : sums);
    }
}

INLINE Short shorts(const int16_t *numbers)
{
    return _mm512_loadu_si512(numbers);
}

INLINE void add_brains(Sums *sums, const int16_t *row, Short w)
{
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(*sums) : "v"(shorts(row)), "v"(w));
}

/* sums += row (LANES floats) * w, for both outputs, or the first and one that is nothing. */
INLINE void add_float_products(Both *sums, const float *row, Both w, const int outs)
{
    (void)outs;
    const __m512 twice = _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_loadu_pd((const double *)row)));
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(*sums) : "v"(w), "v"(twice));
}

/* LANES floats of so many bits at w and, of two outputs, at w + row. */
INLINE Both both(const char *w, int64_t row, const int bits, const int outs)
{
    if (bits == 16) {
        const __m128i *one = (const __m128i *)w, *two = (const __m128i *)(w + row);
        const __m128i behind = outs > 1 ? _mm_loadu_si128(two) : _mm_setzero_si128();
        return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(one)), behind, 1));
    }
    const __m512d one = _mm512_castpd256_pd512(_mm256_loadu_pd((const double *)w));
    const __m256d two = outs > 1 ? _mm256_loadu_pd((const double *)(w + row)) : _mm256_setzero_pd();
    return _mm512_castpd_ps(_mm512_insertf64x4(one, two, 1));
}

INLINE __m256 of_first(Both sums)
{
    return _mm512_castps512_ps256(sums);
}

INLINE __m256 of_second(Both sums)
{
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(sums), 1));
}

INLINE __m256 folded_floats(Sums sums)
{
    return _mm256_add_ps(of_first(sums), of_second(sums));
}

/* Sixteen floats as bfloat16. */
INLINE __m256i shortened(const float *x)
{
    __m256i some;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(some) : "v"(_mm512_loadu_ps(x)));
    return some;
}

#else

#define STEP 16
#define OUTS 2

#define BLOCK 8
#define PIECE 4
#define PIECES 2
#define STREAMS 1
#define DIGITS 1 /* of 16 bits */
#define TOGETHER 2
#define FEW 2048
typedef __m256i Short;
typedef __m256i Whole; /* or sums, two of each output */
typedef __m256 Sums;
typedef struct {
    __m256 one, two;
} Both;

/* Eight numbers → two quads. */
INLINE __m256i quads(__m256i numbers)
{
    return _mm256_packs_epi32(numbers, numbers);
}

INLINE int64_t apart(int64_t in)
{
    (void)in;
    return PIECE * QUAD;
}

INLINE Whole piece(const int8_t *w)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w));
}

/* A quad is read for each piece: registers are few, and gcc would hold sums in memory. */
INLINE void add_pieces(Whole sums[PIECES], const char *four, const Whole some[PIECES], const int pieces)
{
    Whole products;
#pragma GCC unroll 2
    for (int c = 0; c < pieces; c++)
        __asm__("vpbroadcastq %2, %0\n\tvpmaddwd %3, %0, %0\n\tvpaddd %0, %1, %1"
                : "=&x"(products), "+x"(sums[c])
                : "m"(*(const int64_t *)four), "x"(some[c]));
}

INLINE Whole started(const int32_t *starts)
{
    (void)starts;
    return _mm256_setzero_si256();
}

/* The sums of two pieces. */
INLINE void gather(Whole first, Whole second, double *whole, int more)
{
    const __m256i sums = _mm256_permute4x64_epi64(_mm256_hadd_epi32(first, second), 0xd8);
    for (int half = 0; half < 2; half++) {
        const __m128i four = half ? _mm256_extracti128_si256(sums, 1) : _mm256_castsi256_si128(sums);
        double *at = whole + half * LANES / 2;
        const __m256d some = _mm256_cvtepi32_pd(four);
        _mm256_storeu_pd(at, more ? _mm256_add_pd(_mm256_loadu_pd(at), some) : some);
    }
}

INLINE Short shorts(const int16_t *numbers)
{
    return _mm256_loadu_si256((const __m256i *)numbers);
}

/* What AVX512-BF16 does, the second of each pair first. */
INLINE void add_brains(Sums *sums, const int16_t *row, Short w)
{
    const Short x = shorts(row), second = _mm256_set1_epi32(0xffff0000);
    const __m256 of_x = _mm256_castsi256_ps(_mm256_and_si256(x, second));
    const __m256 of_w = _mm256_castsi256_ps(_mm256_and_si256(w, second));
    *sums = _mm256_fmadd_ps(of_x, of_w, *sums);
    const __m256 first_of_x = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
    *sums = _mm256_fmadd_ps(first_of_x, _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)), *sums);
}

/* Both in one, where gcc would move sums about. */
INLINE void add_float_products(Both *sums, const float *row, Both w, const int outs)
{
    __m256 eight = _mm256_loadu_ps(row);
    if (outs > 1)
        __asm__("vmovups %3, %0\n\tvfmadd231ps %4, %0, %1\n\tvfmadd231ps %5, %0, %2"
                : "=&x"(eight), "+x"(sums->one), "+x"(sums->two)
                : "m"(*(const __m256_u *)row), "x"(w.one), "x"(w.two));
    else
        sums->one = _mm256_fmadd_ps(w.one, eight, sums->one);
}

INLINE Both both(const char *w, int64_t row, const int bits, const int outs)
{
    return (Both){floats(w, bits), outs > 1 ? floats(w + row, bits) : _mm256_setzero_ps()};
}

INLINE __m256 of_first(Both sums)
{
    return sums.one;
}

INLINE __m256 of_second(Both sums)
{
    return sums.two;
}

INLINE __m256 folded_floats(Sums sums)
{
    return sums;
}

/* Half of a bfloat16's last bit is added, or a little less where that bit is even; no number stays none. */
INLINE __m256i upper_halves(__m256 x)
{
    const __m256i whole = _mm256_castps_si256(x);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(whole, 16), _mm256_set1_epi32(1));
    const __m256i more = _mm256_add_epi32(_mm256_add_epi32(whole, last), _mm256_set1_epi32(0x7fff));
    const __m256i none = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(more, _mm256_set1_epi32(0x7fc00000), none), 16);
}

INLINE __m256i shortened(const float *x)
{
    const __m256i low = upper_halves(_mm256_loadu_ps(x)), up = upper_halves(_mm256_loadu_ps(x + LANES));
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(low, up), 0xd8);
}

#endif
#endif
