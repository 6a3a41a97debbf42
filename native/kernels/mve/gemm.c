/* GEMM with Helium.  Blocks of 4 outputs, 16 inputs deep: VMLADAVA sums 16 products into a register.  Loads alternate with
 * multiplications, which then overlap on a Cortex-M55; the sums take all eight even registers (2 rows by 4 outputs, or 1 by 8),
 * so the loops are whole functions in assembly. */
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#include "format.h"
#include "mve.h"

/* r1, r3: rows; r5: a block */
#define EK_STEP24                                                             \
    "vldrb.8 q0, [r1], #16\n\tvldrb.8 q2, [r5], #16\n\t"                      \
    "vmladava.s8 r0, q0, q2\n\tvldrb.8 q1, [r3], #16\n\t"                     \
    "vmladava.s8 r8, q1, q2\n\tvldrb.8 q3, [r5], #16\n\t"                     \
    "vmladava.s8 r2, q0, q3\n\tvldrb.8 q2, [r5], #16\n\t"                     \
    "vmladava.s8 r10, q1, q3\n\tvldrb.8 q3, [r5], #16\n\t"                    \
    "vmladava.s8 r4, q0, q2\n\tvmladava.s8 r12, q1, q2\n\t"                   \
    "vmladava.s8 r6, q0, q3\n\tvmladava.s8 lr, q1, q3\n\t"

/* r1: a row; r3, r5: blocks */
#define EK_STEP18                                                             \
    "vldrb.8 q0, [r1], #16\n\tvldrb.8 q1, [r3], #16\n\t"                      \
    "vmladava.s8 r0, q0, q1\n\tvldrb.8 q2, [r3], #16\n\t"                     \
    "vmladava.s8 r2, q0, q2\n\tvldrb.8 q1, [r3], #16\n\t"                     \
    "vmladava.s8 r4, q0, q1\n\tvldrb.8 q2, [r3], #16\n\t"                     \
    "vmladava.s8 r6, q0, q2\n\tvldrb.8 q1, [r5], #16\n\t"                     \
    "vmladava.s8 r8, q0, q1\n\tvldrb.8 q2, [r5], #16\n\t"                     \
    "vmladava.s8 r10, q0, q2\n\tvldrb.8 q1, [r5], #16\n\t"                    \
    "vmladava.s8 r12, q0, q1\n\tvldrb.8 q2, [r5], #16\n\t"                    \
    "vmladava.s8 lr, q0, q2\n\t"

/* sums start at 0, or at the biases in front of the weights */
#define EK_ZERO                                                               \
    "movs r0, #0\n\tmovs r2, #0\n\tmovs r4, #0\n\tmovs r6, #0\n\t"            \
    "mov r8, r0\n\tmov r10, r0\n\tmov r12, r0\n\tmov lr, r0\n"
#define EK_BIAS18                                                             \
    "ldrd r0, r2, [r3, #-32]\n\tldrd r4, r6, [r3, #-24]\n\t"                 \
    "ldrd r8, r10, [r5, #-32]\n\tldrd r12, lr, [r5, #-24]\n"

/* `step` as often as r3 says, at least once; the sums go where the fifth argument points */
#define EK_LOOP(start, step)                                                  \
    __asm__("push {r4-r11, lr}\n\t"                                           \
            "mov r7, r3\n\tmov r5, r2\n\tmov r3, r1\n\tmov r1, r0\n\t"        \
            start                                                             \
            "1:\n\t" step                                                     \
            "subs r7, r7, #1\n\tbne 1b\n\t"                                   \
            "ldr r1, [sp, #36]\n\t"                                           \
            "stmia r1, {r0, r2, r4, r6, r8, r10, r12, lr}\n\t"                \
            "pop {r4-r11, pc}")

/* acc[row][output] = sums of 2 rows and the 4 outputs of a block */
__attribute__((naked, noinline)) static void dyn24(const int8_t *a __attribute__((unused)), const int8_t *b __attribute__((unused)),
                                                   const int8_t *w __attribute__((unused)), uint32_t steps __attribute__((unused)),
                                                   int32_t *acc __attribute__((unused)))
{
    EK_LOOP(EK_ZERO, EK_STEP24);
}

/* acc[output] = biases and sums of a row and the 8 outputs of two blocks */
__attribute__((naked, noinline)) static void acc18(const int8_t *a __attribute__((unused)), const int8_t *w __attribute__((unused)),
                                                   const int8_t *v __attribute__((unused)), uint32_t steps __attribute__((unused)),
                                                   int32_t *acc __attribute__((unused)))
{
    EK_LOOP(EK_BIAS18, EK_STEP18);
}

