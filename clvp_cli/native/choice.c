/* The next code of each row, drawn as generation/sampler.py tells: penalty, temperature, the most probable few, and of
these those that reach a mass. */

#include "kernels.h"

#include <string.h>

#define MOST_KEPT 256 /* codes */

/* `start` is never drawn if it is not below 0, nor is `stop` by rows whose codes so far are fewer than `least`; a row
ends with `stop`, or with its code number `limit`. The position of its first code is `position`. */
typedef struct {
    float penalty, temperature, top_p;
    int64_t top_k, start, stop, least, limit, position;
} Choice;

/* What rows draw by, from 0 to 1 (rows, limit); and what is known of them: which codes were said (rows, vocabulary), all
codes so far (rows, limit) and how many these are, and the sum of log p; of the last code itself, its position, and
whether the row ends. */
typedef struct {
    const double *draws;
    uint8_t *said, *ended;
    int64_t *codes, *counts, *last, *positions;
    double *log_p;
} Rows;

typedef struct {
    double value;
    int64_t code;
} Kept;

/* Logits (codes), as the penalty makes them for what was said and -infinity for what is forbidden, in place. */
static void penalise(const Choice *how, float *logits, int64_t codes, const uint8_t *said, int64_t count)
{
    for (int64_t i = 0; i < codes; i += LANES) {
        const int64_t some = codes - i < LANES ? codes - i : LANES;
        uint64_t any = 0; /* which are seldom */
        memcpy(&any, said + i, some);
        for (int64_t k = i; any && k < i + some; k++) {
            const float times = logits[k] * how->penalty, part = logits[k] / how->penalty;
            if (said[k]) /* the one for its sign is the less likely, or the more */
                logits[k] = (how->penalty > 1.0f) == (times < part) ? times : part;
        }
    }
    if (how->start >= 0)
        logits[how->start] = -INFINITY;
    if (count < how->least)
        logits[how->stop] = -INFINITY;
}

/* Put one in its place among `count`, from the largest to the least, the earlier code first; none moves behind `most`. */
static int64_t with_one(Kept *kept, int64_t count, int64_t most, Kept one)
{
    int64_t place = count < most ? count : most - 1;
    for (; place > 0 && kept[place - 1].value < one.value; place--)
        kept[place] = kept[place - 1];
    kept[place] = one;
    return count < most ? count + 1 : most;
}

/* The top_k most probable of the codes that are possible. */
static int64_t shortlist(const float *logits, int64_t codes, int64_t most, Kept *kept)
{
    int64_t count = 0;
    float least = -INFINITY; /* of what is kept, once that is all */
    for (int64_t i = 0; i < codes; i += LANES) {
        const __m256 above = _mm256_cmp_ps(_mm256_loadu_ps(logits + i), _mm256_set1_ps(least), _CMP_GT_OQ);
        for (int bits = _mm256_movemask_ps(above), k = 0; bits; bits >>= 1, k++)
            if (bits & 1 && logits[i + k] > least) {
                count = with_one(kept, count, most, (Kept){logits[i + k], i + k});
                least = count == most ? (float)kept[most - 1].value : least;
            }
    }
    return count;
}

/* How many of the kept, their values now their parts of the first's, come before what they add up to reaches top_p. */
static int64_t nucleus(const Choice *how, Kept *kept, int64_t count)
{
    double sum = 0.0, before = 0.0;
    const double first = count ? kept[0].value : 0.0;
    for (int64_t i = 0; i < count; i++)
        sum += kept[i].value = exp((kept[i].value - first) / how->temperature);
    for (int64_t i = 0; i < count; before += kept[i++].value)
        if (i > 0 && how->top_p < 1.0f && before >= how->top_p * sum)
            return i;
    return count;
}

/* The code that a draw from 0 to 1 falls on, codes in their order. */
static int64_t fallen_on(Kept *kept, int64_t count, double draw)
{
    double sum = 0.0, passed = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const Kept one = kept[i];
        int64_t place = i;
        for (; place > 0 && kept[place - 1].code > one.code; place--)
            kept[place] = kept[place - 1];
        kept[place] = one;
        sum += one.value;
    }
    for (int64_t i = 0; i + 1 < count; i++)
        if ((passed += kept[i].value) > draw * sum)
            return kept[i].code;
    return count ? kept[count - 1].code : 0;
}

/* A row n says a code. */
static void say(const Choice *how, const Rows *rows, int64_t n, int64_t vocabulary, int64_t code)
{
    const int64_t count = rows->counts[n]++;
    rows->said[n * vocabulary + code] = 1;
    rows->codes[n * how->limit + count] = rows->last[n] = code;
    rows->positions[n] = how->position + count;
    rows->ended[n] = code == how->stop || count + 1 >= how->limit;
}

/* Draws the next code of each of the first rows from logits (count, vocabulary), which stay as they are. Returns 0, or 1
where no memory is left. */
EXPORTED int clvp_choose(const Choice *how, const Rows *rows, const float *logits, int64_t count, int64_t vocabulary,
                         int threads)
{
    const int64_t room = lines((vocabulary + 2 * LANES) * sizeof(float)) / sizeof(float);
    float *memory = room_of(threads * room * sizeof(float));
    if (!memory)
        return 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < count; n++) {
        float *some = memory + omp_get_thread_num() * room;
        const float *row = logits + n * vocabulary;
        Kept kept[MOST_KEPT];
        const float high = highest(memcpy(some, row, vocabulary * sizeof(float)), vocabulary);
        const float sum = weighed(some, vocabulary);
        memcpy(some, row, vocabulary * sizeof(float));
        penalise(how, some, vocabulary, rows->said + n * vocabulary, rows->counts[n]);
        _mm256_storeu_ps(some + vocabulary, _mm256_set1_ps(-INFINITY));
        const int64_t possible = nucleus(how, kept, shortlist(some, vocabulary, how->top_k, kept));
        const int64_t code = fallen_on(kept, possible, rows->draws[n * how->limit + rows->counts[n]]);
        rows->log_p[n] += (double)(row[code] - high) - log(sum);
        say(how, rows, n, vocabulary, code);
    }
    free(memory);
    return 0;
}
