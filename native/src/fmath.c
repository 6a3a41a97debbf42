#include "fmath.h"
#include <string.h>
#include "attrs.h"
#include "qmath.h"

static float from_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static uint32_t to_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

/* 2^n * e^r, r in [-ln2/2, ln2/2]: a degree-6 polynomial of e^r */
float ek_exp_f32(float x)
{
    if (!(x > -104.0f))
        return x < 0 ? 0.0f : x; /* NaN stays */
    if (x > 88.73f)
        return from_bits(0x7f800000u);
    int32_t n = ek_rint_f32(x * 1.44269504f);
    float fn = (float)n;
    float r = x - fn * 0.693359375f;
    r -= fn * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float y = p * r * r + r + 1.0f;
    int32_t h = n / 2; /* in two factors: 2^n itself may be out of range */
    return y * from_bits((uint32_t)(h + 127) << 23) * from_bits((uint32_t)(n - h + 127) << 23);
}

float ek_log_f32(float x)
{
    if (!(x > 0))
        return x == 0 ? from_bits(0xff800000u) : from_bits(0x7fc00000u);
    uint32_t u = to_bits(x);
    if (u >= 0x7f800000u)
        return x;
    int32_t e = 0;
    if (u < 0x00800000u) {
        x *= 8388608.0f;
        u = to_bits(x);
        e = -23;
    }
    e += (int32_t)(u >> 23) - 126;
    float m = from_bits((u & 0x007fffffu) | 0x3f000000u); /* [0.5, 1) */
    if (m < 0.707106781f) {
        e--;
        m = m + m;
    }
    m -= 1.0f;
    float z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float fe = (float)e;
    float y = m * z * p + fe * -2.12194440e-4f - 0.5f * z;
    return m + y + fe * 0.693359375f;
}

float ek_sigmoid_f32(float x)
{
    if (x >= 0)
        return 1.0f / (1.0f + ek_exp_f32(-x));
    float e = ek_exp_f32(x);
    return e / (1.0f + e);
}

float ek_tanh_f32(float x)
{
    float a = x < 0 ? -x : x;
    if (a < 0.625f) {
        float z = x * x;
        float p = -5.70498872745e-3f;
        p = p * z + 2.06390887954e-2f;
        p = p * z - 5.37397155531e-2f;
        p = p * z + 1.33314422036e-1f;
        p = p * z - 3.33332819422e-1f;
        return x + x * z * p;
    }
    if (a > 9.1f)
        return x < 0 ? -1.0f : 1.0f;
    if (x != x)
        return x;
    float e = ek_exp_f32(a + a);
    float y = 1.0f - 2.0f / (e + 1.0f);
    return x < 0 ? -y : y;
}

/* |x| < 1: Taylor, 11 terms; else 1 - erfc by a Chebyshev fit times exp(-x^2) */
float ek_erf_f32(float x)
{
    float a = x < 0 ? -x : x;
    if (x != x)
        return x;
    if (a < 1.0f) {
        float z = x * x;
        float p = -1.6365844691e-7f; /* 2/sqrt(pi) * (-1)^n / (n! (2n+1)), n = 10 .. 0 */
        p = 1.4807192816e-8f * z + p;
        p = p * z + 1.6462114366e-6f;
        p = p * z - 1.4925650358e-5f;
        p = p * z + 1.2055332982e-4f;
        p = p * z - 8.5483270234e-4f;
        p = p * z + 5.2239776254e-3f;
        p = p * z - 2.6866170645e-2f;
        p = p * z + 1.1283791671e-1f;
        p = p * z - 3.7612638903e-1f;
        p = p * z + 1.1283791671e+0f;
        return x * p;
    }
    if (a > 3.95f)
        return x < 0 ? -1.0f : 1.0f;
    /* erfc(a) = exp(-a^2) * t * P(t), t = 1 / (1 + a/2) (Numerical-Recipes-type Chebyshev fit, 1.2e-7) */
    float t = 1.0f / (1.0f + 0.5f * a);
    float p = 0.17087277f;
    p = p * t - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    float y = 1.0f - t * ek_exp_f32(-a * a - 1.26551223f + t * p);
    return x < 0 ? -y : y;
}

