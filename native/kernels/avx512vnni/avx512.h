/* Steps shared by the AVX-512 kernels: clamp, requantize, masked stores. */
#ifndef EK_AVX512_H
#define EK_AVX512_H
#include <immintrin.h>
#include "kernels.h"
#include "simd.h"

void ek_dw_avx512vnni(ek_kernels *k);
void ek_dw_f32_avx512vnni(ek_kernels *k);
void ek_elementwise_avx512vnni(ek_kernels *k);
void ek_winograd_avx512vnni(ek_kernels *k);
void ek_sparse_avx512vnni(ek_kernels *k);

#define EK_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,fma")))
/* a vector that has been rounded to float32: hides it from contraction */
#define EK_ROUND512(x) __asm__("" : "+v"(x))

typedef struct ek_requant512 {
    __m512 lo, hi;
    __m512i zero;
} ek_requant512;

EK_INLINE EK_AVX512 ek_requant512 ek_requant512_of(float lo, float hi, int32_t zero)
{
    return (ek_requant512){ _mm512_set1_ps(lo), _mm512_set1_ps(hi), _mm512_set1_epi32(zero) };
}

/* MAXPS and MINPS give their second operand for NaN: the comparisons of ek_clamp_f32 */
EK_INLINE EK_AVX512 __m512 ek_clamp512(__m512 v, float lo, float hi)
{
    return _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(lo)), _mm512_set1_ps(hi));
}

EK_INLINE EK_AVX512 __m256 ek_clamp_half(__m256 v, float lo, float hi)
{
    return _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(lo)), _mm256_set1_ps(hi));
}

EK_INLINE EK_AVX512 __m128i ek_requant512_s8(__m512i acc, __m512 scale, const ek_requant512 *q)
{
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
    v = _mm512_min_ps(_mm512_max_ps(v, q->lo), q->hi);
    __m512i i = _mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm512_cvtepi32_epi8(_mm512_add_epi32(i, q->zero));
}

/* What turns sums into int8.  Only the upper bound is taken in float, where it keeps large sums off the overflow of the
 * conversion; lower ones (and NaN) become INT32_MIN and saturate down to `lo`.  Bounds are whole: rounding first is the same. */
typedef struct ek_finish512 {
    __m512 hi;
    __m512i lo, zero; /* int8, int16 */
} ek_finish512;

EK_INLINE EK_AVX512 ek_finish512 ek_finish512_of(float lo, float hi, int32_t zero)
{
    lo += (float)zero;
    return (ek_finish512){ _mm512_set1_ps(hi), _mm512_set1_epi8((char)(lo < -128.0f ? -128 : lo > 127.0f ? 127 : (int)lo)),
                           _mm512_set1_epi16((int16_t)zero) };
}

EK_INLINE EK_AVX512 __m512i ek_scaled512(const ek_finish512 *f, __m512i acc, __m512 scale)
{
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
    return _mm512_cvt_roundps_epi32(_mm512_min_ps(f->hi, v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Four times 16 sums -> 64 int8: 128-bit lane i holds lane i of a, b, c, d in turn. */
EK_INLINE EK_AVX512 __m512i ek_narrow512(const ek_finish512 *f, __m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_adds_epi16(_mm512_packs_epi32(a, b), f->zero), cd = _mm512_adds_epi16(_mm512_packs_epi32(c, d), f->zero);
    return _mm512_max_epi8(_mm512_packs_epi16(ab, cd), f->lo);
}

/* the first min(n, 16) elements */
EK_INLINE EK_AVX512 void ek_store16_s8(int8_t *y, __m128i v, uint32_t n)
{
    if (n >= 16)
        _mm_storeu_si128((__m128i *)(void *)y, v);
    else if (n == 8) /* masked stores of bytes are slow */
        _mm_storel_epi64((__m128i *)(void *)y, v);
    else
        _mm_mask_storeu_epi8(y, (__mmask16)((1u << n) - 1), v);
}

EK_INLINE EK_AVX512 void ek_store16_f32(float *y, __m512 v, uint32_t n)
{
    if (n >= 16)
        _mm512_storeu_ps(y, v);
    else
        _mm512_mask_storeu_ps(y, (__mmask16)((1u << n) - 1), v);
}
#endif
