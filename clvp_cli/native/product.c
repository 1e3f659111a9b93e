/* Rows of floats times a weight of 8, 16 or 32 bits. */

#include "registers.h"

#define LARGEST 8192.0f /* of an activation, as a whole number: 14 bits */
#define ROWS 6          /* at the most, of activations, whose sums are held in registers together */
#define DEEP 4          /* registers of floats at once, and sums of one row */
#define FEW 4096        /* inputs whose products four registers of 32 bits hold in one */
#define AHEAD 1024      /* bytes that are asked for before they are needed, where one row comes alone */
#define PANEL (1 << 18) /* numbers of rows, as the third cache holds, and */
#define BAND (1 << 16)  /* bytes of weights, as the second, that are multiplied with each other */

/* Inputs as whole numbers are laid: in steps. */
INLINE int64_t in_steps(int64_t in)
{
    return (in + STEP - 1) / STEP * STEP;
}

/* Whether rows are laid as numbers of 16 bits, in steps. */
INLINE int is_short(const Weight *w)
{
    return w->bits == 8 || w->brain;
}

/* Where a row's half of a step from input k on lies, of rows whose steps are laid `beside` steps apart. */
INLINE __m256i *place(int16_t *laid, int64_t k, int64_t beside)
{
    return (__m256i *)(laid + k / STEP * STEP * beside + k % STEP);
}

/* The row x (in) as whole numbers, and what one of them counts: no number where the row has one that is none. Steps are
laid `beside` steps apart, the last filled up with zeros. */
static float rounded(const float *x, int64_t in, int16_t *whole, int64_t beside)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 high = _mm256_set1_ps(1e-30f), none = _mm256_setzero_ps();
    for (int64_t k = 0; k < in; k += LANES) {
        const __m256 some = _mm256_loadu_ps(x + k);
        high = _mm256_max_ps(_mm256_andnot_ps(sign, some), high);
        none = _mm256_fmadd_ps(some, _mm256_setzero_ps(), none);
    }
    const float step = largest_of(high) / LARGEST + across(none);
    const __m256 unit = _mm256_set1_ps(step);
    for (int64_t k = 0; k < in_steps(in); k += HALF_STEP) {
        __m256i some = _mm256_setzero_si256();
        if (k < in) {
            const __m256i low = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + k), unit));
            const __m256i up = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + k + LANES), unit));
            some = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, up), 0xd8);
        }
        _mm256_storeu_si256(place(whole, k, beside), some);
    }
    return step;
}

/* The row x (in) in bfloat16, its steps laid likewise. */
static void halved(const float *x, int64_t in, int16_t *laid, int64_t beside)
{
    for (int64_t k = 0; k < in; k += HALF_STEP)
        _mm256_storeu_si256(place(laid, k, beside), shortened(x + k));
}

/* The row x (in), its registers laid likewise. */
static void copied(const float *x, int64_t in, float *laid, int64_t beside)
{
    for (int64_t k = 0; k < in; k += LANES)
        _mm256_storeu_ps(laid + k * beside, _mm256_loadu_ps(x + k));
}

/* One row a (in) times one weight w (in): memory is read straight on, which is what bounds this. */
INLINE float lone(const int16_t *a, const int8_t *w, int64_t in)
{
    Short acc[DEEP];
    for (int i = 0; i < DEEP; i++)
        acc[i] = (Short){0};
    int64_t k = 0;
    for (; k + DEEP * STEP <= in; k += DEEP * STEP) {
        for (int at = 0; at < DEEP * STEP; at += LINE)
            _mm_prefetch((const char *)w + k + AHEAD + at, _MM_HINT_T0);
        for (int i = 0; i < DEEP; i++)
            add_products(&acc[i], a + k + i * STEP, bytes(w + k + i * STEP));
    }
    for (; k + STEP <= in; k += STEP)
        add_products(&acc[0], a + k, bytes(w + k));
    if (STEP > HALF_STEP && k < in)
        add_products(&acc[0], a + k, half_of_bytes(w + k));
    const __m256i sums = folded(added(added(acc[0], acc[1]), added(acc[2], acc[3])));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    int32_t lanes[4]; /* each holds two of the eight, at in <= 8192, but not four */
    _mm_storeu_si128((__m128i *)lanes, four);
    return (float)((int64_t)lanes[0] + lanes[1] + lanes[2] + lanes[3]);
}

