/* Elementwise kernels with AVX2. */
#if defined(__x86_64__)
#include "avx2.h"

#define EK_VB 32
#define EK_V EK_AVX2
#define EK_VISA EK_ISA_AVX2
typedef float vf __attribute__((vector_size(EK_VB)));
typedef int32_t vi __attribute__((vector_size(EK_VB)));

EK_INLINE EK_V void ek_widen(const int8_t *p, vi out[4])
{
    EK_UNROLL for (int i = 0; i < 4; i++)
        out[i] = (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p + 8 * i)));
}

EK_INLINE EK_V void ek_narrow(const vi in[4], int8_t *p)
{
    __m256i a = _mm256_packs_epi32((__m256i)in[0], (__m256i)in[1]), b = _mm256_packs_epi32((__m256i)in[2], (__m256i)in[3]);
    __m256i v = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)p, v);
}

EK_INLINE EK_V vf ek_vsqrt(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }

#define EK_VROUND(x) EK_ROUND256(x)
#include "../elementwise.h"

/* One half of a table, 8 rows of 16.  VPSHUFB gives 0 for negative indices, so the rows up to an index's own all
 * contribute: t holds each row xor the one before it, and only the own row is left. */
EK_INLINE EK_V __m256i look_up(__m256i x, const __m256i t[8])
{
    const __m256i row = _mm256_set1_epi8(16);
    __m256i y = _mm256_shuffle_epi8(t[0], x);
    EK_UNROLL for (int i = 1; i < 8; i++) {
        x = _mm256_subs_epi8(x, row);
        y = _mm256_xor_si256(y, _mm256_shuffle_epi8(t[i], x));
    }
    return y;
}

EK_INLINE EK_V void load_half(const int8_t *table, __m256i t[8])
{
    __m256i last = _mm256_setzero_si256();
    for (int i = 0; i < 8; i++) {
        __m256i row = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(table + 16 * i)));
        t[i] = _mm256_xor_si256(row, last);
        last = row;
    }
}

static EK_V void lut_s8(const int8_t *x, const int8_t *table, int8_t *y, size_t n)
{
    const __m256i flip = _mm256_set1_epi8((char)0x80);
    __m256i neg[8], pos[8];
    load_half(table, neg);
    load_half(table + 128, pos);
    for (; n >= 32; n -= 32, x += 32, y += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)x);
        v = _mm256_xor_si256(look_up(v, pos), look_up(_mm256_xor_si256(v, flip), neg));
        _mm256_storeu_si256((__m256i *)(void *)y, v);
    }
    for (size_t i = 0; i < n; i++)
        y[i] = table[x[i] + 128];
}

void ek_elementwise_avx2(ek_kernels *k)
{
    set_elementwise(k);
    EK_SET(k, lut_s8, LUT_S8, lut_s8, EK_VISA);
}
#else
typedef int ek_no_elementwise_avx2; /* a translation unit must not be empty */
#endif
