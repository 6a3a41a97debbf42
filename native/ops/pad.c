/* Elements before and after each axis: a constant, a mirror image or the edge repeated. */
#include <string.h>
#include "attrs.h"
#include "move.h"

static int check(const ek_ctx *c)
{
    const ek_attr_pad *a = (const ek_attr_pad *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    if (!ek_same_type(&x, &y) || x.rank != y.rank || a->mode >= EK_PAD_MODE_COUNT)
        return 0;
    for (uint32_t i = 0; i < x.rank; i++) {
        uint64_t inside = (uint64_t)a->before[i] + x.dims[i];
        if (inside > y.dims[i])
            return 0;
        /* a mirror shows each element once */
        uint64_t room = a->mode == EK_PAD_MODE_REFLECT ? x.dims[i] - 1 : x.dims[i];
        int mirror = a->mode == EK_PAD_MODE_REFLECT || a->mode == EK_PAD_MODE_SYMMETRIC;
        if (mirror && (a->before[i] > room || y.dims[i] - inside > room))
            return 0;
    }
    return 1;
}

/* index in the source of index i of the output along an axis of n, -1: the constant */
static int64_t source(uint32_t i, uint32_t before, uint32_t n, uint32_t mode)
{
    int64_t at = (int64_t)i - before, end = n;
    if (at >= 0 && at < end)
        return at;
    switch (mode) {
    case EK_PAD_MODE_REFLECT: return at < 0 ? -at : 2 * end - 2 - at;
    case EK_PAD_MODE_SYMMETRIC: return at < 0 ? -at - 1 : 2 * end - 1 - at;
    case EK_PAD_MODE_EDGE: return at < 0 ? 0 : end - 1;
    default: return -1;
    }
}

static void fill(uint8_t *dst, size_t bytes, const uint32_t *value, uint32_t elem)
{
    for (size_t i = 0; i < bytes; i += elem)
        memcpy(dst + i, value, elem);
}

/* indices [i0, i1) of the innermost padded axis of one output row; src NULL: a row of the constant */
static void border(const ek_attr_pad *a, const uint8_t *src, uint8_t *dst, uint32_t i0, uint32_t i1, uint32_t axis,
                   uint32_t n, size_t run_bytes, uint32_t elem)
{
    if (!src || a->mode == EK_PAD_MODE_CONSTANT) {
        fill(dst + i0 * run_bytes, (i1 - i0) * run_bytes, a->fill, elem);
        return;
    }
    for (uint32_t i = i0; i < i1; i++)
        memmove(dst + i * run_bytes, src + (size_t)source(i, a->before[axis], n, a->mode) * run_bytes, run_bytes);
}

static int run(const ek_ctx *c)
{
    const ek_attr_pad *a = (const ek_attr_pad *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    uint32_t elem = ek_dtype_bytes(x.dtype), axis = x.rank, rows = 1, index[EK_MAX_RANK] = { 0 };
    while (axis && x.dims[axis - 1] == y.dims[axis - 1])
        axis--;
    if (!axis) {
        memmove(y.data, x.data, x.bytes);
        return 1;
    }
    axis--; /* the innermost padded axis: what lies inside it moves as one run */
    size_t run_bytes = (size_t)ek_axis_bytes(&x, axis);
    uint32_t n = x.dims[axis], out = y.dims[axis], before = a->before[axis];
    for (uint32_t i = 0; i < axis; i++)
        rows *= y.dims[i];
    uint8_t *dst = y.data;
    for (uint32_t row = 0; row < rows; row++, dst += out * run_bytes) {
        const uint8_t *src = x.data;
        for (uint32_t i = 0; src && i < axis; i++) {
            int64_t at = source(index[i], a->before[i], x.dims[i], a->mode);
            src = at < 0 ? 0 : src + (ptrdiff_t)at * ek_axis_bytes(&x, i);
        }
        if (src) {
            border(a, src, dst, 0, before, axis, n, run_bytes, elem);
            memmove(dst + before * run_bytes, src, n * run_bytes);
            border(a, src, dst, before + n, out, axis, n, run_bytes, elem);
        } else {
            border(a, src, dst, 0, out, axis, n, run_bytes, elem);
        }
        for (uint32_t i = axis; i-- && ++index[i] == y.dims[i];)
            index[i] = 0;
    }
    return 1;
}

const ek_op_def ek_op_pad = { EK_OP_PAD, 1, sizeof(ek_attr_pad), 1, 1, 1, 1, "pad", check, run, 0 };
