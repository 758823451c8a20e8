/* Codes of descriptors: integer projections of their symmetric and antisymmetric parts. The same integers as in codes.py, bit for bit. */
#include "native.h"

enum { HALF = 64, BITS = 32 };

INLINE int32_t dot(const int16_t *restrict a, const int16_t *restrict b) {
    int32_t sum = 0;
    for (int i = 0; i < HALF; i++) sum += (int32_t)a[i] * b[i];
    return sum;
}

/* `pairs`: 64 x 2 positions that mirroring swaps; `symmetric`, `antisymmetric`: 32 x 64; `centre`: 32; out: n codes, n x 32 margins. */
CLONED
void filigrane_encode(const uint8_t *descriptors, int64_t n, const uint8_t *pairs, const int16_t *symmetric, const int16_t *antisymmetric,
                      const int32_t *centre, uint64_t *codes, int32_t *margins) {
    for (int64_t row = 0; row < n; row++) {
        const uint8_t *d = descriptors + 2 * HALF * row;
        int16_t sum[HALF], difference[HALF];
        for (int i = 0; i < HALF; i++) {
            int16_t a = d[pairs[2 * i]], b = d[pairs[2 * i + 1]];
            sum[i] = (int16_t)(a + b);
            difference[i] = (int16_t)(a - b);
        }
        uint64_t code = 0;
        for (int bit = 0; bit < BITS; bit++) {
            int32_t value = dot(sum, symmetric + HALF * bit) - centre[bit];
            margins[BITS * row + bit] = value < 0 ? -value : value;
            code |= (uint64_t)(value > 0) << (63 - bit);
            code |= (uint64_t)(dot(difference, antisymmetric + HALF * bit) > 0) << (31 - bit);
        }
        codes[row] = code;
    }
}
