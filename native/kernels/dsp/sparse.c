/* GEMM with sparse int8 weights for the DSP extension: two rows share what is read of the weights. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "dsp.h"
#include "format.h"

/* acc + x.lo * y.hi */
EK_INLINE int32_t smlabt(int32_t x, uint32_t y, int32_t acc)
{
    __asm__("smlabt %0, %1, %2, %0" : "+r"(acc) : "r"(x), "r"(y));
    return acc;
}

/* four inputs, picked by the bytes of `place`, times four weights */
EK_INLINE int32_t pick4(const int8_t *a, uint32_t place, uint32_t even, uint32_t odd, int32_t acc)
{
    acc = ek_smlabb((uint32_t)a[place & 63], even, acc);
    acc = ek_smlabb((uint32_t)a[place >> 8 & 63], odd, acc);
    acc = smlabt(a[place >> 16 & 63], even, acc);
    return smlabt(a[place >> 24 & 63], odd, acc);
}

/* an output at a time: its bias, scale, and of each chunk `slots` places and weights, four of each in turn */
EK_INLINE void nm(const ek_gemm *g, const ek_requant_dsp *q, uint32_t m, const int two)
{
    const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda, *b = two ? a + g->lda : a;
    int8_t *y = (int8_t *)g->y + (ptrdiff_t)m * g->ldy;
    const uint8_t *w = g->w;
    for (uint32_t n = 0; n < g->n; n++) {
        float scale;
        int32_t sum = ek_load_s32(w), other = sum;
        memcpy(&scale, w + 4, 4);
        w += 8;
        const int8_t *c = a, *d = b;
        for (uint32_t k = 0; k < g->k; k += EK_CHUNK, c += EK_CHUNK, d += EK_CHUNK)
            for (uint32_t s = 0; s < g->slots; s += 4, w += 8) {
                uint32_t place = (uint32_t)ek_load_s32(w), v = (uint32_t)ek_load_s32(w + 4), even = ek_even(v), odd = ek_odd(v);
                sum = pick4(c, place, even, odd, sum);
                if (two)
                    other = pick4(d, place, even, odd, other);
            }
        y[n] = ek_requant_dsp_s8(sum, scale, q);
        if (two)
            y[(ptrdiff_t)n + g->ldy] = ek_requant_dsp_s8(other, scale, q);
    }
}

/* blocks of 2 outputs by 4 inputs */
EK_INLINE void blocks(const ek_gemm *g, const ek_requant_dsp *q, uint32_t m, const int two)
{
    const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda, *b = two ? a + g->lda : a;
    int8_t *y = (int8_t *)g->y + (ptrdiff_t)m * g->ldy;
    const uint8_t *head = g->w;
    const uint32_t last = EK_LAST_PLACE(g);
    for (uint32_t n = 0; n < g->n; n += 2) {
        const int32_t *bias = (const int32_t *)(const void *)head;
        const float *scale = (const float *)(const void *)(head + 8);
        uint32_t count = (uint32_t)ek_load_s32(head + 16);
        const uint16_t *list = (const uint16_t *)(const void *)(head + 20);
        const uint8_t *w = (const uint8_t *)(list + count + (count & 1));
        int32_t acc[4] = { bias[0], bias[1], bias[0], bias[1] };
        for (; count; count--, w += 8) {
            size_t at = 4u * (*list < last ? *list : last);
            list++;
            uint32_t x = (uint32_t)ek_load_s32(a + at), u = (uint32_t)ek_load_s32(w), v = (uint32_t)ek_load_s32(w + 4);
            acc[0] = ek_smlad(ek_odd(x), ek_odd(u), ek_smlad(ek_even(x), ek_even(u), acc[0]));
            acc[1] = ek_smlad(ek_odd(x), ek_odd(v), ek_smlad(ek_even(x), ek_even(v), acc[1]));
            if (two) {
                x = (uint32_t)ek_load_s32(b + at);
                acc[2] = ek_smlad(ek_odd(x), ek_odd(u), ek_smlad(ek_even(x), ek_even(u), acc[2]));
                acc[3] = ek_smlad(ek_odd(x), ek_odd(v), ek_smlad(ek_even(x), ek_even(v), acc[3]));
            }
        }
        for (uint32_t j = 0; j < 2 && n + j < g->n; j++) {
            y[n + j] = ek_requant_dsp_s8(acc[j], scale[j], q);
            if (two)
                y[(ptrdiff_t)(n + j) + g->ldy] = ek_requant_dsp_s8(acc[2 + j], scale[j], q);
        }
        head = w;
    }
}

static void gemm_sparse(const ek_gemm *g)
{
    const ek_requant_dsp q = ek_requant_dsp_of(g->lo, g->hi, g->zero);
    uint32_t m = 0;
    if (g->encoding == EK_ENC_NM) {
        for (; m + 2 <= g->m; m += 2)
            nm(g, &q, m, 1);
        if (m < g->m)
            nm(g, &q, m, 0);
        return;
    }
    for (; m + 2 <= g->m; m += 2)
        blocks(g, &q, m, 1);
    if (m < g->m)
        blocks(g, &q, m, 0);
}

void ek_sparse_dsp(ek_kernels *k)
{
    EK_SET(k, gemm_sparse, GEMM_SPARSE, gemm_sparse, EK_ISA_DSP);
    k->nm_nr = 1;
    k->nm_kr = 4;
    k->blocks_nr = 2;
    k->blocks_kr = 4;
}
#else
typedef int ek_no_dsp_sparse; /* a translation unit must not be empty */
#endif
