/* GEMM with Advanced SIMD alone.  Blocks of 8 outputs, 4 inputs deep: SMULL makes 16-bit products of two outputs by 4
 * inputs, SADALP adds neighbours to 32 bits.  A second product fits in 16 bits where no weight is -128. */
#if defined(__aarch64__)
#include "neon.h"

/* the next row waits for this one: compilers start them all, and spill */
#define IN_ORDER(acc, next) __asm__ volatile("" : "+w"((acc)[0]), "+w"((acc)[1]), "+w"((acc)[2]), "+w"((acc)[3]), "+w"(next))

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

EK_INLINE void tile_int(const ek_gemm *g, const ek_requant_neon *q, uint32_t m, uint32_t n, const uint8_t *head, const int dyn,
                        const int pairs, const unsigned mr)
{
    const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda, *w = (const int8_t *)head + 64;
    const int8_t *row[4];
    int32x4_t acc[4][4], bias[2]; /* [row][pair of outputs]: two partial sums each */
    const int32x4_t none = vdupq_n_s32(0);
    ek_start(head, dyn, bias);
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        row[r] = a + (ptrdiff_t)r * g->lda;
        EK_KEEP(row[r]);
        EK_UNROLL for (unsigned j = 0; j < 4; j++)
            acc[r][j] = j & 1 ? vzip2q_s32(bias[j / 2], none) : vzip1q_s32(bias[j / 2], none);
    }
    size_t k = 0;
    for (; pairs && k + 16 <= g->k; k += 16, w += 128) {
        int8x16_t x[4];
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            x[r] = vld1q_s8(row[r] + k);
#define EK_PAIR(i)                                                                                           \
        do {                                                                                                 \
            int8x16_t a0 = vld1q_s8(w + 64 * i), a1 = vld1q_s8(w + 64 * i + 16);                             \
            int8x16_t b0 = vld1q_s8(w + 64 * i + 32), b1 = vld1q_s8(w + 64 * i + 48);                        \
            EK_UNROLL for (unsigned r = 0; r < mr; r++) {                                                    \
                int8x16_t u = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x[r]), 2 * i));      \
                int8x16_t v = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x[r]), 2 * i + 1));  \
                acc[r][0] = vpadalq_s16(acc[r][0], two_low(u, a0, v, b0));                                \
                acc[r][1] = vpadalq_s16(acc[r][1], vmlal_high_s8(vmull_high_s8(a0, u), b0, v));              \
                acc[r][2] = vpadalq_s16(acc[r][2], two_low(u, a1, v, b1));                                \
                acc[r][3] = vpadalq_s16(acc[r][3], vmlal_high_s8(vmull_high_s8(a1, u), b1, v));              \
                IN_ORDER(acc[r], x[r + 1 < mr ? r + 1 : 0]);                                                 \
            }                                                                                                \
        } while (0)
        EK_PAIR(0);
        EK_PAIR(1);
#undef EK_PAIR
    }
    for (; k < g->k; k += 4, w += 32) {
        int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(ek_load_s32(row[r] + k)));
            acc[r][0] = vpadalq_s16(acc[r][0], vmull_s8(vget_low_s8(w0), vget_low_s8(x)));
            acc[r][1] = vpadalq_s16(acc[r][1], vmull_high_s8(w0, x));
            acc[r][2] = vpadalq_s16(acc[r][2], vmull_s8(vget_low_s8(w1), vget_low_s8(x)));
            acc[r][3] = vpadalq_s16(acc[r][3], vmull_high_s8(w1, x));
        }
    }
    int32x4_t sums[4][2];
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        sums[r][0] = vpaddq_s32(acc[r][0], acc[r][1]);
        sums[r][1] = vpaddq_s32(acc[r][2], acc[r][3]);
    }
    ek_finish(g, q, head, m, n, sums, dyn, mr);
}

