/* Slices of one axis picked by int32 indices, which are run-time values: one out of range fails the run. */
#include <string.h>
#include "attrs.h"
#include "move.h"

static int check(const ek_ctx *c)
{
    const ek_attr_gather *a = (const ek_attr_gather *)c->attr;
    ek_view x = ek_in(c, 0), at = ek_in(c, 1), y = ek_out(c, 0);
    if (!ek_same_type(&x, &y) || !ek_is(&at, EK_I32, 0xff) || a->axis >= x.rank || y.rank != x.rank - 1 + at.rank)
        return 0;
    for (uint32_t i = 0; i < y.rank; i++) {
        uint32_t want = i < a->axis ? x.dims[i] : i < a->axis + at.rank ? at.dims[i - a->axis] : x.dims[i + 1 - at.rank];
        if (y.dims[i] != want)
            return 0;
    }
    return 1;
}

static int run(const ek_ctx *c)
{
    const ek_attr_gather *a = (const ek_attr_gather *)c->attr;
    ek_view x = ek_in(c, 0), at = ek_in(c, 1), y = ek_out(c, 0);
    uint32_t n = x.dims[a->axis], outer = 1;
    size_t run_bytes = (size_t)ek_axis_bytes(&x, a->axis);
    for (uint32_t i = 0; i < a->axis; i++)
        outer *= x.dims[i];
    uint8_t *dst = y.data;
    for (uint32_t o = 0; o < outer; o++) {
        const uint8_t *src = x.data + (size_t)o * n * run_bytes;
        for (uint32_t j = 0; j < at.count; j++, dst += run_bytes) {
            int32_t k;
            memcpy(&k, at.data + (size_t)j * 4, 4);
            if (k < 0)
                k += (int32_t)n;
            if (k < 0 || (uint32_t)k >= n)
                return 0;
            memmove(dst, src + (size_t)k * run_bytes, run_bytes);
        }
    }
    return 1;
}

const ek_op_def ek_op_gather = { EK_OP_GATHER, 1, sizeof(ek_attr_gather), 2, 2, 1, 1, "gather", check, run, 0 };
