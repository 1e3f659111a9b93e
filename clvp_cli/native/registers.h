/* Numbers as registers hold them, with AVX2 or, twice as many, with AVX512: BLOCK outputs' sums, whole ones by VNNI of
8 bits, else of 16, and floats, of which bfloat16 by AVX512-BF16. A sum is made in one order in both. */

#ifndef CLVP_REGISTERS_H
#define CLVP_REGISTERS_H

#include "kernels.h"

#define QUAD 4 /* inputs of 8 bits that are multiplied at once */

#ifdef __AVX512VNNI__

#define BLOCK 16 /* outputs */
#define BLOCKS 3 /* whose sums are held in registers together, floats */
#define WHOLE 3  /* or whole numbers */
#define MOST 8   /* rows that are laid, and multiplied, together; one of two digits counts twice */
#define JOINED 16 /* rows, if that is all, of one digit each, that are multiplied together though they lie apart */
#define PIECE 16 /* outputs of whole numbers that one register takes */
#define DIGITS 2   /* of a number of 14 bits, of 7 each, as if of two rows; one of 8 bits is one */
#define QUAD_BYTES 4 /* of a digit's quad */
#define TOGETHER 1 /* pieces of a block, whose sums are gathered together */
#define PIECES 3   /* of as many blocks */
typedef __m512i Whole;
typedef __m512 Sums;

/* Eight numbers → two quads, in the lower part of either half: of one digit, from -128 to 127, to which 128 is added;
or of four higher and four lower ones, numbers being from -8192 to 8192, and 64 added to each. */
INLINE __m256i quads(__m256i numbers, const int digits)
{
    if (digits == 1) {
        const __m256i some = _mm256_packs_epi32(numbers, numbers);
        return _mm256_xor_si256(_mm256_packs_epi16(some, some), _mm256_set1_epi8(-128));
    }
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

INLINE Whole piece(const char *w)
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

/* sum += what a number has above 8 bits * the weights of input i of quads */
INLINE Whole added(Whole sum, const char *quads, int64_t i, int32_t above)
{
    const Whole some = _mm512_sll_epi32(_mm512_loadu_si512(quads), _mm_cvtsi32_si128(24 - 8 * (int)i));
    return _mm512_dpwssd_epi32(sum, _mm512_srai_epi32(some, 24), _mm512_set1_epi32(above & 0xffff));
}

/* What sums start from: what the 64, or 128, add to them, less than nothing. */
INLINE Whole started(const int32_t *starts, int digits)
{
    return _mm512_slli_epi32(_mm512_loadu_si512(starts), digits == 1);
}

/* The sums of a piece, of one digit, or of higher and of lower ones, which follow these. */
INLINE Sums gathered(const Whole (*sums)[PIECES], int c, int digits)
{
    const Whole first = sums[0][c];
    return _mm512_cvtepi32_ps(digits == 1 ? first : _mm512_add_epi32(_mm512_slli_epi32(first, 7), sums[1][c]));
}

INLINE Whole none(void)
{
    return _mm512_setzero_si512();
}

INLINE Whole both(Whole one, Whole other)
{
    return _mm512_add_epi32(one, other);
}

/* sums += pairs of 8 bits, one for each, * a pair of 16 */
INLINE Whole added_pairs(Whole sums, const char *pairs, int32_t pair)
{
    const Whole some = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)pairs));
    return _mm512_dpwssd_epi32(sums, some, _mm512_set1_epi32(pair));
}

INLINE Sums counted(Whole sums)
{
    return _mm512_cvtepi32_ps(sums);
}

INLINE Sums loaded(const float *x)
{
    return _mm512_loadu_ps(x);
}

INLINE void store(float *y, Sums sums)
{
    _mm512_storeu_ps(y, sums);
}

INLINE Sums repeated(float x)
{
    return _mm512_set1_ps(x);
}

/* The first LANES of a register's floats, or as many as it has; what is behind is any number. */
INLINE Sums loaded_some(const float *x, int64_t count)
{
    return count > LANES ? _mm512_loadu_ps(x) : _mm512_castps256_ps512(_mm256_loadu_ps(x));
}

INLINE void store_some(float *y, Sums x, int64_t count)
{
    if (count > LANES)
        _mm512_storeu_ps(y, x);
    else
        _mm256_storeu_ps(y, _mm512_castps512_ps256(x));
}

