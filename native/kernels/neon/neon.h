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

/* accumulators of 8 outputs -> int8 */
EK_INLINE int8x8_t ek_requant8(int32x4_t a, int32x4_t b, const float *scale, float lo, float hi, int32_t zero)
{
    float32x4_t x = vmulq_f32(vcvtq_f32_s32(a), vld1q_f32(scale)), y = vmulq_f32(vcvtq_f32_s32(b), vld1q_f32(scale + 4));
    int32x4_t i = vcvtnq_s32_f32(ek_clampq(x, lo, hi)), j = vcvtnq_s32_f32(ek_clampq(y, lo, hi));
    return vqmovn_s16(vaddq_s16(vcombine_s16(vmovn_s32(i), vmovn_s32(j)), vdupq_n_s16((int16_t)zero)));
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

/* 8 outputs of one row of gemm_s8: head is the block's bias and scale, adj the row's part of the weight zero point */
EK_INLINE void ek_finish_s8(const ek_gemm *g, const uint8_t *head, int32_t adj, int32x4_t lo, int32x4_t hi, int8_t *y, uint32_t left)
{
    const int32_t *bias = (const int32_t *)(const void *)head;
    lo = vaddq_s32(vaddq_s32(lo, vdupq_n_s32(adj)), vld1q_s32(bias));
    hi = vaddq_s32(vaddq_s32(hi, vdupq_n_s32(adj)), vld1q_s32(bias + 4));
    ek_store8_s8(y, ek_requant8(lo, hi, (const float *)(const void *)(head + 32), g->lo, g->hi, g->zero), left);
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

/* 8 outputs from n of row m on, either way */
EK_INLINE void ek_finish(const ek_gemm *g, const uint8_t *head, uint32_t m, uint32_t n, int32x4_t lo, int32x4_t hi, const int dyn)
{
    ptrdiff_t at = (ptrdiff_t)m * g->ldy + (ptrdiff_t)n;
    if (dyn) {
        ek_finish_dyn(g, head, g->row_scale[m], lo, hi, (float *)g->y + at, g->n - n);
    } else {
        int32_t adj = 0;
        if (g->w_zero)
            adj = (int32_t)(0u - (uint32_t)g->w_zero * (uint32_t)ek_row_sum_neon((const int8_t *)g->a + (ptrdiff_t)m * g->lda, g->k));
        ek_finish_s8(g, head, adj, lo, hi, (int8_t *)g->y + at, g->n - n);
    }
}
#endif
