/* Depthwise convolution with Helium: 8 channels in int16; VMULLB and VMULLT give the products of even and odd ones. */
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#include "mve.h"

/* two pixels, dx and dy elements apart in x and y, of up to 8 channels (p: which of them) */
static void pixels(const ek_dw *d, const uint8_t *head, const int8_t *x, int8_t *y, mve_pred16_t p, ptrdiff_t dx, size_t dy)
{
    const int32x4x2_t bias = vld2q_s32((const int32_t *)(const void *)head);
    const int8_t *w = (const int8_t *)head + 64;
    const int16_t zero = (int16_t)d->w_zero;
    int32x4_t acc[2][2] = { { bias.val[0], bias.val[1] }, { bias.val[0], bias.val[1] } };
    for (uint32_t r = d->kh; r; r--, x += d->dy) {
        const int8_t *tap = x;
        for (uint32_t j = d->kw; j; j--, tap += d->dx, w += 8) {
            const int16x8_t wv = vsubq_n_s16(vldrbq_s16(w), zero);
            EK_UNROLL for (unsigned i = 0; i < 2; i++) {
                int16x8_t v = vldrbq_z_s16(tap + (ptrdiff_t)i * dx, p);
                acc[i][0] = vaddq_s32(acc[i][0], vmullbq_int_s16(v, wv));
                acc[i][1] = vaddq_s32(acc[i][1], vmulltq_int_s16(v, wv));
            }
        }
    }
    const float32x4x2_t scale = vld2q_f32((const float *)(const void *)(head + 32));
    for (unsigned i = 0; i < 2; i++) {
        int32x4_t even = ek_requant_mve(acc[i][0], scale.val[0], d->lo, d->hi, d->zero);
        int32x4_t odd = ek_requant_mve(acc[i][1], scale.val[1], d->lo, d->hi, d->zero);
        vstrbq_p_s16(y + i * dy, vmovntq_s32(vreinterpretq_s16_s32(even), odd), p);
    }
}

/* 3x3 in floats, 4 channels at a time: products and sums of so few int8 are whole numbers that a float holds exactly, and
 * VFMA is the only vector-by-vector multiply-accumulate of Helium. */
typedef struct dw3 {
    float init[4], left[4], right[4]; /* bias and taps in missing rows; also a missing left column; a missing right column */
    float w[9][4];        /* taps of three rows that exist, 0 for one that has none */
    float taps[9][4];     /* zero point taken off */
    float scale[4];
    int32_t lo[4], hi[4]; /* zero added */
    int32_t zero;
    ptrdiff_t px, dy;     /* elements to the next column, row */
    ptrdiff_t next_x, next_y; /* elements to the next output row and its window */
    size_t step;          /* elements to the next output */
    uint32_t columns, count;
    int is_left;          /* a left column is missing */
    int shift;            /* of w against taps, in rows */
    float fill;
} dw3;

enum { EXACT = 1 << 23 }; /* of a bias: with 9 products of at most 128 * 384 it stays below 2^24 */

EK_INLINE float32x4_t inputs(const int8_t *x) { return vcvtq_f32_s32(vldrbq_s32(x)); }

EK_INLINE int32x4_t finish3(const dw3 *t, float32x4_t acc)
{
    int32x4_t v = vaddq_n_s32(vcvtnq_s32_f32(vmulq_f32(acc, vldrwq_f32(t->scale))), t->zero);
    return vminq_s32(vmaxq_s32(v, vldrwq_s32(t->lo)), vldrwq_s32(t->hi));
}

EK_INLINE void put3(const dw3 *t, float32x4_t acc, int8_t *y) { vstrbq_s32(y, finish3(t, acc)); }

