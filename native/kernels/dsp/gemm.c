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
    int8_t *y;                /* the rest is for acc 0, when outputs become int8 */
    ptrdiff_t ldy;            /* 0: there is no second row */
    uint32_t n;               /* outputs, a multiple of 4 */
    int32_t zero;
    uint32_t low, high;       /* bounds, four times */
    int32_t narrow;
    const int8_t *a;          /* rows to widen to x, a pair at a time; NULL: one pair lies there, behind its sums */
    ptrdiff_t lda;            /* 0: there is no second row */
    int32_t rows;
    uint32_t run;             /* inputs of a row come in runs, multiples of 4, */
    ptrdiff_t skip;           /* so far from one's end to the next */
} tiles24;

#if defined(__ARM_FP) && !defined(__SOFTFP__)
enum { FAST = 1 };
#define EK_SAVE "vpush {s16-s19}\n\t"
#define EK_RESTORE "vpop {s16-s19}\n\t"
#define EK_FLOAT(s, r) "vmov " s ", " r "\n\tvcvt.f32.s32 " s ", " s "\n\t"
#define EK_INT8(r) "qadd " r ", " r ", r2\n\tssat " r ", #8, " r "\n\t"
#define EK_FOUR(a, b, c, d)                                                            \
    EK_FLOAT("s0", a) EK_FLOAT("s1", b) EK_FLOAT("s2", c) EK_FLOAT("s3", d)           \
    "vmul.f32 s0, s0, s4\n\tvmul.f32 s1, s1, s5\n\tvmul.f32 s2, s2, s6\n\tvmul.f32 s3, s3, s7\n\t" \
    "vcvtr.s32.f32 s0, s0\n\tvcvtr.s32.f32 s1, s1\n\tvcvtr.s32.f32 s2, s2\n\tvcvtr.s32.f32 s3, s3\n\t" \
    "vmov " a ", s0\n\tvmov " b ", s1\n\tvmov " c ", s2\n\tvmov " d ", s3\n\t"        \
    EK_INT8(a) EK_INT8(b) EK_INT8(c) EK_INT8(d)                                       \
    "bfi " a ", " b ", #8, #8\n\tbfi " a ", " c ", #16, #8\n\tbfi " a ", " d ", #24, #8\n\t"
/* s8 and s9: what to take off even sums of the rows, s10 and s12: y and its end, s11 and s13-s16: ldy, zero to narrow, s17:
 * where to enter, s18: bytes to skip, s19: x less these.  s0-s3: biases, s4-s7: scales.  First a pair is widened. */
#define EK_START                                                                       \
    "vmov s17, r4\n\tvmov s18, r3\n\tvmov s19, r5\n\t"                               \
    "add r1, r0, #20\n\tvldmia r1, {s11-s16}\n"                                       \
    "4:\n\tldrd r1, r2, [r0, #44]\n\tldr r3, [r0]\n\tcbnz r1, 2f\n\t"               \
    "ldrd r12, lr, [r3, #-8]\n\tb 6f\n"                                               \
    "2:\n\tadd r2, r2, r1\n\tldr r4, [sp]\n\tldr r11, [r0, #60]\n\t"                \
    "mov r10, #0x00010001\n\tmov r12, #0\n\tmov lr, r12\n"                            \
    "2:\n\tldr r5, [r0, #56]\n"                                                        \
    "3:\n\tldr r6, [r1], #4\n\tldr r7, [r2], #4\n\tsxtb16 r8, r6\n\tsxtb16 r9, r7\n\t" \
    "sxtb16 r6, r6, ror #8\n\tsxtb16 r7, r7, ror #8\n\t"                             \
    "str r9, [r3, #4]\n\tstr r6, [r3, #8]\n\tstr r7, [r3, #12]\n\tstr r8, [r3], #16\n\t" \
    "smlad r12, r8, r10, r12\n\tsmlad lr, r9, r10, lr\n\tsmlad r12, r6, r10, r12\n\tsmlad lr, r7, r10, lr\n\t" \
    "subs r5, #4\n\tbne 3b\n\tadd r1, r1, r11\n\tadd r2, r2, r11\n\tcmp r3, r4\n\tbne 2b\n" \
    "6:\n\tlsl r12, r12, #7\n\tlsl lr, lr, #7\n\tvmov s8, r12\n\tvmov s9, lr\n\t"   \
    "ldr r2, [r0, #16]\n\tldr r3, [r0, #24]\n\tldr r1, [r0, #4]\n\tvmov s10, r2\n\tadd r2, r2, r3\n\tvmov s12, r2\n" \
    "5:\n\tvldmia r1!, {s0-s7}\n\t"                                                  \
    "vmov r6, s0\n\tvmov r8, s2\n\tvmov r2, s8\n\tvmov r3, s9\n\t"                  \
    "sub r10, r6, r3\n\tsubs r6, r6, r2\n\tsub r12, r8, r3\n\tsub r8, r8, r2\n\t"  \
    "mov r7, r6\n\tmov r9, r8\n\tmov r11, r10\n\tmov lr, r12\n\t"                   \
    "vmov r0, s19\n\tvmov r3, s18\n\tvmov r4, s17\n\tsubs r1, r1, r3\n\tbx r4\n"
