/* Each row of a step, for itself, over a prompt's keys and values and its own, in one softmax. Rows of one prompt look at
it together; what rows keep is read as it lies, some positions of one row behind those of the one before. */

#include "kept.h"
#include "product.h"

#define SOON 1024 /* bytes by which what was asked for is asked for again, since not all comes where memory is busy */

/* What rows are to do in a head: `count` of them, from `first` on. */
typedef struct {
    const float *qkv;
    int64_t first, count, head, heads;
    const Places *places;
    const int64_t *lengths;
    float *out;
} Task;

/* What a thread needs for them. Of each row: its query as it is and, `shorts`, in 16 bits; its logits, `room` of them,
which become what weighs values; what it finds in its own; what one of its 16 bits counts, in `steps`; and one part of
all that it weighs. Of MOST rows: products with a prompt's keys, what weighs its values, and what is found there. */
typedef struct {
    float *queries, *logits, *own, *asked, *weighing, *found, *steps, *scales;
    char *shorts;
    int64_t room;
} Bench;

/* A prompt's positions as inputs of a weight. */
INLINE int64_t inputs_of(const Prompt *prompt)
{
    return (prompt->length + LANES - 1) / LANES * LANES;
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
    const Sums high = repeated(highest(logits, count));
    __m256 sums = _mm256_setzero_ps();
    for (int64_t t = 0, some; t < count; t += some) { /* what is behind weighs no more than e to the -87 */
        some = next_of(count - t);
        const Sums weights = exponential(loaded_some(logits + t, some) - high);
        store_some(logits + t, weights, some);
        sums = added_some(sums, weights, some);
    }
    return across(sums);
}

/* Where row r of a task keeps its chunk number b. */
INLINE char *chunk_at(const Task *task, char *kept, int64_t r, int64_t b)
{
    return kept + (task->first + r) * task->places->row + task->head * task->places->head + b * task->places->block;
}

/* Ask for so many bytes of what is wanted later, and soon. */
INLINE void expect(const char *later, const char *soon, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += LINE) {
        _mm_prefetch(later + i, _MM_HINT_T1);
        _mm_prefetch(soon + SOON + i, _MM_HINT_T0);
    }
}

INLINE int64_t chunks_of(const Task *task, int64_t r)
{
    return task->lengths[task->first + r] / ABREAST + 1;
}

INLINE const Prompt *prompt_of(const Task *task, int64_t r)
{
    return task->places->prompts + task->places->of_row[task->first + r];
}

/* Where the logits of row r's own positions begin, behind the prompt's. */
INLINE float *own_logits(const Task *task, const Bench *bench, int64_t r)
{
    return bench->logits + r * bench->room + prompt_of(task, r)->length;
}

/* The rows from r on that continue the same prompt, MOST at the most. */
static int64_t of_one_prompt(const Task *task, int64_t r)
{
    int64_t last = r + 1;
    while (last < task->count && last < r + MOST && prompt_of(task, last) == prompt_of(task, r))
        last++;
    return last - r;
}

/* Queries as they are asked; keys and values where they are kept. */
INLINE void keep_all(const Task *task, const Bench *bench, const int bits, const int width)
{
    const int64_t whole = task->heads * width;
    for (int64_t r = 0; r < task->count; r++) {
        const float *query = task->qkv + (task->first + r) * 3 * whole + task->head * width;
        const int64_t length = task->lengths[task->first + r], b = length / ABREAST, i = length % ABREAST;
        char *keys = chunk_at(task, task->places->keys, r, 0), *values = chunk_at(task, task->places->values, r, b);
        expect(keys + task->places->block, keys, chunk_of(width, bits));
        memcpy(bench->queries + r * width, query, width * sizeof(float));
        if (bits == 8)
            bench->steps[r] = shortened_to(query, width, LARGE, bench->shorts + r * width * 2);
        keep(query + whole, bits, width, 0, keys + b * task->places->block, i);
        keep(query + 2 * whole, bits, width, 1, values, i);
    }
}

/* Prompts' keys asked → the first of rows' logits. */
INLINE void ask_prompts(const Task *task, const Bench *bench, const int bits, const int width)
{
    for (int64_t r = 0, some; r < task->count; r += some) {
        const Prompt *prompt = prompt_of(task, r);
        const Weight keys = {.numbers = prompt->keys + task->head * prompt->of_keys, .bits = bits == 8 ? 16 : bits,
                             .in = width, .out = prompt->length};
        some = of_one_prompt(task, r);
        multiply_alone(&keys, bench->queries + r * width, some, NULL, bench->asked, (Laid){.numbers = bench->asked});
        for (int64_t i = 0; i < some; i++)
            memcpy(bench->logits + (r + i) * bench->room, bench->asked + i * prompt->length,
                   prompt->length * sizeof(float));
    }
}

