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

/* A core without an FPU requantizes in integers: the same bits, a quarter of the instructions. */
#if !defined(EK_INTEGER_REQUANT) && ((defined(__arm__) && !defined(__ARM_FP)) || (defined(__riscv) && !defined(__riscv_flen)))
#define EK_INTEGER_REQUANT 1
#endif

static inline unsigned ek_clz(uint32_t x) /* of x > 0 */
{
#if defined(__ARM_ARCH) && __ARM_ARCH < 7 /* the compiler's helper reads a table for every byte */
    unsigned n = 0;
    if (x < 1u << 16) n = 16, x <<= 16;
    if (x < 1u << 24) n += 8, x <<= 8;
    if (x < 1u << 28) n += 4, x <<= 4;
    if (x < 1u << 30) n += 2, x <<= 2;
    return n + (x < 1u << 31);
#else
    return (unsigned)__builtin_clz(x);
#endif
}

/* a * b; Cortex-M0 multiplies only to 32 bits */
static inline void ek_mul_wide(uint32_t a, uint32_t b, uint32_t *high, uint32_t *low)
{
#if defined(__ARM_ARCH) && __ARM_ARCH < 7
    uint32_t p = (a & 0xffff) * (b & 0xffff), q = (a >> 16) * (b & 0xffff) + (p >> 16), r = (a & 0xffff) * (b >> 16);
    uint32_t s = (q & 0xffff) + (r & 0xffff);
    *low = s << 16 | (p & 0xffff);
    *high = (a >> 16) * (b >> 16) + (q >> 16) + (r >> 16) + (s >> 16);
#else
    uint64_t p = (uint64_t)a * b;
    *high = (uint32_t)(p >> 32);
    *low = (uint32_t)p;
#endif
}

/* a whole float of less than 2^23 as an integer */
static inline int32_t ek_whole(float v)
{
    int32_t i;
    memcpy(&i, &v, 4);
    int32_t e = (i >> 23 & 0xff) - 127, m = e < 0 || e > 22 ? 0 : ((i & 0x7fffff) | 0x800000) >> (23 - e);
    return i < 0 ? -m : m;
}

/* ek_requant in integers, for scales of 2^-100 to 2^60 (others give any value): round |acc| to 24 bits, multiply, round to 24 bits, round to
 * a whole number, each half to even, as the float steps do.  lo and hi are whole, so clamping may come last. */
static inline int8_t ek_requant_integer(int32_t acc, float scale, float lo, float hi, int32_t zero)
{
    uint32_t s, high, low, a = acc < 0 ? 0u - (uint32_t)acc : (uint32_t)acc;
    int32_t q = 0, from = ek_whole(lo), to = ek_whole(hi);
    memcpy(&s, &scale, 4);
    if (a) {
        int32_t lead = (int32_t)ek_clz(a);
        a <<= lead;
        if (lead < 8) {
            a = (a + 0x7f + (a >> 8 & 1u)) & ~0xffu;
            if (!a) { /* rounded up to the next power of two */
                a = 0x80000000u;
                lead--;
            }
        }
        ek_mul_wide(a, s << 8 | 0x80000000u, &high, &low);
        int32_t k = 119 + lead - (int32_t)(s >> 23); /* value = high / 128 / 2^k, high of 31 bits */
        if (high >> 31) {
            low |= high & 1u;
            high >>= 1;
            k--;
        }
        high |= low != 0; /* bits that only break ties */
        high = (high + 0x3f + (high >> 7 & 1u)) >> 7;
        if ((uint32_t)(k - 1) < 25u)
            q = (int32_t)((high + (1u << (k - 1)) - 1 + (high >> k & 1u)) >> k);
        else
            q = k < 1 ? 1 << 23 : 0;
    }
    q = acc < 0 ? -q : q;
    q = q < from ? from : q;
    return (int8_t)((q > to ? to : q) + zero);
}

/* float32(acc) * scale, clamp to [lo, hi] (relative to zero), half to even, add zero. */
static inline int8_t ek_requant_float(int32_t acc, float scale, float lo, float hi, int32_t zero)
{
    float y = ek_mul_f32((float)acc, scale);
    return (int8_t)(ek_rint_f32(ek_clamp_f32(y, lo, hi)) + zero);
}

static inline int8_t ek_requant(int32_t acc, float scale, float lo, float hi, int32_t zero)
{
#if EK_INTEGER_REQUANT + 0
    return ek_requant_integer(acc, scale, lo, hi, zero);
#else
    return ek_requant_float(acc, scale, lo, hi, zero);
#endif
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
