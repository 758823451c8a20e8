/* An inverted file of codes: looked up, voted and merged. Everything is integers, or doubles without rounding freedom: segment.py has the
 * same steps in NumPy, with the same results bit for bit. */
#include <stdlib.h>
#include <string.h>

#include "native.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define WIDE 1
#endif

enum { RANKS = 8, MARGINS = 32, HALF_CODE = 32, DISTANCES = 65, LOGS = 4096, ANGLES = 256, SHARE = 4 };
enum { MOST = 96, HYPOTHESES = 16, TURN = 16, ZOOM = 10, SAME = 2 };
#define DEAD UINT32_MAX
#define ANTISYMMETRIC 0xFFFFFFFFu
#define NOWHERE UINT32_MAX

typedef struct {
    uint32_t picture;
    uint8_t x, y, angle, size;
} Place;

typedef struct {
    Place place;
    int32_t weight;
    uint16_t feature;
    uint8_t distance, flipped;
} Hit;

typedef struct {
    uint32_t picture;
    int32_t score;
    uint16_t support;
    uint8_t flipped, unused;
} Vote;

typedef struct {
    uint32_t start, end;
} Range;

/* 256 ln(count), the same for huge counts as in the table of small ones. */
static int32_t log_of(const int32_t *logs, int64_t count) {
    int32_t more = 0;
    while (count >= LOGS) {
        count >>= 1;
        more += logs[2];
    }
    return logs[count] + more;
}

/* ---- which entries are near ------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t entry;
    uint8_t distance, flipped;
} Near;

INLINE int near_one(uint64_t difference, uint32_t entry, int limit, Near *out) {
    int all = __builtin_popcountll(difference), anti = __builtin_popcountll(difference & ANTISYMMETRIC);
    int mirrored = all - 2 * anti + HALF_CODE;
    int flipped = mirrored < all, distance = flipped ? mirrored : all;
    *out = (Near){entry, (uint8_t)distance, (uint8_t)flipped};
    return distance <= limit;
}

CLONED
static int64_t near_plain(const uint64_t *codes, uint32_t start, uint32_t end, uint64_t code, int limit, Near *out) {
    int64_t count = 0;
    for (uint32_t e = start; e < end; e++) count += near_one(codes[e] ^ code, e, limit, out + count);
    return count;
}

#ifdef WIDE
__attribute__((target("avx512f,avx512vpopcntdq,popcnt")))
static int64_t near_wide(const uint64_t *codes, uint32_t start, uint32_t end, uint64_t code, int limit, Near *out) {
    const __m512i wanted = _mm512_set1_epi64((long long)code), low = _mm512_set1_epi64(ANTISYMMETRIC);
    const __m512i half = _mm512_set1_epi64(HALF_CODE), most = _mm512_set1_epi64(limit);
    int64_t count = 0;
    for (uint32_t e = start; e < end; e += 8) {
        __mmask8 inside = end - e >= 8 ? 0xFF : (__mmask8)((1u << (end - e)) - 1);
        __m512i difference = _mm512_xor_si512(_mm512_maskz_loadu_epi64(inside, codes + e), wanted);
        __m512i all = _mm512_popcnt_epi64(difference), anti = _mm512_popcnt_epi64(_mm512_and_si512(difference, low));
        __m512i mirrored = _mm512_add_epi64(_mm512_sub_epi64(all, _mm512_add_epi64(anti, anti)), half);
        unsigned found = _mm512_mask_cmple_epi64_mask(inside, _mm512_min_epi64(all, mirrored), most);
        for (; found; found &= found - 1) {
            uint32_t at = e + (uint32_t)__builtin_ctz(found);
            count += near_one(codes[at] ^ code, at, limit, out + count);
        }
    }
    return count;
}
#endif

typedef int64_t (*Nearer)(const uint64_t *, uint32_t, uint32_t, uint64_t, int, Near *);

static Nearer nearer(void) {
#ifdef WIDE
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vpopcntdq")) return near_wide;
#endif
    return near_plain;
}

/* ---- where to look ---------------------------------------------------------------------------------------------------------------- */

/* The bits (positions from the top) whose margins are smallest, the weakest first; ties in order. */
static void weakest(const int32_t *margins, int bits, uint64_t *flips) {
    int order[RANKS], count = 0;
    for (int bit = 0; bit < bits; bit++) {
        int at = count;
        while (at > 0 && margins[order[at - 1]] > margins[bit]) at--;
        if (at >= RANKS) continue;
        if (count < RANKS) count++;
        for (int i = count - 1; i > at; i--) order[i] = order[i - 1];
        order[at] = bit;
    }
    for (int rank = 0; rank < count; rank++) flips[rank] = 1ull << (63 - order[rank]);
}