float ek_sqrt_f32(float x)
{
    /* the instruction itself: __builtin_sqrtf calls libm for negative x unless told that errno is of no interest */
#if defined(__GNUC__) && defined(__x86_64__)
    float y;
    __asm__("sqrtss %1, %0" : "=x"(y) : "x"(x));
    return y;
#elif defined(__GNUC__) && defined(__aarch64__)
    float y;
    __asm__("fsqrt %s0, %s1" : "=w"(y) : "w"(x));
    return y;
#elif defined(__GNUC__) && defined(__ARM_FP) && (__ARM_FP & 4)
    float y;
    __asm__("vsqrt.f32 %0, %1" : "=t"(y) : "t"(x));
    return y;
#else
    if (!(x > 0))
        return x == 0 ? x : from_bits(0x7fc00000u);
    uint32_t u = to_bits(x);
    if (u >= 0x7f800000u)
        return x;
    int32_t e = (int32_t)(u >> 23);
    uint32_t m = u & 0x7fffffu;
    if (e == 0) {
        e = 1;
        while (!(m & 0x800000u)) {
            m <<= 1;
            e--;
        }
    } else {
        m |= 0x800000u;
    }
    e -= 127;
    if (e & 1)
        m <<= 1;
    e = (e - (e & 1)) / 2;
    uint64_t v = (uint64_t)m << 25, r = 0; /* sqrt(m * 2^25) has 25 bits: one to round with */
    for (uint64_t bit = (uint64_t)1 << 50; bit; bit >>= 2) {
        if (v >= r + bit) {
            v -= r + bit;
            r = (r >> 1) + bit;
        } else {
            r >>= 1;
        }
    }
    uint32_t q = (uint32_t)(r >> 1) + ((r & 1) && (v || (r & 2))); /* a remainder decides ties; a tie cannot occur */
    return from_bits(((uint32_t)(e + 127) << 23) + (q - 0x800000u));
#endif
}

float ek_floor_f32(float x)
{
    float a = x < 0 ? -x : x;
    if (!(a < 8388608.0f))
        return x;
    float t = (float)(int32_t)x;
    return t > x ? t - 1.0f : t;
}

float ek_round_f32(float x)
{
    float a = x < 0 ? -x : x;
    if (!(a < 4194304.0f)) {
        if (!(a < 8388608.0f))
            return x;
        float f = ek_floor_f32(x), d = x - f;
        return d < 0.5f ? f : d > 0.5f ? f + 1.0f : ((int32_t)f & 1) ? f + 1.0f : f;
    }
    return (float)ek_rint_f32(x);
}

/* sin and cos by three-part reduction to [-pi/4, pi/4]; |x| up to 8192 keeps full precision */
static float sincos_f32(float x, int32_t shift)
{
    float a = x < 0 ? -x : x;
    if (!(a < 1.0e6f))
        return x - x;
    int32_t q = ek_rint_f32(x * 0.636619772f);
    float f = (float)q;
    float r = x - f * 1.5703125f;
    r -= f * 4.837512969970703125e-4f;
    r -= f * 7.549789948768648e-8f;
    q += shift;
    float z = r * r, y;
    if (q & 1) {
        y = 2.443315711809948e-5f;
        y = y * z - 1.388731625493765e-3f;
        y = y * z + 4.166664568298827e-2f;
        y = y * z * z - 0.5f * z + 1.0f;
    } else {
        y = -1.9515295891e-4f;
        y = y * z + 8.3321608736e-3f;
        y = y * z - 1.6666654611e-1f;
        y = y * z * r + r;
    }
    return q & 2 ? -y : y;
}

float ek_sin_f32(float x) { return sincos_f32(x, 0); }
float ek_cos_f32(float x) { return sincos_f32(x, 1); }

float ek_pow_f32(float x, float y)
{
    if (y == 0)
        return 1.0f;
    if (y == 2.0f)
        return x * x;
    if (y == 0.5f)
        return ek_sqrt_f32(x);
    if (x > 0)
        return ek_exp_f32(y * ek_log_f32(x));
    float f = ek_floor_f32(y);
    if (x == 0)
        return y > 0 ? 0.0f : from_bits(0x7f800000u);
    if (f != y)
        return from_bits(0x7fc00000u);
    float r = ek_exp_f32(y * ek_log_f32(-x));
    float half = y * 0.5f;
    return ek_floor_f32(half) == half ? r : -r;
}

