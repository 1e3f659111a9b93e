/* An encoder's layers, for all positions of whole sequences: in each, x + attention(norm x), then x + mlp(norm x).

Between attentions, a thread takes some rows at a time through all that they need while they are in its cache. */

#include "product.h"
#include "sequences.h"

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

/* What a thread needs for some rows: of the width, of fc1's outputs and of fc2's inputs, and as they are laid. */
typedef struct {
    float *normed, *many, *gated;
    Laid laid;
} Panel;

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
INLINE Sums gelu(Sums x)
{
    const Sums one = repeated(1.0f), z = larger(x, repeated(0.0f) - x) * repeated(0.70710678f);
    const Sums t = one / fused(z, repeated(0.3275911f), one);
    static const float rest[] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    Sums y = repeated(1.061405429f);
    for (int i = 0; i < 4; i++)
        y = fused(y, t, repeated(rest[i]));
    const Sums beyond = repeated(0.5f) * (y * t) * exponential(with_minus(z * z));
    return x * where_minus(x, beyond, one - beyond);
}

/* Values and gates (rows, 2, width) → (rows, width). */
static void gate(const float *both, int64_t rows, int64_t width, float *out)
{
    for (; rows > 0; rows--, both += 2 * width, out += width)
        for (int64_t i = 0, some; i < width; i += some) {
            some = next_of(width - i);
            store_some(out + i, loaded_some(both + i, some) * gelu(loaded_some(both + width + i, some)), some);
        }
}

/* A thread's room for so many rows, in memory of `size`, which is told. */
static Panel panel_of(char *memory, size_t *size, const EncoderLayer *layer, int64_t rows)
{
    const Weight *widest = layer->fc2.in > layer->qkv.in ? &layer->fc2 : &layer->qkv;
    Panel panel;
    *size = 0;
    panel.normed = cut(&memory, size, rows * layer->qkv.in);
    panel.many = cut(&memory, size, rows * layer->fc1.out);
    panel.gated = cut(&memory, size, rows * layer->fc2.in);
    panel.laid = laid_room(memory, widest, rows);
    *size += room_for_rows(widest, rows);
    return panel;
}

/* `some` rows of x through what follows attention in a layer. */
static void finish_layer(const EncoderLayer *layer, const float *mixed, int64_t some, float *x, Panel panel)
{
    multiply_alone(&layer->out, mixed, some, x, x, panel.laid);
    rms_normed(&layer->before_mlp, x, some, layer->out.out, panel.normed);
    multiply_alone(&layer->fc1, panel.normed, some, NULL, panel.many, panel.laid);
    gate(panel.many, some, layer->fc2.in, panel.gated);
    multiply_alone(&layer->fc2, panel.gated, some, x, x, panel.laid);
}

/* x (positions, D) through `count` layers, as wide as each other, in place. Heads are a multiple of 8 and at most 128
wide. Returns 0, or 1 where no memory is left. */
EXPORTED int clvp_encode(const EncoderLayer *layers, int64_t count, const Sequences *all, float *x, int threads)
{
    const int64_t rows = all->starts[all->count], width = layers->qkv.in, heads = layers->heads;
    const int64_t fitting = ROOM / sizeof(float) / layers->fc1.out;
    const int64_t share = rows > threads ? (rows + threads - 1) / threads : 1;
    const int64_t at_once = ((fitting < share ? fitting : share) + MOST - 1) / MOST * MOST;
    const int64_t longest = longest_of(all), head = width / heads, bits = bits_of_keys(layers->qkv.bits == 8, head);
    size_t of_bench, of_panel;
    bench_of(NULL, &of_bench, head, longest);
    panel_of(NULL, &of_panel, layers, at_once);
    const size_t of_qkv = lines(rows * layers->qkv.out * sizeof(float)), of_mixed = lines(rows * width * sizeof(float));
    char *memory = room_of(of_qkv + of_mixed + threads * (of_bench + of_panel));
    if (!memory)
        return 1;
    float *qkv = (float *)memory, *mixed = (float *)(memory + of_qkv);
    char *behind = memory + of_qkv + of_mixed;
#pragma omp parallel num_threads(threads)
    {
        char *own = behind + omp_get_thread_num() * (of_bench + of_panel);
        const Bench bench = bench_of(own, &(size_t){0}, head, longest);
        const Panel panel = panel_of(own + of_bench, &(size_t){0}, layers, at_once);
        for (int64_t n = 0; n <= count; n++) {
#pragma omp for schedule(dynamic)
            for (int64_t m = 0; m < rows; m += at_once) {
                const int64_t some = rows - m < at_once ? rows - m : at_once;
                float *at = x + m * width;
                if (n > 0)
                    finish_layer(layers + n - 1, mixed + m * width, some, at, panel);
                if (n == count)
                    continue;
                rms_normed(&layers[n].before_attention, at, some, width, panel.normed);
                multiply_alone(&layers[n].qkv, panel.normed, some, NULL, qkv + m * layers->qkv.out, panel.laid);
            }
            if (n < count)
                attend_each(qkv, heads, head, all, bits, mixed, bench);
        }
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
