/* Axis i of the output is axis perm[i] of the input. */
#include "attrs.h"
#include "move.h"

static int check(const ek_ctx *c)
{
    const ek_attr_transpose *a = (const ek_attr_transpose *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    uint32_t seen = 0;
    if (!ek_same_type(&x, &y) || x.rank != y.rank)
        return 0;
    for (uint32_t i = 0; i < x.rank; i++) {
        if (a->perm[i] >= x.rank || y.dims[i] != x.dims[a->perm[i]])
            return 0;
        seen |= 1u << a->perm[i];
    }
    return seen == (1u << x.rank) - 1;
}

static int run(const ek_ctx *c)
{
    const ek_attr_transpose *a = (const ek_attr_transpose *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    ek_move m = { 0 };
    for (uint32_t i = 0; i < x.rank; i++)
        ek_move_axis(&m, y.dims[i], ek_axis_bytes(&x, a->perm[i]), ek_axis_bytes(&y, i));
    ek_move_run(c, &m, x.data, y.data, ek_dtype_bytes(x.dtype));
    return 1;
}

const ek_op_def ek_op_transpose = {
    EK_OP_TRANSPOSE, 1, sizeof(ek_attr_transpose), 1, 1, 1, 1, "transpose", check, run, 0,
};