/* The codes to look up, by templates: which of the weakest bits are turned. Returns how many. */
static int looked_up(uint64_t code, const int32_t *margins, int bits, const uint8_t *templates, int probes, uint64_t *out) {
    uint64_t flips[RANKS];
    int ranks = bits < RANKS ? bits : RANKS, count = 0;
    weakest(margins, bits, flips);
    for (int t = 0; t < probes; t++) {
        if (templates[t] >> ranks) continue;
        uint64_t probe = code;
        for (unsigned turned = templates[t]; turned; turned &= turned - 1) probe ^= flips[__builtin_ctz(turned)];
        out[count++] = probe;
    }
    return count;
}

INLINE uint64_t cell_of(uint64_t code, int bits) { return bits ? code >> (64 - bits) : 0; }

/* At most `left` entries of a range: those around the code's own place in the order, which agree with it in more bits than others do. */
static Range narrowed(const uint64_t *codes, Range range, uint64_t code, uint32_t left) {
    if (range.end - range.start <= left) return range;
    uint32_t low = range.start, high = range.end;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (codes[middle] < code)
            low = middle + 1;
        else
            high = middle;
    }
    uint32_t start = low - range.start < left / 2 ? range.start : low - left / 2;
    if (start > range.end - left) start = range.end - left;
    return (Range){start, start + left};
}

/* ---- hits ------------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint64_t *codes;
    const Place *places;
    const uint32_t *offsets;
    const uint32_t *groups;
    int32_t bits;
    uint32_t wanted; /* a group, or DEAD for all of them */
} Looked;

typedef struct {
    const int32_t *logs, *chance; /* chance: 256 ln P(distance <= d) of an entry that is compared */
    int32_t ln_rate;              /* 256 ln(pictures of the segment) - 256 ln(features of the query) */
    int32_t ln_among;             /* likewise, with the pictures of the group */
    int32_t gain, limit;
} Weighing;

/* Those of living pictures of the group, with the weight that their distance and their number leave them. */
static int64_t weighed(const Looked *in, const Weighing *by, const Near *near, int64_t count, int64_t compared, int feature, Hit *out) {
    int32_t at[DISTANCES] = {0};
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        Place place = in->places[near[i].entry];
        uint32_t group = in->groups[place.picture];
        if (group == DEAD || (in->wanted != DEAD && group != in->wanted)) continue;
        out[kept++] = (Hit){place, 0, (uint16_t)feature, near[i].distance, near[i].flipped};
        at[near[i].distance]++;
    }
    if (!kept) return 0;
    int32_t weights[DISTANCES], before = 0, rate = by->ln_rate - log_of(by->logs, compared);
    for (int d = 0; d <= by->limit; d++) {
        before += at[d];
        int32_t expected = rate - by->chance[d];
        int32_t seen = before > 1 ? by->ln_among - log_of(by->logs, before - 1) : expected;
        int32_t weight = seen < expected ? seen : expected, least = expected > 0 ? expected / SHARE : expected;
        weights[d] = weight > least ? weight : least;
    }
    int64_t used = 0;
    for (int64_t i = 0; i < kept; i++) {
        out[i].weight = weights[out[i].distance];
        if (out[i].weight + by->gain > 0) out[used++] = out[i];
    }
    return used;
}

enum { PROBES_MAX = 256, AHEAD = 4 };

