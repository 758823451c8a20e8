/* What the two files of the feature extractor share. */
#ifndef FILIGRANE_SIFT_H
#define FILIGRANE_SIFT_H

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

/* At most two directions of a point at (x, y) of the level, as turns (0..1); how many. `step`: between samples, in pixels. */
HIDDEN int sift_directions(const Level *level, float x, float y, float step, const Plan *plan, float *out);

/* 128 bytes for a point at (x, y) of the level. (along, across): one step between samples, in pixels, in the point's direction. */
HIDDEN void sift_describe(const Level *level, float x, float y, float along, float across, const Plan *plan, uint8_t *restrict out);

#endif
