/* Which descriptors are each other's nearest, for a query and its mirror at once; `correspondences.py` says how, and is the same in NumPy.
 *
 * All numbers fit into 16 bits: a descriptor has levels 0..15 and a squared length of some 1,820 (features.py).
 */
#include <stdlib.h>
#include <string.h>

#include "native.h"

enum { HALF = 64, TILE = 64 };

typedef struct {
    const int16_t *sums, *differences; /* HALF x width each: of the query's descriptors, one a column */
    const int16_t *lengths;            /* width: squared lengths; those past the last descriptor are larger than any */
    int count, width;                  /* width: count rounded up to TILE */
} Query;

/* Squared distances of one registered descriptor to all of the query and of its mirror. */
CLONED static void distances(const Query *query, const int16_t *sums, const int16_t *differences, int length, int16_t *restrict upright,
                             int16_t *restrict flipped) {
    for (int from = 0; from < query->width; from += TILE) {
        int16_t same[TILE] = {0}, other[TILE] = {0};
        for (int k = 0; k < HALF; k++) {
            const int16_t *s = query->sums + (size_t)k * query->width + from;
            const int16_t *d = query->differences + (size_t)k * query->width + from;
            for (int i = 0; i < TILE; i++) {
                same[i] = (int16_t)(same[i] + sums[k] * s[i]);
                other[i] = (int16_t)(other[i] + differences[k] * d[i]);
            }
        }
        for (int i = 0; i < TILE; i++) {
            int16_t both = (int16_t)(query->lengths[from + i] + length - same[i]);
            upright[from + i] = (int16_t)(both - other[i]);
            flipped[from + i] = (int16_t)(both + other[i]);
        }
    }
}

/* Takes a row's distances into the least of each column; ties stay with the earlier row. */
CLONED static void least_of_columns(const int16_t *restrict row, int width, int at, int16_t *restrict least, int16_t *restrict where) {
    for (int i = 0; i < width; i++) {
        where[i] = row[i] < least[i] ? (int16_t)at : where[i];
        least[i] = row[i] < least[i] ? row[i] : least[i];
    }
}

CLONED static int least_of_row(const int16_t *row, int width) {
    int16_t least = INT16_MAX;
    for (int i = 0; i < width; i++) least = row[i] < least ? row[i] : least;
    int at = 0;
    while (row[at] != least) at++;
    return at;
}

/* The least distance in a column to a registered point that lies at least `apart` away from the one at `nearest`. */
static int second_of_column(const int16_t *table, int rows, int width, int column, int nearest, const float *points, float apart) {
    const float x = points[4 * nearest], y = points[4 * nearest + 1];
    int least = INT16_MAX;
    for (int row = 0; row < rows; row++) {
        int distance = table[(size_t)row * width + column];
        if (distance >= least) continue;
        float dx = x - points[4 * row], dy = y - points[4 * row + 1];
        if (dx * dx + dy * dy >= apart * apart) least = distance;
    }
    return least;
}

/* For each column of one state's table: its row if they are each other's nearest, else -1; and the two distances. */
static void mutual(const int16_t *table, int rows, int width, int count, const int16_t *row_best, const int16_t *where,
                   const float *points, float apart, int32_t *restrict found) {
    for (int column = 0; column < count; column++) {
        int row = where[column];
        int32_t *out = found + 3 * column;
        out[0] = row_best[row] == column ? row : -1;
        out[1] = table[(size_t)row * width + column];
        out[2] = out[0] < 0 ? 0 : second_of_column(table, rows, width, column, row, points, apart);
    }
}

/* `descriptors`: rows x 128, levels; `points`: rows x 4; `pairs`: 2 x HALF, the dimensions that mirroring swaps; `found`: 2 states x count
 * x (row or -1, distance, second distance). Returns 0, or -1 where there is no memory. */
int filigrane_nearest(const uint8_t *descriptors, const float *points, int rows, const int32_t *pairs, const int16_t *sums,
                      const int16_t *differences, const int16_t *lengths, int count, int width, float apart, int32_t *found) {
    const Query query = {sums, differences, lengths, count, width};
    const size_t size = (size_t)rows * width;
    int16_t *tables = malloc((2 * size + 4 * (size_t)width + 2 * (size_t)rows) * sizeof *tables);
    if (!tables) return -1;
    int16_t *least = tables + 2 * size, *where = least + 2 * width, *row_best = where + 2 * width;
    for (int i = 0; i < 2 * width; i++) least[i] = INT16_MAX, where[i] = 0;
    for (int row = 0; row < rows; row++) {
        int16_t s[HALF], d[HALF];
        int length = 0;
        for (int k = 0; k < HALF; k++) {
            int a = descriptors[128 * row + pairs[k]], b = descriptors[128 * row + pairs[HALF + k]];
            s[k] = (int16_t)(a + b), d[k] = (int16_t)(a - b), length += a * a + b * b;
        }
        int16_t *upright = tables + (size_t)row * width, *flipped = upright + size;
        distances(&query, s, d, length, upright, flipped);
        least_of_columns(upright, width, row, least, where);
        least_of_columns(flipped, width, row, least + width, where + width);
        row_best[row] = (int16_t)least_of_row(upright, width), row_best[rows + row] = (int16_t)least_of_row(flipped, width);
    }
    for (int state = 0; state < 2; state++)
        mutual(tables + state * size, rows, width, count, row_best + state * rows, where + state * width, points, apart,
               found + (size_t)state * 3 * count);
    free(tables);
    return 0;
}
