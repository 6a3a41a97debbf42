/* Depthwise convolution with the DSP extension: a word is 4 channels; SMLABB and SMLATT multiply one halfword each, so no
 * shuffling of taps is needed. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "dsp.h"
#include "dw.h"
#include "portable.h"

enum { MAX_TAPS = 52 }; /* 7x7 and a multiple of 4; bounds the stack */

typedef struct tap {
    ptrdiff_t at;
    uint32_t even, odd; /* weights less their zero point: channels 0, 2 and 1, 3 */
} tap;

/* bytes of x that exist, of a word of 4 channels */
EK_INLINE uint32_t load4(const int8_t *x, uint32_t n)
{
    uint32_t v = 0;
    if (n >= 4)
        __builtin_memcpy(&v, x, 4);
    else
        memcpy(&v, x, n);
    return v;
}

/* all pixels of 4 channels from c0 on */
EK_INLINE void pixels(const ek_dw *d, const ek_requant_dsp *q, const uint8_t *head, const tap *t, uint32_t taps, uint32_t c0, uint32_t n)
{
    const int32_t *bias = (const int32_t *)(const void *)head;
    const float *scale = (const float *)(const void *)(head + 16);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    const tap *end = t + taps;
    for (uint32_t p = d->count; p; p--, x += d->step, y += d->channels) {
        int32_t acc[4] = { bias[0], bias[1], bias[2], bias[3] };
        for (const tap *s = t; s != end; s++) {
            uint32_t v = load4(x + s->at, n), even = ek_even(v), odd = ek_odd(v);
            acc[0] = ek_smlabb(even, s->even, acc[0]);
            acc[1] = ek_smlabb(odd, s->odd, acc[1]);
            acc[2] = ek_smlatt(even, s->even, acc[2]);
            acc[3] = ek_smlatt(odd, s->odd, acc[3]);
        }
        EK_UNROLL for (uint32_t j = 0; j < 4; j++)
            if (j < n)
                y[j] = ek_requant_dsp_s8(acc[j], scale[j], q);
    }
}

static void dw_s8(const ek_dw *d)
{
    ptrdiff_t at[MAX_TAPS];
    tap t[MAX_TAPS];
    uint32_t taps = ek_dw_taps(d, at, MAX_TAPS), zero = (uint32_t)(d->w_zero & 0xffff) * 0x00010001u;
    if (!taps) {
        ek_dw_s8_portable(d);
        return;
    }
    const ek_requant_dsp q = ek_requant_dsp_of(d->lo, d->hi, d->zero);
    const uint8_t *head = d->w;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 4, head += 4u * (8 + taps)) {
        for (uint32_t i = 0; i < taps; i++) {
            uint32_t w = (uint32_t)ek_load_s32(head + 32 + 4 * i);
            t[i].at = at[i];
            __asm__("ssub16 %0, %1, %2" : "=r"(t[i].even) : "r"(ek_even(w)), "r"(zero) : "cc");
            __asm__("ssub16 %0, %1, %2" : "=r"(t[i].odd) : "r"(ek_odd(w)), "r"(zero) : "cc");
        }
        if (d->channels - c0 >= 4)
            pixels(d, &q, head, t, taps, c0, 4);
        else
            pixels(d, &q, head, t, taps, c0, d->channels - c0);
    }
}

static void dw_f32(const ek_dw *d)
{
    const float *w = (const float *)(const void *)d->w;
    for (uint32_t c = 0; c < d->channels; c++) {
        const float *b = w + (size_t)(c / 4) * 4 * (1 + (size_t)d->kh * d->kw) + c % 4;
        const float *x = (const float *)d->x + c;
        float *y = (float *)d->y + c;
        for (uint32_t p = 0; p < d->count; p++, x += d->step, y += d->channels) {
            const float *v = b;
            float acc = *v;
            for (uint32_t i = 0; i < d->kh; i++) {
                const float *row = x + (ptrdiff_t)i * d->dy;
                for (uint32_t j = 0; j < d->kw; j++, row += d->dx)
                    acc = ek_fma_dsp(*row, *(v += 4), acc);
            }
            *y = ek_clamp_f32(acc, d->lo, d->hi);
        }
    }
}

void ek_dw_dsp(ek_kernels *k)
{
    EK_SET(k, dw_s8, DW_S8, dw_s8, EK_ISA_DSP);
    EK_SET(k, dw_f32, DW_F32, dw_f32, EK_ISA_DSP);
    k->dw_s8_nr = 4;
    k->dw_f32_nr = 4;
}
#else
typedef int ek_no_dw_dsp; /* a translation unit must not be empty */
#endif