/* Hits of all features of a query. `hits` has room for n x budget. Returns how many, -1 without memory. */
int64_t filigrane_scan(const Looked *in, const Weighing *by, const uint64_t *codes, const int32_t *margins, int64_t n, const uint8_t *templates,
                       int32_t probes, int32_t budget, Hit *hits) {
    static _Thread_local uint64_t sought[AHEAD][PROBES_MAX];
    static _Thread_local Range ranges[AHEAD][PROBES_MAX];
    int counts[AHEAD] = {0};
    Near *near = malloc(sizeof(Near) * ((size_t)budget + 1));
    if (!near) return -1;
    Nearer find = nearer();
    int64_t total = 0;
    for (int64_t step = 0; step < n + AHEAD - 1; step++) {
        /* three features under way: memory answers while others are worked on */
        int64_t first = step, second = step - 1, third = step - AHEAD + 1;
        if (first < n) {
            int slot = (int)(first % AHEAD);
            counts[slot] = looked_up(codes[first], margins + MARGINS * first, in->bits, templates, probes, sought[slot]);
            for (int p = 0; p < counts[slot]; p++) __builtin_prefetch(in->offsets + cell_of(sought[slot][p], in->bits));
        }
        if (second >= 0 && second < n) {
            int slot = (int)(second % AHEAD);
            for (int p = 0; p < counts[slot]; p++) {
                uint64_t cell = cell_of(sought[slot][p], in->bits);
                ranges[slot][p] = (Range){in->offsets[cell], in->offsets[cell + 1]};
                __builtin_prefetch(in->codes + ranges[slot][p].start);
            }
        }
        if (third < 0) continue;
        int slot = (int)(third % AHEAD);
        uint32_t left = (uint32_t)budget;
        int64_t count = 0;
        for (int p = 0; p < counts[slot] && left; p++) {
            Range range = narrowed(in->codes, ranges[slot][p], sought[slot][p], left);
            left -= range.end - range.start;
            int64_t more = find(in->codes, range.start, range.end, codes[third], by->limit, near + count);
            for (int64_t i = count; i < count + more; i++) __builtin_prefetch(in->places + near[i].entry);
            count += more;
        }
        total += weighed(in, by, near, count, (int64_t)budget - left, (int)third, hits + total);
    }
    free(near);
    return total;
}

/* ---- votes ------------------------------------------------------------------------------------------------------------------------ */

typedef struct {
    const int32_t *logs;
    const double *cosine, *sine, *zoom; /* 256 each: of angles in 1/256 turns, of 2^((i - 128) / 16) */
    int32_t gain, ln_pictures, least;
} Tally;

typedef struct {
    int x, y, turn, zoom; /* of the query's feature; turn and zoom: how far it is turned and how much larger */
    int rx, ry;
    int32_t weight;
    int feature;
} Pair;

static Pair pair_of(const Hit *hit, const Place *query) {
    Place q = query[hit->feature], r = hit->place;
    int angle = hit->flipped ? ANGLES / 2 - q.angle : q.angle;
    return (Pair){hit->flipped ? -(int)q.x : q.x,
                  q.y,
                  (angle - r.angle) & (ANGLES - 1),
                  (int)q.size - r.size,
                  r.x,
                  r.y,
                  hit->weight,
                  hit->feature};
}

/* Whether both may come from one similarity transform, and are not one point twice. */
static int agree(const Tally *by, const Pair *a, const Pair *b) {
    int turn = (a->turn - b->turn) & (ANGLES - 1);
    if ((turn > TURN && turn < ANGLES - TURN) || abs(a->zoom - b->zoom) > ZOOM) return 0;
    int x = b->x - a->x, y = b->y - a->y, rx = b->rx - a->rx, ry = b->ry - a->ry;
    if (abs(x) <= SAME && abs(y) <= SAME && abs(rx) <= SAME && abs(ry) <= SAME) return 0;
    int zoom = a->zoom + 128;
    double scale = by->zoom[zoom < 0 ? 0 : zoom > 255 ? 255 : zoom];
    double c = by->cosine[a->turn] * scale, s = by->sine[a->turn] * scale;
    double ex = c * rx - s * ry - x, ey = s * rx + c * ry - y;
    double slack = 36.0 + 0.09 * (double)(x * x + y * y);
    return ex * ex + ey * ey <= slack;
}

/* What speaks for the first pair's transform: of each feature the best hit that agrees. */
static int32_t supported(const Tally *by, const Pair *pairs, int count, int at, int *support) {
    int32_t sum = 0, best = 0;
    int agreeing = 0;
    for (int i = 0; i < count; i++) {
        if (pairs[i].feature != pairs[at].feature && agree(by, pairs + at, pairs + i)) {
            int32_t worth = pairs[i].weight + by->gain;
            if (worth > best) best = worth;
        }
        if (best && (i + 1 == count || pairs[i + 1].feature != pairs[i].feature)) {
            sum += best + log_of(by->logs, ++agreeing + 1);
            best = 0;
        }
    }
    *support = agreeing + 1;
    return sum + pairs[at].weight - by->ln_pictures;
}