#define EK_END                                                                         \
    "vmov r2, s1\n\tvmov r3, s3\n\t"                                                  \
    "subs r7, r7, r6\n\tadd r7, r2, r7, asr #8\n\tsub r9, r9, r8\n\tadd r9, r3, r9, asr #8\n\t" \
    "sub r11, r11, r10\n\tadd r11, r2, r11, asr #8\n\tsub lr, lr, r12\n\tadd lr, r3, lr, asr #8\n\t" \
    "vmov r2, s13\n\t" EK_FOUR("r6", "r7", "r8", "r9") EK_FOUR("r10", "r11", "r12", "lr") \
    "vmov r3, s16\n\tcbz r3, 6f\n\tvmov r3, s14\n\tvmov r4, s15\n\t"                 \
    "ssub8 r5, r6, r3\n\tsel r6, r6, r3\n\tssub8 r5, r4, r6\n\tsel r6, r6, r4\n\t"  \
    "ssub8 r5, r10, r3\n\tsel r10, r10, r3\n\tssub8 r5, r4, r10\n\tsel r10, r10, r4\n" \
    "6:\n\tvmov r2, s10\n\tvmov r3, s11\n\tstr r10, [r2, r3]\n\tstr r6, [r2], #4\n\t" \
    "vmov s10, r2\n\tvmov r3, s12\n\tcmp r2, r3\n\tbne.w 5b\n\t"                     \
    "ldr r0, [sp, #4]\n\tldr r1, [r0, #52]\n\tsubs r1, #2\n\tble.w 9f\n\tstr r1, [r0, #52]\n\t" \
    "ldrd r2, r3, [r0, #16]\n\tadd r2, r2, r3, lsl #1\n\tstr r2, [r0, #16]\n\t"      \
    "ldrd r2, r3, [r0, #44]\n\tadd r2, r2, r3, lsl #1\n\tstr r2, [r0, #44]\n\t"      \
    "cmp r1, #1\n\tbne.w 4b\n\tmovs r3, #0\n\tvmov s11, r3\n\tstr r3, [r0, #48]\n\tb.w 4b\n"
#else
enum { FAST = 0 };
#define EK_SAVE
#define EK_RESTORE
#define EK_START
#define EK_END
#endif

#pragma GCC diagnostic ignored "-Woverlength-strings" /* of C99's 4095 characters; compilers for these cores take any */

/* A whole function in assembly: it needs every register.  Enters its loop of 4 steps of 96 bytes so that a multiple of 4
 * is left.  On the stack: the end of x, less 1 where sums are wanted, and t. */
