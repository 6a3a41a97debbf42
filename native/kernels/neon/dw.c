/* Depthwise convolution with Advanced SIMD: int8 weights less their zero point as int16, through SMLAL. */
#if defined(__aarch64__)
#include "dw.h"
#include "neon.h"
#include "portable.h"

enum { MAX_TAPS = 64 };

/* every output pixel: those of a row follow each other in y as the rows do, in x a row ends with a jump */
#define EK_PIXELS(d, x, y)                                                                        \
    for (uint32_t row = (d)->rows; row; row--, x += (d)->row_step - (ptrdiff_t)(d)->count * (d)->step) \
        for (uint32_t p = (d)->count; p; p--, x += (d)->step, y += (d)->channels)

EK_INLINE int8x8_t load8(const int8_t *x, uint32_t n)
{
    if (n >= 8)
        return vld1_s8(x);
    int8_t part[8] = { 0 };
    memcpy(part, x, n);
    return vld1_s8(part);
}

/* all pixels of 16 channels */
static void pixels16(const ek_dw *d, const int16x8_t *w, const uint8_t *head, const ptrdiff_t *at, uint32_t c0, uint32_t taps)
{
    const ek_requant_neon q = ek_requant_neon_of(d->lo, d->hi, d->zero);
    const int32_t *bias = (const int32_t *)(const void *)head;
    const float *scale = (const float *)(const void *)(head + 64);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    EK_PIXELS(d, x, y) {
        int32x4_t s[4] = { vld1q_s32(bias), vld1q_s32(bias + 4), vld1q_s32(bias + 8), vld1q_s32(bias + 12) };
        for (uint32_t t = 0; t < taps; t++) {
            int8x16_t v = vld1q_s8(x + at[t]);
            int16x8_t lo = vmovl_s8(vget_low_s8(v)), hi = vmovl_high_s8(v);
            s[0] = vmlal_s16(s[0], vget_low_s16(lo), vget_low_s16(w[2 * t]));
            s[1] = vmlal_high_s16(s[1], lo, w[2 * t]);
            s[2] = vmlal_s16(s[2], vget_low_s16(hi), vget_low_s16(w[2 * t + 1]));
            s[3] = vmlal_high_s16(s[3], hi, w[2 * t + 1]);
        }
        ek_put16(s, scale, &q, y);
    }
}

/* Whether 16-bit sums of two products cannot overflow: no weight is -128, no zero point. */
static int small(const ek_dw *d, const int8_t *w, uint32_t taps)
{
    int8x16_t low = vdupq_n_s8(0);
    for (uint32_t t = 0; t < taps; t++)
        low = vminq_s8(low, vld1q_s8(w + 16 * t));
    return !d->w_zero && vminvq_s8(low) != -128;
}

/* 3x3 with such weights: two taps share one widening */
static void pixels16_small(const ek_dw *d, const uint8_t *head, uint32_t c0)
{
    const ptrdiff_t dx = d->dx, dx2 = 2 * dx, dy = d->dy, dy2 = 2 * dy, step = d->step, channels = (ptrdiff_t)d->channels;
    const ek_requant_neon q = ek_requant_neon_of(d->lo, d->hi, d->zero);
    const int32_t *bias = (const int32_t *)(const void *)head;
    const float *scale = (const float *)(const void *)(head + 64);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    int8x16_t w[9];
    EK_UNROLL for (int t = 0; t < 9; t++)
        w[t] = vld1q_s8((const int8_t *)head + 128 + 16 * t);
    for (uint32_t row = d->rows; row; row--, x += d->row_step - (ptrdiff_t)d->count * step)
        for (uint32_t p = d->count; p; p--, x += step, y += channels) {
            const int8_t *r[3] = { x, x + dy, x + dy2 };
            int32x4_t s[4] = { vld1q_s32(bias), vld1q_s32(bias + 4), vld1q_s32(bias + 8), vld1q_s32(bias + 12) };
            int8x16_t v[9];
            EK_UNROLL for (int i = 0; i < 3; i++) {
                v[3 * i] = vld1q_s8(r[i]);
                v[3 * i + 1] = vld1q_s8(r[i] + dx);
                v[3 * i + 2] = vld1q_s8(r[i] + dx2);
            }
            EK_UNROLL for (int t = 0; t < 9; t += 2) {
                int16x8_t lo = vmull_s8(vget_low_s8(v[t]), vget_low_s8(w[t])), hi = vmull_high_s8(v[t], w[t]);
                if (t < 8) {
                    lo = vmlal_s8(lo, vget_low_s8(v[t + 1]), vget_low_s8(w[t + 1]));
                    hi = vmlal_high_s8(hi, v[t + 1], w[t + 1]);
                }
                s[0] = vaddw_s16(s[0], vget_low_s16(lo));
                s[1] = vaddw_high_s16(s[1], lo);
                s[2] = vaddw_s16(s[2], vget_low_s16(hi));
                s[3] = vaddw_high_s16(s[3], hi);
            }
            ek_put16(s, scale, &q, y);
        }
}

