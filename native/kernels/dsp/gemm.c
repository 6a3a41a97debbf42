/* GEMM with the DSP extension.  Blocks of 2 outputs, 4 inputs deep: one word of weights an output; 2 rows by 2 outputs, or
 * 1 row by 4, so that a widened word serves twice or more. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "dsp.h"

EK_INLINE uint32_t word(const int8_t *p) { return (uint32_t)ek_load_s32(p); }

/* acc[row][output] += 4 inputs of 2 rows and 2 outputs */
EK_INLINE void step22(const int8_t *a, const int8_t *b, const int8_t *w, int32_t acc[2][2])
{
    uint32_t x = word(a), y = word(b), x0 = ek_even(x), x1 = ek_odd(x), y0 = ek_even(y), y1 = ek_odd(y);
    EK_UNROLL for (int j = 0; j < 2; j++) {
        uint32_t v = word(w + 4 * j), v0 = ek_even(v), v1 = ek_odd(v);
        acc[0][j] = ek_smlad(x0, v0, acc[0][j]);
        acc[1][j] = ek_smlad(y0, v0, acc[1][j]);
        acc[0][j] = ek_smlad(x1, v1, acc[0][j]);
        acc[1][j] = ek_smlad(y1, v1, acc[1][j]);
    }
}

EK_INLINE void acc22(const int8_t *a, const int8_t *b, const int8_t *w, uint32_t k, int32_t acc[2][2])
{
    const int8_t *end = w + (size_t)(k & ~15u) * 2;
    acc[0][0] = acc[0][1] = acc[1][0] = acc[1][1] = 0;
    for (; w != end; a += 16, b += 16, w += 32)
        EK_UNROLL for (int i = 0; i < 4; i++)
            step22(a + 4 * i, b + 4 * i, w + 8 * i, acc);
    for (k &= 15; k; k = k > 4 ? k - 4 : 0, a += 4, b += 4, w += 8)
        step22(a, b, w, acc);
}

/* acc[output] += 4 inputs of a row, 4 outputs of two neighbouring blocks */
EK_INLINE void step14(const int8_t *a, const int8_t *w, const int8_t *v, int32_t acc[4])
{
    uint32_t x = word(a), x0 = ek_even(x), x1 = ek_odd(x);
    EK_UNROLL for (int j = 0; j < 4; j++) {
        uint32_t u = word(j < 2 ? w + 4 * j : v + 4 * (j - 2));
        acc[j] = ek_smlad(x0, ek_even(u), acc[j]);
        acc[j] = ek_smlad(x1, ek_odd(u), acc[j]);
    }
}

EK_INLINE void acc14(const int8_t *a, const int8_t *w, const int8_t *v, uint32_t k, int32_t acc[4])
{
    const int8_t *end = w + (size_t)(k & ~15u) * 2;
    acc[0] = acc[1] = acc[2] = acc[3] = 0;
    for (; w != end; a += 16, w += 32, v += 32)
        EK_UNROLL for (int i = 0; i < 4; i++)
            step14(a + 4 * i, w + 8 * i, v + 8 * i, acc);
    for (k &= 15; k; k = k > 4 ? k - 4 : 0, a += 4, w += 8, v += 8)
        step14(a, w, v, acc);
}

/* what the weight zero point takes off a row: w_zero * sum_k a */
static int32_t zero_part(const ek_gemm *g, const int8_t *a)
{
    int32_t sum = 0;
    uint32_t k = 0;
    if (!g->w_zero)
        return 0;
    for (; k + 4 <= g->k; k += 4) {
        uint32_t x = word(a + k);
        sum = ek_smlad(ek_odd(x), 0x00010001u, ek_smlad(ek_even(x), 0x00010001u, sum));
    }
    for (; k < g->k; k++)
        sum += a[k];
    return (int32_t)((uint32_t)g->w_zero * (uint32_t)sum);
}

/* output j of a block: bias, scale, and where it goes */
EK_INLINE void put_s8(const ek_requant_dsp *q, const uint8_t *head, unsigned j, int32_t acc, int32_t part, int8_t *y)
{
    const int32_t *bias = (const int32_t *)(const void *)head;
    const float *scale = (const float *)(const void *)(head + 8);
    acc = (int32_t)((uint32_t)acc + (uint32_t)bias[j] - (uint32_t)part);
    *y = ek_requant_dsp_s8(acc, scale[j], q);
}

EK_INLINE void put_dyn(const ek_gemm *g, const uint8_t *head, unsigned j, int32_t acc, uint32_t m, float *y)
{
    const float *bias = (const float *)(const void *)head;
    float s = ek_mul_f32(g->row_scale[m], bias[2 + j]);
    *y = ek_clamp_f32(ek_mul_f32((float)acc, s) + bias[j], g->lo, g->hi);
}

