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

/* four vectors of 16 or two of 32 were made by unpacking within 128-bit lanes: their bytes in order */
EK_INLINE EK_V __m512i in_order(__m512i v)
{
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), v);
}

EK_INLINE EK_V __m512i half_of(const int8_t *p, int i)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(p + 32 * i)));
}

/* without its float bound; bounds lie within int8 */
EK_INLINE EK_V ek_finish512 narrow_of(int32_t lo, int32_t zero)
{
    return (ek_finish512){ .lo = _mm512_set1_epi8((char)(lo + zero)), .zero = _mm512_set1_epi16((int16_t)zero) };
}

/* Multipliers of 22 bits in two parts: pairs of bytes by the low 8 bits, and moved up by 8 as int16 by the rest. */
EK_INLINE EK_V void add_chunk(const int8_t *a, const int8_t *b, int8_t *y, const ek_add_s8 *p)
{
    const __m512i low = _mm512_set1_epi32((p->ma & 255) << 8 | (int32_t)((uint32_t)(p->mb & 255) << 24));
    const __m512i high = _mm512_set1_epi32((int32_t)(((uint32_t)(p->ma >> 8) & 0xffff) | (uint32_t)(p->mb >> 8) << 16));
    const __m512i bias = _mm512_set1_epi32(p->bias), none = _mm512_setzero_si512();
    const __m128i shift = _mm_cvtsi32_si128((int)p->shift);
    const ek_finish512 f = narrow_of(p->lo, p->zero);
    __m512i x = _mm512_loadu_si512(a), z = _mm512_loadu_si512(b), v[4];
    __m512i lo = _mm512_unpacklo_epi8(x, z), hi = _mm512_unpackhi_epi8(x, z);
    v[0] = _mm512_unpacklo_epi8(none, lo);
    v[1] = _mm512_unpackhi_epi8(none, lo);
    v[2] = _mm512_unpacklo_epi8(none, hi);
    v[3] = _mm512_unpackhi_epi8(none, hi);
    EK_UNROLL for (int j = 0; j < 4; j++)
        v[j] = _mm512_sra_epi32(_mm512_dpwssd_epi32(_mm512_dpbusd_epi32(bias, low, v[j]), v[j], high), shift);
    __m512i r = ek_narrow512(&f, v[0], v[1], v[2], v[3]);
    _mm512_storeu_si512(y, _mm512_min_epi8(r, _mm512_set1_epi8((char)(p->hi + p->zero))));
}

EK_INLINE EK_V void mul_chunk(const int8_t *a, const int8_t *b, int8_t *y, const ek_mul_s8 *p)
{
    const __m512i za = _mm512_set1_epi16((int16_t)p->a_zero), zb = _mm512_set1_epi16((int16_t)p->b_zero);
    const __m512 scale = _mm512_set1_ps(p->scale);
    const ek_finish512 f = ek_finish512_of(p->lo, p->hi, p->zero);
    __m512i v[4];
    EK_UNROLL for (int i = 0; i < 2; i++) {
        __m512i x = _mm512_sub_epi16(half_of(a, i), za), z = _mm512_sub_epi16(half_of(b, i), zb);
        __m512i lo = _mm512_mullo_epi16(x, z), hi = _mm512_mulhi_epi16(x, z);
        v[2 * i] = ek_scaled512(&f, _mm512_unpacklo_epi16(lo, hi), scale);
        v[2 * i + 1] = ek_scaled512(&f, _mm512_unpackhi_epi16(lo, hi), scale);
    }
    _mm512_storeu_si512(y, in_order(ek_narrow512(&f, v[0], v[1], v[2], v[3])));
}

/* a * by + plus are the products, below 2^16: times the scale they stay within 32 bits */
EK_INLINE EK_V void row_chunk(const int8_t *a, const float *by, const float *plus, int8_t *y, const ek_mul_s8 *p)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512 scale = _mm512_set1_ps(p->scale);
    const ek_finish512 f = narrow_of((int32_t)p->lo, p->zero);
    vi u[4];
    __m512i v[4];
    ek_widen(a, u);
    EK_UNROLL for (int j = 0; j < 4; j++) {
        __m512 t = _mm512_fmadd_ps(_mm512_cvtepi32_ps((__m512i)u[j]), _mm512_loadu_ps(by + 16 * j), _mm512_loadu_ps(plus + 16 * j));
        v[j] = _mm512_cvt_roundps_epi32(_mm512_mul_ps(t, scale), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    __m512i r = _mm512_min_epi8(ek_narrow512(&f, v[0], v[1], v[2], v[3]), _mm512_set1_epi8((char)((int)p->hi + p->zero)));
    _mm512_storeu_si512(y, _mm512_permutexvar_epi32(order, r));
}

/* 32 channels in int16, which hold 255 rows */
static EK_V void sum_rows_s8(int32_t *acc, const int8_t *x, size_t n, size_t rows, size_t step)
{
    for (size_t c = 0; c < n; c += 32) {
        uint32_t left = n - c < 32 ? (uint32_t)(n - c) : 32;
        __mmask32 m = left < 32 ? ((__mmask32)1 << left) - 1 : ~(__mmask32)0;
        const int8_t *p = x + c;
        __mmask16 low = (__mmask16)m, high = (__mmask16)(m >> 16);
        __m512i a = _mm512_maskz_loadu_epi32(low, acc + c), b = _mm512_maskz_loadu_epi32(high, acc + c + 16);
        for (size_t r = rows, now; r; r -= now) {
            __m512i s[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };
            now = r < 255 ? r : 255;
            for (size_t i = 0; i < now; i++, p += step)
                s[i & 1] = _mm512_add_epi16(s[i & 1], _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(m, p)));
            s[0] = _mm512_add_epi16(s[0], s[1]);
            a = _mm512_add_epi32(a, _mm512_cvtepi16_epi32(_mm512_castsi512_si256(s[0])));
            b = _mm512_add_epi32(b, _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(s[0], 1)));
        }
        _mm512_mask_storeu_epi32(acc + c, low, a);
        _mm512_mask_storeu_epi32(acc + c + 16, high, b);
    }
}

#define EK_SUM64
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
    k->sum_rows_s8 = sum_rows_s8;
    EK_SET(k, softmax_s8, SOFTMAX_S8, softmax_s8, EK_VISA);
    EK_SET(k, lut_s8, LUT_S8, lut_s8, EK_VISA);
}
#else
typedef int ek_no_elementwise_avx512vnni; /* a translation unit must not be empty */
#endif
