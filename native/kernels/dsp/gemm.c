/* GEMM with the DSP extension.  Blocks of 4 outputs in EK_ENC_PAIRS: a halfword of weights is 256 * odd + even, the odd
 * output's weight signed, the even one's plus 128.  One product with the halfword as it is and one with its low byte give
 * both outputs, without taking the odd one's byte apart.  2 rows by 4 outputs on rows that `widen` made; 1 row by 4 on int8. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "dsp.h"
#include "format.h"

/* inputs of which 256 * sum |x * w| stays within 32 bits: 504 * 128 * 128 < 2^23 */
enum { DEPTH = 504, STEPS = DEPTH / 4 };

/* Two inputs of 2 rows (r2, r3) and 4 outputs (r4: 0 and 1, r5: 2 and 3).  Sums of the rows: r6-r9 and r10-r12, lr. */
#define EK_PAIR(at)                                                                    \
    "ldr r2, [r0, #" at "]\n\tldr r3, [r0, #" at "+4]\n\t"                           \
    "ldr r4, [r1, #" at "]\n\tldr r5, [r1, #" at "+4]\n\t"                           \
    "smlad r7, r2, r4, r7\n\tsmlad r11, r3, r4, r11\n\tuxtb16 r4, r4\n\t"           \
    "smlad r6, r2, r4, r6\n\tsmlad r10, r3, r4, r10\n\t"                              \
    "smlad r9, r2, r5, r9\n\tsmlad lr, r3, r5, lr\n\tuxtb16 r5, r5\n\t"             \
    "smlad r8, r2, r5, r8\n\tsmlad r12, r3, r5, r12\n\t"
#define EK_PAIRS4(at) EK_PAIR(at) EK_PAIR(at "+8") EK_PAIR(at "+16") EK_PAIR(at "+24")

typedef struct tiles24 {
    const uint32_t *x;
    const uint8_t *w;         /* the weights of a block, or with acc 0 the head in front of them */
    uint32_t steps;           /* of four inputs, 1 to STEPS */
    int32_t *acc;             /* [row][output]: where the sums of one block go, even ones with 128 times the row's sum added */
    int32_t even[2];          /* the rest is for acc 0, when `blocks` of them become int8.  What to take off even sums */
    int8_t *y;
    ptrdiff_t ldy;            /* 0: there is no second row */
    uint32_t blocks;          /* at least 1 */
    int32_t zero;
    uint32_t low, high;       /* bounds, four times */
    int32_t narrow;
} tiles24;

#if defined(__ARM_FP) && !defined(__SOFTFP__)
enum { FAST = 1 };
#define EK_FLOAT(s, r) "vmov " s ", " r "\n\tvcvt.f32.s32 " s ", " s "\n\t"
#define EK_WHOLE(r, s, scale) "vmul.f32 " s ", " s ", " scale "\n\tvcvtr.s32.f32 " s ", " s "\n\tvmov " r ", " s "\n\t"
#define EK_INT8(r) "qadd " r ", " r ", r2\n\tssat " r ", #8, " r "\n\t"
#define EK_FOUR(a, b, c, d)                                                            \
    EK_FLOAT("s0", a) EK_FLOAT("s1", b) EK_FLOAT("s2", c) EK_FLOAT("s3", d)           \
    EK_WHOLE(a, "s0", "s4") EK_WHOLE(b, "s1", "s5") EK_WHOLE(c, "s2", "s6") EK_WHOLE(d, "s3", "s7") \
    EK_INT8(a) EK_INT8(b) EK_INT8(c) EK_INT8(d)                                       \
    "bfi " a ", " b ", #8, #8\n\tbfi " a ", " c ", #16, #8\n\tbfi " a ", " d ", #24, #8\n\t"
/* s8-s16: the structure from `even` on, s17: where to enter, s18: bytes to skip, s19: x less these.  s0-s3: biases,
 * s4-s7: scales */
