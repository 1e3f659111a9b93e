/* Each row of a step, for itself, over a prompt's keys and values and its own. */

#include "kernels.h"

#define AT_ONCE 4 /* keys */
#define SOON 1024 /* bytes */

/* The bytes of a position's key, or value: LANES numbers of `bits` bits are `bits` bytes. */
INLINE int64_t position_of(int64_t width, int64_t bits)
{
    return width / LANES * bits + (bits == 8 ? sizeof(float) : 0);
}

/* What a whole number of this key, or value, counts. */
INLINE float counts_in(const char *position, int64_t width)
{
    return *(const float *)(position + width);
}

/* Floats x (width) in so many bits. */
static void stored(const float *x, int64_t width, int64_t bits, char *numbers)
{
    const float step = bits == 8 ? largest(x, width) / SHORT : 1.0f;
    const __m256 of_one = _mm256_set1_ps(1.0f / step);
    for (int64_t i = 0; i < width; i += LANES, numbers += bits) {
        const __m256 eight = _mm256_loadu_ps(x + i);
        if (bits == 32) {
            _mm256_storeu_ps((float *)numbers, eight);
        } else if (bits == 16) {
            _mm_storeu_si128((__m128i *)numbers, _mm256_cvtps_ph(eight, _MM_FROUND_TO_NEAREST_INT));
        } else {
            _mm_storel_epi64((__m128i *)numbers, in_bytes(rounded(x + i, of_one)));
        }
    }
    if (bits == 8)
        *(float *)numbers = step;
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

/* logits[t] = q . keys[t], and AT_ONCE - 1 more behind; as far as these keys reach, `next` is expected. */
INLINE void asked(const float *q, const char *keys, int64_t count, const int bits, const int width, float *logits,
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
        __m128 four = four_sums(sums[0], sums[1], sums[2], sums[3]);
        if (bits == 8)
            four = _mm_mul_ps(four, _mm_setr_ps(counts_in(key[0], width), counts_in(key[1], width),
                                                counts_in(key[2], width), counts_in(key[3], width)));
        _mm_storeu_ps(logits + t, four);
    }
}

/* mixed += weights[t] * values[t]; `next` as above */
INLINE void found(const float *weights, const char *values, int64_t count, const int bits, const int width,
                  __m256 *mixed, const char *next)
{
    const int64_t position = position_of(width, bits);
    for (int64_t t = 0; t < count; t++, values += position) {
        const __m256 weight = _mm256_set1_ps(bits == 8 ? weights[t] * counts_in(values, width) : weights[t]);
        expect(next ? next + t * position : NULL, values, position);
        for (int i = 0; i < width / LANES; i++)
            mixed[i] = _mm256_fmadd_ps(weight, floats(values + i * bits, bits), mixed[i]);
    }
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

/* Attention of one query in one head, over the prompt's positions and `count` of its row's; `next` are the keys that
come after it. */
INLINE void mix(const float *q, const Prompt *prompt, int64_t head, const char *keys, const char *values, int64_t count,
                const int bits, const int width, float *weights, float *out, const char *next)
{
    const int64_t at = head * prompt->head, both = prompt->length + count;
    const int of_prompt = bits == 8 ? 16 : bits;
    __m256 mixed[WIDEST / LANES];
    asked(q, prompt->keys + at, prompt->length, of_prompt, width, weights, NULL);
    asked(q, keys, count, bits, width, weights + prompt->length, values);
    const __m256 scale = _mm256_set1_ps(1.0f / weighed(weights, both));
    for (int i = 0; i < width / LANES; i++)
        mixed[i] = _mm256_setzero_ps();
    found(weights, prompt->values + at, prompt->length, of_prompt, width, mixed, NULL);
    found(weights + prompt->length, values, count, bits, width, mixed, next);
    for (int i = 0; i < width / LANES; i++)
        _mm256_storeu_ps(out + i * LANES, _mm256_mul_ps(mixed[i], scale));
}

/* The floats that a thread needs for its logits. */
int64_t room_for_logits(const Places *places, const int64_t *lengths, int64_t rows)
{
    int64_t longest = 0;
    for (int64_t n = 0; n < rows; n++) {
        const int64_t both = lengths[n] + 1 + places->prompts[places->of_row[n]].length;
        longest = both > longest ? both : longest;
    }
    return lines((longest + LANES) * sizeof(float)) / sizeof(float);
}

/* Writes each row's key and value behind the lengths[n] that it has, then attends to its prompt and to its own.

qkv (rows, 3, heads, width), the queries scaled → out (rows, heads, width); logits (threads, room). width is a
multiple of 8 and at most 128. */
void attend(const float *qkv, int64_t rows, int64_t heads, int64_t width, const Places *places, const int64_t *lengths,
            float *out, float *logits, int64_t room)
{
    float *weights = logits + omp_get_thread_num() * room;
    const int64_t bits = places->bits, position = position_of(width, bits);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < rows * heads; task++) {
        const int64_t h = task / rows, n = task % rows, count = lengths[n] + 1;
        const float *q = qkv + n * 3 * heads * width + h * width;
        const Prompt *prompt = places->prompts + places->of_row[n];
        char *k = places->keys + n * places->row + h * places->head;
        char *v = places->values + n * places->row + h * places->head;
        const int64_t after = task + 1 < rows * heads ? task + 1 : task;
        const char *next = places->keys + after % rows * places->row + after / rows * places->head;
        float *mixed = out + (n * heads + h) * width;
        stored(q + heads * width, width, bits, k + lengths[n] * position);
        stored(q + 2 * heads * width, width, bits, v + lengths[n] * position);
        if (bits == 8 && width == 64)
            mix(q, prompt, h, k, v, count, 8, 64, weights, mixed, next);
        else if (bits == 8)
            mix(q, prompt, h, k, v, count, 8, width, weights, mixed, next);
        else if (bits == 16 && width == 64)
            mix(q, prompt, h, k, v, count, 16, 64, weights, mixed, next);
        else if (bits == 16)
            mix(q, prompt, h, k, v, count, 16, width, weights, mixed, next);
        else if (width == 64)
            mix(q, prompt, h, k, v, count, 32, 64, weights, mixed, next);
        else
            mix(q, prompt, h, k, v, count, 32, width, weights, mixed, next);
    }
}

/* `attend` by so many threads. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_attend(const float *qkv, int64_t rows, int64_t heads, int64_t width, const Places *places,
                         const int64_t *lengths, float *out, int threads)
{
    const int64_t room = room_for_logits(places, lengths, rows);
    float *logits = room_of((size_t)threads * room * sizeof *logits);
    if (!logits)
        return 1;
#pragma omp parallel num_threads(threads)
    attend(qkv, rows, heads, width, places, lengths, out, logits, room);
    free(logits);
    return 0;
}
