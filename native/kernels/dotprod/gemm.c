/* GEMM with SDOT.  Blocks of 8 outputs, 4 inputs deep; a vector of a panel holds 4 inputs of 4 rows, each its lane. */
#if defined(__aarch64__)
#include "dotprod.h"

enum { MOST = 12 };

/* 4 inputs deep: 4 * nq rows by 8 outputs; lanes of x: rows */
EK_INLINE EK_DOT void step(int32x4_t acc[][2], const int8_t *p, const int8_t *w, const unsigned nq)
{
    int8x16_t lo = vld1q_s8(w), hi = vld1q_s8(w + 16);
    EK_UNROLL for (unsigned q = 0; q < nq; q++) {
        int8x16_t x = vld1q_s8(p + 64 * q);
#define EK_ROW(i)                                                            \
        acc[4 * q + i][0] = vdotq_laneq_s32(acc[4 * q + i][0], lo, x, i);    \
        acc[4 * q + i][1] = vdotq_laneq_s32(acc[4 * q + i][1], hi, x, i);
        EK_ROW(0)
        EK_ROW(1)
        EK_ROW(2)
        EK_ROW(3)
#undef EK_ROW
    }
}

EK_INLINE EK_DOT void chunk(int32x4_t acc[][2], const int8_t *p, const int8_t *w, const unsigned nq)
{
    EK_UNROLL for (unsigned s = 0; s < 4; s++) {
        step(acc, p + 16 * s, w + 32 * s, nq);
        EK_GCC_IN_ORDER();
    }
}

/* 8 outputs of the 4 * nq rows of a panel */
EK_INLINE EK_DOT const uint8_t *tile(ek_ends *e, const uint8_t *panel, const uint8_t *head, uint32_t k, const int dyn, const unsigned nq)
{
    const int8_t *p = (const int8_t *)panel, *w = (const int8_t *)head + 64;
    int32x4_t acc[12][2];
    EK_UNROLL for (unsigned r = 0; r < 4 * nq; r++) {
        if (dyn)
            acc[r][0] = acc[r][1] = vdupq_n_s32(0);
        else
            EK_LOAD_PAIR(int32_t, acc[r][0], acc[r][1], head);
    }
    for (uint32_t i = k / 32; i; i--) {
        chunk(acc, p, w, nq);
        chunk(acc, p + 64 * nq, w + 128, nq);
        p += 128 * nq;
        w += 256;
    }
    if (k & 16) {
        chunk(acc, p, w, nq);
        p += 64 * nq;
        w += 128;
    }
    uint32_t rest = (k % 16 + 3) / 4;
    panel = (const uint8_t *)p + (rest ? 64 * nq : 0);
    for (; rest; rest--, p += 16, w += 32)
        step(acc, p, w, nq);
    ek_finish(e, head, acc, dyn, 4 * nq);
    return panel;
}

EK_INLINE EK_DOT void block(EK_BLOCK_ARGS, const int dyn)
{
    ek_ends e = *given;
    const uint32_t k = g->k;
    for (; m >= MOST; m -= MOST)
        panel = tile(&e, panel, head, k, dyn, MOST / 4);
    for (; m >= 8; m -= 8)
        panel = tile(&e, panel, head, k, dyn, 2);
    if (m)
        tile(&e, panel, head, k, dyn, 1);
}

/* nb blocks of outputs of one row */
EK_INLINE EK_DOT void row_tile(ek_ends *e, const ek_cursor *c, const uint8_t *row, const uint8_t *head, size_t size, const int dyn,
                               const unsigned nb)
{
    const int8_t *w[4];
    int32x4_t acc[4][1][2];
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        ek_start(head + b * size, dyn, acc[b][0]);
        w[b] = (const int8_t *)head + b * size + 64;
        EK_KEEP(w[b]);
    }
    for (uint32_t done = 0; done < c->bytes; done += c->segment, row += c->gap) {
        const int8_t *a = (const int8_t *)row;
        for (uint32_t i = c->segment / 16; i; i--, a += 16) {
            int8x16_t x = vld1q_s8(a);
            EK_UNROLL for (unsigned b = 0; b < nb; b++) {
                int8x16x4_t u = vld1q_s8_x4(w[b]), v;
                w[b] += 64;
                EK_KEEP(w[b]);
                v = vld1q_s8_x4(w[b]);
                w[b] += 64;
                acc[b][0][0] = vdotq_laneq_s32(acc[b][0][0], u.val[0], x, 0);
                acc[b][0][1] = vdotq_laneq_s32(acc[b][0][1], u.val[1], x, 0);
                acc[b][0][0] = vdotq_laneq_s32(acc[b][0][0], u.val[2], x, 1);
                acc[b][0][1] = vdotq_laneq_s32(acc[b][0][1], u.val[3], x, 1);
                acc[b][0][0] = vdotq_laneq_s32(acc[b][0][0], v.val[0], x, 2);
                acc[b][0][1] = vdotq_laneq_s32(acc[b][0][1], v.val[1], x, 2);
                acc[b][0][0] = vdotq_laneq_s32(acc[b][0][0], v.val[2], x, 3);
                acc[b][0][1] = vdotq_laneq_s32(acc[b][0][1], v.val[3], x, 3);
                EK_AFTER(acc[b][0][0], acc[b][0][1], w[b + 1 < nb ? b + 1 : 0]);
            }
        }
        for (uint32_t k = c->segment % 16; k; k -= 4, a += 4) {
            int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(ek_load_s32(a)));
            EK_UNROLL for (unsigned b = 0; b < nb; b++) {
                acc[b][0][0] = vdotq_s32(acc[b][0][0], vld1q_s8(w[b]), x);
                acc[b][0][1] = vdotq_s32(acc[b][0][1], vld1q_s8(w[b] + 16), x);
                w[b] += 32;
            }
        }
    }
    EK_UNROLL for (unsigned b = 0; b < nb; b++)
        ek_finish_row(e, head + b * size, acc[b], dyn);
}

EK_INLINE EK_DOT void row(EK_ROW_ARGS, const int dyn)
{
    ek_ends e = *given;
    const size_t size = ek_block_s8(8, 4, g->k);
    const uint8_t *w = g->w, *end = w + (g->n + 7) / 8 * size;
    for (; (size_t)(end - w) >= 4 * size; w += 4 * size)
        row_tile(&e, c, a, w, size, dyn, 4);
    for (; w < end; w += size)
        row_tile(&e, c, a, w, size, dyn, 1);
}

static EK_DOT void block_s8(EK_BLOCK_ARGS) { block(g, given, panel, head, m, 0); }
static EK_DOT void block_dyn(EK_BLOCK_ARGS) { block(g, given, panel, head, m, 1); }
static EK_DOT void row_s8(EK_ROW_ARGS) { row(g, given, c, a, 0); }
static EK_DOT void row_dyn(EK_ROW_ARGS) { row(g, given, c, a, 1); }
static void gemm_s8(const ek_gemm *g) { ek_gemm_panels(g, ek_block_s8(8, 4, g->k), block_s8, row_s8, 1, 1, 4, MOST); }
static void gemm_dyn(const ek_gemm *g) { ek_gemm_panels(g, ek_block_s8(8, 4, g->k), block_dyn, row_dyn, 1, 4, 4, MOST); }

void ek_kernels_dotprod(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_DOTPROD);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_DOTPROD);
    k->s8_nr = 8;
    k->s8_kr = 4;
    k->s8_xoff = 0;
    k->windows |= 1;
    k->odd_k = EK_ODD_K;
    ek_dw_dotprod(k);
}
#else
typedef int ek_no_dotprod; /* a translation unit must not be empty */
#endif
