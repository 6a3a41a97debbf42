/* Two operands with numpy broadcasting.  Runs of elements that do not broadcast go to a kernel. */
#include <string.h>
#include "attrs.h"
#include "op.h"

typedef struct bin {
    const ek_ctx *c;
    const ek_attr_binary *a;
    ek_view in[2], y;
    uint32_t dims[EK_MAX_RANK];       /* of y, folded */
    uint32_t step[2][EK_MAX_RANK];    /* elements to move per index; 0: broadcast */
    uint32_t rank;
} bin;
EK_KEEPS(bin);

/* strides of both operands over y's axes; neighbouring axes with one pattern are folded into one */
static int setup(const ek_ctx *c, bin *v)
{
    v->c = c;
    v->a = (const ek_attr_binary *)c->attr;
    v->in[0] = ek_in(c, 0);
    v->in[1] = ek_in(c, 1);
    v->y = ek_out(c, 0);
    if (!v->in[0].rec || !v->in[1].rec || !v->y.rec)
        return 0;
    uint32_t stride[2] = { 1, 1 };
    v->rank = 0;
    for (uint32_t i = 0; i < v->y.rank; i++) {
        uint32_t d = v->y.dims[v->y.rank - 1 - i], s[2];
        for (int k = 0; k < 2; k++) {
            const ek_view *x = &v->in[k];
            uint32_t e = i < x->rank ? x->dims[x->rank - 1 - i] : 1;
            if (x->rank > v->y.rank || (e != d && e != 1))
                return 0;
            s[k] = e == 1 ? 0 : stride[k];
            stride[k] *= e;
        }
        if (d == 1)
            continue;
        uint32_t r = v->rank;
        if (r && v->step[0][r - 1] * v->dims[r - 1] == s[0] && v->step[1][r - 1] * v->dims[r - 1] == s[1]) {
            v->dims[r - 1] *= d;
            continue;
        }
        v->dims[r] = d;
        v->step[0][r] = s[0];
        v->step[1][r] = s[1];
        v->rank = r + 1;
    }
    if (!v->rank) {
        v->dims[0] = 1;
        v->step[0][0] = v->step[1][0] = 1;
        v->rank = 1;
    }
    return 1;
}

static int valid(const bin *v)
{
    const ek_attr_binary *a = v->a;
    uint32_t t = v->y.dtype;
    if (v->in[0].dtype != t || v->in[1].dtype != t || a->kind >= EK_BINARY_KIND_COUNT)
        return 0;
    if (t == EK_F32)
        return a->lo <= a->hi;
    if (t != EK_I8 || !ek_quant_ok(&v->in[0]) || !ek_quant_ok(&v->in[1]) || !ek_quant_ok(&v->y)
        || !ek_bounds_ok(a->lo, a->hi, v->y.zero))
        return 0;
    switch (a->kind) {
    case EK_BINARY_KIND_ADD:
    case EK_BINARY_KIND_SUB:
        return a->ma >= -(1 << 21) && a->ma <= 1 << 21 && a->mb >= -(1 << 21) && a->mb <= 1 << 21
               && a->bias >= -(1 << 30) && a->bias <= 1 << 30 && a->shift >= 1 && a->shift <= 30;
    case EK_BINARY_KIND_MUL: return a->scale > 0 && ek_finite(a->scale);
    case EK_BINARY_KIND_MIN:
    case EK_BINARY_KIND_MAX: return 1;
    default: return 0;
    }
}

static int check(const ek_ctx *c)
{
    bin v;
    if (!setup(c, &v) || !valid(&v))
        return 0;
    ek_keep(c, &v, sizeof v);
    return 1;
}

static int8_t one_s8(const bin *v, int8_t x, int8_t z)
{
    const ek_attr_binary *a = v->a;
    int32_t lo = (int32_t)a->lo + v->y.zero, hi = (int32_t)a->hi + v->y.zero, r;
    switch (a->kind) {
    case EK_BINARY_KIND_MUL:
        return ek_requant((x - v->in[0].zero) * (z - v->in[1].zero), a->scale, a->lo, a->hi, v->y.zero);
    case EK_BINARY_KIND_MIN: r = x < z ? x : z; break;
    case EK_BINARY_KIND_MAX: r = x > z ? x : z; break;
    default: r = ek_asr(x * a->ma + z * a->mb + a->bias, a->shift) + v->y.zero; break;
    }
    return (int8_t)(r < lo ? lo : r > hi ? hi : r);
}

