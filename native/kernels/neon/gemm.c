/* GEMM with Advanced SIMD alone.  Blocks of 8 outputs, 4 inputs deep: SMULL makes 16-bit products of two outputs by 4
 * inputs, SADALP adds neighbours to 32 bits.  A second product fits in 16 bits where no weight is -128.
 * What was packed for SMMLA, 8 deep, is multiplied row by row. */
#if defined(__aarch64__)
#include "panel.h"

enum { F32_MOST = 12 };

/* the next row's products wait for this one: compilers start them all, and spill */
#define AFTER(acc, a, b) __asm__ volatile("" : "+w"((acc)[0]), "+w"((acc)[1]), "+w"((acc)[2]), "+w"((acc)[3]), "+w"(a), "+w"(b))

EK_INLINE int16x8_t two_low(int8x16_t u, int8x16_t a, int8x16_t v, int8x16_t b)
{
    return vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(u)), vget_low_s8(b), vget_low_s8(v));
}

/* whether none of n weights (a multiple of 16) is -128 */
static int small(const int8_t *w, size_t n)
{
    int8x16_t low = vdupq_n_s8(0);
    for (size_t i = 0; i < n; i += 16)
        low = vminq_s8(low, vld1q_s8(w + i));
    return vminvq_s8(low) != -128;
}

/* 4 inputs of 4 rows by 8 outputs; moves on */
EK_INLINE void step(int32x4_t acc[4][4], const int8_t **p, const int8_t **w)
{
    int32x4x4_t x = vld4q_dup_s32((const int32_t *)(const void *)*p);
    int8x16_t w0 = vld1q_s8(*w), w1 = vld1q_s8(*w + 16);
    *p += 16;
    *w += 32;
    EK_UNROLL for (unsigned r = 0; r < 4; r++) {
        int8x16_t u = vreinterpretq_s8_s32(x.val[r]);
        acc[r][0] = vpadalq_s16(acc[r][0], vmull_s8(vget_low_s8(w0), vget_low_s8(u)));
        acc[r][1] = vpadalq_s16(acc[r][1], vmull_high_s8(w0, u));
        acc[r][2] = vpadalq_s16(acc[r][2], vmull_s8(vget_low_s8(w1), vget_low_s8(u)));
        acc[r][3] = vpadalq_s16(acc[r][3], vmull_high_s8(w1, u));
    }
}

/* two such steps, whose products are added in 16 bits */
EK_INLINE void step2(int32x4_t acc[4][4], const int8_t **p, const int8_t **w)
{
    int8x16_t a[4]; /* 0, 1: of the first step */
    int32x4x4_t x = vld4q_dup_s32((const int32_t *)(const void *)*p), z;
    *p += 16;
    EK_PIN(*p);
    z = vld4q_dup_s32((const int32_t *)(const void *)*p);
    *p += 16;
    EK_PIN(*p);
    EK_NEXT_PAIR(a[0], a[1], *w);
    EK_NEXT_PAIR(a[2], a[3], *w);
    EK_UNROLL for (unsigned r = 0; r < 4; r++) {
        int8x16_t u = vreinterpretq_s8_s32(x.val[r]), v = vreinterpretq_s8_s32(z.val[r]);
        acc[r][0] = vpadalq_s16(acc[r][0], two_low(u, a[0], v, a[2]));
        acc[r][1] = vpadalq_s16(acc[r][1], vmlal_high_s8(vmull_high_s8(a[0], u), a[2], v));
        acc[r][2] = vpadalq_s16(acc[r][2], two_low(u, a[1], v, a[3]));
        acc[r][3] = vpadalq_s16(acc[r][3], vmlal_high_s8(vmull_high_s8(a[1], u), a[3], v));
        AFTER(acc[r], a[0], a[1]);
    }
    EK_AFTER(acc[3][0], acc[3][3], *p);
    EK_AFTER(acc[3][0], acc[3][3], *w);
}

/* 8 outputs of the 4 rows of a panel; acc[row][pair of outputs]: two partial sums each */
EK_INLINE void tile(ek_ends *e, const uint8_t *panel, const uint8_t *head, const uint8_t *weights, uint32_t k, const int dyn,
                    const int pairs)
{
    const int8_t *p = (const int8_t *)panel, *w = (const int8_t *)weights;
    const int32x4_t none = vdupq_n_s32(0);
    int32x4_t acc[4][4], bias[2], sums[4][2];
    ek_start(head, dyn, bias);
    EK_UNROLL for (unsigned r = 0; r < 4; r++)
        EK_UNROLL for (unsigned j = 0; j < 4; j++)
            acc[r][j] = j & 1 ? vzip2q_s32(bias[j / 2], none) : vzip1q_s32(bias[j / 2], none);
    uint32_t steps = (k + 3) / 4;
    for (uint32_t i = pairs ? steps / 4 : 0; i; i--) {
        step2(acc, &p, &w);
        step2(acc, &p, &w);
    }
    if (pairs && steps & 2)
        step2(acc, &p, &w);
    for (steps = pairs ? steps & 1 : steps; steps; steps--)
        step(acc, &p, &w);
    EK_UNROLL for (unsigned r = 0; r < 4; r++) {
        sums[r][0] = vpaddq_s32(acc[r][0], acc[r][1]);
        sums[r][1] = vpaddq_s32(acc[r][2], acc[r][3]);
    }
    ek_finish(e, head, sums, dyn, 4);
}

