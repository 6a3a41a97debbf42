/* Depthwise convolution with Helium: 8 channels in int16; VMULLB and VMULLT give the products of even and odd ones. */
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#include "dw.h"
#include "mve.h"
#include "portable.h"

enum { MAX_TAPS = 52 }; /* 7x7 and a multiple of 4; bounds the stack */

/* np pixels of up to 8 channels (p: which of them); taps and zero are constants where that pays */
EK_INLINE void pixels(const ek_dw *d, const uint8_t *head, const ptrdiff_t *at, const uint32_t taps, const int32_t zero,
                      const int8_t *x, int8_t *y, mve_pred16_t p, const unsigned np)
{
    const int32x4x2_t bias = vld2q_s32((const int32_t *)(const void *)head);
    const float32x4x2_t scale = vld2q_f32((const float *)(const void *)(head + 32));
    const int8_t *w = (const int8_t *)head + 64;
    int32x4_t acc[2][2];
    EK_UNROLL for (unsigned i = 0; i < np; i++) {
        acc[i][0] = bias.val[0];
        acc[i][1] = bias.val[1];
    }
    for (uint32_t t = 0; t < taps; t++) {
        int16x8_t wv = vldrbq_s16(w + 8 * t);
        if (zero)
            wv = vsubq_n_s16(wv, (int16_t)zero);
        EK_UNROLL for (unsigned i = 0; i < np; i++) {
            int16x8_t v = vldrbq_z_s16(x + (ptrdiff_t)i * d->step + at[t], p);
            acc[i][0] = vaddq_s32(acc[i][0], vmullbq_int_s16(v, wv));
            acc[i][1] = vaddq_s32(acc[i][1], vmulltq_int_s16(v, wv));
        }
    }
    EK_UNROLL for (unsigned i = 0; i < np; i++) {
        int32x4_t even = ek_requant_mve(acc[i][0], scale.val[0], d->lo, d->hi, d->zero);
        int32x4_t odd = ek_requant_mve(acc[i][1], scale.val[1], d->lo, d->hi, d->zero);
        vstrbq_p_s16(y + i * (size_t)d->channels, vmovntq_s32(vreinterpretq_s16_s32(even), odd), p);
    }
}

static void dw_s8(const ek_dw *d)
{
    ptrdiff_t at[MAX_TAPS];
    uint32_t taps = ek_dw_taps(d, at, MAX_TAPS);
    if (!taps) {
        ek_dw_s8_portable(d);
        return;
    }
    const uint8_t *head = d->w;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 8, head += 8u * (8 + taps)) {
        mve_pred16_t p = vctp16q(d->channels - c0);
        const int8_t *x = (const int8_t *)d->x + c0;
        int8_t *y = (int8_t *)d->y + c0;
        uint32_t left = d->count;
        if (!d->w_zero)
            for (; left >= 2; left -= 2, x += 2 * d->step, y += 2 * (size_t)d->channels)
                pixels(d, head, at, taps, 0, x, y, p, 2);
        for (; left; left--, x += d->step, y += d->channels)
            pixels(d, head, at, taps, d->w_zero, x, y, p, 1);
    }
}

static void dw_f32(const ek_dw *d)
{
    const float *w = (const float *)(const void *)d->w;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 4, w += 4 * (1 + (size_t)d->kh * d->kw)) {
        mve_pred16_t p = vctp32q(d->channels - c0);
        const float *x = (const float *)d->x + c0;
        float *y = (float *)d->y + c0;
        for (uint32_t i = 0; i < d->count; i++, x += d->step, y += d->channels) {
            const float *v = w, *row = x;
            float32x4_t acc = vldrwq_f32(v);
            for (uint32_t r = d->kh; r; r--, row += d->dy) {
                const float *tap = row;
                for (uint32_t j = d->kw; j; j--, tap += d->dx)
                    acc = vfmaq_f32(acc, vldrwq_z_f32(tap, p), vldrwq_f32(v += 4));
            }
            vstrwq_p_f32(y, ek_clamp_mve(acc, d->lo, d->hi), p);
        }
    }
}

void ek_dw_mve(ek_kernels *k)
{
    EK_SET(k, dw_s8, DW_S8, dw_s8, EK_ISA_MVE);
    EK_SET(k, dw_f32, DW_F32, dw_f32, EK_ISA_MVE);
    k->dw_s8_nr = 8;
    k->dw_f32_nr = 4;
}
#else
typedef int ek_no_dw_mve; /* a translation unit must not be empty */
#endif
