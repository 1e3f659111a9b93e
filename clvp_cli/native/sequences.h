/* Whole sequences, and attention over all positions of each. */

#ifndef CLVP_SEQUENCES_H
#define CLVP_SEQUENCES_H

#include "kernels.h"

/* `count` sequences, one from each of starts (count + 1) to the next; and the angles' cosines and sines (positions,
half) by which position t turns numbers i and i + half of its queries, keys and values. */
typedef struct {
    const int64_t *starts;
    int64_t count;
    const float *cosines, *sines;
    int64_t half;
} Sequences;

/* What a thread needs to attend: queries, keys, values, logits and what is found of one sequence in one head; what keys
of 8 bits count, and their starts; and queries as they are laid. */
typedef struct {
    float *queries, *keys, *values, *logits, *found, *steps;
    int32_t *starts;
    Laid asked;
} Bench;

/* The positions of the longest; a thread's bench for it, in memory of `size`, which is told; and the bits of keys: whole
numbers where products are of these, if a head is what they take. */
int64_t longest_of(const Sequences *all);
Bench bench_of(char *memory, size_t *size, int64_t width, int64_t longest);
int64_t bits_of_keys(int whole, int64_t width);

/* All sequences in all heads, shared out among a region's threads, which then wait for each other: qkv (positions, 3,
heads, width), the queries scaled → out (positions, heads, width). */
void attend_each(const float *qkv, int64_t heads, int64_t width, const Sequences *all, int64_t bits, float *out,
                 Bench bench);

#endif
