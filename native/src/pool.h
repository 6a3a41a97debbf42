/* What max and average pooling share: which taps of a window exist. */
#ifndef EK_POOL_H
#define EK_POOL_H
#include "gemm.h"

typedef struct ek_taps { uint32_t first, end; } ek_taps; /* tap indices [first, end) */

/* Taps i of `kernel` whose place origin + i * dilation lies in [low, high). */
static inline ek_taps ek_taps_in(int64_t origin, int64_t low, int64_t high, uint32_t kernel, uint32_t dilation)
{
    ek_taps t;
    int64_t first = origin >= low ? 0 : (int64_t)ek_div_u64((uint64_t)(low - origin) + dilation - 1, dilation);
    int64_t end = origin >= high ? 0 : (int64_t)ek_div_u64((uint64_t)(high - origin) + dilation - 1, dilation);
    t.end = end < kernel ? (uint32_t)end : kernel;
    t.first = first < t.end ? (uint32_t)first : t.end;
    return t;
}
#endif