#define EK_START                                                                       \
    "adds r0, #16\n\tvpush {s16-s19}\n\tvldmia r0, {s8-s16}\n\t"                     \
    "vmov s17, r4\n\tvmov s18, r3\n\tvmov s19, r2\n\t"                               \
    "cbnz r5, 7f\n"                                                                    \
    "5:\n\tvldmia r1!, {s0-s7}\n\t"                                                  \
    "vmov r6, s0\n\tvmov r8, s2\n\tvmov r2, s8\n\tvmov r3, s9\n\t"                  \
    "sub r10, r6, r3\n\tsubs r6, r6, r2\n\tsub r12, r8, r3\n\tsub r8, r8, r2\n\t"  \
    "mov r7, r6\n\tmov r9, r8\n\tmov r11, r10\n\tmov lr, r12\n\t"                   \
    "vmov r0, s19\n\tvmov r3, s18\n\tvmov r4, s17\n\tsubs r1, r1, r3\n\tbx r4\n"    \
    "7:\n\t"
#define EK_END                                                                         \
    "ldr r2, [sp, #20]\n\tcmp r2, #0\n\tbne.w 8f\n\t"                                            \
    "vmov r2, s1\n\tvmov r3, s3\n\t"                                                  \
    "subs r7, r7, r6\n\tadd r7, r2, r7, asr #8\n\tsub r9, r9, r8\n\tadd r9, r3, r9, asr #8\n\t" \
    "sub r11, r11, r10\n\tadd r11, r2, r11, asr #8\n\tsub lr, lr, r12\n\tadd lr, r3, lr, asr #8\n\t" \
    "vmov r2, s13\n\t" EK_FOUR("r6", "r7", "r8", "r9") EK_FOUR("r10", "r11", "r12", "lr") \
    "vmov r3, s16\n\tcbz r3, 6f\n\tvmov r3, s14\n\tvmov r4, s15\n\t"                 \
    "ssub8 r5, r6, r3\n\tsel r6, r6, r3\n\tssub8 r5, r4, r6\n\tsel r6, r6, r4\n\t"  \
    "ssub8 r5, r10, r3\n\tsel r10, r10, r3\n\tssub8 r5, r4, r10\n\tsel r10, r10, r4\n" \
    "6:\n\tvmov r2, s10\n\tvmov r3, s11\n\tstr r10, [r2, r3]\n\tstr r6, [r2]\n\t"   \
    "adds r2, #4\n\tvmov s10, r2\n\tvmov r3, s12\n\tsubs r3, #1\n\tvmov s12, r3\n\tbne.w 5b\n\t" \
    "vpop {s16-s19}\n\tadd sp, sp, #8\n\tpop {r4-r11, pc}\n"                         \
    "8:\n\tvpop {s16-s19}\n\t"
#define EK_SPILL "16" /* where the end of x lies */
#else
enum { FAST = 0 };
#define EK_START
#define EK_END
#define EK_SPILL "0"
#endif

/* A whole function in assembly: it needs every register.  Enters its loop of 8 steps of 96 bytes so that a multiple of 8
 * is left. */
__attribute__((naked, noinline)) static void sums24(const tiles24 *t __attribute__((unused)))
{
    __asm__("push {r4-r11, lr}\n\tsub sp, sp, #8\n\t"
            "ldrd r2, r1, [r0]\n\tldrd r3, r5, [r0, #8]\n\t"
            "add r4, r2, r3, lsl #4\n\tstrd r4, r5, [sp]\n\t"
            "rsbs r3, r3, #0\n\tand r3, r3, #7\n\t" /* steps to skip */
            "adr.w r4, 1f\n\tadd r6, r3, r3, lsl #1\n\tadd r4, r4, r6, lsl #5\n\torr r4, r4, #1\n\t"
            "lsls r3, r3, #4\n\tsubs r2, r2, r3\n\t"
            EK_START
            "mov r0, r2\n\tsubs r1, r1, r3\n\t"
            "movs r6, #0\n\tmovs r7, #0\n\tmov r8, r6\n\tmov r9, r6\n\tmov r10, r6\n\tmov r11, r6\n\tmov r12, r6\n\tmov lr, r6\n\t"
            "bx r4\n\t"
            ".balign 4\n"
            "1:\n\t" EK_PAIRS4("0") EK_PAIRS4("32") EK_PAIRS4("64") EK_PAIRS4("96")
            "ldr r2, [sp, #" EK_SPILL "]\n\tadds r0, #128\n\tadds r1, #128\n\tcmp r0, r2\n\tbne.w 1b\n\t"
            EK_END
            "subs r7, r7, r6\n\tasrs r7, r7, #8\n\tsub r9, r9, r8\n\tasr r9, r9, #8\n\t"
            "sub r11, r11, r10\n\tasr r11, r11, #8\n\tsub lr, lr, r12\n\tasr lr, lr, #8\n\t"
            "ldr r2, [sp, #4]\n\tstmia r2, {r6-r12, lr}\n\tadd sp, sp, #8\n\tpop {r4-r11, pc}");
}

