/* Winograd's transforms with AVX2.  The last vector reaches back over channels that are done already. */
#if defined(__x86_64__)
#include "avx2.h"

#define EK_V EK_AVX2
enum { LANES = 8 };
#define EK_VB 32
#define EK_WINO(name) name
typedef float vec __attribute__((vector_size(EK_VB)));

EK_INLINE EK_V vec clamp(vec v, float lo, float hi) { return (vec)ek_clamp256((__m256)v, lo, hi); }

#include "../winograd.h"

static EK_V void wino_in(const float *const px[36], float *v, size_t plane, uint32_t channels)
{
    for (uint32_t c = 0; c < channels; c += LANES)
        in(px, v, plane, channels - c < LANES ? channels - LANES : c);
}

static EK_V void wino_out(const float *m, size_t plane, const float *bias, const ek_wino_out *o, float *y, uint32_t channels)
{
    for (uint32_t c = 0; c < channels; c += LANES)
        out(m, plane, bias, o, y, channels - c < LANES ? channels - LANES : c);
}

void ek_winograd_avx2(ek_kernels *k)
{
    k->wino_in = wino_in;
    k->wino_out = wino_out;
    k->wino_lanes = LANES;
}
#else
typedef int ek_no_winograd_avx2; /* a translation unit must not be empty */
#endif