/* all pixels of up to 8 channels: the half `h` of a block */
static void pixels8(const ek_dw *d, const int16x8_t *w, const uint8_t *head, const ptrdiff_t *at, uint32_t c0, uint32_t taps, uint32_t h)
{
    uint32_t left = d->channels - c0;
    const int32_t *bias = (const int32_t *)(const void *)head + 8 * h;
    const float *scale = (const float *)(const void *)(head + 64) + 8 * h;
    const ek_requant_neon q = ek_requant_neon_of(d->lo, d->hi, d->zero);
    const int8_t *x = (const int8_t *)d->x + c0;
    int8_t *y = (int8_t *)d->y + c0;
    EK_PIXELS(d, x, y) {
        int32x4_t s0 = vld1q_s32(bias), s1 = vld1q_s32(bias + 4);
        for (uint32_t t = 0; t < taps; t++) {
            int16x8_t v = vmovl_s8(load8(x + at[t], left));
            s0 = vmlal_s16(s0, vget_low_s16(v), vget_low_s16(w[2 * t + h]));
            s1 = vmlal_high_s16(s1, v, w[2 * t + h]);
        }
        int16x8_t v = ek_requant8(s0, s1, vld1q_f32(scale), vld1q_f32(scale + 4), q.zero);
        ek_store8_s8(y, vget_low_s8(ek_clamp_s8(v, v, &q)), left);
    }
}

void ek_dw_s8_neon(const ek_dw *d, uint32_t c0)
{
    ptrdiff_t at[MAX_TAPS];
    int16x8_t w[2 * MAX_TAPS];
    uint32_t taps = ek_dw_taps(d, at, MAX_TAPS);
    if (!taps) {
        ek_dw_s8_portable(d); /* all of them */
        return;
    }
    const uint8_t *head = d->w + c0 / 16 * (16u * (8 + taps));
    const int16x8_t zero = vdupq_n_s16((int16_t)d->w_zero);
    for (; c0 < d->channels; c0 += 16, head += 16u * (8 + taps)) {
        const int8_t *packed = (const int8_t *)head + 128;
        if (d->kh == 3 && d->kw == 3 && d->channels - c0 >= 16 && small(d, packed, taps)) {
            pixels16_small(d, head, c0);
            continue;
        }
        for (uint32_t t = 0; t < taps; t++) {
            int8x16_t v = vld1q_s8(packed + 16 * t);
            w[2 * t] = vsubq_s16(vmovl_s8(vget_low_s8(v)), zero);
            w[2 * t + 1] = vsubq_s16(vmovl_high_s8(v), zero);
        }
        if (d->channels - c0 >= 16) {
            pixels16(d, w, head, at, c0, taps);
        } else {
            pixels8(d, w, head, at, c0, taps, 0);
            if (d->channels - c0 > 8)
                pixels8(d, w, head, at, c0 + 8, taps, 1);
        }
    }
}