/* Four inputs of a row (r2) and 4 outputs; sums: r8-r11. */
#define EK_STEP14(at)                                                                  \
    "ldr r2, [r0], #4\n\tldr r4, [r1, #" at "]\n\tldr r5, [r1, #" at "+4]\n\t"     \
    "ldr r6, [r1, #" at "+8]\n\tldr r7, [r1, #" at "+12]\n\t"                        \
    "sxtb16 r12, r2\n\tsxtb16 r2, r2, ror #8\n\t"                                     \
    "smlad r9, r12, r4, r9\n\tuxtb16 r4, r4\n\tsmlad r8, r12, r4, r8\n\t"           \
    "smlad r11, r12, r5, r11\n\tuxtb16 r5, r5\n\tsmlad r10, r12, r5, r10\n\t"       \
    "smlad r9, r2, r6, r9\n\tuxtb16 r6, r6\n\tsmlad r8, r2, r6, r8\n\t"             \
    "smlad r11, r2, r7, r11\n\tuxtb16 r7, r7\n\tsmlad r10, r2, r7, r10\n\t"

/* the same of one row of int8, in fours of steps and then singly */
__attribute__((naked, noinline)) static void sums14(const int8_t *x __attribute__((unused)), const uint8_t *w __attribute__((unused)),
                                                    uint32_t steps __attribute__((unused)), int32_t *acc __attribute__((unused)))
{
    __asm__("push {r2-r11, lr}\n\tmov lr, r2\n\t"
            "movs r3, #0\n\tmov r8, r3\n\tmov r9, r3\n\tmov r10, r3\n\tmov r11, r3\n\t"
            "subs lr, lr, #4\n\tblo 2f\n"
            "1:\n\t" EK_STEP14("0") EK_STEP14("16") EK_STEP14("32") EK_STEP14("48")
            "adds r1, #64\n\tsubs lr, lr, #4\n\tbhs 1b\n"
            "2:\n\tadds lr, lr, #4\n\tbeq 4f\n"
            "3:\n\t" EK_STEP14("0") "adds r1, #16\n\tsubs lr, lr, #1\n\tbne 3b\n"
            "4:\n\tsub r9, r9, r8\n\tasr r9, r9, #8\n\tsub r11, r11, r10\n\tasr r11, r11, #8\n\t"
            "ldr r2, [sp, #4]\n\tstmia r2, {r8-r11}\n\tadd sp, sp, #8\n\tpop {r4-r11, pc}");
}

#define EK_WIDEN(x, at)                                                                \
    "sxtb16 r5, " x "\n\tsxtb16 " x ", " x ", ror #8\n\t"                             \
    "str r5, [r2, #" at "]\n\tstr " x ", [r2, #" at "+8]\n\t"                         \
    "smlad r12, r5, r3, r12\n\tsmlad r12, " x ", r3, r12\n\t"

