/* Local features after Lowe 2004, of a gray picture: extrema of a difference-of-Gaussians scale space, spread over the picture, each with
 * one or two directions and a RootSIFT descriptor (sift_describe.c). `sift_plan.py` hands in every constant, `sift_pure.py` has the same in
 * NumPy, sum by sum: without -ffast-math both come to the same points. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sift.h"

typedef struct {
    float x, y, scale, strength; /* in pixels of the octave; scale in levels above the octave's first */
    int octave, cell;
} Extremum;

typedef struct {
    Extremum *items;
    size_t count, room;
} Extrema;

/* ---- scale space ---- */

static int reflected(int i, int n) {
    return i < 0 ? -i : i < n ? i : 2 * n - 2 - i;
}

#define BLUR_ROW(R)                                                                                                    \
    INLINE void down_##R(const float *const *rows, const float *k, float *restrict out, int width) {                   \
        for (int x = 0; x < width; x++) {                                                                              \
            float sum = k[0] * rows[R][x];                                                                             \
            _Pragma("GCC unroll 16") for (int j = 1; j <= R; j++) sum = sum + k[j] * (rows[R - j][x] + rows[R + j][x]); \
            out[x] = sum;                                                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    INLINE void across_##R(const float *restrict in, const float *k, float *restrict out, int width) {                 \
        for (int x = 0; x < width; x++) {                                                                              \
            float sum = k[0] * in[x];                                                                                  \
            _Pragma("GCC unroll 16") for (int j = 1; j <= R; j++) sum = sum + k[j] * (in[x - j] + in[x + j]);           \
            out[x] = sum;                                                                                              \
        }                                                                                                              \
    }
#define EACH_RADIUS(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12)
EACH_RADIUS(BLUR_ROW)

/* `row` has MAX_RADIUS floats of room on either side. */
CLONED static void blur(const float *in, float *out, float *row, int width, int height, int radius, const float *k) {
    const float *rows[2 * MAX_RADIUS + 1];
    for (int y = 0; y < height; y++) {
        for (int j = -radius; j <= radius; j++) rows[radius + j] = in + (size_t)reflected(y + j, height) * width;
        float *to = out + (size_t)y * width;
#define DOWN(R) case R: down_##R(rows, k, row, width); break;
        switch (radius) { EACH_RADIUS(DOWN) }
        for (int j = 1; j <= radius; j++) {
            row[-j] = row[reflected(-j, width)];
            row[width - 1 + j] = row[reflected(width - 1 + j, width)];
        }
#define ACROSS(R) case R: across_##R(row, k, to, width); break;
        switch (radius) { EACH_RADIUS(ACROSS) }
    }
}

CLONED static void subtract(const float *restrict a, const float *restrict b, float *restrict out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = a[i] - b[i];
}

/* ---- extrema ---- */

/* Whether each pixel of a row stands out of its six nearest neighbours, in the picture and in scale, by more than the threshold. */
CLONED static void flags(const float *below, const float *here, const float *above, int width, float least, uint8_t *restrict out, int from,
                         int to) {
    const float *up = here - width, *down = here + width;
    for (int x = from; x < to; x++) {
        float v = here[x], a = here[x - 1], b = here[x + 1], c = up[x], d = down[x], e = below[x], f = above[x];
        float high = a > b ? a : b, high2 = c > d ? c : d, high3 = e > f ? e : f;
        float low = a < b ? a : b, low2 = c < d ? c : d, low3 = e < f ? e : f;
        high = high > high2 ? high : high2;
        low = low < low2 ? low : low2;
        high3 = high3 > least ? high3 : least;
        low3 = low3 < -least ? low3 : -least;
        high = high > high3 ? high : high3;
        low = low < low3 ? low : low3;
        out[x] = (v > high) | (v < low);
    }
}

/* Whether the pixel is above (or, with sign -1, below) all of its 26 neighbours. */
static int extreme(const float *below, const float *here, const float *above, int width) {
    float v = here[0], sign = v > 0 ? 1.0f : -1.0f;
    for (int y = -1; y <= 1; y++)
        for (int x = -1; x <= 1; x++) {
            int at = y * width + x;
            if (sign * below[at] >= sign * v || sign * above[at] >= sign * v || (at && sign * here[at] >= sign * v)) return 0;
        }
    return 1;
}

