/* Attention over all positions of whole sequences; a thread takes a head of one of them at a time. */

#include "product.h"
#include "sequences.h"

#include <string.h>

#define SOON 8 /* positions */

/* One position's numbers of a head, turned as its place demands. */
static void turn(const float *x, int64_t width, const Sequences *all, int64_t t, float *out)
{
    const int64_t half = all->half, whole = half / LANES * LANES;
    const float *cosines = all->cosines + t * half, *sines = all->sines + t * half;
    for (int64_t i = 0; i < whole; i += LANES) {
        const __m256 first = _mm256_loadu_ps(x + i), second = _mm256_loadu_ps(x + half + i);
        const __m256 cosine = _mm256_loadu_ps(cosines + i), sine = _mm256_loadu_ps(sines + i);
        _mm256_storeu_ps(out + i, _mm256_sub_ps(_mm256_mul_ps(first, cosine), _mm256_mul_ps(second, sine)));
        _mm256_storeu_ps(out + half + i, _mm256_add_ps(_mm256_mul_ps(second, cosine), _mm256_mul_ps(first, sine)));
    }
    for (int64_t i = whole; i < half; i++) {
        const float first = x[i], second = x[half + i];
        out[i] = first * cosines[i] - second * sines[i];
        out[half + i] = second * cosines[i] + first * sines[i];
    }
    memcpy(out + 2 * half, x + 2 * half, (width - 2 * half) * sizeof(float));
}

/* A position's key, rounded to 8 bits of its largest, as the weights of output t. */
static void lay_key(const float *key, const Weight *keys, int64_t t, float *steps, int32_t *starts)
{
    char *column = (char *)numbers_at(keys, 0, t) + t % BLOCK * QUAD;
    steps[t] = largest(key, keys->in) / SHORT;
    const __m256 of_one = _mm256_set1_ps(1.0f / steps[t]);
    __m256i sums = _mm256_setzero_si256();
    for (int64_t i = 0; i < keys->in; i += LANES, column += 2 * BLOCK * QUAD) {
        const __m256i numbers = rounded(key + i, of_one);
        const int64_t eight = _mm_cvtsi128_si64(in_bytes(numbers));
        *(int32_t *)column = (int32_t)eight;
        *(int32_t *)(column + BLOCK * QUAD) = (int32_t)(eight >> 32);
        sums = _mm256_add_epi32(sums, numbers);
    }
    starts[t] = -64 * (int32_t)sum_of_eight(sums);
}

/* Positions of a sequence, and nothing behind them, whole blocks. */
INLINE int64_t places(int64_t length)
{
    return (length + LANES + BLOCK - 1) / BLOCK * BLOCK;
}

/* A block of positions' keys and values, from t on, as weights. */
static void lay_block(float of_keys[BLOCK][WIDEST], float of_values[BLOCK][WIDEST + BLOCK], int64_t t,
                      const Weight *keys, const Weight *values, Bench bench)
{
    for (int64_t r = 0; r < BLOCK; r++) {
        if (keys->bits == 8)
            lay_key(of_keys[r], keys, t + r, bench.steps, bench.starts);
        for (int64_t j = 0; j < values->out; j += BLOCK)
            store((float *)numbers_at(values, t / DEPTH * DEPTH, j) + (t + r) % DEPTH * BLOCK, loaded(of_values[r] + j));
    }
    float *column = (float *)numbers_at(keys, 0, t);
    for (int64_t i = 0; keys->bits == 32 && i < keys->in; i++)
        for (int64_t r = 0; r < BLOCK; r++)
            *column++ = of_keys[r][i];
}