/* sums of LANES + these, one LANES after the other */
INLINE __m256 added_some(__m256 sums, Sums x, int64_t count)
{
    sums = _mm256_add_ps(sums, _mm512_castps512_ps256(x));
    const __m256i high = _mm512_extracti64x4_epi64(_mm512_castps_si512(x), 1);
    return count > LANES ? _mm256_add_ps(sums, _mm256_castsi256_ps(high)) : sums;
}

/* a * b + c, and c - a * b, rounded once; the larger, which is b where one is no number; the nearest whole number; 2 to
such a one; a where x has a minus, else b; and x with one. */
INLINE Sums fused(Sums a, Sums b, Sums c)
{
    return _mm512_fmadd_ps(a, b, c);
}

INLINE Sums less_fused(Sums a, Sums b, Sums c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

INLINE Sums larger(Sums a, Sums b)
{
    return _mm512_max_ps(a, b);
}

INLINE Sums nearest(Sums x)
{
    return _mm512_roundscale_ps(x, 0);
}

INLINE Sums power_of_two(Sums x)
{
    const Whole biased = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}

INLINE Sums where_minus(Sums x, Sums a, Sums b)
{
    return _mm512_mask_blend_ps(_mm512_cmplt_epi32_mask(_mm512_castps_si512(x), none()), b, a);
}

INLINE Sums with_minus(Sums x)
{
    return _mm512_castsi512_ps(_mm512_or_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MIN)));
}

/* BLOCK floats of so many bits. */
INLINE Sums widened(const char *w, const int bits)
{
    return bits == 32 ? loaded((const float *)w) : _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)w));
}

/* sums += a row's float * blocks */
INLINE void add_blocks(Sums sums[BLOCKS], const char *one, const Sums some[BLOCKS], const int blocks)
{
    const Sums x = _mm512_set1_ps(*(const float *)one);
    for (int c = 0; c < blocks; c++)
        __asm__("vfmadd231ps %2, %1, %0" : "+v"(sums[c]) : "v"(x), "v"(some[c]));
}

/* sums += a row's pair in bfloat16 * blocks of pairs */
INLINE void add_pairs(Sums sums[BLOCKS], const char *two, const Sums some[BLOCKS], const int blocks)
{
    const Sums x = _mm512_set1_ps(*(const float *)two);
    for (int c = 0; c < blocks; c++)
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sums[c]) : "v"(x), "v"(some[c]));
}

/* Eight floats as bfloat16. */
INLINE __m128i shortened(const float *x)
{
    __m128i some;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(some) : "v"(_mm256_loadu_ps(x)));
    return some;
}

#else

#define BLOCK 8
#define BLOCKS 2
#define WHOLE 1
#define MOST 6
#define JOINED 6
#define PIECE 4
#define DIGITS 1 /* of 16 bits, whatever the number has */
#define QUAD_BYTES 8
#define TOGETHER 2
#define PIECES 2
typedef __m256i Whole; /* or sums, two of each output */
typedef __m256 Sums;

/* Eight numbers → two quads. */
INLINE __m256i quads(__m256i numbers, const int digits)
{
    (void)digits;
    return _mm256_packs_epi32(numbers, numbers);
}

INLINE int64_t apart(int64_t in)
{
    (void)in;
    return PIECE * QUAD;
}

INLINE Whole piece(const char *w)
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

/* Numbers of 16 bits have nothing above. */
INLINE Whole added(Whole sum, const char *quads, int64_t i, int32_t above)
{
    (void)quads, (void)i, (void)above;
    return sum;
}

INLINE Whole started(const int32_t *starts, int digits)
{
    (void)starts, (void)digits;
    return _mm256_setzero_si256();
}

/* The sums of two pieces. */
INLINE Sums gathered(const Whole (*sums)[PIECES], int c, int digits)
{
    (void)digits;
    return _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(_mm256_hadd_epi32(sums[0][c], sums[0][c + 1]), 0xd8));
}

INLINE Whole none(void)
{
    return _mm256_setzero_si256();
}

INLINE Whole both(Whole one, Whole other)
{
    return _mm256_add_epi32(one, other);
}

INLINE Whole added_pairs(Whole sums, const char *pairs, int32_t pair)
{
    const Whole some = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)pairs));
    return both(sums, _mm256_madd_epi16(some, _mm256_set1_epi32(pair)));
}

INLINE Sums counted(Whole sums)
{
    return _mm256_cvtepi32_ps(sums);
}

INLINE Sums loaded(const float *x)
{
    return _mm256_loadu_ps(x);
}

INLINE void store(float *y, Sums sums)
{
    _mm256_storeu_ps(y, sums);
}

INLINE Sums repeated(float x)
{
    return _mm256_set1_ps(x);
}

