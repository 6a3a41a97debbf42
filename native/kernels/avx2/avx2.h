/* Steps shared by the AVX2 kernels: clamp, requantize, stores of a part. */
#ifndef EK_AVX2_H
#define EK_AVX2_H
#include <immintrin.h>
#include "kernels.h"
#include "simd.h"

void ek_dw_avx2(ek_kernels *k);
void ek_elementwise_avx2(ek_kernels *k);
void ek_winograd_avx2(ek_kernels *k);
void ek_wide_avx2(ek_kernels *k);

#define EK_AVX2 __attribute__((target("avx2,fma")))
/* a vector that has been rounded to float32: hides it from contraction */
#define EK_ROUND256(x) __asm__("" : "+x"(x))

/* MAXPS and MINPS give their second operand for NaN: the comparisons of ek_clamp_f32 */
EK_INLINE EK_AVX2 __m256 ek_clamp256(__m256 v, float lo, float hi)
{
    return _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(lo)), _mm256_set1_ps(hi));
}

EK_INLINE EK_AVX2 __m256i ek_requant256(__m256i acc, const float *scale, float lo, float hi)
{
    __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), _mm256_loadu_ps(scale));
    return _mm256_cvtps_epi32(ek_clamp256(v, lo, hi));
}

/* accumulators of 16 outputs -> int8 */
EK_INLINE EK_AVX2 __m128i ek_requant256_s8(__m256i a, __m256i b, const float *scale, float lo, float hi, int32_t zero)
{
    const __m256i z = _mm256_set1_epi32(zero);
    a = _mm256_add_epi32(ek_requant256(a, scale, lo, hi), z);
    b = _mm256_add_epi32(ek_requant256(b, scale + 8, lo, hi), z);
    __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    return _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}

/* the first min(n, 16) bytes */
EK_INLINE EK_AVX2 void ek_store16_avx2(int8_t *y, __m128i v, uint32_t n)
{
    if (n >= 16) {
        _mm_storeu_si128((__m128i *)(void *)y, v);
    } else {
        int8_t part[16];
        _mm_storeu_si128((__m128i *)(void *)part, v);
        memcpy(y, part, n);
    }
}

EK_INLINE EK_AVX2 __m256i ek_mask256(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)(n < 8 ? n : 8)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* the first min(n, 8) floats, n may be 0 */
EK_INLINE EK_AVX2 void ek_store8_avx2(float *y, __m256 v, uint32_t n)
{
    if (n >= 8)
        _mm256_storeu_ps(y, v);
    else
        _mm256_maskstore_ps(y, ek_mask256(n), v);
}
#endif