/* sums += `count` steps of rows at a times weights at w, or half a step; a line is asked for beside each weight. */
INLINE void add_steps(const int16_t *a, const int8_t *w, int64_t in, const int rows, const int outs, const int count,
                      const int half, const int64_t ask[OUTS], Short sums[ROWS][OUTS])
{
    for (int c = 0; c < outs; c++)
        _mm_prefetch((const char *)w + ask[c], _MM_HINT_T0);
    for (int i = 0; i < count; i++) {
        Short some[OUTS];
        for (int c = 0; c < outs; c++)
            some[c] = half ? half_of_bytes(w + c * in) : bytes(w + c * in + i * STEP);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < outs; c++)
                add_products(&sums[r][c], a + (i * rows + r) * STEP, some[c]);
    }
}

/* sums[r / 2][c / 2]: rows r and r + 1 at a, as `rounded` lays them, times the weights w + c * in and the next, of each
pair as wide as it must be to be exact. */
INLINE void dot(const int16_t *a, const int8_t *w, int64_t in, const int rows, const int outs, const int64_t ask[OUTS],
                __m128 sums[ROWS / 2][OUTS / 2])
{
    const int deep = LINE / STEP;
    __m256d whole[ROWS / 2][OUTS / 2];
    for (int r = 0; r < ROWS; r += 2)
        for (int c = 0; c < OUTS; c += 2)
            whole[r / 2][c / 2] = _mm256_setzero_pd();
    for (int64_t k = 0, last; k < in; k = last) {
        Short acc[ROWS][OUTS];
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < OUTS; c++)
                acc[r][c] = (Short){0};
        last = in - k < FEW ? in : k + FEW;
        for (; k + deep * STEP <= last; k += deep * STEP)
            add_steps(a + k * rows, w + k, in, rows, outs, deep, 0, ask, acc);
        for (; k + STEP <= last; k += STEP)
            add_steps(a + k * rows, w + k, in, rows, outs, 1, 0, ask, acc);
        if (STEP > HALF_STEP && k < last)
            add_steps(a + k * rows, w + k, in, rows, outs, 1, 1, ask, acc);
        for (int r = 0; r < rows; r += 2)
            for (int c = 0; c < outs; c += 2) {
                const __m256i one = _mm256_hadd_epi32(folded(acc[r][c]), folded(acc[r][c + 1]));
                const __m256i two = _mm256_hadd_epi32(folded(acc[r + 1][c]), folded(acc[r + 1][c + 1]));
                const __m256i four = _mm256_hadd_epi32(one, two);
                const __m256d low = _mm256_cvtepi32_pd(_mm256_castsi256_si128(four));
                const __m256d high = _mm256_cvtepi32_pd(_mm256_extracti128_si256(four, 1));
                whole[r / 2][c / 2] = _mm256_add_pd(whole[r / 2][c / 2], _mm256_add_pd(low, high));
            }
    }
    for (int r = 0; r < rows; r += 2)
        for (int c = 0; c < outs; c += 2)
            sums[r / 2][c / 2] = _mm256_cvtpd_ps(whole[r / 2][c / 2]);
}

