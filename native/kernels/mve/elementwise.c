/* Elementwise kernels with Helium; tails by predicates.  Quantize and the curved functions stay portable: Helium has no
 * division. */
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#include "attrs.h"
#include "fmath.h"
#include "mve.h"

static uint32_t left32(size_t n) { return n < 16 ? (uint32_t)n : 16; }

/* q's fields in registers: stores of bytes may alias it */
EK_INLINE int32x4_t add4(int32x4_t u, int32x4_t v, int32x4_t ma, ek_add_s8 q, int32x4_t lo, int32x4_t hi)
{
    u = vmlaq_n_s32(vmlasq_n_s32(u, ma, q.bias), v, q.mb);
    u = vminq_s32(vmaxq_s32(vshlq_r_s32(u, -(int32_t)q.shift), lo), hi);
    return vaddq_n_s32(u, q.zero);
}

static void add_s8(const int8_t *a, const int8_t *b, int8_t *y, size_t n, const ek_add_s8 *params)
{
    const ek_add_s8 q = *params;
    const int32x4_t lo = vdupq_n_s32(q.lo), hi = vdupq_n_s32(q.hi), ma = vdupq_n_s32(q.ma);
    for (; n >= 8; n -= 8, a += 8, b += 8, y += 8) {
        int32x4_t u = add4(vldrbq_s32(a), vldrbq_s32(b), ma, q, lo, hi);
        int32x4_t v = add4(vldrbq_s32(a + 4), vldrbq_s32(b + 4), ma, q, lo, hi);
        vstrbq_s32(y, u);
        vstrbq_s32(y + 4, v);
    }
    for (size_t i = 0; i < n; i += 4) {
        mve_pred16_t p = vctp32q((uint32_t)(n - i));
        vstrbq_p_s32(y + i, add4(vldrbq_z_s32(a + i, p), vldrbq_z_s32(b + i, p), ma, q, lo, hi), p);
    }
}

static void lut_s8(const int8_t *x, const int8_t *table, int8_t *y, size_t n)
{
    const uint8x16_t flip = vdupq_n_u8(0x80);
    for (size_t i = 0; i < n; i += 16) {
        mve_pred16_t p = vctp8q(left32(n - i));
        uint8x16_t v = veorq_u8(vreinterpretq_u8_s8(vldrbq_z_s8(x + i, p)), flip);
        vstrbq_p_s8(y + i, vldrbq_gather_offset_z_s8(table, v, p), p);
    }
}

static void max_s8(int8_t *acc, const int8_t *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        mve_pred16_t p = vctp8q(left32(n - i));
        vstrbq_p_s8(acc + i, vmaxq_s8(vldrbq_z_s8(acc + i, p), vldrbq_z_s8(x + i, p)), p);
    }
}

static void sum_s8(int32_t *acc, const int8_t *x, size_t n)
{
    for (; n >= 8; n -= 8, acc += 8, x += 8) {
        int32x4_t u = vaddq_s32(vldrwq_s32(acc), vldrbq_s32(x)), v = vaddq_s32(vldrwq_s32(acc + 4), vldrbq_s32(x + 4));
        vstrwq_s32(acc, u);
        vstrwq_s32(acc + 4, v);
    }
    for (size_t i = 0; i < n; i += 4) {
        mve_pred16_t p = vctp32q((uint32_t)(n - i));
        vstrwq_p_s32(acc + i, vaddq_s32(vldrwq_z_s32(acc + i, p), vldrbq_z_s32(x + i, p)), p);
    }
}

static void sum_f32(float *acc, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 4) {
        mve_pred16_t p = vctp32q(left32(n - i));
        vstrwq_p_f32(acc + i, vaddq_f32(vldrwq_z_f32(acc + i, p), vldrwq_z_f32(x + i, p)), p);
    }
}

static void dequantize(const int8_t *x, float *y, size_t n, float scale, int32_t zero)
{
    for (size_t i = 0; i < n; i += 4) {
        mve_pred16_t p = vctp32q(left32(n - i));
        int32x4_t v = vsubq_n_s32(vldrbq_z_s32(x + i, p), zero);
        vstrwq_p_f32(y + i, vmulq_n_f32(vcvtq_f32_s32(v), scale), p);
    }
}

EK_INLINE float32x4_t binary(float32x4_t a, float32x4_t b, const unsigned kind)
{
    switch (kind) {
    case EK_BINARY_KIND_ADD: return vaddq_f32(a, b);
    case EK_BINARY_KIND_SUB: return vsubq_f32(a, b);
    default: return vmulq_f32(a, b);
    }
}

EK_INLINE void each(const float *a, const float *b, float *y, size_t n, const unsigned kind)
{
    for (size_t i = 0; i < n; i += 4) {
        mve_pred16_t p = vctp32q(left32(n - i));
        vstrwq_p_f32(y + i, binary(vldrwq_z_f32(a + i, p), vldrwq_z_f32(b + i, p), kind), p);
    }
}

static void binary_f32(const float *a, const float *b, float *y, size_t n, unsigned kind)
{
    switch (kind) {
    case EK_BINARY_KIND_ADD: each(a, b, y, n, EK_BINARY_KIND_ADD); break;
    case EK_BINARY_KIND_SUB: each(a, b, y, n, EK_BINARY_KIND_SUB); break;
    case EK_BINARY_KIND_MUL: each(a, b, y, n, EK_BINARY_KIND_MUL); break;
    default:
        for (size_t i = 0; i < n; i++)
            y[i] = ek_binary_f32(a[i], b[i], kind);
    }
}

void ek_elementwise_mve(ek_kernels *k)
{
    EK_SET(k, add_s8, ADD_S8, add_s8, EK_ISA_MVE);
    EK_SET(k, lut_s8, LUT_S8, lut_s8, EK_ISA_MVE);
    EK_SET(k, max_s8, MAX_S8, max_s8, EK_ISA_MVE);
    EK_SET(k, sum_s8, SUM_S8, sum_s8, EK_ISA_MVE);
    EK_SET(k, sum_f32, SUM_F32, sum_f32, EK_ISA_MVE);
    EK_SET(k, dequantize, DEQUANTIZE, dequantize, EK_ISA_MVE);
    EK_SET(k, binary_f32, BINARY_F32, binary_f32, EK_ISA_MVE);
}
#else
typedef int ek_no_elementwise_mve; /* a translation unit must not be empty */
#endif
