/* Depthwise convolution with the DSP extension: a word is 4 channels; SMLABB and SMLATT multiply one halfword each, so no
 * shuffling of taps is needed. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "dsp.h"

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
    if (EK_W_ZERO && zero) {
        even_w = subtract(even_w, zero);
        odd_w = subtract(odd_w, zero);
    }
    acc[0] = ek_smlabb(even, even_w, acc[0]);
    acc[1] = ek_smlabb(odd, odd_w, acc[1]);
    acc[2] = ek_smlatt(even, even_w, acc[2]);
    acc[3] = ek_smlatt(odd, odd_w, acc[3]);
}

/* all pixels of n channels from c0 on */
static void pixels(const ek_dw *d, const ek_requant_dsp *q, const uint8_t *head, uint32_t zero,
                   uint32_t c0, uint32_t n)
{
    const int32_t *bias = (const int32_t *)(const void *)head;
    const float *scale = (const float *)(const void *)(head + 16);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    for (uint32_t p = d->count; p; p--, x += d->step, y += d->channels) {
        const uint8_t *w = head + 32;
        int32_t acc[4] = { bias[0], bias[1], bias[2], bias[3] };
        const int8_t *line = x;
        for (uint32_t i = d->kh; i; i--, line += d->dy) {
            const int8_t *tap = line;
            for (uint32_t j = d->kw; j; j--, tap += d->dx, w += 4)
                step(tap, w, zero, n, acc);
        }
        int32_t v[4];
        EK_UNROLL for (uint32_t j = 0; j < 4; j++)
            v[j] = ek_requant_dsp_wide(acc[j], scale[j], q);
        ek_put4_dsp(v, q, y, n);
    }
}

#if defined(__ARM_FP) && !defined(__SOFTFP__)
/* An image 3x3 with strides of 1 or 2: a channel at a time is taken out as lines of int16, padded, so that SMLAD multiplies
 * neighbours along a line and 6 registers hold the weights.  Scratch is a ring of three lines: each is taken out once. */
typedef struct plane {
    uint32_t *x[3];      /* lines of the window */
    int8_t *y;
    int32_t zero, step;  /* from here on in s0-s5; step: bytes to the next output of a line */
    uint32_t pairs, odd; /* bytes of a line that whole pairs of outputs take; of one more pair, 0 if there is none */
    int32_t bias;
    float scale;
    uint32_t w[6];       /* of each line weights 0 and 1, 1 and 2 */
} plane;

/* two outputs of one line of the window, r9 and r10; r11 and r12 hold four or six inputs */
#define EK_LINE1(p, w, v)                                                              \
    "ldr r11, [" p "], #4\n\tldr r12, [" p "]\n\t"                                    \
    "smlad r9, r11, " w ", r9\n\tsmlabt r9, r12, " v ", r9\n\t"                       \
    "smlatb r10, r11, " w ", r10\n\tsmlad r10, r12, " v ", r10\n\t"
#define EK_LINE2(p, w, v)                                                              \
    "ldr r11, [" p "], #4\n\tldr r12, [" p "], #4\n\t"                                \
    "smlad r9, r11, " w ", r9\n\tsmlabt r9, r12, " v ", r9\n\tldr r11, [" p "]\n\t"  \
    "smlad r10, r12, " w ", r10\n\tsmlabt r10, r11, " v ", r10\n\t"
/* One line of outputs.  r0-r2: lines, r3-r8: weights, lr: y.  An odd output is computed with a neighbour that goes to the
 * same place first.  s9: where outputs end, s12: step, or 0. */
#define EK_PLANE(line)                                                                 \
    __asm__("push {r4-r11, lr}\n\t"                                                  \
            "add r3, r0, #16\n\tvldmia r3!, {s0-s5}\n\tldm r0, {r0-r2, lr}\n\tldm r3, {r3-r8}\n\t" \
            "vmov r11, s2\n\tvmov s12, s1\n"                                          \
            "2:\n\tadd r11, r0, r11\n\tvmov s9, r11\n\tcmp r0, r11\n\tbeq.w 4f\n"  \
            "3:\n\tvmov r9, s4\n\tmov r10, r9\n\t"                                    \
            line("r0", "r3", "r4") line("r1", "r5", "r6") line("r2", "r7", "r8")       \
            "vmov s13, r9\n\tvmov s14, r10\n\tvcvt.f32.s32 s13, s13\n\tvcvt.f32.s32 s14, s14\n\t" \
            "vmul.f32 s13, s13, s5\n\tvmul.f32 s14, s14, s5\n\tvcvtr.s32.f32 s13, s13\n\tvcvtr.s32.f32 s14, s14\n\t" \
            "vmov r9, s13\n\tvmov r10, s14\n\tvmov r11, s0\n\tvmov r12, s12\n\t"   \
            "qadd r9, r9, r11\n\tqadd r10, r10, r11\n\tssat r9, #8, r9\n\tssat r10, #8, r10\n\t" \
            "strb r10, [lr, r12]\n\tstrb r9, [lr]\n\tadd lr, lr, r12, lsl #1\n\t"   \
            "vmov r11, s9\n\tcmp r0, r11\n\tbne.w 3b\n"                               \
            "4:\n\tvmov r11, s3\n\tvmov r12, s12\n\tcmp r11, #0\n\tbeq 5f\n\tcmp r12, #0\n\tbeq 5f\n\t" \
            "movs r12, #0\n\tvmov s12, r12\n\tb 2b\n"                                 \
            "5:\n\tpop {r4-r11, pc}")

__attribute__((naked, noinline)) static void plane1(const plane *p __attribute__((unused)))
{
    EK_PLANE(EK_LINE1);
}