/* `add_steps` in floats, of weights in so many bits, `row` bytes apart. */
INLINE void add_floats(const float *x, const char *w, int64_t row, const int bits, const int rows, const int outs,
                       const int count, const int64_t ask[OUTS], Both sums[ROWS][OUTS / 2])
{
    for (int c = 0; c < outs; c++)
        for (int at = 0; at < count * bits; at += LINE)
            _mm_prefetch(w + ask[c] + at, _MM_HINT_T0);
    for (int i = 0; i < count; i++) {
        Both some[OUTS / 2];
        for (int c = 0; c < outs; c += 2)
            some[c / 2] = both(w + c * row + i * bits, row, bits, outs); /* LANES of them are `bits` bytes */
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < outs; c += 2)
                add_float_products(&sums[r][c / 2], x + (i * rows + r) * LANES, some[c / 2], outs);
    }
}

/* `dot` in floats: eight sums over the inputs, in their order, whatever rows there are. */
INLINE void dot_floats(const float *x, const char *w, int64_t in, const int bits, const int rows, const int outs,
                       const int64_t ask[OUTS], __m128 sums[ROWS / 2][OUTS / 2])
{
    const int64_t row = in * bits / 8;
    Both acc[ROWS][OUTS / 2];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < OUTS / 2; c++)
            acc[r][c] = (Both){0};
    int64_t k = 0;
    for (; k + DEEP * LANES <= in; k += DEEP * LANES)
        add_floats(x + k * rows, w + k * bits / 8, row, bits, rows, outs, DEEP, ask, acc);
    for (; k < in; k += LANES)
        add_floats(x + k * rows, w + k * bits / 8, row, bits, rows, outs, 1, ask, acc);
    for (int r = 0; r < rows; r += 2)
        for (int c = 0; c < outs; c += 2) {
            const Both one = acc[r][c / 2], two = acc[r + 1][c / 2];
            sums[r / 2][c / 2] = four_sums(of_first(one), of_second(one), of_first(two), of_second(two));
        }
}

/* `dot_floats` in bfloat16, of rows laid as whole numbers are. */
INLINE void dot_brains(const int16_t *x, const int16_t *w, int64_t in, const int rows, const int outs,
                       const int64_t ask[OUTS], __m128 sums[ROWS / 2][OUTS / 2])
{
    Sums acc[ROWS][OUTS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < OUTS; c++)
            acc[r][c] = (Sums){0};
    for (int64_t k = 0; k < in; k += STEP) {
        Short some[OUTS];
        for (int c = 0; c < outs; c++) {
            _mm_prefetch((const char *)(w + k) + ask[c], _MM_HINT_T0);
            some[c] = shorts(w + c * in + k);
        }
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < outs; c++)
                add_brains(&acc[r][c], x + k * rows + r * STEP, some[c]);
    }
    for (int r = 0; r < rows; r += 2)
        for (int c = 0; c < outs; c += 2)
            sums[r / 2][c / 2] = four_sums(folded_floats(acc[r][c]), folded_floats(acc[r][c + 1]),
                                           folded_floats(acc[r + 1][c]), folded_floats(acc[r + 1][c + 1]));
}

typedef struct {
    const Weight *w;
    const float *residual;
    float *y;
    Laid rows;
} Product;

INLINE int64_t row_bytes(const Weight *w)
{
    return w->in * w->bits / 8;
}

/* Two floats, twice. */
INLINE __m128 pair(const float *two)
{
    return _mm_castpd_ps(_mm_load1_pd((const double *)two));
}

