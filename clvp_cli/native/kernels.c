/* A decoder's step on x86 with AVX2: products with weights of 8 or 16 bits, attention over keys and values of 16.

Plain functions on memory that the caller owns, bound by __init__.py; nothing here allocates for longer than a call.
A row's result depends on no other row and on no number of threads: whole sums are exact in any order, and what is
summed in floats is summed within one row in one order. Compiled without contraction of a * b + c. */

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>

#define LARGEST 8192.0f /* of an activation, as a whole number: 14 bits */
#define STEP 16         /* inputs that are multiplied at once */
#define ROWS 6          /* at the most, of activations, and */
#define OUTS 2          /* of weights, whose sums are held in registers together */
#define DEEP 4          /* steps at once, where one row comes alone */
#define AHEAD 1024      /* bytes that are asked for before they are needed */
#define LINE 64         /* bytes that come at once */
#define PANEL (1 << 18) /* numbers of rows, as the third cache holds, and */
#define BAND (1 << 16)  /* bytes of weights, as the second, that are multiplied with each other */

#define INLINE static inline __attribute__((always_inline))

/* The sum of eight. */
INLINE float across(__m256 x)
{
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

INLINE __m256 widened(const uint16_t *halves)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
}

/* The row x (in) as whole numbers and what one of them counts: no number where the row has one that is none. */
static float rounded(const float *x, int64_t in, int16_t *whole)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 high = _mm256_setzero_ps(), none = _mm256_setzero_ps();
    for (int64_t k = 0; k < in; k += 8) {
        const __m256 some = _mm256_loadu_ps(x + k);
        high = _mm256_max_ps(high, _mm256_andnot_ps(sign, some));
        none = _mm256_fmadd_ps(some, _mm256_setzero_ps(), none);
    }
    float lanes[8], largest = 1e-30f;
    _mm256_storeu_ps(lanes, high);
    for (int i = 0; i < 8; i++)
        largest = lanes[i] > largest ? lanes[i] : largest;
    const float step = largest / LARGEST + across(none);
    const __m256 unit = _mm256_set1_ps(step);
    for (int64_t k = 0; k < in; k += STEP) {
        const __m256i low = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + k), unit));
        const __m256i up = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + k + 8), unit));
        const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, up), 0xd8);
        _mm256_storeu_si256((__m256i *)(whole + k), both);
    }
    return step;
}

/* The eight sums of a register as one: four of 32 bits hold two each, at in <= 8192, and the rest has 64. */
INLINE float summed(__m256i sums)
{
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    int32_t lanes[4];
    _mm_storeu_si128((__m128i *)lanes, four);
    return (float)((int64_t)lanes[0] + lanes[1] + lanes[2] + lanes[3]);
}

INLINE __m256i bytes(const int8_t *w)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w));
}

/* sums += row (16 numbers) * w, pairwise; one after another, where gcc would hold all products, and sums in memory. */
INLINE void add_products(__m256i *sums, const int16_t *row, __m256i w)
{
    __m256i products;
    __asm__("vpmaddwd %3, %2, %0\n\tvpaddd %0, %1, %1"
            : "=&x"(products), "+x"(*sums)
            : "x"(w), "m"(*(const __m256i_u *)row));
}

/* One row a (in) times one weight w (in): memory is read straight on, which is what bounds this. */
INLINE float lone(const int16_t *a, const int8_t *w, int64_t in)
{
    __m256i acc[DEEP];
    for (int i = 0; i < DEEP; i++)
        acc[i] = _mm256_setzero_si256();
    int64_t k = 0;
    for (; k + DEEP * STEP <= in; k += DEEP * STEP) {
        _mm_prefetch((const char *)w + k + AHEAD, _MM_HINT_T0);
        for (int i = 0; i < DEEP; i++)
            add_products(&acc[i], a + k + i * STEP, bytes(w + k + i * STEP));
    }
    for (; k < in; k += STEP)
        add_products(&acc[0], a + k, bytes(w + k));
    return summed(_mm256_add_epi32(_mm256_add_epi32(acc[0], acc[1]), _mm256_add_epi32(acc[2], acc[3])));
}

