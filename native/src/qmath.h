/* The one rounding rule.  Twin of edgekit/qmath.py: the same bits, operation by operation.
 *
 * Each float step rounds once to float32.  Two steps that a compiler could fuse (multiply, then add) are
 * kept apart by EK_ROUND, never by a compiler flag: users build us with -std=gnu11, where GCC contracts. */
#ifndef EK_QMATH_H
#define EK_QMATH_H
#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__)
#error "EdgeKit's integers need IEEE float32 steps: build without -ffast-math"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "EdgeKit packages are little-endian"
#endif

/* A value that has been rounded to float32: hides it from contraction. */
#if defined(__x86_64__) || defined(__SSE2__)
#define EK_ROUND(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define EK_ROUND(x) __asm__("" : "+w"(x))
#elif defined(__arm__) && defined(__ARM_FP) && !defined(__SOFTFP__)
#define EK_ROUND(x) __asm__("" : "+t"(x))
#elif defined(__GNUC__) && !defined(__FLT_EVAL_METHOD__)
#define EK_ROUND(x) __asm__("" : "+r"(x))
#elif defined(__GNUC__) && __FLT_EVAL_METHOD__ == 0 && !defined(__riscv_flen)
#define EK_ROUND(x) __asm__("" : "+m"(x))
#else
#define EK_ROUND(x) do { volatile float ek_v_ = (x); (x) = ek_v_; } while (0)
#endif

static inline float ek_mul_f32(float a, float b)
{
    float y = a * b;
    EK_ROUND(y);
    return y;
}

static inline float ek_div_f32(float a, float b)
{
    float y = a / b;
    EK_ROUND(y);
    return y;
}

/* Bounds as comparisons that send NaN to lo. */
static inline float ek_clamp_f32(float y, float lo, float hi)
{
    y = y > lo ? y : lo;
    return y < hi ? y : hi;
}

/* Half to even, for |y| < 2^22: adding 1.5 * 2^23 leaves the rounded integer in the low mantissa bits. */
static inline int32_t ek_rint_f32(float y)
{
    float m = y + 12582912.0f;
    EK_ROUND(m);
    int32_t i;
    memcpy(&i, &m, 4);
    return i - 0x4b400000;
}

/* float32(acc) * scale, clamp to [lo, hi] (relative to zero), half to even, add zero. */
static inline int8_t ek_requant(int32_t acc, float scale, float lo, float hi, int32_t zero)
{
    float y = ek_mul_f32((float)acc, scale);
    return (int8_t)(ek_rint_f32(ek_clamp_f32(y, lo, hi)) + zero);
}

/* x / scale, clamp, half to even, add zero. */
static inline int8_t ek_quantize(float x, float scale, int32_t zero)
{
    float y = x / scale;
    EK_ROUND(y);
    y = ek_clamp_f32(y, (float)(-128 - zero), (float)(127 - zero));
    return (int8_t)(ek_rint_f32(y) + zero);
}

static inline float ek_dequantize(int8_t q, float scale, int32_t zero)
{
    return ek_mul_f32((float)(q - zero), scale);
}

/* Arithmetic shift right of a possibly negative value, rounding toward minus infinity. */
static inline int32_t ek_asr(int32_t v, unsigned n)
{
    return v < 0 ? ~(~v >> n) : v >> n;
}
#endif