EK_INLINE void block(EK_BLOCK_ARGS, const int dyn)
{
    ek_ends e = *given;
    const uint32_t k = g->k;
    const size_t kp = (k + 15) & ~15u;
    const int pairs = small((const int8_t *)weights, ek_block_s8(8, 4, k) - 64);
    for (uint32_t i = 0; pairs && i < m; i += 4)
        tile(&e, panel + i * kp, head, weights, k, dyn, 1);
    for (uint32_t i = 0; !pairs && i < m; i += 4)
        tile(&e, panel + i * kp, head, weights, k, dyn, 0);
}

/* 8 outputs of one row */
EK_INLINE void row_tile(ek_ends *e, const ek_cursor *c, const uint8_t *a, const uint8_t *head, const uint8_t *weights, const int dyn)
{
    const int8_t *w = (const int8_t *)weights;
    const int32x4_t none = vdupq_n_s32(0);
    int32x4_t acc[4], bias[2], sums[1][2];
    ek_start(head, dyn, bias);
    EK_UNROLL for (unsigned j = 0; j < 4; j++)
        acc[j] = j & 1 ? vzip2q_s32(bias[j / 2], none) : vzip1q_s32(bias[j / 2], none);
    for (uint32_t done = 0; done < c->bytes; done += c->segment, a += c->gap - (ptrdiff_t)c->segment)
        for (uint32_t k = 0; k < c->segment; k += 4, a += 4, w += 32) {
            int8x8_t x = vreinterpret_s8_s32(vdup_n_s32(ek_load_s32(a)));
            int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16), u = vcombine_s8(x, x);
            acc[0] = vpadalq_s16(acc[0], vmull_s8(vget_low_s8(w0), x));
            acc[1] = vpadalq_s16(acc[1], vmull_high_s8(w0, u));
            acc[2] = vpadalq_s16(acc[2], vmull_s8(vget_low_s8(w1), x));
            acc[3] = vpadalq_s16(acc[3], vmull_high_s8(w1, u));
        }
    sums[0][0] = vpaddq_s32(acc[0], acc[1]);
    sums[0][1] = vpaddq_s32(acc[2], acc[3]);
    ek_finish_row(e, head, sums, dyn);
}

/* the same of blocks 8 inputs deep; acc[output]: four partial sums */
EK_INLINE void row_tile8(ek_ends *e, const ek_cursor *c, const uint8_t *a, const uint8_t *head, const uint8_t *weights, const int dyn)
{
    const int8_t *w = (const int8_t *)weights;
    int32x4_t acc[8], sums[1][2];
    EK_UNROLL for (unsigned j = 0; j < 8; j++)
        acc[j] = vdupq_n_s32(0);
    for (uint32_t done = 0; done < c->bytes; done += c->segment, a += c->gap - (ptrdiff_t)c->segment)
        for (uint32_t k = 0; k < c->segment; k += 8, a += 8, w += 64) {
            int8x8_t x = vld1_s8((const int8_t *)a);
            int8x16_t u = vcombine_s8(x, x);
            EK_UNROLL for (unsigned j = 0; j < 8; j += 2) {
                int8x16_t v = vld1q_s8(w + 8 * j);
                acc[j] = vpadalq_s16(acc[j], vmull_s8(vget_low_s8(v), x));
                acc[j + 1] = vpadalq_s16(acc[j + 1], vmull_high_s8(v, u));
            }
        }
    ek_start(head, dyn, sums[0]);
    EK_UNROLL for (unsigned h = 0; h < 2; h++) {
        int32x4_t low = vpaddq_s32(acc[4 * h], acc[4 * h + 1]), high = vpaddq_s32(acc[4 * h + 2], acc[4 * h + 3]);
        sums[0][h] = vaddq_s32(sums[0][h], vpaddq_s32(low, high));
    }
    ek_finish_row(e, head, sums, dyn);
}

EK_INLINE void row(EK_ROW_ARGS, const int dyn, const uint32_t kr)
{
    ek_ends e = *given;
    ek_blocks o = ek_blocks_of(g, ek_block_s8(8, kr, g->k));
    for (uint32_t i = (g->n + 7) / 8; i; i--, o.head += o.next_head, o.w += o.next_w)
        (kr == 4 ? row_tile : row_tile8)(&e, c, a, o.head, o.w, dyn);
}

