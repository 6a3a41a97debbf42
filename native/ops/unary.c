/* Elementwise float32 functions. */
#include "attrs.h"
#include "op.h"

static int check(const ek_ctx *c)
{
    const ek_attr_unary *a = (const ek_attr_unary *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    return ek_is(&x, EK_F32, 0xff) && ek_is(&y, EK_F32, 0xff) && x.count == y.count && a->kind < EK_UNARY_KIND_COUNT;
}

static int run(const ek_ctx *c)
{
    const ek_attr_unary *a = (const ek_attr_unary *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    c->k->unary_f32((const float *)(const void *)x.data, (float *)(void *)y.data, y.count, a->kind, a->alpha, a->beta);
    return 1;
}

static unsigned kernel(const ek_ctx *c) { (void)c; return EK_K_UNARY_F32; }

const ek_op_def ek_op_unary = { EK_OP_UNARY, 1, sizeof(ek_attr_unary), 1, 1, 1, 1, "unary", check, run, kernel };