/* the same, from 0 */
__attribute__((naked, noinline)) static void dyn18(const int8_t *a __attribute__((unused)), const int8_t *w __attribute__((unused)),
                                                   const int8_t *v __attribute__((unused)), uint32_t steps __attribute__((unused)),
                                                   int32_t *acc __attribute__((unused)))
{
    EK_LOOP(EK_ZERO, EK_STEP18);
}

/* Blocks of two rows: sums, requantization and store.  The order of instructions is what llvm-mca's model of a Cortex-M55
 * rates best: 17 cycles a pass of the loop (128 products), 55 for the last pass and what surrounds it. */
typedef struct pair {
    const int8_t *a, *b;        /*  0: rows */
    int8_t *y, *z;              /*  8: their outputs */
    uint32_t more, segments;    /* 16: passes after the first of a segment, segments after the first */
    int32_t zero;               /* 24 */
    const uint8_t *end;         /* 28: of the blocks, less 16 */
    int32_t lo[4], hi[4];       /* 32, 48: bounds, zero added */
    ptrdiff_t jump;             /* 64: from the end of a segment to the next */
    int32_t part[2];            /* 68: what the weight zero point takes off the rows */
    uint32_t count;             /* 76: pairs of rows */
    ptrdiff_t next_a, next_y;   /* 80: from a pair to the next, from the end of its outputs to the next */
    const uint8_t *w;           /* 88: blocks, less 16 */
} pair;

/* r11: the pair; r5: 16 before the head of a block; q6: its scales */
#define EK_PAIR_HEAD                                                          \
    "ldrd r4, r6, [r5, #24]\n\tvldrw.u32 q6, [r5, #32]\n\t"                  \
    "ldrd r0, r2, [r5, #16]\n\tmov lr, r6\n\t"                              \
    "ldrd r1, r3, [r11]\n\tvldrb.u8 q2, [r5, #48]!\n\t"                      \
    "mov r8, r0\n\tldrd r7, r9, [r11, #16]\n\t"                             \
    "vldrb.u8 q1, [r3], #16\n\tmov r10, r2\n\t"                             \
    "mov r12, r4\n\tvldrb.u8 q0, [r1], #16\n\t"

/* q0, q1: rows, q2: weights, loaded here for the next pass */
#define EK_PAIR_STEP                                                          \
    "vmladava.s8 r0, q0, q2\n\tvldrb.u8 q3, [r5, #16]!\n\t"                  \
    "vmladava.s8 r8, q1, q2\n\tvldrb.u8 q4, [r5, #16]!\n\t"                  \
    "vmladava.s8 r2, q0, q3\n\tvldrb.u8 q5, [r5, #16]!\n\t"                  \
    "vmladava.s8 r10, q1, q3\n\tvldrb.u8 q2, [r5, #16]!\n\t"                 \
    "vmladava.s8 r4, q0, q4\n\tvmladava.s8 r6, q0, q5\n\t"                  \
    "vldrb.u8 q0, [r1], #16\n\tvmladava.s8 r12, q1, q4\n\t"                 \
    "vmladava.s8 lr, q1, q5\n\tvldrb.u8 q1, [r3], #16\n\t"

/* the last pass; then r1, r3: outputs, r4: end, r7: zero */
#define EK_PAIR_TAIL(a, b)                                                    \
    "vmladava.s8 r0, q0, q2\n\tvldrb.u8 q3, [r5, #16]!\n\t"                  \
    "vmladava.s8 r8, q1, q2\n\tvldrb.u8 q4, [r5, #16]!\n\t"                  \
    "vmladava.s8 r10, q1, q3\n\tldrd r1, r3, [r11, #8]\n\t"                 \
    "vmladava.s8 r4, q0, q4\n\tvmladava.s8 r12, q1, q4\n\t"                 \
    "vldrb.u8 q5, [r5, #16]!\n\tvmladava.s8 r2, q0, q3\n\t"                 \
    "ldr r7, [r11, #24]\n\tvmladava.s8 r6, q0, q5\n\t"                      \
    "vmladava.s8 lr, q1, q5\n\tvmov q0[2], q0[0], r0, r4\n\t"               \
    "vmov q1[2], q1[0], r8, r12\n\tvmov q1[3], q1[1], r10, lr\n\t" b        \
    "vcvt.f32.s32 q1, q1\n\tvmov q0[3], q0[1], r2, r6\n\t" a                \
    "vcvt.f32.s32 q0, q0\n\tvldrw.u32 q4, [r11, #32]\n\t"                   \
    "vmul.f32 q0, q0, q6\n\tldr r4, [r11, #28]\n\t"                         \
    "vcvtn.s32.f32 q0, q0\n\tvmul.f32 q1, q1, q6\n\t"                       \
    "vadd.i32 q0, q0, r7\n\tvcvtn.s32.f32 q1, q1\n\t"                       \
    "vmax.s32 q0, q0, q4\n\tvadd.i32 q1, q1, r7\n\t"                        \
    "vldrw.u32 q5, [r11, #48]\n\tvmin.s32 q0, q0, q5\n\t"                   \
    "vmax.s32 q1, q1, q4\n\tvstrb.32 q0, [r1], #4\n\t"                      \
    "vmin.s32 q1, q1, q5\n\tvstrb.32 q1, [r3], #4\n\t"                      \
    "strd r1, r3, [r11, #8]\n\t"