static void block_s8(EK_BLOCK_ARGS) { block(g, given, panel, head, weights, m, 0); }
static void block_dyn(EK_BLOCK_ARGS) { block(g, given, panel, head, weights, m, 1); }
static void row_s8(EK_ROW_ARGS) { row(g, given, c, a, 0, 4); }
static void row_dyn(EK_ROW_ARGS) { row(g, given, c, a, 1, 4); }
static void row8_s8(EK_ROW_ARGS) { row(g, given, c, a, 0, 8); }
static void row8_dyn(EK_ROW_ARGS) { row(g, given, c, a, 1, 8); }

static void gemm_s8(const ek_gemm *g)
{
    if (g->kr == 4)
        ek_gemm_panels(g, ek_block_s8(8, 4, g->k), block_s8, row_s8, 1, 1, 4, 4);
    else
        ek_gemm_panels(g, 0, 0, row8_s8, 1, 1, 4, 4);
}

static void gemm_dyn(const ek_gemm *g)
{
    if (g->kr == 4)
        ek_gemm_panels(g, ek_block_s8(8, 4, g->k), block_dyn, row_dyn, 1, 4, 4, 4);
    else
        ek_gemm_panels(g, 0, 0, row8_dyn, 1, 4, 4, 4);
}

/* one input deep: 4 rows, the lanes of x, by 8 outputs */
EK_INLINE void step_f32(float32x4_t acc[][2], float32x4_t x, float32x4_t lo, float32x4_t hi)
{
#define EK_ROW(i)                                             \
    acc[i][0] = vfmaq_laneq_f32(acc[i][0], lo, x, i);         \
    acc[i][1] = vfmaq_laneq_f32(acc[i][1], hi, x, i);
    EK_ROW(0)
    EK_ROW(1)
    EK_ROW(2)
    EK_ROW(3)
#undef EK_ROW
}

/* two inputs deep, 4 * nq rows; moves on */
EK_INLINE void step2_f32(float32x4_t acc[][2], const float **p, const float **w, const unsigned nq)
{
    float32x4_t v[4], x, z;
    EK_NEXT_FOUR(float32x4x4_t, vld1q_f32_x4, v, *w);
    EK_UNROLL for (unsigned q = 0; q < nq; q++) {
        EK_NEXT_PAIR(x, z, p[q]);
        step_f32(acc + 4 * q, x, v[0], v[1]);
        step_f32(acc + 4 * q, z, v[2], v[3]);
        EK_AFTER_ROWS(acc + 4 * q, p[q + 1 < nq ? q + 1 : 0], *w);
    }
}

/* 8 outputs of the next mr rows */
EK_INLINE void finish_f32(ek_ends *e, float32x4_t acc[][2], const unsigned mr)
{
    const float32x4_t lo = vdupq_n_f32(e->lo), hi = vdupq_n_f32(e->hi);
    const ptrdiff_t ldy = e->ldy;
    float *y = (float *)e->y;
    if (e->left >= 8) {
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            float32x4x2_t v;
            EK_UNROLL for (unsigned j = 0; j < 2; j++)
                v.val[j] = vminnmq_f32(vmaxnmq_f32(acc[r][j], lo), hi);
            vst1q_f32_x2(y, v);
            y += ldy;
            EK_PIN(y);
        }
    } else {
        EK_UNROLL for (unsigned r = 0; r < mr; r++, y += ldy)
            EK_UNROLL for (unsigned j = 0; j < 2; j++)
                if (e->left > 4 * j)
                    ek_store4_f32(y + 4 * j, vminnmq_f32(vmaxnmq_f32(acc[r][j], lo), hi), e->left - 4 * j);
    }
    e->y = y;
}

/* 8 outputs of the next 4 * nq rows; returns what follows them */
EK_INLINE const uint8_t *tile_f32(ek_ends *e, const uint8_t *panel, const float *w, uint32_t k, const unsigned nq)
{
    const size_t group = 4 * (size_t)((k + 3) & ~3u); /* floats */
    const float *p[3];
    float32x4_t acc[12][2];
    EK_UNROLL for (unsigned q = 0; q < nq; q++) {
        p[q] = (const float *)(const void *)panel + q * group;
        EK_PIN(p[q]);
    }
    EK_UNROLL for (unsigned r = 0; r < 4 * nq; r++)
        EK_LOAD_PAIR(float, acc[r][0], acc[r][1], w);
    w += 8;
    for (uint32_t i = k / 8; i; i--)
        EK_UNROLL for (unsigned s = 0; s < 4; s++)
            step2_f32(acc, p, &w, nq);
    for (k %= 8; k > 1; k -= 2)
        step2_f32(acc, p, &w, nq);
    if (k)
        EK_UNROLL for (unsigned q = 0; q < nq; q++)
            step_f32(acc + 4 * q, vld1q_f32(p[q]), vld1q_f32(w), vld1q_f32(w + 4));
    finish_f32(e, acc, 4 * nq);
    return panel + 4 * nq * group;
}

