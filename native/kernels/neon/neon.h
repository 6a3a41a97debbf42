/* Steps shared by the AArch64 kernels: clamp, requantize, stores of a part, the ends of GEMM tiles. */
#ifndef EK_NEON_H
#define EK_NEON_H
#include <arm_neon.h>
#include "kernels.h"
#include "simd.h"

void ek_dw_neon(ek_kernels *k);
void ek_elementwise_neon(ek_kernels *k);

/* a vector that has been rounded to float32: hides it from contraction */
#define EK_ROUND128(x) __asm__("" : "+w"(x))

/* FMAXNM and FMINNM send NaN to the other operand, as ek_clamp_f32 does to lo */
EK_INLINE float32x4_t ek_clampq(float32x4_t v, float lo, float hi)
{
    return vminnmq_f32(vmaxnmq_f32(v, vdupq_n_f32(lo)), vdupq_n_f32(hi));
}

typedef struct ek_requant_neon {
    int16x8_t zero;
    int8x16_t low, high; /* bounds with zero added */
} ek_requant_neon;

EK_INLINE ek_requant_neon ek_requant_neon_of(float lo, float hi, int32_t zero)
{
    return (ek_requant_neon){ vdupq_n_s16((int16_t)zero), vdupq_n_s8((int8_t)((int32_t)lo + zero)),
                              vdupq_n_s8((int8_t)((int32_t)hi + zero)) };
}

/* accumulators of 8 outputs -> rounded, zero added.  Every step saturates, so that the clamp may come last: the bounds
 * are whole numbers. */
EK_INLINE int16x8_t ek_requant8(int32x4_t a, int32x4_t b, float32x4_t sa, float32x4_t sb, int16x8_t zero)
{
    int32x4_t i = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(a), sa)), j = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(b), sb));
    return vqaddq_s16(vqmovn_high_s32(vqmovn_s32(i), j), zero);
}

EK_INLINE int8x16_t ek_clamp_s8(int16x8_t a, int16x8_t b, const ek_requant_neon *q)
{
    return vminq_s8(vmaxq_s8(vqmovn_high_s16(vqmovn_s16(a), b), q->low), q->high);
}

EK_INLINE void ek_store8_s8(int8_t *y, int8x8_t v, uint32_t n)
{
    if (n >= 8) {
        vst1_s8(y, v);
    } else {
        int8_t part[8];
        vst1_s8(part, v);
        memcpy(y, part, n);
    }
}

/* the first min(n, 4) floats, n may be 0 */
EK_INLINE void ek_store4_f32(float *y, float32x4_t v, uint32_t n)
{
    if (n >= 4) {
        vst1q_f32(y, v);
    } else {
        float part[4];
        vst1q_f32(part, v);
        memcpy(y, part, n * sizeof *y);
    }
}

/* sum_k a of one row */
EK_INLINE int32_t ek_row_sum_neon(const int8_t *a, uint32_t k)
{
    int32x4_t s = vdupq_n_s32(0);
    uint32_t i = 0;
    for (; i + 16 <= k; i += 16)
        s = vpadalq_s16(s, vpaddlq_s8(vld1q_s8(a + i)));
    int32_t sum = vaddvq_s32(s);
    for (; i < k; i++)
        sum += a[i];
    return sum;
}

EK_INLINE void ek_finish_dyn(const ek_gemm *g, const uint8_t *head, float row_scale, int32x4_t lo, int32x4_t hi, float *y, uint32_t left)
{
    const float *bias = (const float *)(const void *)head;
    float32x4_t a = vmulq_f32(vcvtq_f32_s32(lo), vmulq_f32(vdupq_n_f32(row_scale), vld1q_f32(bias + 8)));
    float32x4_t b = vmulq_f32(vcvtq_f32_s32(hi), vmulq_f32(vdupq_n_f32(row_scale), vld1q_f32(bias + 12)));
    EK_ROUND128(a);
    EK_ROUND128(b);
    ek_store4_f32(y, ek_clampq(vaddq_f32(a, vld1q_f32(bias)), g->lo, g->hi), left);
    if (left > 4)
        ek_store4_f32(y + 4, ek_clampq(vaddq_f32(b, vld1q_f32(bias + 4)), g->lo, g->hi), left - 4);
}

/* where the sums of 8 outputs start: at their biases, for gemm_dyn at 0 */
EK_INLINE void ek_start(const uint8_t *head, const int dyn, int32x4_t bias[2])
{
    const int32_t *b = (const int32_t *)(const void *)head;
    bias[0] = dyn ? vdupq_n_s32(0) : vld1q_s32(b);
    bias[1] = dyn ? vdupq_n_s32(0) : vld1q_s32(b + 4);
}

/* 8 outputs of mr rows of gemm_s8 */
EK_INLINE void ek_finish_s8(const ek_gemm *g, const ek_requant_neon *q, const uint8_t *head, uint32_t m, int32x4_t acc[][2], int8_t *y,
                            uint32_t left, const unsigned mr)
{
    const float32x4_t s0 = vld1q_f32((const float *)(const void *)(head + 32)), s1 = vld1q_f32((const float *)(const void *)(head + 48));
    const ptrdiff_t ldy = g->ldy;
    int16x8_t v[8];
    int8x16_t two[4];
    if (g->w_zero)
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            int32_t sum = ek_row_sum_neon((const int8_t *)g->a + (ptrdiff_t)(m + r) * g->lda, g->k);
            int32x4_t part = vdupq_n_s32((int32_t)((uint32_t)g->w_zero * (uint32_t)sum));
            acc[r][0] = vsubq_s32(acc[r][0], part);
            acc[r][1] = vsubq_s32(acc[r][1], part);
        }
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        v[r] = ek_requant8(acc[r][0], acc[r][1], s0, s1, q->zero);
    EK_UNROLL for (unsigned r = 0; r < mr; r += 2)
        two[r / 2] = ek_clamp_s8(v[r], v[mr > 1 ? r + 1 : r], q);
    EK_UNROLL for (unsigned r = 0; r < mr; r += 2, y += ldy) {
        ek_store8_s8(y, vget_low_s8(two[r / 2]), left);
        if (mr > 1) {
            y += ldy;
            if (left >= 8)
                vst1q_lane_s64((int64_t *)(void *)y, vreinterpretq_s64_s8(two[r / 2]), 1);
            else
                ek_store8_s8(y, vget_high_s8(two[r / 2]), left);
        }
    }
}

/* 8 outputs from n on of rows m to m + mr - 1, either way; mr is 1 or even */
EK_INLINE void ek_finish(const ek_gemm *g, const ek_requant_neon *q, const uint8_t *head, uint32_t m, uint32_t n, int32x4_t acc[][2],
                         const int dyn, const unsigned mr)
{
    ptrdiff_t at = (ptrdiff_t)m * g->ldy + (ptrdiff_t)n;
    uint32_t left = g->n - n;
    if (dyn)
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            ek_finish_dyn(g, head, g->row_scale[m + r], acc[r][0], acc[r][1], (float *)g->y + at + (ptrdiff_t)r * g->ldy, left);
    else if (left >= 8)
        ek_finish_s8(g, q, head, m, acc, (int8_t *)g->y + at, 8, mr);
    else
        ek_finish_s8(g, q, head, m, acc, (int8_t *)g->y + at, left, mr);
}
#endif
