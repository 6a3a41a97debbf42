/* What SIMD depthwise kernels share. */
#ifndef EK_DW_H
#define EK_DW_H
#include "kernels.h"

/* Where each tap lies relative to its pixel, in order; from the last one up to a multiple of 4 the first is repeated.
 * Returns their number, 0 where they are more than `max` (a multiple of 4). */
static inline uint32_t ek_dw_taps(const ek_dw *d, ptrdiff_t *at, uint32_t max)
{
    uint64_t taps = (uint64_t)d->kh * d->kw;
    uint32_t n = 0;
    if (taps > max)
        return 0;
    for (uint32_t i = 0; i < d->kh; i++)
        for (uint32_t j = 0; j < d->kw; j++)
            at[n++] = (ptrdiff_t)i * d->dy + (ptrdiff_t)j * d->dx;
    for (uint32_t i = n; i % 4; i++)
        at[i] = 0;
    return n;
}
#endif
