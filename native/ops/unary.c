/* Elementwise float32 functions. */
#include "attrs.h"
#include "op.h"

static int check(const ek_ctx *c)
{
    const ek_attr_unary *a = (const ek_attr_unary *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    return ek_is(&x, EK_F32, 0xff) && ek_is(&y, EK_F32, 0xff) && x.count == y.count && a->kind < EK_UNARY_KIND_COUNT;
}

typedef struct unary { const ek_ctx *c; ek_view x, y; } unary;

static void part(const void *arg, uint32_t first, uint32_t n)
{
    const unary *v = (const unary *)arg;
    const ek_attr_unary *a = (const ek_attr_unary *)v->c->attr;
    v->c->k->unary_f32((const float *)(const void *)v->x.data + first, (float *)(void *)v->y.data + first, n, a->kind, a->alpha, a->beta);
}

static int run(const ek_ctx *c)
{
    unary v = { c, ek_in(c, 0), ek_out(c, 0) };
    ek_spans(c, part, &v, v.y.count, EK_VECTOR, 4);
    return 1;
}

static unsigned kernel(const ek_ctx *c) { (void)c; return EK_K_UNARY_F32; }

const ek_op_def ek_op_unary = { EK_OP_UNARY, 1, sizeof(ek_attr_unary), 1, 1, 1, 1, "unary", check, run, kernel };