/* The rows' own keys asked → the rest of their logits; chunks as they lie. */
INLINE void ask_own(const Task *task, const Bench *bench, int64_t most, const int bits, const int width)
{
    const Places *places = task->places;
    for (int64_t b = 0; b < most; b++)
        for (int64_t r = 0; r < task->count; r++) {
            if (b >= chunks_of(task, r))
                continue;
            char *keys = chunk_at(task, places->keys, r, b), *query = (char *)(bench->queries + r * width);
            char *later = b + 1 < chunks_of(task, r) ? keys + places->block : chunk_at(task, places->values, r, 0);
            expect(later, keys, chunk_of(width, bits));
            if (bits == 8)
                _mm_prefetch((char *)counts_in(chunk_at(task, places->values, r, b), width), _MM_HINT_T1);
            ask(bits == 8 ? bench->shorts + r * width * 2 : query, bench->steps[r], keys, bits, width,
                own_logits(task, bench, r) + b * ABREAST);
        }
}

/* Logits → what weighs values, of rows' own as `find` wants it. */
INLINE void weigh_all(const Task *task, const Bench *bench, const int bits, const int width)
{
    char *kept = task->places->values;
    for (int64_t r = 0; r < task->count; r++) {
        const int64_t own = task->lengths[task->first + r] + 1;
        float *logits = bench->logits + r * bench->room, *weights = own_logits(task, bench, r);
        expect(chunk_at(task, kept, r, 1), chunk_at(task, kept, r, 0), chunk_of(width, bits));
        bench->scales[r] = 1.0f / weighed(logits, weights - logits + own);
        if (bits != 8)
            continue;
        for (int64_t b = 0; b < chunks_of(task, r); b++)
            weigh(weights + b * ABREAST, chunk_at(task, kept, r, b), own - b * ABREAST, width);
        bench->steps[r] = shortened_to(weights, chunks_of(task, r) * ABREAST, LARGE / (float)(1 + own / WITHIN),
                                       (char *)weights);
    }
}

/* What rows find in their own values; chunks as they lie. */
INLINE void find_own(const Task *task, const Bench *bench, int64_t most, const int bits, const int width)
{
    const Places *places = task->places;
    memset(bench->own, 0, task->count * WIDEST * sizeof(float));
    for (int64_t b = 0; b < most; b++)
        for (int64_t r = 0; r < task->count; r++) {
            if (b >= chunks_of(task, r))
                continue;
            char *values = chunk_at(task, places->values, r, b), *weights = (char *)own_logits(task, bench, r);
            const char *next_keys = chunk_at(task, places->keys, r, 0) + places->head;
            const int64_t left = task->lengths[task->first + r] + 1 - b * ABREAST;
            expect(b + 1 < chunks_of(task, r) ? values + places->block : next_keys, values, chunk_of(width, bits));
            find(weights + b * ABREAST * (bits == 8 ? 2 : 4), values, left < ABREAST ? left : ABREAST, bits, width,
                 bench->own + r * WIDEST);
        }
    for (int64_t r = 0; r < task->count && bits == 8; r++)
        for (float *own = bench->own + r * WIDEST, *end = own + width; own < end; own += BLOCK)
            store(own, counted(*(Whole *)own) * repeated(bench->steps[r]));
}

/* What rows find in prompts, with what they found in their own → out. */
INLINE void find_in_prompts(const Task *task, const Bench *bench, const int bits, const int width)
{
    const int64_t whole = task->heads * width;
    for (int64_t r = 0, some; r < task->count; r += some) {
        const Prompt *prompt = prompt_of(task, r);
        const int64_t inputs = inputs_of(prompt);
        const Weight values = {.numbers = prompt->values + task->head * prompt->of_values,
                               .bits = bits == 8 ? 16 : bits, .in = inputs, .out = width};
        some = of_one_prompt(task, r);
        for (int64_t i = 0; i < some; i++)
            for (int64_t t = 0; t < inputs; t++)
                bench->weighing[i * inputs + t] = t < prompt->length ? bench->logits[(r + i) * bench->room + t] : 0.0f;
        multiply_alone(&values, bench->weighing, some, NULL, bench->found, (Laid){.numbers = bench->found});
        for (int64_t i = 0; i < some; i++)
            for (int64_t k = 0; k < width; k++) {
                const float both = bench->own[(r + i) * WIDEST + k] + bench->found[i * width + k];
                task->out[(task->first + r + i) * whole + task->head * width + k] = both * bench->scales[r + i];
            }
    }
}