static void dw_s8(const ek_dw *d) { ek_dw_s8_neon(d, 0); }

EK_INLINE float32x4_t load4(const float *x, uint32_t n)
{
    if (n >= 4)
        return vld1q_f32(x);
    float part[4] = { 0 };
    memcpy(part, x, n * sizeof *x);
    return vld1q_f32(part);
}

/* np pixels of up to 4 channels */
EK_INLINE void pixels_f32(const ek_dw *d, const float *x, const float *w, float *y, uint32_t left, const unsigned np)
{
    float32x4_t acc[4];
    EK_UNROLL for (unsigned p = 0; p < np; p++)
        acc[p] = vld1q_f32(w);
    for (uint32_t i = 0; i < d->kh; i++) {
        const float *row = x + (ptrdiff_t)i * d->dy;
        for (uint32_t j = 0; j < d->kw; j++, row += d->dx) {
            w += 8;
            float32x4_t wv = vld1q_f32(w);
            EK_UNROLL for (unsigned p = 0; p < np; p++)
                acc[p] = vfmaq_f32(acc[p], load4(row + (ptrdiff_t)p * d->step, left), wv);
        }
    }
    EK_UNROLL for (unsigned p = 0; p < np; p++)
        ek_store4_f32(y + p * (size_t)d->channels, ek_clampq(acc[p], d->lo, d->hi), left);
}

/* columns of `lines` input rows, 4 channels of each */
EK_INLINE void column_f32(float32x4_t c[5], ek_lines *l, const unsigned lines)
{
    EK_UNROLL for (unsigned k = 0; k < lines; k++)
        EK_NEXT_AT(c[k], l->at[k], l->step[k]);
}

/* 3x3, 4 channels of the output rows from r on or, if `lines` is 4 or 5, of pairs of them, which are 1 or 2 input rows apart.  The
 * weights stay in registers, and so do the columns that the next window shares: it lies `stride` columns on.  Returns the next row. */
EK_INLINE uint32_t nine_f32(const ek_dw *d, uint32_t c0, const float *w, uint32_t r, const int stride, const unsigned lines)
{
    const float32x4_t bias = vld1q_f32(w), lo = vdupq_n_f32(d->lo), hi = vdupq_n_f32(d->hi), none = vdupq_n_f32(0);
    const unsigned nr = lines > 3 ? 2 : 1;
    const ptrdiff_t next = (ptrdiff_t)(d->channels * sizeof(float));
    const int last = ek_last_outside(d, stride);
    float32x4_t v[9], c[3][5];
    EK_UNROLL for (int i = 0; i < 9; i++)
        v[i] = vld1q_f32(w + 8 + 8 * i);
#define EK_PIXEL(i, j, k)                                                                                   \
    EK_UNROLL for (unsigned o = 0; o < nr; o++) {                                                           \
        const unsigned t = o * (lines - 3);                                                                 \
        float32x4_t s = vfmaq_f32(vfmaq_f32(vfmaq_f32(bias, c[i][t], v[0]), c[i][t + 1], v[3]), c[i][t + 2], v[6]); \
        s = vfmaq_f32(vfmaq_f32(vfmaq_f32(s, c[j][t], v[1]), c[j][t + 1], v[4]), c[j][t + 2], v[7]);        \
        s = vfmaq_f32(vfmaq_f32(vfmaq_f32(s, c[k][t], v[2]), c[k][t + 1], v[5]), c[k][t + 2], v[8]);        \
        EK_PUT_AT(y[o], vminnmq_f32(vmaxnmq_f32(s, lo), hi), next);                                         \
    }
#define EK_NEXT(i, j, k)                      \
    if (stride == 2)                          \
        column_f32(c[j], &l, lines);          \
    column_f32(c[k], &l, lines);              \
    EK_PIXEL(i, j, k)                         \
    if (!--p)                                 \
        break;
    for (; r + nr <= d->rows; r += nr) {
        float *y[2] = { (float *)d->y + c0 + (size_t)r * d->count * d->channels };
        uint32_t p = d->count - (uint32_t)last;
        ek_lines l;
        y[1] = y[0] + (size_t)d->count * d->channels;
        ek_lines_of(&l, d, (const float *)d->x + c0, sizeof(float), r, lines, &none);
        if (ek_first_outside(d, &l, lines))
            EK_UNROLL for (unsigned k = 0; k < lines; k++)
                c[0][k] = none;
        else
            column_f32(c[0], &l, lines);
        if (stride == 1)
            column_f32(c[1], &l, lines);
        while (p) {
            if (stride == 1) {
                EK_NEXT(0, 1, 2)
                EK_NEXT(1, 2, 0)
                EK_NEXT(2, 0, 1)
            } else {
                EK_NEXT(0, 1, 2)
                EK_NEXT(2, 1, 0)
            }
        }
        if (last) {
            ek_lines_on(&l, lines, stride == 1 ? -2 : -1);
            column_f32(c[0], &l, lines);
            column_f32(c[1], &l, lines);
            EK_UNROLL for (unsigned k = 0; k < lines; k++)
                c[2][k] = none;
            EK_PIXEL(0, 1, 2)
        }
    }
#undef EK_NEXT
#undef EK_PIXEL
    return r;
}

