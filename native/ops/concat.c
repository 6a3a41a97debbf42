/* Operands one after the other along an axis. */
#include "attrs.h"
#include "move.h"

static int check(const ek_ctx *c)
{
    const ek_attr_concat *a = (const ek_attr_concat *)c->attr;
    ek_view y = ek_out(c, 0);
    uint64_t total = 0;
    if (!y.rec || a->axis >= y.rank)
        return 0;
    for (uint32_t k = 0; k < c->rec->inputs; k++) {
        ek_view x = ek_in(c, k);
        if (!ek_same_type(&x, &y) || x.rank != y.rank)
            return 0;
        for (uint32_t i = 0; i < y.rank; i++)
            if (i != a->axis && x.dims[i] != y.dims[i])
                return 0;
        total += x.dims[a->axis];
    }
    return total == y.dims[a->axis];
}

static int run(const ek_ctx *c)
{
    const ek_attr_concat *a = (const ek_attr_concat *)c->attr;
    ek_view y = ek_out(c, 0);
    uint8_t *dst = y.data;
    for (uint32_t k = 0; k < c->rec->inputs; k++) {
        ek_view x = ek_in(c, k);
        ek_move m = { 0 };
        for (uint32_t i = 0; i < x.rank; i++)
            ek_move_axis(&m, x.dims[i], ek_axis_bytes(&x, i), ek_axis_bytes(&y, i));
        ek_move_run(c, &m, x.data, dst, ek_dtype_bytes(x.dtype));
        dst += (ptrdiff_t)x.dims[a->axis] * ek_axis_bytes(&y, a->axis);
    }
    return 1;
}

const ek_op_def ek_op_concat = { EK_OP_CONCAT, 1, sizeof(ek_attr_concat), 1, 255, 1, 1, "concat", check, run, 0 };