/* Rows m and, of two, m + 1 of outputs j and, of two, j + 1. */
INLINE void finish(const Product *p, int64_t m, int64_t j, __m128 sums, const int rows, const int outs)
{
    const Weight *w = p->w;
    const int64_t at = m * w->out + j, below = at + (rows - 1) * w->out;
    if (w->bits == 8) {
        const float one = p->rows.steps[m], two = p->rows.steps[m + rows - 1];
        const __m128 scale = outs == 2 ? pair(w->scale + j) : _mm_set1_ps(w->scale[j]);
        sums = _mm_mul_ps(_mm_mul_ps(sums, scale), _mm_set_ps(two, two, one, one));
    }
    if (w->bias)
        sums = _mm_add_ps(sums, outs == 2 ? pair(w->bias + j) : _mm_set1_ps(w->bias[j]));
    if (outs == 2) {
        if (p->residual) {
            const __m128 first = _mm_loadl_pi(_mm_setzero_ps(), (const __m64 *)(p->residual + at));
            sums = _mm_add_ps(sums, _mm_loadh_pi(first, (const __m64 *)(p->residual + below)));
        }
        if (rows == 2)
            _mm_storeh_pi((__m64 *)(p->y + below), sums);
        _mm_storel_pi((__m64 *)(p->y + at), sums);
    } else {
        if (rows == 2)
            p->y[below] = sums[2] + (p->residual ? p->residual[below] : 0.0f);
        p->y[at] = sums[0] + (p->residual ? p->residual[at] : 0.0f);
    }
}

/* Rows m to m + rows of outputs j to j + outs. */
INLINE void block(const Product *p, int64_t m, int64_t j, const int rows, const int outs, const int64_t ask[OUTS])
{
    __m128 sums[ROWS / 2][OUTS / 2];
    const int64_t in = p->w->in;
    const char *w = (const char *)p->w->numbers + j * row_bytes(p->w);
    const int16_t *a = (const int16_t *)p->rows.numbers + m * in_steps(in);
    const float *x = (const float *)p->rows.numbers + m * in;
    if (p->w->bits == 8)
        dot(a, (const int8_t *)w, in, rows, outs, ask, sums);
    else if (p->w->brain)
        dot_brains(a, (const int16_t *)w, in, rows, outs, ask, sums);
    else if (p->w->bits == 16)
        dot_floats(x, w, in, 16, rows, outs, ask, sums);
    else
        dot_floats(x, w, in, 32, rows, outs, ask, sums);
    for (int r = 0; r < rows; r += 2)
        for (int c = 0; c < outs; c += 2)
            finish(p, m + r, j + c, sums[r / 2][c / 2], rows - r > 1 ? 2 : 1, outs - c > 1 ? 2 : 1);
}

INLINE void few(const Product *p, int64_t m, int64_t j, int64_t rows, const int outs, const int64_t ask[OUTS])
{
    switch (rows) {
    case 6: block(p, m, j, 6, outs, ask); break;
    case 5: block(p, m, j, 5, outs, ask); break;
    case 4: block(p, m, j, 4, outs, ask); break;
    case 3: block(p, m, j, 3, outs, ask); break;
    case 2: block(p, m, j, 2, outs, ask); break;
    case 1: block(p, m, j, 1, outs, ask); break;
    }
}

/* Rows m to last of outputs j to end: rows stay in the first cache while weights pass, and these in the second. The
next band's weights are asked for meanwhile, half of them beside the first rows and half beside the next; or, where
weights pass once, and fast, the next of them. */
static void tile(const Product *p, int64_t m, int64_t last, int64_t j, int64_t end)
{
    const int64_t row = row_bytes(p->w), next = end < p->w->out ? (end - j) * row : 0;
    const int once = last - m <= ROWS;
    for (int64_t pass = 0; m < last; m += ROWS, pass++) {
        const int64_t rows = last - m < ROWS ? last - m : ROWS;
        int64_t ask[OUTS], at = j;
        for (int c = 0; c < OUTS; c++) /* where nothing is wanted, what is at hand */
            ask[c] = once ? (OUTS + c) * row : next && c / (OUTS / 2) == pass ? next + c * row : 0;
        for (; at + OUTS <= end; at += OUTS)
            few(p, m, at, rows, OUTS, ask);
        for (; at < end; at++)
            few(p, m, at, rows, 1, ask);
    }
}