/* `n` of the 2 outputs of a block for row m */
EK_INLINE void put(const ek_gemm *g, const ek_requant_dsp *q, const uint8_t *head, const int32_t *acc, int32_t part, uint32_t m,
                   uint32_t n0, const int dyn)
{
    ptrdiff_t at = (ptrdiff_t)m * g->ldy + (ptrdiff_t)n0;
    uint32_t n = g->n - n0 < 2 ? g->n - n0 : 2;
    for (uint32_t j = 0; j < n; j++) {
        if (dyn)
            put_dyn(g, head, j, acc[j], m, (float *)g->y + at + j);
        else
            put_s8(q, head, j, acc[j], part, (int8_t *)g->y + at + j);
    }
}

EK_INLINE void rows2(const ek_gemm *g, const ek_requant_dsp *q, uint32_t m, const int dyn)
{
    const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda, *b = a + g->lda;
    const uint8_t *head = g->w;
    size_t block = ek_block_s8(2, 4, g->k);
    int32_t pa = dyn ? 0 : zero_part(g, a), pb = dyn ? 0 : zero_part(g, b);
    for (uint32_t n = 0; n < g->n; n += 2, head += block) {
        int32_t acc[2][2];
        acc22(a, b, (const int8_t *)head + 16, g->k, acc);
        put(g, q, head, acc[0], pa, m, n, dyn);
        put(g, q, head, acc[1], pb, m + 1, n, dyn);
    }
}

EK_INLINE void row1(const ek_gemm *g, const ek_requant_dsp *q, uint32_t m, const int dyn)
{
    const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda;
    const uint8_t *head = g->w;
    size_t block = ek_block_s8(2, 4, g->k);
    int32_t part = dyn ? 0 : zero_part(g, a), acc[4];
    for (uint32_t n = 0; n < g->n; n += 4, head += 2 * block) {
        const uint8_t *next = n + 2 < g->n ? head + block : head;
        acc14(a, (const int8_t *)head + 16, (const int8_t *)next + 16, g->k, acc);
        put(g, q, head, acc, part, m, n, dyn);
        if (n + 2 < g->n)
            put(g, q, next, acc + 2, part, m, n + 2, dyn);
    }
}

EK_INLINE void gemm(const ek_gemm *g, const int dyn)
{
    ek_requant_dsp q = { 0 };
    uint32_t m = 0;
    if (!dyn)
        q = ek_requant_dsp_of(g->lo, g->hi, g->zero);
    for (; m + 2 <= g->m; m += 2)
        rows2(g, &q, m, dyn);
    if (m < g->m)
        row1(g, &q, m, dyn);
}

static void gemm_s8(const ek_gemm *g) { gemm(g, 0); }
static void gemm_dyn(const ek_gemm *g) { gemm(g, 1); }

/* mr rows by 4 outputs */
EK_INLINE void tile_f32(const ek_gemm *g, uint32_t m, uint32_t n, const float *w, const unsigned mr)
{
    const float *a = (const float *)g->a + (ptrdiff_t)m * g->lda, *b = mr > 1 ? a + g->lda : a;
    float acc[2][4];
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        EK_UNROLL for (unsigned j = 0; j < 4; j++)
            acc[r][j] = w[j];
    for (uint32_t k = 0; k < g->k; k++) {
        w += 4;
        EK_UNROLL for (unsigned j = 0; j < 4; j++) {
            acc[0][j] = ek_fma_dsp(a[k], w[j], acc[0][j]);
            if (mr > 1)
                acc[1][j] = ek_fma_dsp(b[k], w[j], acc[1][j]);
        }
    }
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        float *y = (float *)g->y + (ptrdiff_t)(m + r) * g->ldy + (ptrdiff_t)n;
        EK_UNROLL for (unsigned j = 0; j < 4; j++)
            if (n + j < g->n)
                y[j] = ek_clamp_f32(acc[r][j], g->lo, g->hi);
    }
}

static void gemm_f32(const ek_gemm *g)
{
    const float *w = (const float *)(const void *)g->w;
    for (uint32_t n = 0; n < g->n; n += 4, w += 4 * ((size_t)g->k + 1)) {
        uint32_t m = 0;
        for (; m + 2 <= g->m; m += 2)
            tile_f32(g, m, n, w, 2);
        if (m < g->m)
            tile_f32(g, m, n, w, 1);
    }
}

/* GE bits of SSUB8 choose the larger byte */
static void max_s8(int8_t *acc, const int8_t *x, size_t n)
{
    for (; n >= 4; n -= 4, acc += 4, x += 4) {
        uint32_t a = word(acc), b = word(x), t;
        __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(t) : "r"(a), "r"(b) : "cc");
        memcpy(acc, &t, 4);
    }
    for (size_t i = 0; i < n; i++)
        acc[i] = x[i] > acc[i] ? x[i] : acc[i];
}

void ek_kernels_dsp(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_DSP);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_DSP);
    EK_SET(k, gemm_f32, GEMM_F32, gemm_f32, EK_ISA_DSP);
    EK_SET(k, max_s8, MAX_S8, max_s8, EK_ISA_DSP);
    k->s8_nr = 2;
    k->s8_kr = 4;
    k->s8_xoff = 0;
    k->f32_nr = 4;
    ek_dw_dsp(k);
}
#else
typedef int ek_no_dsp; /* a translation unit must not be empty */
#endif
