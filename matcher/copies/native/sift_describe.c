/* Directions and descriptors of points: gradients of a square of samples around each, in histograms. The same in sift_pure.py. */
#include <math.h>
#include <string.h>

#include "sift.h"

typedef float Lanes __attribute__((vector_size(4 * BINS)));

/* A square of samples around a point, turned: each sample's gradient as magnitude and turn (0..1). */
typedef struct {
    float magnitude[SAMPLES * SAMPLES], turn[SAMPLES * SAMPLES];
} Gradients;

/* side x side values of the level, bilinear, at x + along u - across v, y + across u + along v; `inside`: 1 where the picture is. */
INLINE void sample(const Level *level, float x, float y, float along, float across, int side, float *restrict values,
                   float *restrict inside) {
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

/* side x side gradients, in the frame of the samples: a turned point needs no turning back. */
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

CLONED int sift_directions(const Level *level, float x, float y, float step, const Plan *plan, float *out) {
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

CLONED void sift_describe(const Level *level, float x, float y, float along, float across, const Plan *plan, uint8_t *restrict out) {
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
