/* GEMM with SDOT.  Blocks of 8 outputs, 4 inputs deep; 16 bytes of a row serve four steps by lane. */
#if defined(__aarch64__)
#include "../neon/neon.h"

#define EK_DOT __attribute__((target("arch=armv8.2-a+dotprod")))

/* mr rows by nb blocks from n on; at most 8 of both together */
EK_INLINE EK_DOT void tile_int(const ek_gemm *g, const ek_requant_neon *q, uint32_t m, uint32_t n, const uint8_t *head, const int dyn,
                               const unsigned mr, const unsigned nb)
{
    const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda, *w = (const int8_t *)head + 64;
    const size_t block = ek_block_s8(8, 4, g->k);
    const int8_t *row[8];
    int32x4_t acc[2][8][2];
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        row[r] = a + (ptrdiff_t)r * g->lda;
        EK_KEEP(row[r]);
    }
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        int32x4_t bias[2];
        ek_start(head + b * block, dyn, bias);
        EK_UNROLL for (unsigned r = 0; r < mr; r++) {
            acc[b][r][0] = bias[0];
            acc[b][r][1] = bias[1];
        }
    }
    size_t k = 0, kp = (g->k + 3) & ~3u;
    for (; k + 16 <= kp; k += 16, w += 128) {
        int8x16_t x[8];
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            x[r] = vld1q_s8(row[r] + k);
#define EK_STEP(i)                                                                     \
        EK_UNROLL for (unsigned b = 0; b < nb; b++) {                                  \
            const int8_t *p = w + b * block + 32 * i;                                  \
            int8x16_t lo = vld1q_s8(p), hi = vld1q_s8(p + 16);                         \
            EK_UNROLL for (unsigned r = 0; r < mr; r++) {                              \
                acc[b][r][0] = vdotq_laneq_s32(acc[b][r][0], lo, x[r], i);             \
                acc[b][r][1] = vdotq_laneq_s32(acc[b][r][1], hi, x[r], i);             \
            }                                                                          \
        }
        EK_STEP(0)
        EK_STEP(1)
        EK_STEP(2)
        EK_STEP(3)
    }
    if (k + 8 <= kp) {
        int8x16_t x[8];
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            x[r] = vcombine_s8(vld1_s8(row[r] + k), vdup_n_s8(0));
        EK_STEP(0)
        EK_STEP(1)
        k += 8;
        w += 64;
    }
#undef EK_STEP
    if (k < kp)
        EK_UNROLL for (unsigned b = 0; b < nb; b++) {
            int8x16_t lo = vld1q_s8(w + b * block), hi = vld1q_s8(w + b * block + 16);
            EK_UNROLL for (unsigned r = 0; r < mr; r++) {
                int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(ek_load_s32(row[r] + k)));
                acc[b][r][0] = vdotq_s32(acc[b][r][0], lo, x);
                acc[b][r][1] = vdotq_s32(acc[b][r][1], hi, x);
            }
        }
    EK_UNROLL for (unsigned b = 0; b < nb; b++)
        ek_finish(g, q, head + b * block, m, n + 8 * b, acc[b], dyn, mr);
}

EK_INLINE EK_DOT void row1(const ek_gemm *g, const ek_requant_neon *q, const int dyn)
{
    const uint8_t *w = g->w;
    size_t block = ek_block_s8(8, 4, g->k);
    uint32_t n = 0;
    for (; n + 8 < g->n; n += 16, w += 2 * block)
        tile_int(g, q, 0, n, w, dyn, 1, 2);
    if (n < g->n)
        tile_int(g, q, 0, n, w, dyn, 1, 1);
}

EK_INLINE EK_DOT void gemm(const ek_gemm *g, const int dyn)
{
    const uint8_t *w = g->w;
    size_t block = ek_block_s8(8, 4, g->k);
    const ek_requant_neon bounds = dyn ? (ek_requant_neon){ 0 } : ek_requant_neon_of(g->lo, g->hi, g->zero), *q = &bounds;
    if (g->m == 1) {
        row1(g, q, dyn);
        return;
    }
    for (uint32_t n = 0; n < g->n; n += 8, w += block) {
        uint32_t m = 0;
        for (; m + 8 <= g->m; m += 8)
            tile_int(g, q, m, n, w, dyn, 8, 1);
        for (; m + 4 <= g->m; m += 4)
            tile_int(g, q, m, n, w, dyn, 4, 1);
        for (; m + 2 <= g->m; m += 2)
            tile_int(g, q, m, n, w, dyn, 2, 1);
        if (m < g->m)
            tile_int(g, q, m, n, w, dyn, 1, 1);
    }
}

static EK_DOT void gemm_s8(const ek_gemm *g) { gemm(g, 0); }
static EK_DOT void gemm_dyn(const ek_gemm *g) { gemm(g, 1); }

void ek_kernels_dotprod(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_DOTPROD);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_DOTPROD);
    k->s8_nr = 8;
    k->s8_kr = 4;
    k->s8_xoff = 0;
}
#else
typedef int ek_no_dotprod; /* a translation unit must not be empty */
#endif
