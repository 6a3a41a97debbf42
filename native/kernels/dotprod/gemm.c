/* GEMM with SDOT.  Blocks of 8 outputs, 4 inputs deep; a vector of a panel holds 4 inputs of 4 rows, each its lane.  What was packed
 * for SMMLA, 8 deep, is multiplied row by row. */
#if defined(__aarch64__)
#include "dotprod.h"

enum { MOST = 12 };

/* 4 inputs deep: 4 rows, the lanes of x, by 8 outputs */
EK_INLINE EK_DOT void step(int32x4_t acc[][2], int8x16_t x, int8x16_t lo, int8x16_t hi)
{
#define EK_ROW(i)                                                    \
    acc[i][0] = vdotq_laneq_s32(acc[i][0], lo, x, i);                \
    acc[i][1] = vdotq_laneq_s32(acc[i][1], hi, x, i);
    EK_ROW(0)
    EK_ROW(1)
    EK_ROW(2)
    EK_ROW(3)
#undef EK_ROW
}

/* 8 inputs deep, 4 * nq rows; moves on */
EK_INLINE EK_DOT void step2(int32x4_t acc[][2], const int8_t **p, const int8_t **w, const unsigned nq)
{
    int8x16_t v[4], x, z;
    EK_NEXT_FOUR(int8x16x4_t, vld1q_s8_x4, v, *w);
    EK_UNROLL for (unsigned q = 0; q < nq; q++) {
        EK_NEXT_PAIR(x, z, p[q]);
        step(acc + 4 * q, x, v[0], v[1]);
        step(acc + 4 * q, z, v[2], v[3]);
        EK_AFTER_ROWS(acc + 4 * q, p[q + 1 < nq ? q + 1 : 0], *w);
    }
}

/* 8 outputs of the next 4 * nq rows; returns what follows them */
EK_INLINE EK_DOT const uint8_t *tile(ek_ends *e, const uint8_t *panel, const uint8_t *head, const uint8_t *weights, uint32_t k,
                                     const int dyn, const unsigned nq)
{
    const size_t group = 4 * (size_t)((k + 15) & ~15u);
    const int8_t *p[3], *w = (const int8_t *)weights;
    int32x4_t acc[12][2];
    EK_UNROLL for (unsigned q = 0; q < nq; q++) {
        p[q] = (const int8_t *)panel + q * group;
        EK_PIN(p[q]);
    }
    EK_UNROLL for (unsigned r = 0; r < 4 * nq; r++) {
        if (dyn)
            acc[r][0] = acc[r][1] = vdupq_n_s32(0);
        else
            EK_LOAD_PAIR(int32_t, acc[r][0], acc[r][1], head);
    }
    uint32_t steps = (k + 3) / 4;
    for (uint32_t i = steps / 8; i; i--)
        EK_UNROLL for (unsigned s = 0; s < 4; s++)
            step2(acc, p, &w, nq);
    for (steps %= 8; steps > 1; steps -= 2)
        step2(acc, p, &w, nq);
    if (steps)
        EK_UNROLL for (unsigned q = 0; q < nq; q++)
            step(acc + 4 * q, vld1q_s8(p[q]), vld1q_s8(w), vld1q_s8(w + 16));
    ek_finish(e, head, acc, dyn, 4 * nq);
    return panel + nq * group;
}

EK_INLINE EK_DOT void block(EK_BLOCK_ARGS, const int dyn)
{
    ek_ends e = *given;
    const uint32_t k = g->k;
    for (; m >= MOST; m -= MOST)
        panel = tile(&e, panel, head, weights, k, dyn, MOST / 4);
    for (; m >= 8; m -= 8)
        panel = tile(&e, panel, head, weights, k, dyn, 2);
    if (m)
        tile(&e, panel, head, weights, k, dyn, 1);
}

/* 16 inputs of a row, four deep, by 8 outputs */
EK_INLINE EK_DOT void row_chunk4(int32x4_t acc[1][2], int8x16_t x, const int8_t **w)
{
    int8x16x4_t u = vld1q_s8_x4(*w), v;
    *w += 64;
    EK_PIN(*w);
    v = vld1q_s8_x4(*w);
    *w += 64;
    acc[0][0] = vdotq_laneq_s32(acc[0][0], u.val[0], x, 0);
    acc[0][1] = vdotq_laneq_s32(acc[0][1], u.val[1], x, 0);
    acc[0][0] = vdotq_laneq_s32(acc[0][0], u.val[2], x, 1);
    acc[0][1] = vdotq_laneq_s32(acc[0][1], u.val[3], x, 1);
    acc[0][0] = vdotq_laneq_s32(acc[0][0], v.val[0], x, 2);
    acc[0][1] = vdotq_laneq_s32(acc[0][1], v.val[1], x, 2);
    acc[0][0] = vdotq_laneq_s32(acc[0][0], v.val[2], x, 3);
    acc[0][1] = vdotq_laneq_s32(acc[0][1], v.val[3], x, 3);
}