static Vote best_of(const Tally *by, const Pair *pairs, int count, uint32_t picture, int flipped) {
    Vote vote = {picture, INT32_MIN, 0, (uint8_t)flipped, 0};
    uint8_t tried[MOST] = {0};
    for (int turn = 0; turn < HYPOTHESES && turn < count; turn++) {
        int at = -1, support;
        for (int i = 0; i < count; i++)
            if (!tried[i] && (at < 0 || pairs[i].weight > pairs[at].weight)) at = i;
        tried[at] = 1;
        int32_t score = supported(by, pairs, count, at, &support);
        if (score > vote.score) {
            vote.score = score;
            vote.support = (uint16_t)support;
        }
    }
    return vote;
}

/* The votes of one picture's hits, which are linked by `next`. */
static Vote voted(const Tally *by, const Hit *hits, const uint32_t *next, uint32_t first, const Place *query) {
    Vote best = {hits[first].place.picture, INT32_MIN, 0, 0, 0};
    for (int flipped = 0; flipped < 2; flipped++) {
        Pair pairs[MOST];
        int count = 0;
        int64_t hope = -(int64_t)by->ln_pictures;
        for (uint32_t i = first; i != NOWHERE && count < MOST; i = next[i]) {
            if (hits[i].flipped != flipped) continue;
            pairs[count++] = pair_of(hits + i, query);
            hope += hits[i].weight + by->gain + log_of(by->logs, count);
        }
        if (count < 2 || hope < by->least) continue;
        Vote vote = best_of(by, pairs, count, best.picture, flipped);
        if (vote.support > 1 && vote.score > best.score) best = vote;
    }
    return best;
}

static uint32_t slot_of(uint32_t picture, uint32_t mask) { return (uint32_t)((picture * 0x9E3779B97F4A7C15ull) >> 32) & mask; }

/* Votes of at least `by->least`, in the order of each picture's first hit. `votes` has room for count / 2. Returns how many, -1 without memory. */
int64_t filigrane_tally(const Tally *by, const Hit *hits, int64_t count, const Place *query, Vote *votes) {
    uint32_t size = 64;
    while (size < 2 * (uint64_t)count) size *= 2;
    uint32_t *table = malloc(sizeof(uint32_t) * (2 * (size_t)size + 2 * (size_t)count + 1));
    if (!table) return -1;
    uint32_t *first = table, *last = table + size, *next = last + size, *order = next + count;
    memset(first, 0xFF, sizeof(uint32_t) * size);
    int64_t found = 0, used = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t at = slot_of(hits[i].place.picture, size - 1);
        while (first[at] != NOWHERE && hits[first[at]].place.picture != hits[i].place.picture) at = (at + 1) & (size - 1);
        next[i] = NOWHERE;
        if (first[at] == NOWHERE) {
            first[at] = (uint32_t)i;
            order[found++] = (uint32_t)i;
        } else {
            next[last[at]] = (uint32_t)i;
        }
        last[at] = (uint32_t)i;
    }
    for (int64_t i = 0; i < found; i++) {
        if (next[order[i]] == NOWHERE) continue;
        Vote vote = voted(by, hits, next, order[i], query);
        if (vote.support > 1 && vote.score >= by->least) votes[used++] = vote;
    }
    free(table);
    return used;
}

/* ---- merging ---------------------------------------------------------------------------------------------------------------------- */

/* Two sorted files as one; `numbers`: each picture's new number, DEAD where it is left out. Equal codes: the first file's come first. */
int64_t filigrane_merge(const uint64_t *codes_a, const Place *places_a, int64_t n_a, const uint32_t *numbers_a, const uint64_t *codes_b,
                        const Place *places_b, int64_t n_b, const uint32_t *numbers_b, uint64_t *codes, Place *places) {
    int64_t a = 0, b = 0, count = 0;
    while (a < n_a || b < n_b) {
        int from_a = b == n_b || (a < n_a && codes_a[a] <= codes_b[b]);
        uint64_t code = from_a ? codes_a[a] : codes_b[b];
        Place place = from_a ? places_a[a++] : places_b[b++];
        place.picture = (from_a ? numbers_a : numbers_b)[place.picture];
        if (place.picture == DEAD) continue;
        codes[count] = code;
        places[count++] = place;
    }
    return count;
}

/* Where each cell begins: 2^bits + 1 offsets. */
void filigrane_offsets(const uint64_t *codes, int64_t n, int32_t bits, uint32_t *offsets) {
    uint64_t cells = 1ull << bits, cell = 0;
    for (int64_t i = 0; i < n; i++)
        for (uint64_t mine = cell_of(codes[i], bits); cell <= mine; cell++) offsets[cell] = (uint32_t)i;
    for (; cell <= cells; cell++) offsets[cell] = (uint32_t)n;
}