/* The extremum of the parabola through the neighbours; 0 where it is another pixel's, has too little contrast, or lies on an edge. */
static int refined(const float *const *dogs, int width, int x, int y, int level, float least, const Plan *plan, Extremum *out) {
    size_t at = (size_t)y * width + x;
    const float *below = dogs[level - 1] + at, *here = dogs[level] + at, *above = dogs[level + 1] + at;
    float v = here[0];
    float gx = (here[1] - here[-1]) * 0.5f, gy = (here[width] - here[-width]) * 0.5f, gs = (above[0] - below[0]) * 0.5f;
    float xx = here[1] + here[-1] - 2.0f * v, yy = here[width] + here[-width] - 2.0f * v, ss = above[0] + below[0] - 2.0f * v;
    float xy = (here[width + 1] - here[width - 1] - here[-width + 1] + here[-width - 1]) * 0.25f;
    float xs = (above[1] - above[-1] - below[1] + below[-1]) * 0.25f;
    float ys = (above[width] - above[-width] - below[width] + below[-width]) * 0.25f;
    float trace = xx + yy, det2 = xx * yy - xy * xy;
    if (!(det2 > 0.0f) || trace * trace >= plan->edge * det2) return 0;
    float a = yy * ss - ys * ys, b = xs * ys - xy * ss, c = xy * ys - xs * yy;
    float det = xx * a + xy * b + xs * c;
    if (det == 0.0f) return 0;
    float e = xx * ss - xs * xs, f = xy * xs - xx * ys;
    float dx = -(a * gx + b * gy + c * gs) / det, dy = -(b * gx + e * gy + f * gs) / det, ds = -(c * gx + f * gy + det2 * gs) / det;
    if (!(fabsf(dx) < 1.0f && fabsf(dy) < 1.0f && fabsf(ds) < 1.0f)) return 0;
    float contrast = fabsf(v + 0.5f * (gx * dx + gy * dy + gs * ds));
    if (contrast < least) return 0;
    out->x = (float)x + dx;
    out->y = (float)y + dy;
    out->scale = (float)level + ds;
    out->strength = contrast;
    return 1;
}

static int append(Extrema *all, const Extremum *one) {
    if (all->count == all->room) {
        size_t room = all->room ? 2 * all->room : 1024;
        Extremum *more = realloc(all->items, room * sizeof *more);
        if (!more) return 0;
        all->items = more;
        all->room = room;
    }
    all->items[all->count++] = *one;
    return 1;
}

static int find(const float *const *dogs, int width, int height, int octave, float noise, const Plan *plan, uint8_t *marks, Extrema *all) {
    int border = plan->border;
    for (int level = 1; level <= plan->scales; level++) {
        float least = plan->floor > noise * plan->noise[level] ? plan->floor : noise * plan->noise[level];
        for (int y = border; y < height - border; y++) {
            size_t row = (size_t)y * width;
            flags(dogs[level - 1] + row, dogs[level] + row, dogs[level + 1] + row, width, 0.8f * least, marks, border, width - border);
            for (int x = border; x < width - border; x++) {
                uint64_t eight;
                while (x + 8 <= width - border && (memcpy(&eight, marks + x, 8), !eight)) x += 8;
                if (x >= width - border || !marks[x]) continue;
                size_t at = row + x;
                if (!extreme(dogs[level - 1] + at, dogs[level] + at, dogs[level + 1] + at, width)) continue;
                Extremum found = {.octave = octave};
                if (refined(dogs, width, x, y, level, least, plan, &found) && !append(all, &found)) return 0;
            }
        }
    }
    return 1;
}

/* ---- choice ---- */

static void by_strength(int32_t *order, size_t count, const Extremum *items) {
    for (size_t i = 1; i < count; i++) {
        int32_t one = order[i];
        size_t j = i;
        for (; j && items[order[j - 1]].strength < items[one].strength; j--) order[j] = order[j - 1];
        order[j] = one;
    }
}