/* sums[r][c]: activations a + r * in times weights w + c * in. With `ahead` the next weights are asked for: they begin
anew too often for a processor to foresee. */
INLINE void dot(const int16_t *a, const int8_t *w, int64_t in, const int rows, const int outs, const int ahead,
                float sums[ROWS][OUTS])
{
    __m256i acc[ROWS][OUTS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < outs; c++)
            acc[r][c] = _mm256_setzero_si256();
    int64_t k = 0;
    do {
        __m256i wide[OUTS];
        for (int c = 0; c < outs; c++)
            wide[c] = bytes(w + c * in + k);
        for (int c = 0; c < outs && ahead; c++)
            _mm_prefetch((const char *)(w + (outs + c) * in + k), _MM_HINT_T0);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < outs; c++)
                add_products(&acc[r][c], a + r * in + k, wide[c]);
        k += STEP;
    } while (k < in);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < outs; c++)
            sums[r][c] = summed(acc[r][c]);
}

/* The same in floats, of weights in 16 bits: eight sums over the inputs, in their order, whatever rows there are. */
INLINE void dot_floats(const float *x, const uint16_t *w, int64_t in, const int rows, const int outs, const int ahead,
                       float sums[ROWS][OUTS])
{
    const int64_t next = rows == 1 ? AHEAD / 2 : outs * in;
    __m256 acc[ROWS][OUTS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < outs; c++)
            acc[r][c] = _mm256_setzero_ps();
    for (int64_t k = 0; k < in; k += 8) {
        __m256 wide[OUTS];
        for (int c = 0; c < outs; c++) {
            if (ahead)
                _mm_prefetch((const char *)(w + c * in + k + next), _MM_HINT_T0);
            wide[c] = widened(w + c * in + k);
        }
        for (int r = 0; r < rows; r++) {
            __m256 row = _mm256_loadu_ps(x + r * in + k);
            __asm__("" : "+x"(row)); /* once */
            for (int c = 0; c < outs; c++) {
                acc[r][c] = _mm256_fmadd_ps(row, wide[c], acc[r][c]);
                __asm__("" : "+x"(acc[r][c])); /* as above */
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < outs; c++)
            sums[r][c] = across(acc[r][c]);
}

typedef struct {
    const int16_t *whole; /* rows, as whole numbers, and */
    const float *steps;   /* what these count */
    const float *x;       /* the rows themselves */
    const void *weight;
    const float *scale, *bias, *residual;
    float *y;
    int64_t in, out;
} Product;

INLINE void finish(const Product *p, int64_t m, int64_t j, float sum)
{
    const int64_t at = m * p->out + j;
    float value = p->scale ? sum * p->scale[j] * p->steps[m] : sum;
    if (p->bias)
        value += p->bias[j];
    if (p->residual)
        value += p->residual[at];
    p->y[at] = value;
}

INLINE void block(const Product *p, int64_t m, int64_t j, const int rows, const int outs, const int ahead)
{
    float sums[ROWS][OUTS];
    if (p->scale)
        dot(p->whole + m * p->in, (const int8_t *)p->weight + j * p->in, p->in, rows, outs, ahead, sums);
    else
        dot_floats(p->x + m * p->in, (const uint16_t *)p->weight + j * p->in, p->in, rows, outs, ahead, sums);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < outs; c++)
            finish(p, m + r, j + c, sums[r][c]);
}

INLINE void few(const Product *p, int64_t m, int64_t j, int64_t rows, const int outs, const int ahead)
{
    switch (rows) {
    case 6: block(p, m, j, 6, outs, ahead); break;
    case 5: block(p, m, j, 5, outs, ahead); break;
    case 4: block(p, m, j, 4, outs, ahead); break;
    case 3: block(p, m, j, 3, outs, ahead); break;
    case 2: block(p, m, j, 2, outs, ahead); break;
    case 1: block(p, m, j, 1, outs, ahead); break;
    }
}

/* Rows m to last of outputs j to end: rows stay in the first cache while weights pass, and these in the second. */
static void tile(const Product *p, int64_t m, int64_t last, int64_t j, int64_t end)
{
    for (int ahead = 1; m < last; m += ROWS, ahead = 0) {
        const int64_t rows = last - m < ROWS ? last - m : ROWS;
        int64_t at = j;
        for (; at + OUTS <= end; at += OUTS)
            if (ahead)
                few(p, m, at, rows, OUTS, 1);
            else
                few(p, m, at, rows, OUTS, 0);
        if (at < end)
            few(p, m, at, rows, 1, 0);
    }
}

/* e to the x, for x from -87 to 0 (below, as at -87; what is no number stays so): 2 to the whole part times a polynomial
of the rest. */
INLINE __m256 exponential(__m256 x)
{
    x = _mm256_max_ps(_mm256_set1_ps(-87.0f), x);
    const __m256 whole = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m256 rest = _mm256_fnmadd_ps(whole, _mm256_set1_ps(0.693359375f), x);
    rest = _mm256_fnmadd_ps(whole, _mm256_set1_ps(-2.12194440e-4f), rest);
    static const float taylor[] = {1 / 720.0f, 1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 0.5f, 1.0f, 1.0f};
    __m256 y = _mm256_set1_ps(1 / 5040.0f);
    for (int i = 0; i < 7; i++)
        y = _mm256_fmadd_ps(y, rest, _mm256_set1_ps(taylor[i]));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(y, _mm256_castsi256_ps(power));
}

/* GELU by tanh: x times the logistic of 2 u. */
INLINE __m256 activated(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_mul_ps(x, _mm256_set1_ps(0.044715f)));
    const __m256 twice_u = _mm256_mul_ps(_mm256_add_ps(x, cube), _mm256_set1_ps(1.59576912f));
    const __m256 e = exponential(_mm256_or_ps(sign, twice_u));
    const __m256 part = _mm256_blendv_ps(one, e, twice_u);
    return _mm256_mul_ps(x, _mm256_div_ps(part, _mm256_add_ps(one, e)));
}

