/* GEMM with the DSP extension.  Blocks of 2 outputs, 4 inputs deep: one word of weights an output; 2 rows by 2 outputs, or
 * 1 row by 4, so that a widened word serves twice or more. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "dsp.h"

/* The loops are whole functions in assembly: they need every register, and compilers spill in them.  Four inputs a step:
 * r4-r7 accumulate, r8-r11 and r12, lr hold widened words. */
#define EK_STEP22                                                                     \
    "ldr r8, [r0], #4\n\tldr r10, [r1], #4\n\tldr r12, [r2], #4\n\t"            \
    "sxtb16 r9, r8, ror #8\n\tsxtb16 r8, r8\n\t"                                  \
    "sxtb16 r11, r10, ror #8\n\tsxtb16 r10, r10\n\t"                              \
    "sxtb16 lr, r12\n\tsmlad r4, r8, lr, r4\n\tsmlad r6, r10, lr, r6\n\t"       \
    "sxtb16 lr, r12, ror #8\n\tldr r12, [r2], #4\n\t"                             \
    "smlad r4, r9, lr, r4\n\tsmlad r6, r11, lr, r6\n\t"                           \
    "sxtb16 lr, r12\n\tsmlad r5, r8, lr, r5\n\tsmlad r7, r10, lr, r7\n\t"       \
    "sxtb16 lr, r12, ror #8\n\tsmlad r5, r9, lr, r5\n\tsmlad r7, r11, lr, r7\n\t"

#define EK_OUTPUT(w, acc)                                                             \
    "ldr r10, [" w "], #4\n\tsxtb16 r11, r10\n\tsxtb16 r10, r10, ror #8\n\t"    \
    "smlad " acc ", r8, r11, " acc "\n\tsmlad " acc ", r9, r10, " acc "\n\t"
#define EK_STEP14                                                                     \
    "ldr r8, [r0], #4\n\tsxtb16 r9, r8, ror #8\n\tsxtb16 r8, r8\n\t"            \
    EK_OUTPUT("r1", "r4") EK_OUTPUT("r1", "r5") EK_OUTPUT("r2", "r6") EK_OUTPUT("r2", "r7")

/* sums start at 0, or at the biases in front of the weights */
#define EK_ZERO "movs r4, #0\n\tmovs r5, #0\n\tmovs r6, #0\n\tmovs r7, #0\n\t"
#define EK_BIAS22 "ldrd r4, r5, [r2, #-16]\n\tmov r6, r4\n\tmov r7, r5\n\t"
#define EK_BIAS14 "ldrd r4, r5, [r1, #-16]\n\tldrd r6, r7, [r2, #-16]\n\t"

/* `step` as often as r3 says, in fours and then singly; the sums go where the fifth argument points */
#define EK_LOOP(start, step)                                                          \
    __asm__("push {r4-r11, lr}\n\t"                                                 \
            start "subs r3, r3, #4\n\tblo 2f\n"                                    \
            "1:\n\t" step step step step                                            \
            "subs r3, r3, #4\n\tbhs 1b\n"                                          \
            "2:\n\tadds r3, r3, #4\n\tbeq 4f\n"                                  \
            "3:\n\t" step                                                           \
            "subs r3, r3, #1\n\tbne 3b\n"                                          \
            "4:\n\tldr r0, [sp, #36]\n\tstmia r0, {r4-r7}\n\t"                  \
            "pop {r4-r11, pc}")

/* acc[row][output] = biases and sums of 2 rows and the 2 outputs of a block */
__attribute__((naked, noinline)) static void acc22(const int8_t *a __attribute__((unused)), const int8_t *b __attribute__((unused)),
                                                   const int8_t *w __attribute__((unused)), uint32_t steps __attribute__((unused)),
                                                   int32_t *acc __attribute__((unused)))
{
    EK_LOOP(EK_BIAS22, EK_STEP22);
}

/* the same, from 0 */
__attribute__((naked, noinline)) static void dyn22(const int8_t *a __attribute__((unused)), const int8_t *b __attribute__((unused)),
                                                   const int8_t *w __attribute__((unused)), uint32_t steps __attribute__((unused)),
                                                   int32_t *acc __attribute__((unused)))
{
    EK_LOOP(EK_ZERO, EK_STEP22);
}

/* acc[output] = biases and sums of a row and the 4 outputs of two blocks */
__attribute__((naked, noinline)) static void acc14(const int8_t *a __attribute__((unused)), const int8_t *w __attribute__((unused)),
                                                   const int8_t *v __attribute__((unused)), uint32_t steps __attribute__((unused)),
                                                   int32_t *acc __attribute__((unused)))
{
    EK_LOOP(EK_BIAS14, EK_STEP14);
}