/* Fills `chosen` with at most `most`: the strongest of each cell first, then each cell's second, and so on; how many, or -1. */
static int choose(Extrema *all, int width, int height, const Plan *plan, int32_t *chosen, int most) {
    int cells = plan->grid * plan->grid, taken = 0;
    int32_t *order = malloc((all->count + 2 * (size_t)cells + 2) * sizeof *order);
    if (!order) return -1;
    int32_t *start = order + all->count, *round = start + cells + 1;
    memset(start, 0, ((size_t)cells + 1) * sizeof *start);
    for (size_t i = 0; i < all->count; i++) {
        Extremum *one = all->items + i;
        float zoom = (float)(1 << one->octave);
        int column = (int)(one->x * zoom * (float)plan->grid / (float)width);
        int row = (int)(one->y * zoom * (float)plan->grid / (float)height);
        column = column < 0 ? 0 : column < plan->grid ? column : plan->grid - 1;
        row = row < 0 ? 0 : row < plan->grid ? row : plan->grid - 1;
        one->cell = row * plan->grid + column;
        float sigma = zoom * exp2f(one->scale / (float)plan->scales);
        one->strength *= sqrtf(sigma * sqrtf(sigma)); /* what is large survives shrinking */
        start[one->cell + 1]++;
    }
    for (int cell = 0; cell < cells; cell++) start[cell + 1] += start[cell];
    for (size_t i = all->count; i--;) order[--start[all->items[i].cell + 1]] = (int32_t)i; /* leaves start[cell + 1] at the cell's first */
    memmove(start, start + 1, (size_t)cells * sizeof *start);
    start[cells] = (int32_t)all->count;
    for (int cell = 0; cell < cells; cell++) by_strength(order + start[cell], (size_t)(start[cell + 1] - start[cell]), all->items);
    for (int rank = 0, more = 1; more && taken < most; rank++) {
        more = 0;
        for (int cell = 0; cell < cells; cell++)
            if (start[cell] + rank < start[cell + 1]) round[more++] = order[start[cell] + rank];
        by_strength(round, (size_t)more, all->items);
        for (int i = 0; i < more && taken < most; i++) chosen[taken++] = round[i];
    }
    free(order);
    return taken;
}

/* ---- all of it ---- */

typedef struct {
    int octaves, levels, width[MAX_OCTAVES], height[MAX_OCTAVES];
    float *pixels[MAX_OCTAVES][MAX_LEVELS];
} Pyramid;

/* Noise of the finest difference of Gaussians: its median absolute value, as a standard deviation. */
static float noise_of(const float *dog, int width, int height) {
    int counts[256] = {0}, total = 0, sum = 0, bin = 0;
    for (int y = 0; y < height; y += 4)
        for (int x = 0; x < width; x += 2) {
            float value = fabsf(dog[(size_t)y * width + x]) * 64.0f;
            counts[value < 255.0f ? (int)value : 255]++;
            total++;
        }
    while (2 * (sum += counts[bin]) < total) bin++;
    return ((float)bin + 0.5f) * (1.0f / (64.0f * 0.6745f));
}

static void first_level(const uint8_t *image, float *scratch, float *out, float *row, int width, int height, const Plan *plan) {
    for (size_t i = 0; i < (size_t)width * height; i++) scratch[i] = image[i];
    blur(scratch, out, row, width, height, plan->radius[0], plan->taps[0]);
}

static void halve(const float *in, int from, float *out, int width, int height) {
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) out[(size_t)y * width + x] = in[(size_t)(2 * y) * from + 2 * x];
}

static float *laid_out(Pyramid *pyramid, int width, int height, const Plan *plan) {
    size_t room = 0;
    pyramid->levels = plan->scales + 3;
    for (pyramid->octaves = 0; pyramid->octaves < MAX_OCTAVES && width >= plan->least && height >= plan->least; pyramid->octaves++) {
        pyramid->width[pyramid->octaves] = width;
        pyramid->height[pyramid->octaves] = height;
        room += (size_t)width * height * pyramid->levels;
        width = (width + 1) / 2;
        height = (height + 1) / 2;
    }
    float *all = pyramid->octaves ? malloc(room * sizeof *all) : NULL, *next = all;
    for (int octave = 0; all && octave < pyramid->octaves; octave++)
        for (int level = 0; level < pyramid->levels; level++) {
            pyramid->pixels[octave][level] = next;
            next += (size_t)pyramid->width[octave] * pyramid->height[octave];
        }
    return all;
}