/* The most that makes up no more than `most`, and one at least. */
static int64_t whole_number_of(int64_t unit, int64_t most)
{
    return most > unit ? most / unit * unit : unit;
}

/* y (rows, out) = x (rows, in) times a weight (out, in) + bias (out) + residual (rows, out), these two or NULL.

With `scale` (out) the weight is 8-bit whole numbers, of which output j counts scale[j], rows are rounded to 14 bits,
and in is a multiple of 16 and at most 8192; without, it is floats of 16 bits, and in a multiple of 8. With `gelu`, GELU
of all that, and out is a multiple of 8. Returns 0, or 1 where no memory is left. */
int clvp_product(const float *x, int64_t rows, int64_t in, int64_t out, const void *weight, const float *scale,
                 const float *bias, const float *residual, float *y, int gelu, int threads)
{
    int16_t *whole = scale ? malloc((size_t)rows * in * sizeof *whole) : NULL;
    float *steps = scale ? malloc((size_t)rows * sizeof *steps) : NULL;
    const int lost = scale && !(whole && steps);
    if (!lost) {
        const Product p = {whole, steps, x, weight, scale, bias, residual, y, in, out};
        const int64_t fitting = BAND / in / (scale ? 1 : 2), share = (out + threads - 1) / threads;
        const int64_t panel = whole_number_of(ROWS, PANEL / in);
        const int64_t band = whole_number_of(OUTS, fitting < share ? fitting : share + 1);
#pragma omp parallel num_threads(threads)
        {
            if (scale) {
#pragma omp for schedule(static)
                for (int64_t m = 0; m < rows; m++)
                    steps[m] = rounded(x + m * in, in, whole + m * in);
            }
            if (rows == 1) {
#pragma omp for schedule(static)
                for (int64_t j = 0; j < out; j++)
                    if (scale)
                        finish(&p, 0, j, lone(whole, (const int8_t *)weight + j * in, in));
                    else
                        block(&p, 0, j, 1, 1, 1);
            } else {
                for (int64_t m = 0; m < rows; m += panel) {
                    const int64_t last = m + panel < rows ? m + panel : rows;
#pragma omp for schedule(static) nowait
                    for (int64_t j = 0; j < out; j += band)
                        tile(&p, m, last, j, j + band < out ? j + band : out);
                }
            }
            if (gelu) {
#pragma omp barrier
#pragma omp for schedule(static)
                for (int64_t i = 0; i < rows * out; i += 8)
                    _mm256_storeu_ps(y + i, activated(_mm256_loadu_ps(y + i)));
            }
        }
    }
    free(whole);
    free(steps);
    return lost;
}

static void narrowed(const float *x, int64_t width, uint16_t *halves)
{
    for (int64_t i = 0; i < width; i += 8) {
        const __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(halves + i), eight);
    }
}

/* logits[t] = q . keys[t] */
INLINE void asked(const float *q, const uint16_t *keys, int64_t count, const int width, float *logits)
{
    for (int64_t t = 0; t < count; t++, keys += width) {
        __m256 sum = _mm256_setzero_ps();
        for (int i = 0; i < width; i += LINE / 2)
            _mm_prefetch((const char *)(keys + i) + AHEAD, _MM_HINT_T0);
        for (int i = 0; i < width; i += 8)
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(q + i), widened(keys + i), sum);
        logits[t] = across(sum);
    }
}