/* each on its own: inlined into one function they spill */
#define EK_NINE(name, stride, lines)                                                                           \
    static __attribute__((noinline)) uint32_t name(const ek_dw *d, uint32_t c0, const float *w, uint32_t r) \
    { return nine_f32(d, c0, w, r, stride, lines); }
EK_NINE(nine1, 1, 3)
EK_NINE(nine1_two, 1, 4)
EK_NINE(nine2, 2, 3)
EK_NINE(nine2_two, 2, 5)
#undef EK_NINE

static void dw_f32(const ek_dw *d)
{
    const float *w = (const float *)(const void *)d->w;
    const int stride = d->kh != 3 || d->kw != 3 ? 0 : d->step == d->dx ? 1 : d->step == 2 * d->dx ? 2 : 0;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 4) {
        const float *b = w + (size_t)(c0 / 8) * 8 * (1 + (size_t)d->kh * d->kw) + c0 % 8;
        const float *x = (const float *)d->x + c0;
        float *y = (float *)d->y + c0;
        uint32_t left = d->channels - c0;
        if (stride && left >= 4) {
            const uint32_t r = d->row_step == stride * d->dy ? (stride == 1 ? nine1_two(d, c0, b, 0) : nine2_two(d, c0, b, 0)) : 0;
            if (r < d->rows)
                (stride == 1 ? nine1 : nine2)(d, c0, b, r);
            continue;
        }
        for (uint32_t row = d->rows; row; row--, x += d->row_step - (ptrdiff_t)d->count * d->step) {
            uint32_t p = 0;
            if (left >= 4)
                for (; p + 4 <= d->count; p += 4, x += 4 * d->step, y += 4 * (size_t)d->channels)
                    pixels_f32(d, x, b, y, 4, 4);
            for (; p < d->count; p++, x += d->step, y += d->channels)
                pixels_f32(d, x, b, y, left, 1);
        }
    }
}

void ek_dw_neon(ek_kernels *k)
{
    EK_SET(k, dw_s8, DW_S8, dw_s8, EK_ISA_NEON);
    EK_SET(k, dw_f32, DW_F32, dw_f32, EK_ISA_NEON);
    k->dw_s8_nr = 16;
    k->dw_f32_nr = 8;
    k->dw_rows = 1;
    k->dw_edges |= EK_EDGES_F32_9;
}
#else
typedef int ek_no_dw_neon; /* a translation unit must not be empty */
#endif