/* the same, from 0 */
__attribute__((naked, noinline)) static void dyn14(const int8_t *a __attribute__((unused)), const int8_t *w __attribute__((unused)),
                                                   const int8_t *v __attribute__((unused)), uint32_t steps __attribute__((unused)),
                                                   int32_t *acc __attribute__((unused)))
{
    EK_LOOP(EK_ZERO, EK_STEP14);
}

/* what the weight zero point takes off a row: w_zero * sum_k a */
static int32_t zero_part(const ek_gemm *g, const int8_t *a)
{
    int32_t sum = 0;
    uint32_t k = 0;
    if (!g->w_zero)
        return 0;
    for (; k + 4 <= g->k; k += 4) {
        uint32_t x = (uint32_t)ek_load_s32(a + k);
        sum = ek_smlad(ek_odd(x), 0x00010001u, ek_smlad(ek_even(x), 0x00010001u, sum));
    }
    for (; k < g->k; k++)
        sum += a[k];
    return (int32_t)((uint32_t)g->w_zero * (uint32_t)sum);
}

/* int8 of `n` of the 2 outputs of a block, for one row */
EK_INLINE void put_s8(const ek_requant_dsp *q, const uint8_t *head, const int32_t *acc, int32_t part, int8_t *y, const uint32_t n)
{
    const float *scale = (const float *)(const void *)(head + 8);
    int32_t v[2];
    EK_UNROLL for (uint32_t j = 0; j < n; j++)
        v[j] = ek_requant_dsp_wide((int32_t)((uint32_t)acc[j] - (uint32_t)part), scale[j], q);
    if (q->narrow)
        EK_UNROLL for (uint32_t j = 0; j < n; j++)
            v[j] = ek_clamp_dsp(v[j], q);
    EK_UNROLL for (uint32_t j = 0; j < n; j++)
        y[j] = (int8_t)v[j];
}

EK_INLINE void put_dyn(const ek_gemm *g, const uint8_t *head, const int32_t *acc, uint32_t m, float *y, uint32_t n)
{
    const float *bias = (const float *)(const void *)head;
    for (uint32_t j = 0; j < n; j++) {
        float s = ek_mul_f32(g->row_scale[m], bias[2 + j]);
        y[j] = ek_clamp_f32(ek_mul_f32((float)acc[j], s) + bias[j], g->lo, g->hi);
    }
}

/* the outputs of a block that exist, for row m; part: what the weight zero point takes off it */
EK_INLINE void put(const ek_gemm *g, const ek_requant_dsp *q, const uint8_t *head, const int32_t *acc, int32_t part, uint32_t m,
                   uint32_t n0, const int dyn)
{
    ptrdiff_t at = (ptrdiff_t)m * g->ldy + (ptrdiff_t)n0;
    if (dyn)
        put_dyn(g, head, acc, m, (float *)g->y + at, g->n - n0 < 2 ? 1 : 2);
    else if (g->n - n0 < 2)
        put_s8(q, head, acc, part, (int8_t *)g->y + at, 1);
    else
        put_s8(q, head, acc, part, (int8_t *)g->y + at, 2);
}

EK_INLINE void rows2(const ek_gemm *g, const ek_requant_dsp *q, uint32_t m, const int dyn)
{
    const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda, *b = a + g->lda;
    const uint8_t *head = g->w;
    size_t block = ek_block_s8(2, 4, g->k);
    int32_t pa = dyn ? 0 : zero_part(g, a), pb = dyn ? 0 : zero_part(g, b);
    for (uint32_t n = 0; n < g->n; n += 2, head += block) {
        int32_t acc[4];
        if (dyn)
            dyn22(a, b, (const int8_t *)head + 16, (g->k + 3) / 4, acc);
        else
            acc22(a, b, (const int8_t *)head + 16, (g->k + 3) / 4, acc);
        put(g, q, head, acc, pa, m, n, dyn);
        put(g, q, head, acc + 2, pb, m + 1, n, dyn);
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
        if (dyn)
            dyn14(a, (const int8_t *)head + 16, (const int8_t *)next + 16, (g->k + 3) / 4, acc);
        else
            acc14(a, (const int8_t *)head + 16, (const int8_t *)next + 16, (g->k + 3) / 4, acc);
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
        uint32_t a = (uint32_t)ek_load_s32(acc), b = (uint32_t)ek_load_s32(x), t;
        __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(t) : "r"(a), "r"(b) : "cc");
        __builtin_memcpy(acc, &t, 4);
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
    ek_sparse_dsp(k);
}
#else
typedef int ek_no_dsp; /* a translation unit must not be empty */
#endif