/* all blocks of all pairs; r7: passes, r9: segments left */
#define EK_PAIR(a, b)                                                         \
    __asm__("push {r4-r11, lr}\n\tvpush {d8-d13}\n\t"                       \
            "mov r11, r0\n"                                                  \
            "0:\tldr r5, [r11, #88]\n"                                       \
            "1:\t" EK_PAIR_HEAD "cbz r7, 3f\n"                               \
            "2:\t" EK_PAIR_STEP "subs r7, r7, #1\n\tbne 2b\n"               \
            "3:\tsubs.w r9, r9, #1\n\tbmi 4f\n\t"                          \
            "ldr r7, [r11, #64]\n\tadd r1, r7\n\tadd r3, r7\n\t"           \
            EK_PAIR_STEP "ldr r7, [r11, #16]\n\tcmp r7, #0\n\tbne 2b\n\tb 3b\n" \
            "4:\t" EK_PAIR_TAIL(a, b) "cmp r5, r4\n\tbne 1b\n\t"           \
            "ldr r0, [r11, #76]\n\tldrd r2, r4, [r11, #80]\n\t"             \
            "ldrd r6, r7, [r11]\n\tadd r1, r4\n\tadd r3, r4\n\t"           \
            "strd r1, r3, [r11, #8]\n\tadd r6, r2\n\tadd r7, r2\n\t"       \
            "strd r6, r7, [r11]\n\tsubs r0, r0, #1\n\tstr r0, [r11, #76]\n\tbne 0b\n\t" \
            "vpop {d8-d13}\n\tpop {r4-r11, pc}")

__attribute__((naked, noinline)) static void pair24(pair *p __attribute__((unused)))
{
    EK_PAIR("", "");
}

__attribute__((naked, noinline)) static void pair24z(pair *p __attribute__((unused)))
{
    EK_PAIR("vsub.i32 q0, q0, r8\n\t", "ldrd r8, r10, [r11, #68]\n\tvsub.i32 q1, q1, r10\n\t");
}

/* what the weight zero point takes off a row: w_zero * sum_k a */
static int32_t zero_part(const ek_gemm *g, const int8_t *a)
{
    int32_t sum = 0;
    uint32_t segment = g->segment ? g->segment : g->k;
    if (!EK_W_ZERO || !g->w_zero)
        return 0;
    for (uint32_t k = 0; k < g->k; k += segment, a += g->gap)
        for (uint32_t i = 0; i < segment; i += 16) {
            mve_pred16_t p = vctp8q(segment - i);
            sum = vaddvaq_p_s8(sum, vldrbq_z_s8(a + i, p), p);
        }
    return (int32_t)((uint32_t)g->w_zero * (uint32_t)sum);
}

/* the outputs of a block that exist, for mr rows of gemm_dyn from m on */
EK_INLINE void put_dyn(const ek_gemm *g, const uint8_t *head, const int32_t *acc, uint32_t m, uint32_t n0, const unsigned mr)
{
    ptrdiff_t at = (ptrdiff_t)m * g->ldy + (ptrdiff_t)n0;
    mve_pred16_t p = vctp32q(g->n - n0);
    float32x4_t scale = vldrwq_f32((const float *)(const void *)(head + 16));
    float32x4_t bias = vldrwq_f32((const float *)(const void *)head);
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        float32x4_t y = vmulq_f32(vcvtq_f32_s32(vldrwq_s32(acc + 4 * r)), vmulq_n_f32(scale, g->row_scale[m + r]));
        __asm__("" : "+w"(y)); /* rounded: not to be contracted */
        vstrwq_p_f32((float *)g->y + at + (ptrdiff_t)r * g->ldy, ek_clamp_mve(vaddq_f32(y, bias), g->lo, g->hi), p);
    }
}

