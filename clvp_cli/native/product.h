/* A product in parts: rows are laid as they are multiplied, then bands of outputs are made, each by one thread. */

#ifndef CLVP_PRODUCT_H
#define CLVP_PRODUCT_H

#include "kernels.h"

#define ROWS 6     /* at the most, of activations, whose sums are held in registers together */
#define AHEAD 4096 /* bytes that are asked for before they are needed, where weights are read once */

/* `block` with the number of rows as a constant, which it must be for sums to stay in registers. */
#define BY_ROWS(p, m, j, rows, wide, ask)               \
    switch (rows) {                                     \
    case 6: block(p, m, j, 6, wide, ask); break;        \
    case 5: block(p, m, j, 5, wide, ask); break;        \
    case 4: block(p, m, j, 4, wide, ask); break;        \
    case 3: block(p, m, j, 3, wide, ask); break;        \
    case 2: block(p, m, j, 2, wide, ask); break;        \
    case 1: block(p, m, j, 1, wide, ask); break;        \
    }

typedef struct {
    const Weight *w;
    const float *residual;
    float *y;
    Laid rows;
} Product;

/* Lay the row x (in) at `laid`, as the r-th of `beside` rows that are multiplied together; whole numbers have what one
of them counts. */
float lay_whole(const float *x, int64_t in, char *laid, int64_t r, int64_t beside);
void lay_brains(const float *x, int64_t in, char *laid, int64_t r, int64_t beside);
void lay_floats(const float *x, int64_t in, char *laid, int64_t r, int64_t beside);

/* Rows m to last of outputs j to end. Rows stay in the first cache while weights pass, and these in the second. The next
band's weights are asked for meanwhile, half of them beside the first rows and half beside the next; or, where weights
pass once, and fast, the next of them. */
void band_of_whole(const Product *p, int64_t m, int64_t last, int64_t j, int64_t end);
void band_of_floats(const Product *p, int64_t m, int64_t last, int64_t j, int64_t end);

INLINE int64_t row_bytes(const Weight *w)
{
    return w->in * w->bits / 8;
}

/* Bytes of a row as it is laid. */
INLINE int64_t laid_bytes(const Weight *w)
{
    return w->in * (w->bits == 8 || w->brain ? sizeof(int16_t) : sizeof(float));
}

#endif
