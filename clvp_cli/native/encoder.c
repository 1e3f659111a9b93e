/* An encoder's layers, for all positions of whole sequences: in each, x + attention(norm x), then x + mlp(norm x).

Between attentions, a thread takes some rows at a time through all that they need while they are in its cache; for
attention, a head of a sequence. */

#include "product.h"

#include <string.h>

#define SOON 8 /* positions */
#define ROOM (1 << 19) /* bytes of what is widest, of so many rows at once */

/* x / rms(x) times the weight: eps is within the root; or `clamps`, and it is the least root. */
typedef struct {
    const float *weight;
    float eps;
    int32_t clamps;
} RmsNorm;

/* fc1 makes values and gates, fc2 takes values times GELU of gates. */
typedef struct {
    RmsNorm before_attention, before_mlp;
    Weight qkv, out, fc1, fc2;
    int64_t heads;
} EncoderLayer;

/* `count` sequences, one from each of starts (count + 1) to the next; and the angles' cosines and sines (positions,
half) by which position t turns numbers i and i + half of its queries, keys and values. */
typedef struct {
    const int64_t *starts;
    int64_t count;
    const float *cosines, *sines;
    int64_t half;
} Sequences;

/* What a thread works with: queries, keys, values, logits and what is found of one sequence in one head; rows of the
width, of fc1's outputs and of fc2's inputs, and rows as they are laid. */
typedef struct {
    float *queries, *keys, *values, *logits, *found, *steps;
    int32_t *starts;
    float *normed, *many, *gated;
    Laid asked, laid;
} Bench;

static void rms_normed(const RmsNorm *norm, const float *x, int64_t rows, int64_t width, float *out)
{
    for (; rows > 0; rows--, x += width, out += width) {
        __m256 squares = _mm256_setzero_ps();
        for (int64_t i = 0; i < width; i += LANES) {
            const __m256 some = _mm256_loadu_ps(x + i);
            squares = _mm256_fmadd_ps(some, some, squares);
        }
        const float mean = across(squares) / (float)width, root = sqrtf(norm->clamps ? mean : mean + norm->eps);
        const __m256 scale = _mm256_set1_ps(1.0f / (norm->clamps && root < norm->eps ? norm->eps : root));
        for (int64_t i = 0; i < width; i += LANES) {
            const __m256 even = _mm256_mul_ps(_mm256_loadu_ps(x + i), scale);
            _mm256_storeu_ps(out + i, _mm256_mul_ps(even, _mm256_loadu_ps(norm->weight + i)));
        }
    }
}

/* GELU: x times the share of the normal distribution that is below it, 1 - erf being Abramowitz and Stegun's 7.1.26. */
INLINE __m256 gelu(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    const __m256 z = _mm256_mul_ps(_mm256_andnot_ps(sign, x), _mm256_set1_ps(0.70710678f));
    const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(z, _mm256_set1_ps(0.3275911f), one));
    static const float rest[] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    __m256 y = _mm256_set1_ps(1.061405429f);
    for (int i = 0; i < 4; i++)
        y = _mm256_fmadd_ps(y, t, _mm256_set1_ps(rest[i]));
    const __m256 e = exponential(_mm256_xor_ps(sign, _mm256_mul_ps(z, z)));
    const __m256 beyond = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(0.5f), _mm256_mul_ps(y, t)), e);
    return _mm256_mul_ps(x, _mm256_blendv_ps(_mm256_sub_ps(one, beyond), beyond, x));
}

/* Values and gates (rows, 2, width) → (rows, width). */
static void gate(const float *both, int64_t rows, int64_t width, float *out)
{
    for (; rows > 0; rows--, both += 2 * width, out += width)
        for (int64_t i = 0; i < width; i += LANES)
            _mm256_storeu_ps(out + i,
                             _mm256_mul_ps(_mm256_loadu_ps(both + i), gelu(_mm256_loadu_ps(both + width + i))));
}

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
        const __m256i numbers = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(key + i), of_one));
        const __m128i some = _mm_packs_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
        const int64_t eight = _mm_cvtsi128_si64(_mm_packs_epi16(some, some));
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

/* The bits of keys: whole numbers where products are of these, if a head is what they take. */
INLINE int64_t bits_of_keys(int whole, int64_t width)
{
    return whole && width % (2 * LANES) == 0 ? 8 : 32;
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
        multiply_alone(&values, bench.logits, rows, NULL, bench.found, bench.laid);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < width; i++)
                out[(t + r) * whole + head * width + i] = bench.found[r * width + i] * scales[r];
    }
}

/* All sequences in all heads, shared out among a region's threads, which then wait for each other: qkv (positions, 3,
heads, width), the queries scaled → out (positions, heads, width). */
static void attend_each(const float *qkv, int64_t heads, int64_t width, const Sequences *all, int64_t bits, float *out,
                        Bench bench)
{
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < all->count * heads; task++) {
        const int64_t start = all->starts[task / heads], length = all->starts[task / heads + 1] - start;
        const int64_t whole = heads * width;
        attend_all(qkv + start * 3 * whole, length, heads, width, task % heads, all, bits, out + start * whole, bench);
    }
}

static int64_t longest_of(const Sequences *all)
{
    int64_t longest = 0;
    for (int64_t n = 0; n < all->count; n++) {
        const int64_t length = all->starts[n + 1] - all->starts[n];
        longest = length > longest ? length : longest;
    }
    return longest;
}

/* So many floats of `memory`, which then begins behind them; of none, their bytes are counted alone. */
static float *cut(char **memory, size_t *size, int64_t count)
{
    float *start = (float *)*memory;
    *size += lines(count * sizeof(float));
    if (*memory)
        *memory += lines(count * sizeof(float));
    return start;
}