/* 4 sums of a row -> outputs; part: what the weight zero point takes off it */
EK_INLINE int32x4_t finish(const uint8_t *head, const int32_t *acc, int32_t part)
{
    float32x4_t scale = vldrwq_f32((const float *)(const void *)(head + 16));
    return vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(vsubq_n_s32(vldrwq_s32(acc), part)), scale));
}

EK_INLINE int32x4_t within(int32x4_t v, int32_t zero, int32x4_t lo, int32x4_t hi)
{
    return vminq_s32(vmaxq_s32(vaddq_n_s32(v, zero), lo), hi);
}

/* the outputs past the last whole block, for the rows of p */
static __attribute__((noinline)) void rest2(const ek_gemm *g, pair *p, const uint8_t *w, int8_t *y, int8_t *z)
{
    int8_t last[8];
    p->y = last;
    p->z = last + 4;
    p->w = w - 16;
    p->end = w + ek_block_s8(4, 16, g->k) - 16;
    p->count = 1;
    (EK_W_ZERO && g->w_zero ? pair24z : pair24)(p);
    for (uint32_t i = 0; i < g->n % 4; i++) {
        y[i] = last[i];
        z[i] = last[4 + i];
    }
}

/* a row to y */
static __attribute__((noinline)) void row1(const ek_gemm *g, const int8_t *a, int8_t *y)
{
    const int32_t zero = g->zero;
    const int32x4_t lo = vdupq_n_s32((int32_t)g->lo + zero), hi = vdupq_n_s32((int32_t)g->hi + zero);
    const uint8_t *head = g->w;
    const size_t block = ek_block_s8(4, 16, g->k);
    const uint32_t n = g->n, steps = (g->k + 15) / 16;
    int32_t part = zero_part(g, a), acc[8];
    for (uint32_t i = 0; i < n; i += 8, head += 2 * block) {
        const uint8_t *next = i + 4 < n ? head + block : head;
        acc18(a, (const int8_t *)head + 32, (const int8_t *)next + 32, steps, acc);
        int32x4_t u = finish(head, acc, part), v = finish(next, acc + 4, part);
        u = within(u, zero, lo, hi);
        v = within(v, zero, lo, hi);
        if (n - i >= 8) {
            vstrbq_s32(y + i, u);
            vstrbq_s32(y + i + 4, v);
            continue;
        }
        vstrbq_p_s32(y + i, u, vctp32q(n - i));
        if (i + 4 < n)
            vstrbq_p_s32(y + i + 4, v, vctp32q(n - i - 4));
    }
}

/* m rows, by two: an even number where they are no windows */
static __attribute__((noinline)) void rows2(const ek_gemm *g, uint32_t m)
{
    const uint32_t segment = g->segment ? g->segment : g->k, width = g->segment ? g->width : m, whole = g->n / 4 * 4;
    const uint8_t *rest = g->w + g->n / 4 * ek_block_s8(4, 16, g->k);
    const int8_t *a = (const int8_t *)g->a, *line = a;
    int8_t *y = (int8_t *)g->y;
    pair p; /* in full it would be a call of memset */
    p.more = (segment + 15) / 16 - 1;
    p.segments = segment == g->k ? 0 : (g->k - 1) / segment;
    p.zero = g->zero;
    p.jump = g->gap - (ptrdiff_t)segment;
    p.next_a = 2 * g->lda;
    p.next_y = 2 * g->ldy - (ptrdiff_t)whole;
    vstrwq_s32(p.lo, vdupq_n_s32((int32_t)g->lo + g->zero));
    vstrwq_s32(p.hi, vdupq_n_s32((int32_t)g->hi + g->zero));
    for (uint32_t left = m, x = width, rows; left; left -= rows, y += (ptrdiff_t)rows * g->ldy) { /* x: rows left in a line */
        const int8_t *b = a + g->lda;
        p.count = (x < left ? x : left) / 2;
        rows = 2 * p.count;
        if (!rows) {
            rows = left > 1 ? 2 : 1;
            b = left > 1 ? line + g->line : a;
        } else if (whole != g->n || (EK_W_ZERO && g->w_zero)) {
            rows = 2;
        }
        p.count = rows < 3 ? 1 : rows / 2;
        if (EK_W_ZERO && g->w_zero) {
            p.part[0] = zero_part(g, a);
            p.part[1] = zero_part(g, b);
        }
        if (whole) {
            p.a = a;
            p.b = b;
            p.y = y;
            p.z = rows > 1 ? y + g->ldy : y;
            p.w = g->w - 16;
            p.end = rest - 16;
            (EK_W_ZERO && g->w_zero ? pair24z : pair24)(&p);
        }
        if (whole != g->n) {
            p.a = a;
            p.b = b;
            rest2(g, &p, rest, y + whole, (rows > 1 ? y + g->ldy : y) + whole);
        }
        for (uint32_t r = rows, now; r; r -= now) {
            now = r < x ? r : x;
            a += (ptrdiff_t)now * g->lda;
            x -= now;
            if (!x) {
                a = line += g->line;
                x = width;
            }
        }
    }
}

