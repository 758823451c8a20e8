/* Local features after Lowe 2004, of a gray picture: extrema of a difference-of-Gaussians scale space, spread over the picture, each with
 * one or two directions and a RootSIFT descriptor. `sift_plan.py` hands in every constant, `sift_pure.py` has the
 * same in NumPy, sum by sum: without -ffast-math both come to the same points. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

enum { MAX_LEVELS = 8, MAX_RADIUS = 12, MAX_OCTAVES = 8, SAMPLES = 16, PATCH = SAMPLES + 2, CELLS = 4, BINS = 8, TURNS = 36, AROUND = 12 };

/* The same fields, in the same order, as `Plan` in sift_plan.py. */
typedef struct {
    int32_t scales;                          /* levels per octave in which extrema are sought: S; an octave has S + 3 levels */
    int32_t border;                          /* pixels of an octave's edge without points */
    int32_t least;                           /* an octave's shorter side is at least this long */
    int32_t grid;                            /* the picture has grid x grid cells */
    int32_t radius[MAX_LEVELS];              /* of the blur that makes each level of the one below */
    float taps[MAX_LEVELS][MAX_RADIUS + 1];  /* its weights from the middle outwards */
    float sigma;                             /* of an octave's first level, in pixels of the octave */
    float floor;                             /* the least contrast of a point */
    float noise[MAX_LEVELS];                 /* and per unit of noise, for each level */
    float most_noise;                        /* more than this is texture */
    float edge;                              /* the largest trace^2 / determinant */
    float second;                            /* a second direction has this share of the first one's weight */
    float turn_step, step;                   /* samples of a patch for directions and for descriptors: steps in sigmas */
    float around[AROUND * AROUND];           /* weights of a patch's samples for directions */
    float pool[CELLS][SAMPLES];              /* share of each row (and column) in each row (and column) of cells, and its weight */
} Plan;

