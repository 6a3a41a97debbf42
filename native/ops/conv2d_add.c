/* A convolution whose outputs wait in scratch, a few at a time, and are added to another tensor, over which the sum may lie. */
#include <string.h>
#include "attrs.h"
#include "gemm.h"
#include "oplist.h"

_Static_assert(offsetof(ek_attr_conv2d_add, run) == offsetof(ek_attr_conv2d, run), "the convolution's attributes come first");

typedef struct sum {
    ek_after after;
    const ek_ctx *c;
    ek_add_s8 p;
    ek_view r, y;
} sum;

/* rows of one tile: each chunk of them ends within a line of windows, and pairs of rows stay together */
static void chunks(const ek_after *after, const ek_rows *rows, const ek_gemm *g, uint8_t *room)
{
    const sum *v = (const sum *)(const void *)after;
    ek_rows plain = *rows;
    ek_gemm one = *g;
    size_t at = (size_t)((uint8_t *)g->y - v->y.data);
    uint32_t most = after->bytes / g->n / 2 * 2;
    plain.after = 0;
    one.y = room;
    one.ldy = (ptrdiff_t)g->n;
    for (uint32_t i = 0; i < g->m; i += one.m, at += one.m * g->n) {
        one.m = ek_min_u32(most, g->m - i);
        if (g->width) {
            one.m = one.width = ek_min_u32(one.m, g->width - i % g->width);
            one.a = (const int8_t *)g->a + (ptrdiff_t)(i / g->width) * g->line + (ptrdiff_t)(i % g->width) * g->lda;
        } else if (g->a) { /* else there is one pair of rows */
            one.a = (const int8_t *)g->a + (ptrdiff_t)i * g->lda;
        }
        ek_rows_run(&plain, &one, room + after->bytes);
        v->c->k->add_s8((const int8_t *)room, (const int8_t *)v->r.data + at, (int8_t *)v->y.data + at, (size_t)one.m * g->n, &v->p);
    }
}

static void setup(const ek_ctx *c, sum *v, ek_ctx *conv)
{
    const ek_attr_conv2d_add *a = (const ek_attr_conv2d_add *)c->attr;
    v->after = (ek_after){ chunks, a->stage, a->zero };
    v->c = c;
    v->r = ek_in(c, 2);
    v->y = ek_out(c, 0);
    v->p = (ek_add_s8){ a->mc, a->mr, a->bias, a->shift, (int32_t)a->sum_lo, (int32_t)a->sum_hi, v->y.zero };
    *conv = *c;
    conv->after = &v->after;
#if EK_KEEP
    conv->kept = 0; /* it would keep `after`, which lives for this call */
#endif
}

static int check(const ek_ctx *c)
{
    const ek_attr_conv2d_add *a = (const ek_attr_conv2d_add *)c->attr;
    ek_view r = ek_in(c, 2), y = ek_out(c, 0);
    if (!EK_USES(ADD_S8) || !ek_is(&r, EK_I8, 4) || !ek_is(&y, EK_I8, 4) || !ek_same_shape(&r, &y) || !ek_quant_ok(&r) || !ek_quant_ok(&y)
        || !ek_bounds_ok(a->sum_lo, a->sum_hi, y.zero) || a->zero < -128 || a->zero > 127)
        return 0;
    if (a->mc < -(1 << 21) || a->mc > 1 << 21 || a->mr < -(1 << 21) || a->mr > 1 << 21 || a->bias < -(1 << 30) || a->bias > 1 << 30
        || a->shift < 1 || a->shift > 30)
        return 0;
    if (a->groups != 1 || a->stage % EK_UNIT || a->stage > c->granted || a->stage / 2 < y.dims[3])
        return 0;
    sum v;
    ek_ctx conv;
    setup(c, &v, &conv);
    return ek_op_conv2d.check(&conv);
}

static int run(const ek_ctx *c)
{
    sum v;
    ek_ctx conv;
    setup(c, &v, &conv);
    return ek_op_conv2d.run(&conv);
}

static unsigned kernel(const ek_ctx *c)
{
    sum v;
    ek_ctx conv;
    setup(c, &v, &conv);
    return ek_op_conv2d.kernel(&conv);
}

const ek_op_def ek_op_conv2d_add = {
    EK_OP_CONV2D_ADD, 1, sizeof(ek_attr_conv2d_add), 3, 3, 1, 1, "conv2d_add", check, run, kernel,
};
