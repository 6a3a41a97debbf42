/* GEMM with SMMLA: 2 rows x 8 inputs by 2 outputs x 8 inputs.  Blocks of 8 outputs, 8 inputs deep. */
#if defined(__aarch64__)
#include "../neon/neon.h"

#define EK_I8MM __attribute__((target("arch=armv8.2-a+i8mm")))

EK_INLINE int8x16_t low_halves(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

EK_INLINE int8x16_t high_halves(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

/* row h of two accumulators of 2 x 2 */
EK_INLINE int32x4_t row_of(int32x4_t a, int32x4_t b, const unsigned h)
{
    int64x2_t x = vreinterpretq_s64_s32(a), y = vreinterpretq_s64_s32(b);
    return vreinterpretq_s32_s64(h ? vzip2q_s64(x, y) : vzip1q_s64(x, y));
}

/* `pairs` pairs of rows by nb blocks from n on; a single pair may lack its second row */
EK_INLINE EK_I8MM void tile_int(const ek_gemm *g, const ek_requant_neon *q, uint32_t m, uint32_t n, const uint8_t *head, const int dyn,
                                const unsigned pairs, const unsigned nb)
{
    const int8_t *w = (const int8_t *)head + 64, *a[4][2];
    const size_t block = ek_block_s8(8, 8, g->k);
    int32x4_t acc[2][4][4]; /* [block][pair of rows][pair of outputs] */
    EK_UNROLL for (unsigned p = 0; p < pairs; p++) {
        a[p][0] = (const int8_t *)g->a + (ptrdiff_t)(m + 2 * p) * g->lda;
        a[p][1] = pairs > 1 || m + 1 < g->m ? a[p][0] + g->lda : a[p][0];
        EK_KEEP(a[p][0]);
        EK_KEEP(a[p][1]);
    }
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        int32x4_t bias[2];
        ek_start(head + b * block, dyn, bias);
        EK_UNROLL for (unsigned j = 0; j < 4; j++) {
            int32x4_t both = row_of(bias[j / 2], bias[j / 2], j & 1);
            EK_UNROLL for (unsigned p = 0; p < pairs; p++)
                acc[b][p][j] = both;
        }
    }
    size_t k = 0, kp = (g->k + 7) & ~7u;
    for (; k + 16 <= kp; k += 16, w += 128) {
        int8x16_t x[2][4];
        EK_UNROLL for (unsigned p = 0; p < pairs; p++) {
            int8x16_t u = vld1q_s8(a[p][0] + k), v = vld1q_s8(a[p][1] + k);
            x[0][p] = low_halves(u, v);
            x[1][p] = high_halves(u, v);
        }
        EK_UNROLL for (unsigned j = 0; j < 8 * nb; j++) { /* j: block, half, pair of outputs */
            int8x16_t v = vld1q_s8(w + j / 8 * block + 16 * (j % 8));
            EK_UNROLL for (unsigned p = 0; p < pairs; p++)
                acc[j / 8][p][j % 4] = vmmlaq_s32(acc[j / 8][p][j % 4], x[j / 4 % 2][p], v);
        }
    }
    if (k < kp) {
        int8x16_t x[4];
        EK_UNROLL for (unsigned p = 0; p < pairs; p++)
            x[p] = vcombine_s8(vld1_s8(a[p][0] + k), vld1_s8(a[p][1] + k));
        EK_UNROLL for (unsigned j = 0; j < 4 * nb; j++) {
            int8x16_t v = vld1q_s8(w + j / 4 * block + 16 * (j % 4));
            EK_UNROLL for (unsigned p = 0; p < pairs; p++)
                acc[j / 4][p][j % 4] = vmmlaq_s32(acc[j / 4][p][j % 4], x[p], v);
        }
    }
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        int32x4_t sums[8][2];
        EK_UNROLL for (unsigned r = 0; r < 2 * pairs; r++)
            EK_UNROLL for (unsigned h = 0; h < 2; h++)
                sums[r][h] = row_of(acc[b][r / 2][2 * h], acc[b][r / 2][2 * h + 1], r & 1);
        if (pairs == 1 && m + 1 == g->m)
            ek_finish(g, q, head + b * block, m, n + 8 * b, sums, dyn, 1);
        else
            ek_finish(g, q, head + b * block, m, n + 8 * b, sums, dyn, 2 * pairs);
    }
}

EK_INLINE EK_I8MM void gemm(const ek_gemm *g, const int dyn)
{
    const uint8_t *w = g->w;
    size_t block = ek_block_s8(8, 8, g->k);
    const ek_requant_neon bounds = dyn ? (ek_requant_neon){ 0 } : ek_requant_neon_of(g->lo, g->hi, g->zero), *q = &bounds;
    uint32_t n = 0;
    if (g->m <= 2)
        for (; n + 8 < g->n; n += 16, w += 2 * block)
            tile_int(g, q, 0, n, w, dyn, 1, 2);
    for (; n < g->n; n += 8, w += block) {
        uint32_t m = 0;
        for (; m + 8 <= g->m; m += 8)
            tile_int(g, q, m, n, w, dyn, 4, 1);
        for (; m + 4 <= g->m; m += 4)
            tile_int(g, q, m, n, w, dyn, 2, 1);
        for (; m < g->m; m += 2)
            tile_int(g, q, m, n, w, dyn, 1, 1);
    }
}

static EK_I8MM void gemm_s8(const ek_gemm *g) { gemm(g, 0); }
static EK_I8MM void gemm_dyn(const ek_gemm *g) { gemm(g, 1); }

void ek_kernels_i8mm(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_I8MM);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_I8MM);
    k->s8_nr = 8;
    k->s8_kr = 8;
    k->s8_xoff = 0;
}
#else
typedef int ek_no_i8mm; /* a translation unit must not be empty */
#endif
