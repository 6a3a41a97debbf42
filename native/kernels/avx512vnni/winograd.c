/* Winograd's transforms with AVX-512.  A last vector of at most 8 channels is a half, which costs half as much where 512 bits
 * are two halves to the core; the last one reaches back over channels that are done already. */
#if defined(__x86_64__)
#include "avx512.h"

#define EK_V EK_AVX512
enum { WIDE = 16, HALF = 8 };
typedef float wide_vec __attribute__((vector_size(64)));
typedef float half_vec __attribute__((vector_size(32)));

EK_INLINE EK_V wide_vec wide_clamp(wide_vec v, float lo, float hi) { return (wide_vec)ek_clamp512((__m512)v, lo, hi); }
EK_INLINE EK_V half_vec half_clamp(half_vec v, float lo, float hi) { return (half_vec)ek_clamp_half((__m256)v, lo, hi); }

#define EK_VB 64
#define EK_WINO(name) wide_##name
#include "../winograd.h"
#define EK_VB 32
#define EK_WINO(name) half_##name
#include "../winograd.h"

EK_INLINE int is_wide(uint32_t c, uint32_t channels) { return channels >= WIDE && channels - c > HALF; }
EK_INLINE uint32_t place(uint32_t c, uint32_t channels, uint32_t lanes) { return channels - c < lanes ? channels - lanes : c; }

static EK_V void wino_in(const float *const px[36], float *v, size_t plane, uint32_t channels)
{
    for (uint32_t c = 0; c < channels;)
        if (is_wide(c, channels))
            wide_in(px, v, plane, place(c, channels, WIDE)), c += WIDE;
        else
            half_in(px, v, plane, place(c, channels, HALF)), c += HALF;
}

static EK_V void wino_out(const float *m, size_t plane, const float *bias, const ek_wino_out *o, float *y, uint32_t channels)
{
    for (uint32_t c = 0; c < channels;)
        if (is_wide(c, channels))
            wide_out(m, plane, bias, o, y, place(c, channels, WIDE)), c += WIDE;
        else
            half_out(m, plane, bias, o, y, place(c, channels, HALF)), c += HALF;
}

void ek_winograd_avx512vnni(ek_kernels *k)
{
    k->wino_in = wino_in;
    k->wino_out = wino_out;
    k->wino_lanes = HALF;
}
#else
typedef int ek_no_winograd_avx512vnni; /* a translation unit must not be empty */
#endif
