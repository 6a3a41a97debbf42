/* Same bytes, other shape; nothing to do where the plan gave both the same place. */
#include <string.h>
#include "attrs.h"
#include "op.h"

static int check(const ek_ctx *c)
{
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    return x.rec && y.rec && x.dtype == y.dtype && x.dtype != EK_PACKED && x.bytes == y.bytes;
}

static int run(const ek_ctx *c)
{
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    if (x.data != y.data)
        memmove(y.data, x.data, y.bytes);
    return 1;
}

const ek_op_def ek_op_reshape = { EK_OP_RESHAPE, 1, 0, 1, 1, 1, 1, "reshape", check, run, 0 };
