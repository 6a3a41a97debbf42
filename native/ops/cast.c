/* Changes of representation; see edgekit/ops/cast.py for the five modes. */
#include <string.h>
#include "attrs.h"
#include "op.h"

static int check(const ek_ctx *c)
{
    const ek_attr_cast *a = (const ek_attr_cast *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    if (!x.rec || !y.rec || x.count != y.count || !ek_dtype_bytes(x.dtype) || !ek_dtype_bytes(y.dtype))
        return 0;
    switch (a->mode) {
    case EK_CAST_MODE_PLAIN: return x.dtype <= EK_BOOL && y.dtype <= EK_BOOL;
    case EK_CAST_MODE_QUANTIZE: return x.dtype == EK_F32 && y.dtype == EK_I8 && ek_quant_ok(&y);
    case EK_CAST_MODE_DEQUANTIZE: return x.dtype == EK_I8 && y.dtype == EK_F32 && ek_quant_ok(&x);
    case EK_CAST_MODE_REQUANTIZE:
        return x.dtype == EK_I8 && y.dtype == EK_I8 && ek_quant_ok(&x) && ek_quant_ok(&y) && a->scale > 0 && ek_finite(a->scale);
    case EK_CAST_MODE_SHIFT:
        return (x.dtype == EK_U8 && y.dtype == EK_I8) || (x.dtype == EK_I8 && y.dtype == EK_U8);
    default: return 0;
    }
}

static int64_t load(const ek_view *x, uint32_t i)
{
    switch (x->dtype) {
    case EK_I8: return ((const int8_t *)x->data)[i];
    case EK_I16: { int16_t v; memcpy(&v, x->data + (size_t)i * 2, 2); return v; }
    case EK_I32: { int32_t v; memcpy(&v, x->data + (size_t)i * 4, 4); return v; }
    case EK_I64: { int64_t v; memcpy(&v, x->data + (size_t)i * 8, 8); return v; }
    case EK_F32: {
        float f;
        memcpy(&f, x->data + (size_t)i * 4, 4);
        if (!(f > -2147483648.0f))
            return f == f ? INT32_MIN : 0;
        return f < 2147483648.0f ? (int64_t)f : INT32_MAX;
    }
    default: return x->data[i];
    }
}

static int64_t saturate(int64_t v, int64_t lo, int64_t hi) { return v < lo ? lo : v > hi ? hi : v; }

static void store(const ek_view *y, uint32_t i, int64_t v, int saturating)
{
    switch (y->dtype) {
    case EK_F32: { float f = (float)v; memcpy(y->data + (size_t)i * 4, &f, 4); break; }
    case EK_I8: { int8_t q = (int8_t)(saturating ? saturate(v, -128, 127) : v); memcpy(y->data + i, &q, 1); break; }
    case EK_U8: y->data[i] = (uint8_t)(saturating ? saturate(v, 0, 255) : v); break;
    case EK_I16: { int16_t q = (int16_t)(saturating ? saturate(v, -32768, 32767) : v); memcpy(y->data + (size_t)i * 2, &q, 2); break; }
    case EK_I32: { int32_t q = (int32_t)v; memcpy(y->data + (size_t)i * 4, &q, 4); break; }
    case EK_I64: memcpy(y->data + (size_t)i * 8, &v, 8); break;
    default: y->data[i] = v != 0; break;
    }
}

static void plain(const ek_view *x, const ek_view *y, uint32_t i, uint32_t n)
{
    int from_float = x->dtype == EK_F32;
    for (; n; n--, i++) {
        if (from_float && (y->dtype == EK_F32 || y->dtype == EK_BOOL)) {
            float f;
            memcpy(&f, x->data + (size_t)i * 4, 4);
            if (y->dtype == EK_F32)
                memcpy(y->data + (size_t)i * 4, &f, 4);
            else
                y->data[i] = f != 0;
            continue;
        }
        store(y, i, load(x, i), from_float);
    }
}

static void shift(const uint8_t *x, uint8_t *y, size_t n)
{
    for (; n >= 8; n -= 8, x += 8, y += 8) {
        uint64_t v;
        memcpy(&v, x, 8);
        v ^= 0x8080808080808080u;
        memcpy(y, &v, 8);
    }
    for (; n; n--)
        *y++ = *x++ ^ 0x80u;
}

typedef struct cast { const ek_ctx *c; ek_view x, y; } cast;

static void part(const void *arg, uint32_t first, uint32_t n)
{
    const cast *v = (const cast *)arg;
    const ek_attr_cast *a = (const ek_attr_cast *)v->c->attr;
    const ek_view *x = &v->x, *y = &v->y;
    switch (a->mode) {
    case EK_CAST_MODE_QUANTIZE:
        v->c->k->quantize((const float *)(const void *)x->data + first, (int8_t *)y->data + first, n, y->scale, y->zero);
        break;
    case EK_CAST_MODE_DEQUANTIZE:
        v->c->k->dequantize((const int8_t *)x->data + first, (float *)(void *)y->data + first, n, x->scale, x->zero);
        break;
    case EK_CAST_MODE_REQUANTIZE:
        for (uint32_t i = first; i < first + n; i++)
            ((int8_t *)y->data)[i] = ek_requant(((const int8_t *)x->data)[i] - x->zero, a->scale, (float)(-128 - y->zero),
                                                (float)(127 - y->zero), y->zero);
        break;
    case EK_CAST_MODE_SHIFT: shift(x->data + first, y->data + first, n); break;
    default: plain(x, y, first, n);
    }
}

static int run(const ek_ctx *c)
{
    cast v = { c, ek_in(c, 0), ek_out(c, 0) };
    ek_spans(c, part, &v, v.y.count, EK_VECTOR, ek_dtype_bytes(v.x.dtype) + ek_dtype_bytes(v.y.dtype));
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    const ek_attr_cast *a = (const ek_attr_cast *)c->attr;
    return a->mode == EK_CAST_MODE_QUANTIZE ? EK_K_QUANTIZE : a->mode == EK_CAST_MODE_DEQUANTIZE ? EK_K_DEQUANTIZE : EK_K_NONE;
}

const ek_op_def ek_op_cast = { EK_OP_CAST, 1, sizeof(ek_attr_cast), 1, 1, 1, 1, "cast", check, run, kernel };
