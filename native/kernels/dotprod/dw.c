/* Depthwise 3x3 with SDOT: a column of a window is three bytes of a channel, side by side after two interleavings, and serves
 * every window it is part of. */
#if defined(__aarch64__)
#include "dotprod.h"

/* bytes of three rows and the last again, channel by channel */
EK_INLINE void interleave(const int8x16_t r[3], int8x16_t c[4], const unsigned nv)
{
    int16x8_t a = vreinterpretq_s16_s8(vzip1q_s8(r[0], r[1])), e = vreinterpretq_s16_s8(vzip1q_s8(r[2], r[2]));
    c[0] = vreinterpretq_s8_s16(vzip1q_s16(a, e));
    c[1] = vreinterpretq_s8_s16(vzip2q_s16(a, e));
    if (nv == 4) {
        a = vreinterpretq_s16_s8(vzip2q_s8(r[0], r[1]));
        e = vreinterpretq_s16_s8(vzip2q_s8(r[2], r[2]));
        c[2] = vreinterpretq_s8_s16(vzip1q_s16(a, e));
        c[3] = vreinterpretq_s8_s16(vzip2q_s16(a, e));
    }
}

/* the next column of 4 * nv channels */
EK_INLINE void column(ek_lines *l, int8x16_t c[4], const unsigned nv)
{
    int8x16_t r[3];
    EK_UNROLL for (int i = 0; i < 3; i++) {
        if (nv == 4)
            EK_NEXT_AT(r[i], l->at[i], l->step[i]);
        else
            EK_NEXT_HALF_AT(r[i], l->at[i], l->step[i]);
    }
    interleave(r, c, nv);
}

EK_INLINE EK_DOT void dot(int32x4_t s[4], const int8x16_t c[4], const int8x16_t w[4], const unsigned nv)
{
    EK_UNROLL for (unsigned v = 0; v < nv; v++)
        s[v] = vdotq_s32(s[v], c[v], w[v]);
}

EK_INLINE void start(int32x4_t s[4], const int32_t *bias, const unsigned nv)
{
    EK_UNROLL for (unsigned v = 0; v < nv; v++)
        s[v] = vld1q_s32(bias + 4 * v);
}

EK_INLINE int8_t *put(const int32x4_t s[4], const float *scale, const ek_requant_neon *q, int8_t *y, ptrdiff_t channels, const unsigned nv)
{
    if (nv == 4) {
        ek_put16(s, scale, q, y);
    } else {
        int16x8_t v = ek_requant8(s[0], s[1], vld1q_f32(scale), vld1q_f32(scale + 4), q->zero);
        vst1_s8(y, vget_low_s8(ek_clamp_s8(v, v, q)));
    }
    return y + channels;
}

