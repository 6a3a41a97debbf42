/* The hook of squares.py: what runs the op on a device. */
#include "op.h"

typedef struct attributes { float offset; } attributes; /* the fields of the Python file, in their order */

extern const ek_op_def ek_op_squares;

/* once, in ek_open: refuse whatever would make `run` leave its operands */
static int check(const ek_ctx *c)
{
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    return ek_is(&x, EK_F32, 0xff) && ek_is(&y, EK_F32, 0xff) && x.count == y.count;
}

static int run(const ek_ctx *c)
{
    const attributes *a = (const attributes *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    const float *from = (const float *)(const void *)x.data;
    float *to = (float *)(void *)y.data;
    for (uint32_t i = 0; i < y.count; i++)
        to[i] = ek_mul_f32(from[i], from[i]) + a->offset;
    return 1; /* 0: a run-time value is out of range */
}

const ek_op_def ek_op_squares = { 0x8001, 1, sizeof(attributes), 1, 1, 1, 1, "squares", check, run, 0 };
