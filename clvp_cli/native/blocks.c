/* A weight's rows, as a checkpoint has them, laid in the blocks that products want. */

#include "registers.h"

#define TILE 16 /* units of a row that are moved at once: a line of memory, or half of one */

/* Behind the last row, zeros. */
#define LAY(Unit)                                                                \
    for (int64_t j = 0; j < out; j += BLOCK)                                     \
        for (int64_t k = 0; k < depth; k += TILE) {                              \
            const int64_t units = depth - k < TILE ? depth - k : TILE;           \
            for (int64_t i = 0; i < BLOCK; i++) {                                \
                const Unit *row = (const Unit *)rows + (j + i) * depth + k;      \
                for (int64_t unit = 0; unit < units; unit++)                     \
                    ((Unit *)to)[unit * BLOCK + i] = j + i < out ? row[unit] : 0;\
            }                                                                    \
            to += units * BLOCK * sizeof(Unit);                                  \
        }

/* Rows (out, depth) of a weight's part → its blocks, as kernels.h says; what is multiplied at once is a unit of 2 or of
4 bytes. */
EXPORTED void clvp_lay(const void *rows, int64_t out, int64_t depth, int64_t size, void *blocks)
{
    char *to = blocks;
    if (size == sizeof(uint16_t)) {
        LAY(uint16_t)
    } else {
        LAY(uint32_t)
    }
}