__attribute__((naked, noinline)) static int32_t widen(const int8_t *x __attribute__((unused)), uint32_t n __attribute__((unused)),
                                                      uint32_t *y __attribute__((unused)))
{
    __asm__("push {r4-r7}\n\tmov r12, #0\n\tmov r3, #0x00010001\n\t"
            "subs r1, r1, #12\n\tblo 2f\n"
            "1:\n\tldr r4, [r0]\n\tldr r6, [r0, #4]\n\tldr r7, [r0, #8]\n\tadds r0, #12\n\t"
            EK_WIDEN("r4", "0") EK_WIDEN("r6", "16") EK_WIDEN("r7", "32")
            "adds r2, #48\n\tsubs r1, r1, #12\n\tbhs 1b\n"
            "2:\n\tadds r1, r1, #12\n\tbeq 4f\n"
            "3:\n\tldr r4, [r0], #4\n\t" EK_WIDEN("r4", "0") "adds r2, #16\n\tsubs r1, r1, #4\n\tbne 3b\n"
            "4:\n\tmov r0, r12\n\tpop {r4-r7}\n\tbx lr");
}

/* sum of k int8 */
static int32_t row_sum(const int8_t *a, uint32_t k)
{
    int32_t sum = 0;
    for (; k >= 4; k -= 4, a += 4) {
        uint32_t x = (uint32_t)ek_load_s32(a);
        sum = ek_smlad(ek_odd(x), 0x00010001u, ek_smlad(ek_even(x), 0x00010001u, sum));
    }
    for (; k; k--)
        sum += *a++;
    return sum;
}

/* what a row takes off its sums, by even and odd outputs */
typedef struct part { int32_t even, odd; } part;

static part part_of(const ek_gemm *g, int32_t zero_sum, int32_t sum)
{
    int32_t odd = EK_W_ZERO ? (int32_t)((uint32_t)g->w_zero * (uint32_t)zero_sum) : 0;
    return (part){ (int32_t)((uint32_t)odd + 128u * (uint32_t)sum), odd };
}

EK_INLINE int32_t wrap_add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
EK_INLINE int32_t wrap_sub(int32_t a, int32_t b) { return (int32_t)((uint32_t)a - (uint32_t)b); }

/* n of the 4 outputs of a block for one row */
static __attribute__((noinline)) void put_s8(const ek_requant_dsp *q, const uint8_t *head, const int32_t *acc, part p, int8_t *y, uint32_t n)
{
    const int32_t *bias = (const int32_t *)(const void *)head;
    const float *scale = (const float *)(const void *)(head + 16);
    int32_t v[4];
    EK_UNROLL for (uint32_t j = 0; j < 4; j++)
        v[j] = ek_requant_dsp_wide(wrap_sub(wrap_add(acc[j], bias[j]), j & 1 ? p.odd : p.even), scale[j], q);
    ek_put4_dsp(v, q, y, n);
}

static void put_dyn(const ek_gemm *g, const uint8_t *head, const int32_t *acc, part p, uint32_t m, uint32_t n0)
{
    const float *bias = (const float *)(const void *)head;
    float *y = (float *)g->y + (ptrdiff_t)m * g->ldy + (ptrdiff_t)n0;
    for (uint32_t j = 0; j < 4 && n0 + j < g->n; j++) {
        float s = ek_mul_f32(g->row_scale[m], bias[4 + j]);
        y[j] = ek_clamp_f32(ek_mul_f32((float)wrap_sub(acc[j], j & 1 ? p.odd : p.even), s) + bias[j], g->lo, g->hi);
    }
}

/* the sums of a block whose depth or outputs are not those of the loop: in parts, each written by itself */
static void block24(const ek_gemm *g, const ek_requant_dsp *q, tiles24 t, uint32_t n, const part p[2])
{
    const uint8_t *head = t.w;
    int32_t acc[8] = { 0 }, more[8];
    t.acc = more;
    t.w += 32;
    for (uint32_t left = (g->k + 3) / 4; left; left -= t.steps, t.x += 4 * t.steps, t.w += 16 * t.steps) {
        t.steps = left < STEPS ? left : STEPS;
        sums24(&t);
        for (uint32_t j = 0; j < 8; j++)
            acc[j] = wrap_add(acc[j], more[j]);
    }
    if (t.ldy)
        put_s8(q, head, acc + 4, p[1], t.y + t.ldy, n);
    put_s8(q, head, acc, p[0], t.y, n);
}

