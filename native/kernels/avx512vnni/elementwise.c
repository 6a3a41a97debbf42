/* Elementwise kernels with AVX-512. */
#if defined(__x86_64__)
#include "avx512.h"

#define EK_VB 64
#define EK_V EK_AVX512
#define EK_VISA EK_ISA_AVX512VNNI
typedef float vf __attribute__((vector_size(EK_VB)));
typedef int32_t vi __attribute__((vector_size(EK_VB)));

EK_INLINE EK_V void ek_widen(const int8_t *p, vi out[4])
{
    EK_UNROLL for (int i = 0; i < 4; i++)
        out[i] = (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i)));
}

EK_INLINE EK_V void ek_narrow(const vi in[4], int8_t *p)
{
    EK_UNROLL for (int i = 0; i < 4; i++)
        _mm_storeu_si128((__m128i *)(void *)(p + 16 * i), _mm512_cvtepi32_epi8((__m512i)in[i]));
}

EK_INLINE EK_V vf ek_vsqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }

#include "../elementwise.h"

/* The table as 128 words: bits 1-5 of an index choose one of 32, bit 6 of two, bit 7 of the halves, bit 0 its byte. */
EK_INLINE EK_V __m512i look_up(__m512i byte, const __m512i t[4])
{
    __m512i word = _mm512_srli_epi16(byte, 1);
    __m512i lo = _mm512_permutex2var_epi16(t[0], word, t[1]), hi = _mm512_permutex2var_epi16(t[2], word, t[3]);
    __mmask32 upper = _mm512_test_epi16_mask(byte, _mm512_set1_epi16(0x80));
    __m512i shift = _mm512_slli_epi16(_mm512_and_si512(byte, _mm512_set1_epi16(1)), 3);
    return _mm512_and_si512(_mm512_srlv_epi16(_mm512_mask_mov_epi16(lo, upper, hi), shift), _mm512_set1_epi16(0xff));
}

static EK_V void lut_s8(const int8_t *x, const int8_t *table, int8_t *y, size_t n)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), low = _mm512_set1_epi16(0xff);
    __m512i t[4];
    EK_UNROLL for (int i = 0; i < 4; i++)
        t[i] = _mm512_loadu_si512(table + 64 * i);
    for (size_t i = 0; i < n; i += 64) {
        __mmask64 m = n - i < 64 ? ((__mmask64)1 << (n - i)) - 1 : ~(__mmask64)0;
        __m512i v = _mm512_xor_si512(_mm512_maskz_loadu_epi8(m, x + i), flip);
        __m512i even = look_up(_mm512_and_si512(v, low), t), odd = look_up(_mm512_srli_epi16(v, 8), t);
        _mm512_mask_storeu_epi8(y + i, m, _mm512_or_si512(even, _mm512_slli_epi16(odd, 8)));
    }
}

void ek_elementwise_avx512vnni(ek_kernels *k)
{
    set_elementwise(k);
    EK_SET(k, lut_s8, LUT_S8, lut_s8, EK_VISA);
}
#else
typedef int ek_no_elementwise_avx512vnni; /* a translation unit must not be empty */
#endif
