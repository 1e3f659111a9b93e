/* Each row of a step, for itself, over a prompt's keys and values and its own, in one softmax. Rows of one prompt look at
it together. */

#include "kept.h"
#include "product.h"

#include <string.h>

/* What a thread needs for MOST rows in a head: their queries, their products with a prompt's keys, what weighs its
values, and what they find there; and of one row all its logits, and what it finds in its own. */
typedef struct {
    float *queries, *asked, *weighing, *found, *logits, *own;
} Bench;

/* A prompt's positions as inputs of a weight. */
INLINE int64_t inputs_of(const Prompt *prompt)
{
    return (prompt->length + LANES - 1) / LANES * LANES;
}

/* The floats of a bench, at `memory` unless that is NULL: `of_prompt` is a prompt's length, `longest` a row's and its
prompt's. */
static int64_t bench_of(float *memory, int64_t width, int64_t of_prompt, int64_t longest, Bench *bench)
{
    float *at = memory;
    int64_t size = 0;
    const int64_t parts[] = {MOST * width, MOST * of_prompt, MOST * of_prompt, MOST * width, longest, WIDEST};
    float **places[] = {&bench->queries, &bench->asked, &bench->weighing, &bench->found, &bench->logits, &bench->own};
    for (int i = 0; i < 6; i++) {
        const int64_t count = lines((parts[i] + ABREAST) * sizeof(float)) / sizeof(float);
        *places[i] = at;
        size += count;
        at = at ? at + count : NULL;
    }
    return size;
}

float highest(float *logits, int64_t count)
{
    __m256 high = _mm256_set1_ps(-INFINITY);
    _mm256_storeu_ps(logits + count, high);
    for (int64_t t = 0; t < count; t += LANES)
        high = _mm256_max_ps(_mm256_loadu_ps(logits + t), high);
    return largest_of(high);
}

float weighed(float *logits, int64_t count)
{
    const __m256 high = _mm256_set1_ps(highest(logits, count));
    __m256 sums = _mm256_setzero_ps();
    for (int64_t t = 0; t < count; t += LANES) { /* what is behind weighs no more than e to the -87 */
        const __m256 some = exponential(_mm256_sub_ps(_mm256_loadu_ps(logits + t), high));
        _mm256_storeu_ps(logits + t, some);
        sums = _mm256_add_ps(sums, some);
    }
    return across(sums);
}

/* `count` rows from n on, of one prompt, in head h; `next` are the keys that come after theirs. */
static void attend_some(const float *qkv, int64_t n, int64_t count, int64_t h, int64_t heads, int64_t width,
                        const Places *places, const int64_t *lengths, float *out, Bench bench, const char *next)
{
    const Prompt *prompt = places->prompts + places->of_row[n];
    const int64_t bits = places->bits, of_prompt = prompt->length, inputs = inputs_of(prompt), whole = heads * width;
    const int64_t bits_of_prompt = bits == 8 ? 16 : bits;
    const Weight keys = {.numbers = prompt->keys + h * prompt->of_keys, .bits = bits_of_prompt, .in = width,
                         .out = of_prompt};
    const Weight values = {.numbers = prompt->values + h * prompt->of_values, .bits = bits_of_prompt, .in = inputs,
                           .out = width};
    const Laid as_they_are = {.numbers = bench.queries};
    float scales[MOST];
    for (int64_t r = 0; r < count; r++)
        memcpy(bench.queries + r * width, qkv + (n + r) * 3 * whole + h * width, width * sizeof(float));
    multiply_alone(&keys, bench.queries, count, NULL, bench.asked, as_they_are);
    for (int64_t r = 0; r < count; r++) {
        const float *key = qkv + (n + r) * 3 * whole + whole + h * width;
        const int64_t length = lengths[n + r], at = (n + r) * places->row + h * places->head;
        char *k = places->keys + at, *v = places->values + at;
        float *weighing = bench.weighing + r * inputs, *own = bench.logits + of_prompt;
        keep_key(key, width, bits, k, length);
        keep_value(key + whole, width, bits, v, length);
        memcpy(bench.logits, bench.asked + r * of_prompt, of_prompt * sizeof(float));
        ask(bench.queries + r * width, k, length + 1, bits, width, own, v);
        scales[r] = 1.0f / weighed(bench.logits, of_prompt + length + 1);
        for (int64_t t = 0; t < inputs; t++)
            weighing[t] = t < of_prompt ? bench.logits[t] : 0.0f;
        find(own, v, length + 1, bits, width, bench.own, r + 1 < count ? k + places->row : next);
        memcpy(out + (n + r) * whole + h * width, bench.own, width * sizeof(float));
    }
    multiply_alone(&values, bench.weighing, count, NULL, bench.found, as_they_are);
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < width; i++) {
            float *mixed = out + (n + r) * whole + h * width + i;
            *mixed = (*mixed + bench.found[r * width + i]) * scales[r];
        }
}

/* A thread's bench for a step, as above. */
static int64_t bench_for(const Places *places, const int64_t *lengths, int64_t rows, int64_t width, float *memory,
                         Bench *bench)
{
    int64_t of_prompt = 0, longest = 0;
    for (int64_t n = 0; n < rows; n++) {
        const Prompt *prompt = places->prompts + places->of_row[n];
        const int64_t inputs = inputs_of(prompt), both = inputs + lengths[n] + 1;
        of_prompt = inputs > of_prompt ? inputs : of_prompt;
        longest = both > longest ? both : longest;
    }
    return bench_of(memory, width, of_prompt, longest, bench);
}

size_t room_to_attend(const Places *places, const int64_t *lengths, int64_t rows, int64_t width)
{
    Bench none;
    return bench_for(places, lengths, rows, width, NULL, &none) * sizeof(float);
}

/* Writes each row's key and value behind the lengths[n] that it has, then attends to its prompt and to its own.

qkv (rows, 3, heads, width), the queries scaled → out (rows, heads, width); memory of room_to_attend for each thread.
width is a multiple of 8 and at most 128. */
void attend(const float *qkv, int64_t rows, int64_t heads, int64_t width, const Places *places, const int64_t *lengths,
            float *out, char *memory)
{
    Bench bench;
    const int64_t groups = (rows + MOST - 1) / MOST;
    const int64_t room = bench_for(places, lengths, rows, width, NULL, &bench);
    bench_for(places, lengths, rows, width, (float *)memory + omp_get_thread_num() * room, &bench);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < groups * heads; task++) {
        const int64_t h = task / groups, first = task % groups * MOST, end = first + MOST < rows ? first + MOST : rows;
        for (int64_t n = first, last; n < end; n = last) {
            for (last = n + 1; last < end && places->of_row[last] == places->of_row[n];)
                last++;
            const char *next = last < rows ? places->keys + last * places->row + h * places->head
                                           : places->keys + (h + 1 < heads ? h + 1 : h) * places->head;
            attend_some(qkv, n, last - n, h, heads, width, places, lengths, out, bench, next);
        }
    }
}

/* `attend` by so many threads. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_attend(const float *qkv, int64_t rows, int64_t heads, int64_t width, const Places *places,
                         const int64_t *lengths, float *out, int threads)
{
    char *memory = room_of(threads * room_to_attend(places, lengths, rows, width));
    if (!memory)
        return 1;
#pragma omp parallel num_threads(threads)
    attend(qkv, rows, heads, width, places, lengths, out, memory);
    free(memory);
    return 0;
}
