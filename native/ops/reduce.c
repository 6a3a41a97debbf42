/* Sum, mean, largest, smallest, product or place of the largest over a set of axes. */
#include <string.h>
#include "attrs.h"
#include "op.h"

enum { CHUNK = 64, COUNT_MAX = 1 << 22 }; /* results of a tile; elements an int32 sum can hold */

/* Neighbouring axes of one kind are folded; steps are elements. */
typedef struct axes {
    uint32_t rank, count; /* count: product of dims */
    uint32_t dims[EK_MAX_RANK], step[EK_MAX_RANK];
} axes;

typedef struct red {
    const ek_ctx *c;
    const ek_attr_reduce *a;
    ek_view x, y;
    axes kept, gone;  /* without the innermost axis of either, which is `run` */
    uint32_t run;     /* length of the innermost axis, contiguous */
    int across;       /* the innermost axis is kept: whole vectors are combined */
    uint32_t elem, count;
    float scale;      /* int8 sum, mean */
} red;

typedef union acc { float f[CHUNK]; int32_t i[CHUNK]; int8_t q[CHUNK]; uint8_t raw[CHUNK * 4]; } acc;

static void setup(const ek_ctx *c, red *v)
{
    memset(v, 0, sizeof *v);
    v->c = c;
    v->a = (const ek_attr_reduce *)c->attr;
    v->x = ek_in(c, 0);
    v->y = ek_out(c, 0);
    v->elem = v->x.dtype == EK_I8 ? 1 : 4;
    uint32_t stride = v->x.count, last = 2;
    for (uint32_t i = 0; i < v->x.rank; i++) {
        uint32_t d = v->x.dims[i], kind = v->a->axes >> i & 1u;
        stride /= d;
        if (d == 1)
            continue;
        axes *s = kind ? &v->gone : &v->kept;
        if (last == kind) {
            s->dims[s->rank - 1] *= d;
        } else {
            s->dims[s->rank++] = d;
        }
        s->step[s->rank - 1] = stride;
        last = kind;
    }
    v->across = last != 1;
    v->run = 1;
    if (last != 2) {
        axes *s = last ? &v->gone : &v->kept;
        v->run = s->dims[--s->rank];
    }
    v->kept.count = v->gone.count = 1;
    for (uint32_t i = 0; i < v->kept.rank; i++)
        v->kept.count *= v->kept.dims[i];
    for (uint32_t i = 0; i < v->gone.rank; i++)
        v->gone.count *= v->gone.dims[i];
    v->count = v->gone.count * (v->across ? 1 : v->run);
    v->scale = v->a->kind == EK_REDUCE_KIND_MEAN ? ek_div_f32(v->a->scale, (float)v->count) : v->a->scale;
}

static int check(const ek_ctx *c)
{
    red v;
    const ek_attr_reduce *a = (const ek_attr_reduce *)c->attr;
    ek_view x = ek_in(c, 0), y = ek_out(c, 0);
    if (!x.rec || !y.rec || (x.dtype != EK_F32 && x.dtype != EK_I8) || a->axes >> x.rank || a->kind >= EK_REDUCE_KIND_COUNT)
        return 0;
    setup(c, &v);
    if ((uint64_t)y.count * v.count != x.count)
        return 0;
    if (a->kind == EK_REDUCE_KIND_ARGMAX)
        return y.dtype == EK_I32 && a->axes && !(a->axes & (a->axes - 1));
    if (y.dtype != x.dtype)
        return 0;
    if (x.dtype == EK_F32 || a->kind == EK_REDUCE_KIND_MAX || a->kind == EK_REDUCE_KIND_MIN)
        return 1;
    return a->kind != EK_REDUCE_KIND_PROD && ek_quant_ok(&x) && ek_quant_ok(&y) && a->scale > 0 && ek_finite(a->scale)
           && v.count <= COUNT_MAX;
}

/* elements from the start to index i of the axes counted as one */
static size_t place(const axes *s, uint32_t i)
{
    size_t at = 0;
    for (uint32_t r = s->rank; r--; i /= s->dims[r])
        at += (size_t)(i % s->dims[r]) * s->step[r];
    return at;
}

static void start(const red *v, acc *t, const uint8_t *x, uint32_t n)
{
    switch (v->a->kind) {
    case EK_REDUCE_KIND_MAX:
    case EK_REDUCE_KIND_MIN: memcpy(t->raw, x, (size_t)n * v->elem); break;
    case EK_REDUCE_KIND_PROD:
        for (uint32_t i = 0; i < n; i++)
            t->f[i] = 1.0f;
        break;
    default: memset(t->raw, 0, (size_t)n * 4);
    }
}

/* acc[i] = acc[i] op x[i] */
static void across(const red *v, acc *t, const uint8_t *x, uint32_t n)
{
    const ek_kernels *k = v->c->k;
    const float *f = (const float *)(const void *)x;
    const int8_t *q = (const int8_t *)x;
    int is_float = v->elem == 4;
    switch (v->a->kind) {
    case EK_REDUCE_KIND_MAX:
        if (is_float)
            k->max_f32(t->f, f, n);
        else
            k->max_s8(t->q, q, n);
        break;
    case EK_REDUCE_KIND_MIN:
        for (uint32_t i = 0; i < n; i++) {
            if (is_float)
                t->f[i] = f[i] < t->f[i] ? f[i] : t->f[i];
            else
                t->q[i] = q[i] < t->q[i] ? q[i] : t->q[i];
        }
        break;
    case EK_REDUCE_KIND_PROD:
        for (uint32_t i = 0; i < n; i++)
            t->f[i] *= f[i];
        break;
    default:
        if (is_float)
            k->sum_f32(t->f, f, n);
        else
            k->sum_s8(t->i, q, n);
    }
}

