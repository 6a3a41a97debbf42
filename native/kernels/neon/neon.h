/* Steps shared by the AArch64 kernels: clamp, requantize, stores of a part, the ends of GEMM tiles. */
#ifndef EK_NEON_H
#define EK_NEON_H
#include <arm_neon.h>
#include "kernels.h"
#include "simd.h"

/* the address is known when both vectors are: its loads wait, where compilers would start all and spill */
#define EK_AFTER(u, v, address) __asm__ volatile("" : "+w"(u), "+w"(v), "+r"(address))
/* so do two addresses for 8 sums, 2 times 4 or 4 times 2; GCC needs less */
#if defined(__clang__)
#define EK_AFTER_8(a, b, c, d, i, p, w)                                                                                   \
    __asm__ volatile("" : "+w"((a)[0]), "+w"((a)[1]), "+w"((b)[i]), "+w"((b)[(i) + 1]), "+w"((c)[0]), "+w"((c)[1]),        \
                     "+w"((d)[i]), "+w"((d)[(i) + 1]), "+r"(p), "+r"(w))
#else
#define EK_AFTER_8(a, b, c, d, i, p, w) ((void)(p), (void)(w))
#endif
#define EK_AFTER_ROWS(acc, p, w) EK_AFTER_8((acc)[0], (acc)[1], (acc)[2], (acc)[3], 0, p, w)
#define EK_AFTER_PAIRS(acc, p, w) EK_AFTER_8((acc)[0], (acc)[0], (acc)[1], (acc)[1], 2, p, w)

/* depthwise channels from c0 on: for ISAs that have a better way with the first */
void ek_dw_s8_neon(const ek_dw *d, uint32_t c0);
void ek_dw_neon(ek_kernels *k);
void ek_elementwise_neon(ek_kernels *k);

/* the vector at p, or to p, which moves on: LD1 and ST1 add for nothing */
#define EK_NEXT_AT(v, p, step) \
    __asm__("ld1 {%0.16b}, [%1], %2" : "=w"(v), "+r"(p) : "r"(step), "m"(*(const struct { uint8_t part[16]; } *)(const void *)(p)))
#define EK_NEXT_HALF_AT(v, p, step) \
    __asm__("ld1 {%0.8b}, [%1], %2" : "=w"(v), "+r"(p) : "r"(step), "m"(*(const struct { uint8_t part[8]; } *)(const void *)(p)))
#define EK_PUT_AT(p, v, step) __asm__ volatile("st1 {%1.16b}, [%0], %2" : "+r"(p) : "w"(v), "r"(step) : "memory")

/* Where the next column of a window's input rows lies.  Rows outside the image are one vector that is read again and again. */
typedef struct ek_lines {
    const uint8_t *at[5];
    ptrdiff_t step[5]; /* bytes */
} ek_lines;

/* of output row r, from the window's first column on; x: channels of pixel (0, 0); size: bytes of an element */
EK_INLINE void ek_lines_of(ek_lines *l, const ek_dw *d, const void *x, ptrdiff_t size, uint32_t r, const unsigned lines, const void *outside)
{
    const int64_t first = d->columns ? (int64_t)r * d->row_stride - (int32_t)d->top : 0;
    const ptrdiff_t at = d->columns ? (ptrdiff_t)first * d->dy - (ptrdiff_t)d->left * d->dx : (ptrdiff_t)r * d->row_step;
    EK_UNROLL for (unsigned k = 0; k < lines; k++) {
        const int in = !d->columns || (first + k >= 0 && first + k < d->h);
        l->at[k] = in ? (const uint8_t *)x + (at + (ptrdiff_t)k * d->dy) * size : (const uint8_t *)outside;
        l->step[k] = in ? d->dx * size : 0;
    }
}

EK_INLINE void ek_lines_on(ek_lines *l, const unsigned lines, const ptrdiff_t n)
{
    EK_UNROLL for (unsigned k = 0; k < lines; k++)
        l->at[k] += n * l->step[k];
}

