/* GEMM with SMMLA: 2 rows x 8 inputs by 2 outputs x 8 inputs.  Blocks of 8 outputs, 8 inputs deep.  A single row would leave
 * half of SMMLA idle: SDOT does it, and what was packed for SDOT. */
#if defined(__aarch64__)
#include "../dotprod/dotprod.h"

#define EK_I8MM __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
enum { MOST = 8 };

/* row h of two accumulators of 2 x 2 */
EK_INLINE int32x4_t row_of(int32x4_t a, int32x4_t b, const unsigned h)
{
    int64x2_t x = vreinterpretq_s64_s32(a), y = vreinterpretq_s64_s32(b);
    return vreinterpretq_s32_s64(h ? vzip2q_s64(x, y) : vzip1q_s64(x, y));
}

/* 8 inputs of `pairs` pairs of rows by 8 outputs, acc[pair of rows][pair of outputs]; moves w on */
EK_INLINE EK_I8MM void step(int32x4_t acc[][4], const int8x16_t *x, const int8_t **p, const int8_t **w, const unsigned pairs)
{
    int8x16_t v[4];
    EK_NEXT_FOUR(int8x16x4_t, vld1q_s8_x4, v, *w);
    EK_UNROLL for (unsigned r = 0; r < pairs; r++)
        EK_UNROLL for (unsigned j = 0; j < 4; j++)
            acc[r][j] = vmmlaq_s32(acc[r][j], x[r], v[j]);
    EK_UNROLL for (unsigned r = 0; r < pairs; r += 2)
        EK_AFTER_PAIRS(acc + r, p[0], *w);
}

EK_INLINE EK_I8MM void step2(int32x4_t acc[][4], const int8_t **p, const int8_t **w, const unsigned pairs)
{
    int8x16_t x[4], z[4];
    EK_UNROLL for (unsigned r = 0; r < pairs; r++)
        EK_NEXT_PAIR(x[r], z[r], p[r]);
    step(acc, x, p, w, pairs);
    step(acc, z, p, w, pairs);
}

/* ek_finish_s8 of an even number of pairs: requantized as the sums lie, put in order when they are bytes */
EK_INLINE void finish(ek_ends *e, const uint8_t *head, int32x4_t acc[][4], const unsigned pairs)
{
    const ek_requant_neon q = e->q;
    const ptrdiff_t ldy = e->ldy;
    float32x4_t scale[4];
    int8x16_t v[4];
    int8_t *y = (int8_t *)e->y;
    EK_UNROLL for (unsigned j = 0; j < 4; j++)
        scale[j] = vreinterpretq_f32_u64(vld1q_dup_u64((const uint64_t *)(const void *)(head + 32) + j));
    if (e->adj) {
        EK_UNROLL for (unsigned r = 0; r < pairs; r++) {
            int32x4_t part = vcombine_s32(vdup_n_s32(e->adj[2 * r]), vdup_n_s32(e->adj[2 * r + 1]));
            EK_UNROLL for (unsigned j = 0; j < 4; j++)
                acc[r][j] = vsubq_s32(acc[r][j], part);
        }
        e->adj += 2 * pairs;
    }
    EK_UNROLL for (unsigned r = 0; r < pairs; r++) {
        int8x8_t low = vqmovn_s16(ek_requant8(acc[r][0], acc[r][1], scale[0], scale[1], q.zero));
        v[r] = vqmovn_high_s16(low, ek_requant8(acc[r][2], acc[r][3], scale[2], scale[3], q.zero));
    }
    if (q.clamp)
        EK_UNROLL for (unsigned r = 0; r < pairs; r++)
            v[r] = vminq_s8(vmaxq_s8(v[r], q.low), q.high);
    EK_UNROLL for (unsigned r = 0; r < pairs; r += 2) { /* two outputs of each row in turn */
        int16x8_t a = vreinterpretq_s16_s8(v[r]), b = vreinterpretq_s16_s8(v[r + 1]);
        int64x2_t even = vreinterpretq_s64_s16(vuzp1q_s16(a, b)), odd = vreinterpretq_s64_s16(vuzp2q_s16(a, b));
        if (e->left >= 8) {
            __asm__ volatile("st1 {%1.8b}, [%0], %3\n\tst1 {%2.8b}, [%0], %3\n\tst1 {%1.d}[1], [%0], %3\n\tst1 {%2.d}[1], [%0], %3"
                             : "+r"(y) : "w"(even), "w"(odd), "r"(ldy) : "memory");
            continue;
        }
        for (unsigned i = 0; i < 4; i++, y += ldy) {
            int64x2_t row = i & 1 ? odd : even;
            ek_store8_s8(y, vreinterpret_s8_s64(i & 2 ? vget_high_s64(row) : vget_low_s64(row)), e->left);
        }
    }
    e->y = y;
}