/* mixed += weights[t] * values[t] */
INLINE void found(const float *weights, const uint16_t *values, int64_t count, const int width, __m256 *mixed)
{
    for (int64_t t = 0; t < count; t++, values += width) {
        const __m256 weight = _mm256_set1_ps(weights[t]);
        for (int i = 0; i < width; i += LINE / 2)
            _mm_prefetch((const char *)(values + i) + AHEAD, _MM_HINT_T0);
        for (int i = 0; i < width; i += 8)
            mixed[i / 8] = _mm256_fmadd_ps(weight, widened(values + i), mixed[i / 8]);
    }
}

/* logits (count) → e to the (logit - largest), and their sum. There is room for whole registers behind. */
static float weighed(float *logits, int64_t count)
{
    float largest = logits[0];
    for (int64_t t = 1; t < count; t++)
        largest = logits[t] > largest ? logits[t] : largest;
    __m256 sums = _mm256_setzero_ps();
    for (int64_t t = 0; t < count; t += 8) {
        float lanes[8];
        _mm256_storeu_ps(lanes, exponential(_mm256_sub_ps(_mm256_loadu_ps(logits + t), _mm256_set1_ps(largest))));
        for (int i = 0; i < 8; i++)
            logits[t + i] = t + i < count ? lanes[i] : 0.0f;
        sums = _mm256_add_ps(sums, _mm256_loadu_ps(logits + t));
    }
    return across(sums);
}

typedef struct {
    const uint16_t *keys, *values; /* (heads, ..., width), `head` numbers apart */
    int64_t length, head;
} Prompt;

/* Attention of one query in one head, over the prompt's positions and `count` of its row's. */
INLINE void mix(const float *q, const Prompt *prompt, int64_t head, const uint16_t *keys, const uint16_t *values,
                int64_t count, const int width, float *weights, float *out)
{
    const int64_t at = head * prompt->head, both = prompt->length + count;
    __m256 mixed[16];
    asked(q, prompt->keys + at, prompt->length, width, weights);
    asked(q, keys, count, width, weights + prompt->length);
    const __m256 scale = _mm256_set1_ps(1.0f / weighed(weights, both));
    for (int i = 0; i < width; i += 8)
        mixed[i / 8] = _mm256_setzero_ps();
    found(weights, prompt->values + at, prompt->length, width, mixed);
    found(weights + prompt->length, values, count, width, mixed);
    for (int i = 0; i < width; i += 8)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(mixed[i / 8], scale));
}

/* Writes each row's key and value behind those it has, then attends to its prompt and to its own.

qkv (rows, 3, heads, width), the queries scaled; keys and values of the rows (rows, heads, ..., width), `row` and `head`
numbers apart; lengths (rows) of what they have; prompt number of_row[n] of `prompts` is that of row n; out (rows, heads,
width). width is a multiple of 8 and at most 128. Returns 0, or 1 where no memory is left. */
int clvp_attend(const float *qkv, int64_t rows, int64_t heads, int64_t width, uint16_t *keys, uint16_t *values,
                int64_t row, int64_t head, const int64_t *lengths, const Prompt *prompts, const int64_t *of_row,
                float *out, int threads)
{
    int64_t longest = 0;
    for (int64_t n = 0; n < rows; n++) {
        const int64_t both = lengths[n] + 1 + prompts[of_row[n]].length;
        longest = both > longest ? both : longest;
    }
    int lost = 0;
#pragma omp parallel num_threads(threads)
    {
        float *weights = malloc((size_t)(longest + 8) * sizeof *weights);
        if (!weights) {
#pragma omp atomic write
            lost = 1;
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * heads; task++) {
            if (!weights)
                continue;
            const int64_t h = task / rows, n = task % rows, count = lengths[n] + 1;
            const float *q = qkv + n * 3 * heads * width + h * width;
            const Prompt *prompt = prompts + of_row[n];
            uint16_t *k = keys + n * row + h * head, *v = values + n * row + h * head;
            float *mixed = out + (n * heads + h) * width;
            narrowed(q + heads * width, width, k + lengths[n] * width);
            narrowed(q + 2 * heads * width, width, v + lengths[n] * width);
            if (width == 64)
                mix(q, prompt, h, k, v, count, 64, weights, mixed);
            else if (width == 32)
                mix(q, prompt, h, k, v, count, 32, weights, mixed);
            else
                mix(q, prompt, h, k, v, count, width, weights, mixed);
        }
        free(weights);
    }
    return lost;
}
