/* Depthwise convolution with the DSP extension: a word is 4 channels; SMLABB and SMLATT multiply one halfword each, so no
 * shuffling of taps is needed. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "dsp.h"
#include "dw.h"
#include "portable.h"

enum { MAX_TAPS = 52 }; /* 7x7 and a multiple of 4; bounds the stack */

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

EK_INLINE uint32_t subtract(uint32_t x, uint32_t y)
{
    __asm__("ssub16 %0, %0, %1" : "+r"(x) : "r"(y) : "cc");
    return x;
}

/* one tap of 4 channels; zero: the weights' zero point in both halves */
EK_INLINE void step(const int8_t *x, const uint8_t *w, uint32_t zero, uint32_t n, int32_t acc[4])
{
    uint32_t v = load4(x, n), even = ek_even(v), odd = ek_odd(v);
    v = (uint32_t)ek_load_s32(w);
    uint32_t even_w = ek_even(v), odd_w = ek_odd(v);
    if (zero) {
        even_w = subtract(even_w, zero);
        odd_w = subtract(odd_w, zero);
    }
    acc[0] = ek_smlabb(even, even_w, acc[0]);
    acc[1] = ek_smlabb(odd, odd_w, acc[1]);
    acc[2] = ek_smlatt(even, even_w, acc[2]);
    acc[3] = ek_smlatt(odd, odd_w, acc[3]);
}

/* all pixels of n channels from c0 on; taps, zero and n are constants where that pays */
EK_INLINE void pixels(const ek_dw *d, const ek_requant_dsp *q, const uint8_t *head, const ptrdiff_t *at, const uint32_t taps,
                      const uint32_t zero, uint32_t c0, const uint32_t n)
{
    const int32_t *bias = (const int32_t *)(const void *)head;
    const float *scale = (const float *)(const void *)(head + 16);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    const uint8_t *w = head + 32;
    for (uint32_t p = d->count; p; p--, x += d->step, y += d->channels) {
        int32_t acc[4] = { bias[0], bias[1], bias[2], bias[3] };
        if (taps == 9) {
            EK_UNROLL for (uint32_t t = 0; t < 9; t++) {
                step(x + at[t], w + 4 * t, zero, n, acc);
                __asm__("" : : : "memory"); /* GCC would load all taps first, and spill */
            }
        } else {
            for (uint32_t t = 0; t < taps; t++)
                step(x + at[t], w + 4 * t, zero, n, acc);
        }
        int32_t v[4];
        EK_UNROLL for (uint32_t j = 0; j < 4; j++)
            v[j] = ek_requant_dsp_wide(acc[j], scale[j], q);
        if (q->narrow)
            EK_UNROLL for (uint32_t j = 0; j < 4; j++)
                v[j] = ek_clamp_dsp(v[j], q);
        EK_UNROLL for (uint32_t j = 0; j < 4; j++)
            if (j < n)
                y[j] = (int8_t)v[j];
    }
}

typedef struct line {
    const int8_t *x;
    int8_t *y;
    const uint8_t *w;    /* a block's taps, its bias and scale in front */
    ptrdiff_t dx, dy, step, channels; /* bytes */
    uint32_t count;      /* pixels, at least 1 */
    int32_t zero;
} line;

#if defined(__ARM_FP) && !defined(__SOFTFP__)
/* r0: a row of taps, r1: dx, r12: taps, r4-r7: sums */
#define EK_TAP(address)                                                               \
    "ldr r8, [" address "]\n\tldr r9, [r12], #4\n\t"                               \
    "sxtb16 r10, r8\n\tsxtb16 r8, r8, ror #8\n\t"                                  \
    "sxtb16 r11, r9\n\tsxtb16 r9, r9, ror #8\n\t"                                  \
    "smlabb r4, r10, r11, r4\n\tsmlatt r6, r10, r11, r6\n\t"                       \
    "smlabb r5, r8, r9, r5\n\tsmlatt r7, r8, r9, r7\n\t"
#define EK_TAPS3 EK_TAP("r0") EK_TAP("r0, r1") EK_TAP("r0, r1, lsl #1")
#define EK_FLOAT(acc, s, scale) "vmov " s ", " acc "\n\tvcvt.f32.s32 " s ", " s "\n\tvmul.f32 " s ", " s ", " scale "\n\tvcvtr.s32.f32 " s ", " s "\n\t"
#define EK_BYTE(acc, s, at) "vmov " acc ", " s "\n\tqadd " acc ", " acc ", r8\n\tssat " acc ", #8, " acc "\n\tstrb " acc ", [r9, #" at "]\n\t"

