/* A decoder's layers, for one code of each row: in each, x + attention(norm x), then x + mlp(norm x). */

#include "kernels.h"

/* Raised when a structure or an argument changes: who calls then knows a library that was built before. */
EXPORTED const int clvp_interface = 8;

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

/* x (rows, D) → y (rows, D), D a whole number of heads, through `count` layers, as wide as each other; keys and values
go where `places`, one of each layer, and `lengths` say. The activation is GELU by tanh. Returns 0, or 1 where no memory is
left. */
EXPORTED int clvp_layers(const Layer *layers, const Places *places, int64_t count, const int64_t *lengths,
                         const float *x, int64_t rows, float *y, int threads)
{
    const int64_t width = layers->qkv.in, room = room_for_logits(places, lengths, rows);
    const Weight *widest = layers->proj.in > width ? &layers->proj : &layers->qkv;
    const size_t of_rows = room_for_rows(widest, rows);
    const size_t of_width = lines(rows * width * sizeof(float)), of_logits = threads * room * sizeof(float);
    const size_t of_inner = lines(rows * layers->fc.out * sizeof(float));
    char *memory = room_of(4 * of_width + of_inner + of_rows + of_logits);
    if (!memory)
        return 1;
    float *some = (float *)memory, *qkv = (float *)(memory + of_width), *many = (float *)(memory + 4 * of_width);
    char *behind = memory + 4 * of_width + of_inner;
    float *logits = (float *)(behind + of_rows);
    const Laid laid = laid_room(behind, widest, rows);
#pragma omp parallel num_threads(threads)
    for (int64_t n = 0; n < count; n++) {
        const Layer *layer = layers + n;
        const float *from = n ? y : x;
        normed(&layer->before_attention, from, rows, width, some);
        multiply(&layer->qkv, some, rows, NULL, qkv, 0, laid, NULL);
        attend(qkv, rows, layer->heads, width / layer->heads, places + n, lengths, some, logits, room);
        multiply(&layer->out, some, rows, from, y, 0, laid, &layer->fc);
        normed(&layer->before_mlp, y, rows, width, some);
        multiply(&layer->fc, some, rows, NULL, many, 1, laid, &layer->proj);
        multiply(&layer->proj, many, rows, y, y, 0, laid, n + 1 < count ? &layer[1].qkv : NULL);
    }
    free(memory);
    return 0;
}