static void gemm_s8(const ek_gemm *g)
{
    const uint32_t m = g->segment ? g->m : g->m & ~1u;
    if (m)
        rows2(g, m);
    if (m != g->m)
        row1(g, (const int8_t *)g->a + (ptrdiff_t)m * g->lda, (int8_t *)g->y + (ptrdiff_t)m * g->ldy);
}

static void gemm_dyn(const ek_gemm *g)
{
    const size_t block = ek_block_s8(4, 16, g->k);
    const uint32_t n = g->n, steps = (g->k + 15) / 16;
    const int8_t *a = (const int8_t *)g->a;
    int32_t acc[8];
    uint32_t m = 0;
    for (; m + 2 <= g->m; m += 2, a += 2 * g->lda) {
        const uint8_t *head = g->w;
        for (uint32_t i = 0; i < n; i += 4, head += block) {
            dyn24(a, a + g->lda, (const int8_t *)head + 32, steps, acc);
            put_dyn(g, head, acc, m, i, 2);
        }
    }
    const uint8_t *head = g->w;
    for (uint32_t i = 0; m < g->m && i < n; i += 8, head += 2 * block) {
        const uint8_t *next = i + 4 < n ? head + block : head;
        dyn18(a, (const int8_t *)head + 32, (const int8_t *)next + 32, steps, acc);
        put_dyn(g, head, acc, m, i, 1);
        if (i + 4 < n)
            put_dyn(g, next, acc + 4, m, i + 4, 1);
    }
}

/* mr rows by 4 outputs */
EK_INLINE void tile_f32(const ek_gemm *g, uint32_t m, uint32_t n, const float *w, const unsigned mr)
{
    const float *a = (const float *)g->a + (ptrdiff_t)m * g->lda;
    float32x4_t acc[4];
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        acc[r] = vldrwq_f32(w);
    for (uint32_t k = 0; k < g->k; k++) {
        w += 4;
        float32x4_t v = vldrwq_f32(w);
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            acc[r] = vfmaq_n_f32(acc[r], v, a[(ptrdiff_t)r * g->lda + (ptrdiff_t)k]);
    }
    mve_pred16_t p = vctp32q(g->n - n);
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        vstrwq_p_f32((float *)g->y + (ptrdiff_t)(m + r) * g->ldy + (ptrdiff_t)n, ek_clamp_mve(acc[r], g->lo, g->hi), p);
}

static void gemm_f32(const ek_gemm *g)
{
    const float *w = (const float *)(const void *)g->w;
    for (uint32_t n = 0; n < g->n; n += 4, w += 4 * ((size_t)g->k + 1)) {
        uint32_t m = 0;
        for (; m + 4 <= g->m; m += 4)
            tile_f32(g, m, n, w, 4);
        for (; m < g->m; m++)
            tile_f32(g, m, n, w, 1);
    }
}

void ek_kernels_mve(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_MVE);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_MVE);
    EK_SET(k, gemm_f32, GEMM_F32, gemm_f32, EK_ISA_MVE);
    k->s8_nr = 4;
    k->s8_kr = 16;
    k->s8_encoding = EK_ENC_PLAIN; /* of DSP, which this overlays */
    k->widen = 0;
    k->s8_xoff = 0;
    k->f32_nr = 4;
    k->windows = 1;
    k->tile_rows = 16;
    ek_dw_mve(k);
    ek_elementwise_mve(k);
}
#else
typedef int ek_no_mve; /* a translation unit must not be empty */
#endif