/* A thread's bench for attention, and, where there is a layer, for as many rows in it. */
static Bench bench_of(char *memory, size_t *size, int64_t width, int64_t longest, const EncoderLayer *layer,
                      int64_t rows)
{
    const int64_t count = places(longest);
    Bench bench = {0};
    *size = 0;
    bench.queries = cut(&memory, size, longest * width);
    bench.keys = cut(&memory, size, count * width);
    bench.values = cut(&memory, size, count * (width + BLOCK));
    bench.logits = cut(&memory, size, MOST * count);
    bench.found = cut(&memory, size, MOST * width);
    bench.steps = cut(&memory, size, count);
    bench.starts = (int32_t *)cut(&memory, size, count);
    const Weight keys = {.in = width};
    bench.asked = laid_room(memory, &keys, MOST);
    *size += room_for_rows(&keys, MOST);
    if (memory)
        memory += room_for_rows(&keys, MOST);
    if (layer) {
        const Weight *widest = layer->fc2.in > layer->qkv.in ? &layer->fc2 : &layer->qkv;
        bench.normed = cut(&memory, size, rows * layer->qkv.in);
        bench.many = cut(&memory, size, rows * layer->fc1.out);
        bench.gated = cut(&memory, size, rows * layer->fc2.in);
        bench.laid = laid_room(memory, widest, rows);
        *size += room_for_rows(widest, rows);
    }
    return bench;
}

/* `some` rows of x through what follows attention in a layer. */
static void finish_layer(const EncoderLayer *layer, const float *mixed, int64_t some, float *x, Bench bench)
{
    multiply_alone(&layer->out, mixed, some, x, x, bench.laid);
    rms_normed(&layer->before_mlp, x, some, layer->out.out, bench.normed);
    multiply_alone(&layer->fc1, bench.normed, some, NULL, bench.many, bench.laid);
    gate(bench.many, some, layer->fc2.in, bench.gated);
    multiply_alone(&layer->fc2, bench.gated, some, x, x, bench.laid);
}

/* x (positions, D) through `count` layers, as wide as each other, in place. Heads are a multiple of 8 and at most 128
wide. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_encode(const EncoderLayer *layers, int64_t count, const Sequences *all, float *x, int threads)
{
    const int64_t rows = all->starts[all->count], width = layers->qkv.in, heads = layers->heads;
    const int64_t fitting = ROOM / sizeof(float) / layers->fc1.out, share = (rows + threads - 1) / threads;
    const int64_t panel = ((fitting < share ? fitting : share) + MOST - 1) / MOST * MOST;
    const int64_t longest = longest_of(all), head = width / heads, bits = bits_of_keys(layers->qkv.bits == 8, head);
    size_t of_bench;
    bench_of(NULL, &of_bench, head, longest, layers, panel);
    const size_t of_qkv = lines(rows * layers->qkv.out * sizeof(float)), of_mixed = lines(rows * width * sizeof(float));
    char *memory = room_of(of_qkv + of_mixed + threads * of_bench);
    if (!memory)
        return 1;
    float *qkv = (float *)memory, *mixed = (float *)(memory + of_qkv);
    char *benches = memory + of_qkv + of_mixed;
#pragma omp parallel num_threads(threads)
    {
        char *own_bench = benches + omp_get_thread_num() * of_bench;
        const Bench bench = bench_of(own_bench, &(size_t){0}, head, longest, layers, panel);
        for (int64_t n = 0; n <= count; n++) {
#pragma omp for schedule(dynamic)
            for (int64_t m = 0; m < rows; m += panel) {
                const int64_t some = rows - m < panel ? rows - m : panel;
                float *at = x + m * width;
                if (n > 0)
                    finish_layer(layers + n - 1, mixed + m * width, some, at, bench);
                if (n == count)
                    continue;
                rms_normed(&layers[n].before_attention, at, some, width, bench.normed);
                multiply_alone(&layers[n].qkv, bench.normed, some, NULL, qkv + m * layers->qkv.out, bench.laid);
            }
            if (n < count)
                attend_each(qkv, heads, head, all, bits, mixed, bench);
        }
    }
    free(memory);
    return 0;
}

/* What lies between products, where these are others' than ours: `attend_each` by so many threads; `whole` tells that
products are of whole numbers. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_attend_all(const float *qkv, int64_t heads, int64_t width, const Sequences *all, int whole,
                             float *out, int threads)
{
    const int64_t longest = longest_of(all), bits = bits_of_keys(whole, width);
    size_t of_bench;
    bench_of(NULL, &of_bench, width, longest, NULL, 0);
    char *memory = room_of(threads * of_bench);
    if (!memory)
        return 1;
#pragma omp parallel num_threads(threads)
    {
        char *own_bench = memory + omp_get_thread_num() * of_bench;
        attend_each(qkv, heads, width, all, bits, out, bench_of(own_bench, &(size_t){0}, width, longest, NULL, 0));
    }
    free(memory);
    return 0;
}

/* x (rows, width) → out, likewise. */
EXPORTED void clvp_rms_norm(const RmsNorm *norm, const float *x, int64_t rows, int64_t width, float *out, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (int64_t m = 0; m < rows; m++)
        rms_normed(norm, x + m * width, 1, width, out + m * width);
}

/* both (rows, 2, width) → out (rows, width) */
EXPORTED void clvp_gate(const float *both, int64_t rows, int64_t width, float *out, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (int64_t m = 0; m < rows; m++)
        gate(both + m * 2 * width, 1, width, out + m * width);
}
