/* A weight as a checkpoint has it, laid in the blocks that products want. */

#include "registers.h"

#define TILE 16 /* units of a row, which one line of memory has or two have */

/* `depth` units from `first` on of rows (out, in) → blocks; behind the last row, zeros. */
#define LAY(Unit)                                                                          \
    for (int64_t j = 0; j < out; j += BLOCK)                                               \
        for (int64_t k = 0; k < depth; k += TILE) {                                        \
            const int64_t units = depth - k < TILE ? depth - k : TILE;                     \
            for (int64_t i = 0; i < BLOCK; i++) {                                          \
                const Unit *row = (const Unit *)weight + (j + i) * in + first + k;         \
                for (int64_t unit = 0; unit < units; unit++)                               \
                    ((Unit *)to)[unit * BLOCK + i] = j + i < out ? row[unit] : 0;          \
            }                                                                              \
            to += units * BLOCK * sizeof(Unit);                                            \
        }

/* weight (out, in) → numbers, both as kernels.h says; what is multiplied at once is a unit of 2 or of 4 bytes, of which
a row has `in` and a part `most`. */
EXPORTED void clvp_lay(const void *weight, int64_t out, int64_t in, int64_t size, int64_t most, void *numbers)
{
    char *to = numbers;
    for (int64_t first = 0; first < in; first += most) {
        const int64_t depth = in - first < most ? in - first : most;
        if (size == sizeof(uint16_t)) {
            LAY(uint16_t)
        } else {
            LAY(uint32_t)
        }
    }
}
