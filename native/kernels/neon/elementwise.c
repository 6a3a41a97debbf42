/* Elementwise kernels with Advanced SIMD. */
#if defined(__aarch64__)
#include "neon.h"

#define EK_VB 16
#define EK_V
#define EK_VISA EK_ISA_NEON
typedef float vf __attribute__((vector_size(EK_VB)));
typedef int32_t vi __attribute__((vector_size(EK_VB)));

EK_INLINE void ek_widen(const int8_t *p, vi out[4])
{
    int8x16_t v = vld1q_s8(p);
    int16x8_t lo = vmovl_s8(vget_low_s8(v)), hi = vmovl_high_s8(v);
    out[0] = (vi)vmovl_s16(vget_low_s16(lo));
    out[1] = (vi)vmovl_high_s16(lo);
    out[2] = (vi)vmovl_s16(vget_low_s16(hi));
    out[3] = (vi)vmovl_high_s16(hi);
}

EK_INLINE void ek_narrow(const vi in[4], int8_t *p)
{
    int16x8_t lo = vmovn_high_s32(vmovn_s32((int32x4_t)in[0]), (int32x4_t)in[1]);
    int16x8_t hi = vmovn_high_s32(vmovn_s32((int32x4_t)in[2]), (int32x4_t)in[3]);
    vst1q_s8(p, vmovn_high_s16(vmovn_s16(lo), hi));
}

EK_INLINE vf ek_vsqrt(vf x) { return (vf)vsqrtq_f32((float32x4_t)x); }

#include "../elementwise.h"

EK_INLINE int32x4_t add4(int16x4_t a, int16x4_t b, int32x4_t ma, int32x4_t mb, int32x4_t bias, int32x4_t down)
{
    return vshlq_s32(vmlaq_s32(vmlaq_s32(bias, vmovl_s16(a), ma), vmovl_s16(b), mb), down);
}

EK_INLINE int8x16_t add16(int8x16_t a, int8x16_t b, const ek_add_s8 *p, const ek_requant_neon *q)
{
    const int32x4_t ma = vdupq_n_s32(p->ma), mb = vdupq_n_s32(p->mb), bias = vdupq_n_s32(p->bias), down = vdupq_n_s32(-(int32_t)p->shift);
    int16x8_t v[2];
    EK_UNROLL for (int i = 0; i < 2; i++) {
        int16x8_t u = i ? vmovl_high_s8(a) : vmovl_s8(vget_low_s8(a)), w = i ? vmovl_high_s8(b) : vmovl_s8(vget_low_s8(b));
        int32x4_t lo = add4(vget_low_s16(u), vget_low_s16(w), ma, mb, bias, down);
        int32x4_t hi = add4(vget_high_s16(u), vget_high_s16(w), ma, mb, bias, down);
        v[i] = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(lo), hi), q->zero);
    }
    return ek_clamp_s8(v[0], v[1], q);
}

/* bounds last, as in ek_requant8: every step saturates */
static void add16_s8(const int8_t *a, const int8_t *b, int8_t *y, size_t n, const ek_add_s8 *given)
{
    const ek_add_s8 p = *given;
    const ek_requant_neon q = ek_requant_neon_of((float)p.lo, (float)p.hi, p.zero);
    for (; n >= 16; n -= 16, a += 16, b += 16, y += 16)
        vst1q_s8(y, add16(vld1q_s8(a), vld1q_s8(b), &p, &q));
    if (n) {
        int8_t part[2][16] = { { 0 } };
        memcpy(part[0], a, n);
        memcpy(part[1], b, n);
        vst1q_s8(part[0], add16(vld1q_s8(part[0]), vld1q_s8(part[1]), &p, &q));
        memcpy(y, part[0], n);
    }
}

/* indices out of a table's 64 rows give 0 (TBL) or leave what is there (TBX) */
static void lut_s8(const int8_t *x, const int8_t *table, int8_t *y, size_t n)
{
    const uint8x16_t flip = vdupq_n_u8(0x80), rows = vdupq_n_u8(64);
    const int8x16x4_t a = vld1q_s8_x4(table), b = vld1q_s8_x4(table + 64), c = vld1q_s8_x4(table + 128), e = vld1q_s8_x4(table + 192);
    for (; n >= 16; n -= 16, x += 16, y += 16) {
        uint8x16_t v = veorq_u8(vreinterpretq_u8_s8(vld1q_s8(x)), flip);
        int8x16_t r = vqtbl4q_s8(a, v);
        v = vsubq_u8(v, rows);
        r = vqtbx4q_s8(r, b, v);
        v = vsubq_u8(v, rows);
        r = vqtbx4q_s8(r, c, v);
        v = vsubq_u8(v, rows);
        vst1q_s8(y, vqtbx4q_s8(r, e, v));
    }
    for (size_t i = 0; i < n; i++)
        y[i] = table[x[i] + 128];
}

void ek_elementwise_neon(ek_kernels *k)
{
    set_elementwise(k);
    EK_SET(k, add_s8, ADD_S8, add16_s8, EK_VISA);
    EK_SET(k, lut_s8, LUT_S8, lut_s8, EK_VISA);
}
#else
typedef int ek_no_elementwise_neon; /* a translation unit must not be empty */
#endif