/* acc[0] = acc[0] op x[0] op x[1] ...: floats in eight lanes, which is faster and closer than one */
static void along(const red *v, acc *t, const uint8_t *x, uint32_t n)
{
    const int8_t *q = (const int8_t *)x;
    uint32_t i = 0;
    if (v->elem == 1 && v->a->kind <= EK_REDUCE_KIND_SUM) {
        for (; i < n; i++)
            t->i[0] += q[i];
        return;
    }
    if (v->elem == 4 && n >= 16) {
        acc lanes;
        start(v, &lanes, x, 8);
        for (; i + 8 <= n; i += 8)
            across(v, &lanes, x + (size_t)i * 4, 8);
        for (uint32_t j = 0; j < 8; j++)
            across(v, t, (const uint8_t *)(lanes.f + j), 1);
    }
    for (; i < n; i++)
        across(v, t, x + (size_t)i * v->elem, 1);
}

static void finish(const red *v, const acc *t, uint8_t *y, uint32_t n)
{
    uint32_t kind = v->a->kind;
    if (kind == EK_REDUCE_KIND_MEAN && v->elem == 4) {
        for (uint32_t i = 0; i < n; i++)
            ((float *)(void *)y)[i] = t->f[i] / (float)v->count;
    } else if (kind <= EK_REDUCE_KIND_SUM && v->elem == 1) {
        float lo = (float)(-128 - v->y.zero), hi = (float)(127 - v->y.zero);
        for (uint32_t i = 0; i < n; i++)
            ((int8_t *)y)[i] = ek_requant(t->i[i] - v->x.zero * (int32_t)v->count, v->scale, lo, hi, v->y.zero);
    } else {
        memcpy(y, t->raw, (size_t)n * v->elem);
    }
}

/* at most CHUNK results */
static void tile(void *arg, unsigned i, unsigned thread)
{
    const red *v = (const red *)arg;
    acc t;
    (void)thread;
    if (v->across) {
        uint32_t chunks = (v->run - 1) / CHUNK + 1, c0 = i % chunks * CHUNK, n = ek_min_u32(CHUNK, v->run - c0);
        const uint8_t *x = v->x.data + (place(&v->kept, i / chunks) + c0) * v->elem;
        start(v, &t, x, n);
        uint32_t r = 0;
        if (EK_BANDS && v->elem == 1 && v->a->kind <= EK_REDUCE_KIND_SUM && v->gone.rank == 1 && v->c->k->sum_rows_s8) {
            v->c->k->sum_rows_s8(t.i, (const int8_t *)x, n, v->gone.count, v->gone.step[0]);
            r = v->gone.count;
        }
        for (; r < v->gone.count; r++)
            across(v, &t, x + place(&v->gone, r) * v->elem, n);
        finish(v, &t, v->y.data + ((size_t)(i / chunks) * v->run + c0) * v->elem, n);
        return;
    }
    uint32_t end = ek_min_u32((i + 1) * CHUNK, v->kept.count);
    for (uint32_t o = i * CHUNK; o < end; o++) {
        const uint8_t *x = v->x.data + place(&v->kept, o) * v->elem;
        start(v, &t, x, 1);
        for (uint32_t r = 0; r < v->gone.count; r++)
            along(v, &t, x + place(&v->gone, r) * v->elem, v->run);
        finish(v, &t, v->y.data + (size_t)o * v->elem, 1);
    }
}

/* index of the first largest element, `step` apart */
static int32_t first_largest(const uint8_t *x, uint32_t n, size_t step, uint32_t dtype)
{
    const float *f = (const float *)(const void *)x;
    const int8_t *q = (const int8_t *)x;
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (dtype == EK_F32 ? f[i * step] > f[best * step] : q[i * step] > q[best * step])
            best = i;
    return (int32_t)best;
}

static void argmax(const red *v)
{
    uint32_t axis = 0, inner = 1;
    while (!(v->a->axes >> axis & 1u))
        axis++;
    for (uint32_t i = axis + 1; i < v->x.rank; i++)
        inner *= v->x.dims[i];
    uint32_t n = v->x.dims[axis];
    for (uint32_t i = 0; i < v->y.count; i++) {
        size_t at = (size_t)(i / inner) * n * inner + i % inner;
        int32_t best = first_largest(v->x.data + at * v->elem, n, inner, v->x.dtype);
        memcpy(v->y.data + (size_t)i * 4, &best, 4);
    }
}

static int run(const ek_ctx *c)
{
    red v;
    setup(c, &v);
    if (v.a->kind == EK_REDUCE_KIND_ARGMAX)
        argmax(&v);
    else if (v.across)
        ek_for(c, tile, &v, v.kept.count * ((v.run - 1) / CHUNK + 1));
    else
        ek_for(c, tile, &v, (v.kept.count - 1) / CHUNK + 1);
    return 1;
}

static unsigned kernel(const ek_ctx *c)
{
    red v;
    setup(c, &v);
    int is_float = v.elem == 4;
    if (v.a->kind == EK_REDUCE_KIND_MAX)
        return is_float ? EK_K_MAX_F32 : EK_K_MAX_S8;
    if (v.a->kind <= EK_REDUCE_KIND_SUM && (v.across || is_float))
        return is_float ? EK_K_SUM_F32 : EK_K_SUM_S8;
    return EK_K_NONE;
}

const ek_op_def ek_op_reduce = { EK_OP_REDUCE, 1, sizeof(ek_attr_reduce), 1, 1, 1, 1, "reduce", check, run, kernel };