static int scan(const uint8_t *image, Pyramid *pyramid, const Plan *plan, Extrema *found) {
    size_t size = (size_t)pyramid->width[0] * pyramid->height[0];
    int differences = pyramid->levels - 1, done = 0;
    float *dogs = malloc(size * differences * sizeof *dogs), *line = malloc((pyramid->width[0] + 2 * MAX_RADIUS) * sizeof *line);
    uint8_t *marks = malloc(pyramid->width[0] + 8);
    if (!dogs || !line || !marks) goto out;
    float noise = 0.0f, *row = line + MAX_RADIUS;
    for (int octave = 0; octave < pyramid->octaves; octave++) {
        int width = pyramid->width[octave], height = pyramid->height[octave];
        float **levels = pyramid->pixels[octave];
        const float *rows[MAX_LEVELS];
        if (octave) halve(pyramid->pixels[octave - 1][plan->scales], pyramid->width[octave - 1], levels[0], width, height);
        else first_level(image, dogs, levels[0], row, width, height, plan);
        for (int level = 0; level < differences; level++) {
            size_t area = (size_t)width * height;
            blur(levels[level], levels[level + 1], row, width, height, plan->radius[level + 1], plan->taps[level + 1]);
            subtract(levels[level + 1], levels[level], dogs + level * area, area);
            rows[level] = dogs + level * area;
        }
        if (!octave) noise = noise_of(dogs, width, height);
        if (noise > plan->most_noise) noise = plan->most_noise;
        if (!find(rows, width, height, octave, noise / (float)(1 << octave), plan, marks, found)) goto out;
    }
    done = 1;
out:
    free(dogs);
    free(line);
    free(marks);
    return done;
}

/* At most `most` features of a gray picture: `points` (x, y, diameter, angle in degrees), `descriptors` (128 bytes); how many, or -1 where
 * there is no memory. */
int filigrane_sift(const uint8_t *image, int width, int height, const Plan *plan, int most, float *points, uint8_t *descriptors) {
    Pyramid pyramid;
    Extrema found = {0};
    float *pixels = laid_out(&pyramid, width, height, plan);
    int32_t *chosen = malloc((most > 0 ? most : 1) * sizeof *chosen);
    int count = pyramid.octaves && !pixels ? -1 : 0, kept = 0;
    if (!pixels || !chosen || most < 1) goto out;
    count = -1;
    if (!scan(image, &pyramid, plan, &found) || (kept = choose(&found, width, height, plan, chosen, most)) < 0) goto out;
    count = 0;
    for (int i = 0; i < kept && count < most; i++) {
        const Extremum *one = found.items + chosen[i];
        float sigma = (float)(plan->sigma * exp2(one->scale / (double)plan->scales)), zoom = (float)(1 << one->octave), turns[2];
        int at = (int)(one->scale + 0.5f);
        Level level = {pyramid.pixels[one->octave][at], pyramid.width[one->octave], pyramid.height[one->octave]};
        int turned = sift_directions(&level, one->x, one->y, plan->turn_step * sigma, plan, turns);
        for (int k = 0; k < turned && count < most; k++, count++) {
            double angle = turns[k] * 6.283185307179586;
            float step = plan->step * sigma;
            float along = step * (float)cos(angle), across = step * (float)sin(angle), *point = points + 4 * (size_t)count;
            sift_describe(&level, one->x, one->y, along, across, plan, descriptors + 128 * (size_t)count);
            point[0] = one->x * zoom;
            point[1] = one->y * zoom;
            point[2] = 2.0f * sigma * zoom;
            point[3] = turns[k] * 360.0f;
        }
    }
out:
    free(pixels);
    free(chosen);
    free(found.items);
    return count;
}
