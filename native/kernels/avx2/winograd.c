/* Winograd's transforms with AVX2. */
#if defined(__x86_64__)
#include "avx2.h"

#define EK_VB 32
#define EK_V EK_AVX2
typedef float vf __attribute__((vector_size(EK_VB)));

EK_INLINE EK_V vf ek_vclamp(vf v, float lo, float hi) { return (vf)ek_clamp256((__m256)v, lo, hi); }

#include "../winograd.h"

void ek_winograd_avx2(ek_kernels *k)
{
    k->wino_in = wino_in;
    k->wino_out = wino_out;
    k->wino_lanes = LANES;
}
#else
typedef int ek_no_winograd_avx2; /* a translation unit must not be empty */
#endif
