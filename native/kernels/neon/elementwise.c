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
    EK_SET(k, lut_s8, LUT_S8, lut_s8, EK_VISA);
}
#else
typedef int ek_no_elementwise_neon; /* a translation unit must not be empty */
#endif