/* 3x3 taps of 4 channels along a row, no bounds but int8's: compilers spill here */
__attribute__((naked, noinline)) static void line9(const line *l __attribute__((unused)))
{
    __asm__("push {r4-r11, lr}\n\t"
            "mov r3, r0\n\tldr r0, [r3]\n\tldr r12, [r3, #8]\n\tldrd r1, r2, [r3, #12]\n\tldr lr, [r3, #28]\n\t"
            "sub r12, r12, #16\n\tvldmia r12!, {s4-s7}\n"
            "1:\tldrd r4, r5, [r12, #-32]\n\tldrd r6, r7, [r12, #-24]\n\t"
            EK_TAPS3 "add r0, r0, r2\n\t" EK_TAPS3 "add r0, r0, r2\n\t" EK_TAPS3
            "sub r12, r12, #36\n\tsub r0, r0, r2, lsl #1\n\t"
            EK_FLOAT("r4", "s0", "s4") EK_FLOAT("r5", "s1", "s5") EK_FLOAT("r6", "s2", "s6") EK_FLOAT("r7", "s3", "s7")
            "ldr r8, [r3, #32]\n\tldr r9, [r3, #4]\n\tldrd r10, r11, [r3, #20]\n\t"
            EK_BYTE("r4", "s0", "0") EK_BYTE("r5", "s1", "1") EK_BYTE("r6", "s2", "2") EK_BYTE("r7", "s3", "3")
            "add r0, r0, r10\n\tadd r9, r9, r11\n\tstr r9, [r3, #4]\n\t"
            "subs lr, lr, #1\n\tbne.w 1b\n\t"
            "pop {r4-r11, pc}");
}

static int has_line9(const ek_dw *d, const ek_requant_dsp *q)
{
    return d->kh == 3 && d->kw == 3 && !d->w_zero && !q->narrow && d->count;
}
#else
static void line9(const line *l) { (void)l; }

static int has_line9(const ek_dw *d, const ek_requant_dsp *q)
{
    (void)d;
    (void)q;
    return 0;
}
#endif

static void dw_s8(const ek_dw *d)
{
    ptrdiff_t at[MAX_TAPS];
    uint32_t taps = ek_dw_taps(d, at, MAX_TAPS), zero = (uint32_t)(d->w_zero & 0xffff) * 0x00010001u;
    if (!taps) {
        ek_dw_s8_portable(d);
        return;
    }
    const ek_requant_dsp q = ek_requant_dsp_of(d->lo, d->hi, d->zero);
    const uint8_t *head = d->w;
    const int lines = has_line9(d, &q);
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 4, head += 4u * (8 + taps)) {
        if (lines && d->channels - c0 >= 4) {
            line l = { (const int8_t *)d->x + c0, (int8_t *)d->y + c0, head + 32, d->dx, d->dy, d->step, (ptrdiff_t)d->channels,
                       d->count, d->zero };
            line9(&l);
        } else if (d->channels - c0 >= 4 && taps == 9 && !zero)
            pixels(d, &q, head, at, 9, 0, c0, 4);
        else if (d->channels - c0 >= 4)
            pixels(d, &q, head, at, taps, zero, c0, 4);
        else
            pixels(d, &q, head, at, taps, zero, c0, d->channels - c0);
    }
}

/* one pixel of n channels */
EK_INLINE void pixel_f32(const ek_dw *d, const float *x, const float *w, float *y, const uint32_t n)
{
    float acc[4];
    EK_UNROLL for (uint32_t j = 0; j < n; j++)
        acc[j] = w[j];
    for (uint32_t i = 0; i < d->kh; i++, x += d->dy) {
        const float *tap = x;
        for (uint32_t l = d->kw; l; l--, tap += d->dx) {
            w += 4;
            EK_UNROLL for (uint32_t j = 0; j < n; j++)
                acc[j] = ek_fma_dsp(tap[j], w[j], acc[j]);
        }
    }
    EK_UNROLL for (uint32_t j = 0; j < n; j++)
        y[j] = ek_clamp_f32(acc[j], d->lo, d->hi);
}

static void dw_f32(const ek_dw *d)
{
    const float *w = (const float *)(const void *)d->w;
    for (uint32_t c = 0; c < d->channels; c += 4, w += 4 * (1 + (size_t)d->kh * d->kw)) {
        const float *x = (const float *)d->x + c;
        float *y = (float *)d->y + c;
        for (uint32_t p = 0; p < d->count; p++, x += d->step, y += d->channels) {
            if (d->channels - c >= 4)
                pixel_f32(d, x, w, y, 4);
            else
                for (uint32_t j = 0; c + j < d->channels; j++)
                    pixel_f32(d, x + j, w + j, y + j, 1);
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
