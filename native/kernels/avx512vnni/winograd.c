/* Winograd's transforms with AVX-512. */
#if defined(__x86_64__)
#include "avx512.h"

#define EK_VB 64
#define EK_V EK_AVX512
typedef float vf __attribute__((vector_size(EK_VB)));

EK_INLINE EK_V vf ek_vclamp(vf v, float lo, float hi) { return (vf)ek_clamp512((__m512)v, lo, hi); }

#include "../winograd.h"

void ek_winograd_avx512vnni(ek_kernels *k)
{
    k->wino_in = wino_in;
    k->wino_out = wino_out;
    k->wino_lanes = LANES;
}
#else
typedef int ek_no_winograd_avx512vnni; /* a translation unit must not be empty */
#endif