static void row_s8(const bin *v, const int8_t *x, const int8_t *z, int8_t *y, uint32_t n, uint32_t sx, uint32_t sz)
{
    const ek_attr_binary *a = v->a;
    if (sx && sz && (a->kind == EK_BINARY_KIND_ADD || a->kind == EK_BINARY_KIND_SUB)) {
        ek_add_s8 p = { a->ma, a->mb, a->bias, a->shift, (int32_t)a->lo, (int32_t)a->hi, v->y.zero };
        v->c->k->add_s8(x, z, y, n, &p);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        y[i] = one_s8(v, x[i * sx], z[i * sz]);
}

/* int8 products of equal shapes, or of rows and one row that meets each; 0: others, or the CPU has no kernel */
static int products(const bin *v, uint32_t first, uint32_t count)
{
    const ek_attr_binary *a = v->a;
    if (!v->c->k->mul_s8 || v->y.dtype != EK_I8 || a->kind != EK_BINARY_KIND_MUL || v->rank > 2 || !v->step[0][0] || !v->step[1][0])
        return 0;
    int rows = v->rank == 2, swap = rows && !v->step[0][1]; /* of two axes, one operand lacks the outer one: they would be one otherwise */
    const ek_view *x = &v->in[swap], *z = &v->in[!swap];
    if (rows && v->step[!swap][1])
        return 0;
    ek_mul_s8 p = { x->zero, z->zero, a->scale, a->lo, a->hi, v->y.zero };
    size_t at = (size_t)first * (rows ? v->dims[0] : 1);
    v->c->k->mul_s8((const int8_t *)x->data + at, (const int8_t *)z->data + (rows ? 0 : at), (int8_t *)v->y.data + at,
                    rows ? v->dims[0] : count, rows ? count : 1, &p);
    return 1;
}

static void row_f32(const bin *v, const float *x, const float *z, float *y, uint32_t n, uint32_t sx, uint32_t sz)
{
    const ek_attr_binary *a = v->a;
    if (sx && sz) {
        v->c->k->binary_f32(x, z, y, n, a->kind);
    } else {
        float tmp[2][32]; /* a broadcast operand is spread, 32 at a time */
        for (uint32_t i = 0; i < n; i += 32) {
            uint32_t m = ek_min_u32(32, n - i);
            for (uint32_t j = 0; j < m; j++) {
                tmp[0][j] = x[(i + j) * sx];
                tmp[1][j] = z[(i + j) * sz];
            }
            v->c->k->binary_f32(tmp[0], tmp[1], y + i, m, a->kind);
        }
    }
    if (a->lo > -3.4e38f || a->hi < 3.4e38f)
        v->c->k->unary_f32(y, y, n, EK_UNARY_KIND_CLAMP, a->lo, a->hi);
}

/* `count` elements of one row, or of more rows so many whole ones */
static void part(const void *arg, uint32_t first, uint32_t count)
{
    const bin *v = (const bin *)arg;
    if (products(v, first, count))
        return;
    int one = v->rank == 1;
    uint32_t n = one ? count : v->dims[0], index[EK_MAX_RANK] = { 0 };
    size_t at[2] = { 0, 0 }, done = (size_t)first * (one ? 1 : n);
    for (uint32_t r = one ? 0 : 1, rest = first; rest; rest /= v->dims[r], r++) {
        index[r] = one ? rest : rest % v->dims[r];
        at[0] += (size_t)v->step[0][r] * index[r];
        at[1] += (size_t)v->step[1][r] * index[r];
    }
    for (uint32_t rows = one ? 1 : count; rows; rows--, done += n) {
        if (v->y.dtype == EK_I8)
            row_s8(v, (const int8_t *)v->in[0].data + at[0], (const int8_t *)v->in[1].data + at[1],
                   (int8_t *)v->y.data + done, n, v->step[0][0], v->step[1][0]);
        else
            row_f32(v, (const float *)(const void *)v->in[0].data + at[0], (const float *)(const void *)v->in[1].data + at[1],
                    (float *)(void *)v->y.data + done, n, v->step[0][0], v->step[1][0]);
        for (uint32_t r = 1; r < v->rank; r++) {
            at[0] += v->step[0][r];
            at[1] += v->step[1][r];
            if (++index[r] < v->dims[r])
                break;
            at[0] -= (size_t)v->step[0][r] * v->dims[r];
            at[1] -= (size_t)v->step[1][r] * v->dims[r];
            index[r] = 0;
        }
    }
}

static int run(const ek_ctx *c)
{
    bin own, *v = (bin *)ek_kept(c);
    if (!v && !setup(c, v = &own))
        return 0;
    uint32_t n = v->dims[0], elem = v->y.dtype == EK_F32 ? 4 : 1;
    if (v->rank == 1)
        ek_spans(c, part, v, n, EK_VECTOR, elem);
    else
        ek_spans(c, part, v, v->y.count / n, 1, (uint64_t)n * elem);
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    const ek_attr_binary *a = (const ek_attr_binary *)c->attr;
    ek_view y = ek_out(c, 0);
    if (y.dtype == EK_F32)
        return EK_K_BINARY_F32;
    if (a->kind == EK_BINARY_KIND_MUL)
        return EK_K_MUL_S8;
    return a->kind == EK_BINARY_KIND_ADD || a->kind == EK_BINARY_KIND_SUB ? EK_K_ADD_S8 : EK_K_NONE;
}

const ek_op_def ek_op_binary = { EK_OP_BINARY, 1, sizeof(ek_attr_binary), 2, 2, 1, 1, "binary", check, run, kernel };