float ek_unary_f32(float x, unsigned kind, float alpha, float beta)
{
    switch (kind) {
    case EK_UNARY_KIND_CLAMP: return ek_clamp_f32(x, alpha, beta);
    case EK_UNARY_KIND_SIGMOID: return ek_sigmoid_f32(x);
    case EK_UNARY_KIND_TANH: return ek_tanh_f32(x);
    case EK_UNARY_KIND_EXP: return ek_exp_f32(x);
    case EK_UNARY_KIND_LOG: return ek_log_f32(x);
    case EK_UNARY_KIND_SQRT: return ek_sqrt_f32(x);
    case EK_UNARY_KIND_RSQRT: return 1.0f / ek_sqrt_f32(x);
    case EK_UNARY_KIND_NEG: return -x;
    case EK_UNARY_KIND_ABS: return x < 0 ? -x : x;
    case EK_UNARY_KIND_ERF: return ek_erf_f32(x);
    case EK_UNARY_KIND_GELU: return 0.5f * x * (1.0f + ek_erf_f32(x * 0.70710678f));
    case EK_UNARY_KIND_GELU_TANH:
        return 0.5f * x * (1.0f + ek_tanh_f32(0.79788456f * (x + 0.044715f * x * x * x)));
    case EK_UNARY_KIND_SILU: return x * ek_sigmoid_f32(x);
    case EK_UNARY_KIND_HARDSWISH: return x * ek_clamp_f32(x + 3.0f, 0.0f, 6.0f) / 6.0f;
    case EK_UNARY_KIND_HARDSIGMOID: return ek_clamp_f32(alpha * x + beta, 0.0f, 1.0f);
    case EK_UNARY_KIND_LEAKY_RELU: return x < 0 ? alpha * x : x;
    case EK_UNARY_KIND_ELU: return x < 0 ? alpha * (ek_exp_f32(x) - 1.0f) : x;
    case EK_UNARY_KIND_SOFTPLUS: return x > 20.0f ? x : ek_log_f32(1.0f + ek_exp_f32(x));
    case EK_UNARY_KIND_RECIPROCAL: return 1.0f / x;
    case EK_UNARY_KIND_FLOOR: return ek_floor_f32(x);
    case EK_UNARY_KIND_CEIL: return -ek_floor_f32(-x);
    case EK_UNARY_KIND_ROUND: return ek_round_f32(x);
    case EK_UNARY_KIND_SIN: return ek_sin_f32(x);
    case EK_UNARY_KIND_COS: return ek_cos_f32(x);
    case EK_UNARY_KIND_SIGN: return x > 0 ? 1.0f : x < 0 ? -1.0f : x;
    case EK_UNARY_KIND_MISH: return x * ek_tanh_f32(x > 20.0f ? x : ek_log_f32(1.0f + ek_exp_f32(x)));
    default: return x;
    }
}

float ek_binary_f32(float a, float b, unsigned kind)
{
    switch (kind) {
    case EK_BINARY_KIND_ADD: return a + b;
    case EK_BINARY_KIND_SUB: return a - b;
    case EK_BINARY_KIND_MUL: return a * b;
    case EK_BINARY_KIND_DIV: return a / b;
    case EK_BINARY_KIND_MIN: return a < b ? a : b;
    case EK_BINARY_KIND_MAX: return a > b ? a : b;
    case EK_BINARY_KIND_POW: return ek_pow_f32(a, b);
    case EK_BINARY_KIND_PRELU: return a < 0 ? a * b : a;
    default: return a;
    }
}

float ek_s64_f32(int64_t x)
{
#if UINTPTR_MAX > 0xffffffffu
    return (float)x;
#else
    uint64_t u = x < 0 ? 0u - (uint64_t)x : (uint64_t)x;
    uint32_t lost = 0;
    float scale = 1.0f;
    for (; u >> 31; u >>= 1, scale *= 2.0f)
        lost |= (uint32_t)u & 1u;
    float y = (float)(int32_t)((uint32_t)u | lost) * scale; /* what was lost decides ties; the scale is a power of 2 */
    return x < 0 ? -y : y;
#endif
}

float ek_norm_s8_scale(uint32_t n, int rms, float eps, int64_t square, int32_t *sum)
{
    /* variance = (n * square - sum^2) / n^2 of the stored integers; the numerator is exact */
    float count = (float)n, var = ek_div_f32(ek_s64_f32(square), count);
    if (rms)
        *sum = 0;
    else
        var = ek_div_f32(ek_div_f32(ek_s64_f32((int64_t)n * square - (int64_t)*sum * *sum), count), count);
    var += eps;
    EK_ROUND(var);
    float r = ek_div_f32(1.0f, ek_sqrt_f32(var));
    return rms ? r : ek_div_f32(r, count);
}
