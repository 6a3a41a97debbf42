/* What max and average pooling share: which taps of a window exist. */
#ifndef EK_POOL_H
#define EK_POOL_H
#include "gemm.h"

typedef struct ek_taps { uint32_t first, end; } ek_taps; /* tap indices [first, end) */

/* Taps i of `kernel` whose place origin + i * dilation lies in [low, high), which ek_window_ok keeps small. */
static inline ek_taps ek_taps_in(int32_t origin, int32_t low, int32_t high, uint32_t kernel, uint32_t dilation)
{
    uint32_t first = origin < low ? ((uint32_t)(low - origin) - 1) / dilation + 1 : 0;
    uint32_t end = origin < high ? ((uint32_t)(high - origin) - 1) / dilation + 1 : 0;
    end = ek_min_u32(end, kernel);
    return (ek_taps){ ek_min_u32(first, end), end };
}
#endif