/* all pixels of 4 * nv channels from c0 on; windows follow each other by 1 or 2 columns, or (0) share none */
EK_INLINE EK_DOT void pixels(const ek_dw *d, const uint8_t *head, uint32_t c0, const unsigned nv, const int stride)
{
    const ptrdiff_t channels = (ptrdiff_t)d->channels;
    const int32_t *bias = (const int32_t *)(const void *)head;
    const float *scale = (const float *)(const void *)(head + 64);
    const ek_requant_neon q = ek_requant_neon_of(d->lo, d->hi, d->zero);
    const int8x16_t fill = vdupq_n_s8((int8_t)d->fill);
    const int last = stride && ek_last_outside(d, stride);
    int8_t *y = (int8_t *)d->y + c0;
    int8x16_t w[3][4], c[4];
    EK_UNROLL for (int j = 0; j < 3; j++) {
        int8x16_t r[3];
        EK_UNROLL for (int i = 0; i < 3; i++)
            r[i] = vld1q_s8((const int8_t *)head + 128 + 48 * i + 16 * j);
        interleave(r, w[j], nv);
        EK_UNROLL for (unsigned v = 0; v < nv; v++)
            w[j][v] = vreinterpretq_s8_u32(vandq_u32(vreinterpretq_u32_s8(w[j][v]), vdupq_n_u32(0xffffff)));
    }
    for (uint32_t r = 0; r < d->rows; r++) {
        ek_lines l;
        int32x4_t s[3][4];
        uint32_t p = d->count - (uint32_t)last;
        ek_lines_of(&l, d, (const int8_t *)d->x + c0, 1, r, 3, &fill);
#define EK_OUTSIDE()                                  \
        EK_UNROLL for (unsigned v = 0; v < nv; v++)   \
            c[v] = fill
        if (!stride) {
            for (; p; p--) {
                start(s[0], bias, nv);
                EK_UNROLL for (int j = 0; j < 3; j++) {
                    column(&l, c, nv);
                    dot(s[0], c, w[j], nv);
                }
                EK_UNROLL for (int i = 0; i < 3; i++)
                    l.at[i] += d->step - 3 * d->dx;
                y = put(s[0], scale, &q, y, channels, nv);
            }
            continue;
        }
        start(s[0], bias, nv);
        if (ek_first_outside(d, &l, 3))
            EK_OUTSIDE();
        else
            column(&l, c, nv);
        dot(s[0], c, w[0], nv);
        if (stride == 1) {
            column(&l, c, nv);
            dot(s[0], c, w[1], nv);
            start(s[1], bias, nv);
            dot(s[1], c, w[0], nv);
#define EK_NEXT(i, j, k)                              \
            column(&l, c, nv);                        \
            dot(s[i], c, w[2], nv);                   \
            dot(s[j], c, w[1], nv);                   \
            start(s[k], bias, nv);                    \
            dot(s[k], c, w[0], nv);                   \
            y = put(s[i], scale, &q, y, channels, nv);\
            if (!--p)                                 \
                break;
            while (p) {
                EK_NEXT(0, 1, 2)
                EK_NEXT(1, 2, 0)
                EK_NEXT(2, 0, 1)
            }
#undef EK_NEXT
        } else {
#define EK_NEXT(i, j)                                 \
            column(&l, c, nv);                        \
            dot(s[i], c, w[1], nv);                   \
            column(&l, c, nv);                        \
            dot(s[i], c, w[2], nv);                   \
            start(s[j], bias, nv);                    \
            dot(s[j], c, w[0], nv);                   \
            y = put(s[i], scale, &q, y, channels, nv);\
            if (!--p)                                 \
                break;
            while (p) {
                EK_NEXT(0, 1)
                EK_NEXT(1, 0)
            }
#undef EK_NEXT
        }
        if (last) {
            ek_lines_on(&l, 3, stride == 1 ? -2 : -1);
            start(s[0], bias, nv);
            EK_UNROLL for (int j = 0; j < 3; j++) {
                if (j < 2)
                    column(&l, c, nv);
                else
                    EK_OUTSIDE();
                dot(s[0], c, w[j], nv);
            }
            y = put(s[0], scale, &q, y, channels, nv);
        }
#undef EK_OUTSIDE
    }
}

/* each on its own: inlined into one function they spill */
#define EK_PIXELS(name, nv, stride) \
    static __attribute__((noinline)) EK_DOT void name(const ek_dw *d, const uint8_t *head, uint32_t c0) { pixels(d, head, c0, nv, stride); }
EK_PIXELS(pixels16_0, 4, 0)
EK_PIXELS(pixels16_1, 4, 1)
EK_PIXELS(pixels16_2, 4, 2)
EK_PIXELS(pixels8_0, 2, 0)
EK_PIXELS(pixels8_1, 2, 1)
EK_PIXELS(pixels8_2, 2, 2)
#undef EK_PIXELS

static void dw_s8(const ek_dw *d)
{
    static void (*const of[2][3])(const ek_dw *, const uint8_t *, uint32_t) = {
        { pixels8_0, pixels8_1, pixels8_2 }, { pixels16_0, pixels16_1, pixels16_2 },
    };
    const int stride = d->step == d->dx ? 1 : d->step == 2 * d->dx ? 2 : 0;
    const uint8_t *head = d->w;
    uint32_t c = 0;
    if (d->kh == 3 && d->kw == 3 && !d->w_zero)
        for (uint32_t n; d->channels - c >= 8; c += n) {
            n = c % 16 || d->channels - c < 16 ? 8 : 16;
            if (n == 8 && d->channels - c > 8)
                break; /* 9 to 15 channels in the last block */
            of[n == 16][stride](d, head + c / 16 * (16 * 17), c);
        }
    if (c < d->channels)
        ek_dw_s8_neon(d, c);
}

void ek_dw_dotprod(ek_kernels *k)
{
    EK_SET(k, dw_s8, DW_S8, dw_s8, EK_ISA_DOTPROD);
    k->dw_s8_nr = 16;
    k->dw_edges |= EK_EDGES_S8_9;
}
#else
typedef int ek_no_dw_dotprod; /* a translation unit must not be empty */
#endif
