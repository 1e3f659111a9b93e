/* A decoder's step, from a code of each row to the logits of the next: through layers, each of them x + attention(norm
x), then x + mlp(norm x). */

#include "kernels.h"

/* Raised when a structure or an argument changes: who calls then knows a library that was built before. */
EXPORTED const int clvp_interface = 9;

/* Layer normalisation over `width` numbers. */
typedef struct {
    const float *weight, *bias;
    float eps;
} Norm;

typedef struct {
    Norm before_attention, before_mlp;
    Weight qkv, out, fc, proj;
    int64_t heads;
} Layer;

/* A code and its position have vectors (vocabulary, D) and (longest, D), whose sum goes through `count` layers, as wide
as each other, and two norms. */
typedef struct {
    const float *codes, *positions;
    int64_t vocabulary, longest, count;
    const Layer *layers;
    Norm after_layers, before_head;
    Weight head;
} Decoder;

/* Rows of x (rows, width), each by itself → out; as `multiply`, by all threads of a region. */
static void normed(const Norm *norm, const float *x, int64_t rows, int64_t width, float *out)
{
#pragma omp for schedule(static)
    for (int64_t m = 0; m < rows; m++) {
        const float *row = x + m * width;
        __m256 sums = _mm256_setzero_ps(), squares = _mm256_setzero_ps();
        for (int64_t i = 0; i < width; i += LANES)
            sums = _mm256_add_ps(sums, _mm256_loadu_ps(row + i));
        const __m256 mean = _mm256_set1_ps(across(sums) / (float)width);
        for (int64_t i = 0; i < width; i += LANES) {
            const __m256 rest = _mm256_sub_ps(_mm256_loadu_ps(row + i), mean);
            squares = _mm256_fmadd_ps(rest, rest, squares);
        }
        const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(across(squares) / (float)width + norm->eps));
        for (int64_t i = 0; i < width; i += LANES) {
            const __m256 even = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(row + i), mean), scale);
            const __m256 weight = _mm256_loadu_ps(norm->weight + i), bias = _mm256_loadu_ps(norm->bias + i);
            _mm256_storeu_ps(out + m * width + i, _mm256_fmadd_ps(even, weight, bias));
        }
    }
}

/* The vectors of codes at their positions (rows, width) → x; as `multiply`, by all threads of a region. */
static void embedded(const Decoder *all, const int64_t *codes, const int64_t *positions, int64_t rows, int64_t width,
                     float *x)
{
#pragma omp for schedule(static)
    for (int64_t m = 0; m < rows; m++) {
        const float *code = all->codes + codes[m] * width, *position = all->positions + positions[m] * width;
        for (int64_t i = 0; i < width; i++)
            x[m * width + i] = code[i] + position[i];
    }
}

static int are_below(const int64_t *numbers, int64_t rows, int64_t end)
{
    for (int64_t m = 0; m < rows; m++)
        if (numbers[m] < 0 || numbers[m] >= end)
            return 0;
    return 1;
}

/* A code of each row, at positions (rows) → logits (rows, vocabulary) of the next. D is a whole number of heads; keys and
values go where `places`, one of each layer, and `lengths` say. Returns 0; 1 where no memory is left; 2 for a code or a
position that there is not. */
EXPORTED int clvp_step(const Decoder *all, const Places *places, const int64_t *lengths, const int64_t *codes,
                       const int64_t *positions, int64_t rows, float *logits, int threads)
{
    if (!are_below(codes, rows, all->vocabulary) || !are_below(positions, rows, all->longest))
        return 2;
    const Layer *layers = all->layers;
    const int64_t width = all->head.in, head = width / layers->heads;
    const Weight *widest = layers->proj.in > width ? &layers->proj : &layers->qkv;
    const size_t of_rows = room_for_rows(widest, rows);
    const size_t of_width = lines(rows * width * sizeof(float)), of_benches = room_to_attend(places, lengths, rows, layers->heads, head, threads);
    const size_t of_inner = lines(rows * layers->fc.out * sizeof(float));
    char *memory = room_of(5 * of_width + of_inner + of_rows + of_benches);
    if (!memory)
        return 1;
    float *x = (float *)memory, *some = (float *)(memory + of_width), *qkv = (float *)(memory + 2 * of_width);
    float *many = (float *)(memory + 5 * of_width);
    char *benches = memory + 5 * of_width + of_inner;
    const Laid laid = laid_room(benches + of_benches, widest, rows);
#pragma omp parallel num_threads(threads)
    {
        embedded(all, codes, positions, rows, width, x);
        for (int64_t n = 0; n < all->count; n++) {
            const Layer *layer = layers + n;
            normed(&layer->before_attention, x, rows, width, some);
            multiply(&layer->qkv, some, rows, NULL, qkv, 0, laid, NULL);
            attend(qkv, rows, layer->heads, head, places + n, lengths, some, benches);
            multiply(&layer->out, some, rows, x, x, 0, laid, &layer->fc);
            normed(&layer->before_mlp, x, rows, width, some);
            multiply(&layer->fc, some, rows, NULL, many, 1, laid, &layer->proj);
            multiply(&layer->proj, many, rows, x, x, 0, laid, n + 1 < all->count ? &layer[1].qkv : &all->head);
        }
        normed(&all->after_layers, x, rows, width, some);
        normed(&all->before_head, some, rows, width, some);
        multiply(&all->head, some, rows, NULL, logits, 0, laid, NULL);
    }
    free(memory);
    return 0;
}