/* One output row, stride 1; x: column 0 of its first input row.  a has seen two columns of its window, b one. */
EK_INLINE void line1(const dw3 *t, const int8_t *x, int8_t *y)
{
    const float *w = t->w[0];
    const int8_t *r[3];
    const ptrdiff_t px = t->px;
    float32x4_t a = vldrwq_f32(t->init), b = a, c, d;
    uint32_t n = t->count, have = t->columns - 1; /* outputs and columns left */
    EK_UNROLL for (unsigned i = 0; i < 3; i++)
        r[i] = x + (ptrdiff_t)i * t->dy;
    if (t->is_left) {
        a = vldrwq_f32(t->left);
    } else {
        have--;
        EK_UNROLL for (unsigned i = 0; i < 3; i++, r[i - 1] += px)
            a = vfmaq_f32(a, inputs(r[i]), vldrwq_f32(w + 12 * i));
    }
    EK_UNROLL for (unsigned i = 0; i < 3; i++, r[i - 1] += px) {
        float32x4_t u = inputs(r[i]);
        a = vfmaq_f32(a, u, vldrwq_f32(w + 12 * i + 4));
        b = vfmaq_f32(b, u, vldrwq_f32(w + 12 * i));
    }
    for (; n >= 2 && have >= 2; n -= 2, have -= 2) {
        c = d = vldrwq_f32(t->init);
        EK_UNROLL for (unsigned i = 0; i < 3; i++) {
            float32x4_t u = inputs(r[i]), v = inputs(r[i] + px), k = vldrwq_f32(w + 12 * i + 8);
            r[i] += 2 * px;
            a = vfmaq_f32(a, u, k);
            b = vfmaq_f32(b, v, k);
            k = vldrwq_f32(w + 12 * i + 4);
            b = vfmaq_f32(b, u, k);
            c = vfmaq_f32(c, v, k);
            k = vldrwq_f32(w + 12 * i);
            c = vfmaq_f32(c, u, k);
            d = vfmaq_f32(d, v, k);
        }
        put3(t, a, y);
        put3(t, b, y + t->step);
        y += 2 * t->step;
        a = c;
        b = d;
    }
    if (n && have) {
        EK_UNROLL for (unsigned i = 0; i < 3; i++) {
            float32x4_t u = inputs(r[i]);
            a = vfmaq_f32(a, u, vldrwq_f32(w + 12 * i + 8));
            b = vfmaq_f32(b, u, vldrwq_f32(w + 12 * i + 4));
        }
        put3(t, a, y);
        y += t->step;
        a = b;
        n--;
    }
    if (n)
        put3(t, vaddq_f32(a, vldrwq_f32(t->right)), y);
}

/* the same, stride 2: a has seen the first column of its window */
EK_INLINE void line2(const dw3 *t, const int8_t *x, int8_t *y)
{
    const float *w = t->w[0];
    const int8_t *r[3];
    const ptrdiff_t px = t->px;
    float32x4_t a = vldrwq_f32(t->init), b;
    uint32_t n = t->count, have = t->columns;
    EK_UNROLL for (unsigned i = 0; i < 3; i++)
        r[i] = x + (ptrdiff_t)i * t->dy;
    if (t->is_left) {
        a = vldrwq_f32(t->left);
    } else {
        have--;
        EK_UNROLL for (unsigned i = 0; i < 3; i++, r[i - 1] += px)
            a = vfmaq_f32(a, inputs(r[i]), vldrwq_f32(w + 12 * i));
    }
    for (; n && have >= 2; n--, have -= 2, y += t->step) {
        b = vldrwq_f32(t->init);
        EK_UNROLL for (unsigned i = 0; i < 3; i++) {
            float32x4_t u = inputs(r[i]), v = inputs(r[i] + px);
            r[i] += 2 * px;
            a = vfmaq_f32(a, u, vldrwq_f32(w + 12 * i + 4));
            a = vfmaq_f32(a, v, vldrwq_f32(w + 12 * i + 8));
            b = vfmaq_f32(b, v, vldrwq_f32(w + 12 * i));
        }
        put3(t, a, y);
        a = b;
    }
    if (n) { /* the last column is missing */
        EK_UNROLL for (unsigned i = 0; i < 3; i++)
            a = vfmaq_f32(a, inputs(r[i]), vldrwq_f32(w + 12 * i + 4));
        put3(t, vaddq_f32(a, vldrwq_f32(t->right)), y);
    }
}

/* n output rows whose windows lie alike */
static void lines1(const dw3 *t, const int8_t *x, int8_t *y, uint32_t n)
{
    for (; n; n--, x += t->next_x, y += t->next_y)
        line1(t, x, y);
}

static void lines2(const dw3 *t, const int8_t *x, int8_t *y, uint32_t n)
{
    for (; n; n--, x += t->next_x, y += t->next_y)
        line2(t, x, y);
}

/* The constants of rows whose window begins `shift` rows before the three that are read (-1: before the image, 1: it ends
 * behind it). */
static void edges(dw3 *t, float32x4_t bias, int shift)
{
    float32x4_t left = vdupq_n_f32(0), right = left;
    t->shift = shift;
    for (int i = 0; i < 3; i++) {
        int from = i - shift; /* row of taps that meets row i */
        const float *w = t->taps[3 * ((from + 3) % 3)];
        for (int j = 0; j < 3; j++) {
            float32x4_t v = vldrwq_f32(w + 4 * j);
            if (from < 0 || from > 2)
                bias = vfmaq_n_f32(bias, v, t->fill);
            else if (j != 1)
                *(j ? &right : &left) = vfmaq_n_f32(j ? right : left, v, t->fill);
            vstrwq_f32(t->w[3 * i + j], from < 0 || from > 2 ? vdupq_n_f32(0) : v);
        }
    }
    vstrwq_f32(t->init, bias);
    vstrwq_f32(t->left, vaddq_f32(bias, left));
    vstrwq_f32(t->right, right);
}

