/* The input repeated along each axis. */
#include "attrs.h"
#include "move.h"

static int check(const ek_ctx *c)
{
    const ek_attr_tile *a = (const ek_attr_tile *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    if (!ek_same_type(&x, &y) || x.rank != y.rank)
        return 0;
    for (uint32_t i = 0; i < x.rank; i++)
        if ((uint64_t)x.dims[i] * a->repeats[i] != y.dims[i])
            return 0;
    return 1;
}

static int run(const ek_ctx *c)
{
    const ek_attr_tile *a = (const ek_attr_tile *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    ek_move m = { 0 };
    for (uint32_t i = 0; i < x.rank; i++) {
        ptrdiff_t from = ek_axis_bytes(&x, i), to = ek_axis_bytes(&y, i);
        ek_move_axis(&m, a->repeats[i], 0, to * (ptrdiff_t)x.dims[i]);
        ek_move_axis(&m, x.dims[i], from, to);
    }
    ek_move_run(c, &m, x.data, y.data, ek_dtype_bytes(x.dtype));
    return 1;
}

const ek_op_def ek_op_tile = { EK_OP_TILE, 1, sizeof(ek_attr_tile), 1, 1, 1, 1, "tile", check, run, 0 };
