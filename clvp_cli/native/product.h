/* A product in parts: rows are laid as they are multiplied, then bands of outputs are made, each by one thread. */

#ifndef CLVP_PRODUCT_H
#define CLVP_PRODUCT_H

#include "kernels.h"
#include "registers.h"

#define AHEAD 4096 /* bytes by which weights that are read once are asked for before they are needed, */
#define NEAR 1024  /* or which are asked for again, if they were asked for from afar */

/* `block` with the number of rows as a constant, which it must be for sums to stay in registers. */
#if MOST == 8
#define BY_MORE_ROWS(p, ...)                     \
    case 8: block(p, 8, __VA_ARGS__); break;     \
    case 7: block(p, 7, __VA_ARGS__); break;
#else
#define BY_MORE_ROWS(p, ...)
#endif
#define BY_ROWS(rows, p, ...)                    \
    switch (rows) {                              \
    BY_MORE_ROWS(p, __VA_ARGS__)                 \
    case 6: block(p, 6, __VA_ARGS__); break;     \
    case 5: block(p, 5, __VA_ARGS__); break;     \
    case 4: block(p, 4, __VA_ARGS__); break;     \
    case 3: block(p, 3, __VA_ARGS__); break;     \
    case 2: block(p, 2, __VA_ARGS__); break;     \
    case 1: block(p, 1, __VA_ARGS__); break;     \
    }

/* And with the number of blocks, at the most `most` of them. */
#define BY_BLOCKS(blocks, most, rows, p, ...) \
    if (most > 2 && blocks == 3) {            \
        BY_ROWS(rows, p, 3, __VA_ARGS__)      \
    } else if (most > 1 && blocks == 2) {     \
        BY_ROWS(rows, p, 2, __VA_ARGS__)      \
    } else {                                  \
        BY_ROWS(rows, p, 1, __VA_ARGS__)      \
    }

/* Of more rows than MOST, with two blocks or with one. */
#define BY_JOINED_ROWS(blocks, rows, p, ...)       \
    switch (blocks == 2 ? rows : -rows) {          \
    case 12: block(p, 12, 2, __VA_ARGS__); break;  \
    case 11: block(p, 11, 2, __VA_ARGS__); break;  \
    case 10: block(p, 10, 2, __VA_ARGS__); break;  \
    case 9: block(p, 9, 2, __VA_ARGS__); break;    \
    case -16: block(p, 16, 1, __VA_ARGS__); break; \
    case -15: block(p, 15, 1, __VA_ARGS__); break; \
    case -14: block(p, 14, 1, __VA_ARGS__); break; \
    case -13: block(p, 13, 1, __VA_ARGS__); break; \
    case -12: block(p, 12, 1, __VA_ARGS__); break; \
    case -11: block(p, 11, 1, __VA_ARGS__); break; \
    case -10: block(p, 10, 1, __VA_ARGS__); break; \
    case -9: block(p, 9, 1, __VA_ARGS__); break;   \
    }

typedef struct {
    const Weight *w;
    const float *x, *residual;
    float *y;
    Laid rows;
} Product;

/* Some rows from m to last, inputs from k to k + depth, and outputs from j to end. */
typedef struct {
    int64_t m, last, k, depth, j, end;
} Band;

/* What is asked for beside each line of a block: what is so far `ahead` of it; and from `far` on, a `pace` of bytes. */
typedef struct {
    int64_t ahead, pace;
    const char *far;
} Asked;

/* Lay rows m to last of x (..., in) as they are multiplied, MOST together, from place m on; whole ones in an order of
their own, which `rounded` tells. */
void lay_whole(const float *x, int64_t m, int64_t last, int64_t in, Laid room);
void lay_brains(const float *x, int64_t m, int64_t last, int64_t in, Laid room);

/* Sums of the band's inputs, of rows from m on and as many blocks of outputs from j on → y. */
void block_of_whole(const Product *p, int64_t rows, int64_t blocks, Band band, int64_t m, int64_t j, Asked asked);
void block_of_floats(const Product *p, int64_t rows, int64_t blocks, Band band, int64_t m, int64_t j, Asked asked);

/* Bytes of a weight's number. */
INLINE int64_t size_of(const Weight *w)
{
    return w->bits / 8;
}

/* Where the row is laid that is multiplied first of those in place m. */
INLINE char *laid_at(Laid room, int64_t m, int64_t in)
{
    return (char *)room.numbers + m * in * sizeof(int16_t);
}

/* Outputs, the last block filled up. */
INLINE int64_t filled(const Weight *w)
{
    return (w->out + BLOCK - 1) / BLOCK * BLOCK;
}

/* The inputs of a weight's part that begins with input k. */
INLINE int64_t depth_at(const Weight *w, int64_t k)
{
    return w->in - k < DEPTH ? w->in - k : DEPTH;
}

/* Where it begins for the block of output j. */
INLINE const char *numbers_at(const Weight *w, int64_t k, int64_t j)
{
    return (const char *)w->numbers + (k * filled(w) + depth_at(w, k) * (j / BLOCK * BLOCK)) * size_of(w);
}

/* The sums in place m, of a block of outputs from j on, → y: the first inputs' with bias and residual, others' onto what
is there. Whole numbers are scaled. Behind the last output there is nothing. */
INLINE void finish(const Product *p, int64_t m, int64_t j, Sums sums, int first)
{
    const Weight *w = p->w;
    const float *bias = first ? w->bias : NULL, *residual = first ? p->residual : p->y;
    const int64_t at = (w->scale ? p->rows.rounded[m].row : m) * w->out + j;
    if (w->scale)
        sums = sums * loaded(w->scale + j) * repeated(p->rows.rounded[m].step);
    if (j + BLOCK <= w->out) {
        if (bias)
            sums += loaded(bias + j);
        if (residual)
            sums += loaded(residual + at);
        store(p->y + at, sums);
        return;
    }
    float some[BLOCK];
    store(some, sums);
    for (int64_t i = 0; j + i < w->out; i++) {
        const float sum = bias ? some[i] + bias[j + i] : some[i];
        p->y[at + i] = residual ? sum + residual[at + i] : sum;
    }
}

#endif