/* all output rows of the channels c0 to c0 + 3 */
static void lines(const ek_dw *d, dw3 *t, uint32_t c0, float32x4_t bias)
{
    int8_t *y = (int8_t *)d->y + c0;
    t->shift = 2;
    for (uint32_t r = 0, n, top = 0u - d->top; r < d->rows; r += n, top += n * d->row_stride, y += (ptrdiff_t)n * t->next_y) {
        int shift = top >> 31 ? -1 : d->h - top < 3; /* top: -1 at least */
        n = 1;
        if (!shift) { /* windows that fit */
            n = ((d->h - 3 - top) >> (d->row_stride - 1)) + 1;
            n = n < d->rows - r ? n : d->rows - r;
        }
        if (shift != t->shift)
            edges(t, bias, shift);
        (d->step == d->dx ? lines1 : lines2)(t, (const int8_t *)d->x + (ptrdiff_t)(top - (uint32_t)shift) * d->dy + c0, y, n);
    }
}

/* 3x3 with strides of 1 or 2, one column or row of padding at most on each side, channels by 4, and biases that floats hold */
static int dw_image(const ek_dw *d)
{
    uint32_t stride = d->step == d->dx ? 1 : 2, right = (d->count - 1) * stride + 3 - d->left;
    if (d->kh != 3 || d->kw != 3 || d->step > 2 * d->dx || d->row_stride > 2 || d->h < 3 || d->columns < 2 || d->channels % 4 || d->left > 1
        || d->top > 1 || right > d->columns + 1 || (d->rows - 1) * d->row_stride + 3 - d->top > d->h + 1)
        return 0;
    dw3 t = { .fill = (float)d->fill, .px = d->dx, .dy = d->dy, .columns = d->columns, .is_left = d->left != 0, .count = d->count,
              .step = d->channels, .zero = d->zero, .next_x = (ptrdiff_t)d->row_stride * d->dy,
              .next_y = (ptrdiff_t)(d->count * d->channels) };
    const size_t block = 8u * (8 + 9);
    vstrwq_s32(t.lo, vdupq_n_s32((int32_t)d->lo + d->zero));
    vstrwq_s32(t.hi, vdupq_n_s32((int32_t)d->hi + d->zero));
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 4) {
        int32x4_t b = vldrwq_s32((const int32_t *)(const void *)(d->w + c0 / 8 * block) + c0 % 8);
        if (vmaxvq_u32(0, vreinterpretq_u32_s32(vabsq_s32(b))) >= EXACT)
            return 0;
    }
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 4) {
        const uint8_t *head = d->w + c0 / 8 * block + c0 % 8 * 4;
        const int8_t *w = (const int8_t *)(d->w + c0 / 8 * block + 64 + c0 % 8);
        vstrwq_f32(t.scale, vldrwq_f32((const float *)(const void *)(head + 32)));
        for (uint32_t i = 0; i < 9; i++)
            vstrwq_f32(t.taps[i], vcvtq_f32_s32(vsubq_n_s32(vldrbq_s32(w + 8 * i), d->w_zero)));
        lines(d, &t, c0, vcvtq_f32_s32(vldrwq_s32((const int32_t *)(const void *)head)));
    }
    return 1;
}

static void dw_s8(const ek_dw *d)
{
    const uint8_t *head = d->w;
    for (uint32_t c0 = 0; c0 < d->channels; c0 += 8, head += 8u * (8 + d->kh * d->kw)) {
        mve_pred16_t p = vctp16q(d->channels - c0);
        const int8_t *x = (const int8_t *)d->x + c0;
        int8_t *y = (int8_t *)d->y + c0;
        uint32_t left = d->count;
        for (; left >= 2; left -= 2, x += 2 * d->step, y += 2 * (size_t)d->channels)
            pixels(d, head, x, y, p, d->step, d->channels);
        if (left) /* twice the same */
            pixels(d, head, x, y, p, 0, 0);
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
    k->dw_image = EK_USES(DW_S8) ? dw_image : 0;
    k->dw_s8_nr = 8;
    k->dw_f32_nr = 4;
}
#else
typedef int ek_no_dw_mve; /* a translation unit must not be empty */
#endif