/* 8 outputs of the rows of a panel */
EK_INLINE EK_I8MM const uint8_t *tile(ek_ends *e, const uint8_t *panel, const uint8_t *head, const uint8_t *weights, uint32_t k,
                                      const int dyn, const unsigned pairs)
{
    const size_t group = 2 * (size_t)((k + 15) & ~15u);
    const int8_t *p[4], *w = (const int8_t *)weights;
    int32x4_t acc[4][4], bias[2], sums[8][2];
    ek_start(head, dyn, bias);
    EK_UNROLL for (unsigned r = 0; r < pairs; r++) {
        p[r] = (const int8_t *)panel + r * group;
        EK_PIN(p[r]);
    }
    EK_UNROLL for (unsigned j = 0; j < 4; j++) {
        int32x4_t both = row_of(bias[j / 2], bias[j / 2], j & 1);
        EK_UNROLL for (unsigned r = 0; r < pairs; r++)
            acc[r][j] = both;
    }
    uint32_t steps = (k + 7) / 8;
    for (uint32_t i = steps / 4; i; i--) {
        step2(acc, p, &w, pairs);
        step2(acc, p, &w, pairs);
    }
    if (steps & 2)
        step2(acc, p, &w, pairs);
    if (steps & 1) {
        int8x16_t x[4];
        EK_UNROLL for (unsigned r = 0; r < pairs; r++)
            x[r] = vld1q_s8(p[r]);
        step(acc, x, p, &w, pairs);
    }
    panel += pairs * group;
    if (!dyn) {
        finish(e, head, acc, pairs);
        return panel;
    }
    EK_UNROLL for (unsigned r = 0; r < 2 * pairs; r++)
        EK_UNROLL for (unsigned h = 0; h < 2; h++)
            sums[r][h] = row_of(acc[r / 2][2 * h], acc[r / 2][2 * h + 1], r & 1);
    ek_finish(e, head, sums, 1, 2 * pairs);
    return panel;
}

EK_INLINE EK_I8MM void block(EK_BLOCK_ARGS, const int dyn)
{
    ek_ends e = *given;
    const uint32_t k = g->k;
    for (; m >= MOST; m -= MOST)
        panel = tile(&e, panel, head, weights, k, dyn, MOST / 2);
    if (m)
        tile(&e, panel, head, weights, k, dyn, 2);
}

static EK_I8MM void block_s8(EK_BLOCK_ARGS) { block(g, given, panel, head, weights, m, 0); }
static EK_I8MM void block_dyn(EK_BLOCK_ARGS) { block(g, given, panel, head, weights, m, 1); }

static void gemm_s8(const ek_gemm *g)
{
    if (g->kr == 8)
        ek_gemm_panels(g, ek_block_s8(8, 8, g->k), block_s8, ek_row8_s8_dotprod, 1, 1, 2, MOST);
    else
        ek_gemm_s8_dotprod(g);
}

static void gemm_dyn(const ek_gemm *g)
{
    if (g->kr == 8)
        ek_gemm_panels(g, ek_block_s8(8, 8, g->k), block_dyn, ek_row8_dyn_dotprod, 1, 4, 2, MOST);
    else
        ek_gemm_dyn_dotprod(g);
}

void ek_kernels_i8mm(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_I8MM);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_I8MM);
    k->s8_nr = 8;
    k->s8_kr = 8;
    k->s8_kr_too = 4;
    k->s8_xoff = 0;
    k->windows |= 1;
    k->odd_k = EK_ODD_K;
    k->apart = 1;
}
#else
typedef int ek_no_i8mm; /* a translation unit must not be empty */
#endif