INLINE Sums loaded_some(const float *x, int64_t count)
{
    (void)count;
    return _mm256_loadu_ps(x);
}

INLINE void store_some(float *y, Sums x, int64_t count)
{
    (void)count;
    _mm256_storeu_ps(y, x);
}

INLINE __m256 added_some(__m256 sums, Sums x, int64_t count)
{
    (void)count;
    return _mm256_add_ps(sums, x);
}

INLINE Sums fused(Sums a, Sums b, Sums c)
{
    return _mm256_fmadd_ps(a, b, c);
}

INLINE Sums less_fused(Sums a, Sums b, Sums c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

INLINE Sums larger(Sums a, Sums b)
{
    return _mm256_max_ps(a, b);
}

INLINE Sums nearest(Sums x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT);
}

INLINE Sums power_of_two(Sums x)
{
    const Whole biased = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}

INLINE Sums where_minus(Sums x, Sums a, Sums b)
{
    return _mm256_blendv_ps(b, a, x);
}

INLINE Sums with_minus(Sums x)
{
    return _mm256_or_ps(x, _mm256_set1_ps(-0.0f));
}

INLINE Sums widened(const char *w, const int bits)
{
    return floats(w, bits);
}

/* In one, where gcc would move sums about. */
INLINE void add_blocks(Sums sums[BLOCKS], const char *one, const Sums some[BLOCKS], const int blocks)
{
    Sums x;
    if (blocks == 2)
        __asm__("vbroadcastss %3, %0\n\tvfmadd231ps %4, %0, %1\n\tvfmadd231ps %5, %0, %2"
                : "=&x"(x), "+x"(sums[0]), "+x"(sums[1])
                : "m"(*(const float *)one), "x"(some[0]), "x"(some[1]));
    else
        __asm__("vbroadcastss %2, %0\n\tvfmadd231ps %3, %0, %1"
                : "=&x"(x), "+x"(sums[0])
                : "m"(*(const float *)one), "x"(some[0]));
}

/* What AVX512-BF16 does, the second of each pair first. */
INLINE void add_pairs(Sums sums[BLOCKS], const char *two, const Sums some[BLOCKS], const int blocks)
{
    const __m256i x = _mm256_set1_epi32(*(const int32_t *)two), second = _mm256_set1_epi32(0xffff0000);
    for (int c = 0; c < blocks; c++) {
        const __m256i w = _mm256_castps_si256(some[c]);
        const Sums of_x = _mm256_castsi256_ps(_mm256_and_si256(x, second));
        sums[c] = _mm256_fmadd_ps(of_x, _mm256_castsi256_ps(_mm256_and_si256(w, second)), sums[c]);
        const Sums first_of_x = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
        sums[c] = _mm256_fmadd_ps(first_of_x, _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)), sums[c]);
    }
}

/* Half of a bfloat16's last bit is added, or a little less where that bit is even; no number stays none. */
INLINE __m128i shortened(const float *x)
{
    const __m256 eight = _mm256_loadu_ps(x);
    const __m256i whole = _mm256_castps_si256(eight);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(whole, 16), _mm256_set1_epi32(1));
    const __m256i more = _mm256_add_epi32(_mm256_add_epi32(whole, last), _mm256_set1_epi32(0x7fff));
    const __m256i none = _mm256_castps_si256(_mm256_cmp_ps(eight, eight, _CMP_UNORD_Q));
    const __m256i some = _mm256_srli_epi32(_mm256_blendv_epi8(more, _mm256_set1_epi32(0x7fc00000), none), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(some), _mm256_extracti128_si256(some, 1));
}

#endif

/* Of so many floats that are left, whole LANES, those that are in the next register. */
INLINE int64_t next_of(int64_t left)
{
    return left > LANES ? BLOCK : LANES;
}

/* e to the x, for x from -87 to 0 (below, as at -87; what is no number stays so): 2 to the whole part times a
polynomial of the rest. */
INLINE Sums exponential(Sums x)
{
    x = larger(repeated(-87.0f), x);
    const Sums whole = nearest(x * repeated(1.44269504f));
    const Sums rest = less_fused(whole, repeated(-2.12194440e-4f), less_fused(whole, repeated(0.693359375f), x));
    static const float taylor[] = {1 / 720.0f, 1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 0.5f, 1.0f, 1.0f};
    Sums y = repeated(1 / 5040.0f);
    for (int i = 0; i < 7; i++)
        y = fused(y, rest, repeated(taylor[i]));
    return y * power_of_two(whole);
}

#endif