/* whether the first column lies outside the image: then it is passed */
EK_INLINE int ek_first_outside(const ek_dw *d, ek_lines *l, const unsigned lines)
{
    if (!d->columns || !d->left)
        return 0;
    ek_lines_on(l, lines, 1);
    return 1;
}

/* whether the last of three columns of a row's last window lies outside the image */
EK_INLINE int ek_last_outside(const ek_dw *d, int stride)
{
    return d->columns && (d->count - 1) * (uint32_t)stride + 2 - d->left >= d->columns;
}

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
    int clamp;           /* 0: they are those of int8, where every step saturates */
} ek_requant_neon;

EK_INLINE ek_requant_neon ek_requant_neon_of(float lo, float hi, int32_t zero)
{
    int32_t low = (int32_t)lo + zero, high = (int32_t)hi + zero;
    return (ek_requant_neon){ vdupq_n_s16((int16_t)zero), vdupq_n_s8((int8_t)low), vdupq_n_s8((int8_t)high), low > -128 || high < 127 };
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

/* 16 channels of a pixel */
EK_INLINE void ek_put16(const int32x4_t s[4], const float *scale, const ek_requant_neon *q, int8_t *y)
{
    int16x8_t lo = ek_requant8(s[0], s[1], vld1q_f32(scale), vld1q_f32(scale + 4), q->zero);
    int16x8_t hi = ek_requant8(s[2], s[3], vld1q_f32(scale + 8), vld1q_f32(scale + 12), q->zero);
    int8x16_t v = vqmovn_high_s16(vqmovn_s16(lo), hi);
    if (q->clamp)
        v = vminq_s8(vmaxq_s8(v, q->low), q->high);
    vst1q_s8(y, v);
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

/* What becomes of the sums of a tile; of a GEMM, then of one block of outputs of some of its rows. */
typedef struct ek_ends {
    ek_requant_neon q;
    const int32_t *adj;     /* what a weight zero point takes off the sums of each row; NULL: nothing */
    void *y;                /* int8, or float of gemm_dyn: first output of the next row */
    ptrdiff_t ldy;
    uint32_t left;          /* outputs from there to the end of the row */
    const float *row_scale; /* gemm_dyn: of the next row */
    float lo, hi;
} ek_ends;

EK_INLINE void ek_finish_dyn(const ek_ends *e, const uint8_t *head, float row_scale, int32x4_t lo, int32x4_t hi, float *y)
{
    const float *bias = (const float *)(const void *)head;
    float32x4_t a = vmulq_f32(vcvtq_f32_s32(lo), vmulq_f32(vdupq_n_f32(row_scale), vld1q_f32(bias + 8)));
    float32x4_t b = vmulq_f32(vcvtq_f32_s32(hi), vmulq_f32(vdupq_n_f32(row_scale), vld1q_f32(bias + 12)));
    EK_ROUND128(a);
    EK_ROUND128(b);
    ek_store4_f32(y, ek_clampq(vaddq_f32(a, vld1q_f32(bias)), e->lo, e->hi), e->left);
    if (e->left > 4)
        ek_store4_f32(y + 4, ek_clampq(vaddq_f32(b, vld1q_f32(bias + 4)), e->lo, e->hi), e->left - 4);
}

/* two vectors from p, which compilers would load once and move: half the instructions where many start alike */
#define EK_LOAD_PAIR(type, u, v, p) \
    __asm__ volatile("ldp %q0, %q1, %2" : "=w"(u), "=w"(v) : "Q"(*(const struct { type part[32 / sizeof(type)]; } *)(const void *)(p)))

/* the next two, and the next four: compilers would add to pointers by themselves, GCC also move each of LD1's four */
#define EK_NEXT_PAIR(u, v, p)                                                   \
    __asm__ volatile("ldp %q0, %q1, [%2], #32" : "=w"(u), "=w"(v), "+r"(p)      \
                     : "m"(*(const struct { uint8_t part[32]; } *)(const void *)(p)))
#if defined(__clang__)
#define EK_NEXT_FOUR(type, load, v, p)                                          \
    do {                                                                        \
        type four = load(p);                                                    \
        (p) += 64 / sizeof *(p);                                                \
        EK_PIN(p);                                                             \
        EK_UNROLL for (unsigned i = 0; i < 4; i++)                              \
            (v)[i] = four.val[i];                                               \
    } while (0)
#else
#define EK_NEXT_FOUR(type, load, v, p)                                          \
    do {                                                                        \
        EK_NEXT_PAIR((v)[0], (v)[1], p);                                        \
        EK_NEXT_PAIR((v)[2], (v)[3], p);                                        \
    } while (0)
#endif

/* where the sums of 8 outputs start: at their biases, for gemm_dyn at 0 */
EK_INLINE void ek_start(const uint8_t *head, const int dyn, int32x4_t bias[2])
{
    const int32_t *b = (const int32_t *)(const void *)head;
    bias[0] = dyn ? vdupq_n_s32(0) : vld1q_s32(b);
    bias[1] = dyn ? vdupq_n_s32(0) : vld1q_s32(b + 4);
}

/* both halves of v to rows ldy apart; compilers would add the addresses and move the upper half first */
EK_INLINE int8_t *ek_store_rows(int8_t *y, ptrdiff_t ldy, int8x16_t v)
{
    __asm__ volatile("st1 {%1.8b}, [%0], %2\n\tst1 {%1.d}[1], [%0], %2" : "+r"(y) : "w"(v), "r"(ldy) : "memory");
    return y;
}

/* 8 outputs of mr rows of gemm_s8 */
EK_INLINE void ek_finish_s8(ek_ends *e, const uint8_t *head, int32x4_t acc[][2], const unsigned mr)
{
    const float32x4_t s0 = vld1q_f32((const float *)(const void *)(head + 32)), s1 = vld1q_f32((const float *)(const void *)(head + 48));
    int8_t *y = (int8_t *)e->y;
    int8x16_t two[6];
    if (e->adj) {
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            int32x4_t part = vld1q_dup_s32(e->adj + r);
            acc[r][0] = vsubq_s32(acc[r][0], part);
            acc[r][1] = vsubq_s32(acc[r][1], part);
        }
        e->adj += mr;
    }
    EK_UNROLL for (unsigned r = 0; r < mr; r += 2) {
        const unsigned t = mr > 1 ? r + 1 : r;
        int8x8_t low = vqmovn_s16(ek_requant8(acc[r][0], acc[r][1], s0, s1, e->q.zero));
        two[r / 2] = vqmovn_high_s16(low, ek_requant8(acc[t][0], acc[t][1], s0, s1, e->q.zero));
    }
    if (e->q.clamp)
        EK_UNROLL for (unsigned r = 0; r < mr; r += 2)
            two[r / 2] = vminq_s8(vmaxq_s8(two[r / 2], e->q.low), e->q.high);
    if (e->left >= 8 && mr > 1) {
        EK_UNROLL for (unsigned r = 0; r < mr; r += 2)
            y = ek_store_rows(y, e->ldy, two[r / 2]);
    } else {
        EK_UNROLL for (unsigned r = 0; r < mr; r++, y += e->ldy)
            ek_store8_s8(y, r & 1 ? vget_high_s8(two[r / 2]) : vget_low_s8(two[r / 2]), e->left);
    }
    e->y = y;
}

/* 8 outputs of the next mr rows (1 or even), either way */
EK_INLINE void ek_finish(ek_ends *e, const uint8_t *head, int32x4_t acc[][2], const int dyn, const unsigned mr)
{
    if (!dyn) {
        ek_finish_s8(e, head, acc, mr);
        return;
    }
    float *y = (float *)e->y;
    EK_UNROLL for (unsigned r = 0; r < mr; r++, y += e->ldy)
        ek_finish_dyn(e, head, e->row_scale[r], acc[r][0], acc[r][1], y);
    e->y = y;
    e->row_scale += mr;
}

/* the next 8 outputs of one row */
EK_INLINE void ek_finish_row(ek_ends *e, const uint8_t *head, int32x4_t acc[][2], const int dyn)
{
    ek_ends now = *e;
    ek_finish(&now, head, acc, dyn, 1);
    e->y = (uint8_t *)e->y + (dyn ? 32 : 8);
    e->left -= 8;
}
#endif
