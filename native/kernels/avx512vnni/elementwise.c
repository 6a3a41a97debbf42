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

#define EK_VROUND(x) EK_ROUND512(x)
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

/* sixteen exponentials -> int8, as row_s8 in ops/softmax.c; inv fits 32 bits */
EK_INLINE EK_V __m128i probabilities(__m512i t, __m512i inv, __m512 scale, const ek_requant512 *q)
{
    const __m512i half = _mm512_set1_epi64(1 << 15);
    __m512i even = _mm512_srli_epi64(_mm512_add_epi64(_mm512_mul_epu32(t, inv), half), 16);
    __m512i odd = _mm512_add_epi64(_mm512_mul_epu32(_mm512_srli_epi64(t, 32), inv), half);
    odd = _mm512_slli_epi64(_mm512_srli_epi64(odd, 16), 32);
    __m512i p = _mm512_min_epu32(_mm512_or_si512(even, odd), _mm512_set1_epi32(1 << 24));
    return ek_requant512_s8(p, scale, q);
}

static EK_V void softmax_s8(const int8_t *x, int8_t *y, const ek_softmax *p)
{
    enum { PART = 512 }; /* exponentials at a time */
    const __m512i least = _mm512_set1_epi8(-128);
    __m512i top = least;
    uint32_t n = p->n, sum[4] = { 0 }, t[PART], i;
    for (i = 0; i < n; i += 64) {
        __mmask64 m = n - i < 64 ? ((__mmask64)1 << (n - i)) - 1 : ~(__mmask64)0;
        top = _mm512_max_epi8(top, _mm512_mask_loadu_epi8(least, m, x + i));
    }
    __m256i half = _mm256_max_epi8(_mm512_castsi512_si256(top), _mm512_extracti64x4_epi64(top, 1));
    int8_t tops[32], most = -128;
    _mm256_storeu_si256((__m256i *)(void *)tops, half);
    for (i = 0; i < 32; i++)
        most = tops[i] > most ? tops[i] : most;
    for (i = 0; i + 4 <= n; i += 4)
        EK_UNROLL for (uint32_t j = 0; j < 4; j++)
            sum[j] += t[(i + j) % PART] = p->table[(uint8_t)(most - x[i + j])];
    for (; i < n; i++)
        sum[0] += t[i % PART] = p->table[(uint8_t)(most - x[i])];
    sum[0] += sum[1] + sum[2] + sum[3];
    uint64_t inv = ((uint64_t)1 << 40) / (sum[0] ? sum[0] : 1);
    const ek_requant512 q = ek_requant512_of((float)(-128 - p->zero), (float)(127 - p->zero), p->zero);
    for (uint32_t from = 0; from < n; from += PART) {
        uint32_t end = n - from < PART ? n : from + PART;
        if (n > PART)
            for (i = from; i < end; i++)
                t[i % PART] = p->table[(uint8_t)(most - x[i])];
        for (i = from; i < end; i += 16)
            ek_store16_s8(y + i, probabilities(_mm512_loadu_si512(t + i % PART), _mm512_set1_epi64((int64_t)inv),
                                               _mm512_set1_ps(p->scale), &q), end - i);
    }
}

void ek_elementwise_avx512vnni(ek_kernels *k)
{
    set_elementwise(k);
    EK_SET(k, softmax_s8, SOFTMAX_S8, softmax_s8, EK_VISA);
    EK_SET(k, lut_s8, LUT_S8, lut_s8, EK_VISA);
}
#else
typedef int ek_no_elementwise_avx512vnni; /* a translation unit must not be empty */
#endif
