/* What rows keep of each code that they said: its key and value in each head. */

#ifndef CLVP_KEPT_H
#define CLVP_KEPT_H

#include "kernels.h"

#define ABREAST 16 /* positions of whole numbers that lie together */

/* Floats x (width) are the key, or the value, of position t. */
void keep_key(const float *x, int64_t width, int64_t bits, char *keys, int64_t t);
void keep_value(const float *x, int64_t width, int64_t bits, char *values, int64_t t);

/* A query's products q . key with `count` keys → logits, with room for ABREAST more. While these are read, as much from
`next` on is asked for. */
void ask(const float *q, const char *keys, int64_t count, int64_t bits, int64_t width, float *logits, const char *next);

/* weights[t] * value of t, together → found, with room for whole lines; the weights, with room likewise, are spent. */
void find(float *weights, const char *values, int64_t count, int64_t bits, int64_t width, float *found,
          const char *next);

#endif