EK_INLINE void gemm(const ek_gemm *g, const int dyn)
{
    const uint8_t *w = g->w;
    size_t block = ek_block_s8(8, 4, g->k);
    const ek_requant_neon bounds = dyn ? (ek_requant_neon){ 0 } : ek_requant_neon_of(g->lo, g->hi, g->zero), *q = &bounds;
    for (uint32_t n = 0; n < g->n; n += 8, w += block) {
        const int pairs = g->m > 1 && small((const int8_t *)w + 64, block - 64);
        uint32_t m = 0;
        for (; m + 4 <= g->m; m += 4)
            tile_int(g, q, m, n, w, dyn, pairs, 4);
        for (; m + 2 <= g->m; m += 2)
            tile_int(g, q, m, n, w, dyn, pairs, 2);
        if (m < g->m)
            tile_int(g, q, m, n, w, dyn, pairs, 1);
    }
}

static void gemm_s8(const ek_gemm *g) { gemm(g, 0); }
static void gemm_dyn(const ek_gemm *g) { gemm(g, 1); }

EK_INLINE void tile_f32(const ek_gemm *g, const float *a, const float *w, float *y, uint32_t left, const unsigned mr)
{
    float32x4_t acc[8][2];
    const float *row[8];
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        row[r] = a + (ptrdiff_t)r * g->lda;
        EK_KEEP(row[r]);
        acc[r][0] = vld1q_f32(w);
        acc[r][1] = vld1q_f32(w + 4);
    }
    size_t k = 0;
    w += 8;
    for (; k + 4 <= g->k; k += 4, w += 32) {
        float32x4_t x[8];
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            x[r] = vld1q_f32(row[r] + k);
#define EK_STEP(i)                                                                   \
        do {                                                                         \
            float32x4_t lo = vld1q_f32(w + 8 * i), hi = vld1q_f32(w + 8 * i + 4);    \
            EK_UNROLL for (unsigned r = 0; r < mr; r++) {                            \
                acc[r][0] = vfmaq_laneq_f32(acc[r][0], lo, x[r], i);                 \
                acc[r][1] = vfmaq_laneq_f32(acc[r][1], hi, x[r], i);                 \
            }                                                                        \
        } while (0)
        EK_STEP(0);
        EK_STEP(1);
        EK_STEP(2);
        EK_STEP(3);
#undef EK_STEP
    }
    for (; k < g->k; k++, w += 8) {
        float32x4_t lo = vld1q_f32(w), hi = vld1q_f32(w + 4);
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            float x = row[r][k];
            acc[r][0] = vfmaq_n_f32(acc[r][0], lo, x);
            acc[r][1] = vfmaq_n_f32(acc[r][1], hi, x);
        }
    }
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        float *out = y + (ptrdiff_t)r * g->ldy;
        ek_store4_f32(out, ek_clampq(acc[r][0], g->lo, g->hi), left);
        if (left > 4)
            ek_store4_f32(out + 4, ek_clampq(acc[r][1], g->lo, g->hi), left - 4);
    }
}

static void gemm_f32(const ek_gemm *g)
{
    const float *w = (const float *)(const void *)g->w;
    for (uint32_t n = 0; n < g->n; n += 8, w += 8 * ((size_t)g->k + 1)) {
        const float *a = (const float *)g->a;
        float *y = (float *)g->y + n;
        uint32_t m = 0;
        for (; m + 8 <= g->m; m += 8, a += 8 * g->lda, y += 8 * g->ldy)
            tile_f32(g, a, w, y, g->n - n, 8);
        for (; m + 4 <= g->m; m += 4, a += 4 * g->lda, y += 4 * g->ldy)
            tile_f32(g, a, w, y, g->n - n, 4);
        for (; m < g->m; m++, a += g->lda, y += g->ldy)
            tile_f32(g, a, w, y, g->n - n, 1);
    }
}

void ek_kernels_neon(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_NEON);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_NEON);
    EK_SET(k, gemm_f32, GEMM_F32, gemm_f32, EK_ISA_NEON);
    k->s8_nr = 8;
    k->s8_kr = 4;
    k->s8_xoff = 0;
    k->f32_nr = 8;
    k->tile_rows = 16;
    ek_dw_neon(k);
    ek_elementwise_neon(k);
}
#else
typedef int ek_no_neon; /* a translation unit must not be empty */
#endif