typedef struct {
    const float *pixels;
    int width, height;
} Level;

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
CLONED static void flags(const float *below, const float *here, const float *above, int width, float least, uint8_t *restrict out, int from, int to) {
    const float *up = here - width, *down = here + width;
    for (int x = from; x < to; x++) {
        float v = here[x], a = here[x - 1], b = here[x + 1], c = up[x], d = down[x], e = below[x], f = above[x];
        float high = a > b ? a : b, low = a < b ? a : b, high2 = c > d ? c : d, low2 = c < d ? c : d, high3 = e > f ? e : f, low3 = e < f ? e : f;
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
        int column = (int)(one->x * zoom * (float)plan->grid / (float)width), row = (int)(one->y * zoom * (float)plan->grid / (float)height);
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

/* ---- directions and descriptors ---- */

typedef float Lanes __attribute__((vector_size(4 * BINS)));

/* A square of samples around a point, turned: each sample's gradient as magnitude and turn (0..1). */
typedef struct {
    float magnitude[SAMPLES * SAMPLES], turn[SAMPLES * SAMPLES];
} Gradients;

/* `count` values of the level, bilinear, at x + along u - across v, y + across u + along v; `inside`: 1 where that lies in the picture. */
INLINE void sample(const Level *level, float x, float y, float along, float across, int side, float *restrict values, float *restrict inside) {
    float a[PATCH * PATCH], b[PATCH * PATCH], near[PATCH * PATCH][2], far[PATCH * PATCH][2];
    int32_t at[PATCH * PATCH];
    float right = (float)(level->width - 1), bottom = (float)(level->height - 1), middle = 0.5f * (float)(side - 1);
    int width = level->width, last_x = width - 2, last_y = level->height - 2;
    for (int row = 0; row < side; row++) {
        float v = (float)row - middle;
        for (int column = 0; column < side; column++) {
            int i = row * side + column;
            float u = (float)column - middle;
            float fx = x + (along * u - across * v), fy = y + (across * u + along * v);
            float cx = fx > 0.0f ? fx : 0.0f, cy = fy > 0.0f ? fy : 0.0f;
            cx = cx < right ? cx : right;
            cy = cy < bottom ? cy : bottom;
            int32_t ix = (int32_t)cx, iy = (int32_t)cy;
            ix = ix < last_x ? ix : last_x;
            iy = iy < last_y ? iy : last_y;
            a[i] = cx - (float)ix;
            b[i] = cy - (float)iy;
            at[i] = iy * width + ix;
            inside[i] = (cx == fx) & (cy == fy) ? 1.0f : 0.0f;
        }
    }
    for (int i = 0; i < side * side; i++) {
        memcpy(near[i], level->pixels + at[i], sizeof near[i]);
        memcpy(far[i], level->pixels + at[i] + width, sizeof far[i]);
    }
    for (int i = 0; i < side * side; i++) {
        float top = near[i][0] + a[i] * (near[i][1] - near[i][0]), low = far[i][0] + a[i] * (far[i][1] - far[i][0]);
        values[i] = top + b[i] * (low - top);
    }
}

INLINE void gradients(const Level *level, float x, float y, float along, float across, int side, Gradients *out) {
    float values[PATCH * PATCH], inside[PATCH * PATCH];
    int patch = side + 2;
    sample(level, x, y, along, across, patch, values, inside);
    for (int row = 0; row < side; row++)
        for (int column = 0; column < side; column++) {
            const float *at = values + (row + 1) * patch + column + 1;
            float gx = at[1] - at[-1], gy = at[patch] - at[-patch];
            float ax = fabsf(gx), ay = fabsf(gy), big = ax > ay ? ax : ay, small = ax > ay ? ay : ax;
            float a = small / (big + 1e-20f), s = a * a;
            float angle = ((-0.0464964749f * s + 0.15931422f) * s - 0.327622764f) * s * a + a; /* atan, within 2e-4 */
            angle = angle * 0.15915494f;
            angle = ay > ax ? 0.25f - angle : angle;
            angle = gx < 0.0f ? 0.5f - angle : angle;
            angle = gy < 0.0f ? 1.0f - angle : angle;
            out->turn[row * side + column] = angle < 1.0f ? angle : 0.0f;
            out->magnitude[row * side + column] = sqrtf(gx * gx + gy * gy) * inside[(row + 1) * patch + column + 1];
        }
}

/* At most two directions, as turns; how many. */
CLONED static int directions(const Level *level, float x, float y, float step, const Plan *plan, float *out) {
    Gradients seen;
    float raw[2][TURNS] = {{0}}, all[TURNS], smooth[TURNS];
    int32_t bins[AROUND * AROUND];
    gradients(level, x, y, step, 0.0f, AROUND, &seen);
    for (int i = 0; i < AROUND * AROUND; i++) {
        seen.magnitude[i] = seen.magnitude[i] * plan->around[i];
        bins[i] = (int32_t)(seen.turn[i] * TURNS);
    }
    for (int i = 0; i < AROUND * AROUND; i += 2) {
        raw[0][bins[i]] += seen.magnitude[i];
        raw[1][bins[i + 1]] += seen.magnitude[i + 1];
    }
    for (int i = 0; i < TURNS; i++) all[i] = raw[0][i] + raw[1][i];
    int best = 0, second = -1;
    for (int i = 0; i < TURNS; i++) {
        float near = all[(i + 1) % TURNS] + all[(i + TURNS - 1) % TURNS], far = all[(i + 2) % TURNS] + all[(i + TURNS - 2) % TURNS];
        smooth[i] = 0.375f * all[i] + (0.25f * near + 0.0625f * far);
        if (smooth[i] > smooth[best]) best = i;
    }
    for (int i = 0; i < TURNS; i++) {
        int peak = smooth[i] > smooth[(i + 1) % TURNS] && smooth[i] >= smooth[(i + TURNS - 1) % TURNS];
        if (i != best && peak && smooth[i] >= plan->second * smooth[best] && (second < 0 || smooth[i] > smooth[second])) second = i;
    }
    for (int k = 0; k < (second < 0 ? 1 : 2); k++) {
        int i = k ? second : best;
        float before = smooth[(i + TURNS - 1) % TURNS], after = smooth[(i + 1) % TURNS], bend = before - 2.0f * smooth[i] + after;
        float at = (float)i + 0.5f + (bend < 0.0f ? 0.5f * (before - after) / bend : 0.0f);
        at = at * (1.0f / TURNS);
        out[k] = at < 1.0f ? at : at - 1.0f;
    }
    return second < 0 ? 1 : 2;
}

CLONED static void describe(const Level *level, float x, float y, float along, float across, const Plan *plan, uint8_t *restrict out) {
    Gradients seen;
    float lines[SAMPLES][SAMPLES * BINS] = {{0}}, cells[CELLS][SAMPLES * BINS] = {{0}}, whole[CELLS * CELLS * BINS] = {0};
    float share[SAMPLES * SAMPLES];
    int32_t bins[SAMPLES * SAMPLES];
    gradients(level, x, y, along, across, SAMPLES, &seen);
    for (int i = 0; i < SAMPLES * SAMPLES; i++) {
        float at = seen.turn[i] * BINS;
        bins[i] = (int32_t)at;
        share[i] = seen.magnitude[i] * (at - (float)bins[i]);
        seen.magnitude[i] = seen.magnitude[i] - share[i];
    }
    for (int i = 0; i < SAMPLES * SAMPLES; i++) {
        float *to = lines[0] + i * BINS;
        to[bins[i]] = seen.magnitude[i];
        to[(bins[i] + 1) & (BINS - 1)] = share[i];
    }
    for (int cell = 0; cell < CELLS; cell++)
        for (int row = 0; row < SAMPLES; row++) {
            float weight = plan->pool[cell][row];
            if (weight == 0.0f) continue;
            for (int i = 0; i < SAMPLES * BINS; i++) cells[cell][i] = cells[cell][i] + weight * lines[row][i];
        }
    for (int row = 0; row < CELLS; row++)
        for (int cell = 0; cell < CELLS; cell++) {
            Lanes sum = {0}, from;
            for (int column = 0; column < SAMPLES; column++) {
                float weight = plan->pool[cell][column];
                if (weight == 0.0f) continue;
                memcpy(&from, cells[row] + column * BINS, sizeof from);
                sum = sum + weight * from;
            }
            memcpy(whole + (row * CELLS + cell) * BINS, &sum, sizeof sum);
        }
    float squares[BINS] = {0}, sums[BINS] = {0}, length = 0.0f, total = 0.0f;
    for (int i = 0; i < CELLS * CELLS * BINS; i++) squares[i % BINS] += whole[i] * whole[i];
    for (int i = 0; i < BINS; i++) length += squares[i];
    float most = 0.2f * sqrtf(length);
    for (int i = 0; i < CELLS * CELLS * BINS; i++) whole[i] = whole[i] < most ? whole[i] : most;
    for (int i = 0; i < CELLS * CELLS * BINS; i++) sums[i % BINS] += whole[i];
    for (int i = 0; i < BINS; i++) total += sums[i];
    float unit = 1.0f / (total > 1e-6f ? total : 1e-6f);
    for (int i = 0; i < CELLS * CELLS * BINS; i++) {
        float value = sqrtf(whole[i] * unit) * 512.0f + 0.5f;
        out[i] = (uint8_t)(int32_t)(value < 255.0f ? value : 255.0f);
    }
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
        int turned = directions(&level, one->x, one->y, plan->turn_step * sigma, plan, turns);
        for (int k = 0; k < turned && count < most; k++, count++) {
            double angle = turns[k] * 6.283185307179586;
            float step = plan->step * sigma;
            describe(&level, one->x, one->y, step * (float)cos(angle), step * (float)sin(angle), plan, descriptors + 128 * (size_t)count);
            float *point = points + 4 * (size_t)count;
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