/* Outputs j to end of one row. */
static void strip(const Product *p, int64_t j, int64_t end)
{
    const Weight *w = p->w;
    const int64_t ask[OUTS] = {AHEAD};
    for (; j < end; j++)
        if (w->bits == 8) {
            const float sum = lone(p->rows.numbers, (const int8_t *)w->numbers + j * w->in, w->in);
            finish(p, 0, j, _mm_set1_ps(sum), 1, 1);
        } else
            block(p, 0, j, 1, 1, ask);
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

/* Rows m to last of outputs j to end, whole registers. */
static void activate(const Product *p, int64_t m, int64_t last, int64_t j, int64_t end)
{
    for (; m < last; m++)
        for (float *y = p->y + m * p->w->out + j, *over = p->y + m * p->w->out + end; y < over; y += LANES)
            _mm256_storeu_ps(y, activated(_mm256_loadu_ps(y)));
}

/* The most that makes up no more than `most`, and one at least. */
static int64_t whole_number_of(int64_t unit, int64_t most)
{
    return most > unit ? most / unit * unit : unit;
}

/* y (rows, out) = x (rows, in) times the weight + bias + residual (rows, out) or NULL, which may be y; with `gelu`,
GELU of all that, and out is whole registers. */
void multiply(const Weight *w, const float *x, int64_t rows, const float *residual, float *y, int gelu, Laid room)
{
    const Product p = {w, residual, y, room};
    const int64_t threads = omp_get_num_threads(), share = (w->out + threads - 1) / threads;
    const int64_t laid = is_short(w) ? in_steps(w->in) : w->in;
    const int64_t fitting = BAND / row_bytes(w), panel = whole_number_of(ROWS, PANEL / w->in);
    const int64_t band = rows == 1 ? LANES : whole_number_of(LANES, fitting < share ? fitting : share);
#pragma omp for schedule(static)
    for (int64_t m = 0; m < rows; m++) {
        const int64_t first = m / ROWS * ROWS, start = first * laid, beside = rows - first < ROWS ? rows - first : ROWS;
        int16_t *whole = (int16_t *)room.numbers + start + (m - first) * STEP;
        if (w->bits == 8)
            room.steps[m] = rounded(x + m * w->in, w->in, whole, beside);
        else if (w->brain)
            halved(x + m * w->in, w->in, whole, beside);
        else
            copied(x + m * w->in, w->in, (float *)room.numbers + start + (m - first) * LANES, beside);
    }
    for (int64_t m = 0; m < rows; m += panel) {
        const int64_t last = m + panel < rows ? m + panel : rows;
#pragma omp for schedule(static) nowait
        for (int64_t j = 0; j < w->out; j += band) {
            const int64_t end = j + band < w->out ? j + band : w->out;
            if (rows == 1)
                strip(&p, j, end);
            else
                tile(&p, m, last, j, end);
            if (gelu)
                activate(&p, m, last, j, end);
        }
    }
#pragma omp barrier
}

/* The bytes of rows, laid to be multiplied. */
size_t room_for_rows(const Weight *w, int64_t rows)
{
    return (size_t)rows * (is_short(w) ? in_steps(w->in) * sizeof(int16_t) : w->in * sizeof(float));
}

/* `multiply` by so many threads. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_product(const Weight *w, const float *x, int64_t rows, const float *residual, float *y, int gelu,
                          int threads)
{
    const Laid room = {room_of(room_for_rows(w, rows)), room_of((size_t)rows * sizeof(float))};
    const int lost = !(room.numbers && room.steps);
    if (!lost) {
#pragma omp parallel num_threads(threads)
        multiply(w, x, rows, residual, y, gelu, room);
    }
    free(room.numbers);
    free(room.steps);
    return lost;
}

/* The whole numbers that this build multiplies at once. */
EXPORTED const int clvp_step = STEP;

/* Whether the processor, and the system on it, have what the build for AVX512-VNNI needs. */
EXPORTED int clvp_can_be_wider(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

/* Whether this build multiplies bfloat16 on this processor. */
EXPORTED int clvp_has_brains(void)
{
    return STEP == 32 && __builtin_cpu_supports("avx512bf16");
}
