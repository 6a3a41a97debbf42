/* Checks that ops share. */
#include "gemm.h"

uint64_t ek_div_u64(uint64_t n, uint32_t d)
{
#if UINTPTR_MAX > 0xffffffffu
    return n / d;
#else
    /* no helper of the compiler's is linked for it: one bit at a time, rarely */
    uint32_t high = (uint32_t)(n >> 32), low = (uint32_t)n, rest = high % d;
    if (!rest)
        return (uint64_t)(high / d) << 32 | low / d;
    uint32_t q = 0;
    for (int i = 0; i < 32; i++) {
        uint32_t carry = rest >> 31;
        rest = rest << 1 | low >> 31;
        low <<= 1;
        q <<= 1;
        if (carry || rest >= d) {
            rest -= d;
            q |= 1;
        }
    }
    return (uint64_t)(high / d) << 32 | q;
#endif
}

int ek_finite(float x) { return x - x == 0; }

int ek_same_shape(const ek_view *a, const ek_view *b)
{
    if (a->rank != b->rank)
        return 0;
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i])
            return 0;
    return 1;
}

int ek_is(const ek_view *v, uint32_t dtype, uint32_t rank)
{
    return v->rec && v->dtype == dtype && (rank == 0xffu || v->rank == rank);
}

int ek_quant_ok(const ek_view *v)
{
    return v->rec && (v->rec->place & EK_TENSOR_QUANTIZED) && v->scale > 0 && v->scale < 1.8e19f && v->zero >= -128 && v->zero <= 127;
}

int ek_bounds_ok(float lo, float hi, int32_t zero)
{
    return zero >= -128 && zero <= 127 && lo >= (float)(-128 - zero) && hi <= (float)(127 - zero) && lo <= hi
           && lo == (float)(int32_t)lo && hi == (float)(int32_t)hi;
}

int ek_variant_ok(const ek_variant *v, uint32_t dtype, uint64_t n, uint64_t k, uint32_t groups)
{
    if (v->dtype != dtype || !v->nr || !v->kr || v->nr > 64 || v->kr > 64 || (v->xoff != 0 && v->xoff != 128))
        return 0;
    if (v->nr % 4 && v->nr != 1 && v->nr != 2)
        return 0;
    if (n > 0xffffffu || k > 0xffffffu || groups > 0xffffu)
        return 0;
    uint64_t blocks = ((uint32_t)n + v->nr - 1) / v->nr, kp = ek_up((uint32_t)k, v->kr); /* below 2^24, as checked */
    uint64_t one = dtype == EK_F32 ? (uint64_t)v->nr * 4 * (1 + kp) : (uint64_t)v->nr * (8 + kp);
    if (EK_NARROW && (dtype == EK_I4 || dtype == EK_I2)) { /* whole bytes; copied before use, so they may lie anywhere */
        uint32_t shift = dtype == EK_I4 ? 1 : 2; /* 2 or 4 of them in a byte */
        return (v->nr * kp & ((1u << shift) - 1)) == 0 && groups * blocks * (8u * v->nr + (v->nr * kp >> shift)) <= v->bytes;
    }
    return one % 4 == 0 && groups * blocks * one <= v->bytes;
}

/* outputs along one axis; 0: none, or so many that places would not fit 32 bits */
static uint32_t spatial(uint32_t size, uint32_t kernel, uint32_t stride, uint32_t dilation, uint32_t pads)
{
    uint32_t span = (kernel - 1) * dilation; /* of 16-bit numbers: at most 2^32 - 2^18 */
    return size > 1u << 30 || size + pads <= span ? 0 : (size + pads - span - 1) / stride + 1;
}

int ek_window_ok(const ek_view *x, const ek_view *y, const uint16_t *stride, const uint16_t *dilation,
                 const uint16_t *pad, const uint16_t *kernel)
{
    if (x->rank != 4 || y->rank != 4 || x->dims[0] != y->dims[0])
        return 0;
    for (int i = 0; i < 2; i++)
        if (!stride[i] || !dilation[i] || !kernel[i]
            || y->dims[1 + i] != spatial(x->dims[1 + i], kernel[i], stride[i], dilation[i], (uint32_t)pad[i] + pad[i + 2]))
            return 0;
    return 1;
}