/* All positions of a sequence in one head. Keys are a weight (positions, width) that queries are multiplied with,
values one (width, positions) for what queries weigh; nothing stands behind the last position of either.

qkv, of the first position (3, heads, width), the queries scaled → out, likewise (heads, width). */
static void attend_all(const float *qkv, int64_t length, int64_t heads, int64_t width, int64_t head,
                       const Sequences *all, int64_t bits, float *out, Bench bench)
{
    const int64_t count = places(length), whole = heads * width;
    const Weight keys = {.numbers = bench.keys, .scale = bits == 8 ? bench.steps : NULL, .starts = bench.starts,
                         .bits = bits, .in = width, .out = count};
    const Weight values = {.numbers = bench.values, .bits = 32, .in = count, .out = width};
    float of_keys[BLOCK][WIDEST] = {0}, of_values[BLOCK][WIDEST + BLOCK] = {0};
    for (int64_t t = 0; t < count; t++) {
        float *key = of_keys[t % BLOCK], *value = of_values[t % BLOCK];
        if (t < length) {
            const float *of_head = qkv + t * 3 * whole + head * width;
            for (int64_t i = 0; i < width * (int64_t)sizeof(float); i += LINE)
                for (int part = 0; part < 3; part++)
                    _mm_prefetch((const char *)(of_head + (3 * SOON + part) * whole) + i, _MM_HINT_T0);
            turn(of_head, width, all, t, bench.queries + t * width);
            turn(of_head + whole, width, all, t, key);
            turn(of_head + 2 * whole, width, all, t, value);
        } else {
            memset(key, 0, width * sizeof(float));
            memset(value, 0, width * sizeof(float));
        }
        if (t % BLOCK == BLOCK - 1)
            lay_block(of_keys, of_values, t - t % BLOCK, &keys, &values, bench);
    }
    for (int64_t t = 0; t < length; t += MOST) {
        const int64_t rows = length - t < MOST ? length - t : MOST;
        float scales[MOST];
        multiply_alone(&keys, bench.queries + t * width, rows, NULL, bench.logits, bench.asked);
        for (int64_t r = 0; r < rows; r++) {
            scales[r] = 1.0f / weighed(bench.logits + r * count, length);
            for (int64_t i = length; i < count; i++)
                bench.logits[r * count + i] = 0.0f;
        }
        multiply_alone(&values, bench.logits, rows, NULL, bench.found, bench.asked);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < width; i++)
                out[(t + r) * whole + head * width + i] = bench.found[r * width + i] * scales[r];
    }
}

int64_t bits_of_keys(int whole, int64_t width)
{
    return whole && width % (2 * LANES) == 0 ? 8 : 32;
}

int64_t longest_of(const Sequences *all)
{
    int64_t longest = 0;
    for (int64_t n = 0; n < all->count; n++) {
        const int64_t length = all->starts[n + 1] - all->starts[n];
        longest = length > longest ? length : longest;
    }
    return longest;
}

Bench bench_of(char *memory, size_t *size, int64_t width, int64_t longest)
{
    const int64_t count = places(longest);
    const Weight keys = {.in = width};
    Bench bench;
    *size = 0;
    bench.queries = cut(&memory, size, longest * width);
    bench.keys = cut(&memory, size, count * width);
    bench.values = cut(&memory, size, count * (width + BLOCK));
    bench.logits = cut(&memory, size, MOST * count);
    bench.found = cut(&memory, size, MOST * width);
    bench.steps = cut(&memory, size, count);
    bench.starts = (int32_t *)cut(&memory, size, count);
    bench.asked = laid_room(memory, &keys, MOST);
    *size += room_for_rows(&keys, MOST);
    return bench;
}

void attend_each(const float *qkv, int64_t heads, int64_t width, const Sequences *all, int64_t bits, float *out,
                 Bench bench)
{
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < all->count * heads; task++) {
        const int64_t start = all->starts[task / heads], length = all->starts[task / heads + 1] - start;
        const int64_t whole = heads * width;
        attend_all(qkv + start * 3 * whole, length, heads, width, task % heads, all, bits, out + start * whole, bench);
    }
}

/* What lies between products, where these are others' than ours: `attend_each` by so many threads; `whole` tells that
products are of whole numbers. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_attend_all(const float *qkv, int64_t heads, int64_t width, const Sequences *all, int whole,
                             float *out, int threads)
{
    const int64_t longest = longest_of(all), bits = bits_of_keys(whole, width);
    size_t of_bench;
    bench_of(NULL, &of_bench, width, longest);
    char *memory = room_of(threads * of_bench);
    if (!memory)
        return 1;
#pragma omp parallel num_threads(threads)
    {
        char *own_bench = memory + omp_get_thread_num() * of_bench;
        attend_each(qkv, heads, width, all, bits, out, bench_of(own_bench, &(size_t){0}, width, longest));
    }
    free(memory);
    return 0;
}