__attribute__((naked, noinline)) static void sums24(tiles24 *t __attribute__((unused)))
{
    __asm__("push {r4-r11, lr}\n\t" EK_SAVE "sub sp, sp, #12\n\tstr r0, [sp, #4]\n\t"
            "ldrd r5, r1, [r0]\n\tldrd r3, r2, [r0, #8]\n\t"
            "add r6, r5, r3, lsl #4\n\tcmp r2, #0\n\tit ne\n\tsubne r6, r6, #1\n\tstr r6, [sp]\n\t"
            "rsb r3, r3, #0\n\tand r3, r3, #3\n\t" /* steps to skip */
            "adr.w r4, 1f\n\tadd r6, r3, r3, lsl #1\n\tadd r4, r4, r6, lsl #5\n\torr r4, r4, #1\n\t"
            "lsl r3, r3, #4\n\tsub r5, r5, r3\n\tbne.w 7f\n\t"
            EK_START
            "7:\n\tmov r0, r5\n\tsubs r1, r1, r3\n\t"
            "movs r6, #0\n\tmovs r7, #0\n\tmov r8, r6\n\tmov r9, r6\n\tmov r10, r6\n\tmov r11, r6\n\tmov r12, r6\n\tmov lr, r6\n\t"
            "bx r4\n\t"
            ".balign 4\n"
            "1:\n\t" EK_PAIRS4("0") EK_PAIRS4("32")
            "ldr r2, [sp]\n\tadds r0, #64\n\tadds r1, #64\n\tcmp r0, r2\n\tblo.w 1b\n\tbne.w 8f\n\t"
            EK_END
            "8:\n\tsubs r7, r7, r6\n\tasrs r7, r7, #8\n\tsub r9, r9, r8\n\tasr r9, r9, #8\n\t"
            "sub r11, r11, r10\n\tasr r11, r11, #8\n\tsub lr, lr, r12\n\tasr lr, lr, #8\n\t"
            "ldr r2, [sp, #4]\n\tldr r2, [r2, #12]\n\tstmia r2, {r6-r12, lr}\n"
            "9:\n\tadd sp, sp, #12\n\t" EK_RESTORE "pop {r4-r11, pc}");
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

__attribute__((naked, noinline)) static int32_t widen(const int8_t *x __attribute__((unused)), uint32_t n __attribute__((unused)),
                                                      uint32_t *y __attribute__((unused)))
{
    __asm__("push {r4, r5}\n\tmov r12, #0\n\tmov r3, #0x00010001\n"
            "1:\n\tldr r4, [r0], #4\n\tsxtb16 r5, r4\n\tsxtb16 r4, r4, ror #8\n\tstr r4, [r2, #8]\n\tstr r5, [r2], #16\n\t"
            "smlad r12, r5, r3, r12\n\tsmlad r12, r4, r3, r12\n\tsubs r1, r1, #4\n\tbne 1b\n\t"
            "mov r0, r12\n\tpop {r4, r5}\n\tbx lr");
}

/* sum of k int8 */
static __attribute__((noinline)) int32_t row_sum(const int8_t *a, uint32_t k)
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

/* blocks from output n on whose depth or outputs are not those of the loop: in parts, each written by itself */
static void blocks24(const ek_gemm *g, const ek_requant_dsp *q, tiles24 *t, uint32_t n, const uint32_t *x)
{
    const uint32_t steps = t->steps;
    const part p[2] = { part_of(g, (int32_t)x[0], (int32_t)x[0]), part_of(g, (int32_t)x[1], (int32_t)x[1]) };
    const uint8_t *head = g->w + (size_t)(n / 4) * (32 + 16 * steps);
    int8_t *y = t->y + n;
    int32_t more[8];
    t->acc = more;
    for (; n < g->n; n += 4, y += 4) {
        int32_t acc[8] = { 0 };
        t->x = x + 2;
        t->w = head + 32;
        for (uint32_t left = steps; left; left -= t->steps, t->x += 4 * t->steps, t->w += 16 * t->steps) {
            t->steps = left < STEPS ? left : STEPS;
            sums24(t);
            for (uint32_t j = 0; j < 8; j++)
                acc[j] = wrap_add(acc[j], more[j]);
        }
        put_s8(q, head, acc + 4, p[1], y + t->ldy, g->n - n); /* where there is no second row, the first one follows */
        put_s8(q, head, acc, p[0], y, g->n - n);
        head = t->w;
    }
    t->steps = steps;
    t->acc = 0;
}

/* two rows at a time, widened here where g->a tells them; of the last pair one may be missing */
static void rows2(const ek_gemm *g, const ek_requant_dsp *q)
{
    const int fast = FAST && !(EK_W_ZERO && g->w_zero) && g->k <= DEPTH && g->n >= 4, all = fast && g->a && g->n % 4 == 0;
    const int8_t *a = g->a;
    uint32_t *x = g->wide;
    tiles24 t = { .steps = (g->k + 3) / 4, .y = g->y, .n = g->n & ~3u, .zero = q->zero, .low = ek_four_dsp(q->low),
                  .high = ek_four_dsp(q->high), .narrow = q->narrow, .run = g->k };
    if (g->segment) {
        t.run = g->segment;
        t.skip = g->gap - (ptrdiff_t)g->segment;
    }
    for (int32_t left = (int32_t)g->m; left > 0; left -= 2, t.y += 2 * g->ldy) {
        t.ldy = left > 1 ? g->ldy : 0;
        t.lda = left > 1 ? g->lda : 0;
        t.x = x + 2;
        t.w = g->w;
        if (all) {
            t.rows = left;
            t.a = a;
        } else if (a) {
            for (uint32_t i = 0; i < 2; i++) {
                const int8_t *row = a + (ptrdiff_t)i * t.lda;
                x[i] = 0;
                for (uint32_t k = 0; k < g->k; k += t.run, row += (ptrdiff_t)t.run + t.skip)
                    x[i] += (uint32_t)widen(row, t.run, x + 2 + i + k);
            }
            a += 2 * g->lda;
        }
        if (fast)
            sums24(&t);
        if (all)
            return;
        blocks24(g, q, &t, fast ? t.n : 0, x);
        if (!a)
            x += 2 + 4 * t.steps;
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

EK_COLD static void gemm_s8(const ek_gemm *g)
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