/* nb blocks of outputs of one row */
EK_INLINE EK_DOT void row_tile4(ek_ends *e, const ek_cursor *c, const uint8_t *row, const ek_blocks *o, const int dyn, const unsigned nb)
{
    const int8_t *w[4];
    int32x4_t acc[4][1][2];
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        ek_start(o->head + b * o->next_head, dyn, acc[b][0]);
        w[b] = (const int8_t *)o->w + b * o->next_w;
        EK_PIN(w[b]);
    }
    for (uint32_t done = 0; done < c->bytes; done += c->segment, row += c->gap) {
        const int8_t *a = (const int8_t *)row;
        for (uint32_t i = c->segment / 16; i; i--, a += 16) {
            int8x16_t x = vld1q_s8(a);
            EK_UNROLL for (unsigned b = 0; b < nb; b++) {
                row_chunk4(acc[b], x, &w[b]);
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
        ek_finish_row(e, o->head + b * o->next_head, acc[b], dyn);
}

/* the same of blocks 8 inputs deep; acc[block][pair of outputs]: two partial sums each */
EK_INLINE EK_DOT void row_tile8(ek_ends *e, const ek_cursor *c, const uint8_t *row, const ek_blocks *o, const int dyn, const unsigned nb)
{
    const int32x4_t none = vdupq_n_s32(0);
    const int8_t *w[4];
    int32x4_t acc[4][4], bias[2];
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        ek_start(o->head + b * o->next_head, dyn, bias);
        EK_UNROLL for (unsigned j = 0; j < 4; j++)
            acc[b][j] = j & 1 ? vzip2q_s32(bias[j / 2], none) : vzip1q_s32(bias[j / 2], none);
        w[b] = (const int8_t *)o->w + b * o->next_w;
        EK_PIN(w[b]);
    }
    for (uint32_t done = 0; done < c->bytes; done += c->segment, row += c->gap) {
        const uint8_t *a = row;
        for (uint32_t i = c->segment / 8; i; i--, a += 8) {
            int8x16_t x = vreinterpretq_s8_u64(vld1q_dup_u64((const uint64_t *)(const void *)a));
            EK_UNROLL for (unsigned b = 0; b < nb; b++) {
                int8x16x4_t v = vld1q_s8_x4(w[b]);
                w[b] += 64;
                EK_UNROLL for (unsigned j = 0; j < 4; j++)
                    acc[b][j] = vdotq_s32(acc[b][j], v.val[j], x);
                EK_AFTER(acc[b][0], acc[b][1], w[b + 1 < nb ? b + 1 : 0]);
                EK_AFTER(acc[b][2], acc[b][3], w[b + 1 < nb ? b + 1 : 0]);
            }
        }
    }
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        int32x4_t sums[1][2] = { { vpaddq_s32(acc[b][0], acc[b][1]), vpaddq_s32(acc[b][2], acc[b][3]) } };
        ek_finish_row(e, o->head + b * o->next_head, sums, dyn);
    }
}

EK_INLINE EK_DOT void row(EK_ROW_ARGS, const int dyn, const uint32_t kr)
{
    ek_ends e = *given;
    ek_blocks o = ek_blocks_of(g, ek_block_s8(8, kr, g->k));
    uint32_t blocks = (g->n + 7) / 8;
    for (; blocks >= 4; blocks -= 4, o.head += 4 * o.next_head, o.w += 4 * o.next_w)
        (kr == 4 ? row_tile4 : row_tile8)(&e, c, a, &o, dyn, 4);
    for (; blocks; blocks--, o.head += o.next_head, o.w += o.next_w)
        (kr == 4 ? row_tile4 : row_tile8)(&e, c, a, &o, dyn, 1);
}

static EK_DOT void block_s8(EK_BLOCK_ARGS) { block(g, given, panel, head, weights, m, 0); }
static EK_DOT void block_dyn(EK_BLOCK_ARGS) { block(g, given, panel, head, weights, m, 1); }
static EK_DOT void row_s8(EK_ROW_ARGS) { row(g, given, c, a, 0, 4); }
static EK_DOT void row_dyn(EK_ROW_ARGS) { row(g, given, c, a, 1, 4); }
EK_DOT void ek_row8_s8_dotprod(EK_ROW_ARGS) { row(g, given, c, a, 0, 8); }
EK_DOT void ek_row8_dyn_dotprod(EK_ROW_ARGS) { row(g, given, c, a, 1, 8); }

void ek_gemm_s8_dotprod(const ek_gemm *g)
{
    if (g->kr == 4)
        ek_gemm_panels(g, ek_block_s8(8, 4, g->k), block_s8, row_s8, 1, 1, 4, MOST);
    else
        ek_gemm_panels(g, 0, 0, ek_row8_s8_dotprod, 1, 1, 4, 4);
}

void ek_gemm_dyn_dotprod(const ek_gemm *g)
{
    if (g->kr == 4)
        ek_gemm_panels(g, ek_block_s8(8, 4, g->k), block_dyn, row_dyn, 1, 4, 4, MOST);
    else
        ek_gemm_panels(g, 0, 0, ek_row8_dyn_dotprod, 1, 4, 4, 4);
}

void ek_kernels_dotprod(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, ek_gemm_s8_dotprod, EK_ISA_DOTPROD);
    EK_SET(k, gemm_dyn, GEMM_DYN, ek_gemm_dyn_dotprod, EK_ISA_DOTPROD);
    k->s8_nr = 8;
    k->s8_kr = 4;
    k->s8_kr_too = 8;
    k->s8_xoff = 0;
    k->windows |= 1;
    k->odd_k = EK_ODD_K;
    k->apart = 1;
    ek_dw_dotprod(k);
}
#else
typedef int ek_no_dotprod; /* a translation unit must not be empty */
#endif