INLINE void attend_to(const Task *task, const Bench *bench, const int bits, const int width)
{
    int64_t most = 0;
    for (int64_t r = 0; r < task->count; r++)
        most = chunks_of(task, r) > most ? chunks_of(task, r) : most;
    keep_all(task, bench, bits, width);
    ask_prompts(task, bench, bits, width);
    ask_own(task, bench, most, bits, width);
    weigh_all(task, bench, bits, width);
    find_own(task, bench, most, bits, width);
    find_in_prompts(task, bench, bits, width);
}

/* A thread's bench for so many of a step's rows, in memory of `size`, which is told. */
static Bench bench_for(const Places *places, const int64_t *lengths, int64_t rows, int64_t most, int64_t width,
                       char *memory, size_t *size)
{
    int64_t of_prompt = 0, longest = 0;
    for (int64_t n = 0; n < rows; n++) {
        const int64_t inputs = inputs_of(places->prompts + places->of_row[n]), both = inputs + lengths[n] + 1;
        of_prompt = inputs > of_prompt ? inputs : of_prompt;
        longest = both > longest ? both : longest;
    }
    Bench bench = {.room = lines((longest + 2 * ABREAST) * sizeof(float)) / sizeof(float)};
    *size = 0;
    bench.queries = cut(&memory, size, most * width);
    bench.shorts = (char *)cut(&memory, size, most * width / 2);
    bench.logits = cut(&memory, size, most * bench.room);
    bench.own = cut(&memory, size, most * WIDEST);
    bench.steps = cut(&memory, size, most);
    bench.scales = cut(&memory, size, most);
    bench.asked = cut(&memory, size, MOST * of_prompt);
    bench.weighing = cut(&memory, size, MOST * of_prompt);
    bench.found = cut(&memory, size, MOST * width);
    return bench;
}

/* The rows that are one task in a head: all of them, but for few heads. */
static int64_t rows_of_task(int64_t rows, int64_t heads, int64_t threads)
{
    const int64_t parts = heads < 2 * threads ? (2 * threads + heads - 1) / heads : 1, some = (rows + parts - 1) / parts;
    return (some + MOST - 1) / MOST * MOST;
}

size_t room_to_attend(const Places *places, const int64_t *lengths, int64_t rows, int64_t heads, int64_t width,
                      int64_t threads)
{
    size_t of_bench;
    bench_for(places, lengths, rows, rows_of_task(rows, heads, threads), width, NULL, &of_bench);
    return threads * of_bench;
}

/* Writes each row's key and value behind the lengths[n] that it has, then attends to its prompt and to its own.

qkv (rows, 3, heads, width), the queries scaled → out (rows, heads, width); in memory of room_to_attend. width is a
multiple of 8 and at most 128. */
void attend(const float *qkv, int64_t rows, int64_t heads, int64_t width, const Places *places, const int64_t *lengths,
            float *out, char *memory)
{
    const int64_t most = rows_of_task(rows, heads, omp_get_num_threads()), tasks = (rows + most - 1) / most;
    size_t of_bench;
    bench_for(places, lengths, rows, most, width, NULL, &of_bench);
    char *own = memory + omp_get_thread_num() * of_bench;
    const Bench bench = bench_for(places, lengths, rows, most, width, own, &of_bench);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < tasks * heads; n++) {
        const int64_t first = n % tasks * most, count = first + most < rows ? most : rows - first;
        const Task task = {qkv, first, count, n / tasks, heads, places, lengths, out};
        if (places->bits == 8 && width == 64)
            attend_to(&task, &bench, 8, 64);
        else if (places->bits == 8)
            attend_to(&task, &bench, 8, width);
        else if (places->bits == 16 && width == 64)
            attend_to(&task, &bench, 16, 64);
        else if (places->bits == 16)
            attend_to(&task, &bench, 16, width);
        else if (width == 64)
            attend_to(&task, &bench, 32, 64);
        else
            attend_to(&task, &bench, 32, width);
    }
}

/* `attend` by so many threads. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_attend(const float *qkv, int64_t rows, int64_t heads, int64_t width, const Places *places,
                         const int64_t *lengths, float *out, int threads)
{
    char *memory = room_of(room_to_attend(places, lengths, rows, heads, width, threads));
    if (!memory)
        return 1;
#pragma omp parallel num_threads(threads)
    attend(qkv, rows, heads, width, places, lengths, out, memory);
    free(memory);
    return 0;
}