static void block_f32(EK_BLOCK_ARGS)
{
    ek_ends e = *given;
    const float *w = (const float *)(const void *)head;
    const uint32_t k = g->k;
    (void)weights;
    for (; m >= F32_MOST; m -= F32_MOST)
        panel = tile_f32(&e, panel, w, k, F32_MOST / 4);
    for (; m >= 8; m -= 8)
        panel = tile_f32(&e, panel, w, k, 2);
    if (m)
        tile_f32(&e, panel, w, k, 1);
}

/* nb blocks of outputs of one row */
EK_INLINE void row_tile_f32(ek_ends *e, const ek_cursor *c, const uint8_t *row, const float *head, size_t size, const unsigned nb)
{
    const float *w[4];
    float32x4_t acc[4][1][2];
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        w[b] = head + b * size + 8;
        EK_PIN(w[b]);
        acc[b][0][0] = vld1q_f32(w[b] - 8);
        acc[b][0][1] = vld1q_f32(w[b] - 4);
    }
    for (uint32_t done = 0; done < c->bytes; done += c->segment, row += c->gap) {
        const float *a = (const float *)(const void *)row;
        for (uint32_t i = c->segment / 16; i; i--, a += 4) {
            float32x4_t x = vld1q_f32(a);
            EK_UNROLL for (unsigned b = 0; b < nb; b++) {
                float32x4x4_t u = vld1q_f32_x4(w[b]), v;
                w[b] += 16;
                EK_PIN(w[b]);
                v = vld1q_f32_x4(w[b]);
                w[b] += 16;
                acc[b][0][0] = vfmaq_laneq_f32(acc[b][0][0], u.val[0], x, 0);
                acc[b][0][1] = vfmaq_laneq_f32(acc[b][0][1], u.val[1], x, 0);
                acc[b][0][0] = vfmaq_laneq_f32(acc[b][0][0], u.val[2], x, 1);
                acc[b][0][1] = vfmaq_laneq_f32(acc[b][0][1], u.val[3], x, 1);
                acc[b][0][0] = vfmaq_laneq_f32(acc[b][0][0], v.val[0], x, 2);
                acc[b][0][1] = vfmaq_laneq_f32(acc[b][0][1], v.val[1], x, 2);
                acc[b][0][0] = vfmaq_laneq_f32(acc[b][0][0], v.val[2], x, 3);
                acc[b][0][1] = vfmaq_laneq_f32(acc[b][0][1], v.val[3], x, 3);
                EK_AFTER(acc[b][0][0], acc[b][0][1], w[b + 1 < nb ? b + 1 : 0]);
            }
        }
        for (uint32_t k = c->segment % 16; k; k -= 4, a++)
            EK_UNROLL for (unsigned b = 0; b < nb; b++) {
                acc[b][0][0] = vfmaq_n_f32(acc[b][0][0], vld1q_f32(w[b]), *a);
                acc[b][0][1] = vfmaq_n_f32(acc[b][0][1], vld1q_f32(w[b] + 4), *a);
                w[b] += 8;
            }
    }
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        ek_ends now = *e;
        finish_f32(&now, acc[b], 1);
        e->y = (float *)e->y + 8;
        e->left -= 8;
    }
}

static void row_f32(EK_ROW_ARGS)
{
    ek_ends e = *given;
    const size_t size = 8 * ((size_t)g->k + 1);
    const float *w = (const float *)(const void *)g->w, *end = w + (g->n + 7) / 8 * size;
    for (; (size_t)(end - w) >= 4 * size; w += 4 * size)
        row_tile_f32(&e, c, a, w, size, 4);
    for (; w < end; w += size)
        row_tile_f32(&e, c, a, w, size, 1);
}

static void gemm_f32(const ek_gemm *g) { ek_gemm_panels(g, 32 * ((size_t)g->k + 1), block_f32, row_f32, 4, 4, 4, F32_MOST); }

void ek_kernels_neon(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_NEON);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_NEON);
    EK_SET(k, gemm_f32, GEMM_F32, gemm_f32, EK_ISA_NEON);
    k->s8_nr = 8;
    k->s8_kr = 4;
    k->s8_kr_too = 8;
    k->s8_xoff = 0;
    k->f32_nr = 8;
    k->tile_rows = 24;
    k->windows = 3;
    k->odd_k = EK_ODD_K;
    k->apart = 1;
    ek_dw_neon(k);
    ek_elementwise_neon(k);
}
#else
typedef int ek_no_neon; /* a translation unit must not be empty */
#endif
