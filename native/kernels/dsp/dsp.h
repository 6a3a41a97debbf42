/* Armv7E-M instructions on pairs of int16, one a function: GCC 12 folds the rotation into SXTB16 only when told. */
#ifndef EK_DSP_H
#define EK_DSP_H
#include "kernels.h"
#include "qmath.h"
#include "simd.h"

#define EK_COLD __attribute__((cold)) /* around loops that are written in assembly: built for size */

void ek_dw_dsp(ek_kernels *k);
void ek_sparse_dsp(ek_kernels *k);

/* bytes 0 and 2, sign-extended to halfwords */
EK_INLINE uint32_t ek_even(uint32_t x)
{
    uint32_t y;
    __asm__("sxtb16 %0, %1" : "=r"(y) : "r"(x));
    return y;
}

/* bytes 1 and 3 */
EK_INLINE uint32_t ek_odd(uint32_t x)
{
    uint32_t y;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(y) : "r"(x));
    return y;
}

/* acc + x.lo * y.lo + x.hi * y.hi */
EK_INLINE int32_t ek_smlad(uint32_t x, uint32_t y, int32_t acc)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(acc) : "r"(x), "r"(y));
    return acc;
}

/* acc + x.lo * y.lo */
EK_INLINE int32_t ek_smlabb(uint32_t x, uint32_t y, int32_t acc)
{
    __asm__("smlabb %0, %1, %2, %0" : "+r"(acc) : "r"(x), "r"(y));
    return acc;
}

/* acc + x.hi * y.hi */
EK_INLINE int32_t ek_smlatt(uint32_t x, uint32_t y, int32_t acc)
{
    __asm__("smlatt %0, %1, %2, %0" : "+r"(acc) : "r"(x), "r"(y));
    return acc;
}

/* acc + x * y.  By instruction: clang calls fmaf for the builtin, GCC in ISO mode does not contract. */
EK_INLINE float ek_fma_dsp(float x, float y, float acc)
{
#if defined(__ARM_FEATURE_FMA)
    __asm__("vfma.f32 %0, %1, %2" : "+t"(acc) : "t"(x), "t"(y));
    return acc;
#else
    return acc + x * y;
#endif
}

typedef struct ek_requant_dsp {
    float lo, hi;             /* relative to zero */
    int32_t low, high, zero;  /* the same bounds with zero added */
    int narrow;               /* the bounds are within int8's own */
} ek_requant_dsp;

EK_INLINE ek_requant_dsp ek_requant_dsp_of(float lo, float hi, int32_t zero)
{
    int32_t low = (int32_t)lo + zero, high = (int32_t)hi + zero;
    return (ek_requant_dsp){ lo, hi, low, high, zero, low > -128 || high < 127 };
}

EK_INLINE int32_t ek_clamp_dsp(int32_t i, const ek_requant_dsp *q)
{
    i = i < q->low ? q->low : i;
    return i > q->high ? q->high : i;
}

/* The result but for bounds narrower than int8's.  Rounding before the clamp gives the same, since the bounds are
 * whole; VCVTR and QADD saturate. */
#if defined(__ARM_FP) && !defined(__SOFTFP__)
EK_INLINE int32_t ek_requant_dsp_wide(int32_t acc, float scale, const ek_requant_dsp *q)
{
    float y = ek_mul_f32((float)acc, scale);
    int32_t i;
    __asm__("vcvtr.s32.f32 %0, %0" : "+t"(y));
    __builtin_memcpy(&i, &y, 4);
    __asm__("qadd %0, %0, %1\n\tssat %0, #8, %0" : "+r"(i) : "r"(q->zero) : "cc");
    return i;
}
#else
EK_INLINE int32_t ek_requant_dsp_wide(int32_t acc, float scale, const ek_requant_dsp *q)
{
    return ek_requant(acc, scale, q->lo, q->hi, q->zero);
}
#endif

/* the low bytes of four results */
EK_INLINE uint32_t ek_bytes_dsp(const int32_t v[4])
{
    uint32_t w = (uint32_t)v[0];
    __asm__("bfi %0, %1, #8, #8\n\tbfi %0, %2, #16, #8\n\tbfi %0, %3, #24, #8" : "+&r"(w) : "r"(v[1]), "r"(v[2]), "r"(v[3]));
    return w;
}

/* the low byte of x, four times */
EK_INLINE uint32_t ek_four_dsp(int32_t x) { return (uint32_t)(x & 0xff) * 0x01010101u; }

/* four int8 within the bounds; the GE bits of SSUB8 choose */
EK_INLINE uint32_t ek_clamp4_dsp(uint32_t w, const ek_requant_dsp *q)
{
    uint32_t t, low = ek_four_dsp(q->low), high = ek_four_dsp(q->high);
    __asm__("ssub8 %1, %0, %2\n\tsel %0, %0, %2\n\tssub8 %1, %3, %0\n\tsel %0, %0, %3" : "+&r"(w), "=&r"(t) : "r"(low), "r"(high) : "cc");
    return w;
}

/* n of four results, 4 where n is more */
EK_INLINE void ek_put4_dsp(const int32_t v[4], const ek_requant_dsp *q, int8_t *y, uint32_t n)
{
    uint32_t word = ek_bytes_dsp(v);
    if (q->narrow)
        word = ek_clamp4_dsp(word, q);
    if (n >= 4)
        __builtin_memcpy(y, &word, 4);
    else
        for (; n; n--, word >>= 8)
            *y++ = (int8_t)word;
}

EK_INLINE int8_t ek_requant_dsp_s8(int32_t acc, float scale, const ek_requant_dsp *q)
{
    int32_t i = ek_requant_dsp_wide(acc, scale, q);
    return (int8_t)(q->narrow ? ek_clamp_dsp(i, q) : i);
}
#endif
