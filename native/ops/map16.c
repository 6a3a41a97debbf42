/* Elementwise steps with int16 on one side: to and from float32 and int8, add, mul, tables.  The second operand repeats. */
#include "attrs.h"
#include "op.h"

static int check(const ek_ctx *c)
{
    const ek_attr_map16 *a = (const ek_attr_map16 *)c->attr;
    ek_view x = ek_in(c, 0), z = ek_in(c, 1), y = ek_out(c, 0);
    if (!x.rec || !y.rec || x.count != y.count)
        return 0;
    int from = x.dtype == EK_I16 ? ek_quant_ok(&x) && !x.zero : x.dtype == EK_I8 && ek_quant_ok(&x);
    int to = y.dtype == EK_I16 ? ek_quant_ok(&y) && !y.zero : y.dtype == EK_I8 && ek_quant_ok(&y);
    switch (a->kind) {
    case EK_MAP16_KIND_QUANTIZE: return x.dtype == EK_F32 && y.dtype == EK_I16 && to;
    case EK_MAP16_KIND_DEQUANTIZE: return x.dtype == EK_I16 && y.dtype == EK_F32 && from;
    case EK_MAP16_KIND_REQUANTIZE: return from && to && a->scale > 0 && ek_finite(a->scale);
    case EK_MAP16_KIND_TABLE: return x.dtype == EK_I16 && y.dtype == EK_I16 && ek_is(&z, EK_I16, 1) && z.count == 513;
    case EK_MAP16_KIND_ADD:
    case EK_MAP16_KIND_MUL: break;
    default: return 0;
    }
    int sum = a->ma >= -(1 << 21) && a->ma <= 1 << 21 && a->mb >= -(1 << 21) && a->mb <= 1 << 21 && a->shift >= 1 && a->shift <= 30;
    return x.dtype == EK_I16 && y.dtype == EK_I16 && ek_is(&z, EK_I16, 0xff) && z.count && y.count % z.count == 0
           && a->lo >= -32768.0f && a->hi <= 32767.0f && a->lo <= a->hi
           && (a->kind == EK_MAP16_KIND_ADD ? sum : a->scale > 0 && ek_finite(a->scale));
}

static int32_t rounded(float v, float lo, float hi) { return ek_rint_f32(ek_clamp_f32(v, lo, hi)); }

static void cast(const ek_attr_map16 *a, const ek_view *x, const ek_view *y)
{
    const int16_t *wide = (const int16_t *)(const void *)x->data;
    const float *f = (const float *)(const void *)x->data;
    float lo = y->dtype == EK_I8 ? (float)(-128 - y->zero) : -32768.0f, hi = y->dtype == EK_I8 ? (float)(127 - y->zero) : 32767.0f;
    for (uint32_t i = 0; i < y->count; i++) {
        if (a->kind == EK_MAP16_KIND_DEQUANTIZE) {
            ((float *)(void *)y->data)[i] = ek_mul_f32((float)wide[i], x->scale);
            continue;
        }
        int32_t from = a->kind == EK_MAP16_KIND_QUANTIZE ? 0 : x->dtype == EK_I16 ? wide[i] : ((const int8_t *)x->data)[i] - x->zero;
        int32_t q = rounded(a->kind == EK_MAP16_KIND_QUANTIZE ? ek_div_f32(f[i], y->scale) : ek_mul_f32((float)from, a->scale), lo, hi);
        if (y->dtype == EK_I8)
            ((int8_t *)y->data)[i] = (int8_t)(q + y->zero);
        else
            ((int16_t *)(void *)y->data)[i] = (int16_t)q;
    }
}

/* v >> n, n of 1 to 30, within 32 bits: small cores would call a helper for it */
static int32_t shifted(int64_t v, unsigned n)
{
    uint32_t high = (uint32_t)((uint64_t)v >> 32), low = (uint32_t)v;
    int32_t rest = ek_asr((int32_t)high, n - 1);
    if (rest != 0 && rest != -1)
        return rest < 0 ? INT32_MIN : INT32_MAX;
    return (int32_t)(high << (32 - n) | low >> n);
}

static void two(const ek_attr_map16 *a, const int16_t *x, const int16_t *z, int16_t *y, uint32_t n)
{
    int32_t lo = (int32_t)a->lo, hi = (int32_t)a->hi;
    for (uint32_t i = 0; i < n; i++) {
        if (a->kind == EK_MAP16_KIND_MUL) {
            y[i] = (int16_t)rounded(ek_mul_f32((float)(x[i] * z[i]), a->scale), a->lo, a->hi);
            continue;
        }
        int32_t v = shifted((int64_t)x[i] * a->ma + (int64_t)z[i] * a->mb + a->bias, a->shift);
        y[i] = (int16_t)(v < lo ? lo : v > hi ? hi : v);
    }
}

/* between 513 points a straight line */
static void table(const int16_t *x, const int16_t *t, int16_t *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (uint32_t)(x[i] + 32768);
        const int16_t *p = t + (at >> 7);
        y[i] = (int16_t)(p[0] + ek_asr((p[1] - p[0]) * (int32_t)(at & 127) + 64, 7));
    }
}

static int run(const ek_ctx *c)
{
    const ek_attr_map16 *a = (const ek_attr_map16 *)c->attr;
    ek_view x = ek_in(c, 0), z = ek_in(c, 1), y = ek_out(c, 0);
    if (a->kind < EK_MAP16_KIND_ADD) {
        cast(a, &x, &y);
        return 1;
    }
    const int16_t *p = (const int16_t *)(const void *)x.data;
    int16_t *out = (int16_t *)(void *)y.data;
    if (a->kind == EK_MAP16_KIND_TABLE) {
        table(p, (const int16_t *)(const void *)z.data, out, y.count);
        return 1;
    }
    for (uint32_t i = 0; i < y.count; i += z.count)
        two(a, p + i, (const int16_t *)(const void *)z.data, out + i, z.count);
    return 1;
}

const ek_op_def ek_op_map16 = { EK_OP_MAP16, 1, sizeof(ek_attr_map16), 1, 2, 1, 1, "map16", check, run, 0 };
