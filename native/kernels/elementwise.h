/* Elementwise kernels as a template over the vector width, in the compilers' vector extensions: included once by an
 * ISA's elementwise.c after it has defined
 *   EK_VB      bytes of a vector
 *   EK_V       target attribute of every function
 *   EK_VISA    EK_ISA_* of the folder
 *   ek_widen   (const int8_t *p, vi out[4]): EK_VB int8 to int32
 *   ek_narrow  (const vi in[4], int8_t *p): back; values lie within int8
 *   ek_vsqrt   (vf): correctly rounded
 *   EK_SUM64   where it has add_chunk, mul_chunk and row_chunk of its own
 *   EK_VROUND  (vf): hides a rounded value from contraction; where it is defined, rows of softmax and norms are made too
 * with the types vf and vi (float, int32_t) it declares.  The functions are those of fmath.c, both sides of a branch and a select. */
#ifndef EK_ELEMENTWISE_H
#define EK_ELEMENTWISE_H
#include "attrs.h"
#include "fmath.h"
#include "kernels.h"

enum { LANES = EK_VB / 4, BYTES = EK_VB, ROW = 1024 }; /* ROW: what mul_s8 repeats at most */
typedef int8_t vb __attribute__((vector_size(EK_VB)));

EK_INLINE EK_V vf all(float x) { return (vf){ 0 } + x; }
EK_INLINE EK_V vf pick(vi m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
EK_INLINE EK_V vf clamp(vf y, vf lo, vf hi)
{
    y = pick(y > lo, y, lo);
    return pick(y < hi, y, hi);
}
EK_INLINE EK_V vf absolute(vf x) { return (vf)((vi)x & 0x7fffffff); }
EK_INLINE EK_V vf with_sign(vf y, vf x) { return (vf)((vi)y | ((vi)x & (int32_t)0x80000000)); } /* y >= 0 */
EK_INLINE EK_V vi rint_int(vf y) /* |y| < 2^22 */
{
    vf m = y + 12582912.0f;
    return (vi)m - 0x4b400000;
}
EK_INLINE EK_V vf to_float(vi v) { return __builtin_convertvector(v, vf); }

EK_INLINE EK_V vf v_exp(vf x)
{
    vf c = clamp(x, all(-104.0f), all(88.73f));
    vi n = rint_int(c * 1.44269504f);
    vf fn = to_float(n);
    vf r = c - fn * 0.693359375f;
    r -= fn * -2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    vf y = p * r * r + r + 1.0f;
    vi h = n >> 1;
    y = y * (vf)((h + 127) << 23) * (vf)((n - h + 127) << 23);
    y = pick(x > 88.73f, (vf)((vi){ 0 } + 0x7f800000), y);
    y = pick(x <= -104.0f, all(0.0f), y);
    return pick(x == x, y, x);
}

EK_INLINE EK_V vf v_log(vf x)
{
    vi tiny = x < 1.17549435e-38f;
    vf s = pick(tiny, x * 8388608.0f, x);
    vi u = (vi)s, e = ((u >> 23) & 255) - 126 - (tiny & 23);
    vf m = (vf)((u & 0x007fffff) | 0x3f000000);
    vi low = m < 0.707106781f;
    e += low;
    m = pick(low, m + m, m) - 1.0f;
    vf z = m * m;
    vf p = m * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    vf fe = to_float(e);
    vf y = m * z * p + fe * -2.12194440e-4f - 0.5f * z;
    y = m + y + fe * 0.693359375f;
    y = pick((vi)x == 0x7f800000, x, y);
    y = pick(x > 0.0f, y, (vf)((vi){ 0 } + 0x7fc00000));
    return pick(x == 0.0f, (vf)((vi){ 0 } + (int32_t)0xff800000), y);
}

EK_INLINE EK_V vf v_sigmoid(vf x)
{
    vf e = v_exp((vf)((vi)x | (int32_t)0x80000000)); /* exp(-|x|) */
    return pick(x < 0.0f, e, all(1.0f)) / (1.0f + e);
}

EK_INLINE EK_V vf v_tanh(vf x)
{
    vf a = absolute(x), z = x * x;
    vf p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    vf small = x + x * z * p;
    vf big = 1.0f - 2.0f / (v_exp(a + a) + 1.0f);
    return pick(a < 0.625f, small, with_sign(big, x));
}

EK_INLINE EK_V vf v_erf(vf x)
{
    vf a = absolute(x), z = x * x;
    vf p = z * 1.4807192816e-8f + -1.6365844691e-7f;
    p = p * z + 1.6462114366e-6f;
    p = p * z - 1.4925650358e-5f;
    p = p * z + 1.2055332982e-4f;
    p = p * z - 8.5483270234e-4f;
    p = p * z + 5.2239776254e-3f;
    p = p * z - 2.6866170645e-2f;
    p = p * z + 1.1283791671e-1f;
    p = p * z - 3.7612638903e-1f;
    p = p * z + 1.1283791671e+0f;
    vf small = x * p;
    vf t = 1.0f / (1.0f + 0.5f * a);
    p = t * 0.17087277f - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    vf y = 1.0f - t * v_exp(t * p - 1.26551223f - a * a);
    y = pick(a > 3.95f, all(1.0f), y);
    return pick(a < 1.0f, small, pick(x == x, with_sign(y, x), x));
}

/* erf within 4e-7 of 1, in one branch: a rational fit of erf(x) / x over x^2 (iterated least squares, |x| below 3.92) */
EK_INLINE EK_V vf v_erf_near(vf x)
{
    vf c = clamp(x, all(-3.92f), all(3.92f)), z = c * c;
    vf p = z * 1.9921005569e-8f - 1.9942649305e-6f;
    p = p * z + 1.4898464759e-4f;
    p = p * z + 3.9728648823e-3f;
    p = p * z + 5.1397276993e-2f;
    p = p * z + 2.0611389358e-1f;
    p = p * z + 1.1283787779f;
    vf q = z * 1.0241117516e-3f + 1.4889198428e-2f;
    q = q * z + 1.1756445024e-1f;
    q = q * z + 5.1599245194e-1f;
    q = q * z + 1.0f;
    return pick(absolute(x) > 3.92f, with_sign(all(1.0f), x), c * p / q); /* whole beyond: large x are multiplied by 1 + erf */
}

EK_INLINE EK_V vf v_floor(vf x)
{
    vi in = absolute(x) < 8388608.0f;
    vf t = to_float(__builtin_convertvector(pick(in, x, all(0.0f)), vi));
    t -= pick(t > x, all(1.0f), all(0.0f));
    return pick(in, t, x);
}

EK_INLINE EK_V vf v_round(vf x)
{
    vf a = absolute(x), f = v_floor(x), d = x - f;
    vi odd = -(__builtin_convertvector(pick(a < 8388608.0f, f, all(0.0f)), vi) & 1);
    vi up = (d > 0.5f) | ((d == 0.5f) & odd);
    return pick(a < 8388608.0f, f + pick(up, all(1.0f), all(0.0f)), x);
}

EK_INLINE EK_V vf v_softplus(vf x) { return pick(x > 20.0f, x, v_log(1.0f + v_exp(x))); }

/* `full` vectors, then the rest through a zeroed one */
#define EK_EACH_F32(x, y, n, expr)                                    \
    do {                                                              \
        size_t i_ = 0;                                                \
        vf v, r_;                                                     \
        for (; i_ + LANES <= (n); i_ += LANES) {                      \
            memcpy(&v, (x) + i_, sizeof v);                           \
            r_ = (expr);                                              \
            memcpy((y) + i_, &r_, sizeof r_);                         \
        }                                                             \
        if (i_ < (n)) {                                               \
            v = (vf){ 0 };                                            \
            memcpy(&v, (x) + i_, ((n) - i_) * sizeof(float));         \
            r_ = (expr);                                              \
            memcpy((y) + i_, &r_, ((n) - i_) * sizeof(float));        \
        }                                                             \
    } while (0)

static EK_V void unary_f32(const float *x, float *y, size_t n, unsigned kind, float alpha, float beta)
{
    const vf one = all(1.0f), none = all(0.0f), six = all(6.0f), al = all(alpha), be = all(beta);
    switch (kind) {
    case EK_UNARY_KIND_CLAMP: EK_EACH_F32(x, y, n, clamp(v, al, be)); break;
    case EK_UNARY_KIND_SIGMOID: EK_EACH_F32(x, y, n, v_sigmoid(v)); break;
    case EK_UNARY_KIND_TANH: EK_EACH_F32(x, y, n, v_tanh(v)); break;
    case EK_UNARY_KIND_EXP: EK_EACH_F32(x, y, n, v_exp(v)); break;
    case EK_UNARY_KIND_LOG: EK_EACH_F32(x, y, n, v_log(v)); break;
    case EK_UNARY_KIND_SQRT: EK_EACH_F32(x, y, n, ek_vsqrt(v)); break;
    case EK_UNARY_KIND_RSQRT: EK_EACH_F32(x, y, n, one / ek_vsqrt(v)); break;
    case EK_UNARY_KIND_NEG: EK_EACH_F32(x, y, n, -v); break;
    case EK_UNARY_KIND_ABS: EK_EACH_F32(x, y, n, absolute(v)); break;
    case EK_UNARY_KIND_ERF: EK_EACH_F32(x, y, n, v_erf(v)); break;
    case EK_UNARY_KIND_GELU: EK_EACH_F32(x, y, n, 0.5f * v * (1.0f + v_erf_near(v * 0.70710678f))); break;
    case EK_UNARY_KIND_GELU_TANH:
        EK_EACH_F32(x, y, n, 0.5f * v * (1.0f + v_tanh(0.79788456f * (v + 0.044715f * v * v * v))));
        break;
    case EK_UNARY_KIND_SILU: EK_EACH_F32(x, y, n, v * v_sigmoid(v)); break;
    case EK_UNARY_KIND_HARDSWISH: EK_EACH_F32(x, y, n, v * clamp(v + 3.0f, none, six) / 6.0f); break;
    case EK_UNARY_KIND_HARDSIGMOID: EK_EACH_F32(x, y, n, clamp(al * v + be, none, one)); break;
    case EK_UNARY_KIND_LEAKY_RELU: EK_EACH_F32(x, y, n, pick(v < 0.0f, al * v, v)); break;
    case EK_UNARY_KIND_ELU: EK_EACH_F32(x, y, n, pick(v < 0.0f, al * (v_exp(v) - 1.0f), v)); break;
    case EK_UNARY_KIND_SOFTPLUS: EK_EACH_F32(x, y, n, v_softplus(v)); break;
    case EK_UNARY_KIND_RECIPROCAL: EK_EACH_F32(x, y, n, one / v); break;
    case EK_UNARY_KIND_FLOOR: EK_EACH_F32(x, y, n, v_floor(v)); break;
    case EK_UNARY_KIND_CEIL: EK_EACH_F32(x, y, n, -v_floor(-v)); break;
    case EK_UNARY_KIND_ROUND: EK_EACH_F32(x, y, n, v_round(v)); break;
    case EK_UNARY_KIND_MISH: EK_EACH_F32(x, y, n, v * v_tanh(v_softplus(v))); break;
    default:
        for (size_t i = 0; i < n; i++)
            y[i] = ek_unary_f32(x[i], kind, alpha, beta);
    }
}

#define EK_EACH2_F32(a, b, y, n, expr)                                \
    do {                                                              \
        size_t i_ = 0;                                                \
        vf u, v, r_;                                                  \
        for (; i_ + LANES <= (n); i_ += LANES) {                      \
            memcpy(&u, (a) + i_, sizeof u);                           \
            memcpy(&v, (b) + i_, sizeof v);                           \
            r_ = (expr);                                              \
            memcpy((y) + i_, &r_, sizeof r_);                         \
        }                                                             \
        if (i_ < (n)) {                                               \
            u = v = (vf){ 0 };                                        \
            memcpy(&u, (a) + i_, ((n) - i_) * sizeof(float));         \
            memcpy(&v, (b) + i_, ((n) - i_) * sizeof(float));         \
            r_ = (expr);                                              \
            memcpy((y) + i_, &r_, ((n) - i_) * sizeof(float));        \
        }                                                             \
    } while (0)

static EK_V void binary_f32(const float *a, const float *b, float *y, size_t n, unsigned kind)
{
    switch (kind) {
    case EK_BINARY_KIND_ADD: EK_EACH2_F32(a, b, y, n, u + v); break;
    case EK_BINARY_KIND_SUB: EK_EACH2_F32(a, b, y, n, u - v); break;
    case EK_BINARY_KIND_MUL: EK_EACH2_F32(a, b, y, n, u * v); break;
    case EK_BINARY_KIND_DIV: EK_EACH2_F32(a, b, y, n, u / v); break;
    case EK_BINARY_KIND_MIN: EK_EACH2_F32(a, b, y, n, pick(u < v, u, v)); break;
    case EK_BINARY_KIND_MAX: EK_EACH2_F32(a, b, y, n, pick(u > v, u, v)); break;
    case EK_BINARY_KIND_PRELU: EK_EACH2_F32(a, b, y, n, pick(u < 0.0f, u * v, u)); break;
    default:
        for (size_t i = 0; i < n; i++)
            y[i] = ek_binary_f32(a[i], b[i], kind);
    }
}

static EK_V void max_f32(float *acc, const float *x, size_t n) { EK_EACH2_F32(acc, x, acc, n, pick(v > u, v, u)); }
static EK_V void sum_f32(float *acc, const float *x, size_t n) { EK_EACH2_F32(acc, x, acc, n, u + v); }

static EK_V void max_s8(int8_t *acc, const int8_t *x, size_t n)
{
    for (size_t i = 0, step; i < n; i += step) {
        vb a = { 0 }, b = { 0 };
        step = n - i < BYTES ? n - i : BYTES;
        if (step == BYTES) {
            memcpy(&a, acc + i, BYTES);
            memcpy(&b, x + i, BYTES);
        } else {
            memcpy(&a, acc + i, step);
            memcpy(&b, x + i, step);
        }
        vb m = a > b;
        a = (m & a) | (~m & b);
        if (step == BYTES)
            memcpy(acc + i, &a, BYTES);
        else
            memcpy(acc + i, &a, step);
    }
}

EK_INLINE EK_V void sum_chunk(int32_t *acc, const int8_t *x)
{
    vi w[4], s;
    ek_widen(x, w);
    EK_UNROLL for (int j = 0; j < 4; j++) {
        memcpy(&s, acc + j * LANES, sizeof s);
        s += w[j];
        memcpy(acc + j * LANES, &s, sizeof s);
    }
}

static EK_V void sum_s8(int32_t *acc, const int8_t *x, size_t n)
{
    for (; n >= BYTES; n -= BYTES, acc += BYTES, x += BYTES)
        sum_chunk(acc, x);
    for (size_t i = 0; i < n; i++)
        acc[i] += x[i];
}

#ifndef EK_SUM64
EK_INLINE EK_V void add_chunk(const int8_t *a, const int8_t *b, int8_t *y, const ek_add_s8 *p)
{
    const vi lo = (vi){ 0 } + p->lo, hi = (vi){ 0 } + p->hi;
    vi u[4], v[4];
    ek_widen(a, u);
    ek_widen(b, v);
    EK_UNROLL for (int j = 0; j < 4; j++) {
        vi s = (u[j] * p->ma + v[j] * p->mb + p->bias) >> (int32_t)p->shift, m = s > lo;
        s = (m & s) | (~m & lo);
        m = s < hi;
        u[j] = ((m & s) | (~m & hi)) + p->zero;
    }
    ek_narrow(u, y);
}
#endif

static EK_V void add_s8(const int8_t *a, const int8_t *b, int8_t *y, size_t n, const ek_add_s8 *of)
{
    const ek_add_s8 own = *of, *p = &own; /* y may lie over *of, for all that a compiler knows */
    for (; n >= BYTES; n -= BYTES, a += BYTES, b += BYTES, y += BYTES)
        add_chunk(a, b, y, p);
    if (n) {
        int8_t part[2][BYTES] = { { 0 } };
        memcpy(part[0], a, n);
        memcpy(part[1], b, n);
        add_chunk(part[0], part[1], part[0], p);
        memcpy(y, part[0], n);
    }
}

#ifndef EK_SUM64
EK_INLINE EK_V void mul_chunk(const int8_t *a, const int8_t *b, int8_t *y, const ek_mul_s8 *p)
{
    const vf lo = all(p->lo), hi = all(p->hi);
    vi u[4], v[4];
    ek_widen(a, u);
    ek_widen(b, v);
    EK_UNROLL for (int j = 0; j < 4; j++)
        u[j] = rint_int(clamp(to_float((u[j] - p->a_zero) * (v[j] - p->b_zero)) * p->scale, lo, hi)) + p->zero;
    ek_narrow(u, y);
}

/* a * by + plus are the products, whole numbers below 2^16 */
EK_INLINE EK_V void row_chunk(const int8_t *a, const float *by, const float *plus, int8_t *y, const ek_mul_s8 *p)
{
    const vf lo = all(p->lo), hi = all(p->hi);
    vi u[4];
    ek_widen(a, u);
    EK_UNROLL for (int j = 0; j < 4; j++) {
        vf f, o;
        memcpy(&f, by + j * LANES, sizeof f);
        memcpy(&o, plus + j * LANES, sizeof o);
        u[j] = rint_int(clamp((to_float(u[j]) * f + o) * p->scale, lo, hi)) + p->zero;
    }
    ek_narrow(u, y);
}
#endif

/* All rows are one run: b is repeated until every part of it that meets a vector lies in one piece, as floats. */
static EK_V void mul_rows(const int8_t *a, const int8_t *b, int8_t *y, size_t n, size_t rows, const ek_mul_s8 *p)
{
    int8_t again[ROW + 2 * BYTES];
    _Alignas(EK_VB) float by[ROW + 2 * BYTES], plus[ROW + 2 * BYTES];
    const ek_mul_s8 q = *p;
    size_t all_of = n * rows, at = 0, i = 0;
    memcpy(again, b, n);
    for (size_t j = 0; j < 2 * BYTES; j++) /* n may be small */
        again[n + j] = again[j];
    for (size_t j = 0; j < n + BYTES; j += BYTES) {
        vi u[4];
        ek_widen(again + j, u);
        EK_UNROLL for (size_t v = 0; v < 4; v++) {
            vf f = to_float(u[v] - q.b_zero), o = f * (float)-q.a_zero;
            memcpy(by + j + v * LANES, &f, sizeof f);
            memcpy(plus + j + v * LANES, &o, sizeof o);
        }
    }
    for (; i + BYTES <= all_of; i += BYTES) {
        row_chunk(a + i, by + at, plus + at, y + i, &q);
        at += BYTES % n;
        at -= at >= n ? n : 0;
    }
    if (i < all_of) {
        int8_t part[BYTES] = { 0 };
        memcpy(part, a + i, all_of - i);
        row_chunk(part, by + at, plus + at, part, &q);
        memcpy(y + i, part, all_of - i);
    }
}

static EK_V void mul_s8(const int8_t *a, const int8_t *b, int8_t *y, size_t n, size_t rows, const ek_mul_s8 *p)
{
    const ek_mul_s8 q = *p;
    if (rows > 1 && n <= ROW && p->scale < 32768.0f) {
        mul_rows(a, b, y, n, rows, &q);
        return;
    }
    for (; rows; rows--, a += n, y += n) {
        size_t i = 0;
        for (; i + BYTES <= n; i += BYTES)
            mul_chunk(a + i, b + i, y + i, &q);
        if (i < n) {
            int8_t part[2][BYTES] = { { 0 } };
            memcpy(part[0], a + i, n - i);
            memcpy(part[1], b + i, n - i);
            mul_chunk(part[0], part[1], part[0], &q);
            memcpy(y + i, part[0], n - i);
        }
    }
}

EK_INLINE EK_V void quantize_chunk(const float *x, int8_t *y, float scale, int32_t zero)
{
    const vf s = all(scale), lo = all((float)(-128 - zero)), hi = all((float)(127 - zero));
    vi q[4];
    EK_UNROLL for (int j = 0; j < 4; j++) {
        vf v;
        memcpy(&v, x + j * LANES, sizeof v);
        q[j] = rint_int(clamp(v / s, lo, hi)) + zero;
    }
    ek_narrow(q, y);
}

static EK_V void quantize(const float *x, int8_t *y, size_t n, float scale, int32_t zero)
{
    for (; n >= BYTES; n -= BYTES, x += BYTES, y += BYTES)
        quantize_chunk(x, y, scale, zero);
    if (n) {
        float part[BYTES] = { 0 };
        int8_t q[BYTES];
        memcpy(part, x, n * sizeof *x);
        quantize_chunk(part, q, scale, zero);
        memcpy(y, q, n);
    }
}

EK_INLINE EK_V void dequantize_chunk(const int8_t *x, float *y, float scale, int32_t zero)
{
    vi q[4];
    ek_widen(x, q);
    EK_UNROLL for (int j = 0; j < 4; j++) {
        vf v = to_float(q[j] - zero) * scale;
        memcpy(y + j * LANES, &v, sizeof v);
    }
}

static EK_V void dequantize(const int8_t *x, float *y, size_t n, float scale, int32_t zero)
{
    for (; n >= BYTES; n -= BYTES, x += BYTES, y += BYTES)
        dequantize_chunk(x, y, scale, zero);
    if (n) {
        int8_t part[BYTES] = { 0 };
        float v[BYTES];
        memcpy(part, x, n);
        dequantize_chunk(part, v, scale, zero);
        memcpy(y, v, n * sizeof *y);
    }
}

#ifdef EK_VROUND
EK_INLINE EK_V vf load_part(const float *x, size_t n, vf v)
{
    memcpy(&v, x, (n < LANES ? n : LANES) * sizeof *x);
    return v;
}

EK_INLINE EK_V float sum_lanes(vf v)
{
    float s = 0;
    for (int i = 0; i < LANES; i++)
        s += v[i];
    return s;
}

static EK_V void softmax_f32(const float *x, float *y, uint32_t n, float beta)
{
    vf top = all(x[0]), sum = all(0.0f), v;
    uint32_t i = 0, whole = n / LANES * LANES;
    for (; i < whole; i += LANES) {
        memcpy(&v, x + i, sizeof v);
        top = pick(v > top, v, top);
    }
    if (i < n) {
        v = load_part(x + i, n - i, top);
        top = pick(v > top, v, top);
    }
    float most = top[0];
    for (int j = 1; j < LANES; j++)
        most = top[j] > most ? top[j] : most;
    for (i = 0; i < whole; i += LANES) {
        memcpy(&v, x + i, sizeof v);
        v = v_exp((v - most) * beta);
        sum += v;
        memcpy(y + i, &v, sizeof v);
    }
    if (i < n) {
        vf e = v_exp((load_part(x + i, n - i, all(0.0f)) - most) * beta);
        memcpy(y + i, &e, (n - i) * sizeof *y);
        sum += load_part(y + i, n - i, all(0.0f));
    }
    float by = 1.0f / sum_lanes(sum);
    EK_EACH_F32(y, y, n, v * by);
}

static EK_V void norm_f32(const float *x, float *y, const ek_norm *p)
{
    uint32_t n = p->n, whole = n / LANES * LANES, i;
    vf sum = all(0.0f), square = all(0.0f), v;
    float mean = 0;
    for (i = 0; i < whole && !p->rms; i += LANES) {
        memcpy(&v, x + i, sizeof v);
        sum += v;
    }
    if (!p->rms)
        mean = sum_lanes(sum + load_part(x + whole, n - whole, all(0.0f))) / (float)n;
    for (i = 0; i < whole; i += LANES) {
        memcpy(&v, x + i, sizeof v);
        square += (v - mean) * (v - mean);
    }
    v = load_part(x + whole, n - whole, all(mean)) - mean;
    float r = 1.0f / ek_sqrt_f32(sum_lanes(square + v * v) / (float)n + p->eps);
    for (i = 0; i < n; i += LANES) {
        uint32_t some = n - i < LANES ? n - i : LANES;
        vf g = p->gamma ? load_part(p->gamma + i, some, all(0.0f)) : all(1.0f);
        vf b = p->beta ? load_part(p->beta + i, some, all(0.0f)) : all(0.0f);
        if (some == LANES) {
            memcpy(&v, x + i, sizeof v);
            v = (v - mean) * r * g + b;
            memcpy(y + i, &v, sizeof v);
        } else {
            v = (load_part(x + i, some, all(0.0f)) - mean) * r * g + b;
            memcpy(y + i, &v, some * sizeof *y);
        }
    }
}

EK_INLINE EK_V void norm_chunk(const int8_t *x, int8_t *y, const float *gamma, const float *beta, const ek_norm *p, int32_t scale,
                               int32_t sum, float r)
{
    const vf lo = all((float)(-128 - p->zero)), hi = all((float)(127 - p->zero));
    vi u[4];
    ek_widen(x, u);
    EK_UNROLL for (int j = 0; j < 4; j++) {
        vf g, b, t = to_float((u[j] - p->x_zero) * scale - sum) * r;
        memcpy(&g, gamma + j * LANES, sizeof g);
        memcpy(&b, beta + j * LANES, sizeof b);
        t *= g;
        EK_VROUND(t);
        t += b;
        u[j] = rint_int(clamp(t, lo, hi)) + p->zero;
    }
    ek_narrow(u, y);
}

/* the steps of row_s8 in ops/layer_norm.c */
static EK_V void norm_s8(const int8_t *x, int8_t *y, const ek_norm *p)
{
    enum { FLUSH = 256 * BYTES }; /* squares of so many fit an int32 lane */
    uint32_t n = p->n, whole = n / BYTES * BYTES, i = 0;
    int32_t sum = 0;
    int64_t square = 0;
    while (i < whole) {
        vi s = { 0 }, q = { 0 }, u[4];
        for (uint32_t end = whole - i < FLUSH ? whole : i + FLUSH; i < end; i += BYTES) {
            ek_widen(x + i, u);
            EK_UNROLL for (int j = 0; j < 4; j++) {
                u[j] -= p->x_zero;
                s += u[j];
                q += u[j] * u[j];
            }
        }
        for (int j = 0; j < LANES; j++) {
            sum += s[j];
            square += q[j];
        }
    }
    for (; i < n; i++) {
        int32_t d = x[i] - p->x_zero;
        sum += d;
        square += d * d;
    }
    float r = ek_norm_s8_scale(n, p->rms, p->eps, square, &sum);
    int32_t scale = p->rms ? 1 : (int32_t)n;
    for (i = 0; i < whole; i += BYTES)
        norm_chunk(x + i, y + i, p->gamma + i, p->beta + i, p, scale, sum, r);
    if (i < n) {
        int8_t part[BYTES] = { 0 };
        float gamma[BYTES] = { 0 }, beta[BYTES] = { 0 };
        memcpy(part, x + i, n - i);
        memcpy(gamma, p->gamma + i, (n - i) * sizeof *gamma);
        memcpy(beta, p->beta + i, (n - i) * sizeof *beta);
        norm_chunk(part, part, gamma, beta, p, scale, sum, r);
        memcpy(y + i, part, n - i);
    }
}
#endif

static void set_elementwise(ek_kernels *k)
{
#ifdef EK_VROUND
    EK_SET(k, softmax_f32, SOFTMAX_F32, softmax_f32, EK_VISA);
    EK_SET(k, norm_f32, NORM_F32, norm_f32, EK_VISA);
    EK_SET(k, norm_s8, NORM_S8, norm_s8, EK_VISA);
#endif
    EK_SET(k, add_s8, ADD_S8, add_s8, EK_VISA);
    EK_SET(k, mul_s8, MUL_S8, mul_s8, EK_VISA);
    EK_SET(k, max_s8, MAX_S8, max_s8, EK_VISA);
    EK_SET(k, max_f32, MAX_F32, max_f32, EK_VISA);
    EK_SET(k, sum_s8, SUM_S8, sum_s8, EK_VISA);
    EK_SET(k, sum_f32, SUM_F32, sum_f32, EK_VISA);
    EK_SET(k, quantize, QUANTIZE, quantize, EK_VISA);
    EK_SET(k, dequantize, DEQUANTIZE, dequantize, EK_VISA);
    EK_SET(k, unary_f32, UNARY_F32, unary_f32, EK_VISA);
    EK_SET(k, binary_f32, BINARY_F32, binary_f32, EK_VISA);
}
#endif