__attribute__((naked, noinline)) static void plane2(const plane *p __attribute__((unused)))
{
    EK_PLANE(EK_LINE2);
}

/* n int8, `step` apart, to int16 */
__attribute__((naked, noinline)) static void take(const int8_t *x __attribute__((unused)), ptrdiff_t step __attribute__((unused)),
                                                  uint32_t n __attribute__((unused)), int16_t *to __attribute__((unused)))
{
    __asm__("push {r4-r7}\n\tadd r12, r1, r1, lsl #1\n\tsubs r2, r2, #4\n\tblo 2f\n"
            "1:\n\tldrsb r4, [r0]\n\tldrsb r5, [r0, r1]\n\tldrsb r6, [r0, r1, lsl #1]\n\tldrsb r7, [r0, r12]\n\tadd r0, r0, r1, lsl #2\n\t"
            "strh r4, [r3]\n\tstrh r5, [r3, #2]\n\tstrh r6, [r3, #4]\n\tstrh r7, [r3, #6]\n\tadds r3, r3, #8\n\t"
            "subs r2, r2, #4\n\tbhs 1b\n"
            "2:\n\tadds r2, r2, #4\n\tbeq 4f\n"
            "3:\n\tldrsb r4, [r0]\n\tadd r0, r0, r1\n\tstrh r4, [r3], #2\n\tsubs r2, r2, #1\n\tbne 3b\n"
            "4:\n\tpop {r4-r7}\n\tbx lr");
}

/* one of the two directions; steps in bytes */
typedef struct axis {
    uint32_t in, out, stride, pad;
    ptrdiff_t x, y;
} axis;

static void weigh(const ek_dw *d, uint32_t c, plane *l, const int turned)
{
    const uint8_t *head = d->w + c / 4 * (4u * (8 + 9)) + c % 4 * 4;
    const int8_t *w = (const int8_t *)(d->w + c / 4 * (4u * (8 + 9)) + 32 + c % 4);
    ptrdiff_t next = turned ? 12 : 4, line = turned ? 4 : 12;
    memcpy(&l->bias, head, 4);
    memcpy(&l->scale, head + 16, 4);
    for (uint32_t i = 0; i < 3; i++, w += line) {
        uint32_t a = (uint32_t)(w[0] - d->w_zero), b = (uint32_t)(w[next] - d->w_zero), e = (uint32_t)(w[2 * next] - d->w_zero);
        l->w[2 * i] = (a & 0xffff) | b << 16;
        l->w[2 * i + 1] = (b & 0xffff) | e << 16;
    }
}

EK_COLD static int dw_image(const ek_dw *d)
{
    axis in = { d->columns, d->count, (uint32_t)(d->step / d->dx), d->left, d->dx, (ptrdiff_t)d->channels };
    axis out = { d->h, d->rows, d->row_stride, d->top, d->dy, (ptrdiff_t)d->count * (ptrdiff_t)d->channels };
    const int turned = out.out > in.out; /* lines are columns */
    if (turned) {
        axis t = in;
        in = out;
        out = t;
    }
    const uint32_t words = (in.out + 1) / 2 * in.stride + 1; /* twin of plane_bytes in edgekit/ops/depthwise_conv2d.py */
    if (d->kh != 3 || d->kw != 3 || in.stride > 2 || d->room_bytes < 12 * words || ek_requant_dsp_of(d->lo, d->hi, d->zero).narrow
        || in.pad >= 2 * words || d->step % d->dx)
        return 0;
    const uint32_t have = 2 * words - in.pad, n = have < in.in ? have : in.in, fresh = out.stride < 3 ? out.stride : 3;
    const int8_t fill = (int8_t)d->fill;
    uint32_t *room = (uint32_t *)(void *)d->room;
    plane p = { .x = { room, room + words, room + 2 * words }, .zero = d->zero, .step = (int32_t)in.y,
                .pairs = in.out / 2 * 4 * in.stride, .odd = in.out % 2 * 4 * in.stride };
    take(&fill, 0, 6 * words, (int16_t *)(void *)room); /* padding along the lines stays */
    for (uint32_t c = 0; c < d->channels; c++) {
        weigh(d, c, &p, turned);
        p.y = (int8_t *)d->y + c;
        uint32_t at = 0u - out.pad, more = 3; /* the next line to take; before the image it is larger than any */
        for (uint32_t o = 0; o < out.out; o++, p.y += out.y) {
            for (at += 3 - more; more; more--, at++) {
                uint32_t *t = p.x[0];
                p.x[0] = p.x[1];
                p.x[1] = p.x[2];
                p.x[2] = t;
                int there = at < out.in;
                take(there ? (const int8_t *)d->x + c + (ptrdiff_t)at * out.x : &fill, there ? in.x : 0, n, (int16_t *)(void *)t + in.pad);
            }
            (in.stride == 1 ? plane1 : plane2)(&p);
            more = fresh;
            at += out.stride - 3; /* of the next window, the first line */
        }
    }
    return 1;
}
#endif

static void dw_s8(const ek_dw *d)
{
    uint32_t zero = EK_W_ZERO ? (uint32_t)(d->w_zero & 0xffff) * 0x00010001u : 0;
    const ek_requant_dsp q = ek_requant_dsp_of(d->lo, d->hi, d->zero);
    const uint8_t *head = d->w;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 4, head += 4u * (8 + d->kh * d->kw))
        pixels(d, &q, head, zero, c0, d->channels - c0);
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
#if defined(__ARM_FP) && !defined(__SOFTFP__)
    k->dw_image = EK_USES(DW_S8) ? dw_image : 0;
#endif
    k->dw_s8_nr = 4;
    k->dw_f32_nr = 4;
}
#else
typedef int ek_no_dw_dsp; /* a translation unit must not be empty */
#endif
