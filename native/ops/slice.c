/* begin, begin + step, ... along each axis; steps may be negative. */
#include "attrs.h"
#include "move.h"

static int check(const ek_ctx *c)
{
    const ek_attr_slice *a = (const ek_attr_slice *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    if (!ek_same_type(&x, &y) || x.rank != y.rank)
        return 0;
    for (uint32_t i = 0; i < x.rank; i++) {
        int64_t last = (int64_t)a->begin[i] + ((int64_t)y.dims[i] - 1) * a->step[i];
        if (a->begin[i] >= x.dims[i] || !a->step[i] || last < 0 || last >= x.dims[i])
            return 0;
    }
    return 1;
}

static int run(const ek_ctx *c)
{
    const ek_attr_slice *a = (const ek_attr_slice *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    const uint8_t *src = x.data;
    ek_move m = { 0 };
    for (uint32_t i = 0; i < x.rank; i++) {
        ptrdiff_t step = ek_axis_bytes(&x, i);
        src += (ptrdiff_t)a->begin[i] * step;
        /* the step of a single index is never taken and may be any number */
        if (y.dims[i] > 1)
            ek_move_axis(&m, y.dims[i], a->step[i] * step, ek_axis_bytes(&y, i));
    }
    ek_move_run(c, &m, src, y.data, ek_dtype_bytes(x.dtype));
    return 1;
}

const ek_op_def ek_op_slice = { EK_OP_SLICE, 1, sizeof(ek_attr_slice), 1, 1, 1, 1, "slice", check, run, 0 };