/* two rows at a time, widened here where g->a tells them; of the last pair one may be missing */
static void rows2(const ek_gemm *g, const ek_requant_dsp *q)
{
    const uint32_t steps = (g->k + 3) / 4;
    const size_t block = ek_block_s8(4, 4, g->k);
    const int fast = FAST && !(EK_W_ZERO && g->w_zero) && steps <= STEPS && g->n >= 4;
    const int8_t *a = g->a;
    uint32_t *x = g->wide;
    int8_t *y = g->y;
    tiles24 t = { .steps = steps, .blocks = g->n / 4, .zero = q->zero, .low = ek_four_dsp(q->low), .high = ek_four_dsp(q->high),
                  .narrow = q->narrow };
    for (uint32_t left = g->m;; left -= 2, y += 2 * g->ldy) {
        if (a) {
            x[0] = (uint32_t)widen(a, g->k, x + 2);
            if (left > 1)
                x[1] = (uint32_t)widen(a + g->lda, g->k, x + 3);
            a += 2 * g->lda;
        }
        const part p[2] = { part_of(g, (int32_t)x[0], (int32_t)x[0]), part_of(g, (int32_t)x[1], (int32_t)x[1]) };
        uint32_t n = 0;
        t.x = x + 2;
        t.w = g->w;
        t.even[0] = p[0].even;
        t.even[1] = p[1].even;
        t.y = y;
        t.ldy = left > 1 ? g->ldy : 0;
        if (fast) {
            sums24(&t);
            n = g->n & ~3u;
        }
        for (t.y += n, t.w += block * (n / 4); n < g->n; n += 4, t.w += block, t.y += 4)
            block24(g, q, t, g->n - n, p);
        if (left <= 2)
            return;
        if (!a)
            x += 2 + 4 * steps;
    }
}

EK_INLINE void row1(const ek_gemm *g, const ek_requant_dsp *q, uint32_t m, const int dyn)
{
    const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda;
    uint32_t steps = (g->k + 3) / 4;
    const uint8_t *head = g->w;
    size_t block = ek_block_s8(4, 4, g->k);
    part p = part_of(g, EK_W_ZERO && g->w_zero && !dyn ? row_sum(a, g->k) : 0, row_sum(a, 4 * steps));
    if (dyn)
        p.odd = 0;
    for (uint32_t n = 0; n < g->n; n += 4, head += block) {
        int32_t acc[4], more[4];
        sums14(a, head + 32, steps < STEPS ? steps : STEPS, acc);
        for (uint32_t s = STEPS; s < steps; s += STEPS) {
            sums14(a + 4 * s, head + 32 + 16 * s, steps - s < STEPS ? steps - s : STEPS, more);
            EK_UNROLL for (uint32_t j = 0; j < 4; j++)
                acc[j] = wrap_add(acc[j], more[j]);
        }
        if (dyn)
            put_dyn(g, head, acc, p, m, n);
        else
            put_s8(q, head, acc, p, (int8_t *)g->y + (ptrdiff_t)m * g->ldy + (ptrdiff_t)n, g->n - n);
    }
}

static void gemm_s8(const ek_gemm *g)
{
    const ek_requant_dsp q = ek_requant_dsp_of(g->lo, g->hi, g->zero);
    if (g->wide && g->m)
        rows2(g, &q);
    for (uint32_t m = 0; !g->wide && m < g->m; m++)
        row1(g, &q, m, 0);
}

static void gemm_dyn(const ek_gemm *g)
{
    for (uint32_t m = 0; m < g->m; m++)
        row1(g, 0, m, 1);
}

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
    k->s8_nr = 4;
    k->s8_kr = 4;
    k->s8_encoding = EK_ENC_PAIRS;
    k->widen = EK_USES(GEMM_S8) ? widen : 0;
    k->s8_xoff = 0;
    k->f32_nr = 4;
    ek_dw_dsp(k);
    ek_sparse_dsp(k);
}
#else
typedef int ek_no_dsp; /* a translation unit must not be empty */
#endif
